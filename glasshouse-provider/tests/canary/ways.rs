//! Each way out of a run, with the scans on both sides of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Fixed;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{Receipt, WorkloadError};
use glasshouse_provider::local::LocalProvider;
use glasshouse_provider::run::ProtectedRun;
use rustix::process::Signal;

use crate::barrier::{BARRIER_AT, FOLDER, hidden};
use crate::planted;
use crate::scan::{ENCODINGS, Found, Hidden, LARGE, in_core, through_proc};
use crate::support::{
    FIXED_MEASUREMENT, Listener, MEASURES_NOTHING, Test, block_on, container, eventually, kill, skip,
};

#[allow(dead_code)] // not where this file is shared
pub(crate) const TESTS: &[Test] = &[
    ("the_allocator_is_in_place", the_allocator_is_in_place),
    ("each_way_out", || wiped_two_at_a_time(&[WAITING, QUICK].concat())),
    ("without_wiping_it_is_found", without_wiping_it_is_found),
];

pub(crate) const QUICK: &[&str] =
    &["return", "error", "panic", "allocation", "device", "sigterm", "sigint", "sighup", "sigquit", "steps"];
/// The end of a lease; and an owner who is gone, which leaves a segment four seconds.
pub(crate) const WAITING: &[&str] = &["lease", "owner-gone"];

/// What makes the segment take this way; the rest its workload does, see [`way_out`].
fn way(name: &str) -> Way {
    let of = |signal| Way { signal: Some(signal), ..Way::default() };
    match name {
        "sigterm" => of(Signal::TERM),
        "sigint" => of(Signal::INT),
        "sighup" => of(Signal::HUP),
        "sigquit" => of(Signal::QUIT),
        "lease" => Way { ttl: Some(planted::LEASE), ..Way::default() },
        "steps" => Way { max_units: Some(BARRIER_AT + 3), ..Way::default() },
        "owner-gone" => Way { owner_goes: true, ..Way::default() },
        _ => Way::default(),
    }
}

/// What goes wrong once the barrier is passed.
pub(crate) fn way_out(way: &str, done: u64) -> Result<(), WorkloadError> {
    let device = |why: String| WorkloadError::Device { what: "a step".to_owned(), why };
    match way {
        "error" => Err(WorkloadError::NotFinite { loss: f64::NAN, done }),
        "panic" => panic!("asked to"),
        "allocation" => match SecretBuffer::try_zeroed(usize::MAX / 4) {
            Ok(_) => panic!("no machine has as much memory"),
            Err(error) => Err(device(error.to_string())),
        },
        // What a workload makes of what CUDA says; the twin of it, without a device.
        "device" => Err(device("CUDA_ERROR_ILLEGAL_ADDRESS, an illegal memory access was encountered".to_owned())),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Way {
    /// Sent to the segment while it trains.
    signal: Option<Signal>,
    ttl: Option<Duration>,
    max_units: Option<u64>,
    /// The agent dies, and with it the owner's hold on the segment.
    owner_goes: bool,
}

/// What was found on one side: by the process itself, through `/proc`, in a core; and by the allocator.
struct Seen {
    views: Vec<(&'static str, Found)>,
    /// Small blocks, and large ones.
    freed_with_canary: [u64; 2],
}

pub(crate) fn the_allocator_is_in_place() {
    assert!(ZeroOnFree::is_installed());
}

/// These ways, two at a time: most of a run is waiting.
pub(crate) fn wiped_two_at_a_time(names: &[&str]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Relaxed)) {
                    let began = Instant::now();
                    wiped(name);
                    println!("  {name}: as it should be, after {:?}", began.elapsed());
                }
            });
        }
    });
}

fn wiped(name: &str) {
    let [before, after] = scanned(name, way(name));
    for (view, found) in &before.views {
        let cannot = ENCODINGS.iter().zip(found).filter(|(_, found)| **found == 0).map(|(name, _)| *name);
        assert_eq!(cannot.collect::<Vec<_>>(), Vec::<&str>::new(), "{name}: {view} cannot see these while training");
        assert_eq!(found[LARGE], 2, "{name}: {view}: copies in large blocks");
        println!("  {name}: while training {view} finds {found:?} of {ENCODINGS:?}");
    }
    for (view, found) in &after.views {
        assert_eq!(*found, [0; 4], "{name}: {view} finds the canary after zeroization");
    }
    assert_eq!(after.freed_with_canary, [0; 2], "{name}: blocks were freed with the canary in them");
}

/// The same with the zero-on-free allocator turned off: then these scans must find something, or they show nothing.
pub(crate) fn without_wiping_it_is_found() {
    let [_, after] = scanned("unwiped", way("unwiped"));
    let [small, large] = after.freed_with_canary;
    assert!(small > 0 && large == 2, "the allocator's look at freed blocks sees too little: {small}, {large}");
    for (view, found) in &after.views {
        println!("  unwiped: after zeroization {view} finds {found:?} of {ENCODINGS:?}");
        assert!(found[..LARGE].iter().sum::<u64>() > 0, "{view} has no power");
        assert_eq!(found[LARGE], 2, "{view}: copies in large blocks");
    }
}

fn scanned(name: &str, way: Way) -> [Seen; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let canary = planted::canary();
    std::fs::write(path.join("complement"), canary.map(|byte| !byte)).unwrap();
    let package = path.join("job.package");
    let sealed = planted::package(&canary, name).seal_to_file(&package).unwrap();
    let ttl = way.ttl.unwrap_or(Duration::from_secs(3600));
    let run = ProtectedRun::builder()
        .provider(LocalProvider::new().container(container()))
        .verifier(Listener { refuse: false })
        .package(package, sealed)
        .out_dir(path.join("out"))
        .env(FOLDER, path.to_str().unwrap())
        .env(MEASURES_NOTHING, "1")
        .env("RUST_BACKTRACE", "0") // reading symbols takes minutes while every freed block is looked at
        .runtime_measurement(Fixed(FIXED_MEASUREMENT))
        .lease(LeaseTerms { ttl, max_units: way.max_units })
        .budget(if way.ttl.is_some() || way.max_units.is_some() || way.signal.is_some() || way.owner_goes {
            Budget::Units(100_000)
        } else {
            Budget::Units(BARRIER_AT + 5)
        })
        .leave_signals();
    let owner = std::thread::spawn(move || block_on(run.run()).map_err(|failure| failure.to_string()));

    let canary = hidden(path);
    let (pid, before) = seen_at("training", path, &canary, true, &owner);
    if let Some(signal) = way.signal {
        kill(pid, signal);
    }
    if way.owner_goes {
        kill(parent_of(pid), Signal::KILL);
    }
    if way.ttl.is_some() {
        let began = std::fs::metadata(path.join("training")).unwrap().modified().unwrap();
        eventually("the lease is over", ttl * 2, || began.elapsed().is_ok_and(|age| age > ttl));
    }
    std::fs::write(path.join("training-on"), "").unwrap();
    // Without its owner a segment has seconds left, too few for gdb.
    let (_, after) = seen_at("wiped", path, &canary, !way.owner_goes, &owner);
    std::fs::write(path.join("wiped-on"), "").unwrap();
    let ended = owner.join().unwrap();
    let good = name == "return" || name == "unwiped";
    assert_eq!(ended.is_ok(), good, "{name}: {:?}", ended.as_ref().err());
    // Where it was turned off, the allocator does not count as installed.
    if name != "unwiped" {
        let receipt: Receipt = serde_json::from_slice(&std::fs::read(path.join("receipt")).unwrap()).unwrap();
        let (large, small) =
            receipt.large_blocks.zip(receipt.small_blocks).expect("a protected segment guards its blocks");
        assert!(large.peak_bytes >= 40 << 20, "{name}: {large:?}");
        assert!(small.page_bytes > 0 && small.ordinary_bytes == 0, "{name}: {small:?}");
    }
    [before, after]
}

fn seen_at<T>(barrier: &str, folder: &Path, canary: &Hidden, core: bool, owner: &JoinHandle<T>) -> (u32, Seen) {
    let path: PathBuf = folder.join(barrier);
    let began = Instant::now();
    eventually("the barrier is reached", Duration::from_secs(120), || path.exists() || owner.is_finished());
    assert!(path.exists(), "the run ended before the barrier {barrier}");
    let text = std::fs::read_to_string(&path).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [pid, raw, f32s, tokens, large, freed, freed_large] = numbers[..] else { panic!("{text}") };
    let pid = u32::try_from(pid).unwrap();
    let mut views = vec![("the process itself", [raw, f32s, tokens, large])];
    views.push(("/proc/PID/mem", through_proc(pid, canary)));
    match core.then(|| in_core(pid, folder, canary)) {
        Some(Ok(found)) => views.push(("a core of gcore's", found)),
        Some(Err(why)) => skip("gcore", &format!("no core is looked at: {why}")),
        None => println!("  no core: the segment has too little time left for gdb"),
    }
    println!("  {barrier} of process {pid}: barrier and scans took {:?}", began.elapsed());
    (pid, Seen { views, freed_with_canary: [freed, freed_large] })
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}
