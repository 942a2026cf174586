//! `tidemark run`: the roles of a process, from the configuration to a clean end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::alerting::Alerting;
use crate::check::{load_catalog, unused_tiers};
use crate::config::{AlertsConfig, Config, Environment};
use crate::error::{Error, Result};
use crate::http::{HttpServer, router};
use crate::ingest;
use crate::memory;
use crate::notify;
use crate::repair::compact_periodically;
use crate::roles::Context;
use crate::rollup::{self, Event};
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
    let catalog = Arc::new(catalog);
    let file = config.alerts.rules.clone();
    let alerting = match &file {
        Some(path) => Alerting::load(path, environment, Arc::clone(&catalog))?,
        None => Alerting::fixed(AlertsConfig::default(), Arc::clone(&catalog)),
    };
    let context = Context::new(config, catalog, Handle::current());
    tokio::spawn(stop_on_signal(context.shutdown.clone()));
    if let Some(file) = file {
        let (alerting, environment) = (alerting.clone(), environment.clone());
        tokio::spawn(alerting.follow(file, environment, context.shutdown.clone()));
    }
    start(context, roles, alerting, None).await
}

/// Runs roles with everything given; ends when the context's shutdown is triggered.
///
/// # Errors
/// The first error that trying again does not mend; the other roles were ended in order.
pub async fn start(
    mut context: Context,
    roles: &[Role],
    alerting: Alerting,
    events: Option<broadcast::Sender<Event>>,
) -> Result<()> {
    context.divide_memory(roles);
    for warning in memory::warnings(&context.config) {
        tracing::warn!("{warning}");
    }
    let server = HttpServer::bind(&context.config.http).await?;
    let answers = crate::why::routes(&context).merge(crate::alerting::routes(&context, &alerting));
    let routes = router(Arc::clone(&context.metrics), context.readiness.clone(), answers);
    // The server answers until the roles have ended, so that their end can be watched.
    let roles_ended = Shutdown::new();
    let serving = {
        let ended = roles_ended.clone();
        tokio::spawn(server.serve(routes, async move { ended.triggered().await }))
    };
    if roles.contains(&Role::Ingest) {
        tokio::spawn(compact_periodically(context.clone()));
    }
    let (report, mut reports) = mpsc::unbounded_channel();
    for role in roles {
        let (context, alerting) = (context.clone(), alerting.clone());
        let (report, events, role) = (report.clone(), events.clone(), *role);
        let work = move || {
            let run = AssertUnwindSafe(|| match role {
                Role::Ingest => ingest::run(&context),
                Role::Rollup => rollup::run(&context, &alerting, events.as_ref()),
                Role::Notify => notify::run(&context, &alerting),
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
