//! The firmware id that the boot ROM wrote into the leaf certificate (DICE, TCG DICE attestation architecture 1.1).

use glasshouse_core::fixed::Digest48;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode as _, Reader, SliceReader, Tag, TagNumber, Tagged as _};

use crate::x509::Certificate;

/// `tcg-dice-CompositeDeviceID`, on Hopper and on switches.
const COMPOSITE_DEVICE_ID: &str = "2.23.133.5.4.1";
/// `tcg-dice-TcbInfo`, on Blackwell.
const TCB_INFO: &str = "2.23.133.5.4.1.1";

const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// The firmware id of a leaf certificate, from whichever of the two extensions it has. Nothing when it has none, when
/// one does not decode, or when two disagree.
pub(super) fn fwid_of(leaf: &Certificate) -> Option<Digest48> {
    let composite = leaf.extension(COMPOSITE_DEVICE_ID).map(composite_device_id);
    let tcb = leaf.extension(TCB_INFO).map(tcb_info);
    match (composite, tcb) {
        (Some(Ok(fwid)), None) | (None, Some(Ok(fwid))) => Some(fwid),
        (Some(Ok(a)), Some(Ok(b))) if a == b => Some(a),
        _ => None,
    }
}

/// `SEQUENCE { version INTEGER, deviceID SubjectPublicKeyInfo, fwid FWID }`: the id is the last 48 bytes.
fn composite_device_id(value: &[u8]) -> x509_cert::der::Result<Digest48> {
    let mut reader = SliceReader::new(value)?;
    let fwid = reader.sequence(|r| {
        let _version = tagged(r, Tag::Integer)?;
        let _device_id = tagged(r, Tag::Sequence)?;
        one_fwid(r)
    })?;
    reader.finish()?;
    Ok(fwid)
}

/// `SEQUENCE { …, fwids [6] IMPLICIT SEQUENCE OF FWID OPTIONAL, … }`: the first of `fwids`.
fn tcb_info(value: &[u8]) -> x509_cert::der::Result<Digest48> {
    const FWIDS: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(6) };
    let mut reader = SliceReader::new(value)?;
    let fwids = reader.sequence(|r| {
        let mut fwids = None;
        while !r.is_finished() {
            let field = AnyRef::decode(r)?;
            if field.tag() == FWIDS && fwids.replace(field.value()).is_some() {
                return Err(FWIDS.value_error().into());
            }
        }
        fwids.ok_or_else(|| x509_cert::der::Error::from(FWIDS.value_error()))
    })?;
    reader.finish()?;
    one_fwid(&mut SliceReader::new(fwids)?)
}

/// `FWID ::= SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }`.
fn one_fwid<'a>(reader: &mut impl Reader<'a>) -> x509_cert::der::Result<Digest48> {
    reader.sequence(|r| {
        let algorithm = ObjectIdentifier::decode(r)?;
        let digest = <&OctetStringRef>::decode(r)?;
        match Digest48::try_from(digest.as_bytes()) {
            Ok(digest) if algorithm == SHA384 => Ok(digest),
            _ => Err(Tag::OctetString.value_error().into()),
        }
    })
}

fn tagged<'a>(reader: &mut impl Reader<'a>, tag: Tag) -> x509_cert::der::Result<AnyRef<'a>> {
    let any = AnyRef::decode(reader)?;
    if any.tag() == tag { Ok(any) } else { Err(tag.value_error().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fwid(byte: u8) -> Vec<u8> {
        let mut der = vec![0x30, 61, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 4, 48];
        der.extend([byte; 48]);
        der
    }

    fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut der = vec![tag, 0x81, u8::try_from(content.len()).unwrap()];
        if content.len() < 128 {
            der.remove(1);
        }
        der.extend(content);
        der
    }

    #[test]
    fn both_forms() {
        let hopper = wrap(0x30, &[&[2, 1, 1], &[0x30, 0], &fwid(7)]);
        assert_eq!(composite_device_id(&hopper).unwrap(), Digest48::from([7; 48]));
        let blackwell = wrap(0x30, &[&[0x83, 1, 1], &wrap(0xa6, &[&fwid(8), &fwid(0)]), &[0x87, 1, 0]]);
        assert_eq!(tcb_info(&blackwell).unwrap(), Digest48::from([8; 48]));
        for bytes in [hopper, blackwell] {
            for cut in 0..bytes.len() {
                assert!(composite_device_id(&bytes[..cut]).is_err() && tcb_info(&bytes[..cut]).is_err(), "{cut}");
            }
        }
        assert!(tcb_info(&wrap(0x30, &[&wrap(0xa6, &[&fwid(8)]), &wrap(0xa6, &[&fwid(8)])])).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = (composite_device_id(&bytes), tcb_info(&bytes));
        }
    }
}
