//! Rollups to buckets of InfluxDB 2.
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | the options |
//! | `encode.rs` | rows to line protocol, pure |
//! | `delete.rs` | withdrawn rows to delete requests, pure |
//! | `batch.rs` | lines gathered for one request, one a point |
//! | `answer.rs` | what an HTTP answer means, pure |
//! | `client.rs` | single requests |
//! | `setup.rs` | checks server, organisation and bucket before the first write |
//! | `deliver.rs` | one batch until it is durable, whatever the server answers |
//! | `sink.rs` | order, concurrency and backpressure over the batches of one bucket |
//! | `tiers.rs` | a bucket for each tier |
//! | `stats.rs` | counters |

mod answer;
mod batch;
mod client;
mod config;
mod delete;
mod deliver;
pub mod encode;
mod setup;
mod sink;
mod stats;
mod tiers;

pub use config::InfluxConfig;
pub use deliver::{OnPost, OnRejected, Permit, RejectedLine};
pub use sink::InfluxSink;
pub use stats::InfluxStats;
pub use tiers::{Bucket, InfluxTiers};
