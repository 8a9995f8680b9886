use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fetch::FetchError;

/// What a service answered.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn unexpected(&self, what: &'static str) -> FetchError {
        FetchError::Unexpected { url: self.url.clone(), what }
    }

    /// A chain in PEM that Intel puts in a header, percent-encoded.
    pub(super) fn header(&self, name: &'static str) -> Result<String, FetchError> {
        let value = self.headers.get(&name.to_ascii_lowercase()).ok_or_else(|| self.unexpected(name))?;
        let decoded = percent_decode_str(value).decode_utf8().map_err(|_| self.unexpected(name))?;
        Ok(decoded.into_owned())
    }

    /// The bytes of a document as they were signed, and the signature in hex.
    pub(super) fn signed_document(&self) -> Result<(String, String), FetchError> {
        #[derive(Deserialize)]
        struct Signed<'a> {
            #[serde(borrow, alias = "tcbInfo", alias = "enclaveIdentity")]
            document: &'a RawValue,
            signature: String,
        }
        let signed: Signed<'_> =
            serde_json::from_slice(&self.body).map_err(|_| self.unexpected("a document and its signature"))?;
        Ok((signed.document.get().to_owned(), signed.signature))
    }
}
