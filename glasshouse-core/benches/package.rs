//! How fast packages are sealed and opened, against `openssl speed -evp aes-256-gcm` on the same cores in the same run.
//!
//! ```text
//! cargo bench -p glasshouse-core --bench package                      # the table
//! cargo bench -p glasshouse-core --bench package --features aws-lc    # the same with the faster backend
//! cargo bench -p glasshouse-core --bench package -- --large 4096      # seals and opens so many MiB, prints peak memory
//! ```
//! Speeds are per second of processor time, as openssl counts, so that they are what one core does even while others use
//! the machine; with several threads they show what parallel work costs, and how far it scales is their ratio to one
//! thread. Every repeat measures everything once, one after the other, and ratios are taken within a repeat: on a machine that
//! others use too, medians of ratios are what can be compared. `taskset -c 0` pins the whole program, openssl included.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::process::Command;
use std::time::Instant;

use glasshouse_core::claims::Assurance;
use glasshouse_core::package::{EntrySink, PackageBuilder, SealedPackage, Source, inspect, open, open_file, open_into};
use glasshouse_core::secret::SecretBuffer;

const MIB: usize = 1 << 20;
const BACKEND: &str = if cfg!(feature = "aws-lc") { "aws-lc" } else { "aes-gcm" };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)?.parse().ok());
    match value("--large") {
        Some(mib) => large(mib),
        None => table(value("--repeats").unwrap_or(7), value("--mib").unwrap_or(128)),
    }
}

/// One thing that is measured, in MB/s, once per repeat.
struct Row {
    name: String,
    speeds: Vec<f64>,
}

fn table(repeats: usize, mib: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let all = rayon::ThreadPoolBuilder::new().num_threads(cores).build().expect("a pool of all cores");
    let payload: Vec<u8> = (0..mib * MIB).map(|i| (i / 3 + i / 1021) as u8).collect();
    let mut rows: Vec<Row> = Vec::new();
    for repeat in 0..repeats {
        let mut speeds = vec![
            ("openssl, blocks of 16 KiB".to_owned(), openssl(16 << 10)),
            ("openssl, blocks of 1 MiB".to_owned(), openssl(MIB)),
            (format!("{BACKEND} alone, seal, 1 MiB"), aead_alone(true)),
            (format!("{BACKEND} alone, open, 1 MiB"), aead_alone(false)),
        ];
        speeds.extend(one.install(|| packages(&payload, 1)));
        if cores > 1 {
            speeds.extend(all.install(|| packages(&payload, cores)));
        }
        rows.resize_with(speeds.len(), || Row { name: String::new(), speeds: Vec::new() });
        for (row, (name, speed)) in rows.iter_mut().zip(speeds) {
            row.name = name;
            row.speeds.push(speed);
        }
        println!("repeat {} of {repeats} done, load {}", repeat + 1, load());
    }
    println!("\n{} | {cores} cores | payload {mib} MiB | median of {repeats}", cpu());
    println!("| what | MB per processor second | of openssl, 16 KiB |\n| --- | ---: | ---: |");
    for row in &rows {
        let ratios = row.speeds.iter().zip(&rows[0].speeds).map(|(own, openssl)| own / openssl).collect();
        println!("| {} | {:.0} | {:.2} |", row.name, median(row.speeds.clone()), median(ratios));
    }
}

fn packages(payload: &[u8], threads: usize) -> Vec<(String, f64)> {
    let mut bytes = Vec::with_capacity(payload.len() + payload.len() / 100 + MIB);
    let mut sealed = None;
    let name = |what| format!("package, {BACKEND}, {what}, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let seal = speed(payload.len(), || {
        bytes.clear();
        let builder = PackageBuilder::new("bench").minimum_assurance(Assurance::SelfReported);
        sealed = Some(builder.entry("payload", Source::Slice(payload)).seal_to(&mut bytes).expect("sealed"));
    });
    let sealed = sealed.expect("sealed above");
    let streamed = speed(payload.len(), || {
        open_into(bytes.as_slice(), &sealed.data_key, &sealed.digests, &mut Count(0)).expect("opened");
    });
    let to_memory = speed(payload.len(), || {
        black_box(open(bytes.as_slice(), &sealed.data_key, &sealed.digests).expect("opened"));
    });
    let digest = speed(payload.len(), || {
        black_box(inspect(bytes.as_slice()).expect("a package"));
    });
    vec![
        (name("seal"), seal),
        (name("open to a sink"), streamed),
        (name("open to memory"), to_memory),
        (name("digest only"), digest),
    ]
}

/// The crate behind the backend, called as the package calls it, with nothing around it.
fn aead_alone(sealing: bool) -> f64 {
    let (mut text, mut out, aad, nonce) = (vec![7_u8; MIB], vec![0_u8; MIB], [1_u8; 48], [2_u8; 12]);
    #[cfg(not(feature = "aws-lc"))]
    {
        use aes_gcm::aead::{AeadInOut as _, inout::InOutBuf};
        let cipher = <aes_gcm::Aes256Gcm as aes_gcm::KeyInit>::new(&[3; 32].into());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &aad, text.as_mut_slice().into()).unwrap();
        speed(MIB, || match sealing {
            true => drop(cipher.encrypt_inout_detached(&nonce.into(), &aad, out.as_mut_slice().into()).unwrap()),
            false => {
                let buffers = InOutBuf::new(&text, &mut out).unwrap();
                cipher.decrypt_inout_detached(&nonce.into(), &aad, buffers, &tag).unwrap();
            }
        })
    }
    #[cfg(feature = "aws-lc")]
    {
        use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3; 32]).unwrap());
        let nonce = || Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), &mut text).unwrap();
        speed(MIB, || match sealing {
            true => drop(key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), &mut out).unwrap()),
            false => key.open_separate_gather(nonce(), Aad::from(&aad), &text, tag.as_ref(), &mut out).unwrap(),
        })
    }
}

/// Seals so many MiB to a file, opens them to a sink, then to memory; prints peak memory (`VmHWM`) above each
/// destination.
fn large(mib: usize) {
    let bytes = (mib as u64) << 20;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("large.ghpkg");
    let before = peak_kib();
    println!("{BACKEND}, {mib} MiB, resident before: {} MiB", before / 1024);

    let start = Instant::now();
    let source = Source::Reader { read: Box::new(Pattern(0).take(bytes)), bytes };
    let sealed = PackageBuilder::new("bench").entry("payload", source).seal_to_file(&file).expect("sealed");
    report("sealed to a file and synced", bytes, start, before, 0);

    let start = Instant::now();
    let read = std::fs::File::open(&file).expect("the package");
    let mut count = Count(0);
    open_into(read, &sealed.data_key, &sealed.digests, &mut count).expect("opened");
    assert_eq!(count.0, bytes, "bytes that came out");
    report("opened to a sink", bytes, start, before, 0);

    let start = Instant::now();
    let mut opened = open_file(&file, &sealed.data_key, &sealed.digests).expect("opened");
    report("opened to memory", bytes, start, before, bytes);
    check(&sealed, opened.entries.remove("payload"));
}

fn check(sealed: &SealedPackage, payload: Option<SecretBuffer>) {
    let payload = payload.expect("the payload");
    let layout = sealed.manifest.layout().expect("a layout");
    assert!(layout.plaintext_bytes() >= payload.len() as u64);
    let mut expected = vec![0; MIB];
    let mut pattern = Pattern(0);
    for piece in payload.chunks(MIB) {
        pattern.read_exact(&mut expected[..piece.len()]).expect("a pattern has no end");
        assert!(expected[..piece.len()] == *piece, "the payload changed");
    }
}

fn report(what: &str, bytes: u64, start: Instant, before: u64, destination: u64) {
    let seconds = start.elapsed().as_secs_f64();
    let above = peak_kib().saturating_sub(before).saturating_sub(destination / 1024) as f64 / 1024.0;
    let speed = bytes as f64 / seconds / 1e6;
    println!("{what}: {seconds:.1} s, {speed:.0} MB/s, peak {above:.1} MiB above the destination, load {}", load());
}

/// A reader without an end whose content is cheap to make and differs from piece to piece.
struct Pattern(u64);

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let word = (self.0 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let rest = &word[(self.0 % 8) as usize..];
        let n = match buffer.len() / 8 * 8 {
            n if self.0.is_multiple_of(8) && n > 0 => n,
            _ => rest.len().min(buffer.len()),
        };
        if n < 8 {
            buffer[..n].copy_from_slice(&rest[..n]);
        }
        for (i, word) in (self.0 / 8..).zip(buffer[..n].chunks_exact_mut(8)) {
            word.copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        }
        self.0 += n as u64;
        Ok(n)
    }
}

struct Count(u64);

impl EntrySink for Count {
    fn begin(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn piece(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.0 += plaintext.len() as u64;
        Ok(())
    }
}

/// MB per second of processor time, as `openssl speed` counts without `-elapsed`: what one core does, whoever else uses
/// the machine. Over a third of a second after one call that warms up.
fn speed(bytes: usize, mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut calls) = (processor_seconds(), 0.0);
    while processor_seconds() - start < 0.333 {
        f();
        calls += 1.0;
    }
    calls * bytes as f64 / (processor_seconds() - start) / 1e6
}

/// Processor time of all threads of this program (`/proc/self/task/*/schedstat`, nanoseconds).
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the bench needs Linux's /proc").flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// MB/s of `openssl speed`, or NaN where there is no openssl.
fn openssl(block: usize) -> f64 {
    let arguments = ["speed", "-seconds", "1", "-bytes", &block.to_string(), "-evp", "aes-256-gcm"];
    let Ok(output) = Command::new("openssl").args(arguments).output() else { return f64::NAN };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().and_then(|line| line.split_whitespace().last()?.strip_suffix('k')?.parse().ok());
    last.unwrap_or(f64::NAN) / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let _ = io::stdout().flush();
    name.map_or("unknown CPU".to_owned(), |(_, name)| name.to_owned())
}
