use std::path::Path;

use glasshouse_core::evidence::{DeviceEvidence, DeviceKind, GpuEvidence};
use glasshouse_core::fixed::{Blob, Digest64, Nonce32};
use glasshouse_core::refusal::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::case::Case;
use super::decode::{binary, certificates, pem_chain};
use super::report::Outcome;
use crate::nvidia::{Device, ListedEvidence, NvidiaCollateral, NvidiaPolicy, NvidiaRoots, NvidiaVerifier, verify_rim};
use crate::report_data::ReportData;
use crate::snp::{SnpEvidence, SnpPolicy, SnpRoots, SnpVerifier};
use crate::tdx::{Collateral, DcapPolicy, DcapVerifier, IntelRoot};
use crate::tokens::{ConfidentialSpacePolicy, Jwks, NrasPolicy, verify_confidential_space, verify_nras};
use crate::x509;

const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Runs a case; everything that is not the verifier's decision breaks it.
pub(super) fn run(case: &Case, folder: &Path) -> Outcome {
    let input = Input { case, folder };
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
    folder: &'a Path,
}

impl Input<'_> {
    fn nvidia_device(&self, kind: DeviceKind) -> Ran {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            report: String,
            chain: Option<String>,
            #[serde(default)]
            rims: Vec<String>,
            nonce: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: NvidiaPolicy = self.policy()?;
        let relaxations = policy.relaxations();
        let verifier = NvidiaVerifier::new(policy, NvidiaRoots::nvidia());
        let rims = members.rims.iter().map(|name| self.file(name)).collect::<Result<Vec<_>, _>>()?;
        let rims: Vec<_> = rims.iter().map(Vec::as_slice).collect();
        let collateral = NvidiaCollateral { rims: &rims, crls: &[] };
        let nonce = members.nonce.as_deref().map(nonce).transpose()?;
        let file = self.file(&members.report)?;
        if is_list(&file) {
            let (devices, own) = self.listed(&file, kind)?;
            let nonce = nonce.or(own).ok_or("neither the case nor the list has a nonce")?;
            let verified = verifier.verify_all(&devices, collateral, &nonce, self.case.at);
            return Ok(verified.map(|_| relaxations));
        }
        let chain = pem_chain(&self.file(&members.chain.ok_or("it has no chain")?)?);
        let nonce = nonce.ok_or("it has no nonce")?;
        let device = Device { kind, report: &binary(&file), chain: &chain };
        Ok(verifier.verify_device(device, collateral, &nonce, self.case.at).map(|_| relaxations))
    }

    /// All devices of a list that NVIDIA's tools wrote, and the nonce that all of them name.
    fn listed(&self, file: &[u8], kind: DeviceKind) -> Result<(GpuEvidence, Option<Nonce32>), String> {
        let listed = ListedEvidence::parse(file).map_err(|e| e.to_string())?;
        let first = listed.first().ok_or("the list is empty")?;
        let nonce = first.nonce;
        if listed.iter().any(|entry| entry.nonce != nonce) {
            return Err("the list's entries name different nonces".to_owned());
        }
        let evidence = |entry: &ListedEvidence| {
            // The serial is the verifier's to compare; a chain that cannot be read has none, and is refused before.
            let chain = x509::certificates_from_pem(&entry.chain).unwrap_or_default();
            DeviceEvidence {
                kind: if kind == DeviceKind::NvidiaSwitch { kind } else { entry.kind },
                serial: Blob(chain.first().map(|leaf| leaf.serial().to_vec()).unwrap_or_default()),
                report: Blob(entry.report.clone()),
                chain: Blob(entry.chain.clone()),
            }
        };
        Ok((GpuEvidence(listed.iter().map(evidence).collect()), nonce))
    }

    fn nvidia_rim(&self) -> Ran {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            rim: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct NoPolicy {}
        let members: Members = self.members()?;
        let NoPolicy {} = self.policy()?;
        let verified = verify_rim(&self.file(&members.rim)?, &NvidiaRoots::nvidia().rim, self.case.at);
        Ok(verified.map(|_| Vec::new()))
    }

    fn nras(&self) -> Ran {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            token: String,
            jwks: String,
            nonce: String,
        }
        let members: Members = self.members()?;
        let policy: NrasPolicy = self.policy()?;
        let (token, nonce) = (self.file(&members.token)?, nonce(&members.nonce)?);
        let keys = self.file(&members.jwks)?;
        let verified = Jwks::parse(&keys).and_then(|keys| verify_nras(&token, &keys, &nonce, &policy, self.case.at));
        Ok(verified.map(|_| policy.relaxations()))
    }

    fn confidential_space(&self) -> Ran {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            token: String,
            jwks: String,
            audience: String,
            nonce: String,
        }
        let members: Members = self.members()?;
        let policy: ConfidentialSpacePolicy = self.policy()?;
        let token = String::from_utf8(self.file(&members.token)?).map_err(|_| "the token is not text".to_owned())?;
        let keys = self.file(&members.jwks)?;
        let binding = (members.audience.as_str(), members.nonce.as_str());
        let verified = Jwks::parse(&keys)
            .and_then(|keys| verify_confidential_space(token.trim(), &keys, binding, &policy, self.case.at));
        Ok(verified.map(|_| policy.relaxations()))
    }

    fn sev_snp(&self) -> Ran {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            report: String,
            vek: String,
            chain: Option<String>,
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
        if let Some(more) = &members.chain {
            chain.extend(certificates(&self.file(more)?));
        }
        let (vek, issuers) = chain.split_first().ok_or("the file of the VCEK or VLEK is empty")?;
        let issuers: Vec<_> = issuers.iter().map(Vec::as_slice).collect();
        let evidence = SnpEvidence { report: &report, vek, chain: &issuers };
        let relaxations = policy.relaxations();
        let verified = SnpVerifier::new(policy, SnpRoots::amd()).verify(evidence, expected.get(), self.case.at);
        Ok(verified.map(|_| relaxations))
    }

    fn dcap(&self, tdx: bool) -> Ran {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            quote: String,
            collateral: String,
            report_data: Option<String>,
            report_data_prefix: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: DcapPolicy = self.policy()?;
        let expected = Expected::new(members.report_data, members.report_data_prefix)?;
        let (quote, collateral) = (binary(&self.file(&members.quote)?), self.file(&members.collateral)?);
        let relaxations = policy.relaxations();
        let verifier = DcapVerifier::new(policy, IntelRoot::intel());
        let verified = Collateral::parse(&collateral).and_then(|collateral| match tdx {
            true => verifier.verify_tdx(&quote, &collateral, expected.get(), self.case.at),
            false => verifier.verify_sgx(&quote, &collateral, expected.get(), self.case.at),
        });
        Ok(verified.map(|_| relaxations))
    }

    fn members<T: DeserializeOwned>(&self) -> Result<T, String> {
        from_map(&self.case.members, "the case")
    }

    /// The default policy with the case's laid over it.
    fn policy<T: DeserializeOwned>(&self) -> Result<T, String> {
        from_map(&self.case.policy, "the policy")
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(name);
        let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
        let length = std::fs::metadata(&path).map_err(failed)?.len();
        if length > MAX_FILE {
            return Err(format!("{} is larger than 16 MiB", path.display()));
        }
        std::fs::read(&path).map_err(failed)
    }
}

fn from_map<T: DeserializeOwned>(map: &Map<String, Value>, what: &str) -> Result<T, String> {
    serde_json::from_value(Value::Object(map.clone())).map_err(|e| format!("{what}: {e}"))
}

fn nonce(text: &str) -> Result<Nonce32, String> {
    Nonce32::from_hex(&text.to_ascii_lowercase()).ok_or_else(|| "the nonce is not 64 hexadecimal digits".to_owned())
}

/// NVIDIA's lists are JSON; a report in raw bytes, hex or base64 never begins like it.
fn is_list(file: &[u8]) -> bool {
    matches!(file.trim_ascii_start().first(), Some(b'[' | b'{'))
}

/// A case's report data.
enum Expected {
    Full(Digest64),
    Prefix(Vec<u8>),
    Unknown,
}

impl Expected {
    fn new(full: Option<String>, prefix: Option<String>) -> Result<Self, String> {
        match (full, prefix) {
            (None, None) => Ok(Self::Unknown),
            (Some(full), None) => Digest64::from_hex(&full.to_ascii_lowercase())
                .map(Self::Full)
                .ok_or_else(|| "report_data is not 128 hexadecimal digits".to_owned()),
            (None, Some(prefix)) => match hex::decode(&prefix) {
                Ok(bytes) if (1..=64).contains(&bytes.len()) => Ok(Self::Prefix(bytes)),
                _ => Err("report_data_prefix is not 2 to 128 hexadecimal digits".to_owned()),
            },
            (Some(_), Some(_)) => Err("it has both report_data and report_data_prefix".to_owned()),
        }
    }

    fn get(&self) -> ReportData<'_> {
        match self {
            Self::Full(all) => ReportData::Full(all),
            Self::Prefix(start) => ReportData::Prefix(start),
            Self::Unknown => ReportData::Unknown,
        }
    }
}
