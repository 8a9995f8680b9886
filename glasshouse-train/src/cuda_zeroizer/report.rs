//! What a second process says of the device that it wiped: one line of JSON on its standard output. To who reads it these
//! are outside bytes, whoever wrote them, and what they claim is believed as far as it is possible.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects))]

use glasshouse_core::traits::{WipedRegion, ZeroizeError};
use serde::{Deserialize, Serialize};

use super::sweep::{MARGIN, NOT_REACHABLE, PAGE_LOCKED, SMALLEST_BLOCK, Swept};
use super::{REGION, not_wiped};

/// What a line is at most.
pub(super) const MOST: usize = 4096;
/// Device memory that may be in use before the second process has a context of its own: a few megabytes of the driver's,
/// where it has any. A context that lives on has hundreds, and each block of a pool at least two.
pub(super) const HELD_AT_MOST: u64 = 8 << 20;
/// A context of its own, with this module's kernels alone: 551,550,976 bytes on an H200.
const OWN_AT_MOST: u64 = 2 << 30;

/// The line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Report {
    /// All that the driver gave was overwritten and read back as zeros.
    Wiped(Wiped),
    /// Or why not.
    Failed(String),
}

/// In bytes, of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wiped {
    /// The UUID of the device that this process had, as its driver says.
    pub(super) device: String,
    /// In use by others, before this process took anything.
    pub(super) held: u64,
    /// The device's.
    pub(super) total: u64,
    /// Blocks taken.
    pub(super) blocks: u64,
    /// Overwritten and read back.
    pub(super) bytes: u64,
    /// Free, and left alone.
    pub(super) left: u64,
}

impl Report {
    pub(super) fn of(device: String, held: u64, swept: &Swept) -> Self {
        let Swept { blocks, bytes, total, left, .. } = *swept;
        Self::Wiped(Wiped { device, held, total, blocks, bytes, left })
    }

    /// The line with its end.
    pub(super) fn to_line(&self) -> Vec<u8> {
        // Numbers and a string always have a JSON form.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads all that a second process wrote.
    ///
    /// # Errors
    /// A sentence, unless it is one line of this kind.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let unreadable = || "a second process was to wipe it, and what it said is no report".to_owned();
        let line = bytes.strip_suffix(b"\n").filter(|line| line.len() < MOST).ok_or_else(unreadable)?;
        match serde_json::from_slice(line).map_err(|_| unreadable())? {
            // It goes into an event: letters of one line, and not too many of them.
            Self::Failed(why) => Ok(Self::Failed(why.chars().filter(|c| !c.is_control()).take(300).collect())),
            wiped => Ok(wiped),
        }
    }
}

impl Wiped {
    /// Itself, if it can be true and is all of this device but what is known.
    ///
    /// # Errors
    /// [`ZeroizeError::StillHeld`] when somebody still held memory: that may be what this process could not let go of;
    /// [`ZeroizeError::NotWiped`] when it was another device or less than a whole one, or numbers do not fit together.
    pub(super) fn believed(self, of: &str) -> Result<Self, ZeroizeError> {
        let Self { ref device, held, total, blocks, bytes, left } = self;
        if device != of {
            // What it says is not repeated: it is not known to be a UUID.
            return Err(not_wiped(format!("a second process was to wipe {of}, and had another device")));
        }
        if held > HELD_AT_MOST {
            let what = "device memory that is in use although this process has let go of the device; another process \
                        there, or what the driver keeps of this one's"
                .to_owned();
            return Err(ZeroizeError::StillHeld { bytes: held, what });
        }
        let refuse = |why: String| Err(not_wiped(format!("a second process was to wipe it, and {why}")));
        let Some(own) = total.checked_sub(bytes).and_then(|rest| rest.checked_sub(left)) else {
            return refuse(format!("says of {total} bytes that it wiped {bytes} and left {left}"));
        };
        if (blocks == 0) != (bytes == 0) || blocks > bytes / SMALLEST_BLOCK {
            return refuse(format!("says that {bytes} bytes are {blocks} blocks"));
        }
        if left > MARGIN.saturating_add(SMALLEST_BLOCK) || own > OWN_AT_MOST || bytes == 0 {
            return refuse(format!("could not take {} of {total} bytes", own.saturating_add(left)));
        }
        Ok(self)
    }

    /// Its line in a receipt; `why` is what happened to this process's own context.
    pub(super) fn region(&self, why: &str) -> WipedRegion {
        let Self { ref device, total, blocks, bytes, .. } = *self;
        WipedRegion {
            label: REGION.to_owned(),
            bytes,
            method: format!(
                "by a second process, of {device}: {bytes} bytes of {total}, all that the driver gave, in {blocks} blocks, \
                 overwritten with zeros, once this process had lost the device ({why}) and let go of it"
            ),
            verification: "every 4-byte word read back by a kernel on the device, in the second process".to_owned(),
        }
    }

    /// What it does not speak for, and why, a sentence each.
    pub(super) fn not_covered(&self) -> Vec<String> {
        let Self { held, total, bytes, left, .. } = *self;
        let own = total.saturating_sub(bytes).saturating_sub(left);
        vec![
            format!("{left} bytes of device memory left free as a margin: the driver allocates while it works"),
            format!(
                "{own} bytes of device memory in use while the second process wiped: the driver, and that process's own \
                 context and kernels; before it had one, {held} were in use"
            ),
            NOT_REACHABLE.to_owned(),
            PAGE_LOCKED.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";
    const TOTAL: u64 = 150_109_880_320;
    const BYTES: u64 = 149_523_791_872;
    const LEFT: u64 = 34_537_472;

    fn h200() -> Wiped {
        Wiped { device: UUID.to_owned(), held: 0, total: TOTAL, blocks: 1, bytes: BYTES, left: LEFT }
    }

    #[test]
    fn what_is_written_is_read_and_believed() {
        let line = Report::Wiped(h200()).to_line();
        assert_eq!(Report::parse(&line).unwrap(), Report::Wiped(h200()));
        let believed = h200().believed(UUID).unwrap();
        let region = believed.region("an illegal access");
        assert_eq!(region.bytes, BYTES);
        for words in ["an illegal access", "second process", UUID, "149523791872 bytes of 150109880320"] {
            assert!(region.method.contains(words), "{}", region.method);
        }
        assert!(believed.not_covered().iter().any(|line| line.starts_with("551550976 bytes")));
    }

    #[test]
    fn memory_that_somebody_still_holds_is_no_receipt() {
        let held = Wiped { held: 8 << 30, bytes: BYTES - (8 << 30), ..h200() };
        let error = held.believed(UUID).unwrap_err();
        assert!(matches!(error, ZeroizeError::StillHeld { bytes: 8_589_934_592, .. }), "{error}");
        assert!(Wiped { held: HELD_AT_MOST, ..h200() }.believed(UUID).is_ok());
        assert!(Wiped { held: HELD_AT_MOST + 1, ..h200() }.believed(UUID).is_err());
        // Not seen as held, and missing all the same.
        let less = Wiped { bytes: BYTES - (8 << 30), ..h200() };
        let error = less.believed(UUID).unwrap_err().to_string();
        assert!(error.contains("could not take 9176023040 of 150109880320"), "{error}");
    }

    #[test]
    fn numbers_that_do_not_fit_together_are_refused() {
        for (lie, says) in [
            (Wiped { bytes: TOTAL + 1, ..h200() }, "says of"),
            (Wiped { left: u64::MAX, ..h200() }, "says of"),
            (Wiped { left: MARGIN + SMALLEST_BLOCK + 1, ..h200() }, "could not take"),
            (Wiped { blocks: 0, ..h200() }, "0 blocks"),
            (Wiped { blocks: u64::MAX, ..h200() }, "blocks"),
            (Wiped { total: 0, blocks: 0, bytes: 0, left: 0, ..h200() }, "could not take 0 of 0"),
        ] {
            let error = lie.clone().believed(UUID).unwrap_err().to_string();
            assert!(error.contains(says), "{lie:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let line = Report::Wiped(h200()).to_line();
        let twice = [line.as_slice(), &line].concat();
        let long = Report::Failed("x".repeat(MOST)).to_line();
        let other = br#"{"wiped":{"device":"","held":0,"total":1,"blocks":1,"bytes":1,"left":0,"more":1}}"#;
        let negative = br#"{"wiped":{"device":"","held":-1,"total":1,"blocks":1,"bytes":1,"left":0}}"#;
        let nameless = br#"{"wiped":{"held":0,"total":1,"blocks":1,"bytes":1,"left":0}}"#;
        for bytes in [b"".as_slice(), b"\n", b"{}\n", &line[..line.len() - 1], &twice, &long] {
            assert!(Report::parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        // One that lacks nothing but its end is read, so that these are refused for what is in them.
        let with_end = |line: &[u8]| Report::parse(&[line, b"\n"].concat());
        assert!(with_end(&line[..line.len() - 1]).is_ok());
        for bytes in [other.as_slice(), negative, nameless] {
            assert!(with_end(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let odd = Report::Failed("a\u{1b}[31m\nb".to_owned() + &"c".repeat(1000)).to_line();
        let Report::Failed(why) = Report::parse(&odd).unwrap() else { panic!("another kind") };
        assert!(why.starts_with("a[31mbc") && why.len() == 300, "{why}");
    }

    #[test]
    fn another_device_s_memory_is_no_receipt() {
        for device in ["GPU-00112233-4455-6677-8899-aabbccddeefe", "", "GPU-00112233-4455-6677-8899-aabbccddeeff "] {
            let error = Wiped { device: device.to_owned(), ..h200() }.believed(UUID).unwrap_err().to_string();
            assert!(error.contains(UUID) && error.contains("another device"), "{error}");
        }
    }

    /// Numbers near those of an H200, on both sides of every limit, and now and then any others.
    fn near() -> impl Strategy<Value = Wiped> {
        let held = prop_oneof![4 => 0..2 * HELD_AT_MOST, 1 => any::<u64>()];
        let own = prop_oneof![4 => 0..2 * OWN_AT_MOST, 1 => any::<u64>()];
        let left = prop_oneof![4 => 0..2 * MARGIN, 1 => any::<u64>()];
        let blocks = prop_oneof![4 => 0..100_000_u64, 1 => any::<u64>()];
        (held, own, left, blocks, any::<bool>()).prop_map(|(held, own, left, blocks, exact)| {
            let bytes = TOTAL.wrapping_sub(own).wrapping_sub(left);
            let bytes = if exact { bytes } else { bytes.wrapping_add(OWN_AT_MOST) };
            Wiped { device: UUID.to_owned(), held, total: TOTAL, blocks, bytes, left }
        })
    }

    #[test]
    fn some_numbers_near_are_believed_and_some_are_not() {
        use proptest::strategy::ValueTree as _;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let believed = (0..1000).filter(|_| near().new_tree(&mut runner).unwrap().current().believed(UUID).is_ok());
        let believed = believed.count();
        assert!((20..980).contains(&believed), "{believed} of 1000");
    }

    proptest! {
        #[test]
        fn what_is_believed_is_nearly_a_whole_device(wiped in near()) {
            if let Ok(Wiped { held, total, blocks, bytes, left, .. }) = wiped.believed(UUID) {
                prop_assert!(held <= HELD_AT_MOST && left <= MARGIN + SMALLEST_BLOCK);
                prop_assert!(u128::from(bytes) + u128::from(left) <= u128::from(total));
                prop_assert!(total - bytes - left <= OWN_AT_MOST);
                prop_assert!(blocks >= 1 && blocks <= bytes / SMALLEST_BLOCK);
            }
        }

        #[test]
        fn no_bytes_and_no_numbers_panic(bytes: Vec<u8>, device: String, numbers: [u64; 5]) {
            let _ = Report::parse(&bytes);
            let [held, total, blocks, bytes, left] = numbers;
            let wiped = Wiped { device: device.chars().take(40).collect(), held, total, blocks, bytes, left };
            prop_assert_eq!(Report::parse(&Report::Wiped(wiped.clone()).to_line()), Ok(Report::Wiped(wiped.clone())));
            let _ = (wiped.region(""), wiped.not_covered(), wiped.clone().believed(&wiped.device));
        }
    }
}
