//! The day that a chat template is told. It is part of the configuration: a clock would make two segments differ.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A day of the Gregorian calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Date {
    /// Days since 1970-01-01.
    pub days: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// 1970-01-01 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

impl Date {
    /// Today.
    pub fn today() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { days: u32::try_from(seconds / 86_400).unwrap_or(u32::MAX) }
    }

    /// Year, month from 1 and day from 1 (Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
    #[allow(clippy::arithmetic_side_effects)] // 2^32 days and a few more stay far inside i64
    pub fn civil(self) -> (i64, u32, u32) {
        let z = i64::from(self.days) + 719_468;
        let era = z / 146_097;
        let day_of_era = z % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
    }

    /// As C's `strftime` at midnight, for the fields that templates use. `None` for a field that is not known.
    pub fn strftime(self, format: &str) -> Option<String> {
        let (year, month, day) = self.civil();
        let index = |at: u32| usize::try_from(at).unwrap_or(0);
        let month_name = MONTHS.get(index(month.saturating_sub(1))).copied().unwrap_or_default();
        let weekday = WEEKDAYS.get(index(self.days % 7)).copied().unwrap_or_default();
        let short = |name: &str| name.chars().take(3).collect::<String>();
        let (mut out, mut letters) = (String::new(), format.chars());
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            // `%-d` is glibc's field without padding.
            let (padded, field) = match letters.next()? {
                '-' => (false, letters.next()?),
                field => (true, field),
            };
            let number = |value: u32| if padded { format!("{value:02}") } else { value.to_string() };
            out.push_str(&match field {
                'Y' => year.to_string(),
                'y' => format!("{:02}", year.rem_euclid(100)),
                'm' => number(month),
                'd' => number(day),
                'e' => format!("{day:2}"),
                'B' => month_name.to_owned(),
                'b' | 'h' => short(month_name),
                'A' => weekday.to_owned(),
                'a' => short(weekday),
                'F' => format!("{year}-{month:02}-{day:02}"),
                'H' | 'M' | 'S' => number(0),
                'I' => number(12),
                'p' => "AM".to_owned(),
                '%' => "%".to_owned(),
                _ => return None,
            });
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_names_that_python_gives_them() {
        let day = |days| Date { days }.strftime("%A %d %B %Y, %a %-d %b %y %F %%");
        assert_eq!(day(0).as_deref(), Some("Thursday 01 January 1970, Thu 1 Jan 70 1970-01-01 %"));
        assert_eq!(day(11_016).as_deref(), Some("Tuesday 29 February 2000, Tue 29 Feb 00 2000-02-29 %"));
        assert_eq!(day(20_780).as_deref(), Some("Monday 23 November 2026, Mon 23 Nov 26 2026-11-23 %"));
        assert_eq!(Date { days: 0 }.strftime("%Q"), None);
        assert_eq!(Date { days: 0 }.strftime("%"), None);
        let _ = Date { days: u32::MAX }.civil();
    }
}
