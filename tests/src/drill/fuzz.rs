//! Damaged messages between good ones: each is counted, and no neighbour suffers.
//!
//! What becomes of a damaged message is what the decoder says of it alone, in this process. The
//! time comes first in each and is left as it is: with another time of the past a point would be a
//! good one, and move the watermark.

use points::decode::{DecodeOptions, Decoder, Points};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::round::{Round, Setup};
use super::site::MAX_MESSAGE_BYTES;
use super::verdict::Verdict;
use super::workload::PARTITIONS;
use super::{Ground, Plan};
use crate::input::NEW_YEAR;
use crate::kafka::Message;

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let setup = Setup::new(ground, plan.size(30_000, 300_000), plan.size(2, 10));
    let mut round = Round::new("g-fuzz", ground, plan, &setup);
    let damaged: Vec<Message> = (0..plan.size(5_000, 100_000)).map(|_| damaged(&mut round.random)).collect();
    let options = DecodeOptions { max_message_bytes: MAX_MESSAGE_BYTES, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(options, Vec::new());
    for message in &damaged {
        let (mut points, mut rejections) = (Points::default(), Vec::new());
        let day = 86_400_000_000_000;
        let time = message.timestamp.map(|milliseconds| milliseconds * 1_000_000);
        decoder.decode(&message.payload, time, NEW_YEAR + day, &mut points, &mut rejections);
        round.workload.others += points.len();
        round.workload.refused += rejections.iter().map(|rejection| rejection.count).sum::<usize>();
    }
    round.site.faults = damaged.len();
    round.notes.push(format!("{} damaged points could be read", round.workload.others));
    let mut random = round.random.clone();
    round.workload.mix(&mut random, damaged);
    round.start(2);
    while round.send() {
        round.wait_for_instant();
    }
    round.send_last();
    round.finish()
}

/// A message that was good once.
fn damaged(random: &mut StdRng) -> Message {
    let milliseconds = NEW_YEAR / 1_000_000;
    let time = format!(r#"{{"ts":{milliseconds}"#);
    let host = random.random_range(0..5);
    let mut rest =
        format!(r#","name":"fuzz","labels":{{"host":"f-{host}","q":"\"\\ü"}},"value":1.5e0}}"#).into_bytes();
    let line = format!("fuzz,host=f-{host},q=a\\ b value=1.5,other=2i,text=\"x\\\"y\"").into_bytes();
    let json = random.random_bool(0.6);
    if !json {
        rest = line;
    }
    match random.random_range(0..11) {
        // Nothing but noise, at times too large to be looked at.
        0 => {
            let most = if random.random_bool(0.01) { 2 * MAX_MESSAGE_BYTES } else { 200 };
            // No digits: a number at the wrong place could be a time.
            rest = (0..random.random_range(1..most)).map(|_| random.random_range(b':'..=255)).collect();
        }
        1 => rest = [&b"["[..], &b"[".repeat(random.random_range(1..2_000)), &rest].concat(),
        // A name or label around its bound, or far beyond it.
        10 => {
            let most = if random.random_bool(0.02) { MAX_MESSAGE_BYTES } else { 6 << 10 };
            let long = vec![b'x'; random.random_range(1..most)];
            let at = rest.windows(2).rposition(|pair| pair == b"f-").unwrap_or(0);
            rest.splice(at..at, long);
        }
        2 => rest.truncate(random.random_range(0..rest.len())),
        3 => {
            let at = random.random_range(0..rest.len());
            let end = random.random_range(at..rest.len());
            let copy = rest[at..end].to_vec();
            rest.splice(at..at, copy);
        }
        _ => {
            for _ in 0..random.random_range(1..=4) {
                let at = random.random_range(0..rest.len());
                let special = *b"{}[]\",:\\=\n\0\xff ".choose(random).unwrap();
                match random.random_range(0..4) {
                    0 => rest[at] = special,
                    1 => rest.insert(at, special),
                    2 => rest[at] ^= 1 << random.random_range(0..8),
                    _ => drop(rest.drain(at..(at + 3).min(rest.len()))),
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
    let partition = i32::try_from(random.random_range(0..PARTITIONS)).unwrap();
    let payload = if json { [time.as_bytes(), &rest].concat() } else { rest };
    // A line without a time has that of its message.
    Message { timestamp: Some(milliseconds), ..Message::new(partition, payload) }
}
