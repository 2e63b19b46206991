//! The lock of this crate: it is held to copy or replace a value, never while something is computed.

use std::fmt;
#[allow(clippy::disallowed_types, reason = "this is the lock that is to be used instead")]
use std::sync::Mutex;
use std::sync::PoisonError;

/// A value that threads share.
///
/// Waiting for a lock under which a kernel runs may take forever: a thread of a `rayon` pool that waits for others
/// runs any job in the meantime, and that job may need the lock that is held further down its own stack. So a lock is
/// held only for a copy or a replacement, and there is no guard to keep: compute from a copy, then lock to record.
/// Kernels, and code that calls implementations from outside altgrad, assert in debug builds that
/// [`nothing_is_held`].
#[allow(clippy::disallowed_types, reason = "this is the lock that is to be used instead")]
pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        #[allow(clippy::disallowed_types, reason = "this is the lock that is to be used instead")]
        Self(Mutex::new(value))
    }

    /// Calls `access` with the value while no other thread has it.
    ///
    /// A panic of another thread in `access` leaves the value valid, since no `access` here changes a value in
    /// several steps.
    pub fn with<R>(&self, access: impl FnOnce(&mut T) -> R) -> R {
        let _held = debug::Held::new();
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of the value.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.with(|value| value.clone())
    }

    /// Replaces the value and returns the old one, so that it is not dropped under the lock.
    pub fn replace(&self, value: T) -> T {
        self.with(|current| std::mem::replace(current, value))
    }

    /// The value, when no thread shares it any more.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Clone> Clone for Lock<T> {
    fn clone(&self) -> Self {
        Self::new(self.get())
    }
}

impl<T: fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether this thread holds no [`Lock`]; release builds do not check.
#[must_use]
pub fn nothing_is_held() -> bool {
    debug::nothing_is_held()
}

#[cfg(debug_assertions)]
mod debug {
    use std::cell::Cell;

    thread_local! {
        static LOCKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts as a lock of this thread while it lives.
    pub(super) struct Held(());

    impl Held {
        pub(super) fn new() -> Self {
            LOCKS.set(LOCKS.get() + 1);
            Self(())
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            LOCKS.set(LOCKS.get() - 1);
        }
    }

    pub(super) fn nothing_is_held() -> bool {
        LOCKS.get() == 0
    }
}

#[cfg(not(debug_assertions))]
mod debug {
    pub(super) struct Held(());

    impl Held {
        pub(super) const fn new() -> Self {
            Self(())
        }
    }

    pub(super) const fn nothing_is_held() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;

    #[test]
    fn a_value_is_copied_and_replaced() {
        let lock = Lock::new(vec![1]);
        lock.with(|value| value.push(2));
        assert_eq!(lock.get(), [1, 2]);
        assert_eq!(lock.replace(vec![3]), [1, 2]);
        assert_eq!(lock.clone().into_inner(), [3]);
    }

    #[test]
    fn a_panic_under_the_lock_leaves_it_usable() {
        let lock = Lock::new(1);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lock.with(|_| panic!("in a test"))));
        assert!(panic.is_err());
        assert_eq!(lock.get(), 1);
        assert!(super::nothing_is_held());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "no lock is held")]
    fn kernels_refuse_to_run_under_a_lock() {
        use crate::{Blocks, amax};

        let lock = Lock::new([1f32; 4]);
        let _ = lock.with(|values| amax(values, Blocks::per_tensor(1, 4)));
    }
}
