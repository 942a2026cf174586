//! Replaces what differs from run to run: wall times, durations, counts of messages, processes,
//! addresses.

use chrono::{DateTime, Datelike};

/// `names` are replaced first. Event times are those of the trial's points, and stay unless it says
/// that they move.
pub(super) fn masked(text: &str, names: &[(&String, &str)], event_times_move: bool) -> String {
    let mut text = text.to_owned();
    for (name, instead) in names {
        text = text.replace(name.as_str(), instead);
    }
    let lines: Vec<String> = text.lines().map(|text| line(text, event_times_move)).collect();
    lines.join("\n") + "\n"
}

/// Runs of spaces become two, since columns are as wide as what they hold.
fn line(line: &str, event_times_move: bool) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut shown = " ".repeat(indent.min(4));
    let mut before = String::new();
    let words: Vec<&str> = line.trim_start().split(' ').collect();
    for (index, word) in words.iter().enumerate() {
        let next = words.get(index + 1).copied().unwrap_or_default();
        let masked = self::word(word, &before, next, event_times_move);
        // `1m 30s` is one duration.
        let goes_on = masked.starts_with("<span>") && shown.ends_with("<span>");
        if goes_on {
            shown.truncate(shown.len() - "<span>".len());
        } else if word.is_empty() {
            if !shown.ends_with("  ") {
                shown.push(' ');
            }
        } else if index > 0 && !shown.ends_with("  ") {
            shown.push(' ');
        }
        shown.push_str(&masked);
        before = (*word).to_owned();
    }
    shown.trim_end().to_owned()
}

fn word(word: &str, before: &str, next: &str, event_times_move: bool) -> String {
    let start = word.len() - word.trim_start_matches('(').len();
    let core = word[start..].trim_end_matches([',', ';', ')', '.', ':']);
    let (open, close) = (&word[..start], &word[start + core.len()..]);
    format!("{open}{}{close}", core_of(core, before, next, event_times_move))
}

fn core_of(core: &str, before: &str, next: &str, event_times_move: bool) -> String {
    if let Ok(time) = DateTime::parse_from_rfc3339(core) {
        // Event times of the trials are those of a New Year, or of the year 2100.
        let event_time = time.month() == 1 && time.day() == 1;
        return if event_time && !event_times_move { core } else { "<time>" }.to_owned();
    }
    let digits = core.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = core.len() - digits.len();
    let units = ["ms", "s", "m", "h", "day", "days", "month", "months", "year", "years"];
    if number > 0 && units.contains(&digits) {
        return "<span>".to_owned();
    }
    if number > 0 && digits == "/s" {
        return "<n>/s".to_owned();
    }
    let told = ["offset", "offsets", "to", "partition", "error"].contains(&before.trim_end_matches(','));
    let counted = next.starts_with("point") || next.starts_with("row") || next.starts_with("time");
    let reason = before.ends_with("_timestamp");
    if number > 0 && digits.is_empty() && !told && !counted && !reason {
        return "<n>".to_owned();
    }
    if core.starts_with("http://127.0.0.1:") {
        return "<url>".to_owned();
    }
    // `host:123`, a process.
    match core.rsplit_once(':') {
        Some((host, id)) if !host.is_empty() && !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) => {
            "<process>".to_owned()
        }
        _ => core.to_owned(),
    }
}
