//! Every request carries a MAC of the launch secret over its head, which holds the body's digest, this agent's boot id, and
//! a counter that is taken once. A stranger is turned away on the head alone.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use glasshouse_core::fixed::{Digest48, Fixed, Nonce32};
use glasshouse_core::secret::Secret;
use glasshouse_core::transcript::sha384;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::door::Guest;
use super::routes::refuse;
use super::serve::{Agent, Contact};
use crate::wire::{
    BODY_HEADER, BOOT_HEADER, COUNTER_HEADER, MAC_HEADER, MAX_MESSAGE, MAX_PIECE, MacKey, RequestHead, ResponseHead,
    WireCode, WireError,
};

/// How far behind the highest counter a late request may be: requests in flight together can overtake each other.
const WINDOW: u64 = 1024;
/// A body that takes longer is not coming.
const BODY_DEADLINE: Duration = Duration::from_secs(50);
/// Bodies of all requests together, from the first byte until the request is done.
const BODIES: usize = 8 * MAX_PIECE;
/// An answer of the agent's own is never larger: records come in pages, artifacts in ranges.
const MAX_ANSWER: usize = 2 * MAX_PIECE;

pub(super) struct Gatekeeper {
    key: MacKey,
    boot: Nonce32,
    taken: Mutex<Taken>,
    bodies: Arc<Semaphore>,
    contact: Contact,
}

/// What a request's headers say of it.
struct Credentials {
    boot: Option<Nonce32>,
    counter: u64,
    body: Digest48,
    mac: Digest48,
}

impl Gatekeeper {
    /// `boot` is random for each start of the agent: what was sent to an earlier one is nothing to this one.
    pub(super) fn new(launch_secret: &Secret<32>, boot: Nonce32) -> Self {
        let bodies = Arc::new(Semaphore::new(BODIES));
        Self { key: MacKey::derive(launch_secret), boot, taken: Mutex::default(), bodies, contact: Contact::now() }
    }

    pub(super) const fn boot(&self) -> Nonce32 {
        self.boot
    }

    /// Time since the last request that was the owner's.
    pub(super) fn silence(&self) -> Duration {
        self.contact.silence()
    }

    /// Whether someone with the launch secret made this head.
    fn is_authentic(&self, parts: &Parts, given: &Credentials) -> bool {
        let head = RequestHead {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            boot: given.boot.as_ref(),
            counter: given.counter,
            body: &given.body,
        };
        self.key.check_request(&head, &given.mac)
    }

    /// Whether an authentic request is new, and for this process. Only `hello` may come from someone who does not know
    /// it yet; it changes nothing, and does not count as a sign of the owner.
    fn admit(&self, parts: &Parts, given: &Credentials) -> Result<(), WireError> {
        match given.boot {
            Some(boot) if boot == self.boot => {}
            None if parts.method == "GET" && parts.uri.path() == "/v1/hello" => {}
            None => {
                return Err(WireError::new(WireCode::Unauthenticated, "all requests but hello carry gh-boot"));
            }
            Some(_) => {
                let message = "the agent was started anew since the owner met it; its segments are lost";
                return Err(WireError::new(WireCode::Restarted, message));
            }
        }
        let counter = given.counter;
        if !self.taken.lock().unwrap_or_else(PoisonError::into_inner).take(counter) {
            return Err(WireError::new(WireCode::Replayed, format_args!("counter {counter} was used before")));
        }
        if given.boot.is_some() {
            self.contact.touch();
        }
        Ok(())
    }

    /// The body, and its share of what all bodies together may take.
    async fn body(
        &self,
        path: &str,
        body: Body,
        digest: &Digest48,
    ) -> Result<(Bytes, OwnedSemaphorePermit), WireError> {
        let limit = if path.contains("/packages/") { MAX_PIECE } else { MAX_MESSAGE };
        let too_large =
            || WireError::new(WireCode::TooLarge, format_args!("the body is larger than its limit of {limit} bytes"));
        let announced = body.size_hint().upper().map_or(limit, |upper| usize::try_from(upper).unwrap_or(usize::MAX));
        let share = u32::try_from(announced).ok().filter(|_| announced <= limit).ok_or_else(too_large)?;
        let read = async {
            // Closed only with the agent.
            let share = self.bodies.clone().acquire_many_owned(share).await.ok()?;
            Some((to_bytes(body, limit).await, share))
        };
        match tokio::time::timeout(BODY_DEADLINE, read).await {
            Ok(Some((Ok(body), share))) if sha384(&body) == *digest => Ok((body, share)),
            Ok(Some((Ok(_), _))) => {
                Err(WireError::new(WireCode::Unauthenticated, "the body is not the one that gh-body names"))
            }
            Ok(Some((Err(_), _))) => Err(too_large()),
            Ok(None) => Err(WireError::new(WireCode::ShuttingDown, "the agent ends")),
            Err(_) => Err(WireError::new(WireCode::Malformed, "the body did not arrive in time")),
        }
    }

    async fn sign(&self, request: &Digest48, answer: Response) -> Response {
        let (mut parts, body) = answer.into_parts();
        let body = to_bytes(body, MAX_ANSWER).await.unwrap_or_else(|_| Bytes::new());
        let mac = self.key.response(&ResponseHead { request, status: parts.status.as_u16(), body: &body });
        if let Ok(value) = HeaderValue::from_str(&mac.to_string()) {
            parts.headers.insert(MAC_HEADER, value);
        }
        Response::from_parts(parts, Body::from(body))
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

/// Checks the head, then reads the body under its limit, has the request done, and puts a MAC on the answer. Whoever
/// does not know the launch secret costs a head and no more, and gets an answer without a MAC.
pub(super) async fn authenticated(
    State(agent): State<Arc<Agent>>,
    Extension(guest): Extension<Arc<Guest>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let given = match credentials(&parts.headers) {
        Ok(given) => given,
        Err(e) => return refuse(&e),
    };
    let gatekeeper = &agent.gatekeeper;
    if !gatekeeper.is_authentic(&parts, &given) {
        let message = "the request's MAC does not verify; use this allocation's launch secret";
        return refuse(&WireError::new(WireCode::Unauthenticated, message));
    }
    // With a MAC, though it was sent before or to another agent: the owner may well ask why.
    if let Err(e) = gatekeeper.admit(&parts, &given) {
        return gatekeeper.sign(&given.mac, refuse(&e)).await;
    }
    if given.boot.is_some() {
        guest.recognize();
    }
    let answer = match gatekeeper.body(parts.uri.path(), body, &given.body).await {
        Ok((body, share)) => done(Request::from_parts(parts, Body::from(body)), next, share).await,
        Err(e) => refuse(&e),
    };
    if given.boot.is_some() {
        gatekeeper.contact.touch();
    }
    gatekeeper.sign(&given.mac, answer).await
}

/// Has an admitted request done to its end, whether or not somebody still waits for the answer: a broken connection drops
/// what waits, and must not leave half a message in a segment's pipe, or an answer there for the next question.
async fn done(request: Request, next: Next, share: OwnedSemaphorePermit) -> Response {
    let work = tokio::spawn(async move {
        let answer = next.run(request).await;
        drop(share);
        answer
    });
    match work.await {
        Ok(answer) => answer,
        Err(_) => refuse(&WireError::new(WireCode::Machine, "the agent could not do it; its log says why")),
    }
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, WireError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let read = || {
        let boot = match text(BOOT_HEADER) {
            Some(boot) => Some(Fixed::from_hex(boot)?),
            None => None,
        };
        let counter = text(COUNTER_HEADER)?.parse().ok()?;
        let (body, mac) = (Fixed::from_hex(text(BODY_HEADER)?)?, Fixed::from_hex(text(MAC_HEADER)?)?);
        Some(Credentials { boot, counter, body, mac })
    };
    let message = "every request carries gh-counter, gh-body and gh-mac, and all but hello gh-boot";
    read().ok_or_else(|| WireError::new(WireCode::Unauthenticated, message))
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
