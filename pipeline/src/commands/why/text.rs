//! The answer for people: the sentence, what to do, then what it rests on.

use std::fmt::Write as _;

use operators::watermark::Standing;

use super::answer::{Answer, counted, named};
use super::closed::sources;
use super::open::shown_owner;
use super::picture::{FailureRow, Owner, PartitionRow, SinkRow, SourceRow};
use crate::board::history::{Change, WindowHistory};
use crate::board::status::Origin;
use crate::columns::{Numbers, columns};
use crate::time::{Time, span};

/// A checkpoint that waits longer than this, in nanoseconds, is worth telling.
const LONG_CHECKPOINT: i64 = 10_000_000_000;

/// The whole answer, ending without a line break.
pub(super) fn text(answer: &Answer) -> String {
    let mut text = format!("{}\n", answer.summary);
    if let Some(remedy) = &answer.remedy {
        let _ = writeln!(text, "  do: {remedy}");
    }
    source_partitions(&mut text, answer);
    rollup_partitions(&mut text, answer);
    refused(&mut text, answer);
    for sink in &answer.sinks {
        section(&mut text, &format!("Sink {} of {}", sink.sink.name, sink.instance));
        text.push_str(&sink_line(sink, answer.now));
    }
    windows(&mut text, answer);
    late_points(&mut text, answer);
    failures(&mut text, answer);
    if !answer.notes.is_empty() {
        section(&mut text, "Not known");
        for note in &answer.notes {
            let _ = writeln!(text, "  {note}");
        }
    }
    text.trim_end().to_owned()
}

fn source_partitions(text: &mut String, answer: &Answer) {
    if answer.sources.is_empty() {
        return;
    }
    section(text, "Source partitions (> holds the watermark)");
    let header = ["", "partition", "event time", "state", "unread", "silent", "idle in", "reported", "owner"];
    let rows = answer.sources.iter().map(|row| {
        let holds = answer
            .holder
            .as_ref()
            .is_some_and(|holder| holder.topic == row.topic && holder.partition == row.partition);
        vec![
            if holds { ">".to_owned() } else { String::new() },
            named(&row.topic, row.partition),
            time(row.event_time),
            row.standing.map_or("-", standing).to_owned(),
            unread(row),
            milliseconds(row.silent_ms),
            milliseconds(row.idle_in_ms),
            row.reported.map_or("never".to_owned(), |at| format!("{} ago", span(answer.now.0 - at.0))),
            owner(row.owner.as_ref()),
        ]
    });
    table(text, &header, rows.collect());
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Idle => "idle",
        Standing::NoPointYet => "no point yet",
        Standing::NoOwner => "not reported",
        Standing::NeverReported => "never reported",
    }
}

fn unread(row: &SourceRow) -> String {
    match (row.unread_messages, row.read_per_second) {
        (Some(unread), Some(speed)) if unread > 0 && speed > 0.0 => format!("{unread}, {speed:.0}/s"),
        (Some(unread), _) => unread.to_string(),
        (None, _) => "-".to_owned(),
    }
}

fn owner(owner: Option<&Owner>) -> String {
    let Some(owner) = owner else { return "none".to_owned() };
    match &owner.url {
        Some(url) => format!("{} ({url})", shown_owner(owner)),
        None => shown_owner(owner),
    }
}

fn rollup_partitions(text: &mut String, answer: &Answer) {
    section(text, "Rollup partitions");
    let header = ["partition", "watermark", "merged up to", "unread", "open windows", "owner"];
    let rows = answer.partitions.iter().map(|row| {
        vec![
            row.partition.to_string(),
            time(row.watermark),
            merged(row),
            row.unread_messages.map_or("-".to_owned(), |unread| unread.to_string()),
            row.from.map_or("-".to_owned(), |_| row.open_windows.to_string()),
            owner(row.owner.as_ref()),
        ]
    });
    table(text, &header, rows.collect());
}

fn merged(row: &PartitionRow) -> String {
    let snapshot = if row.from == Some(Origin::Snapshot) { " (snapshot)" } else { "" };
    format!("{}{snapshot}", time(row.log_time))
}

fn refused(text: &mut String, answer: &Answer) {
    let refusing: Vec<&SourceRow> = answer.sources.iter().filter(|row| !row.refused.is_empty()).collect();
    if refusing.is_empty() {
        return;
    }
    section(text, "Refused points, in the dead-letter topic");
    for row in refusing {
        let counts: Vec<String> =
            row.refused.iter().map(|(reason, points)| format!("{reason} {points}")).collect();
        let _ = writeln!(text, "  {}  {}", named(&row.topic, row.partition), counts.join(", "));
        if let Some(last) = &row.last_refused {
            let dated = last.time.map_or(String::new(), |time| format!(", dated {time}"));
            let _ = writeln!(text, "    newest: offset {}, read {}{dated}", last.offset, last.seen);
            let printable = |c: char| if c.is_control() { ' ' } else { c };
            let _ = writeln!(text, "    {}", last.excerpt.chars().map(printable).collect::<String>());
        }
    }
}

fn sink_line(row: &SinkRow, now: Time) -> String {
    let sink = &row.sink;
    let mut line = match &sink.trouble {
        None => "  takes results".to_owned(),
        Some(trouble) => format!(
            "  fails since {}, failed requests: {}, the last one: {}\n ",
            span(now.0 - trouble.since.0),
            trouble.failures,
            trouble.error
        ),
    };
    if sink.trouble.is_none() {
        line.push(',');
    }
    let _ = write!(line, " queued batches: {}", sink.queued);
    if sink.paused {
        line.push_str(", reading is paused");
    }
    let flushed = sink.flushed.map_or("never".to_owned(), |at| format!("{} ago", span(now.0 - at.0)));
    let _ = write!(line, ", everything stored {flushed}");
    // There is one under way every few seconds, which is no news.
    let waits = sink.checkpoint_since.map(|since| now.0 - since.0);
    if let Some(waits) = waits.filter(|waits| sink.trouble.is_some() || *waits > LONG_CHECKPOINT) {
        let _ = write!(line, ", a checkpoint waits since {}", span(waits));
    }
    line.push('\n');
    line
}

fn windows(text: &mut String, answer: &Answer) {
    if answer.windows.is_empty() {
        return;
    }
    section(text, "History of windows");
    for window in &answer.windows {
        let _ = writeln!(text, "  {} to {}, rollup partition {}", window.start, window.end, window.partition);
        history(text, window);
    }
}

fn history(text: &mut String, window: &WindowHistory) {
    if let Some(closed) = &window.closed {
        let _ = writeln!(text, "    closed     {}", change(closed, "row"));
    }
    for corrected in &window.corrected {
        let _ = writeln!(text, "    corrected  {}", change(corrected, "row"));
    }
    for late in &window.late {
        let _ = writeln!(text, "    too late   {}", change(late, "point"));
    }
}

fn change(change: &Change, what: &str) -> String {
    let mut line = format!("{}, {}", change.at, counted(i128::from(change.rows), what));
    if let Some(watermark) = change.watermark {
        let _ = write!(line, ", watermark {watermark}");
    }
    let by = sources(change);
    if !by.is_empty() {
        let _ = write!(line, ", by {by}");
    }
    line
}

fn late_points(text: &mut String, answer: &Answer) {
    if answer.late_points.is_empty() {
        return;
    }
    section(text, "Points after their window was final, by how long after its end");
    let ages = ["1m", "10m", "1h", "1d", "older"];
    let known = ages.iter().filter_map(|age| Some((age, answer.late_points.get(*age)?)));
    for (age, points) in known {
        let _ = writeln!(text, "  {age:<6} {points}");
    }
}

fn failures(text: &mut String, answer: &Answer) {
    if answer.failures.is_empty() {
        return;
    }
    section(text, "Not computed");
    for FailureRow { instance, failure } in &answer.failures {
        let what = match failure.cause.as_str() {
            "value" => "values are null, as an operation failed",
            "group" => "groups of a window have no row, as an aggregate failed",
            "point" => "points are left out, as an aggregate does not take them",
            _ => "states are lost",
        };
        let (since, last) = (span(answer.now.0 - failure.since.0), span(answer.now.0 - failure.last.0));
        let _ =
            writeln!(text, "  {} {what}: first {since} ago, last {last} ago, by {instance}", failure.count);
        let _ = writeln!(text, "    {}", failure.error);
    }
}

fn section(text: &mut String, title: &str) {
    let _ = write!(text, "\n{title}\n");
}

fn time(time: Option<Time>) -> String {
    time.map_or("-".to_owned(), |time| time.to_string())
}

fn milliseconds(milliseconds: Option<i64>) -> String {
    milliseconds.map_or("-".to_owned(), |milliseconds| span(milliseconds.saturating_mul(1_000_000)))
}

/// A table, indented as what stands below a title is.
fn table(text: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    let mut lines = vec![header.iter().map(|cell| (*cell).to_owned()).collect()];
    lines.extend(rows);
    for line in columns(&lines, Numbers::Left).lines() {
        let _ = writeln!(text, "  {line}");
    }
}
