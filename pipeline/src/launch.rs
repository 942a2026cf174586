//! `tidemark run`: the roles of a process, from the configuration to a clean end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use clap::ValueEnum;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::check::{compile_rules, load_catalog, unused_tiers};
use crate::config::{AlertsConfig, Config, Environment, ReceiverConfig};
use crate::error::{Error, Result};
use crate::http::{HttpServer, router};
use crate::ingest;
use crate::notify;
use crate::roles::Context;
use crate::rollup::{self, Event, Rules};
use crate::shutdown::Shutdown;

/// A part of the pipeline that can run in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Raw points to partial states and to cold storage
    Ingest,
    /// Partial states to rollups and alerts
    Rollup,
    /// Alerts to mails and webhooks
    Notify,
}

/// Runs roles until SIGINT or SIGTERM, or until one of them cannot go on.
///
/// # Errors
/// The first error that trying again does not mend.
pub async fn run(config: Config, environment: &Environment, roles: &[Role]) -> Result<()> {
    let catalog = load_catalog(&config.rollup.sql)?;
    for error in &catalog.errors {
        tracing::error!("rollup left out: {error}");
    }
    if catalog.rollups.is_empty() {
        return Err(Error::Refused(format!(
            "there is no rollup to compute in `{}`: write one file per rollup, `tidemark check` says what is wrong",
            config.rollup.sql.display()
        )));
    }
    for problem in unused_tiers(&config, &catalog) {
        tracing::warn!("bucket of a tier left out: {problem}");
    }
    let alerts = match &config.alerts.rules {
        Some(path) => AlertsConfig::load(path, environment)?,
        None => AlertsConfig { rules: Vec::new(), receivers: Vec::new() },
    };
    let (_, problems) = compile_rules(&alerts, &catalog);
    for problem in problems {
        tracing::error!("rule left out: {problem}");
    }
    let receivers = alerts.receivers.clone();
    let catalog = Arc::new(catalog);
    let rules: Rules = {
        let catalog = Arc::clone(&catalog);
        Arc::new(move || compile_rules(&alerts, &catalog).0)
    };
    let context = Context::new(config, catalog, Handle::current());
    tokio::spawn(stop_on_signal(context.shutdown.clone()));
    start(context, roles, rules, receivers, None).await
}

/// Runs roles with everything given; ends when the context's shutdown is triggered.
///
/// # Errors
/// The first error that trying again does not mend; the other roles were ended in order.
pub async fn start(
    context: Context,
    roles: &[Role],
    rules: Rules,
    receivers: Vec<ReceiverConfig>,
    events: Option<broadcast::Sender<Event>>,
) -> Result<()> {
    let server = HttpServer::bind(&context.config.http).await?;
    let routes = router(Arc::clone(&context.metrics), context.readiness.clone(), Router::new());
    // The server answers until the roles have ended, so that their end can be watched.
    let roles_ended = Shutdown::new();
    let serving = {
        let ended = roles_ended.clone();
        tokio::spawn(server.serve(routes, async move { ended.triggered().await }))
    };
    let (report, mut reports) = mpsc::unbounded_channel();
    for role in roles {
        let (context, rules, receivers) = (context.clone(), Arc::clone(&rules), receivers.clone());
        let (report, events, role) = (report.clone(), events.clone(), *role);
        let work = move || {
            let run = AssertUnwindSafe(|| match role {
                Role::Ingest => ingest::run(&context),
                Role::Rollup => rollup::run(&context, &rules, events.as_ref()),
                Role::Notify => notify::run(&context, receivers),
            });
            // What the role shared is given up with it: the process ends, and what it committed is intact.
            let result = catch_unwind(run).unwrap_or(Err(Error::Stopped("a role panicked and")));
            // The receiver outlives all senders.
            let _ = report.send((role, result));
        };
        let name = format!("{role:?}").to_lowercase();
        thread::Builder::new()
            .name(name)
            .spawn(work)
            .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
    }
    drop(report);
    let mut outcome = Ok(());
    while let Some((role, result)) = reports.recv().await {
        if let Err(error) = result {
            tracing::error!(?role, %error, "role cannot go on");
            if outcome.is_ok() {
                outcome = Err(error);
            }
        }
        context.shutdown.trigger();
    }
    roles_ended.trigger();
    // Connections that linger do not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
    outcome
}

/// Triggers the shutdown on SIGINT and SIGTERM.
pub async fn stop_on_signal(shutdown: Shutdown) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be handled, stop with SIGKILL only");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    shutdown.trigger();
}
