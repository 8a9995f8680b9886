use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Certificate, X509Error};

/// Bounds on what is looked at: no attestation chain has more certificates or more text.
const MAX_CERTIFICATES: usize = 8;
const MAX_TEXT: usize = 64 * 1024;

/// Reads a chain from PEM (RFC 7468): `CERTIFICATE` blocks with only white space around them.
///
/// # Errors
/// [`X509Error::Pem`] for the text, [`X509Error::Length`] for too many, and those of [`Certificate::from_der`].
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<Certificate>, X509Error> {
    let chain = der_from_pem(pem)?;
    chain.iter().enumerate().map(|(position, der)| Certificate::from_der(der, position)).collect()
}

/// The same, certificate by certificate as DER, whatever it is.
pub(crate) fn der_from_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, X509Error> {
    let text = match std::str::from_utf8(pem) {
        Ok(text) if pem.len() <= MAX_TEXT => text,
        _ => return Err(X509Error::Pem { line: 1 }),
    };
    let mut chain = Vec::new();
    let mut block: Option<String> = None;
    let mut line = 0usize;
    for content in text.lines().map(str::trim) {
        line = line.saturating_add(1);
        block = match (block, content) {
            (None, "-----BEGIN CERTIFICATE-----") => Some(String::new()),
            (None, "") => None,
            (Some(base64), "-----END CERTIFICATE-----") => {
                if chain.len() >= MAX_CERTIFICATES {
                    return Err(X509Error::Length { expected: "at most eight", seen: chain.len().saturating_add(1) });
                }
                chain.push(STANDARD.decode(base64).map_err(|_| X509Error::Pem { line })?);
                None
            }
            (Some(base64), content) => Some(base64 + content),
            _ => return Err(X509Error::Pem { line }),
        };
    }
    match block {
        None => Ok(chain),
        Some(_) => Err(X509Error::Pem { line }),
    }
}
