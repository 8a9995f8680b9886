//! From samples to report, as a caller sees it.

use proptest::prelude::*;

use super::*;
use crate::claims::{Assurance, RuntimeState};
use crate::fixed::{Digest32, Nonce32};
use crate::refusal::Code;
use crate::traits::{Device, Unit};

/// A run that meets the bar: rates by position, one session per protected segment.
pub(crate) fn measurement(order: Order, repeats: u16, seconds: f64, rates: impl Fn(Mode, usize) -> f64) -> Measurement {
    let segment = |(position, mode): (usize, Mode)| {
        let units = (rates(mode, position) * seconds).round() as u64;
        let protection = Protection {
            attestation: Attestation::Verified(Assurance::SelfReported),
            runtime_state: RuntimeState::Zeroized,
        };
        let phases = match mode {
            Mode::Raw => vec![("boot", 0.031), ("warm-up", 0.210), ("steady", seconds), ("export", 0.004)],
            Mode::Protected => vec![
                ("boot", 0.032),
                ("attest", 0.018),
                ("open", 0.006),
                ("warm-up", 0.211),
                ("steady", seconds),
                ("export", 0.005),
                ("zeroize", 0.041),
            ],
        };
        SegmentSample {
            session: Nonce32::from([position as u8 + 1; 32]),
            kind: if mode == Mode::Raw { SegmentKind::Raw } else { SegmentKind::Protected(protection) },
            position,
            completed: true,
            units,
            seconds,
            intervals: (0..50)
                .map(|i| RateInterval { units: units / 50, seconds: seconds / 50.0 * (1.0 + 0.001 * f64::from(i % 7)) })
                .collect(),
            phases: phases.into_iter().map(|(n, s)| Phase { name: Label::lossy(n), seconds: s }).collect(),
            weights_after_warm_up: Some(Digest32::from([7; 32])),
            weights_at_end: None,
            method: Some("cpu".to_owned()),
            device: Device::Cpu,
            gpu: None,
            instance: "boot-id:1".to_owned(),
            peak_rss_bytes: Some(64 << 20),
        }
    };
    Measurement {
        run: Nonce32::from([0xab; 32]),
        provider: Label::lossy("local"),
        machine: Label::lossy("2 x Intel Xeon 8481C"),
        workload: Label::lossy("mlp/reference"),
        unit: Unit::Epoch,
        order,
        repeats,
        duration_seconds: seconds,
        segments: order.plan(repeats).into_iter().enumerate().map(segment).collect(),
        cleanup: Cleanup::Observed,
    }
}

fn good(order: Order, seconds: f64, pct: f64) -> Measurement {
    let wobble = [0.02, 0.21, -0.13, 0.09, 0.24, 0.11, -0.17, -0.08];
    measurement(order, if order == Order::Abba { 2 } else { 1 }, seconds, |mode, i| {
        let factor = if mode == Mode::Protected { 1.0 - pct / 100.0 } else { 1.0 };
        4812.0 * factor * (1.0 + wobble[i % 8] / 100.0)
    })
}

/// Each defect, and the one reason that it must give.
fn defects() -> Vec<(Exclusion, Measurement)> {
    let with = |change: &dyn Fn(&mut Measurement)| {
        let mut m = good(Order::Abba, 5.0, 0.5);
        change(&mut m);
        m
    };
    fn protect(m: &mut Measurement, i: usize) -> &mut Protection {
        let SegmentKind::Protected(p) = &mut m.segments[i].kind else { panic!("segment {i} is raw") };
        p
    }
    vec![
        (Exclusion::RawIncomplete, with(&|m| m.segments[3].completed = false)),
        (Exclusion::RawIncomplete, with(&|m| m.segments[0].units = 0)),
        (Exclusion::ProtectedIncomplete, with(&|m| m.segments[1].seconds = 2.0)),
        (Exclusion::OrderNotFollowed, with(&|m| drop(m.segments.pop()))),
        (Exclusion::OrderNotFollowed, with(&|m| m.segments[0].position = 4)),
        (Exclusion::OrderNotFollowed, with(&|m| m.order = Order::RawFirst)),
        (
            Exclusion::AttestationNotVerified,
            with(&|m| protect(m, 2).attestation = Attestation::Refused(Code::NONCE_REPLAYED)),
        ),
        (Exclusion::AttestationNotVerified, with(&|m| protect(m, 6).attestation = Attestation::Missing)),
        (Exclusion::NotZeroized, with(&|m| protect(m, 1).runtime_state = RuntimeState::Failed)),
        (Exclusion::NotZeroized, with(&|m| protect(m, 6).runtime_state = RuntimeState::Training)),
        (Exclusion::CleanupNotObserved, with(&|m| m.cleanup = Cleanup::Unconfirmed)),
        (Exclusion::CleanupNotObserved, with(&|m| m.cleanup = Cleanup::Kept)),
        (Exclusion::WeightsUnknown, with(&|m| m.segments[5].weights_after_warm_up = None)),
        (Exclusion::WeightsDiffer, with(&|m| m.segments[5].weights_after_warm_up = Some(Digest32::from([8; 32])))),
        (Exclusion::InstanceDiffers, with(&|m| m.segments[7].instance = "boot-id:2".to_owned())),
        (Exclusion::InstanceDiffers, with(&|m| m.segments[7].device = Device::Cuda)),
        (Exclusion::MethodDiffers, with(&|m| m.segments[2].method = Some("eager, because it was asked".to_owned()))),
    ]
}

#[test]
fn a_good_run_counts_and_says_what_was_put_in() {
    let row = measurement(Order::Abba, 2, 20.0, |mode, _| if mode == Mode::Raw { 200.0 } else { 198.0 }).into_row();
    let figures = row.figures().unwrap();
    assert_eq!(
        (figures.raw_rate.value(), figures.protected_rate.value(), figures.overhead_pct.value()),
        (200.0, 198.0, 1.0)
    );
    assert_eq!((figures.pairs.len(), figures.method), (4, IntervalMethod::PairedBootstrap));
    assert_eq!(row.assurance(), Some(Assurance::SelfReported));
    assert!(row.interval_is_reproducible());
    assert!(!figures.is_within_noise());
    assert!((figures.lifecycle.protected_sec.value() - figures.lifecycle.raw_sec.value() - 0.068).abs() < 1e-3);
}

#[test]
fn every_defect_excludes_with_its_own_reason() {
    for (reason, m) in defects() {
        let row = m.into_row();
        let Outcome::Excluded { reasons, .. } = row.outcome() else { panic!("{reason:?} counted") };
        assert!(reasons.contains(&reason), "{reason:?} not in {reasons:?}");
        let text = render_text(std::slice::from_ref(&row), Charset::Unicode);
        assert!(text.contains(reason.code()) && text.contains("decision  excluded"), "{text}");
        let json: serde_json::Value = serde_json::to_value(&row).unwrap();
        for field in ["overheadPct", "rawEpochsPerSec", "protectedEpochsPerSec", "intervalPct"] {
            assert!(json[field].is_null(), "{field}");
        }
        assert_eq!((&json["valid"], &json["decision"]), (&false.into(), &"excluded".into()));
        assert!(json["reason"].as_str().unwrap().contains(reason.sentence()));
    }
}

#[test]
fn a_missing_plan_excludes() {
    let empty = Measurement { repeats: 0, segments: Vec::new(), ..good(Order::Abba, 5.0, 1.0) };
    assert!(!empty.into_row().is_valid());
}

#[test]
fn the_published_names() {
    let json = serde_json::to_value(good(Order::RawFirst, 5.0, 1.0).into_row()).unwrap();
    for field in [
        "provider",
        "gpuModel",
        "sameInstance",
        "durationSec",
        "order",
        "protectedEpochsPerSec",
        "rawEpochsPerSec",
        "overheadPct",
        "attestation",
        "runtimeState",
        "method",
        "assurance",
        "cleanup",
        "status",
        "valid",
        "reason",
        "device",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!((&json["attestation"], &json["assurance"]), (&"verified".into(), &"SelfReported".into()));
    assert_eq!(json["method"], "moving-block-within-run");
    assert_eq!(json["status"], "noise-check");
}

#[test]
fn status_and_headline() {
    let rows: Vec<_> = [
        (Order::RawFirst, 60.0, 1.0),
        (Order::RawFirst, 899.0, 2.0),
        (Order::ProtectedFirst, 900.0, 3.0),
        (Order::RawFirst, 300.0, 4.0),
    ]
    .map(|(o, s, p)| good(o, s, p).into_row())
    .into();
    let of = |f: fn(&Row) -> Status| rows.iter().map(f).collect::<Vec<_>>();
    assert_eq!(of(Row::status), [Status::NoiseCheck, Status::Extended, Status::Sustained, Status::Extended]);
    assert_eq!(headline(&rows), Some(&rows[1]));
    assert_eq!(headline(&rows[2..3]), None);
    let excluded = Measurement { cleanup: Cleanup::Kept, ..good(Order::RawFirst, 3600.0, 9.0) }.into_row();
    let with: Vec<_> = rows.iter().cloned().chain([excluded]).collect();
    assert_eq!((headline(&with), median_overhead(&with)), (Some(&rows[1]), median_overhead(&rows)));
}

#[test]
fn a_file_reads_back_and_edits_do_not() {
    let rows: Vec<_> = [good(Order::Abba, 5.0, 0.6).into_row()]
        .into_iter()
        .chain(defects().into_iter().map(|d| d.1.into_row()))
        .collect();
    let text = OverheadFile { rows: rows.clone() }.to_json().unwrap();
    assert_eq!(OverheadFile::parse(text.as_bytes()).unwrap().rows, rows);
    let edits = [
        ("\"valid\": true", "\"valid\": false"),
        ("\"valid\": false", "\"valid\": true"),
        ("\"assurance\": \"SelfReported\"", "\"assurance\": null"),
        ("\"attestation\": \"refused\"", "\"attestation\": \"verified\""),
        ("\"status\": \"noise-check\"", "\"status\": \"sustained\""),
        ("\"runtimeState\": \"zeroized\"", "\"runtimeState\": \"failed\""),
        ("\"cleanup\": \"unconfirmed\"", "\"cleanup\": \"observed\",\"extra\": 1"),
        ("\"provider\": \"local\"", "\"provider\": \"local\", \"provider\": \"local\""),
        ("\"method\": \"paired-bootstrap\"", "\"method\": \"none\""),
        ("\"overheadPct\": 0", "\"overheadPct\": 1"),
        ("\"overheadPct\": 0", "\"overheadPct\": 1e999, \"x\": 0"),
        ("\"rawEpochsPerSec\": 4", "\"rawEpochsPerSec\": 5"),
        ("glasshouse/overhead/1", "glasshouse/overhead/2"),
    ];
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        let edited = text.replacen(from, to, 1);
        let error = OverheadFile::parse(edited.as_bytes()).unwrap_err().to_string();
        assert!(!error.contains('\n') && error.starts_with("overhead.json"), "{from}: {error}");
    }
    assert!(OverheadFile::parse(format!("{text}x").as_bytes()).is_err());
    assert!(matches!(OverheadFile::parse(&vec![b' '; MAX_FILE_BYTES + 1]), Err(OverheadFileError::TooLarge { .. })));
    let nested = "[".repeat(100_000);
    assert!(OverheadFile::parse(nested.as_bytes()).is_err());
}

fn sample_rows() -> Vec<Row> {
    let gpu = |mut m: Measurement| {
        for s in &mut m.segments {
            s.device = Device::Cuda;
            s.gpu = Some(GpuIdentity {
                model: Label::lossy("NVIDIA H200"),
                driver: Label::lossy("570.124.06"),
                uuid: Label::lossy("GPU-00000000-0000-0000-0000-000000000000"),
            });
        }
        m
    };
    let mut rows = vec![
        good(Order::Abba, 20.0, 0.4).into_row(),
        gpu(good(Order::RawFirst, 900.0, 1.3)).into_row(),
        good(Order::Abba, 5.0, -0.4).into_row(),
    ];
    rows.extend(defects().into_iter().skip(6).take(1).map(|d| d.1.into_row()));
    rows
}

#[test]
fn the_text_is_as_committed() {
    let text = render_text(&sample_rows(), Charset::Unicode);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/overhead/report.txt");
    if std::env::var_os("GLASSHOUSE_REGENERATE").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/overhead")).unwrap();
        std::fs::write(path, &text).unwrap();
        std::fs::write(path.replace("report.txt", "report.svg"), render_svg(&sample_rows())).unwrap();
        std::fs::write(
            path.replace("report.txt", "overhead.json"),
            OverheadFile { rows: sample_rows() }.to_json().unwrap(),
        )
        .unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
    assert_eq!(render_svg(&sample_rows()), std::fs::read_to_string(path.replace("report.txt", "report.svg")).unwrap());
    let file = std::fs::read(path.replace("report.txt", "overhead.json")).unwrap();
    assert_eq!(OverheadFile::parse(&file).unwrap().rows, sample_rows());
}

#[test]
fn negative_is_never_a_speed_up() {
    let row = good(Order::Abba, 5.0, -0.4).into_row();
    assert!(row.figures().unwrap().overhead_pct.value() < 0.0);
    for report in [render_text(std::slice::from_ref(&row), Charset::Unicode), render_svg(&[row])] {
        assert!(report.contains("within noise"), "{report}");
        assert!(!report.contains("-0.40 %"), "{report}");
    }
}

#[test]
fn labels_cannot_break_out_of_the_picture() {
    let mut m = good(Order::RawFirst, 5.0, 1.0);
    m.workload = Label::lossy("</text><script>alert(1)</script>&\"");
    let svg = render_svg(&[m.into_row()]);
    assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;"), "{svg}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn reports_stay_in_their_width(
        order in prop::sample::select(&Order::ALL), repeats in 1..4u16, seconds in 0.01..1e5f64,
        raw in 1e-3..1e9f64, pct in -50.0..99.0f64, workload in "\\PC{1,120}",
    ) {
        let mut m = measurement(order, repeats, seconds, |mode, _| if mode == Mode::Raw { raw } else { raw * (1.0 - pct / 100.0) });
        m.workload = Label::lossy(&workload);
        let row = m.into_row();
        let counts = row.is_valid();
        for charset in [Charset::Unicode, Charset::Ascii] {
            let text = render_text(std::slice::from_ref(&row), charset);
            for line in text.lines() {
                prop_assert!(line.chars().count() <= WIDTH, "{}", line);
            }
            prop_assert!(charset == Charset::Unicode || text.is_ascii());
        }
        let file = OverheadFile { rows: vec![row] };
        let back = OverheadFile::parse(file.to_json().unwrap().as_bytes()).unwrap();
        prop_assert_eq!(&back, &file);
        prop_assert_eq!(headline(&back.rows).is_some(), counts && order == Order::RawFirst);
    }

    #[test]
    fn excluded_rows_are_in_no_number(pick in prop::collection::vec(0..16usize, 1..6), pcts in prop::collection::vec(0.1..5.0f64, 0..3)) {
        let good_rows: Vec<_> = pcts.iter().map(|p| good(Order::RawFirst, 5.0, *p).into_row()).collect();
        let mut all = good_rows.clone();
        let bad = defects();
        all.extend(pick.into_iter().map(|i| bad[i].1.clone().into_row()));
        prop_assert_eq!(median_overhead(&all), median_overhead(&good_rows));
        prop_assert_eq!(headline(&all), headline(&good_rows));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = OverheadFile::parse(&bytes);
    }

    #[test]
    fn no_edit_panics(at in 0..6000usize, byte: u8) {
        let mut text = OverheadFile { rows: sample_rows() }.to_json().unwrap().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(file) = OverheadFile::parse(&text) {
            let _ = render_text(&file.rows, Charset::Unicode);
            let _ = render_svg(&file.rows);
            let _ = file.rows.iter().all(Row::interval_is_reproducible);
        }
    }
}
