//! A sink in memory that answers as it is notified.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use sinks::{Error, Notification, Sink};

use super::receivers::Receiver;

#[derive(Debug, Clone)]
pub(super) enum Answer {
    Busy,
    Refused,
    Panic,
    Never,
}

#[derive(Debug, Default)]
pub(super) struct FakeSink {
    /// The next answers by id. Without one it takes what it is given.
    answers: Mutex<HashMap<String, VecDeque<Answer>>>,
    attempts: Mutex<Vec<String>>,
    taken: Mutex<Vec<String>>,
}

impl FakeSink {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn receiver(self: &Arc<Self>, name: &str) -> Receiver {
        Receiver { name: name.into(), sink: Arc::clone(self) as _, fallback: None }
    }

    /// Answers each of the next attempts of `id` so.
    pub(super) fn answer(&self, id: &str, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.answers).entry(id.to_owned()).or_default().extend(answers);
    }

    /// Answers the next attempts so, whatever their id.
    pub(super) fn answer_all(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answer("", answers);
    }

    /// The id of every attempt, in order.
    pub(super) fn attempts(&self) -> Vec<String> {
        lock(&self.attempts).clone()
    }

    /// The ids that were taken, in order.
    pub(super) fn taken(&self) -> Vec<String> {
        lock(&self.taken).clone()
    }
}

impl FakeSink {
    async fn take(&self, notification: Arc<Notification>) -> Result<(), Error> {
        lock(&self.attempts).push(notification.id.clone());
        let answer = {
            let mut answers = lock(&self.answers);
            let of_id = answers.get_mut(&notification.id).and_then(VecDeque::pop_front);
            of_id.or_else(|| answers.get_mut("").and_then(VecDeque::pop_front))
        };
        match answer {
            None => {}
            Some(Answer::Busy) => {
                return Err(Error::Unavailable {
                    place: "fake".into(),
                    reason: "busy".into(),
                    doubtful: false,
                    retry_after: None,
                });
            }
            Some(Answer::Refused) => {
                return Err(Error::Refused { place: "fake".into(), status: 403, message: "no".into() });
            }
            Some(Answer::Panic) => panic!("asked to"),
            Some(Answer::Never) => pending().await,
        }
        lock(&self.taken).push(notification.id.clone());
        Ok(())
    }
}

impl Sink<Arc<Notification>> for FakeSink {
    fn write<'s, 'f>(&'s self, notification: Arc<Notification>) -> BoxFuture<'f, Result<(), Error>>
    where
        's: 'f,
        Self: 'f,
    {
        self.take(notification).boxed()
    }

    fn flush<'s, 'f>(&'s self) -> BoxFuture<'f, Result<(), Error>>
    where
        's: 'f,
        Self: 'f,
    {
        async { Ok(()) }.boxed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
