//! The structures of OCSP answers (RFC 6960 section 4.2.1, which has EXPLICIT TAGS), as far as answers that are kept have
//! them.

use glasshouse_core::clock::UnixMillis;
use x509_cert::der::asn1::{AnyRef, BitString, GeneralizedTime, IntRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode as _, Encode as _, Reader, Result, SliceReader, Tag, TagNumber, Tagged as _};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::significant;

const BASIC_RESPONSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");

/// What an answer says about one certificate.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) algorithm: ObjectIdentifier,
    pub(super) issuer_name: Vec<u8>,
    pub(super) issuer_key: Vec<u8>,
    pub(super) serial: Vec<u8>,
    pub(super) status: Status,
    pub(super) from: UnixMillis,
    pub(super) to: UnixMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Revoked,
    Unknown,
}

/// `SEQUENCE { responseStatus ENUMERATED, [0] { responseType, response } OPTIONAL }`: the response where there is one.
pub(super) fn basic_response(der: &[u8]) -> Result<Option<&[u8]>> {
    let mut reader = SliceReader::new(der)?;
    let response = reader.sequence(|r| {
        let status = AnyRef::decode(r)?;
        if status.tag() != Tag::Enumerated {
            return Err(status.tag().value_error().into());
        }
        if status.value() != [0] {
            let _ = optional(r, 0)?;
            return Ok(None);
        }
        let content = optional(r, 0)?.ok_or_else(|| Tag::Sequence.value_error())?;
        let mut inner = SliceReader::new(content)?;
        let basic = inner.sequence(|r| {
            let kind = ObjectIdentifier::decode(r)?;
            let basic = <&OctetStringRef>::decode(r)?.as_bytes();
            if kind == BASIC_RESPONSE { Result::Ok(basic) } else { Err(Tag::ObjectIdentifier.value_error().into()) }
        })?;
        inner.finish()?;
        Result::Ok(Some(basic))
    })?;
    reader.finish()?;
    Ok(response)
}

/// `SEQUENCE { tbsResponseData, signatureAlgorithm, signature, [0] SEQUENCE OF Certificate OPTIONAL }`.
pub(super) struct Parts<'a> {
    pub(super) tbs_der: &'a [u8],
    pub(super) algorithm: AlgorithmIdentifierOwned,
    pub(super) signature: BitString,
    pub(super) certificates: Vec<Vec<u8>>,
}

impl<'a> Parts<'a> {
    pub(super) fn read(der: &'a [u8]) -> Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let parts = reader.sequence(|r| {
            let (tbs_der, algorithm, signature) = (r.tlv_bytes()?, r.decode()?, r.decode()?);
            let mut certificates = Vec::new();
            if let Some(content) = optional(r, 0)? {
                let mut inner = SliceReader::new(content)?;
                inner.sequence(|r| {
                    while !r.is_finished() {
                        certificates.push(r.tlv_bytes()?.to_vec());
                    }
                    Result::Ok(())
                })?;
                inner.finish()?;
            }
            Result::Ok(Self { tbs_der, algorithm, signature, certificates })
        })?;
        reader.finish()?;
        Ok(parts)
    }
}

/// The responder's name, where it calls itself by name, and what it says.
pub(super) type ResponseData = (Option<Vec<u8>>, Vec<Option<Single>>);

/// `SEQUENCE { version [0] DEFAULT v1, responderID, producedAt, SEQUENCE OF SingleResponse, [1] extensions OPTIONAL }`. A
/// single response without an end is `None`.
pub(super) fn response_data(der: &[u8]) -> Result<ResponseData> {
    let mut reader = SliceReader::new(der)?;
    let data = reader.sequence(|r| {
        let responder = AnyRef::decode(r)?;
        let mut inner = SliceReader::new(responder.value())?;
        let name = match responder.tag() {
            // By name. The other way is SHA-1 of its key; whoever signs is verified in either case.
            tag if tag == explicit(1) => Some(Name::decode(&mut inner)?.to_der()?),
            tag if tag == explicit(2) => {
                <&OctetStringRef>::decode(&mut inner)?;
                None
            }
            tag => return Err(tag.value_error().into()),
        };
        inner.finish()?;
        let _produced = GeneralizedTime::decode(r)?;
        let about = r.sequence(|r| {
            let mut all = Vec::new();
            while !r.is_finished() {
                all.push(single(r)?);
            }
            Result::Ok(all)
        })?;
        extensions(r, 1)?;
        Result::Ok((name, about))
    })?;
    reader.finish()?;
    Ok(data)
}

/// `SEQUENCE { CertID, certStatus, thisUpdate, nextUpdate [0] OPTIONAL, [1] extensions OPTIONAL }`.
fn single<'a>(reader: &mut impl Reader<'a>) -> Result<Option<Single>> {
    const GOOD: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(0) };
    const UNKNOWN: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber(2) };
    reader.sequence(|r| {
        let (algorithm, issuer_name, issuer_key, serial) = r.sequence(|r| {
            let algorithm: AlgorithmIdentifierOwned = r.decode()?;
            let name = <&OctetStringRef>::decode(r)?.as_bytes().to_vec();
            let key = <&OctetStringRef>::decode(r)?.as_bytes().to_vec();
            Result::Ok((algorithm.oid, name, key, significant(IntRef::decode(r)?.as_bytes()).to_vec()))
        })?;
        let status = AnyRef::decode(r)?;
        let status = match status.tag() {
            GOOD if status.value().is_empty() => Status::Good,
            UNKNOWN if status.value().is_empty() => Status::Unknown,
            tag if tag == explicit(1) => Status::Revoked,
            tag => return Err(tag.value_error().into()),
        };
        let from = millis(GeneralizedTime::decode(r)?);
        let to = optional(r, 0)?.map(GeneralizedTime::from_der).transpose()?.map(millis);
        extensions(r, 1)?;
        Result::Ok(to.map(|to| Single { algorithm, issuer_name, issuer_key, serial, status, from, to }))
    })
}

/// `[number] EXPLICIT` where it is next: its content.
fn optional<'a>(reader: &mut impl Reader<'a>, number: u32) -> Result<Option<&'a [u8]>> {
    if reader.is_finished() || Tag::peek(reader)? != explicit(number) {
        return Ok(None);
    }
    Ok(Some(AnyRef::decode(reader)?.value()))
}

/// Extensions, none of them critical: none is understood here.
fn extensions<'a>(reader: &mut impl Reader<'a>, number: u32) -> Result<()> {
    let Some(content) = optional(reader, number)? else { return Ok(()) };
    match Vec::<Extension>::from_der(content)?.iter().any(|extension| extension.critical) {
        true => Err(Tag::Sequence.value_error().into()),
        false => Ok(()),
    }
}

const fn explicit(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

fn millis(time: GeneralizedTime) -> UnixMillis {
    UnixMillis::since_epoch(time.to_unix_duration())
}
