//! Gradients between operations of altgrad on the CPU, past candle's sums.
//!
//! Candle adds each gradient of a tensor to zeros of the tensor's size: two more passes over memory, and two more
//! buffers. So the nodes of candle's graph that are connected here are not results but *tokens* of one number: that of
//! an operation depends on those of the operations before it, and each result is read off its operation's token by a
//! node of its own, for whatever candle does with it. In the backward pass an operation leaves the gradient of an
//! argument in the *inbox* of the operation that computed it, and gives candle a power of two for the token, another
//! one for each reader. What candle sums is then the set of readers that have left a gradient in this very pass.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, ThreadId};

use altgrad_kernels::lock::Lock;
use candle_core::{CpuStorage, Device, Result, Shape, Tensor, TensorId, bail};

use super::graph::{Computed, Gradients, Operation, Pending, apply};
use super::node::for_candle;
use super::sink;

/// What a backward pass gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    pub(super) arguments: &'a [&'a Tensor],
    /// Outside of the graph.
    pub(super) results: &'a [Tensor],
    /// Those of the results that have one.
    pub(super) gradients: &'a [Option<Tensor>],
}

/// Tensors with these results that depend on one to three arguments.
pub(super) fn attach<const N: usize, B>(
    results: [(Computed, Shape); N],
    arguments: &[&Tensor],
    backward: B,
) -> Result<[Tensor; N]>
where
    B: Fn(Pass<'_>) -> crate::Result<Gradients> + Send + Sync + 'static,
{
    let inbox = Arc::new(Inbox::default());
    let readings: Vec<Reading> = arguments.iter().map(|argument| Reading::of(argument)).collect();
    let nodes: Vec<Tensor> = readings.iter().map(|reading| reading.node().clone()).collect();
    let result = Pending::new(Computed::Cpu(CpuStorage::F32(vec![0.0])), ().into());
    let linked = Linked { result, readings, inbox: Arc::clone(&inbox), count: N, backward };
    let token = apply(linked, &nodes.iter().collect::<Vec<_>>())?;
    let mut tensors = Vec::with_capacity(N);
    for (number, (result, shape)) in results.into_iter().enumerate() {
        let source = Arc::new(Source { token: token.clone(), inbox: Arc::clone(&inbox), number });
        let reader = Reader { result: Pending::new(result, shape), flag: inbox.new_flag()?, source };
        let source = Arc::downgrade(&reader.source);
        let y = apply(reader, &[&token])?;
        Sources::remember(&y, source);
        tensors.push(y);
    }
    if inbox.results.set(tensors.iter().map(Tensor::detach).collect()).is_err() {
        bail!("the results of an operation are kept once");
    }
    tensors.try_into().map_err(|_| candle_core::Error::Msg("as many tensors as results".to_owned()))
}

/// An operation, as those that read one of its results know it.
struct Source {
    token: Tensor,
    inbox: Arc<Inbox>,
    /// Which of the results it is.
    number: usize,
}

/// The sources of this thread's results, as long as those live.
#[derive(Default)]
struct Sources {
    all: HashMap<TensorId, Weak<Source>>,
    /// When there are so many, those that are gone are forgotten.
    most: usize,
}

thread_local! {
    static SOURCES: RefCell<Sources> = RefCell::default();
}

impl Sources {
    fn find(result: &Tensor) -> Option<Arc<Source>> {
        SOURCES.with_borrow(|sources| sources.all.get(&result.id()).and_then(Weak::upgrade))
    }

    fn remember(result: &Tensor, source: Weak<Source>) {
        SOURCES.with_borrow_mut(|Self { all, most }| {
            if all.len() >= *most {
                all.retain(|_, source| source.strong_count() > 0);
                *most = 2 * all.len() + 64;
            }
            all.insert(result.id(), source);
        });
    }
}

/// An argument of an operation, and where its gradient goes.
struct Reading {
    argument: Tensor,
    /// Its source, and the flag of this reader, if it is the result of an operation that is linked.
    source: Option<(Arc<Source>, u32)>,
}

impl Reading {
    fn of(argument: &Tensor) -> Self {
        // Without a flag that is left, candle sums the gradient.
        let source = Sources::find(argument).and_then(|source| {
            let flag = source.inbox.new_flag().ok()?;
            Some((source, flag))
        });
        Self { argument: argument.clone(), source }
    }

    /// What candle's graph connects the operation to.
    fn node(&self) -> &Tensor {
        self.source.as_ref().map_or(&self.argument, |(source, _)| &source.token)
    }

    /// Takes the gradient of the argument; returns that of the [node](Self::node).
    fn give(&self, gradient: Option<Tensor>) -> Result<Option<Tensor>> {
        let (Some((source, flag)), Some(found)) = (&self.source, &gradient) else {
            return for_candle(&self.argument, gradient);
        };
        source.leave(*flag, found)?;
        Ok(Some(Tensor::new(*flag as f32, &Device::Cpu)?))
    }
}

impl Source {
    fn leave(&self, flag: u32, gradient: &Tensor) -> Result<()> {
        let shape = self.inbox.results.get().and_then(|results| results.get(self.number)).map(Tensor::shape);
        if shape != Some(gradient.shape()) {
            bail!("a gradient of the shape {:?} for a result of the shape {shape:?}", gradient.shape());
        }
        self.inbox.leave(Letter {
            thread: thread::current().id(),
            flag,
            number: self.number,
            gradient: gradient.clone(),
        });
        Ok(())
    }
}

/// Where the gradients of an operation's results are left.
#[derive(Default)]
struct Inbox {
    /// Flags given out.
    flags: AtomicU32,
    letters: Lock<Vec<Letter>>,
    /// Outside of the graph.
    results: OnceLock<Vec<Tensor>>,
}

/// A gradient of one result by one reader.
struct Letter {
    /// A backward pass runs on one thread: passes through the same operation at the same time do not meet.
    thread: ThreadId,
    flag: u32,
    number: usize,
    gradient: Tensor,
}

/// `f32` is exact for sums of so many different powers of two.
const FLAGS: u32 = f32::MANTISSA_DIGITS;

impl Inbox {
    /// The flag of a new reader: a power of two that no other one has.
    fn new_flag(&self) -> Result<u32> {
        match self
            .flags
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |given| (given < FLAGS).then_some(given + 1))
        {
            Ok(given) => Ok(1 << given),
            Err(_) => bail!("a result has more than {FLAGS} readers"),
        }
    }

    /// Leaves a gradient, in place of one that a pass which failed has left.
    fn leave(&self, letter: Letter) {
        let old = self.letters.with(|letters| {
            let same = letters.iter().position(|old| (old.thread, old.flag) == (letter.thread, letter.flag));
            let old = same.map(|place| letters.remove(place));
            letters.push(letter);
            old
        });
        drop(old);
    }

    /// The gradients of `count` results that readers with these flags have left on this thread, in the order in which
    /// they were left.
    fn take(&self, flags: u32, count: usize) -> Result<Vec<Option<Tensor>>> {
        let thread = thread::current().id();
        let letters: Vec<Letter> =
            self.letters.with(|letters| letters.extract_if(.., |letter| letter.thread == thread).collect());
        let sum = |number: usize| {
            let of_pass = letters.iter().filter(|letter| letter.flag & flags != 0 && letter.number == number);
            sum(of_pass.map(|letter| &letter.gradient))
        };
        (0..count).map(sum).collect()
    }
}

/// The sum of gradients; the first two make a new tensor, since others may have the same memory.
fn sum<'a>(mut gradients: impl Iterator<Item = &'a Tensor>) -> Result<Option<Tensor>> {
    let (Some(first), second) = (gradients.next(), gradients.next()) else { return Ok(None) };
    let Some(second) = second else { return Ok(Some(first.clone())) };
    let mut sum = sink::sum(first, second)?;
    for gradient in gradients {
        sum = sink::add(&sum, gradient)?;
    }
    Ok(Some(sum))
}

/// An operation whose node is a token.
struct Linked<B> {
    result: Pending,
    readings: Vec<Reading>,
    inbox: Arc<Inbox>,
    /// Number of results.
    count: usize,
    backward: B,
}

impl<B> Operation for Linked<B>
where
    B: Fn(Pass<'_>) -> crate::Result<Gradients> + Send + Sync + 'static,
{
    fn result(&self) -> &Pending {
        &self.result
    }

    fn gradients(&self, _: &[&Tensor], _: &Tensor, flags: &Tensor) -> Result<Gradients> {
        let gradients = self.inbox.take(flags.to_scalar::<f32>()? as u32, self.count)?;
        let arguments: Vec<&Tensor> = self.readings.iter().map(|reading| &reading.argument).collect();
        let results = self.inbox.results.get().map_or(&[][..], Vec::as_slice);
        let mut found = (self.backward)(Pass { arguments: &arguments, results, gradients: &gradients })?;
        for (reading, gradient) in self.readings.iter().zip(&mut found) {
            *gradient = reading.give(gradient.take())?;
        }
        Ok(found)
    }
}

/// Reads a result off a token, for candle's operations.
struct Reader {
    result: Pending,
    flag: u32,
    source: Arc<Source>,
}

impl Operation for Reader {
    fn result(&self) -> &Pending {
        &self.result
    }

    fn gradients(&self, _: &[&Tensor], _: &Tensor, dy: &Tensor) -> Result<Gradients> {
        self.source.leave(self.flag, dy)?;
        Ok([Some(Tensor::new(self.flag as f32, &Device::Cpu)?), None, None])
    }
}
