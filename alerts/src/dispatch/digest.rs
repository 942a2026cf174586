//! Names by content: of alerts, groups and dispatches.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The namespace of the ids of dispatches. It must never change, nor what is hashed under it:
/// receivers tell repeated deliveries by these ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x2b6e_91d4_0c7f_4e38_a5d1_3f84_96c2_7ab5);

/// The hash that an alert or a group is known by. Its text is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Digest(u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("a digest is 32 hexadecimal digits"))
    }
}

/// What is hashed: parts, each with its length before it.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<u8>);

impl Parts {
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.push(part);
        }
        all
    }

    pub(super) fn push(&mut self, part: &str) {
        self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.0.extend_from_slice(part.as_bytes());
    }

    pub(super) fn uuid(&self) -> Uuid {
        Uuid::new_v5(&NAMESPACE, &self.0)
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(self.uuid().as_u128())
    }
}
