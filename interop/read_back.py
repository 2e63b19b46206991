"""Reads an FP8 checkpoint with the reference implementation of its dialect and compares the values bit for bit.

    python read_back.py CHECKPOINT EXPECTED

CHECKPOINT is a folder with `config.json` and safetensors files. EXPECTED is a folder with `expected.safetensors`, the
dequantized values by the names that a model asks for. Where the reference dequantizes to a narrower dtype than that of
the expected values, they are rounded to it first. The exit code is 1 if anything differs.
"""

import argparse
import json
import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

F32 = torch.float32
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
EXPECTED = "expected.safetensors"
INDEX = "model.safetensors.index.json"
# Scales of activations and of the cache of keys and values: no part of a dequantized model.
OTHER_SCALES = ("input_scale", "activation_scale", "output_scale", "k_scale", "v_scale", "q_scale")


@dataclass
class Checkpoint:
    folder: Path
    tensors: dict
    metadata: dict
    config: dict
    hf_quant_config: dict | None

    @property
    def quantization(self):
        return self.config.get("quantization_config") or {}

    @property
    def dialect(self):
        method = self.quantization.get("quant_method")
        if method in DIALECTS:
            return method
        if self.hf_quant_config is not None:
            return "modelopt"
        return "fp8" if any(name.endswith("_scale_inv") for name in self.tensors) else "plain"

    def quantized(self, suffix="_scale"):
        """Names of the quantized tensors that have a scale."""
        codes = (name for name, tensor in self.tensors.items() if tensor.dtype in FP8)
        return [name for name in codes if f"{name}{suffix}" in self.tensors]

    def others(self):
        """Tensors that are stored as a model has them, by name."""
        return {
            name: tensor
            for name, tensor in self.tensors.items()
            if tensor.dtype not in FP8 and not name.endswith(("_scale", "_scale_inv", *OTHER_SCALES))
        }


class Malformed(Exception):
    pass


# Reading files.


def read_json(path):
    return json.loads(path.read_text()) if path.exists() else None


def read_checkpoint(folder):
    index = read_json(folder / INDEX)
    names = sorted(set(index["weight_map"].values())) if index else [path.name for path in weight_files(folder)]
    if not names:
        raise Malformed("no safetensors files")
    tensors, metadata = {}, {}
    for name in names:
        stored = load_file(folder / name)
        if index and {key for key, file in index["weight_map"].items() if file == name} != set(stored):
            raise Malformed(f"the index has other tensors than {name}")
        if repeated := tensors.keys() & stored.keys():
            raise Malformed(f"in two files: {sorted(repeated)}")
        tensors |= stored
        with safe_open(folder / name, "pt") as file:
            metadata |= file.metadata() or {}
    config = read_json(folder / "config.json") or {}
    return Checkpoint(folder, tensors, metadata, config, read_json(folder / "hf_quant_config.json"))


def weight_files(folder):
    single = folder / "model.safetensors"
    return [single] if single.exists() else [path for path in folder.glob("*.safetensors") if path.name != EXPECTED]


# compressed-tensors.


def read_compressed_tensors(checkpoint):
    """As transformers does it: compress an empty model by the config, load the tensors into it, decompress it."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    config = QuantizationConfig.model_validate(checkpoint.quantization)
    # It belongs to attention, which the empty model does not have.
    config.kv_cache_scheme = None
    model = empty_model(checkpoint)
    names = set(model.state_dict())
    apply_quantization_config(model, config, show_progress=False)
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    stored = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.endswith(("k_scale", "v_scale"))}
    check_same_types(stored, model.state_dict())
    model.load_state_dict(stored, strict=True)
    compressor.decompress_model(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name in names}


def check_same_types(stored, wanted):
    for name, tensor in stored.items():
        if name in wanted and (tensor.dtype, tensor.shape) != (wanted[name].dtype, wanted[name].shape):
            raise Malformed(
                f"{name} is {tensor.dtype} {list(tensor.shape)}, "
                f"the reference has {wanted[name].dtype} {list(wanted[name].shape)}"
            )


def empty_model(checkpoint):
    """Modules of the right classes, as far as names and shapes tell: a norm is a module with a vector."""
    root = nn.Module()
    for name, tensor in checkpoint.tensors.items():
        path, _, parameter = name.rpartition(".")
        if parameter != "weight":
            continue
        bias = checkpoint.tensors.get(f"{path}.bias")
        *parents, last = path.split(".")
        owner = root
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, nn.Module())
            owner = getattr(owner, parent)
        owner.add_module(last, empty_module(path, tensor.shape, float_dtype(checkpoint, name), bias))
    return root


def float_dtype(checkpoint, name):
    """The dtype of a weight before it was quantized: compressed-tensors has scales in the same."""
    dtype = checkpoint.tensors[name].dtype
    if dtype not in FP8:
        return dtype
    if f"{name}_scale" not in checkpoint.tensors:
        raise Malformed(f"{name} has no scale")
    dtype = checkpoint.tensors[f"{name}_scale"].dtype
    return dtype if dtype.is_floating_point else torch.bfloat16


def empty_module(path, shape, dtype, bias):
    if len(shape) == 2 and "embed" in path:
        module = nn.Embedding(*shape, dtype=dtype)
    elif len(shape) == 2:
        module = nn.Linear(shape[1], shape[0], bias=False, dtype=dtype)
    else:
        module = nn.Module()
        module.weight = nn.Parameter(torch.empty(shape, dtype=dtype))
    if bias is not None:
        module.bias = nn.Parameter(torch.empty_like(bias))
    return module


# transformers.

DEEPSEEK_BLOCK = [128, 128]


def transformers_block(checkpoint):
    return checkpoint.quantization.get("weight_block_size", DEEPSEEK_BLOCK)


def is_whole(shape, block):
    return not any(size % edge for size, edge in zip(shape[-2:], block))


def read_transformers(checkpoint):
    """`Fp8Dequantize`; for ragged blocks, which it cannot do, the function that its backward pass uses."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize, _dequantize_fp8_weight

    block, values = transformers_block(checkpoint), checkpoint.others()
    for name in checkpoint.quantized("_scale_inv"):
        codes, scale = checkpoint.tensors[name], checkpoint.tensors[f"{name}_scale_inv"]
        if block is None or is_whole(codes.shape, block):
            values[name] = Fp8Dequantize(None)._dequantize_one(codes, scale, F32)
        else:
            values[name] = _dequantize_fp8_weight(codes, scale, block, F32)
    return values


def read_model(checkpoint):
    """The whole model as transformers loads it."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=F32, quantization_config=FineGrainedFP8Config(dequantize=True)
    )
    # Tied tensors are stored once.
    tied = set(getattr(model, "all_tied_weights_keys", None) or {}) - set(checkpoint.tensors)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def has_model(checkpoint):
    """Whether there is a model that `AutoModelForCausalLM` can load and dequantize."""
    if checkpoint.dialect != "fp8" or not checkpoint.quantization or "model_type" not in checkpoint.config:
        return False
    block, names = transformers_block(checkpoint), checkpoint.quantized("_scale_inv")
    return block is None or all(is_whole(checkpoint.tensors[name].shape, block) for name in names)


# torchao.


def read_torchao(checkpoint):
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    tensors, left = unflatten_tensor_state_dict(checkpoint.tensors, checkpoint.metadata)
    if left:
        raise Malformed(f"torchao does not know {sorted(left)}")
    return {
        name: tensor.dequantize() if hasattr(tensor, "qdata") else tensor for name, tensor in tensors.items()
    }


# ModelOpt.


def read_modelopt(checkpoint):
    from modelopt.torch.quantization.qtensor import FP8QTensor, MXFP8QTensor

    values = checkpoint.others()
    for name in checkpoint.quantized():
        codes, scale = checkpoint.tensors[name], checkpoint.tensors[f"{name}_scale"]
        if scale.dtype == torch.uint8:
            values[name] = MXFP8QTensor(codes.shape, F32, codes).dequantize(F32, scale=scale)
            continue
        # The padding of blocks wants a dtype with arithmetic.
        tensor = FP8QTensor(codes.shape, F32, codes.float())
        algorithm = modelopt_algorithm(checkpoint, name.removesuffix(".weight"))
        if scale.numel() == 1:
            values[name] = tensor.dequantize(F32, scale=scale.reshape(()))
        elif algorithm == "FP8_PER_CHANNEL_PER_TOKEN":
            values[name] = tensor.dequantize(F32, scale=scale.reshape(-1, 1))
        else:
            # In four dimensions, every other one is of size 1.
            grid = list(scale.shape[::2] if scale.ndim == 4 else scale.shape)
            rows, columns = (edge(size, count) for size, count in zip(codes.shape, grid))
            values[name] = tensor.dequantize(F32, scale=scale.reshape(grid), block_sizes={-2: rows, -1: columns})
    return values


def modelopt_algorithm(checkpoint, path):
    quantization = (checkpoint.hf_quant_config or {}).get("quantization") or checkpoint.quantization
    return (quantization.get("quantized_layers") or {}).get(path, quantization).get("quant_algo")


def edge(size, count):
    """The power of two that cuts `size` into `count` blocks, at most ModelOpt's 128; its config does not tell."""
    return next(edge for edge in (128, 64, 32, 16, 8, 4, 2, 1) if -(-size // edge) == count)


# Plain tensors.


def read_plain(checkpoint):
    quantized = {name: tensor.float() for name, tensor in checkpoint.tensors.items() if tensor.dtype in FP8}
    return checkpoint.others() | quantized


DIALECTS = {
    "compressed-tensors": (read_compressed_tensors, "compressed-tensors, ModelCompressor.decompress_model"),
    "fp8": (read_transformers, "transformers, Fp8Dequantize"),
    "torchao": (read_torchao, "torchao, unflatten_tensor_state_dict and dequantize"),
    "modelopt": (read_modelopt, "ModelOpt, FP8QTensor and MXFP8QTensor"),
    "plain": (read_plain, "torch, conversion to float32"),
}


# Comparing.


def same_bits(actual, expected):
    """Equal in every bit, in the narrower of the two dtypes; one NaN is as good as the other."""
    if actual.shape != expected.shape:
        return False
    dtype = min(actual.dtype, expected.dtype, key=lambda dtype: dtype.itemsize)
    actual, expected = actual.to(dtype), expected.to(dtype)
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    nan = actual.isnan() & expected.isnan()
    return bool((nan | (actual.contiguous().view(integer) == expected.contiguous().view(integer))).all())


def compare(kind, actual, expected):
    """Prints a line for a kind of tensors, and one for each that differs."""
    wrong = [name for name in expected if name not in actual or not same_bits(actual[name], expected[name])]
    print(f"{kind}: {len(expected) - len(wrong)} of {len(expected)} equal")
    for name in wrong:
        print(f"  {name}: {difference(actual.get(name), expected[name])}")
    return not wrong


def difference(actual, expected):
    if actual is None:
        return "missing"
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    actual, expected = actual.float(), expected.float()
    places = (~((actual == expected) | (actual.isnan() & expected.isnan()))).nonzero()
    if not len(places):
        return "signs of zero or the last bits differ"
    place = tuple(places[0].tolist())
    first = f"first at {list(place)}: {actual[place]}, expected {expected[place]}"
    return f"{len(places)} of {actual.numel()} differ, {first}"


def check_configs(checkpoint):
    """Says where ModelOpt would have written another `quantization_config`."""
    if checkpoint.hf_quant_config is None or not checkpoint.quantization:
        return
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format

    theirs = convert_hf_quant_config_format(checkpoint.hf_quant_config)
    keys = sorted(key for key in theirs if theirs[key] != checkpoint.quantization.get(key))
    print(f"quantization_config as ModelOpt converts hf_quant_config.json: {f'differs in {keys}' if keys else 'equal'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("expected", type=Path)
    arguments = parser.parse_args()
    return read_back(arguments.checkpoint, load_file(arguments.expected / EXPECTED))


def read_back(folder, expected):
    try:
        checkpoint = read_checkpoint(folder)
        print(f"files: {len(checkpoint.tensors)} tensors, well formed")
        read, reader = DIALECTS[checkpoint.dialect]
        print(f"dialect: {reader}")
        check_configs(checkpoint)
        readings = [("", read(checkpoint))]
        if has_model(checkpoint):
            readings.append(("AutoModelForCausalLM, ", read_model(checkpoint)))
    except Exception as error:
        print(f"verdict: unreadable, {type(error).__name__}: {error}")
        return 1
    full = checkpoint.others()
    equal = True
    for source, actual in readings:
        weights = {name: tensor for name, tensor in expected.items() if name not in full}
        others = {name: tensor for name, tensor in expected.items() if name in full}
        equal &= compare(f"{source}quantized tensors", actual, weights)
        equal &= compare(f"{source}other tensors", actual, others)
        if surplus := sorted(actual.keys() - expected.keys()):
            print(f"{source}not expected: {surplus}")
            equal = False
    print(f"verdict: {'equal' if equal else 'different'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
