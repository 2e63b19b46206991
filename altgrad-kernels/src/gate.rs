//! Help from other threads of the current `rayon` pool, for a thread that runs no other jobs while it waits for them.
//!
//! With rayon's own joins, a thread that waits may run any job of its pool. A kernel reads tensors whose storage is
//! locked meanwhile (candle gives no other access to it). A job that needs such a lock, for example to write to a
//! weight, may then wait forever for a lock that is held further down its own stack. Here a thread that has no work
//! left waits only for helpers that are at work, and those wait for nobody. A helper that comes too late finds the
//! gate closed and leaves.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
#[allow(clippy::disallowed_types, reason = "a condition variable needs it; nothing is done while it is held")]
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::Lock;

/// Calls `work` on this thread and, while that runs, on up to `helpers` other threads of the current pool; returns
/// when all of these calls have returned. A panic in any of them continues in this thread.
#[allow(unsafe_code, reason = "jobs of a pool may outlive the caller, so they cannot borrow from it")]
pub(super) fn share(helpers: usize, work: &(dyn Fn() + Sync)) {
    let gate = Arc::new(Gate::default());
    let closing = Closing(&gate);
    // SAFETY: only the lifetime changes, which does not matter for a pointer until it is dereferenced. What a job
    // captures must be `'static`.
    #[allow(clippy::transmute_ptr_to_ptr, reason = "a cast may not extend the lifetime of a trait object")]
    let work_ptr =
        Work(unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync)>(work) });
    let task = Task { gate: Arc::clone(&gate), work: work_ptr };
    let board = Board::current();
    // Those that linger are at once there; only for the others are jobs spawned.
    let lingering = board.post(&task);
    for _ in 0..board.room(helpers).min(helpers.saturating_sub(lingering)) {
        let (board, task) = (Arc::clone(&board), task.clone());
        board.pending.fetch_add(1, Ordering::Relaxed);
        rayon::spawn(move || {
            board.pending.fetch_sub(1, Ordering::Relaxed);
            task.help();
            board.linger();
        });
    }
    work();
    drop(closing);
    if let Some(panic) = gate.panic.replace(None) {
        resume_unwind(panic);
    }
}

/// What helpers call, and the gate that they enter for it.
#[derive(Clone)]
struct Task {
    gate: Arc<Gate>,
    work: Work,
}

impl Task {
    /// Calls the work, unless it is too late.
    #[allow(unsafe_code, reason = "see the proof")]
    fn help(&self) {
        let Work(work) = self.work;
        if self.gate.enter() {
            // SAFETY: `work` is still borrowed. This is between `enter` and `leave`; `enter` fails once the gate is
            // closed, and `Closing` closes it and waits for every `leave` on each way out of `share`, unwinding
            // included.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*work)() }));
            if let Err(panic) = outcome {
                self.gate.panic.replace(Some(panic));
            }
            self.gate.leave();
        }
    }
}

/// A pointer to what helpers call.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn() + Sync));

// SAFETY: what it points to is `Sync`, so any thread may call it through a shared reference; `share` says when.
#[allow(unsafe_code, reason = "a pointer is never `Send` by itself")]
unsafe impl Send for Work {}

// SAFETY: as above; a shared reference to the pointer gives nothing but the pointer.
#[allow(unsafe_code, reason = "a pointer is never `Sync` by itself")]
unsafe impl Sync for Work {}

/// Where a thread that shares work posts it for helpers that linger: a model is one product after another, and waking
/// a thread that went to sleep takes longer than many of them.
#[derive(Default)]
struct Board {
    /// The latest task, and how many there have been.
    task: Lock<Option<Task>>,
    posted: AtomicUsize,
    lingering: AtomicUsize,
    /// Jobs that were spawned and that no other thread has begun yet. While all threads of a pool are busy, jobs pile
    /// up that will do nothing when their turn comes, so there is a limit.
    pending: AtomicUsize,
}

/// Jobs that may wait for each helper: some of the calls before this one may have ended before their helpers woke up.
const PENDING_PER_HELPER: usize = 4;

/// How long a helper lingers. When a model generates, what it computes between two products takes some ten
/// microseconds.
const LINGER: Duration = Duration::from_micros(100);

impl Board {
    thread_local! {
        static BOARD: Cell<Option<Arc<Board>>> = const { Cell::new(None) };
        static LINGERS: Cell<bool> = const { Cell::new(false) };
    }

    /// That of this thread.
    fn current() -> Arc<Self> {
        let board = Self::BOARD.take().unwrap_or_default();
        Self::BOARD.set(Some(Arc::clone(&board)));
        board
    }

    /// Posts a task, and returns how many helpers linger.
    fn post(&self, task: &Task) -> usize {
        self.task.replace(Some(task.clone()));
        self.posted.fetch_add(1, Ordering::Release);
        self.lingering.load(Ordering::Relaxed)
    }

    /// How many of `helpers` jobs can be spawned.
    fn room(&self, helpers: usize) -> usize {
        (helpers * PENDING_PER_HELPER).saturating_sub(self.pending.load(Ordering::Relaxed)).min(helpers)
    }

    /// Helps with what is posted, as long as something is posted every now and then.
    fn linger(&self) {
        // A job that runs while the thread lingers for another board does not keep it from that.
        if Self::LINGERS.replace(true) {
            return;
        }
        self.lingering.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.posted.load(Ordering::Acquire);
        let mut start = Instant::now();
        while start.elapsed() < LINGER {
            let posted = self.posted.load(Ordering::Acquire);
            if posted == seen {
                // Neither other jobs of the pool nor other threads are kept waiting: candle has threads of its own.
                rayon::yield_now();
                std::thread::yield_now();
                continue;
            }
            seen = posted;
            if let Some(task) = self.task.get() {
                task.help();
            }
            start = Instant::now();
        }
        self.lingering.fetch_sub(1, Ordering::Relaxed);
        Self::LINGERS.set(false);
    }
}

/// Counts the helpers inside, and lets no more in once it is closed.
#[derive(Default)]
#[allow(clippy::disallowed_types, reason = "a condition variable needs it; nothing is done while it is held")]
struct Gate {
    /// The number of helpers inside, and [`CLOSED`].
    entries: AtomicUsize,
    waiting: Mutex<()>,
    is_empty: Condvar,
    panic: Lock<Option<Box<dyn Any + Send>>>,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

/// How often the thread checks for the last helpers before it goes to sleep: each of them has one part left, and
/// waking up takes longer than most parts.
const SPINS: usize = 2000;

impl Gate {
    fn enter(&self) -> bool {
        let enter = |entries: usize| (entries & CLOSED == 0).then_some(entries + 1);
        self.entries.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).is_ok()
    }

    fn leave(&self) {
        if self.entries.fetch_sub(1, Ordering::Release) == CLOSED + 1 {
            // The thread that waits checks the entries under this lock, so it either sees that this was the last
            // helper or is notified.
            drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            self.is_empty.notify_one();
        }
    }

    fn close(&self) {
        self.entries.fetch_or(CLOSED, Ordering::Relaxed);
        // What helpers did happens before their `leave`, and therefore before what follows here.
        let is_empty = || self.entries.load(Ordering::Acquire) == CLOSED;
        for _ in 0..SPINS {
            if is_empty() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_empty() {
            guard = self.is_empty.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Closes a gate when it goes out of scope, however that happens.
struct Closing<'a>(&'a Gate);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use rayon::{ThreadPool, ThreadPoolBuilder};

    use super::{Board, Gate, share};

    fn pool(threads: usize) -> ThreadPool {
        ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
    }

    #[test]
    fn the_work_is_over_when_the_call_returns() {
        let pool = pool(4);
        for round in 0..2000 {
            let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
            pool.install(|| {
                share(3, &|| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    std::hint::black_box((0..round % 50).sum::<usize>());
                    ended.fetch_add(1, Ordering::Relaxed);
                });
                let (begun, ended) = (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
                assert!(begun == ended && (1..=4).contains(&begun), "{begun} begun, {ended} ended");
            });
        }
    }

    #[test]
    fn a_thread_that_waits_takes_up_no_other_job() {
        let pool = pool(2);
        let is_waiting = Arc::new(AtomicBool::new(true));
        let violations = Arc::new(AtomicUsize::new(0));
        pool.install(|| {
            let caller = std::thread::current().id();
            let helper_is_in = AtomicBool::new(false);
            share(1, &|| {
                if std::thread::current().id() != caller {
                    helper_is_in.store(true, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                    return;
                }
                // So that this thread has to wait for the helper, with a job at hand.
                while !helper_is_in.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                let (is_waiting, violations) = (Arc::clone(&is_waiting), Arc::clone(&violations));
                rayon::spawn(move || {
                    if std::thread::current().id() == caller && is_waiting.load(Ordering::Relaxed) {
                        violations.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
            is_waiting.store(false, Ordering::Relaxed);
        });
        assert_eq!(violations.load(Ordering::Relaxed), 0, "a job ran on top of one that waits");
    }

    #[test]
    fn a_panic_of_a_helper_goes_on_in_the_caller() {
        let pool = pool(2);
        let calls = AtomicUsize::new(0);
        let outcome = pool.install(|| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let caller = std::thread::current().id();
                share(1, &|| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    if std::thread::current().id() == caller {
                        while calls.load(Ordering::Relaxed) < 2 {
                            std::hint::spin_loop();
                        }
                    } else {
                        panic!("in a helper");
                    }
                });
            }))
        });
        let panic = outcome.expect_err("the helper panicked");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"in a helper"));
    }

    #[test]
    fn helpers_linger_and_leave() {
        let pool = pool(2);
        pool.install(|| {
            let lingering = || Board::current().lingering.load(Ordering::Relaxed);
            while lingering() == 0 {
                let begun = AtomicUsize::new(0);
                share(1, &|| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    // The caller waits for the helper, so there is one to linger.
                    while begun.load(Ordering::Relaxed) < 2 {
                        std::thread::yield_now();
                    }
                });
            }
            while lingering() != 0 {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn nobody_enters_a_closed_gate() {
        let gate = Gate::default();
        assert!(gate.enter());
        gate.leave();
        gate.close();
        assert!(!gate.enter());
        gate.close();
    }

    #[test]
    fn jobs_that_nobody_takes_up_do_not_pile_up() {
        let pool = pool(2);
        pool.install(|| {
            // The other thread is busy until the end.
            let done = Arc::new(AtomicUsize::new(0));
            let others = Arc::clone(&done);
            rayon::spawn(move || {
                while others.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
            });
            std::thread::sleep(Duration::from_millis(10));
            for _ in 0..100 {
                share(1, &|| {});
            }
            assert!(Board::current().pending.load(Ordering::Relaxed) <= super::PENDING_PER_HELPER);
            done.store(1, Ordering::Relaxed);
        });
    }
}
