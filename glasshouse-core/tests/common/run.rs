//! A whole run on one allocation, raw and protected, and the record that it leaves.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)] // shared by several test binaries

use std::sync::Arc;

use glasshouse_core::channel::{EventBody, Interval, Outcome, OwnerChannel, Phase, RuntimeChannel};
use glasshouse_core::claims::{Assurance, RuntimeState};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest32, Nonce32, PublicKey32};
use glasshouse_core::gate::MemoryGateStore;
use glasshouse_core::overhead::{
    self, Attestation, Cleanup, Label, Measurement, Mode, Order, Protection, RateInterval, SegmentKind, SegmentSample,
};
use glasshouse_core::record::{CleanupProof, EvidenceRecord, Moment, RawSegmentRecord, SessionRecord, VERSION};
use glasshouse_core::traits::{
    ClaimSource, Device, LabelledClaim, LargeBlocks, Progress, Receipt, SmallBlocks, Unit, WipedRegion,
};

use super::{World, now};

pub const SECONDS: u64 = 20;

/// A record with what it takes to sign it, or to take it apart first.
pub struct Run {
    pub world: World,
    pub record: EvidenceRecord,
    /// What its row was computed from.
    pub measurement: Measurement,
}

impl Run {
    pub fn key(&self) -> PublicKey32 {
        self.world.gate_key.public()
    }

    pub fn sign(&self, record: EvidenceRecord) -> Vec<u8> {
        record.sign(&self.world.gate_key).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.sign(self.record.clone())
    }
}

/// What the runtime says, with its secrets: `secret` goes everywhere that free text can go.
pub struct Script {
    pub secret: String,
    pub bodies: fn(&Script, u64) -> Vec<EventBody>,
}

impl Default for Script {
    fn default() -> Self {
        Self { secret: "none".into(), bodies: all_bodies }
    }
}

pub fn all_bodies(script: &Script, units: u64) -> Vec<EventBody> {
    let phase = |phase, boot_micros| EventBody::Phase { phase, boot_micros };
    let total = Interval { units, micros: SECONDS * 1_000_000 };
    vec![
        phase(Phase::Challenged, 500_000_000),
        phase(Phase::Attested, 500_014_000),
        phase(Phase::Released, 500_021_000),
        phase(Phase::Opened, 500_024_000),
        EventBody::Device { model: "cpu".into(), driver: None, uuid: Some(script.secret.clone()) },
        phase(Phase::FirstStep, 500_101_000),
        EventBody::Warm { units: 4, weights: Digest32::from([7; 32]) },
        EventBody::Progress {
            progress: Progress { done: 10, loss: Some(0.1 + 0.2), ..Progress::default() },
            interval: Interval { units: 10, micros: 1000 },
        },
        EventBody::Measured { total, weights: Digest32::from([8; 32]), loss: None, method: script.secret.clone() },
        EventBody::Artifact {
            name: "adapter_model.safetensors".into(),
            sha256: Digest32::from([9; 32]),
            bytes: 1234,
            sealed_sha256: None,
        },
        EventBody::Failed { step: script.secret.clone(), message: script.secret.clone() },
        phase(Phase::Zeroizing, 520_300_000),
        EventBody::Zeroized {
            receipt: Receipt {
                zeroizer: "host-memory".into(),
                regions: vec![WipedRegion {
                    label: format!("data key {}", script.secret),
                    bytes: 32,
                    method: "overwritten with zeros".into(),
                    verification: "read back".into(),
                }],
                allocator_bytes: Some(4096),
                large_blocks: Some(LargeBlocks {
                    from_bytes: 65_536,
                    peak_bytes: 9,
                    unlocked_peak_bytes: 7,
                    ordinary_bytes: 5,
                }),
                small_blocks: Some(SmallBlocks {
                    below_bytes: 65_536,
                    page_bytes: 262_144,
                    unlocked_page_bytes: 4,
                    ordinary_bytes: 3,
                }),
                unlocked_bytes: 0,
                key_memory: glasshouse_core::secret::KeyMemory::MemfdSecret,
                swapped_bytes: Some(0),
                not_covered: vec![format!("registers {}", script.secret)],
                millis: 3,
            },
        },
        EventBody::End { outcome: Outcome::Completed, reason: Some(script.secret.clone()) },
    ]
}

/// The fewest events that a row and a receipt rest on.
pub fn slim_bodies(script: &Script, units: u64) -> Vec<EventBody> {
    let wanted = |b: &EventBody| {
        !matches!(b, EventBody::Device { .. } | EventBody::Failed { .. })
            && !matches!(b, EventBody::Phase { phase, .. } if *phase != Phase::Challenged)
    };
    all_bodies(script, units).into_iter().filter(wanted).collect()
}

pub fn slim() -> Run {
    run_with(Order::RawFirst, 1, &Script { bodies: slim_bodies, ..Script::default() })
}

/// The session alone, for defects that are not about rows.
pub fn slimmest() -> Run {
    let mut run = slim();
    run.record.rows.clear();
    run.record.raw_segments.clear();
    run
}

pub fn run(order: Order, repeats: u16) -> Run {
    run_with(order, repeats, &Script::default())
}

pub fn run_with(order: Order, repeats: u16, script: &Script) -> Run {
    let mut first = World::new();
    first.attestor.claims.container.value = format!("host:{}", script.secret);
    first.reference.container = first.attestor.claims.container.clone();
    let first = first;
    let (mut sessions, mut raw_segments, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for (position, mode) in order.plan(repeats).into_iter().enumerate() {
        let mut world = first.again(Arc::new(MemoryGateStore::default()));
        world.session = Nonce32::random().unwrap();
        let start = position as u64 * 60;
        let units = 1_000_000 - 37 * position as u64 - if mode == Mode::Protected { 5000 } else { 0 };
        match mode {
            Mode::Raw => raw_segments.push(raw_segment(&world, script, units, start)),
            Mode::Protected => sessions.push(session(&world, script, units, start)),
        }
        segments.push(sample(&world, mode, position, units));
    }
    let run = Nonce32::random().unwrap();
    let measurement = Measurement {
        run,
        provider: Label::lossy("local"),
        machine: Label::lossy(&format!("2 x test CPU {}", script.secret)),
        workload: Label::lossy("mlp/tiny"),
        unit: Unit::Epoch,
        order,
        repeats,
        duration_seconds: SECONDS as f64,
        segments,
        cleanup: Cleanup::Observed,
    };
    let ended = now(1000).wall;
    let record = EvidenceRecord {
        version: VERSION.to_owned(),
        run,
        signer: first.gate_key.public(),
        created_at: ended,
        sessions,
        refused: Vec::new(),
        raw_segments,
        rows: vec![measurement.clone().into_row()],
        cleanup: Some(CleanupProof::new(
            Label::lossy("local"),
            format!("pod-{}", script.secret),
            Some(ended),
            vec![ended, UnixMillis(ended.0 + 1000)],
            None,
        )),
        timeline: vec![Moment { name: Label::lossy(&format!("created {}", script.secret)), session: None, micros: 17 }],
        claims: vec![LabelledClaim {
            name: "endpoint".into(),
            value: format!("https://{}.example/", script.secret),
            source: ClaimSource::ProviderAsserted,
        }],
    };
    Run { world: first, record, measurement }
}

pub fn session(world: &World, script: &Script, units: u64, start: u64) -> SessionRecord {
    let (mut owner, mut runtime) = (world.owner(), world.runtime());
    let challenge = owner.challenge(now(start)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(start)).unwrap();
    let release = owner.evidence(&evidence, now(start + 1)).unwrap();
    let mut grant = runtime.release(&release, now(start + 1)).unwrap();
    for (i, body) in (script.bodies)(script, units).iter().enumerate() {
        let record = grant.channel.emit(body, now(start + 2 + i as u64)).unwrap();
        owner.records(&[record]).unwrap();
    }
    SessionRecord::from_parts(&owner.record_parts().unwrap(), world.reference.clone()).unwrap()
}

pub fn raw_segment(world: &World, script: &Script, units: u64, start: u64) -> RawSegmentRecord {
    let mut runtime = RuntimeChannel::raw(&world.launch_secret, world.session, &world.session);
    let mut owner = OwnerChannel::raw(&world.launch_secret, world.session, &world.session);
    for (i, body) in (script.bodies)(script, units).iter().enumerate() {
        let secret_is_never_held = matches!(body, EventBody::Zeroized { .. });
        if !secret_is_never_held {
            owner.accept(&runtime.emit(body, now(start + i as u64)).unwrap()).unwrap();
        }
    }
    RawSegmentRecord::from_channel(&owner)
}

fn sample(world: &World, mode: Mode, position: usize, units: u64) -> SegmentSample {
    let protection = Protection {
        attestation: Attestation::Verified(Assurance::SelfReported),
        runtime_state: RuntimeState::Zeroized,
    };
    let phase = |name, seconds| overhead::Phase { name: Label::lossy(name), seconds };
    SegmentSample {
        session: world.session,
        kind: if mode == Mode::Raw { SegmentKind::Raw } else { SegmentKind::Protected(protection) },
        position,
        completed: true,
        units,
        seconds: SECONDS as f64,
        intervals: vec![RateInterval { units: units / 10, seconds: SECONDS as f64 / 10.0 }; 10],
        phases: vec![phase("warm-up", 0.25), phase("steady", SECONDS as f64)],
        weights_after_warm_up: Some(Digest32::from([7; 32])),
        weights_at_end: Some(Digest32::from([8; 32])),
        method: Some("cpu".to_owned()),
        device: Device::Cpu,
        gpu: None,
        instance: "host:1".into(),
        peak_rss_bytes: None,
    }
}
