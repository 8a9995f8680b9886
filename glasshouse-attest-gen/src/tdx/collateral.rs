//! Intel's collateral, of the platforms that are made here.

use glasshouse_attest::tdx::Collateral;
use serde_json::{Value, json};

use super::certificates::{Authority, Serial, pem};
use super::{FMSPC, QuoteDraft};

/// Collateral to be: tests change fields before it is signed.
#[derive(Clone, Debug)]
pub struct CollateralDraft {
    /// The platform that it is for.
    pub fmspc: [u8; 6],
    /// Status of the level that [`QuoteDraft::default`]'s platform reaches.
    pub status: &'static str,
    /// Advisories of that level.
    pub advisories: Vec<String>,
    /// `tcbEvaluationDataNumber` of both documents.
    pub evaluation_data_number: u32,
    /// `issueDate` of both documents.
    pub issued: &'static str,
    /// `nextUpdate` of both documents.
    pub next_update: &'static str,
    /// What the platform authority revoked.
    pub revoked_platforms: Vec<Serial>,
    /// What the root revoked.
    pub revoked_authorities: Vec<Serial>,
}

impl Default for CollateralDraft {
    fn default() -> Self {
        Self {
            fmspc: FMSPC,
            status: "UpToDate",
            advisories: Vec::new(),
            evaluation_data_number: 20,
            issued: "2026-01-01T00:00:00Z",
            next_update: "2036-12-31T00:00:00Z",
            revoked_platforms: Vec::new(),
            revoked_authorities: Vec::new(),
        }
    }
}

impl CollateralDraft {
    /// The collateral in the JSON form that verifiers read.
    pub fn json(&self) -> Vec<u8> {
        let (tcb_info, qe_identity) = (self.tcb_info().to_string(), self.qe_identity().to_string());
        let root = Authority::Root.certificate();
        let signer = pem(&[Authority::TcbSigner.certificate(), root.clone()]);
        let sign = |document: &str| hex::encode(Authority::TcbSigner.sign(document.as_bytes()));
        json!({
            "pck_crl_issuer_chain": pem(&[Authority::PlatformCa.certificate(), root]),
            "root_ca_crl": hex::encode(Authority::Root.crl(&self.revoked_authorities)),
            "pck_crl": hex::encode(Authority::PlatformCa.crl(&self.revoked_platforms)),
            "tcb_info_issuer_chain": signer,
            "tcb_info_signature": sign(&tcb_info),
            "tcb_info": tcb_info,
            "qe_identity_issuer_chain": signer,
            "qe_identity_signature": sign(&qe_identity),
            "qe_identity": qe_identity,
        })
        .to_string()
        .into_bytes()
    }

    /// The same, parsed.
    pub fn make(&self) -> Collateral {
        Collateral::parse(&self.json()).unwrap()
    }

    fn tcb_info(&self) -> Value {
        let components = |svn: [u8; 16]| svn.map(|svn| json!({"svn": svn})).to_vec();
        let mut tdx = [0; 16];
        tdx[..3].copy_from_slice(&QuoteDraft::default().tee_tcb_svn[..3]);
        let zeros = "00".repeat(48);
        json!({
            "id": "TDX", "version": 3, "issueDate": self.issued, "nextUpdate": self.next_update,
            "fmspc": hex::encode_upper(self.fmspc), "pceId": "0000", "tcbType": 0,
            "tcbEvaluationDataNumber": self.evaluation_data_number,
            "tdxModule": {"mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"},
            "tdxModuleIdentities": [],
            "tcbLevels": [{
                "tcb": {"sgxtcbcomponents": components([5; 16]), "pcesvn": 11, "tdxtcbcomponents": components(tdx)},
                "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": self.status, "advisoryIDs": self.advisories,
            }],
        })
    }

    fn qe_identity(&self) -> Value {
        json!({
            "id": "TD_QE", "version": 2, "issueDate": self.issued, "nextUpdate": self.next_update,
            "tcbEvaluationDataNumber": self.evaluation_data_number,
            "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": "11".repeat(32), "isvprodid": 2,
            "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": "UpToDate"}],
        })
    }
}
