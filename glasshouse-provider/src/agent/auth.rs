//! Every request carries a MAC of the launch secret over itself and a counter that is taken once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use glasshouse_core::fixed::{Digest48, Fixed};
use glasshouse_core::secret::Secret;

use super::routes::refuse;
use super::serve::{Agent, Contact};
use crate::wire::{
    COUNTER_HEADER, MAC_HEADER, MAX_MESSAGE, MAX_PIECE, MacKey, RequestHead, ResponseHead, WireCode, WireError,
};

/// How far behind the highest counter a late request may be: requests in flight together can overtake each other.
const WINDOW: u64 = 1024;
/// A body that takes longer is not coming.
const BODY_DEADLINE: Duration = Duration::from_secs(50);
/// An answer of the agent's own is never larger: records come in pages, artifacts in ranges.
const MAX_ANSWER: usize = 2 * MAX_PIECE;

pub(super) struct Gatekeeper {
    key: MacKey,
    taken: Mutex<Taken>,
    contact: Contact,
}

impl Gatekeeper {
    pub(super) fn new(launch_secret: &Secret<32>) -> Self {
        Self { key: MacKey::derive(launch_secret), taken: Mutex::default(), contact: Contact::now() }
    }

    /// Time since the last request that was the owner's.
    pub(super) fn silence(&self) -> Duration {
        self.contact.silence()
    }

    /// Gives the request's MAC when the request is the owner's and new.
    fn admit(&self, parts: &axum::http::request::Parts, body: &[u8]) -> Result<Digest48, WireError> {
        let (counter, mac) = credentials(&parts.headers)?;
        let head = RequestHead {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            counter,
            body,
        };
        if !self.key.check_request(&head, &mac) {
            return Err(WireError::new(
                WireCode::Unauthenticated,
                "the request's MAC does not verify; use this allocation's launch secret",
            ));
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.take(counter) {
            return Err(WireError::new(WireCode::Replayed, format_args!("counter {counter} was used before")));
        }
        self.contact.touch();
        Ok(mac)
    }
}

/// Counters that were taken: each one once, none further than the window behind the highest (as in RFC 6479).
#[derive(Default)]
struct Taken {
    highest: u64,
    recent: BTreeSet<u64>,
}

impl Taken {
    fn take(&mut self, counter: u64) -> bool {
        let floor = self.highest.saturating_sub(WINDOW);
        if counter <= floor || !self.recent.insert(counter) {
            return false;
        }
        self.highest = self.highest.max(counter);
        let floor = self.highest.saturating_sub(WINDOW);
        self.recent = self.recent.split_off(&floor);
        true
    }
}

/// Reads the body under its limit, admits the request, and puts a MAC on the answer.
pub(super) async fn authenticated(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // Before a byte of the body is taken, so that a stranger costs no memory.
    if let Err(e) = credentials(&parts.headers) {
        return refuse(&e);
    }
    let limit = if parts.uri.path().contains("/packages/") { MAX_PIECE } else { MAX_MESSAGE };
    let body = match tokio::time::timeout(BODY_DEADLINE, to_bytes(body, limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let message = format!("the body is not readable within its limit of {limit} bytes");
            return refuse(&WireError::new(WireCode::TooLarge, message));
        }
        Err(_) => return refuse(&WireError::new(WireCode::Malformed, "the body did not arrive in time")),
    };
    let mac = match agent.gatekeeper.admit(&parts, &body) {
        Ok(mac) => mac,
        Err(e) => return refuse(&e),
    };
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    agent.gatekeeper.contact.touch();
    sign(&agent.gatekeeper.key, &mac, answer).await
}

async fn sign(key: &MacKey, request: &Digest48, answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, MAX_ANSWER).await.unwrap_or_else(|_| Bytes::new());
    let mac = key.response(&ResponseHead { request, status: parts.status.as_u16(), body: &body });
    if let Ok(value) = HeaderValue::from_str(&mac.to_string()) {
        parts.headers.insert(MAC_HEADER, value);
    }
    Response::from_parts(parts, Body::from(body))
}

fn credentials(headers: &HeaderMap) -> Result<(u64, Digest48), WireError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let counter = text(COUNTER_HEADER).and_then(|text| text.parse().ok());
    let mac = text(MAC_HEADER).and_then(Fixed::from_hex);
    counter
        .zip(mac)
        .ok_or_else(|| WireError::new(WireCode::Unauthenticated, "every request carries gh-counter and gh-mac"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_taken_once() {
        let mut taken = Taken::default();
        for (counter, fresh) in [(5, true), (5, false), (7, true), (6, true), (6, false), (0, false)] {
            assert_eq!(taken.take(counter), fresh, "{counter}");
        }
        assert!(taken.take(7 + WINDOW + 10));
        assert!(!taken.take(8));
        assert!(taken.take(7 + WINDOW + 9));
        assert!(taken.recent.len() <= WINDOW as usize + 1);
    }
}
