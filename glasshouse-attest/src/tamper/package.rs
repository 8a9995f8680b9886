//! The sealed package in the hands of whoever stores it: all ciphertext, no key. It is opened with the right key and the
//! right digests, in memory, and nothing of it is handed over unless all of it verifies.

use glasshouse_core::package::open;
use glasshouse_core::refusal::Code;

use super::world::{CHUNK_BYTES, World};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "package truncated",
        attacker: "a store cuts the package off at a chunk's boundary",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_TRUNCATED,
        run: |world| {
            tampered(world, |chunks| {
                chunks.pop();
            })
        },
    },
    &Scenario {
        name: "package appended to",
        attacker: "a store appends a copy of the last, authentic chunk",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_EXTENDED,
        run: |world| tampered(world, |chunks| chunks.extend(chunks.last().cloned())),
    },
    &Scenario {
        name: "package chunks swapped",
        attacker: "a store exchanges two authentic chunks of the same length",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_CHUNK_SWAPPED,
        run: |world| tampered(world, |chunks| chunks.swap(1, 2)),
    },
    &Scenario {
        name: "package chunks reordered",
        attacker: "a store moves an authentic chunk from the front to a later place",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_CHUNK_REORDERED,
        run: |world| {
            tampered(world, |chunks| {
                if let Some(moved) = chunks.get_mut(1..4) {
                    moved.rotate_left(1);
                }
            })
        },
    },
    &Scenario {
        name: "package chunk repeated",
        attacker: "a store puts an authentic chunk once more in place of the next one",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_CHUNK_REPEATED,
        run: |world| {
            tampered(world, |chunks| {
                if let [_, first, second, ..] = chunks.as_mut_slice() {
                    second.clone_from(first);
                }
            })
        },
    },
    &Scenario {
        name: "package chunk of another package",
        attacker: "a store puts the same owner's other package's chunk in the same place",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_CHUNK_FORGED,
        run: |world| {
            let other = World::new()?;
            let (_, theirs) = cut(&other)?;
            tampered(world, |chunks| {
                if let (Some(mine), Some(theirs)) = (chunks.get_mut(2), theirs.get(2)) {
                    mine.clone_from(theirs);
                }
            })
        },
    },
    &Scenario {
        name: "package under another key",
        attacker: "a store hands out a package that is whole, sealed by itself under the owner's manifest",
        refused_by: RefusedBy::Package,
        expected: Code::PACKAGE_UNOPENABLE,
        run: |world| {
            let (_, theirs) = cut(&World::new()?)?;
            tampered(world, |chunks| *chunks = theirs)
        },
    },
];

/// Opens the package after its chunks were tampered with.
fn tampered(world: &World, tamper: impl FnOnce(&mut Vec<Vec<u8>>)) -> Result<Attempt, SuiteError> {
    let (header, whole) = cut(world)?;
    let mut chunks = whole.clone();
    tamper(&mut chunks);
    if chunks == whole {
        return Err(SuiteError::Unfit("the package has no such chunks"));
    }
    let bytes = [header, chunks.concat()].concat();
    match open(bytes.as_slice(), &world.data_key, &world.digests) {
        Ok(_) => Ok(Attempt::Accepted),
        Err(error) => {
            let refusal = error.refusal().ok_or(SuiteError::Unfit("a tampered package is refused, not unreadable"))?;
            Ok(Attempt::Refused { refusal, key_left: false })
        }
    }
}

/// The header and the sealed chunks.
fn cut(world: &World) -> Result<(Vec<u8>, Vec<Vec<u8>>), SuiteError> {
    // Magic, length of the manifest, manifest; then each chunk with its tag.
    let unfit = SuiteError::Unfit("a package begins with a header of its manifest");
    let (_, rest) = world.package.split_first_chunk::<8>().ok_or(unfit)?;
    let (length, _) =
        rest.split_first_chunk::<4>().ok_or(SuiteError::Unfit("a package names its manifest's length"))?;
    let header = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).saturating_add(12);
    let (header, sealed) =
        world.package.split_at_checked(header).ok_or(SuiteError::Unfit("a package holds its whole manifest"))?;
    let chunk = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX).saturating_add(16);
    Ok((header.to_vec(), sealed.chunks(chunk).map(<[u8]>::to_vec).collect()))
}
