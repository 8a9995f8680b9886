//! Each way out of a run, with the scans on both sides of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Fixed;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_provider::local::LocalProvider;
use glasshouse_provider::run::ProtectedRun;
use rustix::process::Signal;

use crate::barrier::{BARRIER_AT, FOLDER, hidden};
use crate::planted;
use crate::scan::{ENCODINGS, Found, Hidden, in_core, through_proc};
use crate::support::{
    FIXED_MEASUREMENT, Listener, MEASURES_NOTHING, Test, block_on, container, eventually, kill, skip,
};

#[allow(dead_code)] // not where this file is shared
pub(crate) const TESTS: &[Test] = &[
    ("the_allocator_is_in_place", the_allocator_is_in_place),
    ("return", || wiped("return", Way::default())),
    ("error", || wiped("error", Way::default())),
    ("panic", || wiped("panic", Way::default())),
    ("failed_allocation", || wiped("allocation", Way::default())),
    ("device_error", || wiped("device", Way::default())),
    ("sigterm", || wiped("sigterm", Way { signal: Some(Signal::TERM), ..Way::default() })),
    ("sigint", || wiped("sigint", Way { signal: Some(Signal::INT), ..Way::default() })),
    ("sighup", || wiped("sighup", Way { signal: Some(Signal::HUP), ..Way::default() })),
    ("sigquit", || wiped("sigquit", Way { signal: Some(Signal::QUIT), ..Way::default() })),
    ("lease_expiry", || wiped("lease", Way { ttl: Some(Duration::from_secs(12)), ..Way::default() })),
    ("step_limit", || wiped("steps", Way { max_units: Some(BARRIER_AT + 3), ..Way::default() })),
    ("owner_gone", || wiped("owner-gone", Way { owner_goes: true, ..Way::default() })),
    ("without_wiping_it_is_found", without_wiping_it_is_found),
];

#[derive(Default)]
pub(crate) struct Way {
    /// Sent to the segment while it trains.
    pub(crate) signal: Option<Signal>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) max_units: Option<u64>,
    /// The agent dies, and with it the owner's hold on the segment.
    pub(crate) owner_goes: bool,
}

/// What was found on one side: by the process itself, through `/proc`, in a core; and by the allocator.
struct Seen {
    views: Vec<(&'static str, Found)>,
    freed_with_canary: u64,
}

pub(crate) fn the_allocator_is_in_place() {
    assert!(ZeroOnFree::is_installed());
}

pub(crate) fn wiped(name: &str, way: Way) {
    let [before, after] = scanned(name, way);
    for (view, found) in &before.views {
        let cannot = ENCODINGS.iter().zip(found).filter(|(_, found)| **found == 0).map(|(name, _)| *name);
        assert_eq!(cannot.collect::<Vec<_>>(), Vec::<&str>::new(), "{name}: {view} cannot see these while training");
        println!("  {name}: while training {view} finds {found:?} of {ENCODINGS:?}");
    }
    for (view, found) in &after.views {
        assert_eq!(*found, [0; 3], "{name}: {view} finds the canary after zeroization");
    }
    assert_eq!(after.freed_with_canary, 0, "{name}: blocks were freed with the canary in them");
}

/// The same with the zero-on-free allocator turned off: then these scans must find something, or they show nothing.
pub(crate) fn without_wiping_it_is_found() {
    let [_, after] = scanned("unwiped", Way::default());
    assert!(after.freed_with_canary > 0, "the allocator's look at freed blocks sees nothing");
    for (view, found) in &after.views {
        println!("  unwiped: after zeroization {view} finds {found:?} of {ENCODINGS:?}");
        assert!(found.iter().sum::<u64>() > 0, "{view} has no power");
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
    let owner = std::thread::spawn(move || block_on(run.run()).map(drop).map_err(|failure| failure.to_string()));

    let canary = hidden(path);
    let (pid, before) = seen_at("training", path, &canary, true);
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
    let (_, after) = seen_at("wiped", path, &canary, !way.owner_goes);
    std::fs::write(path.join("wiped-on"), "").unwrap();
    let ended = owner.join().unwrap();
    let good = name == "return" || name == "unwiped";
    assert_eq!(ended.is_ok(), good, "{name}: {ended:?}");
    [before, after]
}

fn seen_at(barrier: &str, folder: &Path, canary: &Hidden, core: bool) -> (u32, Seen) {
    let path: PathBuf = folder.join(barrier);
    let began = Instant::now();
    eventually("the barrier is reached", Duration::from_secs(120), || path.exists());
    let text = std::fs::read_to_string(&path).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [pid, raw, f32s, tokens, freed_with_canary] = numbers[..] else { panic!("{text}") };
    let pid = u32::try_from(pid).unwrap();
    let mut views = vec![("the process itself", [raw, f32s, tokens])];
    views.push(("/proc/PID/mem", through_proc(pid, canary)));
    match core.then(|| in_core(pid, folder, canary)) {
        Some(Some(found)) => views.push(("a core of gcore's", found)),
        Some(None) => skip("gcore", "no gcore here (install gdb), so no core is looked at"),
        None => println!("  no core: the segment has too little time left for gdb"),
    }
    println!("  {barrier}: barrier and scans took {:?}", began.elapsed());
    (pid, Seen { views, freed_with_canary })
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}
