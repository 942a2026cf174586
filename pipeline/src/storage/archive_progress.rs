//! The text that is committed with a source offset: how far the archive is, and which files it is
//! about to write.
//!
//! `archive=100` means that everything before offset 100 is durable. `archive=100,150,180` also
//! means that the chunks [100, 150) and [150, 180) may be on their way to storage: the next owner
//! of the partition cuts its own chunks at the same places, and so writes the same files again.
//! That makes it harmless when a file of the former owner, even of one that was frozen for an hour,
//! reaches storage at any later time.

use crate::error::{Error, Result};

const KEY: &str = "archive=";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ArchiveProgress {
    /// Everything before this offset is durable.
    pub(crate) safe: i64,
    /// Ends of the chunks that follow, in order; each starts where the one before ends.
    pub(crate) ends: Vec<i64>,
}

impl ArchiveProgress {
    /// None when the text was not written by an archive: it was off, or someone set the offset by
    /// hand.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let Some(numbers) = text.strip_prefix(KEY) else { return Ok(None) };
        // The name of the storage follows, see [`super`].
        let numbers = numbers.split(';').next().unwrap_or_default();
        let offsets: Option<Vec<i64>> = numbers.split(',').map(|number| number.parse().ok()).collect();
        let rising = offsets.filter(|offsets| offsets.is_sorted_by(|a, b| a < b));
        match rising.as_deref() {
            Some([safe, ends @ ..]) => Ok(Some(Self { safe: *safe, ends: ends.to_vec() })),
            _ => Err(Error::Refused(format!(
                "the archive's offsets in the group's commit are unreadable: was it written by another version? \
                 metadata=`{text}`"
            ))),
        }
    }

    pub(crate) fn encode(&self) -> String {
        let mut text = format!("{KEY}{}", self.safe);
        for end in &self.ends {
            text.push_str(&format!(",{end}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_read_back() {
        for (text, safe, ends) in [("archive=0", 0, vec![]), ("archive=100,150,180", 100, vec![150, 180])] {
            let progress = ArchiveProgress { safe, ends };
            assert_eq!(ArchiveProgress::parse(text).unwrap(), Some(progress.clone()));
            assert_eq!(progress.encode(), text);
        }
        let with_storage = ArchiveProgress::parse("archive=1,2;storage=x").unwrap();
        assert_eq!(with_storage, Some(ArchiveProgress { safe: 1, ends: vec![2] }));
        assert_eq!(ArchiveProgress::parse("").unwrap(), None);
        for broken in ["archive=", "archive=1,", "archive=2,1", "archive=1,1", "archive=x"] {
            assert!(ArchiveProgress::parse(broken).is_err(), "{broken}");
        }
    }
}
