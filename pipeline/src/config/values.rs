//! Values as they are written in the files: durations, sizes, lists, directories.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use url::Url;

/// A duration as people write it: `"500ms"`, `"1m 30s"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HumanDuration(pub(super) Duration);

/// A number of bytes: `"64MiB"`, `"1MB"`, or an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

/// A list of texts, or one text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextList(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DurationVisitor;
        impl Visitor<'_> for DurationVisitor {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration in quotes with its unit, like \"500ms\", \"5s\", \"1m 30s\" or \"7d\"",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<HumanDuration, E> {
                match humantime::parse_duration(text) {
                    Ok(duration) => Ok(HumanDuration(duration)),
                    Err(_) => Err(E::custom(format!(
                        "`{text}` is not a duration: write a number with its unit, like \"500ms\", \"5s\", \"1m 30s\" or \"7d\""
                    ))),
                }
            }
        }
        deserializer.deserialize_any(DurationVisitor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"512KiB\", \"64MiB\", or a number of bytes")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                parse_size(text).map(ByteSize).ok_or_else(|| {
                    E::custom(format!(
                        "`{text}` is not a size: write a number with B, KiB, MiB, GiB (or kB, MB, GB), like \"64MiB\""
                    ))
                })
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for TextList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = TextList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts, like [\"a\", \"b\"]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextList, E> {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(TextList(items.map(str::to_owned).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TextList, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element::<String>()? {
                    list.push(item);
                }
                Ok(TextList(list))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

/// Bytes of a text like `64MiB` (binary) or `64MB` (decimal).
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The absolute `file:` URL of a directory, with the slash at its end that joining needs. Touches
/// no disk.
pub(super) fn directory_url(path: &Path) -> Url {
    // Absolute paths fail only when they are empty or the working directory is gone; the root is
    // then as good as any other place that cannot be written.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| Path::new("/").to_owned());
    Url::from_directory_path(absolute).expect("std::path::absolute returns an absolute path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("64MiB", Some(64 << 20)),
            ("64 mib", Some(64 << 20)),
            ("1_000", Some(1_000)),
            ("3kB", Some(3_000)),
            ("2GiB", Some(2 << 30)),
            ("0", Some(0)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1TiBs", None),
            ("99999999999999999GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn directories_end_in_a_slash() {
        assert_eq!(directory_url(Path::new("/var/lib/tidemark")).as_str(), "file:///var/lib/tidemark/");
        assert_eq!(directory_url(Path::new("/a b/")).as_str(), "file:///a%20b/");
        assert!(directory_url(Path::new("data")).path().ends_with("/data/"));
    }
}
