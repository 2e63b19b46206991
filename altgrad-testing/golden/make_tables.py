"""Writes the golden tables beside this file: what other implementations make of the formats of 8, 6 and 4 bits.

    python -m venv venv
    venv/bin/pip install numpy==2.4.6 ml_dtypes==0.6.0 gfloat==0.5.2
    venv/bin/python make_tables.py            # Python 3.11; takes about a minute; the output is deterministic

Sources:
- `ml_dtypes` for the ten formats that it knows: decoding, and encoding of f32, f16 and bf16 with its default, overflow
  to infinity or NaN.
- `gfloat` for everything else, with a `FormatInfo` for each format: the formats without a NumPy type, saturation, and
  encoding of f64, which `ml_dtypes` converts through f32. For the ten formats above it is compared with `ml_dtypes` as
  well, and the script fails if they differ. There is nothing to compare of NaN in a format without NaN.
- Exact arithmetic with `fractions` checks every decoded value once more against the definition of the formats.

One file a format, named after it, `<name>.txt` (`_` for the punctuation of a custom format). Lines that start with `#`
are comments. `[section]` starts a table, all numbers are hexadecimal:
- `[decode]`: lines of 16 values, the f32 bits of all codes in their order; `nan` for NaN.
- `[f32]` and `[f64]`: `bits special saturated`, one input a line: the code under overflow to specials and the code
  under saturation; `saturated` is left out where it is the same. `..` where the format has no code: NaN without a NaN.
  A format without specials has only saturation, so there both are the same.
- `[f16]` and `[bf16]`: `first special saturated`, the same for all 65,536 inputs, each line valid from the input
  `first` until that of the next line.

Codes of 6 and 4 bits are written as altgrad has them, in the upper bits of a byte: a code `c` of 4 bits is `c << 4`.
Both sources have them in the lower bits.

NaN codes are the source's own; only that they are NaN is comparable, not which of a format's NaN they are.
"""

import math
import struct
from fractions import Fraction
from pathlib import Path

import gfloat
import ml_dtypes
import numpy as np

# Name, exponent bits, mantissa bits, bias, specials, type of ml_dtypes.
FORMATS = [
    ("E0M7", 0, 7, 1, "none", None),
    ("E1M6", 1, 6, 0, "none", None),
    ("E2M5", 2, 5, 1, "none", None),
    ("E3M4", 3, 4, 3, "none", None),
    ("E4M3", 4, 3, 7, "nan_only", ml_dtypes.float8_e4m3fn),
    ("E5M2", 5, 2, 15, "ieee", ml_dtypes.float8_e5m2),
    ("E6M1", 6, 1, 31, "none", None),
    ("E7M0", 7, 0, 63, "none", None),
    ("E4M3_FNUZ", 4, 3, 8, "fnuz", ml_dtypes.float8_e4m3fnuz),
    ("E5M2_FNUZ", 5, 2, 16, "fnuz", ml_dtypes.float8_e5m2fnuz),
    ("E4M3_B11_FNUZ", 4, 3, 11, "fnuz", ml_dtypes.float8_e4m3b11fnuz),
    ("E4M3_IEEE", 4, 3, 7, "ieee", ml_dtypes.float8_e4m3),
    ("E3M4_IEEE", 3, 4, 3, "ieee", ml_dtypes.float8_e3m4),
    ("E2M3", 2, 3, 1, "none", ml_dtypes.float6_e2m3fn),
    ("E3M2", 3, 2, 3, "none", ml_dtypes.float6_e3m2fn),
    ("E2M1", 2, 1, 1, "none", ml_dtypes.float4_e2m1fn),
    # Custom ones: both parities of a format without mantissa, one with a fraction of one bit, and a negative bias.
    ("E7M0(bias=64, specials=nan_only)", 7, 0, 64, "nan_only", None),
    ("E7M0(bias=65, specials=fnuz)", 7, 0, 65, "fnuz", None),
    ("E6M1(bias=40, specials=nan_only)", 6, 1, 40, "nan_only", None),
    ("E2M5(bias=-3, specials=ieee)", 2, 5, -3, "ieee", None),
    # Of 6 and 4 bits: without a mantissa, without an exponent, and what comes to lie on E4M3's field.
    ("E3M0(bias=3, specials=none)", 3, 0, 3, "none", None),
    ("E0M3(bias=1, specials=none)", 0, 3, 1, "none", None),
    ("E4M1(bias=7, specials=none)", 4, 1, 7, "none", None),
]
HERE = Path(__file__).parent


def f32(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def f32_bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def f64_bits(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def format_info(name, exponent_bits, mantissa_bits, bias, specials):
    """The format as `gfloat` describes one."""
    info = gfloat.FormatInfo(
        name,
        1 + exponent_bits + mantissa_bits,
        mantissa_bits + 1,
        bias=bias,
        is_signed=True,
        domain=gfloat.Domain.Extended if specials == "ieee" else gfloat.Domain.Finite,
        has_nz=specials != "fnuz",
        num_high_nans={"none": 0, "fnuz": 0, "nan_only": 1, "ieee": 2**mantissa_bits - 1}[specials],
        has_subnormals=True,
        is_twos_complement=False,
    )
    assert info.expBits == exponent_bits
    return info


class Reference:
    def __init__(self, name, exponent_bits, mantissa_bits, bias, specials, dtype):
        self.name, self.mantissa_bits, self.bias, self.dtype = name, mantissa_bits, bias, dtype
        self.bits = 1 + exponent_bits + mantissa_bits
        self.has_nan = specials != "none"
        self.info = format_info(name, exponent_bits, mantissa_bits, bias, specials)
        self.values = [gfloat.decode_float(self.info, code).fval for code in range(2**self.bits)]
        for code, value in enumerate(self.values):
            if math.isfinite(value):
                assert Fraction(value) == self.exact(code), (name, code)
        if dtype is not None:
            theirs = np.arange(2**self.bits, dtype=np.uint8).view(dtype).astype(np.float32)
            np.testing.assert_array_equal(np.array(self.values, np.float32), theirs)
            np.testing.assert_array_equal(np.signbit(theirs) & (theirs == 0), [
                math.copysign(1, v) < 0 and v == 0 for v in self.values
            ])

    def exact(self, code):
        """The definition of a finite value: fraction times step, with the hidden bit above the first binade."""
        sign = 2 ** (self.bits - 1)
        field, fraction = (code & (sign - 1)) >> self.mantissa_bits, code & (2**self.mantissa_bits - 1)
        hidden = 0 if field == 0 else 2**self.mantissa_bits
        magnitude = (hidden + fraction) * Fraction(2) ** (max(field, 1) - self.bias - self.mantissa_bits)
        return -magnitude if code & sign else magnitude

    def gfloat_code(self, value, saturate):
        if math.isnan(value) and not self.has_nan:
            return None
        rounded = gfloat.round_float(self.info, value, gfloat.RoundMode.TiesToEven, saturate or not self.has_nan)
        return gfloat.encode_float(self.info, rounded)

    def is_nan(self, code):
        return code is not None and math.isnan(self.values[code])

    def encode(self, values, native=None):
        """Pairs of codes, under overflow to specials and under saturation; `native` are the values as a NumPy array."""
        special = [self.gfloat_code(value, False) for value in values]
        saturated = [self.gfloat_code(value, True) for value in values]
        if self.dtype is not None and native is not None:
            theirs = [int(code) for code in native.astype(self.dtype).view(np.uint8)]
            theirs = [None if ours is None else their for ours, their in zip(special, theirs)]
            for value, ours, their in zip(values, special, theirs):
                assert ours == their or (self.is_nan(ours) and self.is_nan(their)), (self.name, value, ours, their)
            special = theirs
        return [
            # Where both say NaN, one NaN is as good as the other.
            (self.aligned(a), self.aligned(a if self.is_nan(a) and self.is_nan(b) else b))
            for a, b in zip(special, saturated)
        ]

    def aligned(self, code):
        """The code in the upper bits of a byte."""
        return None if code is None else code << (8 - self.bits)


def f32_corpus(reference):
    finite = sorted({v for v in reference.values if math.isfinite(v) and v > 0})
    step = finite[-1] - finite[-2] if reference.mantissa_bits else finite[-1]
    beyond = [0.0, *finite, finite[-1] + step, finite[-1] + 2 * step]
    points = [*finite, *[(a + b) / 2 for a, b in zip(beyond, beyond[1:])]]
    bits = set()
    for point in points:
        bits |= {f32_bits(point) + ulp for ulp in (-1, 0, 1)}
        assert f32(f32_bits(point)) == point
    bits |= {field << 23 for field in range(0, 256)}
    bits |= {f32_bits(finite[-1] * (1 + sign * 2.0**-k)) for k in range(0, 25) for sign in (-1, 1)}
    bits |= {0, 1, 2, 3, 0x0012_3456, 0x003F_FFFF, 0x0040_0000, 0x007F_FFFF, 0x0080_0000, 0x0080_0001}
    bits |= {0x7F7F_FFFE, 0x7F7F_FFFF, 0x7F80_0000, 0x7F80_0001, 0x7FAB_CDEF, 0x7FC0_0000, 0x7FFF_FFFF}
    # Just off a tie by less than f16, bf16 or the like could tell: right only if rounded once.
    bits |= {f32_bits(point) + ulp for point in points[:: 7] for ulp in (-0x1000, -0x100, 0x100, 0x1000)}
    bits = {b for b in bits if 0 <= b < 2**31}
    return sorted(bits) + sorted(b | 2**31 for b in bits)


def f64_corpus(reference):
    finite = sorted({v for v in reference.values if math.isfinite(v) and v >= 0})
    step = finite[-1] - finite[-2] if reference.mantissa_bits else finite[-1]
    beyond = [*finite, finite[-1] + step]
    inputs = {0.0, 5e-324, 1e-310, 2.0**-1022, 1e-300, 2.0**-150, 2.0**127, 2.0**128, 1e300, 1.7976931348623157e308}
    for point in (*beyond, *[(a + b) / 2 for a, b in zip(beyond, beyond[1:])]):
        inputs |= {point, math.nextafter(point, 0), math.nextafter(point, math.inf)}
    # A format without f32's exponent range would see these as ties.
    inputs |= {(a + b) / 2 * (1 + sign * 2.0**-40) for a, b in zip(beyond, beyond[1:]) for sign in (-1, 1)}
    return sorted({f64_bits(v) for v in inputs}) + [f64_bits(-v) for v in sorted(inputs)[::9]]


def text(code):
    return ".." if code is None else f"{code:02x}"


def pair_text(pair):
    return text(pair[0]) if pair[0] == pair[1] else f"{text(pair[0])} {text(pair[1])}"


def table(reference):
    lines = [f"# {reference.name}, written by make_tables.py", "[decode]"]
    decoded = ["nan" if math.isnan(v) else f"{f32_bits(v):08x}" for v in reference.values]
    lines += [" ".join(decoded[row : row + 16]) for row in range(0, len(decoded), 16)]

    lines.append("[f32]")
    corpus = f32_corpus(reference)
    native = np.array(corpus, np.uint32).view(np.float32)
    pairs = reference.encode([float(v) for v in native], native)
    lines += [f"{bits:08x} {pair_text(pair)}" for bits, pair in zip(corpus, pairs)]

    lines.append("[f64]")
    corpus = f64_corpus(reference)
    pairs = reference.encode([float(v) for v in np.array(corpus, np.uint64).view(np.float64)])
    lines += [f"{bits:016x} {pair_text(pair)}" for bits, pair in zip(corpus, pairs)]

    for name, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        lines.append(f"[{name}]")
        native = np.arange(0x10000, dtype=np.uint16).view(dtype)
        pairs = reference.encode([float(v) for v in native], native)
        previous = None
        for bits, pair in enumerate(pairs):
            if pair != previous:
                lines.append(f"{bits:04x} {pair_text(pair)}")
            previous = pair
    return "\n".join(lines) + "\n"


def file_name(name):
    kept = "".join(c if c.isalnum() or c in "_-" else " " for c in name)
    return "_".join(kept.split()) + ".txt"


if __name__ == "__main__":
    np.seterr(all="ignore")
    for arguments in FORMATS:
        (HERE / file_name(arguments[0])).write_text(table(Reference(*arguments)))
