"""Selective scans against the reference: outputs, last state, every gradient, hard steps, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import selective_scan

BACKENDS = ["cpu", "pytorch"]
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}


def problem(batch=2, channels=3, length=63, states=5, B="variable", C="variable", groups=1, complex_=False, gaps=None,
            dtype=torch.float64, plain=False):  # fmt: skip
    """The arguments of a call by name, in float64 or complex128, but rounded to ``dtype``."""
    rng = np.random.default_rng(0)

    def draw(*shape, complex_=False):
        x = torch.from_numpy(rng.normal(size=shape)).to(dtype).double()
        return torch.complex(x, torch.from_numpy(rng.normal(size=shape)).to(dtype).double()) if complex_ else x

    def coefficients(kind):
        shapes = {"constant": (channels, states), "variable": (batch, states, length)}
        return draw(*shapes.get(kind, (batch, groups, states, length)), complex_=complex_)

    A = -torch.from_numpy(10 ** rng.uniform(-3, 1, (channels, states))).to(dtype).double()
    arguments = {
        "u": draw(batch, channels, length),
        "delta": draw(batch, channels, length) - 1 if not plain else draw(batch, channels, length).abs(),
        "A": torch.complex(A, 3 * draw(channels, states)) if complex_ else A,
        "B": coefficients(B),
        "C": coefficients(C),
    }
    if not plain:
        rates = torch.from_numpy(rng.exponential(size=(batch, length))).to(dtype).double()
        arguments |= {
            "D": draw(channels),
            "z": draw(batch, channels, length),
            "delta_bias": draw(channels),
            "initial_state": draw(batch, channels, states, complex_=complex_),
            "dt": rates if gaps is None else torch.as_tensor(gaps).to(dtype).double().expand(batch, length).clone(),
        }
    return arguments


def cast(arguments, dtype):
    of = {torch.float32: torch.complex64, torch.float64: torch.complex128}
    return {name: x.to(of[dtype] if x.is_complex() else dtype) for name, x in arguments.items()}


def loop(u, delta, A, B, C, D=None, z=None, delta_bias=None, initial_state=None, dt=None, softplus=True):
    """The definition in torch, sample by sample, for its gradients."""
    batch, channels, length = u.shape
    h = delta if delta_bias is None else delta + delta_bias[:, None]
    h = torch.logaddexp(h, torch.zeros_like(h)) if softplus else h
    h = h if dt is None else h * dt[:, None]
    kind = torch.complex128 if A.is_complex() or B.is_complex() else torch.float64
    x = torch.zeros(batch, *A.shape, dtype=kind) if initial_state is None else initial_state

    def at(m, k):
        m = m if m.ndim != 3 else m[:, None]
        return m if m.ndim == 2 else m[..., k].repeat_interleave(channels // m.shape[1], 1)

    ys = []
    for k in range(length):
        x = torch.exp(h[..., k, None] * A) * x + h[..., k, None] * at(B, k) * u[..., k, None]
        y = (at(C, k) * x).sum(-1)
        ys.append(2 * y.real if kind.is_complex else y)
    y = torch.stack(ys, -1)
    y = y if D is None else y + D[:, None] * u
    return (y if z is None else y * z * torch.sigmoid(z)), x


def with_gradients(function, arguments):
    """Outputs and the gradients of every argument by name, for a loss that weighs outputs and last state at random."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in arguments.items()}
    y, state = function(**leaves)
    rng = np.random.default_rng(1)
    outputs = [y, *(torch.view_as_real(state).unbind(-1) if state.is_complex() else (state,))]
    loss = sum((x.double() * torch.from_numpy(rng.normal(size=x.shape))).sum() for x in outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y.detach(), "state": state.detach()} | dict(zip(leaves, gradients, strict=True))


def compare(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, x in got.items():
        true = expected[name]
        assert x.shape == true.shape, name
        error = (x.to(true.dtype) - true).abs().max() / true.abs().max().clamp(min=1)
        assert error <= tolerance, f"{name}: {error}"


CASES = [
    dict(length=1), dict(length=2, states=1), dict(length=63, states=16), dict(length=257, channels=17, states=3),
    dict(batch=1, channels=32, length=1000, states=4),
    dict(channels=6, groups=2, B="grouped", C="grouped"), dict(channels=64, groups=2, B="grouped", length=37),
    dict(B="constant"), dict(C="constant", channels=18), dict(B="constant", C="constant"),
    dict(complex_=True), dict(complex_=True, B="constant", C="constant", length=257),
    dict(complex_=True, channels=20, groups=4, B="grouped"),
    dict(plain=True), dict(gaps=0.0), dict(gaps=1e-6), dict(gaps=1e6),
    dict(gaps=np.repeat([0.5, 0.0, 1e3, 1e-4, 1e6, 1e-6, 2.0], 9)),
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_reference_is_the_definition(options):
    arguments = problem(**options)
    softplus = not options.get("plain", False)
    expected = loop(**arguments, softplus=softplus)
    arrays = {name: x.numpy() for name, x in arguments.items()}
    got = selective_scan(**arrays, delta_softplus=softplus, return_last_state=True, backend="reference")
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=1e-12 * max(1, y.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_loop_with_every_gradient(options, backend, dtype):
    if backend == "cpu" and options.get("complex_"):
        pytest.skip("the cpu backend has real states only")
    arguments = problem(**options, dtype=dtype)
    softplus = not options.get("plain", False)
    expected = with_gradients(lambda **x: loop(**x, softplus=softplus), arguments)
    scan = lambda **x: selective_scan(  # noqa: E731
        **x, delta_softplus=softplus, return_last_state=True, backend=backend
    )
    compare(with_gradients(scan, cast(arguments, dtype)), expected, TOLERANCE[dtype])
