use glasshouse_core::clock::UnixMillis;
use glasshouse_core::refusal::Refusal;
use serde::Deserialize;

use super::codes::{self, refuse};

/// When a token is valid, in seconds (RFC 7519 sections 4.1.4 to 4.1.6). All three are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Times {
    exp: u64,
    nbf: u64,
    iat: u64,
}

impl Times {
    /// Expired from `exp` on; `nbf` and `iat` may lie `ahead` seconds in the future.
    pub(super) fn check(self, at: UnixMillis, ahead: u32) -> Result<(), Refusal> {
        let millis = |seconds: u64| UnixMillis(seconds.saturating_mul(1000));
        if at >= millis(self.exp) {
            return Err(refuse(codes::EXPIRED, format_args!("a token that is valid at {at}"), millis(self.exp)));
        }
        let begins = millis(self.nbf.max(self.iat));
        let latest = at.after(std::time::Duration::from_secs(ahead.into()));
        if begins > latest || self.exp < self.iat {
            return Err(refuse(codes::NOT_YET_VALID, format_args!("a token that is valid at {at}"), begins));
        }
        Ok(())
    }

    /// `iat`.
    pub(super) fn issued(self) -> UnixMillis {
        UnixMillis(self.iat.saturating_mul(1000))
    }
}
