//! The process's environment as a value: overrides of the file, and secrets named by it.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Overrides start with this and name section and key: `TIDEMARK_KAFKA__BROKERS`.
pub(super) const PREFIX: &str = "TIDEMARK_";

/// Variables of the command line, and of trials where the build has them: these are read without a
/// section.
const COMMAND_LINE: &[&str] = if cfg!(any(debug_assertions, feature = "set-clock")) {
    &["TIDEMARK_CONFIG", "TIDEMARK_LOG", crate::clock::TEST_CLOCK]
} else {
    &["TIDEMARK_CONFIG", "TIDEMARK_LOG"]
};

/// Environment variables, read once. Tests build their own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of overrides whose values are not Unicode.
    unreadable: Vec<String>,
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
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self::of(std::env::vars_os())
    }

    fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => {
                    environment.variables.insert(name, value);
                }
                (Ok(name), Err(_)) if belongs_here(&name) => environment.unreadable.push(name),
                _ => {}
            }
        }
        environment
    }

    /// The same for commands that send nothing: secrets in files and variables are not read, so
    /// that a person who may not see them can test a configuration that names them.
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

    /// Variables that look meant for this program and that nothing reads, by name.
    pub(super) fn unread(&self) -> Vec<&str> {
        let names = self.variables.keys().filter(|name| belongs_here(name));
        let unread = names.filter(|name| {
            let is_override = name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains("__"));
            !is_override && !COMMAND_LINE.contains(&name.as_str())
        });
        unread.map(String::as_str).collect()
    }

    /// Warnings of variables that look meant for this program, that nothing reads, and that are no
    /// slips for an option.
    pub fn warnings(&self) -> Vec<String> {
        super::unread::strangers(self)
    }

    /// Variables whose values cannot be read.
    pub(super) fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Overrides, by name. A `TIDEMARK_` variable without a double underscore (`TIDEMARK_LOG`,
    /// `TIDEMARK_CONFIG`) belongs to the command line and is not an override.
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
        Self { variables: variables.into_iter().collect(), ..Self::default() }
    }
}

/// Whether a variable looks meant for this program, in capitals or not. What Kubernetes sets for
/// every service of a namespace, one called `tidemark` among them, does not.
fn belongs_here(variable: &str) -> bool {
    let Some(rest) = variable.to_uppercase().strip_prefix(PREFIX).map(str::to_owned) else { return false };
    let of_service = rest == "PORT"
        || rest.starts_with("PORT_")
        || ["SERVICE_HOST", "SERVICE_PORT"].iter().any(|end| rest.contains(end));
    rest.contains("__") || !of_service
}

// Not derived: variables hold secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables.len()).finish_non_exhaustive()
    }
}
