//! Measurements that fail cost themselves alone: what was measured before and after is printed.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemark_tests::Unavailable;

/// What could not be measured, and why.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// A server or program is not on this machine.
    pub(crate) missing: Vec<String>,
    /// The program under test did not do what it should.
    pub(crate) failed: Vec<String>,
}

impl Attempts {
    /// Runs a measurement. Returns nothing when it could not be made, which is noted.
    pub(crate) fn make<T>(
        &mut self,
        what: &str,
        measure: impl FnOnce() -> Result<T, Unavailable>,
    ) -> Option<T> {
        // What a measurement shares with the next one are servers, which it does not leave half
        // changed.
        match catch_unwind(AssertUnwindSafe(measure)) {
            Ok(Ok(measured)) => return Some(measured),
            Ok(Err(reason)) => self.missing.push(format!("{what}: {reason}")),
            Err(panic) => self.failed.push(format!("{what}: {}", message(panic.as_ref()))),
        }
        None
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for missing in &self.missing {
            writeln!(f, "not measured: {missing}")?;
        }
        for failed in &self.failed {
            writeln!(f, "FAILED: {failed}")?;
        }
        Ok(())
    }
}

/// The first line: what follows is the log of a process, which the panic has printed already.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
    text.lines().next().unwrap_or_default()
}
