use std::collections::BTreeMap;

use glasshouse_core::fixed::Digest48;
use serde::{Deserialize, Serialize};

use crate::bytes::Cursor;

/// The vendor's part of a measurements response: fields of (type u16, length u16, value), little-endian.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpaqueData(BTreeMap<u16, Vec<u8>>);

/// How a GPU takes part in confidential computing (field 36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Single-GPU pass-through: one GPU, PCIe encrypted.
    Spt,
    /// Multi-GPU pass-through: NVLink encrypted between GPUs.
    Mpt,
    /// Protected PCIe: NVLink in the clear, the switches inside the trust boundary.
    Ppcie,
}

impl OpaqueData {
    /// Field 3: the driver's version, text.
    pub const DRIVER_VERSION: u16 = 3;
    /// Field 6: the VBIOS version, packed on GPUs and text on switches.
    pub const VBIOS_VERSION: u16 = 6;
    /// Field 11: whether NVDEC0 is enabled (0xaa) or disabled (0x55).
    pub const NVDEC0: u16 = 11;
    /// Field 12: how often each measurement was extended, 32-bit counters.
    pub const MEASUREMENT_COUNTS: u16 = 12;
    /// Field 15: the chip's SKU, text.
    pub const CHIP_SKU: u16 = 15;
    /// Field 17: the board's project, text.
    pub const PROJECT: u16 = 17;
    /// Field 18: the project's SKU, text.
    pub const PROJECT_SKU: u16 = 18;
    /// Field 20: firmware id, the SHA-384 that the leaf certificate carries too.
    pub const FWID: u16 = 20;
    /// Field 21: whether protected PCIe is enabled (0xaa) or disabled (0x55), before field 36 was there.
    pub const PROTECTED_PCIE: u16 = 21;
    /// Field 35: the chip, text.
    pub const CHIP: u16 = 35;
    /// Field 36: the [`Feature`].
    pub const FEATURE_FLAG: u16 = 36;

    const ENABLED: &[u8] = &[0xaa];
    const DISABLED: &[u8] = &[0x55];

    /// Parses all fields. Nothing when they do not fill the bytes exactly or one is there twice.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut fields = BTreeMap::new();
        while !cursor.is_empty() {
            let field = cursor.u16()?;
            let length = cursor.u16()?;
            let value = cursor.take(usize::from(length))?.to_vec();
            if fields.insert(field, value).is_some() {
                return None;
            }
        }
        Some(Self(fields))
    }

    /// All fields by type.
    pub fn fields(&self) -> &BTreeMap<u16, Vec<u8>> {
        &self.0
    }

    /// The value of a field.
    pub fn field(&self, field: u16) -> Option<&[u8]> {
        self.0.get(&field).map(Vec::as_slice)
    }

    /// A field as text: printable ASCII with zero bytes at its end only.
    pub fn text(&self, field: u16) -> Option<&str> {
        let text = std::str::from_utf8(self.field(field)?).ok()?.trim_end_matches('\0');
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')).then_some(text)
    }

    /// Field 12 as counters.
    pub fn measurement_counts(&self) -> Option<Vec<u32>> {
        let (counts, rest) = self.field(Self::MEASUREMENT_COUNTS)?.as_chunks::<4>();
        rest.is_empty().then(|| counts.iter().map(|c| u32::from_le_bytes(*c)).collect())
    }

    /// Field 6 of a GPU as text. Eight bytes, little-endian: `00 5e 00 96 01 00 00 00` is `96.00.5E.00.01`.
    pub fn packed_vbios(&self) -> Option<String> {
        match self.field(Self::VBIOS_VERSION)? {
            [d, c, b, a, e, 0, 0, 0] => Some(format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}")),
            _ => None,
        }
    }

    /// Field 20.
    pub fn fwid(&self) -> Option<Result<Digest48, ()>> {
        self.field(Self::FWID).map(|value| Digest48::try_from(value).map_err(|_| ()))
    }

    /// Whether NVDEC0 is said to be disabled; its measurement then has no reference value.
    pub fn nvdec0_disabled(&self) -> bool {
        self.field(Self::NVDEC0) == Some(Self::DISABLED)
    }

    /// Field 36, or field 21 where it says protected PCIe. `Ok(None)` when the firmware states no mode.
    ///
    /// # Errors
    /// The bytes of a value that has no meaning, or that field 21 contradicts.
    pub fn feature(&self) -> Result<Option<Feature>, Vec<u8>> {
        let legacy = match self.field(Self::PROTECTED_PCIE) {
            None => None,
            Some(value) if value == Self::DISABLED => None,
            Some(value) if value == Self::ENABLED => Some(Feature::Ppcie),
            Some(value) => return Err(value.to_vec()),
        };
        let stated = match self.field(Self::FEATURE_FLAG) {
            None => return Ok(legacy),
            Some([0] | [0, 0]) => Feature::Spt,
            Some([1] | [1, 0]) => Feature::Mpt,
            Some([2] | [2, 0]) => Feature::Ppcie,
            Some(value) => return Err(value.to_vec()),
        };
        // Two fields that contradict each other: NVLink would be in the clear, or not.
        if legacy == Some(Feature::Ppcie) && stated != Feature::Ppcie {
            return Err(self.field(Self::FEATURE_FLAG).unwrap_or_default().to_vec());
        }
        Ok(Some(stated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_fill_the_bytes_exactly_and_once() {
        let opaque = OpaqueData::parse(&[3, 0, 2, 0, b'5', 0, 36, 0, 2, 0, 2, 0]).unwrap();
        assert_eq!(opaque.text(OpaqueData::DRIVER_VERSION), Some("5"));
        assert_eq!(opaque.feature(), Ok(Some(Feature::Ppcie)));
        for bad in [&[3, 0, 2, 0, 1][..], &[3, 0, 0], &[3, 0, 0, 0, 3, 0, 0, 0]] {
            assert_eq!(OpaqueData::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn modes() {
        let of = |bytes: &[u8]| OpaqueData::parse(bytes).unwrap().feature();
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[21, 0, 1, 0, 0x55]), Ok(None));
        assert_eq!(of(&[21, 0, 1, 0, 0xaa]), Ok(Some(Feature::Ppcie)));
        assert_eq!(of(&[21, 0, 1, 0, 0x54]), Err(vec![0x54]));
        assert_eq!(of(&[36, 0, 2, 0, 1, 0]), Ok(Some(Feature::Mpt)));
        assert_eq!(of(&[36, 0, 2, 0, 3, 0]), Err(vec![3, 0]));
        assert_eq!(of(&[21, 0, 1, 0, 0xaa, 36, 0, 2, 0, 2, 0]), Ok(Some(Feature::Ppcie)));
        for mode in [0, 1] {
            assert_eq!(of(&[21, 0, 1, 0, 0xaa, 36, 0, 2, 0, mode, 0]), Err(vec![mode, 0]));
            assert!(of(&[21, 0, 1, 0, 0x55, 36, 0, 2, 0, mode, 0]).is_ok());
        }
    }

    #[test]
    fn versions() {
        let opaque = OpaqueData::parse(&[6, 0, 8, 0, 0, 0x74, 0, 0x96, 0x20, 0, 0, 0]).unwrap();
        assert_eq!(opaque.packed_vbios().unwrap(), "96.00.74.00.20");
        assert_eq!(OpaqueData::parse(&[6, 0, 3, 0, b'a', 0, b'b']).unwrap().text(6), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            if let Some(opaque) = OpaqueData::parse(&bytes) {
                let _ = (opaque.packed_vbios(), opaque.feature(), opaque.measurement_counts(), opaque.fwid());
                let total: usize = opaque.fields().values().map(|v| v.len() + 4).sum();
                prop_assert_eq!(total, bytes.len());
            }
        }
    }
}
