//! `tidemark why <rollup>` and `/api/why/<rollup>`: why has a window not closed, or why is it not
//! what it was?
//!
//! Each process serves what it knows of its own partitions as JSON. The command puts together what
//! the processes, Kafka and the snapshots have, and names the first thing that holds up all after
//! it.
//!
//! - `routes`: the HTTP side; what a process knows is on its [board](crate::board)
//! - `gather`: asks processes, Kafka (`brokers`, `members`) and snapshots
//! - `picture`: their answers, put together; `answer`: the decision, `open` and `closed` its two
//!   halves
//! - `text`: the answer for people

mod answer;
mod brokers;
mod closed;
mod gather;
mod members;
mod open;
mod picture;
mod routes;
mod text;

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use operators::sql::Catalog;
use url::Url;

pub use answer::{Answer, Cause, Window};
pub(crate) use routes::routes;

use crate::catalog::{load_catalog, suggest_rollup};
use crate::clock::Clock;
use crate::config::Config;
use crate::time::{Time, parse_rfc3339};
use answer::{Question, answer};
use picture::Picture;

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The rollup's name, or `<rollup>_<tier>` for a coarser tier of it
    pub rollup: String,
    /// A time in the window in question, such as 2026-01-01T12:00:00Z; of windows that overlap, the
    /// one that starts last. Without it, the oldest window that is open
    #[arg(long, value_name = "TIME", value_parser = time_argument)]
    pub window: Option<Time>,
    /// Where processes of the pipeline listen; once for each process [default: `listen` of [http]]
    #[arg(long = "url", value_name = "URL", value_delimiter = ',')]
    pub urls: Vec<Url>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

fn time_argument(text: &str) -> Result<Time, String> {
    parse_rfc3339(text).ok_or_else(|| "not a time such as 2026-01-01T12:00:00Z".to_owned())
}

/// Finds out, and returns the answer as text or JSON. Processes and brokers that do not answer are
/// part of it.
///
/// # Errors
/// When there is no such rollup, or the SQL files cannot be read.
pub async fn run(config: Config, args: &WhyArgs) -> Result<String> {
    let catalog = load_catalog(&config.rollup.sql)?;
    let question = match question(&catalog, &args.rollup, args.window) {
        Ok(question) => question,
        Err(problem) => bail!("{problem}"),
    };
    let mut urls = args.urls.clone();
    if urls.is_empty() {
        urls.push(
            Url::parse(&format!("http://{}", config.http.listen))
                .context("`listen` of [http] is no address")?,
        );
    }
    let config = Arc::new(config);
    let asked = gather::processes(&urls, &question).await;
    let mut evidence = gather::evidence(&config, Clock::system().now_ns(), asked).await;
    gather::add_snapshots(&mut evidence, &config, &catalog, &question.table).await;
    let answer = answer(&question, Picture::new(evidence));
    if args.json {
        Ok(sinks::plain_json(&serde_json::to_string_pretty(&answer)?).into_owned())
    } else {
        Ok(text::text(&answer))
    }
}

/// The question about a tier of a rollup, by the name of its table, and the window that holds
/// `time`.
fn question(catalog: &Catalog, table: &str, time: Option<Time>) -> Result<Question, String> {
    let tiers =
        || catalog.rollups.iter().flat_map(|rollup| rollup.tiers().iter().map(move |tier| (rollup, tier)));
    let Some((rollup, tier)) = tiers().find(|(_, tier)| tier.table == table) else {
        let known: Vec<&str> = tiers().map(|(_, tier)| tier.table.as_str()).collect();
        return Err(format!("unknown rollup `{table}`: {}", suggest_rollup(table, &known)));
    };
    let window = time.map(|time| {
        let start = tier.windows.start(time.0);
        (start, tier.windows.end(start))
    });
    Ok(Question {
        rollup: rollup.name.clone(),
        tier: tier.name.clone(),
        table: tier.table.clone(),
        allowed_lateness: rollup.allowed_lateness,
        window,
    })
}
