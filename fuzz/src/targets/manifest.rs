//! The package's public manifest.

use glasshouse_core::manifest::{MAX_CIPHERTEXT_BYTES, MAX_MANIFEST_BYTES, Manifest};
use glasshouse_core::transcript::sha384;

use crate::check;

/// What is accepted has one spelling, one digest, and a layout that adds up; what is refused is so in one line.
pub fn run(data: &[u8]) {
    let manifest = match Manifest::from_bytes(data) {
        Ok(manifest) => manifest,
        Err(error) => return check::one_line(&error.to_string(), 1600),
    };
    assert!(data.len() <= MAX_MANIFEST_BYTES);
    assert_eq!(manifest.to_bytes().as_deref(), Ok(data), "two spellings");
    assert_eq!(manifest.digest(), Ok(sha384(data)));
    check::faithful(&manifest, data);
    let layout = manifest.layout().expect("an accepted manifest has a layout");
    assert!(layout.chunks() >= 1 && layout.plaintext_bytes() >= 1);
    assert_eq!(layout.ciphertext_bytes(), manifest.ciphertext_bytes);
    assert_eq!(layout.plaintext_bytes() + 16 * layout.chunks(), manifest.ciphertext_bytes);
    assert_eq!(layout.plaintext_bytes().div_ceil(u64::from(manifest.chunk_bytes)), layout.chunks());
    assert!(manifest.ciphertext_bytes <= MAX_CIPHERTEXT_BYTES);
    for name in manifest.entries.iter().chain(manifest.public_inputs.iter().map(|input| &input.name)) {
        check::one_line(name, 128);
        let path = std::path::Path::new("/base").join(name);
        assert_eq!(path.parent(), Some(std::path::Path::new("/base")), "a name that leaves its folder");
        assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
    }
    for input in &manifest.public_inputs {
        check::one_line(&input.source, 2048);
    }
}
