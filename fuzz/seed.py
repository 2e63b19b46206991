#!/usr/bin/env python3
"""Makes the first inputs of the fuzz target `read_checkpoint`.

They are the fixtures of the tests, and a small file of each dialect that has no fixture.
"""

import json
import pathlib
import struct

here = pathlib.Path(__file__).parent
corpus = here / "corpus" / "read_checkpoint"
corpus.mkdir(parents=True, exist_ok=True)
for file in sorted((here.parent / "altgrad-core/tests/checkpoints/fixtures").glob("*/*.safetensors")):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    config = file.parent / "config.json"
    parts = [config.read_bytes() if config.exists() else b"", content[8 : 8 + length], content[8 + length :]]
    (corpus / f"{file.parent.name}-{file.stem}").write_bytes(b"\n\n\n".join(parts))
    (corpus / f"{file.parent.name}-{file.stem}-whole").write_bytes(content)


def write(name, tensors, config=None):
    """Writes a file of zeros: names with dtypes and shapes; bytes for a tensor of `U8`."""
    sizes = {"F8_E4M3": 1, "F8_E8M0": 1, "F32": 4, "BF16": 2}
    header, data = {}, b""
    for key, value in tensors.items():
        if isinstance(value, bytes):
            dtype, shape, part = "U8", [len(value)], value
        else:
            dtype, shape = value
            size = sizes[dtype]
            for side in shape:
                size *= side
            part = b"\0" * size
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    config = json.dumps({"quantization_config": config}).encode() if config else b""
    (corpus / name).write_bytes(b"\n\n\n".join([config, json.dumps(header).encode(), data]))


codes, scale = ("F8_E4M3", [2, 2]), ("F32", [1])
write("mistral", {"a.weight": codes, "a.qscale_weight": scale, "a.qscale_act": scale})
write("tensorrt-llm", {"a.weight": codes, "a.weights_scaling_factor": scale, "a.kv_cache_scaling_factor": scale})
scaled = {"scaled_fp8": ("F8_E4M3", [2]), "a.weight": codes, "a.scale_weight": scale, "a.scale_input": scale}
write("comfyui-old", scaled)
write("comfyui", {"a.weight": codes, "a.weight_scale": scale, "a.comfy_quant": b'{"format": "float8_e4m3fn"}'})
write("deepseek-v4", {"a.weight": codes, "a.scale": ("F8_E8M0", [1, 1])})
experts = {"e.gate_up_proj": ("F8_E4M3", [2, 2, 3]), "e.gate_up_proj_scale": ("F32", [2, 1, 3])}
write("fbgemm", experts, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0})
spec = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False}
quark = {"quant_method": "quark", "global_quant_config": {"weight": spec, "input_tensors": spec}}
write("quark", {"a.weight": codes, "a.weight_scale": scale, "a.input_scale": scale}, quark)
