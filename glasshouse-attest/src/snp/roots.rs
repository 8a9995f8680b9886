use std::collections::BTreeMap;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Digest48;
use glasshouse_core::refusal::Refusal;

use super::certificate::{Certificate, role_of};
use super::codes::{self, refuse};
use super::known::{KEYS, ROOTS};
use super::report::SigningKey;
use super::tcb::Product;
use crate::rsa_key::RsaKey;

/// The pinned roots: SHA-384 of the SubjectPublicKeyInfo of each product's ARK, and the keys under them that need no
/// certificate.
#[derive(Clone, Debug)]
pub struct SnpRoots {
    roots: BTreeMap<Product, Digest48>,
    keys: Vec<Issuer>,
}

impl SnpRoots {
    /// AMD's own, with the keys of its ASKs and ASVKs: a VCEK or VLEK needs no chain beside it.
    pub fn amd() -> Self {
        let issuer = |known: &super::known::Known| {
            let key = RsaKey::new(&known.modulus, &[1, 0, 1], 4096..=4096)?;
            Some(Issuer { product: known.product, signs: known.signs, validity: vec![known.validity], key })
        };
        Self { roots: ROOTS.into_iter().collect(), keys: KEYS.iter().filter_map(issuer).collect() }
    }

    /// Other roots, for test evidence. Reports need their chain then.
    pub fn others(roots: impl IntoIterator<Item = (Product, Digest48)>) -> Self {
        Self { roots: roots.into_iter().collect(), keys: Vec::new() }
    }

    /// Whether a certificate of an ASK or ASVK, with its ARK's, says what is known of it, up to the pinned root. For
    /// tests of the table, and for whoever fetches chains.
    ///
    /// # Errors
    /// A refusal with [`codes::CERTIFICATE_MALFORMED`] or [`codes::CHAIN`].
    pub fn check_known(&self, issuer: &[u8], root: &[u8]) -> Result<(), Refusal> {
        let refused = |seen: String| refuse(codes::CHAIN, "a known issuer under its pinned root", seen);
        let malformed = |e| refuse(codes::CERTIFICATE_MALFORMED, "certificates as AMD issues them", e);
        let issuer = Certificate::from_der(issuer, 0).map_err(malformed)?;
        let root = Certificate::from_der(root, 1).map_err(malformed)?;
        let name = issuer.subject();
        let (product, signs) = role_of(&name).ok_or_else(|| refused(name.clone()))?;
        let certified = self.under_root(&issuer, &root, (product, signs)).map_err(refused)?;
        let known = self.keys.iter().find(|key| key.product == product && key.signs == signs);
        let same = known.is_some_and(|k| k.key == certified.key && certified.validity.first() == k.validity.first());
        if same { Ok(()) } else { Err(refused(format!("another key or validity of {name:?}"))) }
    }

    /// The issuer of a VCEK or VLEK: from the chain that came with it, or else, where that leads nowhere by name, a known one.
    pub(super) fn issuer_of(&self, vek: &Certificate, chain: &[Certificate]) -> Result<Issuer, Refusal> {
        let refused = |seen: String| refuse(codes::CHAIN, "a VCEK or VLEK under a pinned AMD root", seen);
        let name = vek.issuer();
        let (product, signs) = role_of(&name).ok_or_else(|| refused(format!("the issuer {name:?}")))?;
        let issuer = match upwards(vek, chain) {
            Ok([issuer, root]) => self.under_root(issuer, root, (product, signs)).map_err(refused)?,
            Err(lacking) => {
                let known = self.keys.iter().find(|key| key.product == product && key.signs == signs);
                known.cloned().ok_or_else(|| refused(lacking))?
            }
        };
        if vek.signed_by(&issuer.key) {
            return Ok(issuer);
        }
        Err(refused(format!("a certificate whose signature does not verify with the key of {name:?}")))
    }

    /// The pinned roots, product by product.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = (Product, Digest48)> {
        self.roots.iter().map(|(product, root)| (*product, *root))
    }

    fn under_root(
        &self,
        issuer: &Certificate,
        root: &Certificate,
        (product, signs): (Product, SigningKey),
    ) -> Result<Issuer, String> {
        let digest = root.public_key_digest();
        if digest.is_none() || self.roots.get(&product) != digest.as_ref() {
            return Err(format!("{:?}, which is not the pinned root of {product}", root.subject()));
        }
        let not_authority =
            |c: &Certificate| format!("{:?}, which is no certificate authority of RSA-4096", c.subject());
        let root_key = root.authority_key().ok_or_else(|| not_authority(root))?;
        let key = issuer.authority_key().ok_or_else(|| not_authority(issuer))?;
        for (certificate, what) in [(root, "root"), (issuer, "intermediate")] {
            if !certificate.signed_by(&root_key) {
                return Err(format!("a {what} whose signature does not verify with the pinned root's key"));
            }
        }
        let validity = vec![issuer.validity(), root.validity()];
        Ok(Issuer { product, signs, validity, key })
    }
}

/// The certificates above a VCEK or VLEK, by name.
pub(super) fn upwards<'a>(vek: &Certificate, chain: &'a [Certificate]) -> Result<[&'a Certificate; 2], String> {
    let find = |child: &Certificate| chain.iter().find(|issuer| child.names_issuer(issuer));
    let issuer = find(vek).ok_or_else(|| format!("a chain without {:?}", vek.issuer()))?;
    let root = find(issuer).ok_or_else(|| format!("a chain without {:?}", issuer.issuer()))?;
    Ok([issuer, root])
}

/// A key that certifies VCEKs or VLEKs, and leads to a pinned root.
#[derive(Clone, Debug)]
pub(super) struct Issuer {
    pub(super) product: Product,
    pub(super) signs: SigningKey,
    /// Pairs of `notBefore` and `notAfter` up to the root.
    pub(super) validity: Vec<[UnixMillis; 2]>,
    key: RsaKey,
}
