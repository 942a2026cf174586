//! One point that is sent too late on purpose, so that a correction is seen.

use std::time::Duration;

use crate::commands::sample::SamplePoint;
use crate::time::nanoseconds;

/// Samples before it: the load of the demo's own has ended, and its windows are closed.
const AFTER: usize = 40;
/// Length of the demo's windows.
const WINDOW: i64 = 10_000_000_000;
/// How long before the running window: in the middle of one that has closed.
const BEFORE: Duration = Duration::from_secs(15);

/// The late point, if this sample is the one after which it is sent: no load of a window that has
/// closed, in which all cores were busy.
pub(super) fn point(number: usize, sample: &[SamplePoint]) -> Option<SamplePoint> {
    let is_load = |point: &&SamplePoint| {
        point.name == "cpu.load" && point.labels.iter().any(|label| *label == ("cpu", "total".to_owned()))
    };
    let load = sample.iter().find(is_load).filter(|_| number == AFTER)?;
    let running = load.time - load.time.rem_euclid(WINDOW);
    Some(SamplePoint { time: running - nanoseconds(BEFORE), value: 0.0, ..load.clone() })
}

/// How the demo announces it.
pub(super) fn notice() -> String {
    format!("after {AFTER} s one point of a closed window is sent, and the window is corrected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_late_point_is_of_a_window_that_has_closed() {
        let at = |time| SamplePoint {
            name: "cpu.load",
            labels: vec![("cpu", "total".to_owned()), ("host", "a".to_owned())],
            time,
            value: 1.0,
        };
        for now in [100 * WINDOW, 100 * WINDOW + 1, 101 * WINDOW - 1] {
            assert_eq!(point(AFTER - 1, &[at(now)]), None);
            let late = point(AFTER, &[at(now)]).unwrap();
            assert_eq!(late.time.div_euclid(WINDOW), 98, "the window before the last one");
        }
    }
}
