//! Who is notified of which alerts, and when. No I/O, no clock, no Arrow.
//!
//! - `transition`: an alert's change from one status to another, as the `alerts` topic has it
//! - `dispatch`: from transitions to notifications

pub mod dispatch;
mod error;
mod time;
mod transition;

pub use error::{Error, Result};
pub use time::rfc3339;
pub use transition::{
    Cause, StageTimes, Status, SystemAlert, Transition, incident_id, named_id, provisional_id, transition_id,
};
