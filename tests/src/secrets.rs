//! The secret of all trials. It is InfluxDB's token, and whatever else a trial hides; no log, no
//! answer and no output of the program may hold it.

/// Distinctive, so that it is nowhere by chance.
pub const PLANTED: &str = "planted-s3cret-of-the-trials";

/// Asserts that the secret is not in a text that the program has given out.
///
/// # Panics
/// When it is there.
#[track_caller]
pub fn assert_absent(place: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(PLANTED));
    assert!(line.is_none(), "{place} shows a secret: {}", line.unwrap_or_default());
}
