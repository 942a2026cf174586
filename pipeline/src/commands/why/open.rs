//! Why a window has not closed: from the sink back to the source, the first cause that holds up the
//! rest.

use super::answer::{Cause, Verdict, Window, counted, named};
use super::picture::{Owner, PartitionRow, Picture, SinkRow, SourceRow};
use crate::board::status::{Holder, Origin, Refused};
use crate::time::{Time, span};

/// Control records of transactions lie in the log and are never read: so many at its end mean
/// nothing.
const CONTROL_RECORDS: i64 = 2;
/// Beyond what is read in so many epochs, unread messages are a backlog.
const BACKLOG_EPOCHS: f64 = 3.0;

/// `asked`: the window was named, and not found as the oldest open one.
pub(super) fn verdict(window: Option<&Window>, asked: bool, picture: &Picture) -> Verdict {
    let Some(slowest) = picture.slowest() else { return nothing_known(picture) };
    let checks = [
        without_rollup(picture),
        waiting_for_sink(slowest, asked, picture),
        behind(slowest, picture),
        still_open(window, slowest, picture),
    ];
    if let Some(found) = checks.into_iter().flatten().next() {
        return found;
    }
    if slowest.log_time.is_none() {
        return nothing_reported(picture);
    }
    match &slowest.holder {
        Some(holder) => held(holder, window, slowest, picture),
        None => all_idle(window, slowest, picture),
    }
}

fn nothing_known(picture: &Picture) -> Verdict {
    without_rollup(picture).unwrap_or_else(|| {
        let known = picture.partitions.iter().find_map(|row| row.owner.as_ref());
        let place = known.and_then(|owner| owner.host.as_deref()).unwrap_or("an unknown host");
        Verdict::new(
            Cause::RollupNotAsked,
            format!("the processes that run `rollup` were not asked (one is on {place})"),
        )
        .remedy("ask them too: --url http://<host>:<port>, as in `listen` of their [http]")
    })
}

/// Nobody merges what `ingest` sends.
fn without_rollup(picture: &Picture) -> Option<Verdict> {
    let orphans: Vec<&PartitionRow> = picture
        .partitions
        .iter()
        .filter(|row| row.owner.is_none() && row.from != Some(Origin::Owner))
        .collect();
    if let (Some(reason), false) = (&picture.rollup_waits, orphans.is_empty()) {
        let verdict = Verdict::new(Cause::RollupNotReady, format!("`rollup` is not ready: {reason}"));
        return Some(verdict.remedy("it tries again by itself; see its log"));
    }
    let settled = picture.kafka.as_ref().is_some_and(|kafka| kafka.rollup.is_settled());
    let first = orphans.first().filter(|_| settled)?;
    let unread: i64 = orphans.iter().filter_map(|row| row.unread_messages).sum();
    let whose = match orphans.len() == picture.partitions.len() {
        true => "no process runs `rollup`".to_owned(),
        false => {
            format!("no process runs `rollup` for {}", named(&picture.rules.partials, first.partition))
        }
    };
    let reason = format!("{whose}, {} of partial states wait", counted(unread, "message"));
    Some(Verdict::new(Cause::RollupNotRunning, reason).remedy(
        "start one: tidemark run --roles rollup; if one runs, its log has the reason why it does not join its group",
    ))
}

/// What is held up by the sink: everything when reading is paused. Without a window in question,
/// results that are not written matter more than those that are not there.
fn waiting_for_sink(slowest: &PartitionRow, asked: bool, picture: &Picture) -> Option<Verdict> {
    let of_slowest = |sink: &&SinkRow| sink.partitions.contains(&slowest.partition);
    let paused = picture.sinks.iter().filter(of_slowest).find(|sink| sink.sink.paused);
    if let Some(sink) = paused {
        let reason = format!("its results have no room, {}", trouble_of(sink, picture));
        return Some(unavailable(reason));
    }
    let failing = picture.sinks.iter().find(|sink| sink.sink.trouble.is_some()).filter(|_| !asked)?;
    let reason = format!("results are not written, {}", trouble_of(failing, picture));
    Some(Verdict { is_about_window: false, ..unavailable(reason) })
}

/// How writing fails, and since when.
pub(super) fn trouble_of(sink: &SinkRow, picture: &Picture) -> String {
    let Some(trouble) = &sink.sink.trouble else {
        return format!("{} is slower than they come", sink.sink.name);
    };
    let since = span(picture.now - trouble.since.0);
    format!("{} takes nothing since {} ({since}): {}", trouble.place, trouble.since, trouble.error)
}

pub(super) fn unavailable(reason: String) -> Verdict {
    Verdict::new(Cause::SinkUnavailable, reason)
        .remedy("bring it back, or correct what it complains of; nothing is lost meanwhile, the log waits")
}

/// The partials log has what would move the watermark, and `rollup` has not come to it.
fn behind(slowest: &PartitionRow, picture: &Picture) -> Option<Verdict> {
    if slowest.from != Some(Origin::Owner) {
        return None;
    }
    let age = picture.now - slowest.log_time?.0;
    let unread = slowest.unread_messages?;
    let members = picture.kafka.as_ref().map_or(1, |kafka| kafka.ingest.members.len().max(1));
    let control = CONTROL_RECORDS * i64::try_from(members).unwrap_or(1);
    if age <= picture.rules.owner_timeout || unread <= control {
        return None;
    }
    let partition = named(&picture.rules.partials, slowest.partition);
    let reason = format!(
        "`rollup` has merged {partition} up to {} only, {} of partial states wait",
        time_of(slowest.log_time),
        counted(unread, "message")
    );
    Some(
        Verdict::new(Cause::RollupBehind, reason)
            .remedy("it catches up by itself; if not, start more processes"),
    )
}

/// The clock has not passed the window's end by what the disorder bound and an epoch's way take.
fn still_open(window: Option<&Window>, slowest: &PartitionRow, picture: &Picture) -> Option<Verdict> {
    let window = window?;
    let way = 2 * picture.rules.epoch + 2_000_000_000;
    let due = window.end.0.saturating_add(picture.rules.max_out_of_orderness).saturating_add(way);
    if picture.now >= due {
        return None;
    }
    let left = span(due - picture.now);
    let watermark =
        slowest.watermark.map_or("there is none yet".to_owned(), |watermark| watermark.to_string());
    let reason = format!("it is not over, it is due in {left} (watermark {watermark})");
    Some(Verdict::new(Cause::StillOpen, reason))
}

fn nothing_reported(picture: &Picture) -> Verdict {
    let ingest = picture.kafka.as_ref().map(|kafka| &kafka.ingest);
    if ingest.is_some_and(|group| group.members.is_empty() && group.is_settled()) {
        return Verdict::new(Cause::NoOwner, "no process runs `ingest`")
            .remedy("start one: tidemark run --roles ingest");
    }
    Verdict::new(Cause::NothingReported, "no `ingest` process has reported anything yet")
        .remedy("the log of `ingest` shows whether it has partitions and can commit")
}

/// One source partition holds the watermark.
fn held(holder: &Holder, window: Option<&Window>, slowest: &PartitionRow, picture: &Picture) -> Verdict {
    let name = named(&holder.topic, holder.partition);
    let watermark = match slowest.watermark {
        Some(watermark) => format!("{name} holds the watermark at {watermark}"),
        None => format!("{name} holds the watermark, there is none yet"),
    };
    let Some(source) = picture.source(&holder.topic, holder.partition) else {
        return Verdict::new(Cause::NothingReported, format!("{watermark}, and nothing is known of it"));
    };
    if let Some(verdict) = without_owner(&watermark, source, slowest, picture) {
        return verdict;
    }
    if let Some(verdict) = refused(&watermark, source, picture) {
        return verdict;
    }
    if let Some(verdict) = unread(&watermark, source, picture) {
        return verdict;
    }
    let countdown = match source.idle_in_ms {
        Some(left) if left > 0 => {
            format!("it stops counting in {} if it stays silent", span(left * 1_000_000))
        }
        _ => "it stops counting as soon as its end is confirmed".to_owned(),
    };
    if source.newest.is_none() {
        return Verdict::new(
            Cause::NoPointYet,
            format!("{watermark}: it has given no point yet; {countdown}"),
        )
        .remedy("send a point or a heartbeat to it, or wait; `idle_timeout` in [ingest] is the time");
    }
    if window.is_none() {
        let current =
            Verdict::new(Cause::Current, format!("nothing is held up, {}", current(slowest, picture)));
        return current;
    }
    let ahead = lead(source, picture).map(|lead| format!(", {lead} behind the newest")).unwrap_or_default();
    let reason = format!(
        "{watermark}{ahead}: everything in it was read, its producers sent nothing newer; {countdown}"
    );
    Verdict::new(Cause::SlowSource, reason)
        .remedy("look at the producers of this partition; a heartbeat moves its time without a point")
}

fn current(slowest: &PartitionRow, picture: &Picture) -> String {
    match slowest.watermark {
        Some(watermark) => {
            format!("the watermark is {watermark}, {} behind the clock", span(picture.now - watermark.0))
        }
        None => "there is no watermark yet".to_owned(),
    }
}

/// Nobody reads the partition, or its owner is silent.
fn without_owner(
    watermark: &str,
    source: &SourceRow,
    slowest: &PartitionRow,
    picture: &Picture,
) -> Option<Verdict> {
    let group = picture.kafka.as_ref().map(|kafka| &kafka.ingest);
    let last = match (&source.reported, &source.reported_by) {
        (Some(reported), Some(owner)) => {
            format!("; {owner} reported it last, {} ago", span(picture.now - reported.0))
        }
        (Some(reported), None) => format!("; last reported {} ago", span(picture.now - reported.0)),
        (None, _) => "; nobody ever reported it".to_owned(),
    };
    if group.is_some_and(|group| !group.is_settled()) {
        let reason = format!("{watermark}: the group of `ingest` is rebalancing{last}");
        return Some(Verdict::new(Cause::Rebalancing, reason).remedy("wait; it takes seconds"));
    }
    if source.owner.is_none() && group.is_some() {
        let unread = source
            .unread_messages
            .map_or(String::new(), |unread| format!(", {} unread", counted(unread, "message")));
        let nobody = match group.is_some_and(|group| group.members.is_empty()) {
            true => "no process runs `ingest`",
            false => "no process owns it",
        };
        let reason = format!("{watermark}: {nobody}{unread}{last}");
        return Some(
            Verdict::new(Cause::NoOwner, reason).remedy("start a process: tidemark run --roles ingest"),
        );
    }
    let silent =
        source.reported.is_none_or(|reported| picture.now - reported.0 > picture.rules.owner_timeout);
    if !silent || slowest.from != Some(Origin::Owner) {
        return None;
    }
    let owner = source.owner.as_ref().map_or("its owner".to_owned(), shown_owner);
    let reason = format!("{watermark}: {owner} has it in the group and does not report it{last}");
    Some(Verdict::new(Cause::OwnerSilent, reason).remedy(
        "if that process is dead or frozen, end it: the group gives its partitions to another one after 30s",
    ))
}

/// An owner by the best name there is.
pub(super) fn shown_owner(owner: &Owner) -> String {
    match (&owner.instance, &owner.host) {
        (Some(instance), _) => instance.clone(),
        (None, Some(host)) => format!("a process on {host}"),
        (None, None) => "an unknown process".to_owned(),
    }
}

/// The newest of what it gave was refused, so its time does not move.
fn refused(watermark: &str, source: &SourceRow, picture: &Picture) -> Option<Verdict> {
    let last = source.last_refused.as_ref()?;
    let still_comes = picture.now - last.seen.0 <= picture.rules.idle_timeout;
    let nothing_since = source.accepted.is_none_or(|accepted| accepted <= last.seen);
    if !still_comes || !nothing_since {
        return None;
    }
    let Refused { reason, offset, .. } = last;
    let count = source.refused.get(reason).copied().unwrap_or(1);
    let points = counted(count, "point");
    if reason == "future_timestamp" {
        let ahead = source.farthest_ahead_ms.map(|ahead| span(ahead * 1_000_000)).unwrap_or_default();
        let skew = span(picture.rules.max_future_skew);
        let reason = format!(
            "{watermark}: it gives only points dated in the future; {points} more than {skew} ahead of the clock \
             went to the dead-letter topic, up to {ahead} ahead, the newest at offset {offset}"
        );
        return Some(
            Verdict::new(Cause::FuturePoints, reason)
                .remedy("set the clock of the sender; the point is shown below"),
        );
    }
    let reason = format!(
        "{watermark}: it gives only points that are refused; {points} went to the dead-letter topic as {reason}, the \
         newest at offset {offset}"
    );
    Some(Verdict::new(Cause::RefusedPoints, reason).remedy("mend what sends them; the point is shown below"))
}

/// It has data that nobody has read yet.
fn unread(watermark: &str, source: &SourceRow, picture: &Picture) -> Option<Verdict> {
    let unread = source.unread_messages?;
    let per_epoch = source.read_per_second.unwrap_or(0.0) * picture.rules.epoch as f64 / 1e9;
    let usual = CONTROL_RECORDS.max((BACKLOG_EPOCHS * per_epoch) as i64);
    if unread <= usual {
        return None;
    }
    let owner = source.owner.as_ref().map_or("its owner".to_owned(), shown_owner);
    let speed =
        source.read_per_second.map_or(String::new(), |speed| format!(" and reads {speed:.0} a second"));
    let behind = lead(source, picture).map(|lead| format!(", {lead} behind the newest")).unwrap_or_default();
    let messages = counted(unread, "message");
    let reason = format!("{watermark}{behind}: {owner} has {messages} of it still to read{speed}");
    Some(
        Verdict::new(Cause::UnreadMessages, reason).remedy(
            "wait until they are read, or start more `ingest` processes, up to the number of partitions",
        ),
    )
}

/// How far the newest source partition is ahead of this one.
fn lead(source: &SourceRow, picture: &Picture) -> Option<String> {
    let newest = picture.sources.iter().filter_map(|row| row.newest).max()?;
    let lead = newest.0 - source.newest?.0;
    (lead > 0).then(|| span(lead))
}

/// No source partition holds the watermark: it moves with the clock, as long as someone reports.
fn all_idle(window: Option<&Window>, slowest: &PartitionRow, picture: &Picture) -> Verdict {
    let watermark = slowest
        .watermark
        .map_or("there is no watermark yet".to_owned(), |time| format!("the watermark is {time}"));
    if slowest.from == Some(Origin::Owner) {
        let orphan =
            picture.sources.iter().find_map(|source| without_owner(&watermark, source, slowest, picture));
        if let Some(verdict) = orphan {
            return verdict;
        }
    }
    let Some(window) = window else {
        return Verdict::new(Cause::Current, format!("nothing is held up, {}", current(slowest, picture)));
    };
    let left = slowest.watermark.map_or(String::new(), |watermark| {
        format!(", and comes to its end in {}", span(window.end.0 - watermark.0))
    });
    let reason = format!("all source partitions are silent; {watermark}, moves with the clock{left}");
    Verdict::new(Cause::AllIdle, reason)
        .remedy("wait, or send a point or a heartbeat: it moves event time at once")
}

fn time_of(time: Option<Time>) -> String {
    time.map_or("nothing".to_owned(), |time| time.to_string())
}
