//! The process's environment as a value: overrides of the file, and secrets named by it.

use std::collections::BTreeMap;

/// Overrides start with this and name section and key: `TIDEMARK_KAFKA__BROKERS`.
pub(super) const PREFIX: &str = "TIDEMARK_";

/// Environment variables, read once. Tests build their own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    leaves_secrets: bool,
}

/// One override of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) variable: String,
    /// Keys from the top of the file down, in lower case.
    pub(super) path: Vec<String>,
    pub(super) value: String,
}

impl Environment {
    /// The variables of this process whose names and values are Unicode.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables, leaves_secrets: false }
    }

    /// The same for commands that send nothing: secrets in files and variables are not read, so that whoever may not see
    /// them can test a configuration that names them.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.leaves_secrets = true;
        self
    }

    /// What stands in place of every secret that is kept elsewhere, if those are not to be read.
    pub(super) fn placeholder(&self) -> Option<&'static str> {
        // Some secrets are addresses.
        self.leaves_secrets.then_some("https://secret.invalid/")
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Overrides, by name. A `TIDEMARK_` variable without a double underscore (`TIDEMARK_LOG`, `TIDEMARK_CONFIG`)
    /// belongs to the command line and is not an override.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let mut overrides = Vec::new();
        for (variable, value) in &self.variables {
            let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
            let Some((section, key)) = rest.split_once("__") else { continue };
            let mut path = vec![section.to_lowercase()];
            path.extend(key.split("__").map(str::to_lowercase));
            // Names of librdkafka properties have dots, which names of variables cannot have.
            if let [_, map, property] = path.as_mut_slice()
                && map == "properties"
            {
                *property = property.replace('_', ".");
            }
            overrides.push(Override { variable: variable.clone(), path, value: value.clone() });
        }
        overrides
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect(), leaves_secrets: false }
    }
}

// Not derived: variables hold secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables.len()).finish_non_exhaustive()
    }
}
