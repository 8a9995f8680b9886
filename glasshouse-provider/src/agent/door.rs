//! Connections: how many there may be, how long one may take to say what it wants, and who has to go when it gets full.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Connections at one time. An owner uses a handful.
const MAX_GUESTS: usize = 256;
/// A request's head takes no longer, and a connection without a request lasts no longer.
const HEAD_DEADLINE: Duration = Duration::from_secs(12);
/// What is kept of a connection that was not read yet: a head, or a part of a body.
const BUFFER: usize = 1 << 16;
/// After an accept that failed, which is for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(20);

/// One connection.
#[derive(Default)]
pub(super) struct Guest {
    known: AtomicBool,
    leave: Notify,
}

impl Guest {
    /// The owner was here: this connection stays while others have to go.
    pub(super) fn recognize(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Guests {
    /// By the order in which they came.
    all: Mutex<BTreeMap<u64, Arc<Guest>>>,
}

impl Guests {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Guest>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in. When there is no room, the oldest one that has not shown the launch secret leaves: strangers push
    /// each other out, and whoever comes later always gets its turn.
    fn admit(&self, number: u64) -> Arc<Guest> {
        let mut all = self.all();
        if all.len() >= MAX_GUESTS {
            let oldest =
                all.iter().find(|(_, guest)| !guest.known.load(Ordering::Relaxed)).or_else(|| all.iter().next());
            if let Some(guest) = oldest.map(|(number, _)| *number).and_then(|number| all.remove(&number)) {
                guest.leave.notify_one();
            }
        }
        let guest = Arc::<Guest>::default();
        all.insert(number, guest.clone());
        guest
    }
}

/// Serves connections for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let guests = Arc::<Guests>::default();
    for number in 0.. {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (guests, guest, router) = (guests.clone(), guests.admit(number), router.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = talk(stream, router.layer(Extension(guest.clone()))) => {}
                () = guest.leave.notified() => {}
            }
            guests.all().remove(&number);
        });
    }
}

async fn talk(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let mut server = Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(BUFFER);
    // What goes wrong here is the other end's to notice.
    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_push_each_other_out_and_not_the_owner() {
        let guests = Guests::default();
        guests.admit(0);
        guests.admit(1).recognize();
        for number in 2..2000 {
            guests.admit(number);
        }
        let all = guests.all();
        assert_eq!(all.len(), MAX_GUESTS);
        assert!(all.contains_key(&1) && all.contains_key(&1999) && !all.contains_key(&0) && !all.contains_key(&2));
    }
}
