#!/usr/bin/env python3
"""Makes the first inputs of the fuzz target `read_checkpoint` from the fixtures of the tests."""

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
