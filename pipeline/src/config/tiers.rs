//! `[influx.tiers."1h"]`: the bucket of each tier beyond the finest.

use std::collections::BTreeMap;
use std::time::Duration;

use operators::sql::tier_name;
use serde::Deserialize;
use sinks::influx::Bucket;

use super::checked::InfluxConfig;
use super::error::ConfigError;
use super::source::Source;
use super::within::{self, DAY, HOUR};

/// Where InfluxDB keeps the rows of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierConfig {
    /// By default the section's bucket, an underscore and the tier.
    #[serde(default, deserialize_with = "within::text")]
    pub bucket: String,
    /// Retention of the bucket when it is created here; `None` keeps for ever.
    #[serde(default, deserialize_with = "within::some_duration::<HOUR, { 36_500 * DAY }, _>")]
    pub retention: Option<Duration>,
    #[serde(skip, default = "ConfigError::nowhere")]
    place: ConfigError,
}

impl TierConfig {
    /// An error at the section of this tier.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        self.place.clone().problem(problem).remedy(remedy)
    }
}

impl InfluxConfig {
    /// Where the rows of a tier beyond the finest go; those of the finest go to `bucket`.
    pub fn bucket_of(&self, tier: &str) -> Bucket {
        match self.tiers.get(tier) {
            Some(config) => Bucket { name: config.bucket.clone(), retention: config.retention },
            None => Bucket { name: default_bucket(&self.bucket, tier), retention: None },
        }
    }
}

fn default_bucket(bucket: &str, tier: &str) -> String {
    format!("{bucket}_{tier}")
}

/// Rows of two tiers in one bucket would overwrite each other, so no bucket may have two meanings.
pub(super) fn check_tiers(
    source: &Source<'_>,
    bucket: &str,
    written: BTreeMap<String, TierConfig>,
) -> Result<BTreeMap<String, TierConfig>, ConfigError> {
    let configured: Vec<String> = written.keys().cloned().collect();
    let mut tiers: BTreeMap<String, TierConfig> = BTreeMap::new();
    for (name, mut tier) in written {
        let section = source.place(&["influx", "tiers", &name]).unwrap_or(0..0);
        match tier_name(&name) {
            Some(known) if known == name => {}
            Some(known) => {
                let error = source.error(&section, format!("the tier `{name}` is called `{known}`"));
                return Err(error.remedy(format!("write [influx.tiers.\"{known}\"]")));
            }
            None => {
                let error = source.error(&section, format!("`{name}` is not the length of a tier"));
                return Err(error.remedy("write it as in the SQL files, like [influx.tiers.\"1h\"]"));
            }
        }
        let place = source.place(&["influx", "tiers", &name, "bucket"]).unwrap_or(section.clone());
        if tier.bucket.is_empty() {
            tier.bucket = default_bucket(bucket, &name);
        }
        let own = &tier.bucket;
        let other = tiers.iter().find(|(_, tier)| tier.bucket == *own).map(|(other, _)| other.clone());
        let default_of = own.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('_')).and_then(tier_name);
        let default_of = default_of.filter(|other| *other != name && !configured.contains(other));
        let taken = match other.or(default_of) {
            _ if *own == bucket => Some("the finest tier of each rollup".to_owned()),
            Some(other) => Some(format!("the tier `{other}`")),
            None => None,
        };
        if let Some(taken) = taken {
            let error = source.error(&place, format!("bucket `{own}` already takes {taken}"));
            return Err(error.remedy("give each tier its own: their rows would overwrite each other"));
        }
        tier.place = source.error(&section, "");
        tiers.insert(name, tier);
    }
    Ok(tiers)
}
