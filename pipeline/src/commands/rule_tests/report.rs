//! Tests as a test runner lists them: a line each, and below it what is not as expected.

use std::fmt;

use super::Tested;

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut passed, mut failed) = (0, 0);
        for (path, verdicts) in &self.files {
            writeln!(f, "{}", path.display())?;
            for verdict in verdicts {
                let has_passed = verdict.failures.is_empty();
                *(if has_passed { &mut passed } else { &mut failed }) += 1;
                writeln!(f, "  {}  {}", if has_passed { "ok    " } else { "FAILED" }, verdict.name)?;
                for line in verdict.failures.iter().flat_map(|failure| failure.lines()) {
                    writeln!(f, "            {line}")?;
                }
            }
        }
        write!(f, "{passed} passed, {failed} failed")
    }
}
