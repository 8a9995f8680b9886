//! The attacks.

use std::path::Path;

use glasshouse_attest::collateral::{CollateralError, CollateralStore};
use glasshouse_attest::hardware::CpuPolicy;
use glasshouse_attest::tamper::{Attempt, OwnWorld, RefusedBy, SuiteError};
use glasshouse_attest::tokens::NrasPolicy;
use glasshouse_attest::{collateral, hardware, nvidia, snp, tdx, tokens};
use glasshouse_core::fixed::{Fixed, Nonce32};
use glasshouse_core::protocol::SigningSecret;

use super::world::Attack;
use crate::collateral::bundle;
use crate::nvidia::{Machine, Manifest};
use crate::platform::{AUDIT_TIME, Cpu, Platform};
use crate::tdx::CollateralDraft;
use crate::token::{NRAS, TokenDraft, jwks};

/// Every scenario.
pub fn scenarios() -> Vec<OwnWorld> {
    let gate = |name, attacker, expected, run| OwnWorld { name, attacker, refused_by: RefusedBy::Gate, expected, run };
    vec![
        gate(
            "GPU swapped",
            "a guest relays the report of a genuine confidential GPU in another machine, over this session's nonce",
            hardware::codes::DEVICE_NOT_LISTED,
            gpu_swapped,
        ),
        gate(
            "GPU of another session",
            "a runtime sends its GPU's genuine report from an earlier session, and quotes over it",
            nvidia::codes::NONCE,
            gpu_of_another_session,
        ),
        gate(
            "duplicate GPU serial",
            "a runtime with one GPU has it attest twice, to look like two",
            nvidia::codes::DUPLICATE_DEVICE,
            duplicate_gpu,
        ),
        gate(
            "serial number of another GPU",
            "a runtime sends a report and chain under the serial number of another device",
            nvidia::codes::DEVICE_SERIAL,
            renamed_gpu,
        ),
        gate(
            "CPU quote without the GPU",
            "the GPU's report was put in on the way: the genuine quote was made before it, over no device",
            tdx::codes::REPORT_DATA,
            quote_without_gpu,
        ),
        gate(
            "no confidential GPU",
            "a runtime on a genuine TD computes on a GPU that does not attest",
            hardware::codes::GPU_MISSING,
            no_gpu,
        ),
        gate(
            "RIM missing",
            "a GPU runs a driver whose reference manifest the owner does not have",
            nvidia::codes::RIM_MISSING,
            rim_missing,
        ),
        gate(
            "RIM of another version",
            "an older driver's genuine manifest stands in the place of the one that the GPU's driver needs",
            nvidia::codes::RIM_VERSION,
            rim_of_another_version,
        ),
        gate(
            "FWID missing",
            "a GPU's firmware leaves its firmware id out of the report",
            nvidia::codes::FWID,
            fwid_missing,
        ),
        gate("debug bit", "a host launches the measured TD with debugging on", tdx::codes::DEBUG, debug_bit),
        gate(
            "TCB below floor",
            "a genuine platform with older firmware than the policy's floor attests",
            tdx::codes::TCB,
            tcb_below_floor,
        ),
        gate(
            "launch measurement",
            "a host launches another kernel in a genuine TD",
            tdx::codes::MEASUREMENT,
            other_kernel,
        ),
        gate(
            "wrong issuer",
            "a runtime brings a token that another service signed with a key of the set",
            tokens::codes::ISSUER,
            wrong_issuer,
        ),
        gate(
            "submodule digest",
            "a runtime exchanges a device's token in a genuine bundle for a genuine one of another device",
            tokens::codes::SUBMODULE_DIGEST,
            submodule_digest,
        ),
        gate(
            "token not asked for",
            "a runtime brings a genuine token of a service that the policy says nothing of",
            hardware::codes::TOKEN_KIND,
            token_not_asked_for,
        ),
        gate(
            "VMPL",
            "software at a lower privilege level than the measured guest's asks for the report",
            snp::codes::VMPL,
            vmpl,
        ),
        gate(
            "migration agent",
            "a host launches the measured guest with a migration agent that may move it elsewhere",
            snp::codes::MIGRATION,
            migration,
        ),
        gate(
            "collateral rollback",
            "a host puts last month's bundle, validly signed and from before a revocation, in the place of the newest",
            collateral::codes::ROLLBACK,
            collateral_rollback,
        ),
        gate(
            "revoked certificate",
            "a platform whose certificate Intel's stand-in revoked attests",
            tdx::codes::REVOKED,
            revoked,
        ),
    ]
}

fn gpu_swapped() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    // The owner knows the machine's own GPU by its certificate's serial number.
    attack.policy.gpu.serials = vec!["5001".to_owned()];
    attack.devices = Box::new(|gpus, nonce| gpus.0 = vec![Machine::gpu(9).evidence(nonce)]);
    attack.run()
}

fn gpu_of_another_session() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.devices = Box::new(|gpus, _| gpus.0 = vec![Machine::gpu(1).evidence(&Fixed([7; 32]))]);
    attack.run()
}

fn duplicate_gpu() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.policy.gpu.gpus = Some(2);
    attack.devices = Box::new(|gpus, _| gpus.0.push(gpus.0[0].clone()));
    attack.run()
}

fn renamed_gpu() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.devices = Box::new(|gpus, _| gpus.0[0].serial.0 = vec![0x50, 2]);
    attack.run()
}

fn quote_without_gpu() -> Result<Attempt, SuiteError> {
    Attack { quote_leaves_devices_out: true, ..Attack::on(Platform::tdx(1)) }.run()
}

fn no_gpu() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.devices = Box::new(|gpus, _| gpus.0.clear());
    attack.run()
}

const DRIVER: &str = "NV_GPU_DRIVER_GH100_580.95.05";

fn rim_missing() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.collateral.nvidia.rims.remove(DRIVER).ok_or(SuiteError::Unfit("the driver's manifest"))?;
    attack.run()
}

fn rim_of_another_version() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    let older = Manifest { version: "570.86.15", ..Manifest::driver() };
    attack.collateral.nvidia.rims.insert(DRIVER.to_owned(), older.document().into_bytes());
    attack.run()
}

fn fwid_missing() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.platform.devices[0].opaque.retain(|(field, _)| *field != 20);
    attack.run()
}

fn debug_bit() -> Result<Attempt, SuiteError> {
    on_td(|quote| quote.attributes[0] = 1).run()
}

fn tcb_below_floor() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    let CpuPolicy::Tdx(policy) = &mut attack.policy.cpu else { return Err(SuiteError::Unfit("a TD's policy")) };
    let mut floor = [0; 16];
    floor[0] = 6;
    policy.minimum_tcb.tee_tcb_svn = Some(Fixed(floor));
    attack.run()
}

fn other_kernel() -> Result<Attempt, SuiteError> {
    on_td(|quote| quote.rtmr[1] = [0x99; 48]).run()
}

fn on_td(change: impl FnOnce(&mut crate::tdx::QuoteDraft)) -> Attack {
    let mut attack = Attack::on(Platform::tdx(1));
    if let Cpu::Tdx(quote) = &mut attack.platform.cpu {
        change(quote);
    }
    attack
}

fn with_token(change: impl FnOnce(&mut TokenDraft) + 'static) -> Attack {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.policy.gpu.tokens = Some(NrasPolicy::default());
    attack.collateral.jwks.insert(NRAS.to_owned(), jwks());
    attack.devices = Box::new(|gpus, nonce| {
        let mut draft = TokenDraft::new(*nonce, 1);
        change(&mut draft);
        gpus.0.push(draft.evidence());
    });
    attack
}

fn wrong_issuer() -> Result<Attempt, SuiteError> {
    with_token(|draft| draft.issuer = "https://staging.attestation.example".to_owned()).run()
}

fn submodule_digest() -> Result<Attempt, SuiteError> {
    with_token(|draft| draft.exchanged = true).run()
}

fn token_not_asked_for() -> Result<Attempt, SuiteError> {
    let mut attack = with_token(|_| {});
    attack.policy.gpu.tokens = None;
    attack.run()
}

fn on_snp(change: impl FnOnce(&mut crate::snp::Draft)) -> Attack {
    let mut attack = Attack::on(Platform::snp(1));
    if let Cpu::Snp(draft) = &mut attack.platform.cpu {
        change(draft);
    }
    attack
}

fn vmpl() -> Result<Attempt, SuiteError> {
    on_snp(|draft| draft.put(0x30, &[2])).run()
}

fn migration() -> Result<Attempt, SuiteError> {
    on_snp(|draft| draft.put(0x0a, &[0b0000_0110])).run()
}

fn revoked() -> Result<Attempt, SuiteError> {
    let mut attack = Attack::on(Platform::tdx(1));
    attack.collateral.intel = vec![CollateralDraft { revoked_platforms: vec![9], ..CollateralDraft::default() }.make()];
    attack.run()
}

fn collateral_rollback() -> Result<Attempt, SuiteError> {
    let folder =
        std::env::temp_dir().join(format!("glasshouse-rollback-{}", Nonce32::random().map_err(no_randomness)?));
    let attempt = rolled_back(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    attempt
}

fn rolled_back(folder: &Path) -> Result<Attempt, SuiteError> {
    let key = SigningSecret::random().map_err(no_randomness)?;
    let store = || CollateralStore::open(folder, key.public()).map_err(|_| SuiteError::Unfit("a store"));
    let newest = store()?.accept(&bundle(2).sign(&key), AUDIT_TIME);
    newest.map_err(|_| SuiteError::Unfit("a bundle that is taken"))?;
    // A gate that starts anew, over the folder that the last one left.
    match store()?.accept(&bundle(1).sign(&key), AUDIT_TIME) {
        Ok(collateral) => Attack { collateral, ..Attack::on(Platform::tdx(1)) }.run(),
        Err(CollateralError::Refused(refusal)) => Ok(Attempt::Refused { refusal, key_left: false }),
        Err(_) => Err(SuiteError::Unfit("a store that works")),
    }
}

fn no_randomness<E>(_: E) -> SuiteError {
    SuiteError::NoRandomness
}

/// The machines that the attacks begin with are released to when nobody attacks.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untampered_machines_are_accepted() {
        for attack in [Attack::on(Platform::tdx(1)), Attack::on(Platform::snp(1)), with_token(|_| {}), on_td(|_| {})] {
            assert!(matches!(attack.run(), Ok(Attempt::Accepted)));
        }
        let mut listed = Attack::on(Platform::tdx(1));
        listed.policy.gpu.serials = vec!["5001".to_owned()];
        assert!(matches!(listed.run(), Ok(Attempt::Accepted)));
    }
}
