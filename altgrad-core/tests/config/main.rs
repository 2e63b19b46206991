//! A config as a file: what can be said, what comes back, and what every mistake is told.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod errors;
mod forms;
mod round_trip;
