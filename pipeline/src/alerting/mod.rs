//! The alert configuration of a running process: read at its start, and again whenever its file
//! changes.
//!
//! - `compile`: the rules, against what they watch; `progress`: how far event time has come

mod compile;
pub(crate) mod progress;

pub(crate) use compile::compile_each;
pub use compile::compile_rules;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use operators::sql::Catalog;
use operators::threshold::Threshold;

use crate::config::{AlertsConfig, ConfigError, Environment};
use crate::error::Result;
use crate::shutdown::Shutdown;

/// How often the file is looked at. Its content is compared, so it does not matter how an editor,
/// or a volume of Kubernetes, replaces it.
const LOOK: Duration = Duration::from_secs(2);

/// The longest pause between two attempts to notify a receiver, unless it asks for a longer one.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Rules, routes and receivers as they are now. Clones share them.
#[derive(Debug, Clone)]
pub struct Alerting {
    catalog: Arc<Catalog>,
    current: Arc<RwLock<Arc<AlertsConfig>>>,
    /// Counts the changes.
    generation: Arc<AtomicU64>,
}

impl Alerting {
    /// Alerts that stay as they are.
    pub fn fixed(config: AlertsConfig, catalog: Arc<Catalog>) -> Self {
        Self { catalog, current: Arc::new(RwLock::new(Arc::new(config))), generation: Arc::default() }
    }

    /// Reads the file. Rules with a mistake in their SQL or templates are left out, with an ERROR.
    ///
    /// # Errors
    /// What is wrong with the file itself.
    pub fn load(path: &Path, environment: &Environment, catalog: Arc<Catalog>) -> Result<Self> {
        let alerting = Self::fixed(AlertsConfig::load(path, environment)?, catalog);
        for problem in compile_rules(&alerting.config(), &alerting.catalog).1 {
            tracing::error!("rule left out: {problem}");
        }
        Ok(alerting)
    }

    pub fn config(&self) -> Arc<AlertsConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts changes: a session that works by older rules should start over.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The rules, without states. Those that cannot be used keep the states that they have.
    pub fn threshold(&self) -> Threshold {
        let config = self.config();
        let (rules, _) = compile_rules(&config, &self.catalog);
        let usable: Vec<&str> = rules.iter().map(operators::threshold::Rule::name).collect();
        let names = config.rules.iter().map(|rule| rule.spec.name.clone());
        let unusable: Vec<String> = names.filter(|name| !usable.contains(&name.as_str())).collect();
        Threshold::new(rules).set_aside(unusable)
    }

    /// Follows the file until shutdown. A change with a mistake in it is refused whole, and what is
    /// in use stays.
    pub async fn follow(self, path: PathBuf, environment: Environment, shutdown: Shutdown) {
        let mut seen = tokio::fs::read(&path).await.ok();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.triggered() => return,
            }
            let now = tokio::fs::read(&path).await.ok();
            if now == seen || now.is_none() {
                continue;
            }
            seen = now;
            match self.reload(&path, &environment) {
                Ok(config) => {
                    let (rules, receivers) = (config.rules.len(), config.receivers.len());
                    tracing::info!(file = %path.display(), rules, receivers, "alerts changed");
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                Err(problems) => {
                    for problem in problems {
                        tracing::error!("alerts not changed, those before stay in use: {problem}");
                    }
                }
            }
        }
    }

    fn reload(&self, path: &Path, environment: &Environment) -> Result<AlertsConfig, Vec<ConfigError>> {
        let (config, mut problems) = AlertsConfig::load_all(path, environment);
        problems.extend(compile_rules(&config, &self.catalog).1);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}
