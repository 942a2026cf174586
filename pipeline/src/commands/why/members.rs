//! The partitions of a group's members, from the bytes that the group's coordinator keeps for each.

/// Reads an assignment of the consumer protocol: version, topics with their partitions, user data.
/// None when the bytes are something else. <https://kafka.apache.org/protocol.html>,
/// `ConsumerProtocolAssignment`
pub(super) fn assignment(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut reader = Reader { rest: bytes };
    let _version = reader.take(2)?;
    let mut partitions = Vec::new();
    for _ in 0..reader.count()? {
        let length = reader.take(2)?;
        let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
        let topic = String::from_utf8(reader.take(length)?.to_vec()).ok()?;
        for _ in 0..reader.count()? {
            let partition = reader.take(4)?;
            partitions.push((topic.clone(), i32::from_be_bytes(partition.try_into().ok()?)));
        }
    }
    Some(partitions)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn count(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_topics() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x07\x00\x02bc\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff";
        let expected =
            [("a", 0), ("a", 7), ("bc", 1)].map(|(topic, partition)| (topic.to_owned(), partition));
        assert_eq!(assignment(bytes), Some(expected.to_vec()));
        assert_eq!(assignment(b""), Some(vec![]), "a member that has none yet");
    }

    #[test]
    fn of_anything_else() {
        let bytes = b"\x00\x01\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x01\x00\x00\x00\x09";
        for end in 1..bytes.len() {
            assert_eq!(assignment(&bytes[..end]), None, "cut after {end} bytes");
        }
        assert_eq!(assignment(b"\x00\x01\xff\xff\xff\xff\xff\xff"), None);
    }
}
