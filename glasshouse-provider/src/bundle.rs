//! The inputs of a raw segment: the same entries as in the package, in the clear.
//!
//! `"GHRAW/1\n" || u32(length of index) || index as JSON || contents of the entries, in the index's order`.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use glasshouse_core::manifest::PublicInput;
use glasshouse_core::secret::SecretBuffer;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"GHRAW/1\n";
const MAX_INDEX: u32 = 4 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    entries: Vec<Entry>,
    public_inputs: Vec<PublicInput>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    bytes: u64,
}

/// What a raw segment trains on.
pub(crate) struct RawBundle {
    pub(crate) entries: BTreeMap<String, SecretBuffer>,
    pub(crate) public_inputs: Vec<PublicInput>,
}

/// Writes entries as a bundle.
pub(crate) fn write(
    entries: &BTreeMap<String, SecretBuffer>,
    public_inputs: &[PublicInput],
    mut to: impl Write,
) -> io::Result<()> {
    let index = Index {
        entries: entries
            .iter()
            .map(|(name, content)| Entry {
                name: name.clone(),
                bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
            })
            .collect(),
        public_inputs: public_inputs.to_vec(),
    };
    let index = serde_json::to_vec(&index)?;
    let length = u32::try_from(index.len()).ok().filter(|length| *length <= MAX_INDEX);
    let length = length.ok_or_else(|| io::Error::other("too many entries"))?;
    to.write_all(MAGIC)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&index)?;
    entries.values().try_for_each(|content| to.write_all(content))
}

/// Reads a bundle that has `total` bytes in all.
pub(crate) fn read(mut from: impl Read, total: u64) -> io::Result<RawBundle> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (mut magic, mut length) = ([0; 8], [0; 4]);
    from.read_exact(&mut magic)?;
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if &magic != MAGIC || length > MAX_INDEX {
        return Err(bad("it is no bundle of raw inputs"));
    }
    let mut index = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut index)?;
    let index: Index = serde_json::from_slice(&index).map_err(|_| bad("its index is unreadable"))?;
    let mut entries = BTreeMap::new();
    let mut left = total;
    for entry in index.entries {
        // Before anything is allocated: no entry is larger than what is there.
        left = left.checked_sub(entry.bytes).ok_or_else(|| bad("it is shorter than its index says"))?;
        let bytes = usize::try_from(entry.bytes).map_err(io::Error::other)?;
        let mut content = SecretBuffer::try_zeroed(bytes).map_err(io::Error::other)?;
        from.read_exact(content.as_mut_slice())?;
        if entries.insert(entry.name, content).is_some() {
            return Err(bad("it names an entry twice"));
        }
    }
    if from.read(&mut [0])? != 0 {
        return Err(bad("it is longer than its index says"));
    }
    Ok(RawBundle { entries, public_inputs: index.public_inputs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Vec<u8> {
        let entries = [("a", vec![1, 2, 3]), ("b", Vec::new())];
        let entries = entries.map(|(name, bytes)| (name.to_owned(), SecretBuffer::new(bytes))).into();
        let mut bytes = Vec::new();
        write(&entries, &[], &mut bytes).unwrap();
        bytes
    }

    fn read_all(bytes: &[u8]) -> io::Result<RawBundle> {
        read(bytes, bytes.len() as u64)
    }

    #[test]
    fn entries_come_back() {
        let read = read_all(&bundle()).unwrap();
        assert_eq!(&*read.entries["a"], [1, 2, 3]);
        assert!(read.entries["b"].is_empty());
    }

    #[test]
    fn a_cut_or_extended_bundle_is_refused() {
        let whole = bundle();
        for end in 0..whole.len() {
            assert!(read_all(&whole[..end]).is_err(), "{end}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(read_all(&longer).is_err());
        let lying = String::from_utf8(whole).unwrap().replace("\"bytes\":3", "\"bytes\":9");
        assert!(read_all(lying.as_bytes()).is_err());
    }
}
