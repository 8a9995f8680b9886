//! Whose an allocation is, in its name.

use std::fmt;

use glasshouse_core::fixed::Fixed;
use sha2::{Digest as _, Sha256};

use super::SupervisorError;

/// Marks an owner's allocations: their names begin with `gh-OWNER-`. [`Supervisor::reap`](super::Supervisor::reap) ends
/// what bears the mark, so two people on one account of a provider need two of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerTag(String);

/// Why something is no owner's tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no owner's tag: use 1 to 20 of a-z and 0-9")]
pub struct BadOwnerTag {
    /// What was given.
    pub given: String,
}

impl OwnerTag {
    /// A tag of 1 to 20 letters and digits, lower case: providers restrict what may be in a name.
    ///
    /// # Errors
    /// [`BadOwnerTag`] when it is anything else.
    pub fn new(tag: &str) -> Result<Self, BadOwnerTag> {
        let is_plain = tag.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        match is_plain && (1..=20).contains(&tag.len()) {
            true => Ok(Self(tag.to_owned())),
            false => Err(BadOwnerTag { given: tag.to_owned() }),
        }
    }

    /// The same for every process of this user on this machine, and nothing that tells a provider who it is.
    pub fn of_this_user() -> Self {
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        let host = rustix::system::uname();
        let digest = Sha256::new()
            .chain_update(b"glasshouse owner")
            .chain_update(machine)
            .chain_update(host.nodename().to_bytes())
            .chain_update(rustix::process::getuid().as_raw().to_be_bytes())
            .finalize();
        Self(hex::encode(digest.get(..4).unwrap_or_default()))
    }

    /// What the names of this owner's allocations begin with.
    pub fn prefix(&self) -> String {
        format!("gh-{}-", self.0)
    }

    /// A name that no allocation had before.
    pub(super) fn fresh_name(&self) -> Result<String, SupervisorError> {
        let unique = Fixed::<8>::random().map_err(|_| SupervisorError::NoRandomness)?;
        Ok(format!("{}{unique}", self.prefix()))
    }
}

impl fmt::Display for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_plain_and_one_owner_is_no_part_of_another() {
        for bad in ["", "Alice", "a-b", "a b", "ä", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert_eq!(OwnerTag::new(bad), Err(BadOwnerTag { given: bad.to_owned() }));
        }
        let (ann, anna) = (OwnerTag::new("ann").unwrap(), OwnerTag::new("anna").unwrap());
        assert!(!anna.fresh_name().unwrap().starts_with(&ann.prefix()));
        assert_ne!(ann.fresh_name().unwrap(), ann.fresh_name().unwrap());
        let own = OwnerTag::of_this_user();
        assert_eq!(own, OwnerTag::of_this_user());
        assert_eq!(OwnerTag::new(&own.to_string()), Ok(own));
    }
}
