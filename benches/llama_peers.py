#!/usr/bin/env python3
"""Times llama.cpp and PyTorch on the models of `llama.rs`, with random weights, on the same machine.

Prints medians in tokens per second. Needs the PyPI packages llama-cpp-python and gguf (for llama.cpp), torch and
transformers (for PyTorch), and numpy; what is not installed is left out. An argument names the models to measure, such
as 135M. `--threads N` sets the number of threads; the default is that of rayon, one for each logical core.
"""

import argparse
import os
import statistics
import tempfile
import time

PROMPT, GENERATED, ROUNDS = 256, 64, 5
MODELS = {
    "SmolLM2-135M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
    },
    "LLaMA-3.2-1B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    },
}

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="*")
parser.add_argument("--threads", type=int, default=os.cpu_count())
arguments = parser.parse_args()


def report(name, what, prefill, decode):
    """`prefill` and `decode` run a round each, in this order; the first round is not counted."""
    rates = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        prefill()
        middle = time.perf_counter()
        decode()
        rates.append((PROMPT / (middle - start), GENERATED / (time.perf_counter() - middle)))
    prefill_rate, decode_rate = (statistics.median(rate) for rate in zip(*rates[1:]))
    print(f"{name}: {what:16} prefill {prefill_rate:7.1f}, decode {decode_rate:6.1f}", flush=True)


def tokens(shape, first, count):
    return [place * 7919 % shape["vocab_size"] for place in range(first, first + count)]


def write_gguf(path, shape):
    import gguf
    import numpy as np

    hidden, inner, heads, keys = (shape[key] for key in (
        "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"))
    keys = hidden // heads * keys
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_tokenizer_model("none")
    random = np.random.default_rng(1)

    def add(name, *dims):
        if len(dims) == 1:
            writer.add_tensor(name + ".weight", np.ones(dims, np.float32))
            return
        weight = random.standard_normal(dims, np.float32) * np.float32(0.02)
        q8_0 = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name + ".weight", gguf.quants.quantize(weight, q8_0), raw_dtype=q8_0)

    add("token_embd", shape["vocab_size"], hidden)
    add("output_norm", hidden)
    for layer in range(shape["num_hidden_layers"]):
        for name, *dims in [
            ("attn_q", hidden, hidden), ("attn_k", keys, hidden), ("attn_v", keys, hidden),
            ("attn_output", hidden, hidden), ("ffn_gate", inner, hidden), ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner), ("attn_norm", hidden), ("ffn_norm", hidden),
        ]:
            add(f"blk.{layer}.{name}", *dims)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp(name, shape):
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "q8_0.gguf")
        write_gguf(path, shape)
        threads = arguments.threads
        model = Llama(path, n_ctx=PROMPT + GENERATED, n_batch=512, n_threads=threads, n_threads_batch=threads,
                      verbose=False)

        def prefill():
            model.reset()
            model.eval(tokens(shape, 0, PROMPT))

        def decode():
            for token in tokens(shape, PROMPT, GENERATED):
                model.eval([token])

        report(name, "llama.cpp Q8_0", prefill, decode)


def pytorch(name, shape):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(arguments.threads)
    config = LlamaConfig(**shape, tie_word_embeddings=True, attn_implementation="sdpa")
    for dtype in (torch.float32, torch.bfloat16):
        model = LlamaForCausalLM(config).eval().to(dtype)
        state = {}

        @torch.inference_mode()
        def forward(numbers):
            output = model(torch.tensor([numbers]), past_key_values=state.get("cache"), use_cache=True,
                           logits_to_keep=1)
            state["cache"] = output.past_key_values

        def prefill():
            state.clear()
            forward(tokens(shape, 0, PROMPT))

        def decode():
            for token in tokens(shape, PROMPT, GENERATED):
                forward([token])

        report(name, f"PyTorch {str(dtype).removeprefix('torch.')}", prefill, decode)


for name, shape in MODELS.items():
    if arguments.model and not any(part in name for part in arguments.model):
        continue
    for measure in (llama_cpp, pytorch):
        try:
            measure(name, shape)
        except ImportError as error:
            print(f"{name}: {measure.__name__} left out: {error}")
