use std::collections::BTreeMap;

use glasshouse_core::fixed::{Fixed, Nonce32};

use super::opaque::OpaqueData;
use crate::bytes::Cursor;

/// Bytes of the GET_MEASUREMENTS request that the report begins with.
const REQUEST: usize = 37;
/// A raw r || s P-384 signature.
const SIGNATURE: usize = 96;
/// Reports are 2 to 5 KiB.
const MAX_REPORT: usize = 64 * 1024;

const SPDM_1_1: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
const SIGNATURE_REQUESTED: u8 = 0x01;
const ALL_MEASUREMENTS: u8 = 0xff;
const DMTF: u8 = 0x01;

/// A report cut where it was signed: nothing of `signed` has been read.
#[derive(Clone, Copy, Debug)]
pub struct SignedReport<'a> {
    /// Request and response: all that is before the signature.
    pub signed: &'a [u8],
    /// Raw r || s.
    pub signature: &'a [u8; SIGNATURE],
}

impl<'a> SignedReport<'a> {
    /// Cuts a report. Nothing when it is shorter than any report or longer than 64 KiB.
    pub fn split(report: &'a [u8]) -> Option<Self> {
        let (signed, signature) = report.split_last_chunk::<SIGNATURE>()?;
        (signed.len() > REQUEST && report.len() <= MAX_REPORT).then_some(Self { signed, signature })
    }
}

/// One measurement block in DMTF form (DSP0274 1.1, table 45).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// `DMTFSpecMeasurementValueType`.
    pub value_type: u8,
    /// `DMTFSpecMeasurementValue`.
    pub value: Vec<u8>,
}

/// What was signed: an SPDM 1.1 GET_MEASUREMENTS request and its MEASUREMENTS response (DSP0274 1.1, section 10.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The nonce of the request: the verifier's.
    pub nonce: Nonce32,
    /// The nonce of the response: the device's own.
    pub device_nonce: Nonce32,
    /// `Param1` and `Param2` of the response.
    pub response_params: [u8; 2],
    /// Length of the measurement record, in bytes.
    pub record_length: u32,
    /// Measurements by SPDM index, from 1; a RIM counts from 0.
    pub measurements: BTreeMap<u8, Measurement>,
    /// The vendor's fields.
    pub opaque: OpaqueData,
}

impl Report {
    /// Parses the signed part of a report.
    ///
    /// # Errors
    /// The part that is not as it must be.
    pub fn parse(signed: &[u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(signed);
        let nonce = request(&mut cursor)?;
        let header: [u8; 2] = cursor.array().ok_or("the response's header is cut")?;
        if header != [SPDM_1_1, MEASUREMENTS] {
            return Err("the response is not MEASUREMENTS of SPDM 1.1");
        }
        let response_params = cursor.array().ok_or("the response's header is cut")?;
        let blocks = cursor.u8().ok_or("the number of blocks is cut")?;
        let record_length = cursor.u24().ok_or("the record's length is cut")?;
        let record = usize::try_from(record_length).ok().and_then(|length| cursor.take(length));
        let measurements = measurements(record.ok_or("the measurement record is cut")?, blocks)?;
        let device_nonce = Fixed(cursor.array().ok_or("the device's nonce is cut")?);
        let length = cursor.u16().ok_or("the opaque data's length is cut")?;
        let opaque = cursor.take(usize::from(length)).ok_or("the opaque data is cut")?;
        let opaque = OpaqueData::parse(opaque).ok_or("the opaque data is not a list of distinct fields")?;
        if !cursor.is_empty() {
            return Err("bytes follow the opaque data");
        }
        Ok(Self { nonce, device_nonce, response_params, record_length, measurements, opaque })
    }
}

fn request(cursor: &mut Cursor<'_>) -> Result<Nonce32, &'static str> {
    let header: [u8; 4] = cursor.array().ok_or("the request is cut")?;
    if header != [SPDM_1_1, GET_MEASUREMENTS, SIGNATURE_REQUESTED, ALL_MEASUREMENTS] {
        return Err("the request is not a signed GET_MEASUREMENTS of all blocks in SPDM 1.1");
    }
    let nonce = cursor.array().ok_or("the request is cut")?;
    let _slot = cursor.u8().ok_or("the request is cut")?;
    Ok(Fixed(nonce))
}

fn measurements(record: &[u8], blocks: u8) -> Result<BTreeMap<u8, Measurement>, &'static str> {
    let mut cursor = Cursor::new(record);
    let mut all = BTreeMap::new();
    while !cursor.is_empty() {
        let (index, measurement) = block(&mut cursor).ok_or("a measurement block is not in DMTF form")?;
        if index == 0 || all.insert(index, measurement).is_some() {
            return Err("a measurement's index is zero or there twice");
        }
    }
    if all.len() != usize::from(blocks) {
        return Err("the number of blocks is not the stated one");
    }
    Ok(all)
}

fn block(cursor: &mut Cursor<'_>) -> Option<(u8, Measurement)> {
    let index = cursor.u8()?;
    let specification = cursor.u8()?;
    let size = cursor.u16()?;
    let mut body = Cursor::new(cursor.take(usize::from(size))?);
    let value_type = body.u8()?;
    let value_size = body.u16()?;
    let value = body.take(usize::from(value_size))?.to_vec();
    (specification == DMTF && body.is_empty()).then_some((index, Measurement { value_type, value }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A report of one measurement without opaque data, unsigned.
    fn small() -> Vec<u8> {
        let mut bytes = vec![0x11, 0xe0, 1, 0xff];
        bytes.extend([7; 32]);
        bytes.extend([0, 0x11, 0x60, 0, 0, 1, 9, 0, 0]);
        bytes.extend([1, 1, 5, 0, 1, 2, 0, 0xaa, 0xbb]);
        bytes.extend([8; 32]);
        bytes.extend([0, 0]);
        bytes
    }

    #[test]
    fn parses_and_refuses_every_cut_and_every_addition() {
        let bytes = small();
        let report = Report::parse(&bytes).unwrap();
        assert_eq!(report.nonce, Fixed([7; 32]));
        assert_eq!(report.measurements[&1].value, [0xaa, 0xbb]);
        for length in 0..bytes.len() {
            assert!(Report::parse(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Report::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (at, value) in [(0, 0x12), (1, 0xe1), (2, 0), (3, 1), (37, 0x10), (38, 0x7f), (41, 2), (42, 8), (48, 4)] {
            let mut bytes = small();
            bytes[at] = value;
            assert!(Report::parse(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn a_split_needs_room_for_request_and_signature() {
        assert!(SignedReport::split(&[0; 133]).is_none());
        assert!(SignedReport::split(&[0; 134]).is_some());
        assert!(SignedReport::split(&vec![0; MAX_REPORT + 1]).is_none());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, at in 0usize..90, value: u8) {
            let _ = Report::parse(&bytes);
            let mut near = small();
            if let Some(byte) = near.get_mut(at) {
                *byte = value;
            }
            let _ = Report::parse(&near);
        }
    }
}
