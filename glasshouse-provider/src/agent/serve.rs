//! From the start of the agent's process to its end.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Nonce32;
use glasshouse_core::secret::Secret;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::auth::Gatekeeper;
use super::door;
use super::own_end::end_allocation;
use super::packages::Packages;
use super::routes;
use super::segments::Segments;
use crate::grace;
use crate::local::AgentReport;
use crate::roles::{Hold, Launch, OwnEnd, enter_agent, note};

/// What all requests share.
pub(super) struct Agent {
    pub(super) launch: Launch,
    pub(super) gatekeeper: Gatekeeper,
    pub(super) packages: Packages,
    pub(super) segments: Segments,
    pub(super) end: mpsc::Sender<Ending>,
}

/// Why an agent ends.
pub(super) enum Ending {
    /// Somebody says so, or holds it no longer: whoever that is sees to the allocation.
    Told(String),
    /// Nobody has been heard of for the linger time, so nobody will end the allocation either.
    Alone(String),
}

/// Serves until the owner is gone, says so, or a signal comes. Gives the process's exit code.
pub(crate) fn main() -> i32 {
    // Its own session, so that the terminal's signals go to the owner alone and the whole of it can be ended by id.
    // In a container the agent leads one already.
    let _ = rustix::process::setsid();
    let (launch, secret) = match enter_agent() {
        Ok(entered) => entered,
        Err(e) => return fail(&e.to_string()),
    };
    // One thread: segments ask the kernel for a signal when the thread that started them dies, and this one lives as
    // long as the process.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("cannot start: {e}")),
    };
    let code = runtime.block_on(serve(launch, secret));
    // Threads that wait on files or on standard input hold nothing that needs them to finish.
    runtime.shutdown_background();
    code
}

async fn serve(launch: Launch, secret: Secret<32>) -> i32 {
    let (scratch, _own_scratch) = match scratch(&launch) {
        Ok(scratch) => scratch,
        Err(e) => return fail(&format!("cannot make a directory for packages: {e}; set TMPDIR")),
    };
    let listener = match TcpListener::bind(launch.bind).await {
        Ok(listener) => listener,
        Err(e) => return fail(&bind_error(launch.bind, &e)),
    };
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(e) => return fail(&format!("cannot read the port: {e}")),
    };
    let Ok(boot) = Nonce32::random() else { return fail("the operating system gives no randomness") };
    let (end, mut ends) = mpsc::channel(4);
    let agent = Arc::new(Agent {
        gatekeeper: Gatekeeper::new(&secret, boot),
        packages: Packages::new(scratch.join("packages")),
        segments: Segments::new(secret, boot, scratch.join("segments")),
        launch,
        end: end.clone(),
    });
    watch_owner(&agent, end);
    report(&AgentReport::Listening(address));
    note(format_args!("agent {} listens on {address}", agent.launch.name));
    let server = door::serve(listener, routes::router(agent.clone()));
    let ending = tokio::select! {
        ending = ends.recv() => ending.unwrap_or_else(|| Ending::Told(String::new())),
        () = server => Ending::Told("the server stopped".to_owned()),
    };
    let (Ending::Told(reason) | Ending::Alone(reason)) = &ending;
    note(format_args!("agent ends: {reason}"));
    let own_end = match &ending {
        Ending::Alone(_) => agent.launch.own_end.clone(),
        Ending::Told(_) => None,
    };
    let segments = agent.segments.end_all(grace::AGENT_KILLS, grace::AGENT_LETS_GO);
    let told = async { drop(ends.recv().await) };
    finish(own_end, segments, told, &scratch, grace::AGENT, || std::process::exit(70)).await; // EX_SOFTWARE
    0
}

/// Ends the segments, then the allocation where nobody else does, and removes the scratch folder last: its size is the
/// owner's, and none of it is worth a price. `give_up` once that takes longer than `limit`, whatever this thread waits for,
/// and never before the allocation's end was asked for. `told` comes when somebody else wants the end meanwhile.
async fn finish(
    own_end: Option<OwnEnd>,
    segments: impl Future<Output = ()>,
    told: impl Future<Output = ()>,
    scratch: &Path,
    limit: Duration,
    give_up: impl Fn() + Clone + Send + 'static,
) {
    let letting_go = InTime::or(limit, {
        let (own_end, give_up) = (own_end.clone(), give_up.clone());
        move || {
            note(format_args!("the agent did not end in time; the kernel ends it and its segments"));
            if let Some(own_end) = own_end
                && let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            {
                runtime.block_on(end_allocation(&own_end));
            }
            give_up();
        }
    });
    segments.await;
    let removing = match own_end {
        None => letting_go,
        // The other thread asks, and ends this process.
        Some(_) if !letting_go.is_done() => return std::future::pending().await,
        Some(own_end) => {
            // Nothing of the owner's is left in here that is not sealed. What is left is the allocation, and its price.
            tokio::select! {
                () = end_allocation(&own_end) => {}
                // A signal, for one: whoever sends it ends the container.
                () = told => {}
            }
            InTime::or(limit, give_up)
        }
    };
    let _ = std::fs::remove_dir_all(scratch);
    removing.is_done();
}

/// Something that is done in time, or else: by a thread of its own, since what is waited for may hold this one.
struct InTime(Arc<AtomicBool>);

impl InTime {
    fn or(limit: Duration, or_else: impl FnOnce() + Send + 'static) -> Self {
        let decided = Arc::new(AtomicBool::new(false));
        let late = decided.clone();
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            if !late.swap(true, Ordering::AcqRel) {
                or_else();
            }
        });
        Self(decided)
    }

    /// It is done; whether that was in time.
    fn is_done(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// The directory for ciphertext: the one that the owner made and removes, or one of the agent's own.
fn scratch(launch: &Launch) -> std::io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let (path, own) = match &launch.scratch {
        Some(path) => (path.clone(), None),
        None => {
            let own = tempfile::Builder::new().prefix("glasshouse-agent-").tempdir()?;
            (own.path().to_owned(), Some(own))
        }
    };
    for folder in ["packages", "segments"] {
        std::fs::create_dir_all(path.join(folder))?;
    }
    Ok((path, own))
}

/// Ends the agent when a signal comes or its owner is gone: by end-of-file, by the owner's process being gone should
/// someone else hold the pipe open, or by silence over the linger time.
fn watch_owner(agent: &Arc<Agent>, end: mpsc::Sender<Ending>) {
    let linger = agent.launch.linger();
    match agent.launch.hold {
        Hold::Pipe => {
            let end = end.clone();
            std::thread::spawn(move || {
                let mut sink = [0; 64];
                while matches!(std::io::stdin().lock().read(&mut sink), Ok(1..)) {}
                let _ = end.blocking_send(Ending::Told("the owner is gone (its pipe closed)".to_owned()));
            });
        }
        Hold::Linger => {
            let (agent, end) = (agent.clone(), end.clone());
            tokio::spawn(async move {
                loop {
                    let left = linger.saturating_sub(agent.gatekeeper.silence());
                    if left.is_zero() {
                        break;
                    }
                    tokio::time::sleep(left.min(Duration::from_secs(1)).max(Duration::from_millis(10))).await;
                }
                let _ = end.send(Ending::Alone(format!("no owner for {} s", linger.as_secs()))).await;
            });
        }
    }
    if let Some(owner) = agent.launch.owner {
        let end = end.clone();
        tokio::spawn(async move {
            while owner.is_alive() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let _ = end.send(Ending::Told("the owner is gone (its process ended)".to_owned())).await;
        });
    }
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let end = end.clone();
        tokio::spawn(async move {
            let Ok(mut signals) = signal(kind) else { return };
            signals.recv().await;
            let _ = end.send(Ending::Told(format!("signal {}", kind.as_raw_value()))).await;
        });
    }
}

fn bind_error(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("port {} on {} is in use; choose another, or 0 for any free one", address.port(), address.ip())
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

/// Tells whoever started this agent, on standard output, which then closes.
fn report(report: &AgentReport) {
    if let Ok(line) = serde_json::to_string(report) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
    let _ = rustix::stdio::dup2_stdout(std::io::stderr());
}

fn fail(why: &str) -> i32 {
    note(format_args!("{why}"));
    report(&AgentReport::Failed(why.to_owned()));
    1
}

/// When something last happened.
pub(super) struct Contact(std::sync::Mutex<Instant>);

impl Contact {
    pub(super) fn now() -> Self {
        Self(std::sync::Mutex::new(Instant::now()))
    }

    pub(super) fn touch(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn silence(&self) -> Duration {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What happened, in order, when segments took so long to end.
    async fn order(segments: impl Future<Output = ()>, limit: Duration, gives_up: bool) -> Vec<&'static str> {
        let happened = Arc::<Mutex<Vec<&'static str>>>::default();
        let say = |what| {
            let happened = happened.clone();
            move || happened.lock().unwrap().push(what)
        };
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("package"), "sealed").unwrap();
        let kept = scratch.path().to_owned();
        let (asked, is_kept) = (say("asked"), move || kept.join("package").exists());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_end = OwnEnd {
            collection: format!("http://{}/pods/", listener.local_addr().unwrap()),
            // Set in every test: an id and a key as good as any.
            id_variable: "CARGO_PKG_VERSION_MAJOR".into(),
            key_variable: "CARGO_PKG_NAME".into(),
        };
        // The provider, on a thread of its own: the agent's may be held.
        let provider = listener.into_std().unwrap();
        std::thread::spawn(move || {
            provider.set_nonblocking(false).unwrap();
            let (mut stream, _) = provider.accept().unwrap();
            let count = stream.read(&mut [0; 4096]).unwrap();
            assert!(count > 0 && is_kept(), "what is only sealed bytes goes last");
            asked();
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
        });
        let (gave_up, mut giving_up) = mpsc::unbounded_channel();
        let exit = say("gave up");
        let exit = move || {
            exit();
            let _ = gave_up.send(());
        };
        let finished = finish(Some(own_end), segments, std::future::pending(), scratch.path(), limit, exit);
        tokio::select! {
            () = finished => assert!(!gives_up && !scratch.path().exists()),
            _ = giving_up.recv() => assert!(gives_up),
        }
        let happened = happened.lock().unwrap();
        happened.clone()
    }

    #[tokio::test]
    async fn no_agent_is_given_up_before_the_end_of_its_allocation_was_asked_for() {
        let (brief, long) = (Duration::from_millis(300), Duration::from_secs(30));
        assert_eq!(order(async {}, long, false).await, ["asked"]);
        // It never ends, and: it holds the only thread that the agent has.
        assert_eq!(order(std::future::pending(), brief, true).await, ["asked", "gave up"]);
        let held = async {
            std::thread::sleep(Duration::from_millis(900));
        };
        assert_eq!(order(held, brief, true).await, ["asked", "gave up"]);
    }
}
