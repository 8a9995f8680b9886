use std::path::Path;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::refusal::Refusal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Case;
use super::decode::{binary, certificates, document, manifest, pem_chain};
use super::files;
use super::list::{EvidenceList, is_list};
use super::members::{Asked, Expected, Files};
use super::policy::over_default;
use super::report::Outcome;
use crate::nvidia::{self, Device, NvidiaCollateral, NvidiaPolicy, NvidiaRoots, NvidiaVerifier, verify_rim};
use crate::snp::{SnpEvidence, SnpPolicy, SnpRoots, SnpVerifier};
use crate::tdx::{Collateral, DcapPolicy, DcapVerifier, IntelRoot};
use crate::tokens::{self, ConfidentialSpacePolicy, Jwks, NrasPolicy, verify_confidential_space, verify_nras};

/// Runs a case; everything that is not the verifier's decision breaks it.
pub(super) fn run(case: &Case, at: UnixMillis, folder: &Path) -> Outcome {
    let input = Input { case, at, folder };
    let result = match case.kind.as_str() {
        "nvidia-gpu" => input.nvidia_device(DeviceKind::NvidiaGpu),
        "nvidia-switch" => input.nvidia_device(DeviceKind::NvidiaSwitch),
        "nvidia-rim" => input.nvidia_rim(),
        "nras-eat" => input.nras(),
        "sev-snp" => input.sev_snp(),
        "tdx" => input.dcap(true),
        "sgx" => input.dcap(false),
        "gcp-confidential-space" => input.confidential_space(),
        other => Err(format!("the kind {other:?} is not known")),
    };
    match result {
        Ok(Ok(relaxations)) => Outcome::Accepted(relaxations),
        Ok(Err(refusal)) => Outcome::Refused(refusal),
        Err(reason) => Outcome::Broken(reason),
    }
}

/// What is broken about a case, or what the verifier decided: the relaxations in force, or a refusal.
type Ran = Result<Result<Vec<String>, Refusal>, String>;

struct Input<'a> {
    case: &'a Case,
    at: UnixMillis,
    folder: &'a Path,
}

impl Input<'_> {
    fn nvidia_device(&self, kind: DeviceKind) -> Ran {
        #[derive(Deserialize)]
        struct Members {
            report: String,
            chain: Option<Files>,
            rims: Option<Files>,
            nonce: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: NvidiaPolicy = self.policy()?;
        let relaxations = policy.relaxations();
        let verifier = NvidiaVerifier::new(policy, NvidiaRoots::nvidia());
        let rims = members.rims.iter().flat_map(Files::names);
        let rims = rims.map(|name| Ok(manifest(&self.file(name)?))).collect::<Result<Vec<_>, String>>()?;
        let rims: Vec<_> = rims.iter().map(Vec::as_slice).collect();
        let collateral = NvidiaCollateral { rims: &rims, ..NvidiaCollateral::default() };
        let nonce = members.nonce.as_deref().map(Asked::nonce).transpose()?;
        let file = self.document(&members.report)?;
        if is_list(&file) {
            let list = match EvidenceList::read(&file) {
                Ok(list) => list,
                Err(refusal) => return Ok(Err(refusal)),
            };
            for name in members.chain.iter().flat_map(Files::names) {
                let chain = self.file(name)?;
                if !is_list(&chain) && !list.has_chain(&certificates(&chain)) {
                    return Err(format!("its report is a list that brings its own chains, and {name} is none of them"));
                }
            }
            let asked = nonce.or_else(|| list.nonce().map(Asked::For)).unwrap_or(Asked::Unknown);
            let nonce = asked.get();
            let verified = verifier.verify_all(&list.devices(kind), collateral, &nonce, self.at);
            return Ok(asked.told(list.of_one_request(verified.map(|_| relaxations), nonce), &nvidia::codes::NONCE));
        }
        // Without a chain nothing is authentic: the verifier says so.
        let chain = members.chain.iter().flat_map(Files::names);
        let chain = chain.map(|name| Ok(pem_chain(&self.file(name)?))).collect::<Result<Vec<_>, String>>()?;
        let asked = nonce.unwrap_or(Asked::Unknown);
        let device = Device { kind, report: &binary(&file), chain: &chain.join(&b'\n') };
        let verified = verifier.verify_device(device, collateral, &asked.get(), self.at).map(|_| relaxations);
        Ok(asked.told(verified, &nvidia::codes::NONCE))
    }

    fn nvidia_rim(&self) -> Ran {
        #[derive(Deserialize)]
        struct Members {
            rim: String,
        }
        #[derive(Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct NoPolicy {}
        let members: Members = self.members()?;
        let NoPolicy {} = self.policy()?;
        let verified = verify_rim(&manifest(&self.file(&members.rim)?), &NvidiaRoots::nvidia().rim, self.at);
        Ok(verified.map(|_| Vec::new()))
    }

    fn nras(&self) -> Ran {
        #[derive(Deserialize)]
        struct Members {
            token: String,
            jwks: String,
            nonce: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: NrasPolicy = self.policy()?;
        let asked = members.nonce.as_deref().map_or(Ok(Asked::Unknown), Asked::nonce)?;
        let (token, keys) = (self.document(&members.token)?, self.document(&members.jwks)?);
        let verified = Jwks::parse(&keys).and_then(|keys| verify_nras(&token, &keys, &asked.get(), &policy, self.at));
        Ok(asked.told(verified.map(|_| policy.relaxations()), &tokens::codes::NONCE))
    }

    fn confidential_space(&self) -> Ran {
        #[derive(Deserialize)]
        struct Members {
            token: String,
            jwks: String,
            audience: Option<String>,
            nonce: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: ConfidentialSpacePolicy = self.policy()?;
        // Bytes that are no text are no token either: the verifier says so.
        let token = String::from_utf8_lossy(&self.document(&members.token)?).into_owned();
        let keys = self.document(&members.jwks)?;
        // No token is for an audience or answers a nonce that nobody has: what is checked before comes first.
        let nobody = Asked::Unknown.get().to_string();
        let of = |member: &Option<String>| member.clone().unwrap_or_else(|| nobody.clone());
        let (audience, nonce) = (of(&members.audience), of(&members.nonce));
        let verified = Jwks::parse(&keys)
            .and_then(|keys| verify_confidential_space(token.trim(), &keys, (&audience, &nonce), &policy, self.at));
        Ok(verified.map(|_| policy.relaxations()))
    }

    fn sev_snp(&self) -> Ran {
        #[derive(Deserialize)]
        struct Members {
            report: String,
            vek: String,
            chain: Option<Files>,
            report_data: Option<String>,
            report_data_prefix: Option<String>,
            vmpl: Option<u32>,
        }
        let members: Members = self.members()?;
        let mut policy: SnpPolicy = self.policy()?;
        policy.vmpl = members.vmpl.unwrap_or(policy.vmpl);
        let expected = Expected::new(members.report_data, members.report_data_prefix)?;
        let report = binary(&self.file(&members.report)?);
        // A file may hold the whole chain, the VCEK or VLEK first.
        let mut chain = certificates(&self.file(&members.vek)?);
        for more in members.chain.iter().flat_map(Files::names) {
            chain.extend(certificates(&self.file(more)?));
        }
        let (vek, issuers) = chain.split_first().ok_or("the file of the VCEK or VLEK is empty")?;
        let issuers: Vec<_> = issuers.iter().map(Vec::as_slice).collect();
        let evidence = SnpEvidence { report: &report, vek, chain: &issuers };
        let relaxations = policy.relaxations();
        let verified = SnpVerifier::new(policy, SnpRoots::amd()).verify(evidence, expected.get(), self.at);
        Ok(verified.map(|_| relaxations))
    }

    fn dcap(&self, tdx: bool) -> Ran {
        #[derive(Deserialize)]
        struct Members {
            quote: String,
            collateral: String,
            report_data: Option<String>,
            report_data_prefix: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: DcapPolicy = self.policy()?;
        let expected = Expected::new(members.report_data, members.report_data_prefix)?;
        let (quote, collateral) = (binary(&self.file(&members.quote)?), self.document(&members.collateral)?);
        let relaxations = policy.relaxations();
        let verifier = DcapVerifier::new(policy, IntelRoot::intel());
        let verified = Collateral::parse(&collateral).and_then(|collateral| match tdx {
            true => verifier.verify_tdx(&quote, &collateral, expected.get(), self.at),
            false => verifier.verify_sgx(&quote, &collateral, expected.get(), self.at),
        });
        Ok(verified.map(|_| relaxations))
    }

    fn members<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_value(Value::Object(self.case.members.clone())).map_err(|e| format!("the case: {e}"))
    }

    fn policy<T: Default + Serialize + DeserializeOwned>(&self) -> Result<T, String> {
        over_default(&self.case.policy)
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, String> {
        self.file(name).map(|file| document(&file))
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(name);
        files::read(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
    }
}
