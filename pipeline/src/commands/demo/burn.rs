//! Keeps every core busy for a while, so that the demo's alert fires and resolves in front of the
//! user.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use crate::roles::context::Context;

/// When it starts and how long it lasts: enough to fill one 10-second window, wherever it begins.
const FROM: Duration = Duration::from_secs(12);
const UNTIL: Duration = Duration::from_secs(35);

pub(super) fn start(context: Context) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    tokio::spawn(async move {
        tokio::select! {
            () = context.shutdown.triggered() => return,
            () = tokio::time::sleep(FROM) => {}
        }
        for _ in 0..cores {
            let context = context.clone();
            thread::spawn(move || {
                while context.clock.monotonic() < UNTIL && !context.shutdown.is_triggered() {
                    black_box((0..100_000u64).fold(0, |sum, number| sum ^ black_box(number)));
                }
            });
        }
    });
}

/// What the demo tells about it.
pub(super) fn notice() -> String {
    format!(
        "all cores are kept busy from {} to {} s, so that the alert fires and resolves (--no-burn leaves it out)",
        FROM.as_secs(),
        UNTIL.as_secs()
    )
}
