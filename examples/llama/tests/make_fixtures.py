#!/usr/bin/env python3
"""Makes `fixtures/`: a tiny random model of each family and the logits that transformers computes for it.

Needs the PyPI packages torch, transformers and safetensors; made with torch 2.15.0 and transformers 5.23.0. Weights are
stored in bf16 and logits computed from them in f32.
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

FOLDER = pathlib.Path(__file__).parent / "fixtures"
TOKENS = 24
SHARED = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "attn_implementation": "eager",
    "bos_token_id": 1, "eos_token_id": 2,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
PLAIN = {"rope_type": "default", "rope_theta": 1000.0}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(
        **SHARED, tie_word_embeddings=False, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True)),
    "smollm": (LlamaForCausalLM, LlamaConfig(**SHARED, tie_word_embeddings=True, rope_parameters=LINEAR)),
    "mistral": (MistralForCausalLM, MistralConfig(
        **SHARED, tie_word_embeddings=False, sliding_window=7, head_dim=16, rope_parameters=PLAIN)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHARED, tie_word_embeddings=True, rope_parameters=PLAIN)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        **SHARED, tie_word_embeddings=False, head_dim=24, rope_parameters=PLAIN)),
}

torch.manual_seed(15)
for name, (model_class, config) in MODELS.items():
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms near one and matrices large enough that attention is far from uniform; biases are not zero.
            parameter.copy_(1 + 0.2 * torch.randn_like(parameter) if parameter.dim() == 1 else
                            torch.randn_like(parameter) * (1.5 / parameter.shape[1] ** 0.5))
        for key, parameter in model.named_parameters():
            if key.endswith(".bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            parameter.copy_(parameter.to(torch.bfloat16).float())
        tokens = torch.randint(0, config.vocab_size, (1, TOKENS))
        logits = model(tokens).logits

    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {key: value.to(torch.bfloat16).contiguous() for key, value in model.state_dict().items()
               if not (config.tie_word_embeddings and key == "lm_head.weight")}
    save_file(weights, folder / "model.safetensors")
    config.architectures = [model_class.__name__]
    (folder / "config.json").write_text(json.dumps(json.loads(config.to_json_string()), indent=1) + "\n")
    expected = {"tokens": tokens[0].to(torch.uint32), "logits": logits[0].contiguous()}
    save_file(expected, FOLDER / f"{name}.safetensors")
