"""What the Triton backends share: whether they can run here, how records are cut, small device functions."""

import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path

import torch
import triton
import triton.language as tl

from statespace.kernels.dispatch import is_device_array, is_tensor

# Set by TRITON_INTERPRET=1 before triton is first imported: kernels then run as NumPy code, slowly, on any machine.
INTERPRETED = triton.knobs.runtime.interpret
_INTERPRETED = tl.constexpr(INTERPRETED)


def unusable(*arguments, **options):
    """The reason of a backend whose kernels are compiled by Triton, or None."""
    if INTERPRETED:
        return None
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} finds no CUDA device (a driver, and a torch built for CUDA, are needed); "
            "with TRITON_INTERPRET=1 in the environment the kernels are interpreted on the CPU"
        )
    if reason := _no_compiler():
        return reason
    given = [x for x in (*arguments, *options.values()) if hasattr(x, "shape")]
    for x in given:
        if is_device_array(x):
            continue
        if not is_tensor(x):
            return "it takes torch tensors on a GPU, and an array is in main memory"
        if x.device.type != "cuda":
            return f"its kernels run on a GPU, and a tensor is on {x.device}"
    return None


@cache
def _no_compiler():
    """What Triton lacks to build the C functions by which it launches kernels, or None."""
    if triton.knobs.build.impl is not None:
        return None
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton builds its launchers with a C compiler, and finds none (install gcc, or name one in CC)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Triton builds its launchers with Python's headers, which are not here (install python3-dev)"
    return None


def stretches(x, programs, chunks, each=8, most=512):
    """Into how many stretches a record of ``chunks`` chunks is cut, and the chunks of one.

    So many that ``programs`` programs for every stretch make ``each`` for every multiprocessor, but not above ``most``.
    """
    processors = 1 if INTERPRETED else torch.cuda.get_device_properties(x.device).multi_processor_count
    wanted = max(1, min(chunks, most, each * processors // max(programs, 1)))
    size = triton.cdiv(chunks, wanted)
    return triton.cdiv(chunks, size), size


@triton.jit
def wide(x):
    """x in float32 at least."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def softplus(x):
    """log(1 + e^x), with the digits of a large -x."""
    return tl.maximum(x, 0) + log1p(tl.exp(-tl.abs(x)))


# log(1 + x) / x on [0, 1] as a polynomial: minimax, relative, 3e-8.
_LOG1P = tl.constexpr((
    0.9999999700104023, -0.4999949428325022, 0.3331911332112822, -0.24843071230572322, 0.191062286021018,
    -0.13663505598797418, 0.07822699377928641, -0.029504854178905443, 0.0052323836292632615,
))  # fmt: skip


@triton.jit
def log1p(x):
    """log(1 + x) of x from 0 to 1, without the cancellation of a small x."""
    if x.dtype == tl.float64:
        above = 1 + x
        return tl.where(above == 1, x, tl.log(above) * (x / (above - 1 + (above == 1))))
    else:
        found = x * _LOG1P[8] + _LOG1P[7]
        for i in tl.static_range(6, -1, -1):
            found = found * x + _LOG1P[i]
        return found * x


@triton.jit
def expm1(x):
    """e^x - 1, with the digits of a small x: a series below 0.35, where e^x - 1 begins to keep its own."""
    TERMS: tl.constexpr = 15 if x.dtype == tl.float64 else 8
    series = tl.full(x.shape, 1, x.dtype)
    for i in tl.static_range(TERMS):
        series = 1 + series * (x * (1 / (TERMS + 1 - i)))
    return tl.where(tl.abs(x) < 0.35, x * series, tl.exp(x) - 1)


@triton.jit
def matmul(a, b, kind: tl.constexpr = None):
    """The matrix product of two tiles for inputs of type ``kind`` (a's own if None), summed in float32 at least.

    bfloat16 is multiplied as such, on tensor cores. float16 is as TF32, which holds its digits and, of what has been
    scaled, the range of a float32. float32 takes three products of TF32, which together keep its digits.
    """
    given: tl.constexpr = a.dtype if kind is None else kind
    taken: tl.constexpr = tl.float32 if given == tl.float16 else given
    if given == tl.bfloat16 and _INTERPRETED:
        # NumPy has no bfloat16.
        return tl.dot(wide(a.to(taken)), wide(b.to(taken)))
    elif given == tl.float16:
        return tl.dot(a.to(taken), b.to(taken), input_precision="tf32")
    elif given == tl.float32:
        return tl.dot(a.to(taken), b.to(taken), input_precision="tf32x3")
    else:
        return tl.dot(a.to(taken), b.to(taken), input_precision="ieee")


@triton.jit
def product(a, b, c, d):
    """(a + ib) (c + id)."""
    return a * c - b * d, a * d + b * c


@triton.jit
def reciprocal(a, b):
    """1 / (a + ib); scaled in float32, whose squares overflow from 1e19 on."""
    if a.dtype == tl.float64:
        scale = 1 / (a * a + b * b)
        return a * scale, -b * scale
    else:
        size = 1 / tl.maximum(tl.abs(a), tl.abs(b))
        a, b = a * size, b * size
        scale = size / (a * a + b * b)
        return a * scale, -b * scale
