//! `tidemark demo`: the whole pipeline at work on this machine's own metrics, with nothing
//! installed.
//!
//! The roles are the real ones. Kafka is librdkafka's mock cluster inside this process: it speaks
//! the protocol, but keeps everything in memory and forgets it at the end, so it shows how things
//! work and not how they survive. Rollups go to Parquet in a temporary folder, alerts to a web
//! server of the demo's own.

mod burn;
mod late;
mod receiver;
mod screen;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use operators::sql::compile;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::FutureRecord;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};

use crate::alerting::Alerting;
use crate::commands::run;
use crate::commands::sample::{SamplePoint, Sampler};
use crate::config::{Config, Environment, HttpConfig};
use crate::http::HttpServer;
use crate::kafka::{self, topics};
use crate::role::Role;
use crate::roles::context::Context;

const SQL: [(&str, &str); 3] = [
    ("demo_cpu.sql", include_str!("demo_cpu.sql")),
    ("demo_memory.sql", include_str!("demo_memory.sql")),
    ("demo_network.sql", include_str!("demo_network.sql")),
];
const ALERTS: &str = include_str!("demo_alerts.toml");
const PARTITIONS: i32 = 2;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Stop by itself after this long [default: at Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Do not keep the CPU busy for a while to trip the alert; trip it yourself
    #[arg(long)]
    no_burn: bool,
    /// Address of /api, /metrics, /healthz and /readyz [default: 127.0.0.1:7878, or another port
    /// where that one is in use]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

/// Runs the demo until Ctrl-C or the given duration.
///
/// # Errors
/// When a part of the pipeline cannot start or go on.
pub async fn run(args: DemoArgs) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let cluster = MockCluster::new(1).context("cannot start the in-process stand-in for Kafka")?;
    let receiver = receiver::Receiver::start().await?;
    let mut config = Config::local(&cluster.bootstrap_servers(), folder.path());
    config.topics.partials_partitions = PARTITIONS;
    config.ingest.max_out_of_orderness = Duration::from_secs(1);
    config.ingest.idle_timeout = Duration::from_secs(3);
    config.archive.roll_age = Duration::from_secs(20);
    let server = bind(&config.http, args.listen).await?;
    for plan in topics::plan(&config.topics, PARTITIONS) {
        cluster.create_topic(&plan.name, plan.partitions, 1).context("cannot create a topic")?;
    }

    let catalog = Arc::new(compile(&SQL.map(|(name, text)| (name.to_owned(), text.to_owned()))));
    if let Some(error) = catalog.errors.first() {
        anyhow::bail!("{error}");
    }
    let file = folder.path().join("alerts.toml");
    std::fs::write(&file, ALERTS.replace("URL", receiver.url.as_str())).context("cannot write the alerts")?;
    let alerting = Alerting::load(&file, &Environment::default(), Arc::clone(&catalog))?;
    let (events, watching) = broadcast::channel(1_024);
    let context = Context::new(config, catalog, Handle::current());
    tokio::spawn(run::stop_on_signal(context.shutdown.clone()));
    if let Some(duration) = args.duration {
        let shutdown = context.shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            shutdown.trigger();
        });
    }
    let screen = screen::Screen::new(server.address(), folder.path());
    let (late, sent_late) = mpsc::channel(1);
    let showing = tokio::spawn(screen.show(watching, receiver.deliveries, sent_late, context.clone()));
    let sampling = tokio::spawn(send_samples(context.clone(), late));
    if !args.no_burn {
        burn::start(context.clone());
    }
    let roles = [Role::Ingest, Role::Rollup, Role::Notify];
    let outcome = run::start(context.clone(), server, &roles, alerting, Some(events)).await;
    context.shutdown.trigger();
    sampling.await??;
    showing.await?;
    Ok(outcome?)
}

/// Takes the port before the roles start, so that its address can be shown first: the usual one, or
/// any other where that is in use.
async fn bind(config: &HttpConfig, wanted: Option<SocketAddr>) -> Result<HttpServer> {
    if let Some(listen) = wanted {
        let config = HttpConfig { listen, ..config.clone() };
        let server = HttpServer::bind(&config).await;
        return server.with_context(|| format!("cannot listen on {listen}: choose another with --listen"));
    }
    if let Ok(server) = HttpServer::bind(config).await {
        return Ok(server);
    }
    let any = HttpConfig { listen: SocketAddr::new(config.listen.ip(), 0), ..config.clone() };
    Ok(HttpServer::bind(&any).await?)
}

/// This machine's metrics, each second, one point a message, and one point too late.
async fn send_samples(context: Context, late: mpsc::Sender<SamplePoint>) -> Result<()> {
    let producer = kafka::future_producer(&context.config.kafka)?;
    let topic = context.config.topics.points[0].clone();
    let mut sampler = Sampler::new();
    sampler.sample(context.clock.now_ns());
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for number in 0_usize.. {
        tokio::select! {
            () = context.shutdown.triggered() => return Ok(()),
            _ = seconds.tick() => {}
        }
        let mut sample = sampler.sample(context.clock.now_ns());
        if let Some(point) = late::point(number, &sample) {
            // The screen may have ended.
            let _ = late.try_send(point.clone());
            sample.push(point);
        }
        for point in sample {
            let (key, payload) = (point.series(), point.to_json());
            let record = FutureRecord::to(&topic).key(&key).payload(&payload);
            // A full queue drops a sample, which the demo can bear.
            if producer.send_result(record).is_err() {
                tracing::warn!("a sample was dropped");
            }
        }
    }
    Ok(())
}
