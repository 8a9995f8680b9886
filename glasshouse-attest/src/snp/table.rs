//! The table of certificates that a host gives with an extended report (AMD 56421, "SNP Guest Request", table of the
//! certificate data structure): entries of GUID, offset and length, closed by an entry of zeros.

const ENTRY: usize = 24;
const MAX_TABLE: usize = 64 * 1024;
const MAX_ENTRIES: usize = 16;

const VCEK: [u8; 16] = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1_u128.to_be_bytes();
const ASK: [u8; 16] = 0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782_u128.to_be_bytes();
const ARK: [u8; 16] = 0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae_u128.to_be_bytes();

/// What a table holds of use, each in DER. The host made it: a carrier of certificates, none of them trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateTable {
    /// The VCEK or VLEK; a VLEK where both are there, because the host that has one signs with it.
    pub vek: Option<Vec<u8>>,
    /// ASK or ASVK, and ARK.
    pub issuers: Vec<Vec<u8>>,
}

impl CertificateTable {
    /// Reads a table. Entries of other kinds are passed over. GUIDs count in either byte order: which one hosts write
    /// is nowhere said, and nothing rests on it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX_TABLE {
            return Err("more than 64 KiB");
        }
        let (mut vcek, mut vlek, mut issuers) = (None, None, Vec::new());
        for entry in bytes.chunks(ENTRY).take(MAX_ENTRIES) {
            let (guid, rest) = entry.split_first_chunk::<16>().ok_or("a table that is cut")?;
            let (offset, rest) = rest.split_first_chunk::<4>().ok_or("a table that is cut")?;
            let length = rest.first_chunk::<4>().ok_or("a table that is cut")?;
            if *guid == [0; 16] {
                return Ok(Self { vek: vlek.or(vcek), issuers });
            }
            let (offset, length) = (u32::from_le_bytes(*offset), u32::from_le_bytes(*length));
            let place = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
            let range = place.and_then(|(from, length)| Some(from..from.checked_add(length)?));
            let der = range.and_then(|range| bytes.get(range)).ok_or("a certificate beyond the table's end")?;
            match canonical(*guid) {
                VCEK => vcek = Some(der.to_vec()),
                VLEK => vlek = Some(der.to_vec()),
                ASK | ARK => issuers.push(der.to_vec()),
                _ => {}
            }
        }
        Err("a table without end")
    }
}

/// A known GUID in the order in which it is written; anything else as it is.
fn canonical(guid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    let swapped = [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p];
    if [VCEK, VLEK, ASK, ARK].contains(&swapped) { swapped } else { guid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut offset = (entries.len() + 1) * ENTRY;
        let mut bytes = Vec::new();
        for (guid, der) in entries {
            bytes.extend(guid);
            bytes.extend((offset as u32).to_le_bytes());
            bytes.extend((der.len() as u32).to_le_bytes());
            offset += der.len();
        }
        bytes.extend([0; ENTRY]);
        bytes.extend(entries.iter().flat_map(|(_, der)| der.iter()));
        bytes
    }

    #[test]
    fn tables() {
        let all = table(&[(VCEK, b"vcek"), (ASK, b"ask"), (ARK, b"ark"), ([9; 16], b"other")]);
        let read = CertificateTable::parse(&all).unwrap();
        assert_eq!((read.vek.as_deref(), read.issuers.len()), (Some(&b"vcek"[..]), 2));
        assert_eq!(CertificateTable::parse(&table(&[])), Ok(CertificateTable::default()));
        let both = CertificateTable::parse(&table(&[(VCEK, b"vcek"), (VLEK, b"vlek")])).unwrap();
        assert_eq!(both.vek.as_deref(), Some(&b"vlek"[..]));
        let mut mixed = VCEK;
        mixed[..4].reverse();
        mixed[4..6].reverse();
        mixed[6..8].reverse();
        assert_eq!(CertificateTable::parse(&table(&[(mixed, b"vcek")])).unwrap().vek.as_deref(), Some(&b"vcek"[..]));
        assert_eq!(CertificateTable::parse(&all[..all.len() - 1]), Err("a certificate beyond the table's end"));
        assert_eq!(CertificateTable::parse(&[]), Err("a table without end"));
        assert_eq!(CertificateTable::parse(&all[..20]), Err("a table that is cut"));
        assert!(CertificateTable::parse(&vec![0; MAX_TABLE + 1]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = CertificateTable::parse(&bytes);
        }
    }
}
