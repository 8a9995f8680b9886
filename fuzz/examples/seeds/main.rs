//! Writes the seeds: what our own code makes, so that the fuzzer starts behind signatures, digests and indexes.
//!
//! `cargo run --example seeds` in this folder; the files go to `corpus/TARGET/`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../../glasshouse-core/tests/common/mod.rs"]
mod common;
mod hardware;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use common::run::{Run, Script, all_bodies, run_with, slim};
use common::{World, now};
use glasshouse_core::channel::{EventBody, OwnerChannel, RuntimeChannel};
use glasshouse_core::fixed::Blob;
use glasshouse_core::overhead::{Order, OverheadFile};
use glasshouse_core::protocol::{Message, Release, Signed, decode, encode, seal_artifact};
use glasshouse_core::record::{Envelope, RecordedEvent, SessionRecord};
use glasshouse_core::traits::Progress;
use glasshouse_fuzz::keys::{BOOT, SESSION, secret};
use glasshouse_fuzz::targets::record::{OpenEvent, OpenRawSegment, OpenRecord, OpenSession, closed};
use glasshouse_fuzz::targets::{jwt, package};
use serde::Serialize;

fn main() {
    let mut seeds = Seeds::default();
    wire(&mut seeds);
    chain(&mut seeds);
    records(&mut seeds);
    overhead(&mut seeds);
    packages(&mut seeds);
    tokens(&mut seeds);
    containers(&mut seeds);
    agent(&mut seeds);
    hardware::all(&mut seeds);
    println!("{} seeds", seeds.0);
}

/// How many were written.
#[derive(Default)]
struct Seeds(usize);

impl Seeds {
    fn add(&mut self, target: &str, name: &str, bytes: impl AsRef<[u8]>) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
        self.0 += 1;
    }

    /// Behind the letter, or digit and letter, that chooses what it is read as.
    fn mode(&mut self, target: &str, mode: impl ToString, name: &str, bytes: impl AsRef<[u8]>) {
        let mode = mode.to_string();
        self.add(target, &format!("{mode}-{name}"), [mode.as_bytes(), bytes.as_ref()].concat());
    }

    fn json(&mut self, target: &str, mode: char, name: &str, value: &impl Serialize) {
        self.mode(target, mode, name, serde_json::to_vec(value).unwrap());
    }
}

fn vector(path: &str) -> Vec<u8> {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../glasshouse-core/tests/vectors");
    fs::read(base.join(path)).unwrap()
}

/// The world of the core's own tests, with keys that the targets know.
fn world() -> World {
    let mut world = World::new();
    world.gate_key = Arc::new(glasshouse_core::protocol::SigningSecret::from_seed(secret(1)));
    world.session = SESSION;
    world
}

fn signed<M: Message>(seeds: &mut Seeds, modes: [char; 2], name: &str, signed: &Signed<M>) {
    seeds.mode("wire", modes[0], name, signed.to_bytes());
    seeds.mode("wire", modes[1], name, encode(&signed.peek().unwrap()));
}

fn wire(seeds: &mut Seeds) {
    let world = world();
    let (mut owner, mut runtime) = (world.owner(), world.runtime());
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    let release = owner.evidence(&evidence, now(1)).unwrap();
    let mut grant = runtime.release(&release, now(1)).unwrap();
    signed(
        seeds,
        ['a', 'e'],
        "challenge",
        &Signed::<glasshouse_core::protocol::Challenge>::from_bytes(&challenge).unwrap(),
    );
    signed(
        seeds,
        ['b', 'f'],
        "evidence",
        &Signed::<glasshouse_core::protocol::EvidenceMessage>::from_bytes(&evidence).unwrap(),
    );
    let read: Release = decode("release", &release, Release::LIMIT).unwrap();
    signed(seeds, ['c', 'g'], "verdict", &read.verdict);
    seeds.mode("wire", 'i', "release", &release);
    for (i, body) in all_bodies(&Script::default(), 100).iter().enumerate() {
        let record = grant.channel.emit(body, now(2)).unwrap();
        if i == 0 {
            seeds.mode("wire", 'j', "record", encode(&record));
        }
        owner.records(&[record]).unwrap();
        seeds.mode("wire", 'm', &format!("body-{i}"), encode(body));
    }
    let parts = owner.record_parts().unwrap();
    let event = &parts.channel.events()[0];
    signed(seeds, ['d', 'h'], "header", &event.header);
    seeds.mode("wire", 'l', "event", encode(event));
    seeds.mode("wire", 'k', "stop", encode(&glasshouse_core::channel::Command::Stop));
    seeds.mode("wire", 'n', "job", encode(&world.job()));
    let artifact = seal_artifact(&world.result_key.public(), &SESSION, "adapter", b"weights").unwrap();
    seeds.mode("wire", 'o', "artifact", encode(&artifact));
    gpu_evidence(seeds, &evidence);
}

/// Every kind of evidence, unsigned.
fn gpu_evidence(seeds: &mut Seeds, evidence: &[u8]) {
    use glasshouse_core::evidence::{CpuEvidence, DeviceEvidence, DeviceKind, GpuEvidence};
    use glasshouse_core::protocol::EvidenceMessage;
    let mut message = Signed::<EvidenceMessage>::from_bytes(evidence).unwrap().peek().unwrap();
    let blob = |n| Blob(vec![n; 24]);
    let device = |kind| DeviceEvidence { kind, serial: blob(1), report: blob(2), chain: blob(3) };
    message.gpus = GpuEvidence(
        [DeviceKind::NvidiaGpu, DeviceKind::NvidiaSwitch, DeviceKind::NrasToken].into_iter().map(device).collect(),
    );
    for (name, cpu) in [
        ("tdx", CpuEvidence::Tdx { quote: blob(4) }),
        ("snp", CpuEvidence::SevSnp { report: blob(5), certificates: Some(blob(6)) }),
        ("space", CpuEvidence::ConfidentialSpace { jwt: "a.b.c".into() }),
    ] {
        message.cpu = cpu;
        seeds.mode("wire", 'f', name, encode(&message));
    }
}

fn chain(seeds: &mut Seeds) {
    let bodies: Vec<_> = all_bodies(&Script::default(), 100).iter().map(encode).collect();
    let told = |flags: &dyn Fn(usize) -> u8| {
        let line = |(i, body): (usize, &Vec<u8>)| [&[flags(i)], body.as_slice(), b"\n"].concat();
        bodies.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    let honest = told(&|_| b'@');
    seeds.add("chain", "honest", honest.concat());
    for bit in 0..6 {
        seeds.add("chain", &format!("lie-{bit}"), told(&|i| if i == 2 { b'@' | 1 << bit } else { b'@' }).concat());
        let last = bodies.len() - 1;
        seeds.add(
            "chain",
            &format!("lie-at-end-{bit}"),
            told(&|i| if i == last { b'@' | 1 << bit } else { b'@' }).concat(),
        );
    }
    for (i, line) in honest.iter().enumerate() {
        seeds.add("chain", &format!("alone-{i}"), [line.as_slice(), b"!\n?x\n", line].concat());
    }
    seeds.add("chain", "after-end", [honest.concat(), honest[0].clone(), b"!\n".to_vec()].concat());
}

/// A record with its signatures taken off.
fn open(run: &Run) -> OpenRecord {
    let record = run.record.clone();
    let session = |s: SessionRecord| OpenSession {
        challenge: s.challenge.peek().unwrap(),
        evidence: s.evidence.peek().unwrap(),
        verdict: s.verdict.peek().unwrap(),
        reference: s.reference,
        events: s.events.iter().map(open_event).collect(),
    };
    OpenRecord {
        run: record.run,
        created_at: record.created_at,
        sessions: record.sessions.into_iter().map(session).collect(),
        refused: record.refused,
        raw_segments: record
            .raw_segments
            .into_iter()
            .map(|r| OpenRawSegment { session: r.session, events: r.events.iter().map(open_event).collect() })
            .collect(),
        rows: record.rows,
        cleanup: record.cleanup,
        timeline: record.timeline,
        claims: record.claims,
    }
}

fn open_event(event: &RecordedEvent) -> OpenEvent {
    let header = event.header.peek().unwrap();
    let hidden = EventBody::Progress {
        progress: Progress { done: 1, ..Progress::default() },
        interval: glasshouse_core::channel::Interval { units: 1, micros: 1 },
    };
    let read = |body: &Blob| decode("event", &body.0, EventBody::LIMIT).unwrap();
    let body = event.body.as_ref().map_or(hidden, read);
    OpenEvent { at: header.at, boot_micros: header.boot_micros, body, shown: event.body.is_some() }
}

fn records(seeds: &mut Seeds) {
    seeds.mode("record", 'a', "good", vector("record/good.json"));
    for bad in ["session-twice", "chain-gap", "truncated", "signature-twice", "not-a-record", "field-twice"] {
        seeds.mode("record", 'a', bad, vector(&format!("record/bad/{bad}.json")));
    }
    let mut alone = slim();
    alone.record.rows.clear();
    alone.record.raw_segments.clear();
    for (name, run) in [("slim", slim()), ("alone", alone), ("whole", run_with(Order::RawFirst, 1, &Script::default()))]
    {
        let open = open(&run);
        seeds.json("record", 'c', name, &open);
        let verified = closed(open).unwrap();
        let file = verified.record.sign(&glasshouse_fuzz::keys::GATE).unwrap();
        seeds.mode("record", 'b', name, &Envelope::from_bytes(&file).unwrap().payload.0);
    }
    let mut refused = open(&slim());
    refused.refused.push(glasshouse_core::record::RefusedSession {
        session: SESSION,
        at: refused.created_at,
        refusal: glasshouse_core::refusal::Refusal::new(glasshouse_core::refusal::Code::NONCE_REPLAYED, "a", "b"),
    });
    seeds.json("record", 'c', "refused", &refused);
    assert!(closed(refused).is_some());
}

fn overhead(seeds: &mut Seeds) {
    let all = OverheadFile::parse(&vector("overhead/overhead.json")).unwrap();
    seeds.add("overhead", "vector", vector("overhead/overhead.json"));
    for (i, row) in all.rows.into_iter().chain(slim().record.rows).enumerate() {
        let file = OverheadFile { rows: vec![row] };
        seeds.add("overhead", &format!("row-{i}"), file.to_json().unwrap());
    }
    seeds.add("overhead", "none", OverheadFile::default().to_json().unwrap());
}

fn packages(seeds: &mut Seeds) {
    for entry in
        fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../glasshouse-core/tests/vectors/package"))
            .unwrap()
    {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_suffix(".ghpkg") {
            seeds.mode("package", 'a', name, fs::read(&path).unwrap());
        }
    }
    let length = u32::from_be_bytes(package::GOOD[8..12].try_into().unwrap()) as usize;
    let (manifest, ciphertext) = package::GOOD[12..].split_at(length);
    seeds.mode("package", 'b', "good", [manifest, b"\n", ciphertext].concat());
    seeds.add("manifest", "good", manifest);
    let text = String::from_utf8(manifest.to_vec()).unwrap();
    for (name, from, to) in [
        ("tee", "CpuTee", "SelfReported"),
        ("public", "\"public_data\":false", "\"public_data\":true"),
        ("format", "glasshouse-package/1", "glasshouse-package/2"),
        ("chunks", "\"chunk_bytes\":4096", "\"chunk_bytes\":8192"),
        ("names", "\"empty\"", "\"empty\",\"empty\""),
        ("unknown", "\"public_data\"", "\"\\u001b[2J\":1,\"public_data\""),
    ] {
        assert!(text.contains(from), "{from}");
        seeds.add("manifest", name, text.replace(from, to));
    }
    let index = |entries: &[(&str, &str)]| {
        let mut body = b"gh/index/1".to_vec();
        body.extend((entries.len() as u32).to_be_bytes());
        for (name, content) in entries {
            body.extend((name.len() as u32).to_be_bytes());
            body.extend(name.as_bytes());
            body.extend((content.len() as u64).to_be_bytes());
        }
        let contents = entries.iter().flat_map(|(_, content)| content.bytes());
        [&(body.len() as u32).to_be_bytes(), body.as_slice()].concat().into_iter().chain(contents).collect::<Vec<_>>()
    };
    let long = "x".repeat(9000);
    for (name, entries) in [
        ("none", vec![]),
        ("one", vec![("a", "b")]),
        ("empty", vec![("a", "")]),
        ("three", vec![("config.json", "{}"), ("empty", ""), ("data.bin", "0123456789")]),
        ("long", vec![("a", ""), ("b", long.as_str()), ("c", "")]),
    ] {
        let names: Vec<_> = entries.iter().map(|(name, _)| *name).collect();
        seeds.mode("package", 'c', name, [names.join(",").as_bytes(), b"\n", &index(&entries)].concat());
    }
    for what in 0..6u8 {
        seeds.mode("package", 'd', &format!("edit-{what}"), [what, 1, 2, what, 0, 3]);
    }
}

fn tokens(seeds: &mut Seeds) {
    use glasshouse_core::evidence::CpuEvidence;
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let payload = jwt::payload();
    let token = glasshouse_attest::jws::sign(payload.as_bytes(), &key);
    seeds.mode("jwt", 'a', "software", &token);
    seeds.mode("jwt", 'a', "small", glasshouse_attest::jws::sign(b"{}", &key));
    for (name, header) in [
        ("good", r#"{"alg":"EdDSA","typ":"JWT"}"#),
        ("turned", r#"{"typ":"JWT","alg":"EdDSA"}"#),
        ("none", r#"{"alg":"none","typ":"JWT"}"#),
        ("confused", r#"{"alg":"HS256","typ":"JWT"}"#),
        ("crit", r#"{"alg":"EdDSA","typ":"JWT","crit":["b64"],"b64":false}"#),
        ("twice", r#"{"alg":"none","alg":"EdDSA","typ":"JWT"}"#),
    ] {
        seeds.mode("jwt", 'b', name, format!("{header}\n{{\"a\":[1,{{\"b\":null}}]}}"));
    }
    assert!(jwt::software(payload.as_bytes()), "the seed is not what the verifier accepts");
    seeds.mode("jwt", 'c', "software", &payload);
    let public_key = key.verifying_key().to_bytes().into();
    seeds.json("jwt", 'd', "software", &CpuEvidence::Software { jwt: token, public_key });
    seeds.json("jwt", 'd', "tdx", &CpuEvidence::Tdx { quote: Blob(vec![1; 16]) });
    seeds.mode(
        "jwt",
        'e',
        "all",
        r#"{"a":[true,false,null,-1,1.5e3,"\u0041\n"],"b":{"c":{"d":[]}},"e":18446744073709551615}"#,
    );
}

fn containers(seeds: &mut Seeds) {
    let id = "3f1a9c0e5b7d2468ace013579bdf02468ace13579bdf02468ace13579bdf0246";
    for (i, path) in [
        format!("/docker/{id}"),
        format!("/system.slice/docker-{id}.scope"),
        format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{id}"),
        format!("/machine.slice/libpod-{id}.scope/container"),
        format!("/system.slice/libpod-conmon-{id}.scope"),
        format!("/../{id}"),
    ]
    .iter()
    .enumerate()
    {
        seeds.add("container", &format!("cgroup-{i}"), format!("0::{path}\n\0"));
        seeds.add("container", &format!("v1-{i}"), format!("12:memory:{path}\n1:name=systemd:/\n0::/\n\0"));
    }
    for (i, root) in [
        format!("/var/lib/docker/containers/{id}/hostname"),
        format!("/containers/storage/overlay-containers/{id}/userdata/hosts"),
        format!("/io.containerd.grpc.v1.cri/sandboxes/{id}/resolv.conf"),
    ]
    .iter()
    .enumerate()
    {
        let mount = format!("1014 1003 254:1 {root} /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n");
        seeds.add("container", &format!("mount-{i}"), format!("0::/\n\0{mount}"));
    }
}

fn agent(seeds: &mut Seeds) {
    let (session, digest) = ("07".repeat(32), "01".repeat(48));
    let exit = r#"{"code":null,"signal":9,"step":"train","last_seq":4,"reason":"the lease is over"}"#;
    let status = format!(
        r#"{{"id":"protected-0","mode":"protected","pid":12,"step":"train","steps":[{{"step":"start","boot_micros":1}},{{"step":"train","boot_micros":2}}],"last_seq":7,"exit":{exit}}}"#
    );
    let secret = secret(9);
    let (mut runtime, _owner) =
        (RuntimeChannel::raw(&secret, SESSION, &BOOT), OwnerChannel::raw(&secret, SESSION, &BOOT));
    let bodies = all_bodies(&Script::default(), 100);
    let record = Blob(encode(&runtime.emit(&bodies[0], now(0)).unwrap()));
    let record = serde_json::to_string(&record).unwrap();
    seeds.mode("agent", 'a', "hello", format!(
        r#"{{"service":"glasshouse-agent","version":"0.1.0","name":"gh-1","boot":"{BOOT}","pid":1,"boot_millis":5,"segments":[{status}]}}"#
    ));
    seeds.mode("agent", 'b', "status", &status);
    seeds.mode("agent", 'c', "start", format!(
        r#"{{"id":"raw-0","mode":"raw","session":"{session}","attestor":"software","package":"{digest}","job":"e30="}}"#
    ));
    seeds.mode("agent", 'd', "package", r#"{"size":8388608,"complete":true}"#);
    seeds.mode("agent", 'e', "page", format!(
        r#"{{"records":[{{"seq":0,"record":{record}}}],"status":{status},"artifacts":[{{"name":"adapter","size":9}}]}}"#
    ));
    seeds.mode("agent", 'f', "ack", r#"{"through":7}"#);
    let refusal =
        r#"{"code":"nonce-replayed","expected":"a fresh nonce","seen":"00ff","advice":"ask for a new challenge"}"#;
    seeds.mode("agent", 'g', "refused", format!(r#"{{"code":"segment-refused","message":"no","refusal":{refusal}}}"#));
    seeds.mode("agent", 'g', "later", r#"{"code":"of-a-later-version","message":"later"}"#);
    let frame = |json: &str| [&(json.len() as u32).to_be_bytes(), json.as_bytes()].concat();
    let key = "05".repeat(32);
    let start = format!(
        r#"{{"start":{{"id":"raw-0","mode":"raw","session":"{session}","boot":"{BOOT}","attestor":"software","gate_key":"{key}","image_digest":null,"linger_millis":60000,"package":"/tmp/p","job":"e30="}}}}"#
    );
    let to = [
        start.as_str(),
        r#"{"challenge":{"question":0,"challenge":"e30="}}"#,
        r#"{"release":{"question":1,"release":"e30="}}"#,
        r#"{"command":"e30="}"#,
        r#"{"ack":{"through":3}}"#,
    ];
    seeds.mode("agent", 'h', "to-segment", to.map(frame).concat());
    let refused = format!(r#"{{"answer":{{"question":2,"answer":{{"refused":{refusal}}}}}}}"#);
    let from = [
        r#"{"step":{"step":"train","boot_micros":7}}"#,
        r#"{"answer":{"question":0,"answer":{"evidence":"e30="}}}"#,
        r#"{"answer":{"question":1,"answer":"released"}}"#,
        refused.as_str(),
        r#"{"record":{"seq":3,"record":"AQI="}}"#,
        r#"{"artifact":{"name":"a","piece":"AQI=","last":true}}"#,
        r#"{"ending":"done"}"#,
    ];
    seeds.mode("agent", 'i', "from-segment", from.map(frame).concat());
    for (i, one) in to.iter().enumerate() {
        seeds.mode("agent", 'h', &format!("one-{i}"), frame(one));
    }
    for (i, one) in from.iter().enumerate() {
        seeds.mode("agent", 'i', &format!("one-{i}"), frame(one));
    }
    let job =
        r#"{"workload":"mlp","device":"cpu","warmup_units":1,"budget":{"units":3},"progress_millis":10,"export":true}"#;
    let inputs = format!(r#"{{"enc":"{key}","ciphertext":"AQIDBA=="}}"#);
    seeds.mode("agent", 'j', "raw-order", format!(r#"{{"job":{job},"inputs":{inputs}}}"#));
}
