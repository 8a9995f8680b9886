//! Events as they fit: what a workload, a driver or a long list of regions says can be longer than any event that an owner
//! takes, and a receipt or a terminal event that is refused for its length is one that never came home.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use super::event::EventBody;
use crate::protocol::encode;
use crate::refusal::clipped;
use crate::traits::{Receipt, WipedRegion};

/// Characters of one text. A character is at most four bytes in JSON: control characters, which take six, are replaced.
const TEXT: usize = 1000;
/// Bytes of a receipt's regions, as encoded.
const REGIONS: usize = EventBody::LIMIT / 2;
/// Bytes of what a receipt does not cover, as encoded.
const NOT_COVERED: usize = EventBody::LIMIT / 4;

/// The same event, with texts clipped and a receipt's surplus lines folded into one that says how many they are. An
/// artifact's name stays as it is: a clipped one would be another artifact's.
pub(super) fn fitted(mut body: EventBody) -> EventBody {
    match &mut body {
        EventBody::Phase { .. } | EventBody::Warm { .. } | EventBody::Progress { .. } | EventBody::Artifact { .. } => {}
        EventBody::Measured { method, .. } => clip(method),
        EventBody::Device { model, driver, uuid } => {
            clip(model);
            driver.iter_mut().chain(uuid).for_each(clip);
        }
        EventBody::Failed { step, message } => {
            clip(step);
            clip(message);
        }
        EventBody::Zeroized { receipt } => fit_receipt(receipt),
        EventBody::End { reason, .. } => reason.iter_mut().for_each(clip),
    }
    body
}

fn clip(text: &mut String) {
    *text = clipped(text, TEXT);
}

fn fit_receipt(receipt: &mut Receipt) {
    clip(&mut receipt.zeroizer);
    for region in &mut receipt.regions {
        clip(&mut region.label);
        clip(&mut region.method);
        clip(&mut region.verification);
    }
    receipt.not_covered.iter_mut().for_each(clip);
    let surplus = receipt.regions.split_off(fits(&receipt.regions, REGIONS));
    receipt.regions.extend(fold(&surplus));
    let surplus = receipt.not_covered.split_off(fits(&receipt.not_covered, NOT_COVERED));
    if !surplus.is_empty() {
        receipt.not_covered.push(format!("{} more lines of this kind, too many to list", surplus.len()));
    }
}

/// How many of these fit into so many bytes.
fn fits<T: serde::Serialize>(lines: &[T], limit: usize) -> usize {
    let mut used = 0_usize;
    let fitting = lines.iter().take_while(|line| {
        used = used.saturating_add(encode(line).len()).saturating_add(1);
        used <= limit
    });
    fitting.count()
}

/// One line for many regions. All of them were wiped and checked, or there would be no receipt.
fn fold(surplus: &[WipedRegion]) -> Option<WipedRegion> {
    let first = surplus.first()?;
    let common = |of: fn(&WipedRegion) -> &str| match surplus.iter().all(|region| of(region) == of(first)) {
        true => of(first).to_owned(),
        false => "differs from region to region".to_owned(),
    };
    Some(WipedRegion {
        label: format!("{} more regions, too many to list", surplus.len()),
        bytes: surplus.iter().fold(0, |sum, region| sum.saturating_add(region.bytes)),
        method: common(|region| &region.method),
        verification: common(|region| &region.verification),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::channel::{Outcome, OwnerChannel, RuntimeChannel};
    use crate::clock::{Now, UnixMillis};
    use crate::fixed::Nonce32;
    use crate::secret::Secret;
    use proptest::prelude::*;
    use std::time::Duration;

    fn home(bodies: Vec<EventBody>) -> Vec<EventBody> {
        let (secret, ids) = (Secret::take(&mut [1; 32]), (Nonce32::from([2; 32]), Nonce32::from([3; 32])));
        let mut runtime = RuntimeChannel::raw(&secret, ids.0, &ids.1);
        let mut owner = OwnerChannel::raw(&secret, ids.0, &ids.1);
        let now = Now { wall: UnixMillis(0), boot: Duration::ZERO };
        let end = EventBody::End { outcome: Outcome::Failed, reason: Some("y\n".repeat(1 << 20)) };
        let bodies = bodies.into_iter().chain([end]);
        let home = bodies.map(|body| owner.accept(&runtime.emit(&body, now).unwrap()).unwrap().1).collect();
        owner.chain().finish().unwrap();
        home
    }

    fn receipt(regions: Vec<WipedRegion>, not_covered: Vec<String>) -> EventBody {
        let zeroizer = "host".repeat(9000);
        let receipt = Receipt {
            zeroizer,
            regions,
            allocator_bytes: None,
            large_blocks: None,
            small_blocks: None,
            unlocked_bytes: 0,
            key_memory: crate::secret::KeyMemory::Locked,
            swapped_bytes: None,
            not_covered,
            millis: 1,
        };
        EventBody::Zeroized { receipt }
    }

    fn text() -> impl Strategy<Value = String> {
        ("\\PC{0,8}|[\u{0}-\u{20}\"\\\\]{0,8}", 1_usize..2000).prop_map(|(text, times)| text.repeat(times))
    }

    #[test]
    fn every_byte_of_a_folded_receipt_is_counted() {
        let region = |n: u64| WipedRegion {
            label: format!("tensor {n}"),
            bytes: n,
            method: "zeros".into(),
            verification: "read back".into(),
        };
        let home = home(vec![receipt((0..20_000).map(region).collect(), vec!["swap".into(); 90_000])]);
        let EventBody::Zeroized { receipt } = &home[0] else { panic!("{home:?}") };
        assert_eq!(receipt.regions.iter().map(|r| r.bytes).sum::<u64>(), (0..20_000_u64).sum::<u64>());
        let last = receipt.regions.last().unwrap();
        assert_eq!(last.label, format!("{} more regions, too many to list", 20_001 - receipt.regions.len()));
        assert_eq!((last.method.as_str(), last.verification.as_str()), ("zeros", "read back"));
        assert!(receipt.not_covered.last().unwrap().ends_with("more lines of this kind, too many to list"));
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let region =
            WipedRegion { label: "key".into(), bytes: 32, method: "zeros".into(), verification: "read".into() };
        let body = EventBody::Failed { step: "train".into(), message: "out of memory; use a smaller batch".into() };
        assert_eq!(fitted(body.clone()), body);
        let mut body = receipt(vec![region; 9], vec!["swap".into()]);
        let EventBody::Zeroized { receipt } = &mut body else { unreachable!() };
        receipt.zeroizer = "host".into();
        assert_eq!(fitted(body.clone()), body);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_receipt_and_the_end_always_get_home(
            texts in proptest::collection::vec(text(), 4),
            lines in proptest::collection::vec((text(), text(), any::<u64>()), 0..6),
            times in 1_usize..800,
        ) {
            let [a, b, c, d] = texts.try_into().unwrap();
            let region = |(label, method, bytes): &(String, String, u64)| WipedRegion {
                label: label.clone(), bytes: *bytes, method: method.clone(), verification: a.clone(),
            };
            let regions: Vec<_> = lines.iter().map(region).collect();
            let times = times.min((1 << 23) / (1 + encode(&regions).len()));
            let regions = std::iter::repeat_n(regions, times).flatten().collect();
            let bodies = vec![
                EventBody::Device { model: a.clone(), driver: Some(b.clone()), uuid: Some(c.clone()) },
                EventBody::Failed { step: d.clone(), message: c },
                receipt(regions, vec![b; 100]),
            ];
            prop_assert_eq!(home(bodies).len(), 4);
        }
    }
}
