"""Floating-point operations of a computation in torch, counted while it runs.

The rule: 1 for each addition, subtraction, multiplication and division of real numbers, and 1 for each value of a
function (exp, sigmoid, GELU, ...). A multiply-add is 2, so that the product of an (m, k) and a (k, n) matrix is
2 m k n, as torch's own counter has it. Of complex numbers a sum is 2, a product 6, a quotient 11, a function 2.
Comparisons and choices, integers, copies, views and conversions are not counted.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Pointwise, but arithmetic on nothing.
_FREE = {
    "abs", "bitwise_and", "bitwise_or", "clamp", "clamp_max", "clamp_min", "clone", "copy", "fill", "maximum",
    "minimum", "relu", "where", "zero", "_conj", "conj_physical", "sgn", "sign", "floor", "round",
}  # fmt: skip
# Pointwise operations that are more than one, on real numbers.
_SEVERAL = {"addcmul": 2, "addcdiv": 2, "lerp": 3, "logaddexp": 4, "hypot": 4}
_COMPLEX = {"mul": 6, "div": 11, "reciprocal": 11, "addcmul": 8, "pow": 6}
# What is no pointwise operation, for each element that is read.
_READ = {
    "sum": 1, "mean": 1, "cumsum": 1, "linalg_vector_norm": 2, "_softmax": 3, "_log_softmax": 3, "logsumexp": 2,
    "glu": 1, "native_layer_norm": 7, "polar": 2, "_fused_rms_norm": 4,
}  # fmt: skip


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.total += _operations(func, args, kwargs, out)
        return out


def _operations(func, args, kwargs, out):
    """Of one call."""
    result = out[0] if isinstance(out, tuple) else out
    if not isinstance(result, torch.Tensor) or not (result.is_floating_point() or result.is_complex()):
        return 0
    packet = func._overloadpacket
    name = packet.__name__.removesuffix("_") if packet.__name__ != "_" else packet.__name__
    if name.startswith("_scaled_dot_product"):
        q, k, v = args[:3]
        scores = q.shape[:-1].numel() * k.shape[-2]
        # Products with keys and values; each score is scaled, its exponential taken, added up and divided by the sum.
        return 2 * scores * (q.shape[-1] + v.shape[-1]) + 4 * scores
    # Imported here, for it imports Triton, which may be broken where nothing needs it.
    from torch.utils.flop_counter import flop_registry

    if packet in flop_registry:
        both = [arg.is_complex() for arg in args if isinstance(arg, torch.Tensor)]
        return flop_registry[packet](*args, **kwargs, out_val=out) * (4 if all(both) else 1)
    read = args[0] if args and isinstance(args[0], torch.Tensor) else result
    if name in _READ:
        return _READ[name] * read.numel() * (2 if read.is_complex() else 1)
    if name in _FREE or torch.Tag.pointwise not in func.tags:
        return 0
    if not result.is_complex():
        return _SEVERAL.get(name, 1) * result.numel()
    complexes = sum(isinstance(arg, torch.Tensor) and arg.is_complex() for arg in args)
    if name in ("mul", "div") and complexes == 1:
        # A complex number and a real one.
        return 2 * result.numel() if name == "mul" or args[0].is_complex() else _COMPLEX["div"] * result.numel()
    return _COMPLEX.get(name, 2) * result.numel()


def count_flops(function, *args, **kwargs):
    """Floating-point operations of one call.

    1 for each addition, subtraction, multiplication and division of real numbers and for each value of a function; a
    multiply-add is 2, a product of matrices (m, k) and (k, n) is 2 m k n. Complex sums are 2, products 6, quotients 11.
    Comparisons, integers and copies are not counted.

    Parameters
    ----------
    function : callable
        It computes in torch operations. Kernels in other languages are not seen: give layers ``backend="pytorch"``.
    *args, **kwargs
        What it is called with. No gradient is recorded.

    Returns
    -------
    flops : int

    Examples
    --------
    >>> import torch
    >>> from statespace.inspection import count_flops
    >>> count_flops(torch.nn.Linear(3, 5), torch.ones(1, 3)), count_flops(torch.exp, torch.ones(7))
    (30, 7)
    """
    with torch.no_grad(), _Counter() as counter:
        function(*args, **kwargs)
    return int(counter.total)
