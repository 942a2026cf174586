//! Functions of SQL rules that look at a group's earlier windows: `ema`, `rate`, `lag`, `change`.
//!
//! - `lag(x)`: the value in the group's window before; null in the first.
//! - `change(x)`: `x - lag(x)`.
//! - `rate(x)`: the increase of a counter a second. A value below the one before means that the
//!   counter was reset to zero.
//! - `ema(x, alpha)`: the exponential moving average, `alpha · x + (1 - alpha) · ema` of the window
//!   before, which begins with the first value.
//!
//! A null has no effect: the result is null, and the state stays.

use super::complaint::Complaint;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    Ema { alpha: f64 },
    Rate,
    Lag,
    Change,
}

/// Names, and how many arguments each takes.
pub(super) const FUNCTIONS: [(&str, usize); 4] = [("ema", 2), ("rate", 1), ("lag", 1), ("change", 1)];

impl Function {
    /// `alpha` is the second argument as it is written, if there is one.
    pub(super) fn new(name: &str, alpha: Option<&str>) -> Result<Self, Complaint> {
        match (name, alpha) {
            ("rate", None) => Ok(Self::Rate),
            ("lag", None) => Ok(Self::Lag),
            ("change", None) => Ok(Self::Change),
            ("ema", Some(alpha)) => match alpha.parse::<f64>() {
                Ok(number) if number > 0.0 && number <= 1.0 => Ok(Self::Ema { alpha: number }),
                _ => {
                    let message = format!("`{alpha}` is no weight of the newest value");
                    Err(Complaint::new(message, "write a number above 0 and up to 1, `ema(avg, 0.2)`"))
                }
            },
            ("ema", None) => {
                Err(Complaint::new("`ema` has no weight of the newest value", "write `ema(avg, 0.2)`"))
            }
            _ => Err(Complaint::new(format!("`{name}` takes one value"), format!("write `{name}(value)`"))),
        }
    }
}

/// What a function remembers of a group: the value of the newest window, or the average, and that
/// window's end.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Memory(Option<(f64, i64)>);

impl Memory {
    /// Takes in the value of the window that ends at `end`, and returns the function's.
    pub(super) fn next(&mut self, function: Function, value: Option<f64>, end: i64) -> Option<f64> {
        let value = value.filter(|value| value.is_finite())?;
        let before = self.0.filter(|(_, earlier)| *earlier < end);
        let result = match (function, before) {
            (Function::Ema { alpha }, Some((average, _))) => Some(alpha * value + (1.0 - alpha) * average),
            (Function::Ema { .. }, None) => Some(value),
            (Function::Lag, before) => before.map(|(before, _)| before),
            (Function::Change, before) => before.map(|(before, _)| value - before),
            (Function::Rate, before) => before.map(|(before, earlier)| {
                let increase = if value < before { value } else { value - before };
                increase / ((end - earlier) as f64 / 1e9)
            }),
        };
        let kept = match function {
            Function::Ema { .. } => result.unwrap_or(value),
            _ => value,
        };
        self.0 = Some((kept, end));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Values of windows of ten seconds, and what the function makes of them.
    fn check(function: Function, values: &[Option<f64>], expected: &[Option<f64>]) {
        let mut memory = Memory::default();
        let results: Vec<_> =
            (1..).zip(values).map(|(i, value)| memory.next(function, *value, i * 10 * SECOND)).collect();
        assert_eq!(results, expected, "{function:?} of {values:?}");
    }

    #[test]
    fn functions_of_earlier_windows() {
        let values = [Some(10.0), Some(30.0), None, Some(20.0)];
        check(Function::Lag, &values, &[None, Some(10.0), None, Some(30.0)]);
        check(Function::Change, &values, &[None, Some(20.0), None, Some(-10.0)]);
        check(Function::Ema { alpha: 0.5 }, &values, &[Some(10.0), Some(20.0), None, Some(20.0)]);
        // Within twenty seconds the counter was reset and reached 20.
        check(Function::Rate, &values, &[None, Some(2.0), None, Some(1.0)]);
        check(Function::Lag, &[Some(f64::NAN), Some(1.0)], &[None, None]);
    }

    #[test]
    fn arguments_are_checked() {
        for (name, alpha, expected) in [
            ("ema", None, "no weight"),
            ("ema", Some("0"), "`0` is no weight"),
            ("ema", Some("1.5"), "`1.5` is no weight"),
            ("ema", Some("avg"), "`avg` is no weight"),
            ("rate", Some("1"), "takes one value"),
        ] {
            let complaint = Function::new(name, alpha).expect_err(expected);
            assert!(format!("{complaint:?}").contains(expected), "{complaint:?}");
        }
        assert_eq!(Function::new("ema", Some("0.25")).ok(), Some(Function::Ema { alpha: 0.25 }));
    }
}
