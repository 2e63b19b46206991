//! The progress bar, with the loss and tokens per second.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    tokens_per_step: usize,
}

impl Progress {
    pub(crate) fn new(name: &str, steps: usize, tokens_per_step: usize) -> Self {
        let bar = ProgressBar::new(steps as u64).with_prefix(name.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{prefix:<14} {bar:20} {pos}/{len} {msg} {eta} left") {
            bar.set_style(style);
        }
        Self { bar, start: Instant::now(), tokens_per_step }
    }

    pub(crate) fn step(&self, loss: f32) {
        self.bar.inc(1);
        self.bar.set_message(format!("loss {loss:.3} {:.0} tokens/s", self.tokens_per_second()));
    }

    /// Removes the bar; returns tokens per second over all steps.
    pub(crate) fn finish(&self) -> f64 {
        let speed = self.tokens_per_second();
        self.bar.finish_and_clear();
        speed
    }

    fn tokens_per_second(&self) -> f64 {
        let tokens = self.bar.position() * self.tokens_per_step as u64;
        tokens as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }
}
