use dcap_qvl::quote::{EnclaveReport, Report, TDReport10};
use glasshouse_core::fixed::{Digest32, Digest48, Digest64, Fixed};
use glasshouse_core::refusal::one_line;
use glasshouse_core::traits::{ClaimSource, LabelledClaim};

use super::policy::TcbStatus;

/// What was established about a TD or enclave and its platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcapClaims {
    /// The TD or the enclave.
    pub body: Body,
    /// The platform's TCB by Intel's collateral.
    pub tcb_status: TcbStatus,
    /// Advisories that the platform is open to.
    pub advisories: Vec<String>,
    /// `tcbEvaluationDataNumber` of the collateral.
    pub evaluation_data_number: u32,
    /// Family, model, stepping, platform type and SKU of the processor.
    pub fmspc: Fixed<6>,
    /// Whether the measurements are reference values of the policy that cover the launch: MRTD and RTMR0 to RTMR2 of a TD,
    /// MRENCLAVE of an enclave. Without, this is no evidence of a `CpuTee`.
    pub measured: bool,
}

/// What a quote is about.
#[allow(clippy::large_enum_variant, reason = "there is one of them for each quote")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A trust domain.
    Td(TdClaims),
    /// An enclave.
    Enclave(EnclaveClaims),
}

/// A TD's report (Intel 348551, TDREPORT_STRUCT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdClaims {
    /// Measurement of the initial memory.
    pub mrtd: Digest48,
    /// Measurement registers that are extended at run time.
    pub rtmr: [Digest48; 4],
    /// MRCONFIGID.
    pub mr_config_id: Digest48,
    /// MROWNER.
    pub mr_owner: Digest48,
    /// MROWNERCONFIG.
    pub mr_owner_config: Digest48,
    /// Measurement of the TDX module.
    pub mr_seam: Digest48,
    /// ATTRIBUTES.
    pub attributes: Fixed<8>,
    /// XFAM.
    pub xfam: Fixed<8>,
    /// TEE_TCB_SVN.
    pub tee_tcb_svn: Fixed<16>,
    /// What the guest put in.
    pub report_data: Digest64,
}

/// An enclave's report (Intel SDM volume 3D, REPORT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveClaims {
    /// Measurement of the enclave.
    pub mr_enclave: Digest32,
    /// SHA-256 of the signer's key.
    pub mr_signer: Digest32,
    /// The signer's product.
    pub isv_prod_id: u16,
    /// The product's security version.
    pub isv_svn: u16,
    /// ATTRIBUTES.
    pub attributes: Fixed<16>,
    /// What the enclave put in.
    pub report_data: Digest64,
}

impl Body {
    pub(super) fn of(report: &Report) -> Self {
        match report {
            Report::SgxEnclave(report) => Self::Enclave(EnclaveClaims::of(report)),
            Report::TD10(report) => Self::Td(TdClaims::of(report)),
            Report::TD15(report) => Self::Td(TdClaims::of(&report.base)),
            Report::TD15Ex(report) => Self::Td(TdClaims::of(&report.base.base)),
        }
    }

    /// The report data.
    pub fn report_data(&self) -> &Digest64 {
        match self {
            Self::Td(td) => &td.report_data,
            Self::Enclave(enclave) => &enclave.report_data,
        }
    }

    /// Whether the host may read its memory: DEBUG or profiling of a TD (ATTRIBUTES bits 0 to 7), DEBUG of an enclave.
    pub fn debug(&self) -> bool {
        match self {
            Self::Td(TdClaims { attributes: Fixed([under_debug, ..]), .. }) => *under_debug != 0,
            Self::Enclave(EnclaveClaims { attributes: Fixed([flags, ..]), .. }) => flags & 2 != 0,
        }
    }
}

impl TdClaims {
    fn of(report: &TDReport10) -> Self {
        Self {
            mrtd: Fixed(report.mr_td),
            rtmr: [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3].map(Fixed),
            mr_config_id: Fixed(report.mr_config_id),
            mr_owner: Fixed(report.mr_owner),
            mr_owner_config: Fixed(report.mr_owner_config),
            mr_seam: Fixed(report.mr_seam),
            attributes: Fixed(report.td_attributes),
            xfam: Fixed(report.xfam),
            tee_tcb_svn: Fixed(report.tee_tcb_svn),
            report_data: Fixed(report.report_data),
        }
    }
}

impl EnclaveClaims {
    fn of(report: &EnclaveReport) -> Self {
        Self {
            mr_enclave: Fixed(report.mr_enclave),
            mr_signer: Fixed(report.mr_signer),
            isv_prod_id: report.isv_prod_id,
            isv_svn: report.isv_svn,
            attributes: Fixed(report.attributes),
            report_data: Fixed(report.report_data),
        }
    }
}

impl DcapClaims {
    /// The claims in the form of an appraisal.
    pub fn labelled(&self) -> Vec<LabelledClaim> {
        let mut claims = Vec::new();
        let mut push = |name: &str, value: String| {
            claims.push(LabelledClaim { name: name.to_owned(), value, source: ClaimSource::HardwareVerified });
        };
        match &self.body {
            Body::Td(td) => {
                push("tdx-mrtd", td.mrtd.to_string());
                let [rtmr0, rtmr1, rtmr2, rtmr3] = td.rtmr;
                for (name, value) in [("0", rtmr0), ("1", rtmr1), ("2", rtmr2), ("3", rtmr3)] {
                    push(&format!("tdx-rtmr{name}"), value.to_string());
                }
                push("tdx-module", td.mr_seam.to_string());
                push("tdx-attributes", td.attributes.to_string());
                push("tdx-tee-tcb-svn", td.tee_tcb_svn.to_string());
            }
            Body::Enclave(enclave) => {
                push("sgx-mrenclave", enclave.mr_enclave.to_string());
                push("sgx-mrsigner", enclave.mr_signer.to_string());
                push("sgx-isv-prod-id", enclave.isv_prod_id.to_string());
                push("sgx-isv-svn", enclave.isv_svn.to_string());
            }
        }
        push("intel-tcb-status", format!("{:?}", self.tcb_status));
        let advisories: Vec<_> = self.advisories.iter().map(|advisory| one_line(advisory)).collect();
        push("intel-tcb-advisories", advisories.join(" "));
        push("intel-tcb-evaluation-data-number", self.evaluation_data_number.to_string());
        push("intel-fmspc", self.fmspc.to_string());
        push("measurements-are-reference", self.measured.to_string());
        claims
    }
}
