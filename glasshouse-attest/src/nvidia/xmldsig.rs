//! The enveloped XML signature (XMLDSig) of NVIDIA's reference manifests, in the one shape that they have.
//!
//! Against wrapping: the document holds exactly one `Signature`, directly under the root; its one reference is the
//! whole document (`URI=""`) with exactly the two expected transforms; no element takes attributes beyond the expected
//! ones, so that nothing has an id to refer to. What was signed is returned as the canonical bytes that were hashed,
//! and nobody reads the document itself for anything else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use glasshouse_core::fixed::Digest48;
use glasshouse_core::transcript::sha384;

use super::xml::{Element, canonicalize, parse};
use crate::x509::Certificate;

const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const C14N_1_1: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";

/// A signer's chain is four certificates.
const MAX_CERTIFICATES: usize = 8;

/// A document cut into what its signature needs; nothing is verified yet.
pub(super) struct SignedDocument {
    /// Canonical bytes of the document without its signature: what the digest covers.
    pub(super) content: Vec<u8>,
    /// Canonical bytes of `SignedInfo`: what the signature covers.
    signed_info: Vec<u8>,
    signature: Vec<u8>,
    /// The signer's chain as the document carries it, leaf first.
    pub(super) chain: Vec<Vec<u8>>,
}

impl SignedDocument {
    /// Cuts a document.
    ///
    /// # Errors
    /// What is not in the one accepted shape.
    pub(super) fn parse(document: &[u8]) -> Result<Self, String> {
        let root = parse(document).map_err(|error| error.to_string())?;
        let is_signature = |element: &Element| element.is(DSIG, "Signature");
        let signature = root.elements().find(|e| is_signature(e)).ok_or("no Signature under the root element")?;
        let inside = signature.count_below(&|e| e.namespace == DSIG).saturating_add(1);
        if root.is(DSIG, "Signature") || root.count_below(&|e| e.namespace == DSIG) != inside {
            return Err("signature elements outside of the one Signature".to_owned());
        }
        if signature.count_below(&is_signature) != 0 {
            return Err("a Signature inside of the Signature".to_owned());
        }
        let [signed_info, value, key_info] = children(signature, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
        let [x509_data] = children(key_info, ["X509Data"])?;
        plain(x509_data, "X509Data")?;
        let certificates = x509_data.only_elements().ok_or("text in X509Data")?;
        if certificates.len() > MAX_CERTIFICATES || !certificates.iter().all(|c| is_plain(c, "X509Certificate")) {
            return Err("X509Data is not a list of at most eight certificates".to_owned());
        }
        plain(value, "SignatureValue")?;
        let around: Vec<_> = root.declared.iter().chain(&signature.declared).cloned().collect();
        Ok(Self {
            content: canonicalize(&root, &[], Some(signature)),
            signed_info: canonicalize(signed_info, &around, None),
            signature: base64(value)?,
            chain: certificates.into_iter().map(base64).collect::<Result<_, _>>()?,
        })
    }

    /// Verifies the signature with the signer's key and reads, from the bytes that were signed, the digest that the
    /// content must have.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn signed_digest(&self, signer: &Certificate) -> Result<Digest48, String> {
        if !signer.signed(&self.signed_info, &self.signature) {
            return Err(format!("a signature that does not verify with the key of \"{}\"", signer.subject()));
        }
        let signed_info = parse(&self.signed_info).map_err(|error| error.to_string())?;
        let [method, algorithm, reference] =
            children(&signed_info, ["CanonicalizationMethod", "SignatureMethod", "Reference"])?;
        with_algorithm(method, C14N_1_1)?;
        with_algorithm(algorithm, ECDSA_SHA384)?;
        if reference.attributes.len() != 1 || reference.attribute("", "URI") != Some("") {
            return Err("a Reference that is not the whole document".to_owned());
        }
        let [transforms, method, value] = children(reference, ["Transforms", "DigestMethod", "DigestValue"])?;
        plain(transforms, "Transforms")?;
        let [enveloped, canonical] = children(transforms, ["Transform", "Transform"])?;
        with_algorithm(enveloped, ENVELOPED)?;
        with_algorithm(canonical, C14N_1_1)?;
        with_algorithm(method, SHA384)?;
        plain(value, "DigestValue")?;
        Digest48::try_from(base64(value)?.as_slice()).map_err(|_| "a digest that is not 48 bytes".to_owned())
    }

    /// SHA-384 of the content as it is.
    pub(super) fn content_digest(&self) -> Digest48 {
        sha384(&self.content)
    }
}

/// The children of an element when they are exactly these, in this order.
fn children<'a, const N: usize>(parent: &'a Element, names: [&str; N]) -> Result<[&'a Element; N], String> {
    let elements = parent.only_elements().and_then(|elements| <[&Element; N]>::try_from(elements).ok());
    elements
        .filter(|elements| elements.iter().zip(names).all(|(element, name)| element.is(DSIG, name)))
        .filter(|_| parent.is(DSIG, "Reference") || parent.attributes.is_empty())
        .ok_or_else(|| format!("{} other than exactly {}, without attributes", parent.local, names.join(", ")))
}

fn is_plain(element: &Element, name: &str) -> bool {
    element.is(DSIG, name) && element.attributes.is_empty()
}

fn plain(element: &Element, name: &str) -> Result<(), String> {
    if is_plain(element, name) { Ok(()) } else { Err(format!("{name} with attributes")) }
}

fn with_algorithm(element: &Element, algorithm: &str) -> Result<(), String> {
    let only = element.attributes.len() == 1 && element.children.is_empty();
    if only && element.attribute("", "Algorithm") == Some(algorithm) {
        Ok(())
    } else {
        Err(format!("{} other than {algorithm}", element.local))
    }
}

/// Base64 with line breaks, otherwise in its one spelling.
fn base64(element: &Element) -> Result<Vec<u8>, String> {
    let text = element.text().ok_or_else(|| format!("{} with elements inside", element.local))?;
    let compact: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(compact).map_err(|_| format!("{} that is not base64", element.local))
}
