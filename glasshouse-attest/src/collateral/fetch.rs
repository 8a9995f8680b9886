use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, DeviceEvidence, DeviceKind, GpuEvidence};
use glasshouse_core::fixed::{Blob, Digest32, Fixed};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use serde::Deserialize;

use super::answer::Answer;
use super::bundle::Bundle;
use super::services::Services;
use crate::hardware::vek_key;
use crate::nvidia::{Device, rim_signers};
use crate::snp::{Product, Report, SignedReport, SigningKey, Tcb, is_list};
use crate::tdx::quote_platform;
use crate::x509::{
    Certificate, Crl, OcspAnswer, certificates_from_pem, der_from_pem, distribution_points, names_responder,
    ocsp_request,
};

/// No document of these services comes near it.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// A certificate of NVIDIA's names one list.
const MAX_LISTS: usize = 4;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody answered.
    #[error("{url} cannot be reached: {why}; fetch on a machine with a network, or go on with a bundle that you have")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened.
        why: String,
    },
    /// The service refused.
    #[error("{url} answered {status}; the service does not have it, or asks for patience: try again later")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The service answered something else.
    #[error("{url} answered without {what}; the service has changed: update Glasshouse, or its address: correct it")]
    Unexpected {
        /// What was asked for.
        url: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The evidence does not say what to fetch.
    #[error("the evidence does not name {0}; nothing can be fetched for it")]
    Unnamed(&'static str),
}

/// What was asked for one bundle, once: what names it is evidence that nobody has verified.
#[derive(Default)]
struct Asked {
    lists: BTreeSet<String>,
    /// Certificate and issuer.
    certificates: BTreeSet<[Digest32; 2]>,
}

/// A client of the vendors' services. Asks for what evidence names, verifies none of it.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    services: Services,
}

impl Fetcher {
    /// A client. Redirects are followed three times, an answer is waited for a minute.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] where there is no way to make connections.
    pub fn new(services: Services) -> Result<Self, FetchError> {
        let builder = Client::builder().connect_timeout(Duration::from_secs(10)).timeout(Duration::from_secs(60));
        let client = builder.redirect(redirect::Policy::limited(3)).build();
        let client = client.map_err(|e| FetchError::Unreachable { url: "the network".to_owned(), why: told(&e) })?;
        Ok(Self { client, services })
    }

    /// Everything that evidence needs, and the key sets, as a bundle to be signed. It counts until `not_after`, or until
    /// the first of NVIDIA's lists and OCSP answers in it runs out: from then on they would refuse every device.
    ///
    /// # Errors
    /// [`FetchError`] of the first part that could not be had.
    pub async fn bundle(
        &self,
        (cpu, gpus): (&CpuEvidence, &GpuEvidence),
        version: u64,
        (issued_at, not_after): (UnixMillis, UnixMillis),
    ) -> Result<Bundle, FetchError> {
        let (mut bundle, mut asked) = (Bundle::new(version, issued_at, not_after), Asked::default());
        match cpu {
            CpuEvidence::Tdx { quote } => bundle.intel.push(self.intel(&quote.0).await?),
            CpuEvidence::SevSnp { report, .. } => self.amd(&report.0, &mut bundle).await?,
            CpuEvidence::Software { .. } | CpuEvidence::ConfidentialSpace { .. } => {}
        }
        for device in gpus.0.iter().filter(|device| device.kind != DeviceKind::NrasToken) {
            self.nvidia(device, &mut bundle, &mut asked).await?;
        }
        for (issuer, url) in &self.services.jwks {
            let keys = self.get(url.clone()).await?.body;
            bundle.jwks.insert(issuer.clone(), Blob(keys));
        }
        Ok(bundle)
    }

    /// The collateral of a TDX quote's platform, in the JSON form of [`Collateral`](crate::tdx::Collateral).
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn intel(&self, quote: &[u8]) -> Result<Blob, FetchError> {
        let (fmspc, authority) = quote_platform(quote).ok_or(FetchError::Unnamed("its platform"))?;
        let base = &self.services.intel;
        let crl = self.get(format!("{base}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der")).await?;
        let tcb = self.get(format!("{base}/tdx/certification/v4/tcb?fmspc={fmspc}")).await?;
        let identity = self.get(format!("{base}/tdx/certification/v4/qe/identity")).await?;
        let root_crl = self.get(self.services.intel_root_crl.clone()).await?;
        let (tcb_info, tcb_signature) = tcb.signed_document()?;
        let (qe_identity, qe_signature) = identity.signed_document()?;
        let json = serde_json::json!({
            "pck_crl_issuer_chain": crl.header("SGX-PCK-CRL-Issuer-Chain")?,
            "pck_crl": hex::encode(&crl.body),
            "root_ca_crl": hex::encode(&root_crl.body),
            "tcb_info_issuer_chain": tcb.header("TCB-Info-Issuer-Chain")?,
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": identity.header("SGX-Enclave-Identity-Issuer-Chain")?,
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_signature,
        });
        Ok(Blob(json.to_string().into_bytes()))
    }

    async fn amd(&self, report: &[u8], bundle: &mut Bundle) -> Result<(), FetchError> {
        let name = vek_key(report).ok_or(FetchError::Unnamed("its chip"))?;
        let parsed = SignedReport::split(report).and_then(|parts| Report::parse(parts.signed).ok());
        let report = parsed.ok_or(FetchError::Unnamed("its chip"))?;
        let base = &self.services.amd;
        let products = match report.cpuid.and_then(|(family, model)| Product::of_cpuid(family, model)) {
            Some(product) => vec![product],
            // Reports before version 3 name no processor, and Turin has none of those.
            None => vec![Product::Milan, Product::Genoa],
        };
        let mut answer = Err(FetchError::Unnamed("its processor"));
        for product in products {
            let vlek = report.signing_key == SigningKey::Vlek;
            if !vlek {
                let tcb = report.reported_tcb.of(product).ok_or(FetchError::Unnamed("a TCB of its processor"))?;
                match self.get(vcek_url(base, product, &report, tcb)).await {
                    Ok(vcek) => bundle.amd.veks.insert(name.clone(), Blob(vcek.body)),
                    Err(error) => {
                        answer = Err(error);
                        continue;
                    }
                };
            }
            let kind = if vlek { "vlek" } else { "vcek" };
            let chain = self.get(format!("{base}/{kind}/v1/{product}/cert_chain")).await?;
            let chain = der_from_pem(&chain.body).map_err(|_| chain.unexpected("certificates in PEM"))?;
            bundle.amd.chains.extend(chain.into_iter().map(Blob));
            let crl = self.get(format!("{base}/{kind}/v1/{product}/crl")).await?;
            if !is_list(&crl.body) {
                return Err(crl.unexpected("a revocation list in DER"));
            }
            bundle.amd.crls.push(Blob(crl.body));
            return Ok(());
        }
        answer
    }

    async fn nvidia(&self, device: &DeviceEvidence, bundle: &mut Bundle, asked: &mut Asked) -> Result<(), FetchError> {
        let view = Device { kind: device.kind, report: &device.report.0, chain: &device.chain.0 };
        let names = view.rim_ids().map_err(|_| FetchError::Unnamed("its driver and VBIOS"))?;
        for name in names {
            if bundle.nvidia.rims.contains_key(&name) {
                continue;
            }
            if !is_plain(&name) {
                return Err(FetchError::Unnamed("its driver and VBIOS in plain letters"));
            }
            let answer = self.get(format!("{}/v1/rim/{name}", self.services.nvidia_rims)).await?;
            #[derive(Deserialize)]
            struct Manifest {
                rim: String,
            }
            let manifest = serde_json::from_slice::<Manifest>(&answer.body).ok();
            let manifest = manifest.and_then(|m| STANDARD.decode(m.rim).ok());
            let manifest = manifest.ok_or_else(|| answer.unexpected("a manifest in base64"))?;
            let signers = rim_signers(&manifest).unwrap_or_default();
            self.revocation(&signers, &self.services.nvidia_rim_crls, bundle, asked).await?;
            bundle.nvidia.rims.insert(name, Blob(manifest));
        }
        let chain = certificates_from_pem(&device.chain.0).map_err(|_| FetchError::Unnamed("its issuers"))?;
        self.revocation(&chain, &self.services.nvidia_crls, bundle, asked).await
    }

    /// The lists that a chain's certificates name, and the answers about them. The bundle holds each once.
    async fn revocation(
        &self,
        chain: &[Certificate],
        lists: &str,
        bundle: &mut Bundle,
        asked: &mut Asked,
    ) -> Result<(), FetchError> {
        let points = chain.iter().flat_map(|certificate| distribution_points(certificate).into_iter().take(MAX_LISTS));
        for file in points.filter_map(|url| list_name(&url)) {
            let url = format!("{lists}/{file}");
            if !asked.lists.insert(url.clone()) {
                continue;
            }
            let answer = self.get(url).await?;
            // One that cannot be read would refuse every device at appraisal.
            let list = Crl::from_der(&answer.body).map_err(|_| answer.unexpected("a revocation list in DER"))?;
            bundle.not_after = bundle.not_after.min(list.until());
            let list = Blob(answer.body);
            if !bundle.nvidia.crls.contains(&list) {
                bundle.nvidia.crls.push(list);
            }
        }
        self.ocsp(chain, bundle, asked).await
    }

    /// Asks about every certificate of a chain that names a responder, one by one. The bundle holds each answer once.
    async fn ocsp(&self, chain: &[Certificate], bundle: &mut Bundle, asked: &mut Asked) -> Result<(), FetchError> {
        let Some(url) = &self.services.nvidia_ocsp else { return Ok(()) };
        for (certificate, issuer) in chain.iter().zip(chain.iter().skip(1)).filter(|(one, _)| names_responder(one)) {
            if !asked.certificates.insert([certificate.sha256(), issuer.sha256()]) {
                continue;
            }
            let request = ocsp_request(certificate, issuer).ok_or(FetchError::Unnamed("its issuer's key"))?;
            let request = self.client.post(url).header("content-type", "application/ocsp-request").body(request);
            let answer = Self::answer(request, url.clone()).await?;
            let kept = OcspAnswer::from_der(&answer.body);
            let kept = kept.map_err(|_| answer.unexpected("an OCSP answer that can be kept"))?;
            bundle.not_after = bundle.not_after.min(kept.until().unwrap_or(bundle.not_after));
            if !bundle.nvidia.ocsp.iter().any(|held| held.0 == answer.body) {
                bundle.nvidia.ocsp.push(Blob(answer.body));
            }
        }
        Ok(())
    }

    async fn get(&self, url: String) -> Result<Answer, FetchError> {
        Self::answer(self.client.get(&url), url).await
    }

    async fn answer(request: RequestBuilder, url: String) -> Result<Answer, FetchError> {
        let unreachable = |e: &reqwest::Error| FetchError::Unreachable { url: url.clone(), why: told(e) };
        let mut response = request.send().await.map_err(|e| unreachable(&e))?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status { url, status: status.as_u16() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(&e))? {
            if body.len().saturating_add(chunk.len()) > MAX_BODY {
                return Err(FetchError::Unexpected { url, what: "a document of at most 8 MiB" });
            }
            body.extend_from_slice(&chunk);
        }
        let text = |value: &reqwest::header::HeaderValue| value.to_str().ok().map(str::to_owned);
        let headers =
            response.headers().iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
        Ok(Answer { headers: headers.collect(), url, body })
    }
}

fn vcek_url(base: &str, product: Product, report: &Report, tcb: Tcb) -> String {
    let Tcb { fmc, bootloader, tee, snp, microcode } = tcb;
    let levels = format!("blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}");
    match product {
        Product::Turin => {
            let [a, b, c, d, e, f, g, h, ..] = report.chip_id.0;
            let chip = Fixed([a, b, c, d, e, f, g, h]);
            format!("{base}/vcek/v1/{product}/{chip}?fmcSPL={fmc:02}&{levels}")
        }
        Product::Milan | Product::Genoa => format!("{base}/vcek/v1/{product}/{}?{levels}", report.chip_id),
    }
}

/// The file's name in a list's address; a chain that nobody has verified names no host to be asked.
fn list_name(url: &str) -> Option<String> {
    let (_, file) = url.rsplit_once('/')?;
    is_plain(file).then(|| file.to_owned())
}

/// Nothing that means anything in an address: what names it comes from evidence that nobody has verified.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.contains("..")
}

/// The innermost reason, without the address, which the message has already.
fn told(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
