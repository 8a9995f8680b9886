use std::collections::BTreeMap;

/// Where the vendors' services are. Everything that they answer is verified at appraisal, so that a mirror will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Intel's Provisioning Certification Service, version 4 of its interface.
    pub intel: String,
    /// Intel's root's revocation list.
    pub intel_root_crl: String,
    /// AMD's key distribution service.
    pub amd: String,
    /// NVIDIA's service of reference manifests.
    pub nvidia_rims: String,
    /// NVIDIA's revocation lists of devices' certificates; the lists' names are the certificates' own.
    pub nvidia_crls: String,
    /// The same of the certificates of manifests' signers.
    pub nvidia_rim_crls: String,
    /// NVIDIA's OCSP responder, where it is to be asked too about every certificate that names one. Its answers count for
    /// about a day, its lists for weeks; `None` fetches lists only.
    pub nvidia_ocsp: Option<String>,
    /// Key sets by issuer.
    pub jwks: BTreeMap<String, String>,
}

impl Services {
    /// The vendors' own, NVIDIA's OCSP responder included.
    pub fn with_ocsp() -> Self {
        Self { nvidia_ocsp: Some("http://ocsp.ndis.nvidia.com".to_owned()), ..Self::default() }
    }
}

impl Default for Services {
    /// The vendors' own.
    fn default() -> Self {
        let google = "https://www.googleapis.com/service_accounts/v1/metadata/jwk/\
                      signer@confidentialspace-sign.iam.gserviceaccount.com";
        let nras = "https://nras.attestation.nvidia.com";
        Self {
            intel: "https://api.trustedservices.intel.com".to_owned(),
            intel_root_crl: "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der".to_owned(),
            amd: "https://kdsintf.amd.com".to_owned(),
            nvidia_rims: "https://rim.attestation.nvidia.com".to_owned(),
            nvidia_crls: "http://crl.ndis.nvidia.com/crl".to_owned(),
            nvidia_rim_crls: "http://crl.ndis.nvidia.com/crl-corim".to_owned(),
            nvidia_ocsp: None,
            jwks: BTreeMap::from([
                (nras.to_owned(), format!("{nras}/.well-known/jwks.json")),
                ("https://confidentialcomputing.googleapis.com".to_owned(), google.to_owned()),
            ]),
        }
    }
}
