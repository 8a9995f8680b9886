use std::time::UNIX_EPOCH;

use glasshouse_core::clock::UnixMillis;
use serde_json::Value;

/// A case's clock: RFC 3339 with `Z` or an offset (`+01:00`), or seconds since 1970 as a number.
///
/// # Errors
/// What it is instead.
pub(super) fn time(at: &Value) -> Result<UnixMillis, String> {
    let read = match at {
        Value::Number(seconds) => seconds.as_u64().and_then(|seconds| seconds.checked_mul(1000)),
        Value::String(text) => rfc3339(text.trim()),
        _ => None,
    };
    let error = || format!("its at {at} is no time as 2026-01-01T00:00:00Z, and no number of seconds");
    read.map(UnixMillis).ok_or_else(error)
}

fn rfc3339(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    // RFC 3339 section 5.6: an offset is a sign, two digits, a colon and two digits; dates have no colon.
    let offset = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at));
    let offset = offset.and_then(|(local, offset)| Some((local, minutes(offset)?)));
    let (local, minutes) = offset.unwrap_or((text.trim_end_matches('Z'), 0));
    let since = humantime::parse_rfc3339_weak(local).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let millis = i64::try_from(since.as_millis()).ok()?;
    u64::try_from(millis.checked_sub(minutes.checked_mul(60_000)?)?).ok()
}

/// `+01:00` as minutes east.
fn minutes(offset: &str) -> Option<i64> {
    let (sign, rest) = match offset.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let digits = |text: &str, most: i64| {
        let plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|value| plain && *value <= most)
    };
    let east = digits(hours, 23)?.checked_mul(60)?.checked_add(digits(minutes, 59)?)?;
    east.checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn one_instant_in_every_form() {
        for at in [
            json!("2026-06-01T00:00:00Z"),
            json!("2026-06-01t00:00:00z"),
            json!("2026-06-01T00:00:00+00:00"),
            json!("2026-06-01T02:30:00+02:30"),
            json!("2026-05-31T16:00:00.000-08:00"),
            json!(" 2026-06-01 00:00:00 "),
            json!(1_780_272_000),
        ] {
            assert_eq!(time(&at), Ok(UnixMillis(1_780_272_000_000)), "{at}");
        }
        for no_time in [
            json!("yesterday"),
            json!(""),
            json!("2026-06-01"),
            json!("2026-06-01T00:00:00+1:00"),
            json!("2026-13-01T00:00:00Z"),
            json!("1960-01-01T00:00:00Z"),
            json!(-1),
            json!(u64::MAX),
            json!(null),
            json!([]),
        ] {
            assert!(time(&no_time).is_err(), "{no_time}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String, near in "[0-9TZtz:+. é-]{15,32}", number: f64) {
            let _ = (time(&json!(text)), time(&json!(near)), time(&json!(number)));
        }
    }
}
