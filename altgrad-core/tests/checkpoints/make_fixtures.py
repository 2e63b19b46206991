"""Writes the small FP8 checkpoints in `fixtures/` with the reference implementations of their dialects.

    venv/bin/pip install ml_dtypes==0.6.0     # in addition to what `interop/README.md` installs
    venv/bin/python make_fixtures.py          # Python 3.11; less than a minute; CPU only; the output is deterministic

A folder a checkpoint: the files as the reference writes them, and `expected.safetensors` with what the reference
dequantizes to. `manifest.json` describes every quantized tensor in terms of the reference's own objects:
- `format`: E4M3, E5M2, E4M3_FNUZ or E5M2_FNUZ.
- `granularity`: "tensor", "row", `[rows, columns]` of a block, or null without scales.
- `activations`: null, "tensor", "row", `[rows, columns]`, or `{"static": scale}`; where the reference says more, an
  object of `format`, `granularity` and `rule`, by which exponents come about.
"""

import argparse
import copy
import json
import logging
import math
import shutil
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace

warnings.filterwarnings("ignore")

import huggingface_hub
import ml_dtypes
import modelopt.torch.quantization as mtq
import numpy as np
import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.compressors.format import infer_model_format
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.qtensor import FP8QTensor, MXFP8QTensor
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.inference_workflow import MXDynamicActivationMXWeightConfig
from torchao.prototype.mx_formats.mx_tensor import MXTensor, QuantizeTensorToMXKwargs
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Float8Tensor,
    Float8WeightOnlyConfig,
    PerGroup,
    PerRow,
    PerTensor,
)
from torchao.quantization.quantize_.workflows import QuantizeTensorToFloat8Kwargs
from transformers import (
    AutoModelForCausalLM,
    FineGrainedFP8Config,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    TorchAoConfig,
)
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize, _dequantize_fp8_weight

SEED = 8
SIZE_LIMIT = 700_000
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
DTYPE_NAMES = {BF16: "BF16", F16: "F16", F32: "F32"}
FORMATS = {
    torch.float8_e4m3fn: "E4M3",
    torch.float8_e5m2: "E5M2",
    torch.float8_e4m3fnuz: "E4M3_FNUZ",
    torch.float8_e5m2fnuz: "E5M2_FNUZ",
}
# Magnitude of the largest finite code.
LARGEST_CODE = {torch.float8_e4m3fn: 0x7E, torch.float8_e5m2: 0x7B}

VOCABULARY = 2
EMBEDDING, HEAD, NORM = "model.embed_tokens", "lm_head", "model.norm"
ATTENTION, MLP = "model.layers.0.self_attn", "model.layers.0.mlp"
QUERY, UP, DOWN = f"{ATTENTION}.q_proj", f"{MLP}.up_proj", f"{MLP}.down_proj"
LAYERS = {QUERY: (20, 32), UP: (7, 32), DOWN: (3, 64)}
# Of 128 x 128 blocks, ragged ones where the reference can.
RAGGED_LAYERS = {QUERY: (129, 129), UP: (130, 3), DOWN: (3, 260)}
SHORT_LAYERS = {QUERY: (5, 128), UP: (3, 256)}
SMALL_LLAMA = dict(hidden_size=8, intermediate_size=24, head_dim=8)
RAGGED_LLAMA = dict(hidden_size=4, intermediate_size=130, head_dim=2)
MX_LLAMA = dict(hidden_size=32, intermediate_size=32, head_dim=16)
MX_MLP_LLAMA = dict(hidden_size=32, intermediate_size=32, head_dim=4)


# Weights and models.


def weight(shape, dtype):
    """Rows from tiny to huge, the last one zero (of 3 or more), with values that become both zeros."""
    magnitudes = 2.0 ** torch.randint(-14, 9, (*shape[:-1], 1))
    magnitudes.view(-1)[0] = 2**12
    values = (torch.randn(shape) * magnitudes).to(dtype)
    if shape[-2] > 2:
        values[..., -1, :] = 0
    # Not every reference keeps the sign of zero, hence also a negative value that underflows. The last one, 448 times a
    # power of two, becomes the largest code under scales that are powers of two as well.
    values.view(-1)[:4] = torch.tensor([0.0, -0.0, -1e-5, 448.0 * 64])
    return values


def small_model(dtype, layers=None):
    """Modules at the paths of a language model; the query projection has a bias."""
    modules = {NORM: nn.RMSNorm(32), EMBEDDING: nn.Embedding(VOCABULARY, 32)}
    modules[HEAD] = nn.Linear(32, VOCABULARY, bias=False)
    for path, (rows, columns) in (layers or LAYERS).items():
        modules[path] = nn.Linear(columns, rows, bias=path == QUERY)
    root = nn.Module()
    for path, module in modules.items():
        *parents, name = path.split(".")
        owner = root
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, nn.Module())
            owner = getattr(owner, parent)
        owner.add_module(name, module)
    return fill(root.to(dtype))


def llama(dtype, hidden_size, intermediate_size, head_dim):
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        head_dim=head_dim,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=1,
        vocab_size=VOCABULARY,
        max_position_embeddings=16,
        attention_bias=True,
        tie_word_embeddings=False,
        dtype=dtype,
        architectures=["LlamaForCausalLM"],
    )
    return fill(LlamaForCausalLM(config).to(dtype))


@torch.no_grad()
def fill(model):
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(weight(module.weight.shape, module.weight.dtype))
            if module.bias is not None:
                module.bias.normal_()
        elif "Norm" in type(module).__name__:
            module.weight.normal_(1, 0.1)
    return model.eval()


def linear_weights(model):
    """Weights that are to be quantized, by name."""
    return {
        f"{path}.weight": module.weight.detach()
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path != HEAD
    }


def floats(model):
    """All tensors of a model before it is quantized, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# What every dialect has in common.


def quantized(name, dtype, granularity, activations):
    return dict(name=name, format=FORMATS[dtype], granularity=granularity, activations=activations)


def finish(folder, dialect, expected, tensors):
    """Writes the expected values and gives the checkpoint's entry in the manifest."""
    dtypes = {expected[tensor["name"]].dtype for tensor in tensors}
    assert len(dtypes) == 1, (folder, dtypes)
    save(expected, folder / "expected.safetensors")
    return dict(
        name=folder.name,
        dialect=dialect,
        dtype=DTYPE_NAMES[dtypes.pop()],
        tensors=sorted(tensors, key=lambda tensor: tensor["name"]),
    )


def save(tensors, path, metadata=None):
    """Saves with the metadata in a fixed order, which `safetensors` leaves to chance."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    sort_metadata(path)


def sort_metadata(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    path.chmod(0o644)


def save_config(folder, quantization_config=None, config=None):
    """`config.json` as transformers writes it."""
    config = config or PretrainedConfig()
    if quantization_config is not None:
        config.quantization_config = quantization_config
    config.save_pretrained(folder)


def block_view(values, block):
    """`values` as (row blocks, column blocks, elements), padded with zeros."""
    (rows, columns), (height, width) = values.shape, block
    down, across = math.ceil(rows / height), math.ceil(columns / width)
    padded = values.new_zeros(down * height, across * width)
    padded[:rows, :columns] = values
    return padded.view(down, height, across, width).transpose(1, 2).flatten(2)


# compressed-tensors.


def arguments(strategy, **others):
    return dict(num_bits=8, type="float", symmetric=True, strategy=strategy, **others)


def group(weights, inputs=None, targets=("Linear",)):
    return dict(targets=list(targets), weights=weights, input_activations=inputs)


TOKEN = arguments("token", dynamic=True)
CHANNEL = arguments("channel")
STATIC_INPUT = 0.0123


def granularity(strategy, block_structure=None, group_size=None):
    """A reference's words for granularity in those of the manifest."""
    blocks = {"group": [1, group_size], "block": block_structure}
    return blocks.get(strategy) or {"tensor": "tensor", "channel": "row", "token": "row"}[strategy]


def strategy(args: QuantizationArgs):
    return granularity(args.strategy, args.block_structure, args.group_size)


def compressed_tensors(folder, model, config_groups, config=None, as_given=False, ignore=(HEAD,), **others):
    """The reference's lifecycle: apply the config, calibrate, compress, save; then decompress.

    The reference writes the groups that it finds in the model, or the config `as_given`.
    """
    names = list(model.state_dict())
    quantization_config = QuantizationConfig(config_groups=copy.deepcopy(config_groups), ignore=list(ignore), **others)
    apply_quantization_config(model, quantization_config)
    layers = {
        path: module
        for path, module in model.named_modules()
        if getattr(getattr(module, "quantization_scheme", None), "weights", None)
    }
    for module in layers.values():
        calibrate(module)
    for name, parameter in model.named_parameters():
        if name.endswith(("k_scale", "v_scale")):
            parameter.data.fill_(STATIC_INPUT)
    compressor = ModelCompressor.from_pretrained_model(model)
    if as_given:
        quantization_config.format = infer_model_format(model)
        compressor.quantization_config = quantization_config
    compressor.compress_model(model)
    tensors = [
        quantized(
            f"{path}.weight",
            module.weight.dtype,
            strategy(module.quantization_scheme.weights),
            compressed_activations(module),
        )
        for path, module in layers.items()
    ]
    if config is not None:
        save_config(folder, config=config)
    save(floats(model), folder / "model.safetensors", {"format": "pt"})
    compressor.update_config(folder)
    compressor.decompress_model(model)
    state = floats(model)
    return finish(folder, "compressed-tensors", {name: state[name] for name in names}, tensors)


@torch.no_grad()
def calibrate(module):
    """Sets a module's scales, those of the weight from its largest values."""
    scheme, values = module.quantization_scheme, module.weight
    block = {
        "tensor": values.shape,
        "channel": (1, values.shape[1]),
        "group": (1, scheme.weights.group_size),
        "block": scheme.weights.block_structure,
    }[scheme.weights.strategy]
    blocks = block_view(values, block)
    scales, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), scheme.weights)
    module.weight_scale.copy_(scales.reshape(module.weight_scale.shape))
    if hasattr(module, "input_scale"):
        module.input_scale.fill_(STATIC_INPUT)


def compressed_activations(module):
    args = module.quantization_scheme.input_activations
    if args is None:
        return None
    return strategy(args) if args.dynamic else {"static": float(module.input_scale)}


def compressed_llama(folder):
    """A language model with scales for the cache of keys and values, ignored by a regular expression."""
    model = llama(BF16, **SMALL_LLAMA)
    entry = compressed_tensors(
        folder,
        model,
        {"group_0": group(CHANNEL, TOKEN)},
        config=model.config,
        as_given=True,
        ignore=["re:.*lm_head"],
        kv_cache_scheme=arguments("tensor"),
    )
    assert f"{ATTENTION}.k_scale" in load_file(folder / "model.safetensors")
    return entry


def compressed_scheme_list(folder):
    """The short spelling, which the reference reads but does not write: a scheme's name and its targets."""
    entry = compressed_tensors(folder, small_model(BF16, {QUERY: (9, 32)}), {"FP8_DYNAMIC": ["Linear"]})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["config_groups"] = {"FP8_DYNAMIC": ["Linear"]}
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    return entry


def compressed(dtype, config_groups, layers=None, **others):
    return lambda folder: compressed_tensors(folder, small_model(dtype, layers), config_groups, **others)


def one_group(weights, inputs=None):
    return {"group_0": group(weights, inputs)}


COMPRESSED_TENSORS = {
    "tensor-static-f32": compressed(F32, one_group(arguments("tensor"), arguments("tensor", dynamic=False))),
    "tensor-static-bf16": compressed(BF16, one_group(arguments("tensor"), arguments("tensor", dynamic=False))),
    "tensor-dynamic-bf16": compressed(BF16, one_group(arguments("tensor"), arguments("tensor", dynamic=True))),
    "channel-dynamic-f32": compressed(F32, one_group(CHANNEL, TOKEN)),
    "channel-dynamic-bf16": compressed(BF16, one_group(CHANNEL, TOKEN)),
    "channel-dynamic-f16": compressed(F16, one_group(CHANNEL, TOKEN)),
    "channel-weight-only": compressed(BF16, one_group(CHANNEL)),
    "block-16x32": compressed(F32, one_group(arguments("block", block_structure=[16, 32]), TOKEN)),
    "block-16x32-weight-only": compressed(BF16, one_group(arguments("block", block_structure=[16, 32]))),
    "block-128": compressed(BF16, {"FP8_BLOCK": ["Linear"]}, SHORT_LAYERS),
    "group": compressed(
        F32,
        one_group(arguments("group", group_size=16), arguments("group", group_size=16, dynamic=True)),
    ),
    "mxfp8": compressed(BF16, {"MXFP8": ["Linear"]}),
    "mxfp8-weight-only": compressed(F32, {"MXFP8A16": ["Linear"]}),
    "mixed": compressed(
        BF16,
        {
            "group_0": group(arguments("block", block_structure=[16, 32]), None, ["re:.*down_proj"]),
            "group_1": group(CHANNEL, TOKEN),
        },
    ),
    # A layer takes its own name before a pattern (the first in alphabetical order), and a pattern before its class.
    "groups": compressed(
        BF16,
        {
            "group_0": group(arguments("tensor"), None, ["Conv2d"]),
            "group_1": group(CHANNEL, TOKEN),
            "group_10": group(CHANNEL, arguments("tensor", dynamic=True), ["re:^(?!.*self_attn).*_proj"]),
            "group_2": group(arguments("tensor"), None, ["re:.*down_proj"]),
            "group_3": group(CHANNEL, None, [UP]),
        },
        as_given=True,
    ),
    "embedding": compressed(BF16, {"group_0": group(CHANNEL, None, ["Embedding", QUERY])}, {QUERY: (9, 32)}),
    "scheme-name": compressed(BF16, {"FP8_DYNAMIC": ["Linear"]}, {QUERY: (9, 32)}, as_given=True),
    "scheme-list": compressed_scheme_list,
    "llama": compressed_llama,
}


# transformers.


def quantize_blocks(values, config):
    """`Fp8Quantize`, with its input padded to whole blocks as DeepSeek's rule for the edges wants it."""
    operation = Fp8Quantize(SimpleNamespace(quantization_config=config))
    rows, columns = values.shape[-2:]
    height, width = config.weight_block_size or (rows, columns)
    padded = nn.functional.pad(values.float(), (0, -columns % width, 0, -rows % height))
    result = operation.convert({"weight": padded})
    (scale,) = (tensor for name, tensor in result.items() if name != "weight")
    return result["weight"][..., :rows, :columns], scale


def dequantize_blocks(codes, scale, block):
    """The reference's two ways, which have to agree where the reference can do both."""
    scale = scale.view(torch.float8_e8m0fnu) if scale.dtype == torch.uint8 else scale
    values = _dequantize_fp8_weight(codes, scale, block, F32)
    if block is not None and not any(size % edge for size, edge in zip(codes.shape[-2:], block)):
        operation = Fp8Dequantize(SimpleNamespace(quantization_config=None))
        torch.testing.assert_close(operation._dequantize_one(codes, scale, F32), values, rtol=0, atol=0)
    return values


def transformers_tensors(model, config, scale_shape=None, scale_dtype=None):
    """Stored tensors, expected values and manifest entries of a model."""
    stored = floats(model)
    expected = dict(stored)
    tensors = []
    block = config.weight_block_size
    for name, values in linear_weights(model).items():
        codes, scale = quantize_blocks(values, config)
        if scale_shape is not None:
            scale = scale.reshape(scale_shape)
        if scale_dtype is not None:
            scale = scale.view(scale_dtype)
        stored[name], stored[f"{name}_scale_inv"] = codes, scale
        if config.activation_scheme == "static":
            stored[name.replace("weight", "activation_scale")] = torch.tensor(STATIC_INPUT)
        expected[name] = dequantize_blocks(codes, scale, block)
        activations = {"static": float(torch.tensor(STATIC_INPUT))}
        if config.activation_scheme == "dynamic":
            activations = [1, block[1]] if block else "row"
        tensors.append(quantized(name, codes.dtype, list(block) if block else "tensor", activations))
    return stored, expected, tensors


def transformers_small(block, layers=None, scale_shape=None, scale_dtype=None, **others):
    def make(folder):
        config = FineGrainedFP8Config(weight_block_size=block, modules_to_not_convert=[HEAD], **others)
        model = small_model(F32, layers)
        stored, expected, tensors = transformers_tensors(model, config, scale_shape, scale_dtype)
        save(stored, folder / "model.safetensors", {"format": "pt"})
        save_config(folder, config)
        return finish(folder, "transformers", expected, tensors)

    return make


def transformers_without_config(folder):
    """Only the names of the scales tell that this is FP8; the blocks are DeepSeek's."""
    layers = {
        f"{ATTENTION}.kv_b_proj": (130, 4),
        f"{MLP}.experts.0.down_proj": (3, 132),
        f"{MLP}.experts.1.down_proj": (3, 132),
    }
    config = FineGrainedFP8Config(weight_block_size=(128, 128))
    stored, expected, tensors = transformers_tensors(small_model(F32, layers), config)
    save(stored, folder / "model.safetensors", {"format": "pt"})
    save_config(folder)
    return finish(folder, "transformers", expected, [{**tensor, "activations": None} for tensor in tensors])


def transformers_experts(block, dtype):
    """Experts fused into tensors of three dimensions; without blocks a scale for each half of `gate_up_proj`."""

    def make(folder):
        experts, hidden, inner = 2, 16, 8
        shapes = {"gate_up_proj": (experts, 2 * inner, hidden), "down_proj": (experts, hidden, inner)}
        config = FineGrainedFP8Config(weight_block_size=block, modules_to_not_convert=[HEAD])
        stored = floats(small_model(dtype, {QUERY: (9, 32)}))
        del stored[f"{QUERY}.weight"], stored[f"{QUERY}.bias"]
        expected, tensors = dict(stored), []
        for name, shape in shapes.items():
            path = f"{MLP}.experts.{name}"
            edges = block or ((inner, hidden) if name == "gate_up_proj" else shape[1:])
            codes, scale = quantize_blocks(weight(shape, dtype), FineGrainedFP8Config(weight_block_size=edges))
            stored[path], stored[f"{path}_scale_inv"] = codes, scale
            sources = {path: codes, f"{path}_scale_inv": scale}
            (expected[path],) = Fp8Dequantize(None).convert(sources)[path]
            tensors.append(quantized(path, codes.dtype, list(edges), [1, block[1]] if block else "row"))
        save(stored, folder / "model.safetensors", {"format": "pt"})
        save_config(folder, config)
        return finish(folder, "transformers", expected, tensors)

    return make


def transformers_llama(max_shard_size, sharded):
    def make(folder):
        model = llama(BF16, **SMALL_LLAMA)
        config = FineGrainedFP8Config(weight_block_size=(8, 8), modules_to_not_convert=[HEAD])
        stored, _, tensors = transformers_tensors(model, config)
        huggingface_hub.save_torch_state_dict(stored, folder, max_shard_size=max_shard_size)
        for path in folder.glob("*.safetensors"):
            sort_metadata(path)
        index = folder / "model.safetensors.index.json"
        assert index.exists() == sharded
        if sharded:
            files = json.loads(index.read_text())["weight_map"]
            names = [tensor["name"] for tensor in tensors]
            assert any(files[name] != files[f"{name}_scale_inv"] for name in names)
        save_config(folder, config, model.config)
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=BF16, quantization_config=FineGrainedFP8Config(dequantize=True)
        )
        return finish(folder, "transformers", floats(loaded), tensors)

    return make


TRANSFORMERS = {
    "block-128-ragged": transformers_small((128, 128), RAGGED_LAYERS),
    "block-8x16": transformers_small((8, 16), {QUERY: (16, 32), UP: (8, 32), DOWN: (8, 48)}),
    "block-16x32-ragged": transformers_small((16, 32), {QUERY: (20, 40), UP: (7, 70), DOWN: (3, 5)}),
    "tensor": transformers_small(None, scale_shape=()),
    "tensor-static": transformers_small(None, scale_shape=(1, 1), activation_scheme="static"),
    "ue8m0": transformers_small((8, 32), {QUERY: (16, 32), DOWN: (8, 64)}, scale_fmt="ue8m0"),
    "ue8m0-bytes": transformers_small(
        (1, 32), {QUERY: (9, 32), DOWN: (3, 64)}, scale_dtype=torch.uint8, scale_fmt="ue8m0"
    ),
    "without-config": transformers_without_config,
    "experts": transformers_experts((8, 8), F32),
    "experts-tensor": transformers_experts(None, F32),
    "llama": transformers_llama("1GB", sharded=False),
    "llama-sharded": transformers_llama(1000, sharded=True),
}


# torchao.


def to_torchao(values, config, swizzled):
    """What `quantize_` makes of a weight, whatever the hardware is; it swizzles the scales of `MXTensor`."""
    if isinstance(config, Float8WeightOnlyConfig):
        return Float8Tensor.from_hp(values, float8_dtype=config.weight_dtype, granularity=config.granularity)
    if isinstance(config, MXDynamicActivationMXWeightConfig):
        return MXTensor.to_mx(
            values,
            config.weight_dtype,
            block_size=config.block_size,
            kernel_preference=config.kernel_preference,
            scaling_mode=config.scaling_mode,
            act_quant_kwargs=QuantizeTensorToMXKwargs(
                elem_dtype=config.activation_dtype,
                block_size=config.block_size,
                kernel_preference=config.kernel_preference,
                is_swizzled_scales=swizzled,
                scaling_mode=config.scaling_mode,
            ),
            is_swizzled_scales=swizzled,
        )
    for_activations, for_weights = config.granularity
    return Float8Tensor.from_hp(
        values,
        float8_dtype=config.weight_dtype,
        granularity=for_weights,
        mm_config=config.mm_config,
        kernel_preference=config.kernel_preference,
        act_quant_kwargs=QuantizeTensorToFloat8Kwargs(
            config.activation_dtype,
            for_activations,
            hp_value_lb=config.activation_value_lb,
            hp_value_ub=config.activation_value_ub,
            kernel_preference=config.kernel_preference,
        ),
    )


def torchao_granularity(tensor):
    if isinstance(tensor, MXTensor):
        return [1, tensor.block_size]
    if list(tensor.block_size) == list(tensor.shape):
        return "tensor"
    return "row" if list(tensor.block_size) == [1, tensor.shape[1]] else list(tensor.block_size)


def torchao_activations(tensor):
    args = tensor.act_quant_kwargs
    if args is None:
        return None
    if isinstance(args, QuantizeTensorToMXKwargs):
        return {
            "format": FORMATS[args.elem_dtype],
            "granularity": [1, args.block_size],
            "rule": {"FLOOR": "floor", "RCEIL": "round_up"}[args.scaling_mode.name],
        }
    granularity = {PerRow: "row", PerTensor: "tensor"}[type(args.granularity)]
    return {"format": FORMATS[args.float8_dtype], "granularity": granularity, "rule": None}


def torchao(dtype, config, zero_rows=False, layers=None, swizzled=False):
    def make(folder):
        model = small_model(dtype, layers)
        state = floats(model)
        expected, tensors = dict(state), []
        for name, values in linear_weights(model).items():
            if not zero_rows:
                # Scale 0 makes NaN of zero rows.
                values[values.abs().amax(1) == 0] = 1e-3
                values[:, 32:48] = torch.where(values[:, 32:48] == 0, 1e-3, values[:, 32:48])
            tensor = to_torchao(values, config, swizzled)
            state[name], expected[name] = tensor, tensor.dequantize()
            tensors.append(
                quantized(name, tensor.qdata.dtype, torchao_granularity(tensor), torchao_activations(tensor))
            )
        stored, metadata = flatten_tensor_state_dict(state)
        save(stored, folder / "model.safetensors", {**metadata, "format": "pt"})
        save_config(folder, TorchAoConfig(config, modules_to_not_convert=[HEAD]))
        return finish(folder, "torchao", expected, tensors)

    return make


ROW = Float8WeightOnlyConfig(granularity=PerRow())
TORCHAO = {
    "row-f32": torchao(F32, ROW),
    "row-bf16": torchao(BF16, ROW),
    "row-zero-row": torchao(BF16, ROW, zero_rows=True),
    "row-e5m2": torchao(BF16, Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2)),
    "group": torchao(F32, Float8WeightOnlyConfig(granularity=PerGroup(16))),
    "tensor-f32": torchao(F32, Float8WeightOnlyConfig(granularity=PerTensor())),
    "row-dynamic": torchao(BF16, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())),
    "tensor-dynamic": torchao(F32, Float8DynamicActivationFloat8WeightConfig(granularity=PerTensor())),
    "mx": torchao(BF16, MXDynamicActivationMXWeightConfig(), zero_rows=True),
    "mx-e5m2": torchao(
        BF16,
        MXDynamicActivationMXWeightConfig(activation_dtype=torch.float8_e5m2, weight_dtype=torch.float8_e5m2),
        zero_rows=True,
    ),
    # More than one tile of 128 x 4 scales in both directions, and less than one.
    "mx-swizzled": torchao(
        BF16,
        MXDynamicActivationMXWeightConfig(scaling_mode=ScaleCalculationMode.FLOOR),
        zero_rows=True,
        layers={UP: (130, 160), DOWN: (3, 64)},
        swizzled=True,
    ),
}


# ModelOpt.


def modelopt_config(preset, *more, block=None):
    config = copy.deepcopy(getattr(mtq, preset))
    config["quant_cfg"] = [*config["quant_cfg"], *more]
    for rule in config["quant_cfg"]:
        if block is not None and -2 in (rule.get("cfg", {}).get("block_sizes") or {}):
            rule["cfg"]["block_sizes"] = {-1: block, -2: block}
    return config


MX_NUMERICS = {"num_bits": (4, 3), "block_sizes": {-1: 32, "type": "dynamic", "scale_bits": (8, 0)}}
MX_FOR_MLP = [{"quantizer_name": f"*mlp*{tensor}_quantizer", "cfg": MX_NUMERICS} for tensor in ("weight", "input")]


def modelopt_granularity(quantizer):
    if not quantizer.is_enabled:
        return None
    blocks = quantizer.block_sizes
    if blocks:
        # A block without a size is a whole row.
        return [blocks.get(-2, 1), blocks[-1]] if blocks[-1] else "row"
    return "tensor" if quantizer.axis is None else "row"


def modelopt_activations(module):
    quantizer = module.input_quantizer
    if not quantizer.is_enabled:
        return None
    # The scale is known once the model is exported.
    is_dynamic = quantizer.block_sizes or quantizer._dynamic
    return modelopt_granularity(quantizer) if is_dynamic else "static"


def modelopt_dequantize(codes, scale, blocks, dtype):
    """In f32 where scales are: to any other dtype ModelOpt would round the scales first and then the product."""
    if scale.dtype == torch.uint8:
        return MXFP8QTensor(codes.shape, dtype, codes).dequantize(dtype, scale=scale)
    values = FP8QTensor(codes.shape, F32, codes.float())
    if isinstance(blocks, list):
        grid = [math.ceil(size / edge) for size, edge in zip(codes.shape, blocks)]
        return values.dequantize(F32, scale=scale.reshape(grid), block_sizes={-2: blocks[0], -1: blocks[1]})
    return values.dequantize(F32, scale=scale if scale.ndim == 0 else scale[:, None])


def modelopt(config, dtype=F32, shape=None, compress=False, drop=None):
    """ModelOpt's own way from a model to a checkpoint; `drop` leaves out one of its two descriptions."""

    def make(folder):
        model = llama(dtype, **(shape or SMALL_LLAMA))
        mtq.quantize(model, copy.deepcopy(config), lambda model: model(torch.arange(VOCABULARY).unsqueeze(0)))
        described = {
            f"{path}.weight": (modelopt_granularity(module.weight_quantizer), modelopt_activations(module))
            for path, module in model.named_modules()
            if hasattr(module, "weight_quantizer") and module.weight_quantizer.is_enabled
        }
        if compress:
            mtq.compress(model)
        export_hf_checkpoint(model, export_dir=folder)
        (folder / "generation_config.json").unlink()
        sort_metadata(folder / "model.safetensors")
        if drop == "hf_quant_config":
            (folder / "hf_quant_config.json").unlink()
        if drop == "quantization_config":
            path = folder / "config.json"
            contents = json.loads(path.read_text())
            del contents["quantization_config"]
            path.write_text(json.dumps(contents, indent=4))
        stored = load_file(folder / "model.safetensors")
        expected = {name: tensor for name, tensor in stored.items() if "_scale" not in name}
        tensors = []
        for name, (blocks, activations) in described.items():
            codes, scale = stored[name], stored[f"{name}_scale"]
            expected[name] = modelopt_dequantize(codes, scale, blocks, dtype)
            if activations == "static":
                activations = {"static": float(stored[name.replace("weight", "input_scale")])}
            tensors.append(quantized(name, codes.dtype, blocks, activations))
        return finish(folder, "modelopt", expected, tensors)

    return make


BLOCKS = "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"
MODELOPT = {
    "fp8": modelopt(modelopt_config("FP8_DEFAULT_CFG")),
    "fp8-kv-bf16": modelopt(modelopt_config("FP8_DEFAULT_CFG", *mtq.FP8_KV_CFG["quant_cfg"]), BF16),
    "fp8-config-only": modelopt(modelopt_config("FP8_DEFAULT_CFG"), drop="hf_quant_config"),
    "fp8-hf-quant-config-only": modelopt(modelopt_config("FP8_DEFAULT_CFG"), drop="quantization_config"),
    "channel": modelopt(modelopt_config("FP8_PER_CHANNEL_PER_TOKEN_CFG")),
    "block-16": modelopt(modelopt_config(BLOCKS, block=16)),
    "block-16-compressed": modelopt(modelopt_config(BLOCKS, block=16), compress=True),
    "block-128": modelopt(modelopt_config(BLOCKS), shape=RAGGED_LLAMA),
    "mxfp8": modelopt(modelopt_config("MXFP8_DEFAULT_CFG"), BF16, MX_LLAMA),
    "mixed": modelopt(modelopt_config("FP8_DEFAULT_CFG", *MX_FOR_MLP), F32, MX_MLP_LLAMA),
}


# Plain tensors.


def plain(folder):
    """All codes of the formats that `safetensors` knows, without scales."""
    codes = torch.arange(256, dtype=torch.uint8).view(16, 16)
    stored, expected, tensors = {}, {}, []
    for dtype, name in FORMATS.items():
        path = f"{name.lower()}.weight"
        stored[path] = codes.clone().view(dtype)
        expected[path] = stored[path].float()
        second = codes.numpy().view(getattr(ml_dtypes, str(dtype).split(".")[1])).astype(np.float32)
        np.testing.assert_array_equal(expected[path].numpy(), second)
        tensors.append(quantized(path, dtype, None, None))
    stored["norm.weight"] = expected["norm.weight"] = torch.randn(16)
    save(stored, folder / "model.safetensors")
    return finish(folder, "plain", expected, tensors)


DIALECTS = {
    "compressed-tensors": COMPRESSED_TENSORS,
    "transformers": TRANSFORMERS,
    "torchao": TORCHAO,
    "modelopt": MODELOPT,
    "plain": {"all-codes": plain},
}


def check_codes(folder, tensors):
    """Both zeros and the largest value occur, in some tensor of the checkpoint."""
    seen = {}
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                codes = file.get_tensor(name)
                if codes.dtype in LARGEST_CODE:
                    seen.setdefault(codes.dtype, set()).update(codes.view(torch.uint8).flatten().tolist())
    for dtype, codes in seen.items():
        assert {0x00, 0x80} <= codes, (folder.name, dtype)
        assert {LARGEST_CODE[dtype], LARGEST_CODE[dtype] | 0x80} & codes, (folder.name, dtype)
    assert seen and tensors, folder.name


def manifest_text(manifest):
    """JSON with a line for each tensor."""
    entries = []
    for entry in manifest:
        head = json.dumps({key: value for key, value in entry.items() if key != "tensors"})
        tensors = ",\n  ".join(json.dumps(tensor) for tensor in entry["tensors"])
        entries.append(f'{head[:-1]}, "tensors": [\n  {tensors}\n ]}}')
    return "[\n " + ",\n ".join(entries) + "\n]\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "fixtures")
    root = parser.parse_args().folder
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    shutil.rmtree(root, ignore_errors=True)
    manifest, total = [], 0
    for dialect, fixtures in DIALECTS.items():
        for name, make in fixtures.items():
            torch.manual_seed(SEED)
            folder = root / f"{dialect}-{name}"
            folder.mkdir(parents=True)
            entry = make(folder)
            check_codes(folder, entry["tensors"])
            manifest.append(entry)
            size = sum(path.stat().st_size for path in folder.iterdir())
            total += size
            print(f"{folder.name:45} {len(entry['tensors'])} tensors {size:7} bytes")
    text = manifest_text(manifest)
    (root / "manifest.json").write_text(text)
    print(f"{len(manifest)} checkpoints, {total + len(text)} bytes")
    assert total + len(text) <= SIZE_LIMIT


if __name__ == "__main__":
    main()
