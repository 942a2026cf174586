//! What receivers do to those who send to them, and a choice of it that can be made again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misbehaviour {
    /// The request is not read, all connections are closed, and new ones are refused for so long.
    /// Then it listens again, on the same port.
    Refuse { pause: Duration },
    /// The connection is closed before anything was read.
    CutBeforeReading,
    /// The request is read, and the connection closed without an answer.
    CutBeforeAnswer,
    /// The request is read, and the connection closed within the headers of a 200: the client
    /// cannot know.
    CutInHeaders,
    /// The request is read, and the connection closed within the body of a 200: the status has
    /// come.
    CutInBody,
    /// 200, so long after the request was read.
    Slow { pause: Duration },
    /// 429, with `Retry-After` in seconds.
    Busy { retry_after: u64 },
    /// 503.
    Unavailable,
    /// 400. Unlike the others it says that trying again is of no use.
    Reject,
}

impl Misbehaviour {
    /// One of each kind after which trying again helps. A pause that is longer than the client's
    /// patience makes its request time out.
    pub fn passing(pause: Duration) -> Vec<Self> {
        vec![
            Self::Refuse { pause },
            Self::CutBeforeReading,
            Self::CutBeforeAnswer,
            Self::CutInHeaders,
            Self::CutInBody,
            Self::Slow { pause },
            Self::Busy { retry_after: 1 },
            Self::Unavailable,
        ]
    }
}

/// Draws what to do with request after request.
#[derive(Debug)]
pub(super) struct Mood {
    random: StdRng,
    share: f64,
    among: Vec<Misbehaviour>,
}

impl Mood {
    pub(super) fn new(seed: u64, share: f64, among: &[Misbehaviour]) -> Self {
        assert!((0.0..=1.0).contains(&share) && !among.is_empty(), "share=`{share}` among=`{among:?}`");
        Self { random: StdRng::seed_from_u64(seed), share, among: among.to_vec() }
    }

    pub(super) fn draw(&mut self) -> Option<Misbehaviour> {
        let misbehaves = self.random.random_bool(self.share);
        // Drawn in any case, so that another share moves no later choice.
        let chosen = self.among[self.random.random_range(0..self.among.len())];
        misbehaves.then_some(chosen)
    }
}
