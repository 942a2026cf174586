//! Values of options with their bounds, for `#[serde(deserialize_with = "…")]`: what is out of
//! bounds is refused where it stands, with what to write instead.

use std::fmt::Display;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use super::values::{ByteSize, HumanDuration, TextList};

/// Milliseconds, for bounds of durations.
pub(super) const SECOND: u64 = 1_000;
pub(super) const HOUR: u64 = 3_600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;

/// Bytes, for bounds of sizes.
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Stands between a problem and its remedy in the messages of serde's errors.
pub(super) const REMEDY: char = '\u{1f}';

/// An error of a value. A problem that begins with "is" gets the key before it.
pub(super) fn refused<E: Error>(problem: impl Display, remedy: impl Display) -> E {
    E::custom(format_args!("{problem}{REMEDY}{remedy}"))
}

pub(super) const OUT_OF_BOUNDS: &str = "is out of bounds";

/// What to write in place of a duration that is out of bounds.
pub(super) fn durations(least: Duration, most: Duration) -> String {
    format!("write {} to {}", humantime::format_duration(least), humantime::format_duration(most))
}

/// A duration within bounds, both included, in milliseconds.
pub(super) fn duration<'de, const LEAST: u64, const MOST: u64, D>(
    deserializer: D,
) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    let HumanDuration(duration) = HumanDuration::deserialize(deserializer)?;
    let (least, most) = (Duration::from_millis(LEAST), Duration::from_millis(MOST));
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    Err(refused(OUT_OF_BOUNDS, durations(least, most)))
}

/// As [`duration`], of an option that may be left out.
pub(super) fn some_duration<'de, const LEAST: u64, const MOST: u64, D>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    duration::<LEAST, MOST, D>(deserializer).map(Some)
}

/// A whole number within bounds, both included, which fit the type.
pub(super) fn count<'de, const LEAST: u64, const MOST: u64, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<u64>,
    D: Deserializer<'de>,
{
    let number = u64::deserialize(deserializer)?;
    let fits = (LEAST..=MOST).contains(&number).then_some(number);
    fits.and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| refused(OUT_OF_BOUNDS, format_args!("write {LEAST} to {MOST}")))
}

/// A number of bytes within bounds, both included.
pub(super) fn size<'de, const LEAST: u64, const MOST: u64, D>(deserializer: D) -> Result<usize, D::Error>
where
    D: Deserializer<'de>,
{
    let ByteSize(bytes) = ByteSize::deserialize(deserializer)?;
    let fits = (LEAST..=MOST).contains(&bytes).then_some(bytes);
    let fits = fits.and_then(|bytes| usize::try_from(bytes).ok());
    let remedy = || format!("write {} to {}", size_text(LEAST), size_text(MOST));
    fits.ok_or_else(|| refused(OUT_OF_BOUNDS, remedy()))
}

/// A text that is not empty.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Err(refused("is empty", "give it a value or remove it"));
    }
    Ok(text)
}

/// A list of texts, or one text with commas.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    TextList::deserialize(deserializer).map(|list| list.0)
}

fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}
