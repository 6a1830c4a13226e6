"""A traced graph in real numbers and in functions that every runtime has: ONNX knows no complex numbers.

    (a + ib)(c + id) = ac - bd + i (ad + bc),    exp(a + ib) - 1 = (exp(a) - 1) cos b - 2 sin²(b/2) + i exp(a) sin b

A complex tensor becomes a `Pair` of real ones, and every operation on it several real ones. Functions that lose digits
where a runtime spells them out, such as exp(x) - 1 near 0, or that runtimes lack in double precision, such as the error
function, are written in ones that keep them.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter
from torch.fx.node import Target

aten = torch.ops.aten

# Terms of the series by which the error function is computed: the 27th is below 1e-17.
_TERMS = 27
_CENTRE = 3.0


class Pair(NamedTuple):
    """A complex tensor as its real and its imaginary part.

    Attributes
    ----------
    real, imag : Tensor

    Examples
    --------
    >>> import torch
    >>> from statespace.export.reals import Pair
    >>> Pair(torch.zeros(2), torch.ones(2)).imag
    tensor([1., 1.])
    """

    real: Tensor
    imag: Tensor


class InReals(Interpreter):
    """Runs a graph of core ATen operations in real arithmetic; traced in turn, it gives the graph without complex ones.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        Its inputs and outputs are real.

    Raises
    ------
    NotImplementedError
        An operation on complex numbers that has no rule here.

    Examples
    --------
    >>> import torch
    >>> from statespace.export.reals import InReals
    >>> class Turn(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.view_as_real(torch.view_as_complex(x) * 1j)
    >>> program = torch.export.export(Turn(), (torch.ones(3, 2),)).run_decompositions()
    >>> InReals(program.module()).run(torch.tensor([[1.0, 2.0]]).expand(3, 2))[0].tolist()
    [-2.0, 1.0]
    """

    def __init__(self, graph: GraphModule):
        super().__init__(graph, garbage_collect_values=True)

    def get_attr(self, target: Target, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return _parts(value) if isinstance(value, Tensor) and value.is_complex() else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        given = [a for arg in [*args, *kwargs.values()] for a in (arg if isinstance(arg, list) else [arg])]
        if target in _ARITHMETIC and len(args) > 1 and isinstance(args[1], float):
            first = args[0].real if isinstance(args[0], Pair) else args[0]
            args = (args[0], _constant(args[1], first), *args[2:])
            target = _OF_TENSORS.get(target, target)
        if target in _COMPLEX and (any(isinstance(a, Pair) for a in given) or target in _MAKERS):
            return _COMPLEX[target](*args, **kwargs)
        if any(isinstance(a, Pair | complex) for a in given):
            raise NotImplementedError(f"{target} of complex numbers has no form in real ones yet")
        if target in _REAL:
            return _REAL[target](*args, **kwargs)  # type: ignore[operator]
        return super().call_function(target, args, kwargs)


def _constant(value: float, like: Tensor) -> Any:
    """A number as a tensor of double precision where it needs one: as a number it would be written in single."""
    if like.dtype != torch.float64 or float(np.float32(value)) == value:
        return value
    return torch.tensor(value, dtype=torch.float64)


def _parts(value: Tensor) -> Pair:
    return Pair(value.real.clone(), value.imag.clone())


def _pair(value: Any) -> Pair:
    """A complex operand: a Pair, a real tensor or a number."""
    if isinstance(value, Pair):
        return value
    if isinstance(value, Tensor):
        return Pair(value, torch.zeros_like(value))
    return Pair(value.real, value.imag)


def _each(function):
    """An operation that is linear and real: it takes both parts alike."""
    return lambda x, *args, **kwargs: Pair(function(x.real, *args, **kwargs), function(x.imag, *args, **kwargs))


def _both(function):
    """An operation of several complex tensors in a list that takes both parts alike."""

    def apply(many, *args, **kwargs):
        pairs = [_pair(x) for x in many]
        return Pair(*(function([pair[i] for pair in pairs], *args, **kwargs) for i in (0, 1)))

    return apply


def _add(x, y, sign=1):
    x, y = _pair(x), _pair(y)
    return Pair(x.real + sign * y.real, x.imag + sign * y.imag)


def _mul(x, y):
    if not isinstance(x, Pair) or not isinstance(y, Pair):
        x, y = (x, y) if isinstance(x, Pair) else (y, x)
        if not isinstance(y, complex):
            return Pair(x.real * y, x.imag * y)
    x, y = _pair(x), _pair(y)
    return Pair(x.real * y.real - x.imag * y.imag, x.real * y.imag + x.imag * y.real)


def _reciprocal(x):
    # By the larger part, whose square may not fit where the quotient does.
    size = torch.maximum(x.real.abs(), x.imag.abs())
    a, b = x.real / size, x.imag / size
    norm = (a * a + b * b) * size
    return Pair(a / norm, -b / norm)


def _div(x, y):
    if not isinstance(y, Pair | complex):
        return Pair(x.real / y, x.imag / y)
    return _mul(x, _reciprocal(_pair(y)))


def _bmm(x, y):
    x, y = _pair(x), _pair(y)
    return Pair(x.real @ y.real - x.imag @ y.imag, x.real @ y.imag + x.imag @ y.real)


def _exp(x):
    size = x.real.exp()
    return Pair(size * x.imag.cos(), size * x.imag.sin())


def _expm1_complex(x):
    half = (x.imag / 2).sin()
    turned = 2 * half * half
    return Pair(_expm1(x.real) * (1 - turned) - turned, x.real.exp() * x.imag.sin())


def _to(x, *args, dtype=None, **kwargs):
    """A complex type, or the real part in a real one, as torch casts."""
    dtype = next((a for a in args if isinstance(a, torch.dtype)), dtype)
    if dtype is None:
        return Pair(x.real.clone(), x.imag.clone())
    if not dtype.is_complex:
        return x.real.to(dtype)
    part = dtype.to_real()
    return Pair(x.real.to(part), x.imag.to(part))


def _made_complex(x, *args, dtype=None, **kwargs):
    """A cast of real numbers, which may be one to complex ones."""
    if isinstance(x, Pair):
        return _to(x, dtype=dtype)
    if dtype is not None and dtype.is_complex:
        return Pair(x.to(dtype.to_real()), torch.zeros_like(x, dtype=dtype.to_real()))
    return aten._to_copy.default(x, *args, dtype=dtype, **kwargs)


_COMPLEX = {
    aten.view_as_complex.default: lambda x: Pair(x[..., 0], x[..., 1]),
    aten.view_as_real.default: lambda x: torch.stack([x.real, x.imag], dim=-1),
    aten.complex.default: Pair,
    aten.polar.default: lambda size, angle: Pair(size * angle.cos(), size * angle.sin()),
    aten._to_copy.default: _made_complex,
    aten.add.Tensor: _add,
    aten.sub.Tensor: lambda x, y: _add(x, y, -1),
    aten.rsub.Scalar: lambda x, y: _add(y, x, -1),
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.reciprocal.default: _reciprocal,
    aten.neg.default: lambda x: Pair(-x.real, -x.imag),
    aten._conj.default: lambda x: Pair(x.real, -x.imag),
    aten.real.default: lambda x: x.real,
    aten.imag.default: lambda x: x.imag,
    aten.exp.default: _exp,
    aten.expm1.default: _expm1_complex,
    aten.bmm.default: _bmm,
    aten.mm.default: _bmm,
    aten.cat.default: _both(torch.cat),
    aten._assert_tensor_metadata.default: lambda *args, **kwargs: None,
} | {
    operation: _each(operation)
    for operation in (
        aten.clone.default, aten.expand.default, aten.permute.default, aten.view.default, aten.unsqueeze.default,
        aten.squeeze.dim, aten.squeeze.dims, aten.slice.Tensor, aten.select.int, aten.sum.dim_IntList,
        aten.mean.dim, aten.alias.default,
    )
}  # fmt: skip
_ARITHMETIC = {
    aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor,
}  # fmt: skip
# The same of two tensors, as a number becomes one.
_OF_TENSORS = {aten.add.Scalar: aten.add.Tensor, aten.mul.Scalar: aten.mul.Tensor}
# What makes complex numbers of real ones.
_MAKERS = {aten.view_as_complex.default, aten.complex.default, aten.polar.default, aten._to_copy.default}


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 = tanh(x/2) (exp(x) + 1), in which nothing cancels; with x held where exp fits."""
    top = math.log(torch.finfo(x.dtype).max) - 1
    return torch.where(x > top, x.exp(), (x / 2).tanh() * (x.clamp(max=top).exp() + 1))


def _log1p(x: Tensor) -> Tensor:
    """log(1 + x), the logarithm of what 1 + x became times x over what that differs from 1 by."""
    u = 1 + x
    return torch.where(u == 1, x, u.log() * (x / torch.where(u == 1, 1, u - 1)))


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return (x * beta).relu() / beta + _log1p((-(x * beta).abs()).exp()) / beta


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y) + _log1p((-(x - y).abs()).exp())


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "none":
        return aten.gelu.default(x, approximate=approximate)
    tail = _normal_tail(x.abs())
    return x * torch.where(x < 0, tail, 1 - tail)


def _erf(x: Tensor) -> Tensor:
    """2 Φ(√2 x) - 1; for what asks of it a relative precision near 0 there is none to lose by more than rounding."""
    size = 1 - 2 * _normal_tail(_constant(math.sqrt(2), x) * x.abs())
    return torch.where(x < 0, -size, size)


def _normal_tail(x: Tensor) -> Tensor:
    """1 - Φ(x) for x >= 0: exp(-x²/2) times a Chebyshev series in (z - c)/(z + c), z = x/√2, by Clenshaw's rule."""
    z = x * _constant(math.sqrt(0.5), x)
    t = (z - _CENTRE) / (z + _CENTRE)
    *series, first = _series()[::-1]
    after = before = torch.zeros_like(t)
    for coefficient in series:
        after, before = _constant(coefficient, x) + 2 * t * after - before, after
    return (_constant(first, x) + t * after - before) * (-z * z).exp()


def _series() -> list[float]:
    """Coefficients of erfc(z) exp(z²) / 2 in Chebyshev's polynomials of (z - c)/(z + c)."""
    from scipy.special import erfcx

    def scaled(t):
        return erfcx(_CENTRE * (1 + t) / np.maximum(1 - t, 1e-300)) / 2

    return np.polynomial.chebyshev.chebinterpolate(scaled, _TERMS).tolist()


def _layer_norm(x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    """In double precision by its formula: where it is one operation, as in ONNX, its eps has single precision."""
    if x.dtype != torch.float64:
        return aten.native_layer_norm.default(x, shape, weight, bias, eps)
    axes = list(range(-len(shape), 0))
    mean = x.mean(axes, keepdim=True)
    away = x - mean
    scale = torch.rsqrt((away * away).mean(axes, keepdim=True) + _constant(eps, x))
    y = away * scale
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, scale


_REAL = {
    aten.native_layer_norm.default: _layer_norm,
    aten.expm1.default: _expm1,
    aten.log1p.default: _log1p,
    aten.softplus.default: _softplus,
    aten.logaddexp.default: _logaddexp,
    aten.gelu.default: _gelu,
    aten.erf.default: _erf,
}
