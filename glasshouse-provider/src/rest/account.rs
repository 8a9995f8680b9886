use sha2::{Digest as _, Sha256};

/// A word that tells the account of this key at this address from others. 64 bits of a hash of a random key say nothing of
/// the key.
pub(super) fn fingerprint(host: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["glasshouse account", host, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_told_apart_and_keys_are_not_told() {
        let one = fingerprint("api.example", "rpa_KEY1");
        assert_eq!(one, fingerprint("api.example", "rpa_KEY1"));
        assert!(one != fingerprint("api.example", "rpa_KEY2") && one != fingerprint("other.example", "rpa_KEY1"));
        assert!(one.len() == 16 && !one.contains("KEY"));
    }
}
