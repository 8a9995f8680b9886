//! Reference manifests (RIM): SWID XML with an enveloped XML signature, in canonical form already.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use glasshouse_core::fixed::Digest48;
use glasshouse_core::transcript::sha384;

use super::certificate::{Draft, sign};

/// A reference manifest to be.
#[derive(Clone)]
pub struct Manifest {
    /// `GPU` or `SWITCH`.
    pub edition: &'static str,
    /// The chip.
    pub product: &'static str,
    /// Of the driver or the VBIOS.
    pub version: &'static str,
    /// `tagId`.
    pub tag: String,
    /// What `Payload` holds.
    pub resources: String,
    /// The signer's, leaf first.
    pub chain: Vec<Draft>,
    /// What the signature says it did.
    pub signed_info: fn(&str) -> String,
}

impl Manifest {
    /// The driver's.
    pub fn driver() -> Self {
        Self::new("GPU", "GH100", "580.95.05", [1, 2, 35])
    }

    /// The VBIOS's.
    pub fn vbios() -> Self {
        Self::new("GPU", "GH100", "96.00.9F.00.01", [0, 7, 9])
    }

    /// The switch's.
    pub fn switch() -> Self {
        Self::new("SWITCH", "LS10", "96.10.5C.00.01", [0, 1, 2])
    }

    fn new(edition: &'static str, product: &'static str, version: &'static str, active: [u8; 3]) -> Self {
        let chain = vec![
            Draft::new("RIM L4", "RIM L3", 9, false),
            Draft { path: Some(0), ..Draft::new("RIM L3", "RIM CA", 8, true) },
            Draft::new("RIM CA", "RIM root", 7, true),
            Draft::new("RIM root", "RIM root", 6, true),
        ];
        // Index 35 of the driver is wrong on purpose: with NVDEC0 disabled nobody compares it.
        let value = |i: u8| if i == 35 { sha384("other") } else { sha384([i]) };
        let resources = active.into_iter().map(|i| resource(i, true, &[value(i)])).collect();
        let board = if version.starts_with("96.") { "PG520_SKU0200_" } else { "" };
        let tag = sha384(format!("{product}_{board}{version}")).to_string();
        Self { edition, product, version, tag, resources, chain, signed_info }
    }

    /// The document without its signature, in canonical form already.
    pub fn content(&self) -> String {
        let Self { edition, product, version, tag, resources, .. } = self;
        format!(
            "<SoftwareIdentity xmlns=\"{SWID}\" xmlns:ns0=\"{SWID}\" xmlns:ns2=\"{HASH}\" name=\"{product}\" \
             tagId=\"{tag}\">\n<ns0:Meta colloquialVersion=\"{version}\" edition=\"{edition}\" product=\"{product}\">\
             </ns0:Meta>\n<ns0:Payload>{resources}</ns0:Payload>\n</SoftwareIdentity>"
        )
    }

    /// The signature element.
    pub fn signature(&self) -> String {
        let digest = STANDARD.encode(sha384(self.content()).as_bytes());
        let signed_info = (self.signed_info)(&digest);
        // Inclusive canonical form: the namespaces around it are part of what is signed.
        let around =
            format!("<ds:SignedInfo xmlns=\"{SWID}\" xmlns:ds=\"{DSIG}\" xmlns:ns0=\"{SWID}\" xmlns:ns2=\"{HASH}\">");
        let canonical = signed_info.replacen("<ds:SignedInfo>", &around, 1);
        let signature = STANDARD.encode(sign(&self.chain[0].key, canonical.as_bytes()).to_bytes());
        let certificates: String = self
            .chain
            .iter()
            .map(|draft| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(draft.der())))
            .collect();
        format!(
            "<ds:Signature xmlns:ds=\"{DSIG}\">{signed_info}<ds:SignatureValue>{signature}</ds:SignatureValue>\
             <ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
    }

    /// The whole document.
    pub fn document(&self) -> String {
        self.content().replace("</SoftwareIdentity>", &(self.signature() + "</SoftwareIdentity>"))
    }
}

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";

/// One reference value's element.
pub fn resource(index: u8, active: bool, values: &[Digest48]) -> String {
    let active = if active { "True" } else { "False" };
    let hashes: String = (0..).zip(values).map(|(i, v): (u8, _)| format!(" ns2:Hash{i}=\"{v}\"")).collect();
    format!(
        "<ns0:Resource active=\"{active}\" alternatives=\"{}\" index=\"{index}\" name=\"M\" size=\"48\" \
         type=\"Measurement\"{hashes}></ns0:Resource>",
        values.len()
    )
}

/// `SignedInfo` in canonical form but for its inherited namespaces.
pub fn signed_info(digest: &str) -> String {
    let element = |name: &str, algorithm: &str| format!("<ds:{name} Algorithm=\"{algorithm}\"></ds:{name}>");
    let c14n = "http://www.w3.org/2006/12/xml-c14n11";
    [
        "<ds:SignedInfo>",
        &element("CanonicalizationMethod", c14n),
        &element("SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"),
        "<ds:Reference URI=\"\"><ds:Transforms>",
        &element("Transform", "http://www.w3.org/2000/09/xmldsig#enveloped-signature"),
        &element("Transform", c14n),
        "</ds:Transforms>",
        &element("DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#sha384"),
        "<ds:DigestValue>",
        digest,
        "</ds:DigestValue></ds:Reference></ds:SignedInfo>",
    ]
    .concat()
}
