"""Writes the golden tables in `recipes/`: what reference implementations make of whole tensors, scales and codes.

    python -m venv venv
    venv/bin/pip install numpy==2.4.6 ml_dtypes==0.6.0 gfloat==0.5.2 \
        torch==2.15.0 torchao==0.18.0 triton==3.9.0 compressed-tensors==0.20.0
    venv/bin/python make_recipe_tables.py     # Python 3.11, on the CPU; the output is deterministic

Sources, all PyPI packages:
- `torchao` for `tensorwise`, `rowwise`, `blockwise`, `mxfp8` and `mxfp8_round_up`: its own functions compute the
  tables.
- `compressed-tensors` for `weight_only` in E4M3, with the strategies tensor, channel, token, group and block.
- `gfloat` for the casts to all formats and for the blocks of `mxfp8`; `ml_dtypes` and `torch` check its casts.
- Transformer Engine runs on a GPU only, so that `hybrid` follows its documented rule (delayed scaling, "max") in
  NumPy's f32, step by step. A second version that moves a buffer of amaxes as Transformer Engine's kernel does must
  agree.
Each rule is written down once more here, in NumPy, and compared with its source for every tensor; the script fails on
any difference except those listed below, and on one of those where it is not expected.

What the tables hold follows the rule of altgrad, `value = decode(code) * scale`. torchao and Transformer Engine keep
the reciprocal, here called the multiplier, and round it to f32 first: `code = cast(x * multiplier)`, `scale = 1 /
multiplier`. All arithmetic is f32 and rounds to nearest even, casts saturate:
- `weight_only`: `scale = amax / largest`, at least 2^-126, one step smaller where `scale * largest` would be infinite,
  and 1 for an amax of 0; `code = cast(x / scale)`.
- `tensorwise`, `blockwise`: `multiplier = largest / max(amax, 1e-12)`, the maximum in f64.
- `rowwise`: the same, rounded down to a power of two.
- `hybrid`: `multiplier = largest * 2^-margin / (largest of the last len amaxes before this step)`, 1 before the first
  and f32::MAX instead of infinity. A step with an amax of 0, infinity or NaN changes neither the multiplier nor the
  history.
- `mxfp8`: `scale = 2^(floor(log2(amax)) - 8)`, from 2^-127 to 2^127, and 2^-127 for an amax of 0; `code = cast(x /
  scale)`.
- `mxfp8_round_up`: the smallest power of two with `448 * scale >= amax`, in the same range.

Where the sources do something else (the tables hold altgrad's rule):
- `compressed-tensors` takes 2^-23 instead of a scale that is 0 (altgrad 1 if amax is 0, otherwise 2^-126) and keeps
  scales that are subnormal (altgrad 2^-126). Where it adds a zero point of 0, the code of -0 is 00 (altgrad 80).
- `torchao` computes powers of two with f32's log2, rounded to nearest. With an amax 1 to 40 steps of f32 above 448 *
  2^k, the more the further k is from 0, its multiplier in `rowwise` is twice as large as it should be and its scale in
  `mxfp8_round_up` half as large; one step above 448 * 2^-10 is an example. The inputs avoid those places
  (`log2_differences` finds them), and the tables are exact on both sides of them.
- `torchao` divides by 2^-126 where the E8M0 scale of `mxfp8` is 2^-127, and by 1 in `mxfp8_round_up`; the values that
  its codes give back are half as large as they should be, or 0. There the codes come from gfloat.
- Transformer Engine keeps an infinite amax in its window and uses the old multiplier until it has left. A NaN takes a
  place in the window, but is ignored otherwise.

One rule of altgrad is not in the tables, which hold what the sources do: for an amax above 1.75 * 2^127 altgrad halves
the power-of-two scale of `rowwise` and `mxfp8_round_up`, because the largest value times the scale would be infinite.
The tests expect that (`make_finite` in `recipes/golden.rs`).

Files are lines of words that are separated by one space; lines that start with `#` are comments. Numbers in sections
are hexadecimal, floats are the bits of f32; numbers in headers are decimal.
- `inputs.txt`: `[input NAME ROWS COLS]`, then a line a row with COLS floats. Names starting with `bf16` have only bf16
  values.
- Others, except for `hybrid_histories.txt`: `[RECIPE ROLES FORMAT GRANULARITY INPUT DIRECTION SCALE_ROWS SCALE_COLS]`,
  then SCALE_ROWS lines with SCALE_COLS floats, then a line a row of the tensor with all its codes, two digits each,
  without a space between them.
  - ROLES: one or more of `weights`, `activations`, `gradients`, with commas between.
  - GRANULARITY: `tensor`, `row` or `ROWSxCOLS`, the size of a block; blocks at the edges may be smaller, which is the
    same as filling up with zeros and cropping.
  - DIRECTION: `direct`, or `transposed`: the input is transposed first, and scales and codes are of the transpose.
  - RECIPE is the name of the file; in `hybrid.txt` it is `hybrid/SEQUENCE/STEP`: the steps of a sequence follow each
    other and share one history, which is empty at step 0.
- `hybrid_histories.txt`: `[NAME FORMAT LEN MARGIN STEPS]`, then STEPS lines `amax multiplier scale`; the last two are
  those that quantize this step, before its amax is recorded.
"""

import zlib
from collections import Counter
from fractions import Fraction
from pathlib import Path

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import torch
from compressed_tensors.quantization.lifecycle.forward import quantize as ct_quantize
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils.helpers import calculate_qparams, compute_dynamic_scales_and_zp
from torchao.float8.config import Float8LinearConfig, ScalingGranularity
from torchao.float8.float8_scaling_utils import hp_tensor_to_float8_dynamic
from torchao.float8.float8_training_tensor import LinearMMConfig, hp_tensor_and_scale_to_float8
from torchao.float8.float8_utils import amax_to_scale
from torchao.prototype.blockwise_fp8_training.kernels import (
    torch_blockwise_scale_act_quant_lhs,
    torch_blockwise_scale_act_quant_rhs,
    torch_blockwise_scale_weight_quant,
)
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_mx

from make_tables import format_info

HERE = Path(__file__).parent / "recipes"
F32_MAX = np.finfo(np.float32).max
MIN_NORMAL = np.float32(2.0**-126)
EPS = 1e-12
COUNTS = Counter()


def same(ours, theirs, *what):
    """Bit for bit."""
    ours, theirs = np.ascontiguousarray(ours), np.ascontiguousarray(theirs)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (what, ours.dtype, theirs.dtype, ours.shape)
    bits = np.uint8 if ours.dtype == np.uint8 else np.uint32
    differences = np.argwhere(ours.view(bits) != theirs.view(bits))
    assert len(differences) == 0, (what, len(differences), differences[:3], ours[tuple(differences[0])])
    return ours.size


class Format:
    def __init__(self, name, exponent_bits, mantissa_bits, bias, specials, native=None, torch_type=None):
        self.name, self.native, self.torch_type = name, native, torch_type
        self.info = format_info(name, exponent_bits, mantissa_bits, bias, specials)
        self.largest = np.float32(self.info.max)

    def cast(self, values):
        assert values.dtype == np.float32 and not np.isnan(values).any()
        rounded = gfloat.round_ndarray(self.info, values.astype(np.float64), gfloat.RoundMode.TiesToEven, True)
        codes = gfloat.encode_ndarray(self.info, rounded).astype(np.uint8)
        clipped = np.clip(values, -self.largest, self.largest)
        if self.native is not None:
            same(codes, clipped.astype(self.native).view(np.uint8), self.name)
        if self.torch_type is not None:
            same(codes, code_array(torch.from_numpy(clipped).to(self.torch_type)), self.name)
        return codes

    def values(self):
        """The positive finite ones."""
        values = gfloat.decode_ndarray(self.info, np.arange(128))
        return np.sort(values[np.isfinite(values) & (values > 0)]).astype(np.float32)


E4M3 = Format("E4M3", 4, 3, 7, "nan_only", ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn)
E5M2 = Format("E5M2", 5, 2, 15, "ieee", ml_dtypes.float8_e5m2, torch.float8_e5m2)
E3M4 = Format("E3M4", 3, 4, 3, "none")
E2M5 = Format("E2M5", 2, 5, 1, "none")
E7M0 = Format("E7M0", 7, 0, 63, "none")
E4M3_FNUZ = Format("E4M3_FNUZ", 4, 3, 8, "fnuz", ml_dtypes.float8_e4m3fnuz, torch.float8_e4m3fnuz)
FORMATS = {fp8.name: fp8 for fp8 in (E4M3, E5M2, E3M4, E2M5, E7M0, E4M3_FNUZ)}


def code_array(tensor):
    return tensor.detach().contiguous().view(torch.uint8).numpy()


# ---------------------------------------------------------------------------------------------------------- inputs


def step(value, steps):
    """The f32 that is so many steps further from zero."""
    return (np.asarray(value, np.float32).view(np.uint32) + np.int64(steps)).astype(np.uint32).view(np.float32)


def row_with(random, amax, cols):
    """A row with a spread of magnitudes whose largest is `amax`."""
    spread = random.uniform(-1, 1, cols) * 2.0 ** random.integers(-10, 1, cols)
    row = (float(amax) * spread * 0.999).astype(np.float32)
    row[random.integers(cols)] = amax if random.integers(2) else -np.float32(amax)
    return row


def rows_with(random, amaxes, cols):
    return np.stack([row_with(random, amax, cols) for amax in amaxes])


def midpoints(fp8, scale, cols):
    """All values of a format, the midpoints between them, and one step to either side of both."""
    values = fp8.values()
    points = np.concatenate([values, (np.concatenate([[np.float32(0)], values[:-1]]) + values) / 2])
    points = np.sort(np.concatenate([points, step(points, 1), step(points, -1)]))
    # One step above 448 * 2^k the powers of two of torchao are not exact, see above.
    keep = (points <= fp8.largest) & (points != step(1.75 * 2.0 ** np.floor(np.log2(points.astype(np.float64))), 1))
    points = points[keep] * np.float32(scale)
    points = np.concatenate([points, np.zeros(-len(points) % cols, np.float32)])
    points[::2] *= -1
    return points.reshape(-1, cols)


def make_inputs():
    """The random ones depend on their own name only."""
    inputs = {}

    def add(name, make):
        with np.errstate(all="ignore"):
            value = np.asarray(make(np.random.default_rng(zlib.crc32(name.encode()))), np.float32)
        assert value.ndim == 2 and np.isfinite(value).all(), name
        inputs[name] = np.ascontiguousarray(value)

    def normal(*shape, deviation=1.0):
        return lambda random: random.standard_normal(shape) * deviation

    def changed(make, *changes):
        def changed_make(random):
            value = np.asarray(make(random), np.float32)
            for rows, cols, to in changes:
                value[rows, cols] = to
            return value

        return changed_make

    def to_bf16(make):
        return lambda random: np.asarray(make(random), np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)

    every = slice(None)
    add("normal", normal(16, 48))
    add("weights_like", normal(24, 64, deviation=0.02))
    add("gradients_like", normal(10, 96, deviation=3e-7))
    add("cauchy", lambda random: random.standard_cauchy((16, 80)))
    add("student_t", lambda random: random.standard_t(2, (9, 64)) * 1e-3)
    add("zero", lambda random: np.zeros((4, 40)))
    add("zero_row_and_blocks", changed(
        normal(8, 160),
        (2, every, 0), (5, slice(32, 64), 0), (3, slice(0, 128), 0), (6, slice(128, 160), -0.0), (every, 7, 0),
    ))
    add("outlier", changed(normal(12, 70), (7, 33, -1e5)))
    add("huge_outlier", changed(normal(6, 64), (2, 5, 3e30)))
    add("f32_subnormals", lambda random: (
        random.integers(1, 2**23, (6, 40)) >> random.integers(0, 23, (6, 40))
    ).astype(np.uint32).view(np.float32) * random.choice([-1, 1], (6, 40)))
    add("smallest_f32", lambda random: (np.arange(6 * 35) % 9).reshape(6, 35).astype(np.uint32).view(np.float32))
    add("around_f32_min_normal", lambda random: rows_with(
        random, [2.0**k for k in (-127, -126, -125, -120, -119, -118, -117, -116)], 40
    ))
    eps = np.float32(EPS)
    add("around_eps", lambda random: rows_with(
        random,
        [1e-14, 1e-13, 5e-13, step(eps, -2), step(eps, -1), eps, step(eps, 1), step(eps, 2), 1.5e-12, 2e-12, 1e-11],
        36,
    ))
    add("below_eps", lambda random: rows_with(random, [1e-13, 3e-13, 9e-13], 36))
    add("at_eps", lambda random: rows_with(random, [1e-13, eps], 36))
    for fp8, smallest in ((E4M3, 2.0**-9), (E5M2, 2.0**-16), (E3M4, 2.0**-6), (E2M5, 2.0**-5), (E4M3_FNUZ, 2.0**-10)):
        add(f"subnormals_of_{fp8.name}", lambda random: changed(
            lambda _: (np.arange(-60, 60) * smallest / 4).reshape(3, 40), (every, 0, fp8.largest)
        )(random))
        add(f"midpoints_of_{fp8.name}", lambda random: midpoints(fp8, 1, 42))
    add("scaled_midpoints_of_E4M3", lambda random: midpoints(E4M3, 2.0**-20, 42))
    add("scaled_midpoints_of_E5M2", lambda random: midpoints(E5M2, 2.0**20, 42))
    # Here multiplying by the multiplier and dividing by the scale do not always give the same code.
    add("odd_midpoints_of_E4M3", lambda random: midpoints(E4M3, 0.1, 42))
    add("odd_midpoints_of_E5M2", lambda random: midpoints(E5M2, 0.1, 42))
    add("near_f32_max", lambda random: rows_with(
        random,
        [F32_MAX, step(F32_MAX, -1), step(F32_MAX, -9), 448 * 2.0**119, step(448 * 2.0**119, -1), 2.0**127, 3e38],
        34,
    ))
    add("all_f32_max", lambda random: np.full((2, 33), F32_MAX) * random.choice([-1, 1], (2, 33)))
    add("powers_of_two", lambda random: np.append(2.0 ** np.arange(-149.0, 128), [0, 0, 0]).reshape(7, 40))
    add("amax_power_of_two", lambda random: rows_with(
        random,
        [v for k in (-100, -30, -10, -1, 0, 1, 7, 60, 126) for v in (2.0**k, step(2.0**k, -1), step(2.0**k, 1))],
        33,
    ))
    add("amax_largest", lambda random: rows_with(
        random,
        [448 * 2.0**k for k in (-140, -127, -126, -118, -60, -20, -10, -3, -2, -1, 0, 1, 2, 7, 10, 60, 110, 119)],
        40,
    ))
    add("amax_below_largest", lambda random: rows_with(
        random, [step(448 * 2.0**k, -1) for k in (-118, -60, -20, -10, -3, -1, 0, 1, 2, 10, 60, 119)], 40
    ))
    add("amax_above_largest", lambda random: rows_with(
        random,
        [step(448 * 2.0**k, 1) for k in (-1, 0, 1)] + [step(448 * 2.0**k, 64) for k in (-40, -20, -10, 2, 10, 60)],
        40,
    ))
    add("negative_zeros", changed(
        lambda random: np.where(random.integers(2, size=(4, 33)) == 1, -0.0, random.standard_normal((4, 33))),
        (1, every, -0.0), (2, slice(0, 9), 0.0), (2, slice(9, 33), -0.0),
    ))
    add("single", lambda random: [[3.0]])
    add("single_negative", lambda random: [[-0.1]])
    add("single_negative_zero", lambda random: [[-0.0]])
    add("one_row", normal(1, 150))
    add("one_column", normal(150, 1))
    add("ragged_5x33", normal(5, 33))
    add("ragged_7x70", lambda random: random.standard_t(3, (7, 70)))
    add("ragged_129x3", normal(129, 3))
    add("ragged_3x257", normal(3, 257))
    add("ragged_130x150", changed(
        lambda random: random.standard_t(3, (130, 150)) * 0.05,
        (slice(128, 130), slice(128, 150), 0), (77, every, 0), (every, 3, 0),
    ))
    add("bf16_normal", to_bf16(normal(20, 70)))
    add("bf16_weights_like", to_bf16(normal(12, 64, deviation=0.02)))
    add("bf16_cauchy", to_bf16(lambda random: random.standard_cauchy((5, 140)) * 1e-4))
    return inputs


# ----------------------------------------------------------------------------------------------------------- layout


def padded(x, rows, cols):
    return np.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % cols)))


def block_size(x, granularity):
    if granularity == "tensor":
        return x.shape
    if granularity == "row":
        return 1, x.shape[1]
    rows, cols = granularity.split("x")
    return int(rows), int(cols)


def block_amax(x, granularity):
    rows, cols = block_size(x, granularity)
    x = np.abs(padded(x, rows, cols))
    return x.reshape(x.shape[0] // rows, rows, x.shape[1] // cols, cols).max(axis=(1, 3))


def spread(per_block, x, granularity):
    """One number a block to one number an element."""
    rows, cols = block_size(x, granularity)
    return np.repeat(np.repeat(per_block, rows, axis=0), cols, axis=1)[: x.shape[0], : x.shape[1]]


def exact_power(value, exponent_of):
    """2 to a power that exact arithmetic found, as f32; 2^-127 is subnormal, but exact."""
    return np.float32(np.ldexp(1.0, exponent_of(Fraction(float(value)))))


def floor_log2(value):
    """Of a positive fraction."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= value else exponent - 1


def ceil_log2(value):
    exponent = floor_log2(value)
    return exponent if Fraction(2) ** exponent == value else exponent + 1


def floats(values):
    return " ".join(f"{bits:08x}" for bits in np.ascontiguousarray(values, np.float32).view(np.uint32))


def suits(name, x, fp8, large=False):
    """Keeps the tables small: the midpoints are those of the format, and the largest tensor is for blocks."""
    owner = name.rpartition("_of_")[2]
    return (large or x.size < 10000) and (owner not in FORMATS or owner == fp8.name)


class Table:
    def __init__(self, name):
        self.name, self.lines = name, [f"# {name}, written by make_recipe_tables.py"]

    def add(self, roles, fp8, granularity, name, direction, scales, codes, recipe=None):
        assert scales.dtype == np.float32 and codes.dtype == np.uint8 and scales.ndim == codes.ndim == 2
        assert (np.isfinite(scales) & (scales > 0)).all(), (self.name, name)
        header = [recipe or self.name, roles, fp8.name, granularity, name, direction, *map(str, scales.shape)]
        self.lines.append(f"[{' '.join(header)}]")
        self.lines += [floats(row) for row in scales]
        self.lines += [row.tobytes().hex() for row in codes]
        COUNTS[self.name, "tables"] += 1
        COUNTS[self.name, "scales"] += scales.size
        COUNTS[self.name, "codes"] += codes.size

    def write(self):
        (HERE / f"{self.name}.txt").write_text("\n".join(self.lines) + "\n")


def directions(x):
    yield "direct", x
    yield "transposed", np.ascontiguousarray(x.T)


def dtypes(name, x):
    """The input as the types in which the reference may see it: bf16 inputs in bf16 as well."""
    yield torch.from_numpy(x)
    if name.startswith("bf16"):
        yield torch.from_numpy(x).to(torch.bfloat16)


# ------------------------------------------------------------------------------------------------------ weight only


def plain_scales(amax, fp8):
    quotient = amax / fp8.largest
    scales = np.maximum(quotient, MIN_NORMAL)
    scales = np.where(np.isinf(scales * fp8.largest), np.nextafter(scales, np.float32(0)), scales)
    return np.where(amax == 0, np.float32(1), scales)


def compressed_tensors(x, granularity):
    """Pairs of scales and codes of the strategies that match the granularity."""
    tensor = torch.from_numpy(x)
    schemes = {name: preset_name_to_scheme(name, ["Linear"]) for name in ("FP8", "FP8_DYNAMIC", "FP8_BLOCK")}
    rows, cols = block_size(x, granularity)
    blocks = torch.from_numpy(padded(x, rows, cols))
    blocks = blocks.reshape(blocks.shape[0] // rows, rows, blocks.shape[1] // cols, cols)
    minimum, maximum = blocks.amin(dim=(1, 3)), blocks.amax(dim=(1, 3))
    if granularity == "tensor":
        cases = [(schemes["FP8"].weights, tensor, None), (schemes["FP8"].input_activations, tensor, None)]
    elif granularity == "row":
        # A token is a row of the second dimension.
        dynamic = schemes["FP8_DYNAMIC"].input_activations
        cases = [(schemes["FP8_DYNAMIC"].weights, tensor, None), (dynamic, tensor[None], dynamic)]
    elif granularity == "128x128":
        cases = [(schemes["FP8_BLOCK"].weights, tensor, None)]
    elif granularity == "1x128":
        dynamic = schemes["FP8_BLOCK"].input_activations
        cases = [(dynamic, torch.from_numpy(padded(x, 1, 128)), dynamic)]
    else:
        return
    for args, tensor, dynamic in cases:
        if dynamic is None:
            scales, zero_points = calculate_qparams(minimum, maximum, args)
            if granularity == "tensor":
                scales, zero_points = scales.reshape(1), zero_points.reshape(1)
        else:
            scales, zero_points = compute_dynamic_scales_and_zp(tensor, args, None)
        both = []
        for zero_points in (None, zero_points):
            codes = code_array(ct_quantize(tensor, scales, zero_points, args, dtype=torch.float8_e4m3fn))
            both.append(codes.reshape(x.shape[0], -1)[:, : x.shape[1]])
        their_scales = scales.numpy().reshape(minimum.shape)
        # Adding a zero point turns a quotient of -0 into 0.
        zero = x / spread(their_scales, x, granularity) == 0
        same(np.where(zero, np.uint8(0), both[0]), both[1])
        yield their_scales, both[0]


def weight_only(x, fp8, granularity, name):
    amax = block_amax(x, granularity)
    scales = plain_scales(amax, fp8)
    codes = fp8.cast(x / spread(scales, x, granularity))
    if fp8 is E4M3:
        for their_scales, their_codes in compressed_tensors(x, granularity):
            quotient = amax / fp8.largest
            expected = np.where(quotient == 0, np.float32(2.0**-23), quotient)
            same(expected, their_scales, "compressed-tensors scales", name, granularity)
            differs = their_scales != scales
            assert (differs == ((amax == 0) | (quotient < MIN_NORMAL))).all(), name
            COUNTS["compressed-tensors", "scales compared"] += int((~differs).sum())
            COUNTS["compressed-tensors", "scales that differ"] += int(differs.sum())
            # With an amax of 0 the codes are the same all the same.
            compared = ~spread((quotient < MIN_NORMAL) & (amax != 0), x, granularity)
            count = same(codes[compared], their_codes[compared], name, granularity)
            COUNTS["compressed-tensors", "codes compared"] += count
            COUNTS["compressed-tensors", "codes not compared"] += int((~compared).sum())
    return scales, codes


def weight_only_tables(inputs):
    table = Table("weight_only")
    for fp8 in FORMATS.values():
        for name, x in inputs.items():
            if suits(name, x, fp8):
                table.add("weights", fp8, "tensor", name, "direct", *weight_only(x, fp8, "tensor", name))
    table.write()
    table = Table("weight_only_granular")
    for fp8, granularity in (
        (E4M3, "row"), (E4M3, "128x128"), (E4M3, "1x128"), (E5M2, "row"), (E3M4, "4x16"), (E2M5, "row"),
        (E4M3_FNUZ, "3x7"),
    ):
        for name, x in inputs.items():
            if suits(name, x, fp8, granularity == "128x128"):
                table.add("weights", fp8, granularity, name, "direct", *weight_only(x, fp8, granularity, name))
    table.write()


# ---------------------------------------------------------------------------------- torchao's float8 training recipes


def multipliers(amax, fp8):
    with np.errstate(all="ignore"):
        return (np.float64(fp8.largest) / np.maximum(amax.astype(np.float64), EPS)).astype(np.float32)


def cast_configs(recipe):
    config = Float8LinearConfig.from_recipe_name(recipe)
    return config, {
        "weights": (config.cast_config_weight, config.cast_config_weight_for_grad_input),
        "activations": (config.cast_config_input, config.cast_config_input_for_grad_weight),
        "gradients": (config.cast_config_grad_output, config.cast_config_grad_output_for_grad_weight),
    }


def tensorwise_tables(inputs):
    config, casts = cast_configs("tensorwise")
    table = Table("tensorwise")
    for roles, fp8 in (("weights,activations", E4M3), ("gradients", E5M2)):
        for role in roles.split(","):
            for cast in casts[role]:
                assert cast.target_dtype is fp8.torch_type and cast.scaling_granularity is ScalingGranularity.TENSORWISE
        assert not config.round_scales_to_power_of_2
        for name, x in inputs.items():
            if not suits(name, x, fp8):
                continue
            multiplier = multipliers(block_amax(x, "tensor"), fp8)
            scales = np.float32(1) / multiplier
            codes = fp8.cast(x * multiplier)
            for tensor in dtypes(name, x):
                theirs = hp_tensor_to_float8_dynamic(tensor, fp8.torch_type, LinearMMConfig())
                COUNTS["tensorwise", "scales compared"] += same(multiplier, theirs._scale.reshape(1, 1).numpy(), name)
                COUNTS["tensorwise", "codes compared"] += same(codes, code_array(theirs._data), name)
            table.add(roles, fp8, "tensor", name, "direct", scales, codes)
    table.write()


def rowwise_tables(inputs):
    config, casts = cast_configs("rowwise")
    for pair in casts.values():
        for cast in pair:
            assert cast.target_dtype is E4M3.torch_type and cast.scaling_granularity is ScalingGranularity.AXISWISE
    assert config.round_scales_to_power_of_2
    table = Table("rowwise")
    for name, x in inputs.items():
        if not suits(name, x, E4M3):
            continue
        for direction, y in directions(x):
            quotients = multipliers(block_amax(y, "row"), E4M3)
            multiplier = np.array([[exact_power(q, floor_log2)] for q in quotients[:, 0]])
            scales = np.float32(1) / multiplier
            codes = E4M3.cast(y * multiplier)
            for tensor in dtypes(name, x):
                # torchao quantizes along the first dimension where altgrad quantizes the rows of the transpose.
                theirs = hp_tensor_to_float8_dynamic(
                    tensor,
                    E4M3.torch_type,
                    LinearMMConfig(),
                    scaling_granularity=ScalingGranularity.AXISWISE,
                    axiswise_dim=-1 if direction == "direct" else 0,
                    round_scales_to_power_of_2=True,
                )
                their_multiplier, their_codes = theirs._scale, theirs._data
                if direction == "transposed":
                    their_multiplier, their_codes = their_multiplier.t(), their_codes.t()
                COUNTS["rowwise", "scales compared"] += same(multiplier, their_multiplier.numpy(), name, direction)
                COUNTS["rowwise", "codes compared"] += same(codes, code_array(their_codes), name, direction)
            table.add("weights,activations,gradients", E4M3, "row", name, direction, scales, codes)
    table.write()


# --------------------------------------------------------------------------------------------------- delayed scaling


class Delayed:
    """The rule of Transformer Engine's delayed scaling, with the list of amaxes that count."""

    def __init__(self, fp8, length, margin):
        self.scaled_largest = np.float32(fp8.largest * np.float32(2.0**-margin))
        self.length, self.amaxes, self.multiplier = length, [], np.float32(1)

    def record(self, amax):
        if not np.isfinite(amax) or amax == 0:
            return
        self.amaxes = [*self.amaxes, np.float32(amax)][-self.length :]
        with np.errstate(all="ignore"):
            self.multiplier = min(self.scaled_largest / max(self.amaxes), F32_MAX)


class DelayedBuffer:
    """The same in a ring buffer, as in Transformer Engine, which treats infinity and NaN differently."""

    def __init__(self, fp8, length, margin):
        self.scaled_largest = np.float32(fp8.largest * np.float32(2.0**-margin))
        self.buffer, self.multiplier = np.zeros(length, np.float32), np.float32(1)

    def record(self, amax):
        if amax == 0:
            return
        turned = np.append(self.buffer[1:], np.float32(amax))
        largest = np.fmax.reduce(turned, initial=np.float32(0))
        # Place 0 is for the next amax.
        self.buffer = turned.copy()
        self.buffer[0] = 0
        if np.isfinite(largest) and largest > 0:
            with np.errstate(all="ignore"):
                self.multiplier = self.scaled_largest / largest
            if np.isinf(self.multiplier):
                self.multiplier = F32_MAX


def histories():
    random = np.random.default_rng(zlib.crc32(b"histories"))
    tiny = [2.0**-149, 2.0**-148, 1e-42, 2.0**-127, step(2.0**-126, -1), 2.0**-126, 1e-37, 1.3e-36, 1.7e-34, 1e-30]
    inf, nan = np.inf, np.nan
    mixed = np.exp2(random.uniform(-40, 40, 48))
    mixed[[3, 4, 17, 40]], mixed[[8, 25]], mixed[[12, 13, 33]] = 0, inf, nan
    return {
        "ones": [1.0] * 4,
        "zero": [0.0] * 5,
        "zero_between": [0.0, 2.0, 0.0, 0.0, 0.5, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0],
        "tiny": tiny,
        "tiny_falling": tiny[::-1],
        "growing": [0.1 * 1.7**n for n in range(20)],
        "shrinking": [1000 * 0.6**n for n in range(24)],
        "spike": [1.0, 1.5, 1e6, 1.25, 0.75, 1.0, 0.5, 0.9, 1.1, 0.3, 0.2, 0.1],
        "near_f32_max": [1.0, F32_MAX, step(F32_MAX, -1), 1.0, 2.0**127, 448 * 2.0**119, 1.0, 1.0, 1.0],
        "infinity": [inf, 1.0, 2.0, inf, 4.0, inf, inf, 0.5, 0.25, 0.125, 0.5, 1.0],
        "nan": [nan, 1.0, nan, 2.0, nan, nan, 0.5, 0.25, 0.125, 0.5, 1.0],
        "mixed": mixed.tolist(),
        "normal": np.abs(random.standard_normal(40)).tolist(),
    }


def history_tables():
    lines = ["# hybrid_histories, written by make_recipe_tables.py"]
    settings = [(E4M3, 1024, 0), (E5M2, 1024, 0), (E4M3, 1, 0), (E4M3, 3, 0)]
    settings += [(E5M2, 4, 0), (E4M3, 16, 1), (E5M2, 8, 3), (E4M3, 2, 7)]
    cases = [(name, amaxes, setting) for name, amaxes in histories().items() for setting in settings]
    # Longer than the window of the recipe itself.
    long = [64.0] + [2.0 ** -(n % 7) for n in range(1030)]
    cases.append(("past_1024", long, (E4M3, 1024, 0)))
    for name, amaxes, (fp8, length, margin) in cases:
        ours, theirs = Delayed(fp8, length, margin), DelayedBuffer(fp8, length, margin)
        lines.append(f"[{name} {fp8.name} {length} {margin} {len(amaxes)}]")
        differences = 0
        for amax in amaxes:
            differences += ours.multiplier != theirs.multiplier
            amax = np.float32(amax)
            lines.append(floats(np.array([amax, ours.multiplier, np.float32(1) / ours.multiplier])))
            ours.record(amax)
            theirs.record(amax)
        COUNTS["hybrid_histories", "steps"] += len(amaxes)
        if np.isfinite(amaxes).all():
            assert differences == 0, (name, fp8.name, length, margin)
        elif differences:
            COUNTS["hybrid_histories", "steps that differ because of infinity or NaN"] += int(differences)
    (HERE / "hybrid_histories.txt").write_text("\n".join(lines) + "\n")


SEQUENCES = {
    "steady": ["normal", "weights_like", "cauchy", "student_t"],
    "zeros": ["zero", "normal", "zero", "single_negative_zero", "outlier"],
    "tiny": ["f32_subnormals", "f32_subnormals", "smallest_f32", "around_eps"],
    "growing": ["gradients_like", "weights_like", "normal", "outlier", "near_f32_max"],
    "shrinking": ["near_f32_max", "huge_outlier", "normal", "gradients_like"],
    "limits": ["amax_largest", "powers_of_two", "midpoints_of_E4M3", "midpoints_of_E5M2"],
    "E4M3": ["midpoints_of_E4M3", "midpoints_of_E4M3", "subnormals_of_E4M3"],
    "E5M2": ["midpoints_of_E5M2", "midpoints_of_E5M2", "subnormals_of_E5M2"],
    "odd_E4M3": ["odd_midpoints_of_E4M3", "odd_midpoints_of_E4M3"],
    "odd_E5M2": ["odd_midpoints_of_E5M2", "odd_midpoints_of_E5M2"],
    "bf16": ["bf16_weights_like", "bf16_normal", "bf16_cauchy"],
    "shapes": ["single", "one_row", "one_column", "ragged_5x33"],
}


def hybrid_tables(inputs):
    table = Table("hybrid")
    for sequence, names in SEQUENCES.items():
        for roles, fp8 in (("weights,activations", E4M3), ("gradients", E5M2)):
            delayed = Delayed(fp8, 1024, 0)
            for number, name in enumerate(names):
                x = inputs[name]
                with np.errstate(all="ignore"):
                    codes = fp8.cast(x * delayed.multiplier)
                scale = np.float32(1) / delayed.multiplier
                # The cast by a multiplier that was found before is the same operation in torchao.
                for tensor in dtypes(name, x):
                    theirs = hp_tensor_and_scale_to_float8(tensor, torch.tensor(delayed.multiplier), fp8.torch_type)
                    COUNTS["hybrid", "codes compared"] += same(codes, code_array(theirs._data), sequence, name)
                scales = np.array([[scale]], np.float32)
                table.add(roles, fp8, "tensor", name, "direct", scales, codes, f"hybrid/{sequence}/{number}")
                delayed.record(np.abs(x).max())
    table.write()


# ----------------------------------------------------------------------------------------------------------- blocks


def blockwise_tables(inputs):
    table = Table("blockwise")
    for name, x in inputs.items():
        if not suits(name, x, E4M3, large=True):
            continue
        for roles, granularity in (("weights", "128x128"), ("activations,gradients", "1x128")):
            for direction, y in directions(x):
                if granularity == "128x128" and direction == "transposed":
                    continue
                multiplier = multipliers(block_amax(y, granularity), E4M3)
                scales = np.float32(1) / multiplier
                codes = E4M3.cast(y * spread(multiplier, y, granularity))
                rows, cols = block_size(y, granularity)
                function = torch_blockwise_scale_weight_quant if rows == 128 else torch_blockwise_scale_act_quant_lhs
                crop = (slice(y.shape[0]), slice(y.shape[1]))
                for tensor in dtypes(name, padded(y, rows, cols)):
                    their_codes, their_scales = function(tensor)
                    COUNTS["blockwise", "scales compared"] += same(scales, their_scales.numpy(), name, granularity)
                    count = same(codes, code_array(their_codes)[crop], name, granularity)
                    COUNTS["blockwise", "codes compared"] += count
                if rows == 1 and direction == "transposed":
                    # torchao has a function for the columns, too.
                    their_codes, their_scales = torch_blockwise_scale_act_quant_rhs(
                        torch.from_numpy(padded(x, 128, 128))
                    )
                    same(scales, their_scales.t().numpy()[: y.shape[0]], name)
                    same(codes, code_array(their_codes.t())[crop], name)
                table.add(roles, E4M3, granularity, name, direction, scales, codes)
    table.write()


def gfloat_blocks(x, scales):
    """Codes of gfloat's blocks, with scales that are given."""
    info = gfloat.formats.format_info_mxfp8_e4m3
    assert info.k == 32
    codes = np.zeros(x.shape, np.uint8)
    blocks = padded(x, 1, 32).astype(np.float64)
    for row in range(x.shape[0]):
        for block in range(scales.shape[1]):
            values = blocks[row, block * 32 : block * 32 + 32]
            scale = float(scales[row, block])
            encoded = list(gfloat.encode_block(info, scale, values / scale))
            assert encoded[0] == int(np.log2(scale)) + 127
            width = min(32, x.shape[1] - block * 32)
            codes[row, block * 32 : block * 32 + width] = encoded[1 : 1 + width]
    return codes


def mxfp8_tables(inputs, recipe, mode):
    table = Table(recipe)
    for name, x in inputs.items():
        if not suits(name, x, E4M3, large=True):
            continue
        for direction, y in directions(x):
            if y.size >= 10000 and direction == "transposed" and mode is not ScaleCalculationMode.FLOOR:
                continue
            amax = block_amax(y, "1x32")
            if mode is ScaleCalculationMode.FLOOR:
                exponent_of = lambda value: min(max(floor_log2(value) - 8, -127), 127)
            else:
                exponent_of = lambda value: min(max(ceil_log2(value / 448), -127), 127)
            scales = np.array([
                [np.float32(2.0**-127) if a == 0 else exact_power(a, exponent_of) for a in row] for row in amax
            ])
            with np.errstate(all="ignore"):
                codes = E4M3.cast(y / spread(scales, y, "1x32"))
            if mode is ScaleCalculationMode.FLOOR:
                blocks = padded(y, 1, 32).astype(np.float64)
                theirs = [
                    [gfloat.compute_scale_amax(8.0, row[block : block + 32]) for block in range(0, len(row), 32)]
                    for row in blocks
                ]
                COUNTS[recipe, "scales compared with gfloat"] += same(scales, np.float32(theirs), name, direction)
            if y.size < 10000:
                COUNTS[recipe, "codes compared with gfloat"] += same(codes, gfloat_blocks(y, scales), name, direction)
            smallest = spread((scales == np.float32(2.0**-127)) & (amax != 0), y, "1x32")
            for tensor in dtypes(name, padded(y, 1, 32)):
                their_scales, their_codes = to_mx(tensor, torch.float8_e4m3fn, 32, mode)
                exponents = their_scales.view(torch.uint8).numpy().astype(int) - 127
                their_scales = np.ldexp(np.float64(1), exponents).astype(np.float32)
                COUNTS[recipe, "scales compared with torchao"] += same(scales, their_scales, name, direction)
                their_codes = code_array(their_codes)[:, : y.shape[1]]
                kept = ~smallest
                COUNTS[recipe, "codes compared with torchao"] += same(codes[kept], their_codes[kept], name, direction)
                # What torchao does with the others: another divisor.
                divisor = MIN_NORMAL if mode is ScaleCalculationMode.FLOOR else np.float32(1)
                same(E4M3.cast(y[smallest] / divisor), their_codes[smallest], name, direction)
                COUNTS[recipe, "codes not compared with torchao"] += int(smallest.sum())
            table.add("weights,activations,gradients", E4M3, "1x32", name, direction, scales, codes)
    table.write()


def log2_differences():
    """Where torchao's powers of two are not exact: how many steps of f32 above 448 * 2^k, for each k."""
    found = {"rowwise": {}, "mxfp8_round_up": {}}
    for k in range(-118, 119):
        for steps in range(-8, 80):
            amax = step(448 * 2.0**k, steps)
            exact = exact_power(multipliers(amax, E4M3), floor_log2)
            theirs = amax_to_scale(torch.tensor(amax), torch.float8_e4m3fn, round_scales_to_power_of_2=True)
            if float(theirs) != float(exact):
                assert float(theirs) == 2 * float(exact) and steps > 0
                found["rowwise"].setdefault(k, []).append(steps)
            block = torch.zeros(1, 32)
            block[0, 0] = float(amax)
            theirs = to_mx(block, torch.float8_e4m3fn, 32, ScaleCalculationMode.RCEIL)[0].view(torch.uint8).item() - 127
            exact = ceil_log2(Fraction(float(amax)) / 448)
            if theirs != exact:
                assert theirs == exact - 1 and steps > 0
                found["mxfp8_round_up"].setdefault(k, []).append(steps)
    return found


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    inputs = make_inputs()
    lines = ["# inputs, written by make_recipe_tables.py"]
    for name, x in inputs.items():
        lines.append(f"[input {name} {x.shape[0]} {x.shape[1]}]")
        lines += [floats(row) for row in x]
        COUNTS["inputs", "values"] += x.size
        COUNTS["inputs", "tensors"] += 1
    (HERE / "inputs.txt").write_text("\n".join(lines) + "\n")
    with np.errstate(under="ignore", over="ignore"):
        weight_only_tables(inputs)
        tensorwise_tables(inputs)
        rowwise_tables(inputs)
        history_tables()
        hybrid_tables(inputs)
        blockwise_tables(inputs)
        mxfp8_tables(inputs, "mxfp8", ScaleCalculationMode.FLOOR)
        mxfp8_tables(inputs, "mxfp8_round_up", ScaleCalculationMode.RCEIL)
    for (recipe, what), count in COUNTS.items():
        print(f"{recipe}: {count} {what}")
    for recipe, found in log2_differences().items():
        ranges = ", ".join(f"{k}: {min(steps)} to {max(steps)}" for k, steps in found.items() if k % 16 == 5)
        print(f"{recipe}: torchao differs by a factor of 2 above 448 * 2^k, k: steps of f32 is {ranges}, and so on")


if __name__ == "__main__":
    main()
