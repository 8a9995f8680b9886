//! Audits of a record that a run left.

use std::path::{Path, PathBuf};
use std::process::Command;

use examples::HardwareArguments;
use glasshouse_attest::collateral::Bundle;
use glasshouse_attest_gen::nvidia::OcspDraft;
use glasshouse_attest_gen::{Platform, bundle};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Blob, PublicKey32};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::record;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Verifier as _;

/// Makes this executable `verify_evidence`.
pub(crate) const AUDITOR: &str = "GLASSHOUSE_TEST_AUDITOR";

/// The same from files: policy, bundle and key as an auditor has them, under the generator's roots; and the command, which
/// knows the vendors' roots only, does not take what it did not appraise for appraised.
pub(crate) fn audited_from_files(folder: &Path, record: &[u8], gate: PublicKey32, path: &Path) {
    let signer = SigningSecret::from_seed(Secret::take(&mut [9; 32]));
    let now = record::verify_with(record, Some(gate), None, None).unwrap().time.time();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let of = |version: u64, change: &dyn Fn(&mut Bundle)| {
        let mut bundle = bundle(version);
        (bundle.issued_at, bundle.not_after) = (UnixMillis(now.0 - 1000), UnixMillis(now.0 + 1000));
        change(&mut bundle);
        file(&format!("bundle-{version}.json"), &bundle.sign(&signer))
    };
    let policy = file("policy.json", &serde_json::to_vec(&Platform::tdx(1).policy()).unwrap());
    let with = |bundle: PathBuf, key: PublicKey32| HardwareArguments {
        policy: Some(policy.clone()),
        bundle: Some(bundle),
        bundle_key: Some(key),
        dangerous_at: None,
    };
    let good = with(of(5, &|_| {}), signer.public());
    let verifier = good.for_an_audit(Platform::roots(), now).unwrap().unwrap();
    let verified = record::verify_with(record, Some(gate), None, Some(&verifier)).unwrap();
    assert!(verified.sessions[0].appraised_again && record::explain(&verified).contains("appraised again here"));
    let why =
        |arguments: &HardwareArguments, at| arguments.for_an_audit(Platform::roots(), at).unwrap_err().to_string();
    assert!(why(&with(good.bundle.clone().unwrap(), gate), now).contains("another signature"));
    assert!(why(&good, UnixMillis(now.0 + 10_000)).contains("bundle"));
    // Whatever day it is here.
    let always =
        OcspDraft { from: "20240101000000Z", until: Some("20391231235959Z"), ..OcspDraft::revoked("family", 3) };
    let revoking = with(of(6, &|b| b.nvidia.ocsp = vec![Blob(always.der())]), signer.public());
    let verifier = revoking.for_an_audit(Platform::roots(), now).unwrap().unwrap();
    let told = record::verify_with(record, Some(gate), None, Some(&verifier)).unwrap_err().to_string();
    assert!(told.contains("revoked"), "{told}");
    // A run remembers the newest bundle; an audit does not care.
    let store = folder.join("collateral");
    assert!(revoking.for_a_run(Platform::roots(), &store, now).unwrap().is_some());
    let older = good.for_a_run(Platform::roots(), &store, now).unwrap_err().to_string();
    assert!(older.contains("version 6 or newer"), "{older}");
    assert!(HardwareArguments::default().for_a_run(Platform::roots(), &store, now).unwrap().is_none());
    // A bundle that has run out is of use at a time of one's own, by a policy that is another one and says so. That brings
    // no older bundle back.
    let later = UnixMillis(now.0 + 10_000);
    assert!(revoking.for_a_run(Platform::roots(), &store, later).unwrap_err().to_string().contains("bundle-expired"));
    let kept = HardwareArguments { dangerous_at: Some(now), ..revoking };
    let pinned = kept.for_a_run(Platform::roots(), &store, later).unwrap().unwrap();
    assert_eq!(pinned.policy().relaxations(), [format!("dangerous_at {now}")]);
    assert_ne!(pinned.policy_digest(), verifier.policy_digest());
    let audited = kept.for_an_audit(Platform::roots(), later).unwrap().unwrap();
    assert_eq!(audited.policy_digest(), pinned.policy_digest());
    // To the second, as it is printed: whoever types what a verdict says has the run's policy.
    let typed = HardwareArguments { dangerous_at: Some(UnixMillis(now.0 / 1000 * 1000)), ..kept.clone() };
    let typed = typed.for_an_audit(Platform::roots(), later).unwrap().unwrap();
    assert_eq!(typed.policy_digest(), pinned.policy_digest());
    // Without a bundle a run takes the newest that one has seen, and an audit asks for it.
    let cached = HardwareArguments { bundle: None, ..good.clone() };
    assert!(cached.for_a_run(Platform::roots(), &store, now).unwrap().is_some());
    assert!(cached.for_a_run(Platform::roots(), &store, later).unwrap_err().to_string().contains("bundle-expired"));
    let none = cached.for_a_run(Platform::roots(), &folder.join("another"), now).unwrap_err().to_string();
    assert!(none.contains("pass one with --bundle"), "{none}");
    assert!(why(&cached, now).contains("an audit needs the bundle"));
    // A bundle of the future is not remembered at a time of the future, where it would shut out those of the present.
    let (then, day) = (UnixMillis(now.0 + 86_400_000), 86_400_000);
    let ahead = with(of(9, &|b| (b.issued_at, b.not_after) = (then, UnixMillis(then.0 + day))), signer.public());
    let ahead = HardwareArguments { dangerous_at: Some(UnixMillis(then.0 + 5000)), ..ahead };
    let told = ahead.for_a_run(Platform::roots(), &store, now).unwrap_err().to_string();
    assert!(told.contains("set the clock right"), "{told}");
    assert!(cached.for_a_run(Platform::roots(), &store, now).unwrap().is_some(), "version 9 was not remembered");
    let rolled = HardwareArguments { dangerous_at: Some(now), ..good.clone() };
    assert!(rolled.for_a_run(Platform::roots(), &store, later).unwrap_err().to_string().contains("version 6 or newer"));

    let command = |more: &[&std::ffi::OsStr]| {
        let mut command = Command::new("/proc/self/exe");
        command.env(AUDITOR, "").arg(path);
        let output = command.args(["--trust", &gate.to_string()]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, told) = command(&[]);
    assert!(code == Some(0) && told.contains("not appraised again here"), "{told}");
    let (key, bundle) = (signer.public().to_string(), good.bundle.clone().unwrap());
    let flags = ["--policy".as_ref(), policy.as_os_str(), "--bundle".as_ref(), bundle.as_os_str()];
    let (code, told) = command(&[&flags[..], &["--bundle-key".as_ref(), key.as_ref()]].concat());
    assert!(code == Some(1) && told.contains("under other roots than the vendors'"), "{told}");
    assert!(told.contains("--dangerous-at"), "{told}");
    let stranger = gate.to_string();
    let (code, told) = command(&[&flags[..], &["--bundle-key".as_ref(), stranger.as_ref()]].concat());
    assert!(code == Some(1) && told.contains("bundle-signature"), "{told}");
    assert_eq!(command(&flags).0, Some(2), "a bundle without its key");
    assert_eq!(command(&flags[..2]).0, Some(2), "a policy without a bundle");
}
