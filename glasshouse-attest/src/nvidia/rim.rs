use std::collections::BTreeMap;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::{Digest32, Digest48};
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::sha384;

use super::codes::{self, refuse};
use super::xml::{Element, parse};
use super::xmldsig::SignedDocument;
use crate::x509::{self, Certificate, Revocation, VerifiedLinks};

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
/// Place of the signer's own issuer in its chain.
const FIRST_ISSUER: usize = 1;

/// A reference integrity manifest (TCG RIM over SWID, ISO/IEC 19770-2) that was signed by NVIDIA: which measurements
/// one version of a driver or VBIOS must have. Made by [`verify_rim`] only, from the bytes that were signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRim {
    content: Digest48,
    kind: DeviceKind,
    product: String,
    version: String,
    tag: Option<Digest48>,
    measurements: BTreeMap<u8, Vec<Digest48>>,
}

impl VerifiedRim {
    /// SHA-384 of the content that was signed, in canonical form.
    pub fn content(&self) -> Digest48 {
        self.content
    }

    /// The kind of device that it is for (`edition`).
    pub fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// The chip that it is for, `GH100`.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// The driver's or the VBIOS's version (`colloquialVersion`).
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The active reference values by RIM index, which is the SPDM index less one; any one of the list will do.
    pub fn measurements(&self) -> &BTreeMap<u8, Vec<Digest48>> {
        &self.measurements
    }

    /// Whether the document's tag names this board. A VBIOS manifest's `tagId` is SHA-384 of chip, `P` and project,
    /// `SKU` and project SKU, and version, joined by underscores: found in NVIDIA's manifests, not documented.
    pub fn names_board(&self, project: &str, project_sku: &str) -> bool {
        let name = format!("{}_P{project}_SKU{project_sku}_{}", self.product, self.version);
        self.tag == Some(sha384(name))
    }
}

/// Verifies a reference manifest under the pinned roots at a time: signature, digest, chain, validity, in this order.
///
/// # Errors
/// A refusal with [`codes::RIM_SIGNATURE`], [`codes::RIM_DIGEST`], [`codes::RIM_CHAIN`], [`codes::RIM_VALIDITY`] or
/// [`codes::RIM_FORMAT`].
pub fn verify_rim(document: &[u8], roots: &[Digest32], at: UnixMillis) -> Result<VerifiedRim, Refusal> {
    let nothing_known = (&Revocation::default(), false);
    let mut all = verify_rims(&[document], roots, nothing_known, at, &mut VerifiedLinks::default())?;
    all.pop().ok_or_else(|| refuse(codes::RIM_FORMAT, "one manifest", "none"))
}

/// Verifies several, in the order that [`codes`] has, check by check: all signatures, then all digests, and so on, so that
/// which document stands first decides nothing. With `needed`, every certificate of a signer but the root must be one that
/// its issuer's list, or an answer about it, says nothing against: each of NVIDIA's names a responder (RFC 6960).
pub(super) fn verify_rims(
    documents: &[&[u8]],
    roots: &[Digest32],
    (revocation, needed): (&Revocation, bool),
    at: UnixMillis,
    links: &mut VerifiedLinks,
) -> Result<Vec<VerifiedRim>, Refusal> {
    let opened = documents.iter().map(|document| Opened::new(document)).collect::<Result<Vec<_>, _>>()?;
    for Opened { digest, expected, .. } in &opened {
        if digest != expected {
            return Err(refuse(codes::RIM_DIGEST, format_args!("content with SHA-384 {expected}"), digest));
        }
    }
    let bad_chain = |error| refuse(codes::RIM_CHAIN, "a signer under the pinned CoRIM root", error);
    let chains = opened.iter().map(Opened::chain).collect::<Result<Vec<_>, _>>().map_err(bad_chain)?;
    for chain in &chains {
        x509::verify_chain(chain, roots, links).map_err(bad_chain)?;
    }
    for chain in &chains {
        x509::check_validity(chain, at)
            .map_err(|error| refuse(codes::RIM_VALIDITY, "a signer who is valid at this time", error))?;
    }
    let needed = if needed { FIRST_ISSUER } else { usize::MAX };
    for chain in &chains {
        x509::check_revocation(chain, revocation, needed, at, links)
            .map_err(|error| codes::refuse_revoked(codes::RIM_REVOKED, error))?;
    }
    let format = |seen| refuse(codes::RIM_FORMAT, "a SWID tag with Meta and Payload", seen);
    opened.iter().map(|one| read(&one.signed.content, one.digest).map_err(format)).collect()
}

/// A manifest whose signature holds under the key of the certificate that it brings; who that is, is not known yet.
struct Opened {
    signed: SignedDocument,
    /// Of the content as it is.
    digest: Digest48,
    /// Of the content that was signed.
    expected: Digest48,
}

impl Opened {
    fn new(document: &[u8]) -> Result<Self, Refusal> {
        let unsigned = |seen: String| refuse(codes::RIM_SIGNATURE, "a manifest with one enveloped signature", seen);
        let signed = SignedDocument::parse(document).map_err(unsigned)?;
        let signer = signed.chain.first().ok_or_else(|| unsigned("no certificate of the signer".to_owned()))?;
        let signer = Certificate::from_der(signer, 0).map_err(|error| unsigned(error.to_string()))?;
        let expected = signed.signed_digest(&signer).map_err(unsigned)?;
        let digest = signed.content_digest();
        Ok(Self { signed, digest, expected })
    }

    /// The signer's chain, leaf first.
    fn chain(&self) -> Result<Vec<Certificate>, x509::X509Error> {
        (0..).zip(&self.signed.chain).map(|(position, der)| Certificate::from_der(der, position)).collect()
    }
}

/// The chain of a manifest's signer, leaf first. Nothing is verified: for asking about revocation.
#[cfg(feature = "fetch")]
pub(crate) fn rim_signers(document: &[u8]) -> Option<Vec<Certificate>> {
    let signed = SignedDocument::parse(document).ok()?;
    (0..).zip(&signed.chain).map(|(position, der)| Certificate::from_der(der, position).ok()).collect()
}

/// Reads the manifest from the canonical bytes that were hashed.
fn read(content: &[u8], digest: Digest48) -> Result<VerifiedRim, &'static str> {
    let root = parse(content).map_err(|error| error.what)?;
    if !root.is(SWID, "SoftwareIdentity") {
        return Err("another root element");
    }
    let meta = only(&root, "Meta").ok_or("not exactly one Meta")?;
    let kind = match meta.attribute("", "edition") {
        Some("GPU") => DeviceKind::NvidiaGpu,
        Some("SWITCH") => DeviceKind::NvidiaSwitch,
        _ => return Err("another edition than GPU or SWITCH"),
    };
    let payload = only(&root, "Payload").ok_or("not exactly one Payload")?;
    let mut measurements = BTreeMap::new();
    for resource in payload.elements().filter(|e| e.is(SWID, "Resource")) {
        let (index, values) = reference_values(resource).ok_or("a Resource that is not understood")?;
        if measurements.insert(index, values).is_some() {
            return Err("one index twice");
        }
    }
    measurements.retain(|_, values| !values.is_empty());
    if measurements.is_empty() {
        return Err("no active measurement");
    }
    Ok(VerifiedRim {
        content: digest,
        kind,
        product: meta.attribute("", "product").ok_or("no product")?.to_owned(),
        version: meta.attribute("", "colloquialVersion").ok_or("no version")?.to_owned(),
        tag: root.attribute("", "tagId").and_then(Digest48::from_hex),
        measurements,
    })
}

fn only<'a>(root: &'a Element, name: &str) -> Option<&'a Element> {
    let mut found = root.elements().filter(|e| e.is(SWID, name));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Index and accepted values of a `Resource`; an inactive one accepts nothing and is compared with nothing.
fn reference_values(resource: &Element) -> Option<(u8, Vec<Digest48>)> {
    let attribute = |name| resource.attribute("", name);
    let index = attribute("index")?.parse().ok()?;
    match (attribute("type")?, attribute("active")?) {
        ("Measurement", "True") if attribute("size")? == "48" => {}
        ("Measurement", "False") => return Some((index, Vec::new())),
        _ => return None,
    }
    let alternatives: usize = attribute("alternatives")?.parse().ok()?;
    let hashes = resource.attributes.iter().filter(|a| a.namespace == HASH).count();
    if alternatives == 0 || hashes != alternatives {
        return None;
    }
    let value = |i: usize| Digest48::from_hex(&resource.attribute(HASH, &format!("Hash{i}"))?.to_ascii_lowercase());
    let values = (0..alternatives).map(value).collect::<Option<Vec<_>>>()?;
    Some((index, values))
}
