use std::path::Path;

use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::{Digest64, Nonce32};
use glasshouse_core::refusal::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::case::Case;
use super::decode::{binary, certificates, document, pem_chain};
use super::list::{EvidenceList, is_list};
use super::report::Outcome;
use crate::nvidia::{Device, NvidiaCollateral, NvidiaPolicy, NvidiaRoots, NvidiaVerifier, verify_rim};
use crate::report_data::ReportData;
use crate::snp::{SnpEvidence, SnpPolicy, SnpRoots, SnpVerifier};
use crate::tdx::{Collateral, DcapPolicy, DcapVerifier, IntelRoot};
use crate::tokens::{ConfidentialSpacePolicy, Jwks, NrasPolicy, verify_confidential_space, verify_nras};

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
            chain: Option<Files>,
            #[serde(default)]
            rims: Vec<String>,
            nonce: Option<String>,
        }
        let members: Members = self.members()?;
        let policy: NvidiaPolicy = self.policy()?;
        let relaxations = policy.relaxations();
        let verifier = NvidiaVerifier::new(policy, NvidiaRoots::nvidia());
        let rims = members.rims.iter().map(|name| self.document(name)).collect::<Result<Vec<_>, _>>()?;
        let rims: Vec<_> = rims.iter().map(Vec::as_slice).collect();
        let collateral = NvidiaCollateral { rims: &rims, ..NvidiaCollateral::default() };
        let nonce = members.nonce.as_deref().map(nonce).transpose()?;
        let file = self.document(&members.report)?;
        if is_list(&file) {
            let list = match EvidenceList::read(&file) {
                Ok(list) => list,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let nonce = nonce.or_else(|| list.nonce()).ok_or("neither the case nor the list has a nonce")?;
            let verified = verifier.verify_all(&list.devices(kind), collateral, &nonce, self.case.at);
            return Ok(list.of_one_request(verified.map(|_| relaxations), nonce));
        }
        let chain = members.chain.ok_or("it has no chain")?;
        let chain = chain.names().map(|name| Ok(pem_chain(&self.file(name)?))).collect::<Result<Vec<_>, String>>()?;
        let nonce = nonce.ok_or("it has no nonce")?;
        let device = Device { kind, report: &binary(&file), chain: &chain.join(&b'\n') };
        Ok(verifier.verify_device(device, collateral, &nonce, self.case.at).map(|_| relaxations))
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
        let verified = verify_rim(&self.document(&members.rim)?, &NvidiaRoots::nvidia().rim, self.case.at);
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
        let (token, nonce) = (self.document(&members.token)?, nonce(&members.nonce)?);
        let keys = self.document(&members.jwks)?;
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
        // Bytes that are no text are no token either: the verifier says so.
        let token = String::from_utf8_lossy(&self.document(&members.token)?).into_owned();
        let keys = self.document(&members.jwks)?;
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
        let (quote, collateral) = (binary(&self.file(&members.quote)?), self.document(&members.collateral)?);
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

    fn document(&self, name: &str) -> Result<Vec<u8>, String> {
        self.file(name).map(|file| document(&file))
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

/// One file, or several that follow each other.
#[derive(Deserialize)]
#[serde(untagged)]
enum Files {
    One(String),
    Several(Vec<String>),
}

impl Files {
    fn names(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
        .iter()
    }
}

/// Hexadecimal digits of either case, with or without `0x`.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok()
}

fn nonce(text: &str) -> Result<Nonce32, String> {
    let bytes = bytes_of(text).and_then(|bytes| Nonce32::try_from(bytes.as_slice()).ok());
    bytes.ok_or_else(|| "the nonce is not 64 hexadecimal digits".to_owned())
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
            (Some(full), None) => bytes_of(&full)
                .and_then(|bytes| Digest64::try_from(bytes.as_slice()).ok())
                .map(Self::Full)
                .ok_or_else(|| "report_data is not 128 hexadecimal digits".to_owned()),
            (None, Some(prefix)) => match bytes_of(&prefix) {
                Some(bytes) if (1..=64).contains(&bytes.len()) => Ok(Self::Prefix(bytes)),
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
