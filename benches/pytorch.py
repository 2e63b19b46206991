#!/usr/bin/env python3
"""Times the products and training steps of the other benchmarks in PyTorch (PyPI package torch) on the same machine.

Prints medians in milliseconds, for the shapes of `frozen_linear.rs`, `training_step.rs` and `transformer_ops.rs`, and tokens
per second of `examples/train_gpt` with the width 384.
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

    def run():
        x.grad = linear.weight.grad = None
        y = linear(x)
        y.backward(torch.ones_like(y))

    return median_ms(run)


def operations():
    """The operations of `transformer_ops.rs`, each with the shapes of its arguments."""
    F = torch.nn.functional
    tokens, width, classes = 2048, 768, 8192
    hidden, heads = (tokens, 4 * width), (16, 12, 128, 64)
    mask = torch.full((128, 128), float("-inf")).triu(1)
    angles = torch.rand(128, 32) * 6
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    targets = torch.arange(tokens) * 7 % classes

    def rope(x):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    return {
        "layer_norm": (lambda x, w, b: F.layer_norm(x, (width,), w, b), (tokens, width), (width,), (width,)),
        "rms_norm": (lambda x, w: F.rms_norm(x, (width,), w, 1e-5), (tokens, width), (width,)),
        "gelu": (lambda x: F.gelu(x, approximate="tanh"), hidden),
        "gelu_erf": (F.gelu, hidden),
        "silu_mul": (lambda x, up: F.silu(x) * up, hidden, hidden),
        "causal softmax": (lambda x: (x + mask).softmax(-1), (16, 12, 128, 128)),
        "rope": (rope, heads),
        "cross_entropy": (lambda x: F.cross_entropy(x, targets), (tokens, classes)),
        "causal attention": (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), heads, heads, heads),
    }


def operation(compute, *shapes):
    arguments = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def run():
        for argument in arguments:
            argument.grad = None
        y = compute(*arguments)
        y.backward(torch.ones_like(y))

    return median_ms(run)


class Block(torch.nn.Module):
    """A block of `examples/train_gpt`."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attention, self.projection = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time, width = x.shape
        qkv = self.attention(self.ln_1(x)).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Gpt(torch.nn.Module):
    """The model of `examples/train_gpt`."""

    def __init__(self, width, heads, layers, context):
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(256, width), torch.nn.Embedding(context, width)
        self.blocks = torch.nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.ln_f = torch.nn.LayerNorm(width)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        return self.ln_f(self.blocks(x)) @ self.wte.weight.t()


def tokens_per_second(width, heads, layers, batch, context, dtype):
    model = Gpt(width, heads, layers, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def run():
        tokens = torch.randint(0, 256, (batch, context + 1))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = model(tokens[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return 1e3 * batch * context / median_ms(run, 10.0)


print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
for what, shapes, measure in (("product", PRODUCTS, product), ("training step", STEPS, step)):
    for tokens, inputs, outputs in shapes:
        for name, dtype in DTYPES.items():
            print(f"{what} {tokens}x{inputs}x{outputs} {name}: {measure(tokens, inputs, outputs, dtype):.2f} ms")
for name, (compute, *shapes) in operations().items():
    print(f"{name}, forward and backward, f32: {operation(compute, *shapes):.2f} ms")
for name, dtype in DTYPES.items():
    rate = tokens_per_second(width=384, heads=6, layers=4, batch=16, context=128, dtype=dtype)
    print(f"train_gpt --width 384 --heads 6 --layers 4 --batch 16 --context 128, {name}: {rate:.0f} tokens/s")
