//! What became of a window that has closed: written or not, corrected, or final before some of its
//! points came.

use super::answer::{Cause, Question, Verdict, Window, counted, named};
use super::open::{trouble_of, unavailable};
use super::picture::Picture;
use crate::board::history::{Change, OffsetRange, WindowHistory};
use crate::board::status::Origin;

pub(super) fn verdict(question: &Question, window: &Window, picture: &Picture) -> Verdict {
    let history = || picture.windows.iter().filter(|known| known.start == window.start);
    if let Some(unwritten) = history().find(|known| is_pending(known, picture)) {
        return pending(unwritten, picture);
    }
    let late: u64 = history().map(|known| known.late_points).sum();
    let last = |changes: fn(&WindowHistory) -> &Vec<Change>| {
        history().filter_map(move |known| changes(known).last()).max_by_key(|change| change.at)
    };
    if late > 0 {
        let came = last(|known| &known.late).map(came).unwrap_or_default();
        let reason = format!(
            "{} came after it was final at {} and {} not in it{came}; they are in cold storage and in the late topic",
            counted(late, "point"),
            window.final_at,
            if late == 1 { "is" } else { "are" },
        );
        let Window { start, end, .. } = window;
        let remedy = format!(
            "rebuild it from cold storage: tidemark recompute {} --from {start} --to {end}; a longer allowed_lateness \
             would have taken them in",
            question.rollup
        );
        return Verdict::new(Cause::LatePoints, reason).remedy(remedy);
    }
    let corrections: u64 = history().map(|known| known.corrections).sum();
    if corrections > 0 {
        let came = last(|known| &known.corrected).map(came).unwrap_or_default();
        let reason = format!(
            "late points have changed it {}{came}; it is final when the watermark comes to {}",
            if corrections == 1 { "once".to_owned() } else { format!("{corrections} times") },
            window.final_at
        );
        return Verdict::new(Cause::Corrected, reason);
    }
    let closed = history().filter_map(|known| known.closed.as_ref()).max_by_key(|change| change.at);
    match closed {
        Some(closed) => {
            let rows =
                history().filter_map(|known| known.closed.as_ref()).map(|change| change.rows).sum::<u64>();
            let reason =
                format!("at {}, with {}, stored and not changed since", closed.at, counted(rows, "row"));
            Verdict::new(Cause::Closed, reason)
        }
        None => not_remembered(picture),
    }
}

fn not_remembered(picture: &Picture) -> Verdict {
    if !picture.partitions.iter().any(|row| row.from == Some(Origin::Owner)) {
        return Verdict::new(
            Cause::NotRemembered,
            "no process that was asked runs `rollup` and remembers it",
        )
        .remedy("ask those that do: --url http://<host>:<port>, as in `listen` of their [http]");
    }
    let since = picture.history_since.map_or("the processes started".to_owned(), |since| since.to_string());
    Verdict::new(
        Cause::NotRemembered,
        format!(
            "nothing has happened to it since {since}; it closed before, or no point of it passed the query"
        ),
    )
}

/// Whether a result of the window may not be durable: it came from a message after the last
/// checkpoint.
fn is_pending(window: &WindowHistory, picture: &Picture) -> bool {
    let newest = window.closed.iter().chain(window.corrected.last()).map(|change| change.offset).max();
    let row = picture.partitions.iter().find(|row| row.partition == window.partition);
    let durable_before = row.and_then(|row| row.checkpoint_offset).unwrap_or(0);
    newest.is_some_and(|offset| offset >= durable_before)
}

fn pending(window: &WindowHistory, picture: &Picture) -> Verdict {
    let sink = picture.sinks.iter().find(|sink| sink.partitions.contains(&window.partition));
    let since = window.closed.as_ref().map_or(String::new(), |change| format!(" at {}", change.at));
    match sink {
        Some(sink) if sink.sink.trouble.is_some() => {
            unavailable(format!("its results{since} are not written, {}", trouble_of(sink, picture)))
        }
        _ => Verdict::new(
            Cause::BeingWritten,
            format!("its results{since} are on their way, and known to be stored after the next checkpoint"),
        ),
    }
}

/// When, and by whose messages.
fn came(change: &Change) -> String {
    let sources = sources(change);
    let by = if sources.is_empty() { String::new() } else { format!(" by {sources}") };
    format!(", last at {}{by}", change.at)
}

/// The messages of a change: `points[1] offsets 7 to 9`.
pub(super) fn sources(change: &Change) -> String {
    let range = |range: &OffsetRange| {
        let name = named(&range.topic, range.partition);
        match range.to - range.from {
            1 => format!("{name} offset {}", range.from),
            _ => format!("{name} offsets {} to {}", range.from, range.to - 1),
        }
    };
    let ranges: Vec<String> = change.sources.iter().map(range).collect();
    ranges.join(", ")
}
