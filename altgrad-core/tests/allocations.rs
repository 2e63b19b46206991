//! What passes through layers allocate, counted by an allocator.

#![allow(clippy::disallowed_types, reason = "tests that must run one by one")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking and say what they measured")]
#![allow(unsafe_code, reason = "an allocator is unsafe to implement; this one passes everything on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use altgrad_core::checkpoint::{Checkpoint, Dialect, Writer};
use altgrad_core::{
    Fp8, FrozenLinear, Granularity, Linear, Quantizable, QuantizedLinear, Quantizer, Recipe, backward_into,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Module, Tensor, Var};

/// Passes every call on, and keeps the sizes that are asked for.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static COUNTS: [AtomicUsize; usize::BITS as usize] = [const { AtomicUsize::new(0) }; usize::BITS as usize];

/// Bytes that are allocated at the moment, and the most there were since it was last set.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    BYTES.fetch_add(size, Ordering::Relaxed);
    COUNTS[size.max(1).ilog2() as usize].fetch_add(1, Ordering::Relaxed);
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What was allocated while something ran.
#[derive(Clone, Copy, Debug)]
struct Allocated {
    bytes: usize,
    /// Number of allocations of at least as many bytes as the weight has in full precision.
    weights: usize,
    /// Of at least as many as its codes have.
    codes: usize,
}

/// Side of the weight, which is by far the largest tensor here.
const SIDE: usize = 1024;
const CODES: usize = SIDE * SIDE;
const WEIGHT: usize = 4 * CODES;
const TOKENS: usize = 16;

/// Runs `work` and says what it allocated on all threads.
fn measure<R>(what: &str, work: impl FnOnce() -> R) -> (R, Allocated) {
    BYTES.store(0, Ordering::Relaxed);
    for count in &COUNTS {
        count.store(0, Ordering::Relaxed);
    }
    let result = work();
    let at_least =
        |size: usize| COUNTS[size.ilog2() as usize..].iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let bytes = BYTES.load(Ordering::Relaxed);
    let allocated = Allocated { bytes, weights: at_least(WEIGHT), codes: at_least(CODES) };
    println!("{what}: {allocated:?}");
    (result, allocated)
}

struct Trained {
    layer: QuantizedLinear,
    weight: Var,
    x: Var,
}

impl Trained {
    fn new(recipe: impl Into<Recipe>) -> Self {
        let random = |shape: (usize, usize)| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let weight = Var::from_tensor(&random((SIDE, SIDE))).unwrap();
        let bias = Var::from_tensor(&Tensor::zeros(SIDE, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let linear = candle_nn::Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
        let layer = QuantizedLinear::new(linear, recipe).unwrap();
        Self { layer, weight, x: Var::from_tensor(&random((TOKENS, SIDE))).unwrap() }
    }

    /// The allocations of a forward and of a backward pass, after `steps` of them.
    fn after(&self, steps: usize, what: &str) -> [Allocated; 2] {
        let forward = || self.layer.forward(&self.x).unwrap();
        for _ in 0..steps {
            forward().backward().unwrap();
        }
        let (y, forward) = measure(&format!("{what}, forward"), forward);
        let (gradients, backward) = measure(&format!("{what}, backward"), || y.backward().unwrap());
        assert!(gradients.get(&self.weight).is_some() && gradients.get(&self.x).is_some());
        [forward, backward]
    }
}

/// Tests run side by side, but must not count for one another.
static ALONE: Mutex<()> = Mutex::new(());

/// Candle adds the gradient of each argument to zeros of its size: two more tensors for each that an operation returns.
const GRADIENT_OF_CANDLE: usize = 3;

#[test]
fn a_step_on_codes_makes_no_copy_of_the_weight() {
    let _alone = ALONE.lock();
    for (name, recipe) in [
        ("tensorwise", Recipe::tensorwise()),
        ("hybrid", Recipe::hybrid()),
        ("tensorwise without gradients", Recipe::tensorwise().gradients(None)),
        ("tensorwise without activations", Recipe::tensorwise().activations(None)),
        ("weights", Recipe::from(Fp8::E4M3)),
    ] {
        let [forward, _] = Trained::new(recipe.clone()).after(0, &format!("{name}, first step"));
        assert_eq!((forward.weights, forward.codes), (0, 1), "{name}: the weight's codes are allocated once");
        let mut layer = Trained::new(recipe);
        let [forward, backward] = layer.after(2, name);
        assert_eq!((forward.weights, forward.codes), (0, 0), "{name}: codes are where those of the last step were");
        if name == "tensorwise without activations" {
            // A product of floats with codes is that of the gradient's transpose.
            assert_eq!(backward.weights, GRADIENT_OF_CANDLE + 1, "{name}: gradients alone");
        } else {
            assert_eq!(backward.weights, GRADIENT_OF_CANDLE, "{name}: gradients alone");
            assert!(backward.bytes < (GRADIENT_OF_CANDLE + 1) * WEIGHT, "{name}: {backward:?}");
        }
        layer.layer.set_training(false);
        drop(layer.layer.forward(&layer.x).unwrap());
        let [forward, _] = layer.after(0, &format!("{name}, eval"));
        assert_eq!((forward.weights, forward.codes), (0, 0), "{name}: eval mode keeps codes");
        let [forward, _] = layer.after(0, &format!("{name}, eval, trained"));
        assert_eq!((forward.weights, forward.codes), (0, 2), "{name}: but not once the weight has a gradient");
    }
}

#[test]
fn a_warm_step_takes_no_memory_for_weights() {
    const SIDE: usize = 3072;
    /// Those that live at the same time: the output, its gradient, the input's gradient and candle's sums.
    const ACTIVATIONS: usize = 5 * TOKENS * SIDE * 4;
    let _alone = ALONE.lock();
    let random = |shape: (usize, usize)| Var::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
    for (name, recipe) in [("tensorwise", Recipe::tensorwise()), ("hybrid", Recipe::hybrid())] {
        let (weight, x) = (random((SIDE, SIDE)), random((TOKENS, SIDE)));
        let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.as_tensor().clone(), None), recipe).unwrap();
        let mut gradients = GradStore::default();
        let mut step = || backward_into(&layer.forward(&x).unwrap(), &mut gradients).unwrap();
        step();
        step();
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        step();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        println!("{name}, a warm step: {peak} bytes at most");
        assert!(gradients.get(&weight).is_some());
        assert!(peak <= ACTIVATIONS + 4 * SIDE * SIDE / 100, "{name}: {peak} bytes");
    }
}

#[test]
fn codes_of_a_step_are_their_own_while_its_graph_lives() {
    let _alone = ALONE.lock();
    let layer = Trained::new(Recipe::tensorwise());
    let first = layer.layer.forward(&layer.x).unwrap();
    let expected = layer.layer.forward(&layer.x).unwrap().backward().unwrap();
    let ((), allocated) = measure("a second graph", || drop(layer.layer.forward(&(&*layer.x * 3.0).unwrap()).unwrap()));
    assert_eq!(allocated.codes, 0, "those of the graph that is gone");
    layer.weight.set(&(&*layer.weight * 0.5).unwrap()).unwrap();
    let (second, allocated) = measure("a third graph", || layer.layer.forward(&layer.x).unwrap());
    assert_eq!(allocated.codes, 0);
    let (_, allocated) = measure("a graph beside it", || layer.layer.forward(&layer.x).unwrap());
    assert_eq!(allocated.codes, 1, "the codes of a graph that lives are left alone");
    drop(second);
    let gradient =
        |gradients: &GradStore| gradients.get(&layer.x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(gradient(&first.backward().unwrap()), gradient(&expected), "the weight of the first graph");
}

#[test]
fn a_frozen_layer_makes_no_copy_of_its_codes() {
    let _alone = ALONE.lock();
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    for (name, recipe) in [("weights by row", rows.into()), ("mxfp8", Recipe::mxfp8())] {
        let Trained { layer, x, .. } = Trained::new(recipe);
        let frozen: FrozenLinear = layer.freeze().unwrap();
        drop(layer);
        let (y, allocated) = measure(&format!("{name}, frozen"), || frozen.forward(&x).unwrap());
        assert_eq!((allocated.weights, allocated.codes), (0, 0), "{name}");
        let (_, allocated) = measure(&format!("{name}, frozen, backward"), || y.backward().unwrap());
        assert_eq!((allocated.weights, allocated.codes), (0, 1), "{name}: codes in the order of their rows");
    }
}

#[test]
fn a_frozen_layer_takes_a_byte_a_weight() {
    let _alone = ALONE.lock();
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    for (outputs, inputs) in [(512, 512), (100, 511), (7, 513), (64, 4096)] {
        let weight = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let linear = candle_nn::Linear::new(weight.to_dtype(dtype).unwrap(), None);
            let mut model = Linear::from(linear.clone());
            model.quantize(Recipe::from(rows.clone())).unwrap();
            let expected = model.report().unwrap().bytes_frozen();
            let report = model.freeze().unwrap();
            assert_eq!([report.bytes_after(), report.bytes_frozen()], [expected; 2], "{outputs} × {inputs} {dtype:?}");

            let layer = QuantizedLinear::new(linear, rows.clone()).unwrap();
            let frozen = layer.freeze().unwrap();
            let a_weight = frozen.weight_bytes() as f64 / (outputs * inputs) as f64;
            println!("{outputs} × {inputs}: {a_weight} bytes a weight");
            assert!(a_weight <= 1.02, "{outputs} × {inputs} {dtype:?}: {a_weight}");
            let packed = layer.quantized_weight().unwrap();
            let codes = |packed: &altgrad_core::Fp8Tensor| packed.codes().to_vec2::<u8>().unwrap();
            assert_eq!(codes(&frozen.weight().unwrap()), codes(&packed));
        }
    }
}

#[test]
fn quantizing_a_checkpoint_takes_memory_for_pieces_alone() {
    const BOUND: usize = 16 << 20;
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    // 128 MiB in two tensors, written without having them in memory.
    let (rows, cols) = (4096, 4096);
    let bytes = 4 * rows * cols;
    let tensor = |first: usize| {
        format!(r#"{{"dtype":"F32","shape":[{rows},{cols}],"data_offsets":[{first},{}]}}"#, first + bytes)
    };
    let header = format!(r#"{{"a.weight":{},"b.weight":{}}}"#, tensor(0), tensor(bytes));
    let path = folder.path().join("model.safetensors");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for i in 0..2 * rows * cols {
        file.write_all(&((i % 1009) as f32 - 504.0).to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
    drop(file);

    let original = Checkpoint::open(&[&path]).unwrap();
    for (number, granularity) in
        [Granularity::PerTensor, Granularity::PerRow, Granularity::PerBlock { rows: 128, cols: 128 }]
            .into_iter()
            .enumerate()
    {
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity);
        let out = folder.path().join(number.to_string());
        Writer::new(Dialect::CompressedTensors).quantize(&original, quantizer, out, |_| ()).unwrap();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        println!("{granularity:?}: {:.1} MB at most", peak as f64 / 1e6);
        assert!(peak < BOUND, "{granularity:?}: {peak} bytes");
    }
}
