//! T, G, report_data and the nonces against values that `scripts/transcript_vectors.py` computed from the design.
#![allow(clippy::unwrap_used)] // a vector that does not read is a failed test

use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Assurance, Claims, ContainerId, EvidenceKind, RuntimeState,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind, GpuEvidence, eat_nonce, gpu_nonce, report_data};
use glasshouse_core::fixed::{Blob, Digest32, Digest48, Digest64, PublicKey32};
use glasshouse_core::protocol::{SUITES, TranscriptFields, transcript_hash};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    suites: String,
    kind: EvidenceKind,
    container_source: String,
    container_value: String,
    image_digest: Option<Digest32>,
    anti_debug_level: AntiDebugLevel,
    timestamp: u64,
    minimum_assurance: Assurance,
    devices: Vec<Device>,
    challenge: Digest48,
    hpke_key: PublicKey32,
    event_key: PublicKey32,
    package_digest: Digest48,
    manifest_digest: Digest48,
    runtime_measurement: Digest32,
    t: Digest48,
    gpu_nonce: Digest32,
    g: Digest48,
    report_data: Digest64,
    eat_nonce: String,
}

#[derive(Deserialize)]
struct Device {
    kind: DeviceKind,
    serial: String,
    report: String,
    chain: String,
}

fn blob(hex_text: &str) -> Blob {
    Blob(hex::decode(hex_text).unwrap())
}

fn claims(vector: &Vector) -> Claims {
    Claims {
        kind: vector.kind,
        image_digest: vector.image_digest,
        container: ContainerId { source: vector.container_source.clone(), value: vector.container_value.clone() },
        runtime_measurement: vector.runtime_measurement,
        anti_debug: AntiDebug {
            profile: ANTI_DEBUG_PROFILE.to_owned(),
            level: vector.anti_debug_level,
            not_dumpable: true,
            no_core_files: true,
            no_tracer: true,
            no_preload: true,
            ptrace_scope: None,
        },
        state: RuntimeState::Ready,
    }
}

fn fields<'a>(vector: &'a Vector, claims: &'a Claims) -> TranscriptFields<'a> {
    TranscriptFields {
        challenge: &vector.challenge,
        suites: &vector.suites,
        hpke_key: &vector.hpke_key,
        event_key: &vector.event_key,
        package_digest: &vector.package_digest,
        manifest_digest: &vector.manifest_digest,
        claims,
        timestamp: UnixMillis(vector.timestamp),
        minimum_assurance: vector.minimum_assurance,
    }
}

#[test]
fn every_vector() {
    let file: File = serde_json::from_str(include_str!("vectors/transcript.json")).unwrap();
    assert_eq!(file.vectors.len(), 2);
    for vector in &file.vectors {
        let name = &vector.name;
        assert_eq!(vector.suites, SUITES);
        let claims = claims(vector);
        assert_eq!(transcript_hash(&fields(vector, &claims)), vector.t, "{name}");
        assert_eq!(gpu_nonce(&vector.t), vector.gpu_nonce, "{name}");
        let devices = vector.devices.iter().map(|d| DeviceEvidence {
            kind: d.kind,
            serial: blob(&d.serial),
            report: blob(&d.report),
            chain: blob(&d.chain),
        });
        assert_eq!(GpuEvidence(devices.collect()).digest(), vector.g, "{name}");
        assert_eq!(report_data(&vector.t, &vector.g), vector.report_data, "{name}");
        assert_eq!(eat_nonce(&vector.report_data), vector.eat_nonce, "{name}");
    }
}

/// Leaving any field out of T, or letting two of them trade bytes, would be found here.
#[test]
fn every_field_changes_t() {
    let file: File = serde_json::from_str(include_str!("vectors/transcript.json")).unwrap();
    let vector = &file.vectors[0];
    let base = claims(vector);
    let t = vector.t;
    let changed_claims: [fn(&mut Claims); 8] = [
        |c| c.kind = EvidenceKind::Tdx,
        |c| c.image_digest = Some(Digest32::from([0; 32])),
        |c| c.container.value.push('x'),
        |c| c.container.source.push('x'),
        |c| c.runtime_measurement.0[0] ^= 1,
        |c| c.anti_debug.profile.push('x'),
        |c| c.anti_debug.level = AntiDebugLevel::Strict,
        |c| c.state = RuntimeState::Training,
    ];
    for change in changed_claims {
        let mut claims = base.clone();
        change(&mut claims);
        assert_ne!(transcript_hash(&fields(vector, &claims)), t);
    }
    let (other48, other32) = (Digest48::from([0xee; 48]), PublicKey32::from([0xee; 32]));
    for changed in [
        TranscriptFields { challenge: &other48, ..fields(vector, &base) },
        TranscriptFields { suites: "none", ..fields(vector, &base) },
        TranscriptFields { hpke_key: &other32, ..fields(vector, &base) },
        TranscriptFields { event_key: &other32, ..fields(vector, &base) },
        TranscriptFields { package_digest: &other48, ..fields(vector, &base) },
        TranscriptFields { manifest_digest: &other48, ..fields(vector, &base) },
        TranscriptFields { timestamp: UnixMillis(1), ..fields(vector, &base) },
        TranscriptFields { minimum_assurance: Assurance::CpuTee, ..fields(vector, &base) },
    ] {
        assert_ne!(transcript_hash(&changed), t);
    }
}
