#!/usr/bin/env python3
"""Times the products and training steps of the other benchmarks in PyTorch (PyPI package torch) on the same machine.

Prints medians in milliseconds, for the shapes of `frozen_linear.rs` and `training_step.rs`.
"""

import statistics
import time

import torch

PRODUCTS = [(1, 4096, 4096), (8, 4096, 4096), (64, 4096, 4096), (256, 4096, 4096), (256, 4096, 1024), (512, 768, 768)]
STEPS = [(256, 768, 3072), (2048, 768, 768), (64, 4096, 4096)]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def median_ms(run, seconds=2.0):
    run()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def product(tokens, inputs, outputs, dtype):
    x = torch.randn(tokens, inputs, dtype=dtype)
    linear = torch.nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    with torch.inference_mode():
        return median_ms(lambda: linear(x))


def step(tokens, inputs, outputs, dtype):
    x = torch.randn(tokens, inputs, dtype=dtype, requires_grad=True)
    linear = torch.nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    direction = torch.randn(tokens, outputs, dtype=dtype)

    def run():
        x.grad = linear.weight.grad = None
        linear(x).backward(direction)

    return median_ms(run)


print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
for what, shapes, measure in (("product", PRODUCTS, product), ("training step", STEPS, step)):
    for tokens, inputs, outputs in shapes:
        for name, dtype in DTYPES.items():
            print(f"{what} {tokens}x{inputs}x{outputs} {name}: {measure(tokens, inputs, outputs, dtype):.2f} ms")
