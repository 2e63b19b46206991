//! The largest magnitudes of past steps.

use std::collections::VecDeque;

/// The largest magnitudes (amax) of the last steps, oldest first.
///
/// Only finite values are recorded: an overflow somewhere in training must not spoil the scales of the steps after it.
///
/// ```
/// use altgrad::AmaxHistory;
///
/// let mut history = AmaxHistory::new(2);
/// for amax in [3.0, 1.0, f32::NAN, 2.0] {
///     history.record(amax);
/// }
/// assert_eq!(history.iter().collect::<Vec<_>>(), [1.0, 2.0]);
/// assert_eq!(history.largest(), Some(2.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AmaxHistory {
    values: VecDeque<f32>,
    capacity: usize,
}

impl AmaxHistory {
    /// An empty history of the last `capacity` steps.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { values: VecDeque::new(), capacity }
    }

    /// Adds a step, and drops the oldest if the history is full; ignores a value that is not finite.
    pub fn record(&mut self, amax: f32) {
        if !amax.is_finite() {
            return;
        }
        self.values.push_back(amax.abs());
        while self.values.len() > self.capacity {
            self.values.pop_front();
        }
    }

    /// The largest of the recorded values; `None` if there is none.
    #[must_use]
    pub fn largest(&self) -> Option<f32> {
        self.iter().reduce(f32::max)
    }

    /// The recorded values, oldest first.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f32> {
        self.values.iter().copied()
    }

    /// Number of recorded values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was recorded yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The largest number of values that are kept.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.values.clear();
    }
}
