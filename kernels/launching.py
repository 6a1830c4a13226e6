"""What the Triton backends share: whether they can run here, how many variants are tried, small device functions."""

import torch
import triton
import triton.language as tl

from statespace.kernels.dispatch import is_tensor

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
    given = [x for x in (*arguments, *options.values()) if hasattr(x, "shape")]
    for x in given:
        if not is_tensor(x):
            return "it takes torch tensors on a GPU, and an array is in main memory"
        if x.device.type != "cuda":
            return f"its kernels run on a GPU, and a tensor is on {x.device}"
    return None


def tuned(key, *configs):
    """The fastest of a few variants, found anew for each value of the arguments named in ``key`` and kept on disk."""
    return triton.autotune(configs[:1] if INTERPRETED else configs, key=key, cache_results=True)


@triton.jit
def wide(x):
    """x in float32 at least."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def product(a, b):
    """The matrix product of operands of one type, summed in float32 at least.

    float32 is multiplied in three passes of TF32, which keep its digits; half types take the tensor cores as they are.
    """
    if a.dtype == tl.float32 or a.dtype == tl.float64:
        return tl.dot(a, b, input_precision="tf32x3", out_dtype=a.dtype)
    elif _INTERPRETED:  # which would multiply the bits of bfloat16 as integers
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    else:
        return tl.dot(a, b)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def softplus(x):
    """log(1 + e^x), with the digits of a large -x."""
    return tl.maximum(x, 0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def log1p(x):
    """log(1 + x) of x from 0 to 1, without the cancellation of a small x."""
    above = 1 + x
    return tl.where(above == 1, x, tl.log(above) * (x / (above - 1 + (above == 1))))
