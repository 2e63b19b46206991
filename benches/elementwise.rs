//! How fast are the elementwise kernels on one thread? Bare slices, against a copy of as many bytes and candle's own
//! casts to and from F8E4M3, which know no scale and allocate their result.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

mod common;

use std::hint::black_box;

use altgrad::Fp8;
use altgrad::kernels::{self, Blocks, Conversion, Element, Level};
use candle_core::{DType, Device, Tensor, WithDType};
use criterion::Criterion;
use half::bf16;

/// 16 M values: 64 MiB of `f32`, more than caches hold.
const SHAPE: (usize, usize) = (4096, 4096);
const ELEMENTS: usize = SHAPE.0 * SHAPE.1;

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    println!("kernels for {}", Level::detect());
    let mut criterion = common::criterion();
    for (name, blocks) in [
        ("tensor", Blocks::per_tensor(SHAPE.0, SHAPE.1)),
        ("row", Blocks::per_row(SHAPE.0, SHAPE.1)),
        ("1x32", Blocks::per_block(SHAPE, (1, 32))),
    ] {
        bench::<f32>(&mut criterion, name, blocks, |value| value);
        bench::<bf16>(&mut criterion, name, blocks, bf16::from_f32);
    }
    criterion.final_summary();
}

fn bench<T: Element + WithDType>(
    criterion: &mut Criterion,
    granularity: &str,
    blocks: Blocks,
    element: impl Fn(f32) -> T,
) {
    let from: Vec<T> = (0..ELEMENTS).map(|i| element((i * 7919 % 100_003) as f32 * 0.001 - 50.0)).collect();
    let conversion = Conversion::new(Fp8::E4M3, blocks, vec![0.3; blocks.count()]).unwrap();
    let tensor = Tensor::from_slice(&from, SHAPE, &Device::Cpu).unwrap();
    let packed = tensor.to_dtype(DType::F8E4M3).unwrap();
    let (mut to, mut codes) = (from.clone(), vec![0u8; ELEMENTS]);
    let mut run = |operation: &str, bytes: usize, kernel: &mut dyn FnMut(), cast: &dyn Fn() -> Tensor| {
        let (copied, mut copy) = (vec![1u8; bytes], vec![2u8; bytes]);
        let mut contestants: Vec<common::Contestant<'_>> = vec![
            ("altgrad", Box::new(kernel)),
            ("memcpy", Box::new(|| black_box(&mut copy).copy_from_slice(black_box(&copied)))),
        ];
        if granularity == "tensor" {
            contestants.push(("candle", Box::new(|| drop(black_box(cast())))));
        }
        let group = format!("{operation}_{}_{granularity}", T::DTYPE.as_str());
        common::compare(criterion, &group, (ELEMENTS, "elements"), contestants);
    };

    // A copy of half as many bytes reads and writes as many as the kernel does.
    let (wide, narrow) = (ELEMENTS * size_of::<T>(), ELEMENTS * (size_of::<T>() + 1) / 2);
    let cast_there = || tensor.to_dtype(DType::F8E4M3).unwrap();
    let cast_back = |codes: &Tensor| codes.to_dtype(T::DTYPE).unwrap();
    let mut fake_quantize = || kernels::fake_quantize(&from, &mut to, &conversion).unwrap();
    run("fake_quantize", wide, &mut fake_quantize, &|| cast_back(&cast_there()));
    run("encode", narrow, &mut || kernels::encode(&from, &mut codes, &conversion).unwrap(), &cast_there);
    run("decode", narrow, &mut || kernels::decode(&codes, &mut to, &conversion).unwrap(), &|| cast_back(&packed));
}
