//! The container image of a launch, pinned by digest.

use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::traits::LaunchSpec;

const MARK: &str = "@sha256:";

/// The image reference with its digest. A tag alone is refused: whoever runs the registry could put anything there.
pub(crate) fn pinned(spec: &LaunchSpec) -> Result<String, String> {
    let image = spec.image.as_deref().ok_or("it runs container images; give one, pinned by digest")?;
    let written = match image.split_once(MARK) {
        None => None,
        Some((_, digest)) => Some(parse(digest).ok_or_else(|| format!("{image} ends in no SHA-256 digest"))?),
    };
    match (written, spec.image_digest) {
        (Some(written), Some(wanted)) if written != wanted => {
            Err(format!("{image} names another digest than the expected sha256:{wanted}"))
        }
        (Some(_), _) => Ok(image.to_owned()),
        (None, Some(wanted)) => Ok(format!("{image}{MARK}{wanted}")),
        (None, None) => Err(format!("{image} is not pinned; add {MARK}DIGEST as the push printed it")),
    }
}

fn parse(hex: &str) -> Option<Digest32> {
    Fixed::from_hex(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::secret::Secret;

    fn pin(image: Option<&str>, digest: Option<u8>) -> Result<String, String> {
        pinned(&LaunchSpec {
            name: "gh-1".into(),
            image: image.map(str::to_owned),
            image_digest: digest.map(|byte| Fixed([byte; 32])),
            launch_secret: Secret::take(&mut [1; 32]),
            gate_key: Fixed([2; 32]),
            linger: std::time::Duration::ZERO,
            env: Default::default(),
            disk_gib: None,
            time_limit: None,
        })
    }

    #[test]
    fn an_image_is_pinned_or_refused() {
        let (a, b) = ("11".repeat(32), "22".repeat(32));
        let full = format!("me/app:1@sha256:{a}");
        assert_eq!(pin(Some("me/app:1"), Some(0x11)).unwrap(), full);
        assert_eq!(pin(Some(&full), None).unwrap(), full);
        assert_eq!(pin(Some(&full), Some(0x11)).unwrap(), full);
        assert!(pin(Some(&full), Some(0x22)).unwrap_err().contains(&b));
        for (image, digest) in [(None, Some(1)), (Some("me/app"), None), (Some("me/app@sha256:12"), Some(1))] {
            assert!(pin(image, digest).is_err(), "{image:?}");
        }
    }
}
