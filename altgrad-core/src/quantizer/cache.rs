//! A cache for a value that is computed once and kept until it may be out of date.

use altgrad_kernels::lock::Lock;

use crate::Result;

/// A value that is computed when it is first needed and cloned from then on.
#[derive(Clone, Debug)]
pub(crate) struct Cache<T>(Lock<Entry<T>>);

#[derive(Clone, Debug)]
struct Entry<T> {
    value: Option<T>,
    /// Whether the next computed value is kept.
    keeps: bool,
    /// How often values were dropped: a value whose computation began before a drop must not be kept after it.
    drops: u64,
}

impl<T: Clone> Cache<T> {
    /// An empty cache that keeps the first value.
    pub(crate) fn new() -> Self {
        Self(Lock::new(Entry { value: None, keeps: true, drops: 0 }))
    }

    /// The cached value, or else the result of `compute`. Threads that need it at the same time may all compute it;
    /// they then all get the one that was ready first.
    pub(crate) fn get_or_compute(&self, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        let drops = match self.0.with(|entry| entry.value.clone().ok_or(entry.drops)) {
            Ok(value) => return Ok(value),
            Err(drops) => drops,
        };
        let value = compute()?;
        Ok(self.0.with(|entry| {
            if entry.keeps && entry.drops == drops { entry.value.get_or_insert(value).clone() } else { value }
        }))
    }

    /// The value, if one is kept.
    pub(crate) fn peek(&self) -> Option<T> {
        self.0.with(|entry| entry.value.clone())
    }

    /// Drops the value, and keeps the next one.
    pub(crate) fn renew(&self) {
        self.drop_value(true);
    }

    /// Drops the value, without changing whether the next one is kept.
    pub(crate) fn forget(&self) {
        let value = self.0.with(|entry| {
            entry.drops += 1;
            entry.value.take()
        });
        drop(value);
    }

    /// Drops the value and keeps none until it is [renewed](Self::renew).
    pub(crate) fn disable(&self) {
        self.drop_value(false);
    }

    fn drop_value(&self, keeps: bool) {
        let value = self.0.with(|entry| {
            entry.keeps = keeps;
            entry.drops += 1;
            entry.value.take()
        });
        // Dropped outside the lock, since it may be large.
        drop(value);
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;
    use crate::{Error, ModelError};

    #[test]
    fn a_value_is_computed_once() {
        let cache = Cache::new();
        assert_eq!(cache.get_or_compute(|| Ok(1)).unwrap(), 1);
        assert_eq!(cache.get_or_compute(|| Ok(2)).unwrap(), 1);
        cache.renew();
        assert!(cache.get_or_compute(|| Err::<i32, _>(Error::Model(ModelError::NoLayers))).is_err());
        assert_eq!(cache.get_or_compute(|| Ok(3)).unwrap(), 3);
    }

    #[test]
    fn nothing_is_kept_while_disabled() {
        let cache = Cache::new();
        cache.get_or_compute(|| Ok(1)).unwrap();
        cache.disable();
        assert_eq!(cache.get_or_compute(|| Ok(2)).unwrap(), 2);
        assert_eq!(cache.get_or_compute(|| Ok(3)).unwrap(), 3);
        cache.renew();
        assert_eq!(cache.get_or_compute(|| Ok(4)).unwrap(), 4);
        assert_eq!(cache.get_or_compute(|| Ok(5)).unwrap(), 4);
    }

    #[test]
    fn what_was_begun_before_a_drop_is_not_kept_after_it() {
        let cache = Cache::new();
        let value = cache.get_or_compute(|| {
            cache.renew();
            Ok(1)
        });
        assert_eq!(value.unwrap(), 1, "whoever began has its own");
        assert_eq!(cache.get_or_compute(|| Ok(2)).unwrap(), 2);
    }

    #[test]
    fn the_first_of_two_that_compute_wins() {
        let cache = Cache::new();
        let value = cache.get_or_compute(|| {
            cache.get_or_compute(|| Ok(1))?;
            Ok(2)
        });
        assert_eq!(value.unwrap(), 1);
    }
}
