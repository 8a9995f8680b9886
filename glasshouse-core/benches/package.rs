//! How fast packages are sealed and opened, against `openssl speed -evp aes-256-gcm` on the same cores in the same run.
//!
//! ```text
//! cargo bench -p glasshouse-core --bench package                      # the table
//! cargo bench -p glasshouse-core --bench package --features aws-lc    # the same with the faster backend
//! cargo bench -p glasshouse-core --bench package -- --large 4096      # seals and opens so many MiB, prints peak memory
//! ```
//! Speeds are per second of processor time, kernel included, as openssl counts, so that they are what one core does even
//! while others use the machine. Every repeat measures everything once, one after the other, and ratios are taken within
//! a repeat: on a machine that others use too, medians of ratios are what can be compared. Scaling is the one figure by
//! the clock: how much faster all cores are than one, and so what is left of the cores while others use them.
//!
//! "To nowhere" and "to a sink" throw the result away: what sealing and opening cost themselves. "To memory" adds what
//! the destination costs: a copy to a vector, or fresh pages of secret memory and wiping them at the end.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::process::Command;
use std::time::Instant;

use glasshouse_core::claims::Assurance;
use glasshouse_core::package::{
    EntrySink, Input, PackageBuilder, SealedPackage, Source, inspect, open, open_file, open_into,
};
use glasshouse_core::secret::SecretBuffer;

const MIB: usize = 1 << 20;
/// Bytes of a package's chunk.
const CHUNK: usize = 256 << 10;
const BACKEND: &str = if cfg!(feature = "aws-lc") { "aws-lc" } else { "aes-gcm" };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)?.parse().ok());
    match value("--large") {
        Some(mib) => large(mib),
        None => table(value("--repeats").unwrap_or(5), value("--mib").unwrap_or(256)),
    }
}

/// One thing that is measured, once per repeat.
struct Row {
    name: String,
    threads: usize,
    speeds: Vec<Speed>,
}

/// MB/s.
#[derive(Clone, Copy)]
struct Speed {
    /// Per second of processor time.
    processor: f64,
    /// By the clock.
    clock: f64,
}

fn table(repeats: usize, mib: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let (one, all) = (pool(1), pool(cores));
    let payload: Vec<u8> = (0..mib * MIB).map(|i| (i / 3 + i / 1021) as u8).collect();
    let mut rows: Vec<Row> = Vec::new();
    for repeat in 0..repeats {
        let mut speeds = vec![
            ("openssl, blocks of 16 KiB".to_owned(), 0, openssl(16 << 10)),
            ("openssl, blocks of 1 MiB".to_owned(), 0, openssl(MIB)),
            (format!("{BACKEND} alone, seal, 256 KiB"), 0, aead_alone(true)),
            (format!("{BACKEND} alone, open, 256 KiB"), 0, aead_alone(false)),
            ("BLAKE3 alone, 256 KiB".to_owned(), 0, hash_alone()),
        ];
        speeds.extend(one.install(|| packages(&payload, 1)));
        if cores > 1 {
            speeds.extend(all.install(|| packages(&payload, cores)));
        }
        rows.resize_with(speeds.len(), || Row { name: String::new(), threads: 0, speeds: Vec::new() });
        for (row, (name, threads, speed)) in rows.iter_mut().zip(speeds) {
            (row.name, row.threads) = (name, threads);
            row.speeds.push(speed);
        }
        println!("repeat {} of {repeats} done, load {}", repeat + 1, load());
    }
    print_table(&rows, cores, mib, repeats);
}

fn print_table(rows: &[Row], cores: usize, mib: usize, repeats: usize) {
    println!("\n{} | {cores} cores | payload {mib} MiB | median of {repeats}", cpu());
    println!(
        "| what | threads | MB per processor second | of openssl, 16 KiB | of openssl, 1 MiB | scaling by the clock |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for row in rows {
        let of = |base: &Row, of: fn(&Speed) -> f64| {
            median(row.speeds.iter().zip(&base.speeds).map(|(own, base)| of(own) / of(base)).collect())
        };
        let speed = median(row.speeds.iter().map(|speed| speed.processor).collect());
        let (small, large) = (of(&rows[0], |s| s.processor), of(&rows[1], |s| s.processor));
        let single = rows.iter().find(|base| base.name == row.name && base.threads == 1 && row.threads > 1);
        let scaling = single.map_or(String::new(), |base| format!("{:.2}", of(base, |s| s.clock)));
        let threads = if row.threads == 0 { String::new() } else { row.threads.to_string() };
        println!("| {} | {threads} | {speed:.0} | {small:.2} | {large:.2} | {scaling} |", row.name);
    }
}

fn packages(payload: &[u8], threads: usize) -> Vec<(String, usize, Speed)> {
    let sealing = |out: &mut (dyn Write + Send)| {
        let builder = PackageBuilder::new("bench").minimum_assurance(Assurance::SelfReported);
        builder.entry("payload", Source::Slice(payload)).seal_to(out).expect("sealed")
    };
    let mut bytes = Vec::with_capacity(payload.len() + payload.len() / 100 + MIB);
    let sealed = sealing(&mut bytes);
    let digests = &sealed.digests;
    let to_nowhere = speed(payload.len(), || drop(sealing(&mut io::sink())));
    let mut copy = bytes.clone();
    let to_vector = speed(payload.len(), || {
        copy.clear();
        sealing(&mut copy);
    });
    drop(copy);
    let to_sink = speed(payload.len(), || {
        open_into(&bytes, &sealed.data_key, digests, &mut Count(0)).expect("opened");
    });
    let read = speed(payload.len(), || {
        open_into(Input::reader(bytes.as_slice()), &sealed.data_key, digests, &mut Count(0)).expect("opened");
    });
    let to_memory = speed(payload.len(), || {
        black_box(open(&bytes, &sealed.data_key, digests).expect("opened"));
    });
    let digest = speed(payload.len(), || {
        black_box(inspect(&bytes).expect("a package"));
    });
    let row = |what: &str, speed| (format!("package, {what}"), threads, speed);
    vec![
        row("seal from memory to nowhere", to_nowhere),
        row("seal from memory to a vector", to_vector),
        row("open from memory to a sink", to_sink),
        row("open from a reader to a sink", read),
        row("open from memory to memory", to_memory),
        row("digest only", digest),
    ]
}

/// The crate behind the backend, called as the package calls it, with nothing around it.
fn aead_alone(sealing: bool) -> Speed {
    let (mut text, mut out, aad, nonce) = (vec![7_u8; CHUNK], vec![0_u8; CHUNK], [1_u8; 48], [2_u8; 12]);
    #[cfg(not(feature = "aws-lc"))]
    {
        use aes_gcm::aead::{AeadInOut as _, inout::InOutBuf};
        let cipher = <aes_gcm::Aes256Gcm as aes_gcm::KeyInit>::new(&[3; 32].into());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &aad, text.as_mut_slice().into()).unwrap();
        speed(CHUNK, || match sealing {
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
        speed(CHUNK, || match sealing {
            true => drop(key.seal_in_place_separate_tag(nonce(), Aad::from(&aad), &mut out).unwrap()),
            false => key.open_separate_gather(nonce(), Aad::from(&aad), &text, tag.as_ref(), &mut out).unwrap(),
        })
    }
}

/// The hash behind the package digest.
fn hash_alone() -> Speed {
    let text = vec![7_u8; CHUNK];
    speed(CHUNK, || {
        black_box(blake3::hash(black_box(&text)));
    })
}

/// Seals so many MiB from file to file, opens them to a sink, then to memory; prints peak memory (`VmHWM`) above each
/// destination.
fn large(mib: usize) {
    let bytes = (mib as u64) << 20;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("large.ghpkg");
    let input = folder.path().join("input");
    let mut written = std::fs::File::create(&input).expect("the input");
    io::copy(&mut Pattern(0).take(bytes), &mut written).expect("a disk with room for twice the payload");
    drop(written);
    let before = peak_kib();
    println!("{BACKEND}, {mib} MiB, resident before: {} MiB", before / 1024);

    let start = Instant::now();
    let builder = PackageBuilder::new("bench").entry("payload", Source::File(input.clone()));
    let sealed = builder.seal_to_file(&file).expect("sealed");
    report("sealed from file to file and synced", bytes, start, before, 0);
    std::fs::remove_file(&input).expect("removed");

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

/// MB per second, over a third of a second of processor time and one call at least, after one call that warms up.
fn speed(bytes: usize, mut f: impl FnMut()) -> Speed {
    f();
    let (clock, start, mut done) = (Instant::now(), processor_seconds(), 0.0);
    while done == 0.0 || processor_seconds() - start < 0.333 {
        // Small blocks a MiB at a time, so that looking at the clock does not count.
        for _ in 0..(MIB / bytes).max(1) {
            f();
            done += bytes as f64 / 1e6;
        }
    }
    Speed { processor: done / (processor_seconds() - start), clock: done / clock.elapsed().as_secs_f64() }
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

/// `openssl speed`, or NaN where there is no openssl.
fn openssl(block: usize) -> Speed {
    let arguments = ["speed", "-seconds", "1", "-bytes", &block.to_string(), "-evp", "aes-256-gcm"];
    let output = Command::new("openssl").args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let last = text.lines().last().and_then(|line| line.split_whitespace().last()?.strip_suffix('k')?.parse().ok());
    let speed = last.unwrap_or(f64::NAN) / 1000.0;
    Speed { processor: speed, clock: speed }
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
