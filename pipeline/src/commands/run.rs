//! `tidemark run`: the roles of a process, from the configuration to a clean end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::alerting::Alerting;
use crate::catalog::{load_catalog, unused_tiers};
use crate::commands::repair::compact_periodically;
use crate::config::{AlertsConfig, Config, Environment};
use crate::error::{Error, Result};
use crate::http::{HttpServer, router};
use crate::memory;
use crate::role::Role;
use crate::roles::brokers;
use crate::roles::context::{Context, HANDOVER};
use crate::roles::ingest;
use crate::roles::notify;
use crate::roles::rollup::{self, Event};
use crate::shutdown::Shutdown;

/// How long roles have to end: to hand over what they hold, and to leave their groups.
const END: Duration = HANDOVER.saturating_mul(2);

type Reports = mpsc::UnboundedReceiver<(Role, Result<()>)>;

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
            "there is no rollup to compute in `{}`: write one file per rollup, `tidemark check` lists the mistakes",
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
    let server = HttpServer::bind(&context.config.http).await?;
    start(context, server, roles, alerting, None).await
}

/// Runs roles with everything given, while `server` answers; ends when the context's shutdown is
/// triggered.
///
/// # Errors
/// The first error that trying again does not mend; the other roles were ended in order.
pub async fn start(
    mut context: Context,
    server: HttpServer,
    roles: &[Role],
    alerting: Alerting,
    events: Option<broadcast::Sender<Event>>,
) -> Result<()> {
    context.divide_memory(roles);
    for warning in memory::warnings(&context.config) {
        tracing::warn!("{warning}");
    }
    context.address.get_or_init(|| server.address());
    let answers =
        crate::commands::why::routes(&context).merge(crate::commands::alerts::routes(&context, &alerting));
    let routes = router(Arc::clone(&context.metrics), context.readiness.clone(), answers);
    // Each says what it waits for once it runs: until then it is not ready either.
    for role in roles {
        context.readiness.waiting(role.name(), "it starts");
    }
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
            // What the role shared is given up with it: the process ends, and what it committed is
            // intact.
            let result = catch_unwind(run).unwrap_or(Err(Error::Interrupted("a role panicked")));
            // The receiver outlives all senders.
            let _ = report.send((role, result));
        };
        thread::Builder::new()
            .name(role.name().into())
            .spawn(work)
            .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
    }
    drop(report);
    let watching = context.clone();
    // Ends with the process: nothing depends on it.
    let watch = thread::Builder::new().name("kafka-watch".into()).spawn(move || brokers::watch(&watching));
    watch.map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
    let outcome = supervise(&context.shutdown, roles, &mut reports).await;
    roles_ended.trigger();
    // Connections that linger do not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
    outcome
}

/// Waits until all roles have ended, with the first error. One that ends lets the others end.
///
/// A role that is caught in a request to a server that is away cannot be called back. It is
/// abandoned: as after a crash, the next owner goes on from what is committed.
async fn supervise(shutdown: &Shutdown, roles: &[Role], reports: &mut Reports) -> Result<()> {
    let mut running = roles.to_vec();
    let mut outcome = Ok(());
    let mut overdue = pin!(async {
        shutdown.triggered().await;
        tokio::time::sleep(END).await;
    });
    while !running.is_empty() {
        let (role, result) = tokio::select! {
            report = reports.recv() => match report {
                Some(report) => report,
                None => break,
            },
            () = overdue.as_mut() => {
                tracing::warn!(roles = ?running, "the process ends without roles that wait for a server: they go on from their committed offsets");
                break;
            }
        };
        running.retain(|other| *other != role);
        shutdown.trigger();
        match result {
            Ok(()) => {}
            // The first error is the last word of the program.
            Err(error) if outcome.is_ok() => outcome = Err(error),
            Err(error) => tracing::error!(?role, %error, "role cannot go on"),
        }
    }
    outcome
}

/// Triggers the shutdown on SIGINT, SIGTERM and SIGHUP; a second signal ends the process at once.
/// There is nothing to read again on SIGHUP: rules are followed, and other changes need a restart.
pub async fn stop_on_signal(shutdown: Shutdown) {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        tracing::error!("signals cannot be handled, stop with SIGKILL only");
        return;
    };
    loop {
        let number = tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
            _ = hangup.recv() => 1,
        };
        if shutdown.is_triggered() {
            tracing::warn!("a second signal: the process ends at once");
            // The status that a shell gives for a program ended by a signal.
            std::process::exit(128 + number);
        }
        tracing::info!("a signal: the process ends in order");
        shutdown.trigger();
    }
}
