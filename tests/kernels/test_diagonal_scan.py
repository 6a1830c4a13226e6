"""Both fast diagonal scans against the reference: outputs, final state, every gradient, hard gaps, any shape."""

import mpmath
import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, diagonal_scan

BACKENDS = ["cpu", "pytorch"]
RULES = ["zoh", "bilinear"]


def problem(B=2, H=3, L=71, nodes=5, dtype=np.float64, gaps=None):
    rng = np.random.default_rng(0)
    complex_dtype = np.result_type(dtype, np.complex64)
    draw = lambda *shape: (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(complex_dtype)  # noqa: E731
    rate = -(10 ** rng.uniform(-4, 0.5, (H, nodes))) + 1j * rng.normal(size=(H, nodes)) * 3
    dt = rng.exponential(size=(B, L)) if gaps is None else np.broadcast_to(gaps, (B, L))
    return rng.normal(size=(B, H, L)).astype(dtype), dt.astype(dtype), rate, draw(H, nodes), draw(B, H, nodes)


SHAPES = [
    dict(L=1), dict(L=2, nodes=1), dict(L=31), dict(L=64, nodes=8), dict(L=67, nodes=32), dict(L=97, nodes=33),
    dict(B=1, H=1, L=257, nodes=70), dict(B=3, H=16, L=40), dict(B=1, H=48, L=33, nodes=3), dict(B=7, H=5, L=2),
    dict(gaps=1.0), dict(gaps=0.0), dict(gaps=1e-6), dict(gaps=1e6),
    dict(gaps=1e12), dict(gaps=np.repeat([0.5, 0.0, 1e3, 1e-4, 0.5, 0.5, 2.0], 10)[:71 - 1], L=70),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("discretization", RULES)
@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_reference(backend, discretization, options, dtype):
    arguments = problem(dtype=dtype, **options)
    expected = diagonal_scan(*arguments, discretization=discretization, backend="reference")
    got = diagonal_scan(*arguments, discretization=discretization, backend=backend)
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == np.result_type(dtype, np.complex64 if np.iscomplexobj(y) else dtype)
        tolerance = {np.float32: 2e-5, np.float64: 1e-12}[dtype]
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1, np.abs(y).max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_defaults_are_unit_gaps_from_rest(backend):
    u, _, rate, c, initial = problem()
    got = diagonal_scan(u, None, rate, c, backend=backend)
    expected = diagonal_scan(u, np.ones(u.shape[::2]), rate, c, np.zeros_like(initial), backend="reference")
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("discretization", RULES)
@pytest.mark.parametrize("options", [dict(L=5), dict(L=35, H=1, B=1, nodes=2), dict(L=6, gaps=0.7), dict(L=1)], ids=str)
def test_gradients(backend, discretization, options):
    arguments = [torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for x in problem(**options)]
    scan = lambda *x: diagonal_scan(*x, discretization=discretization, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(scan, arguments, atol=1e-7)


@pytest.mark.parametrize("options", [dict(L=150, nodes=70), dict(B=3, H=32, L=67, nodes=6)], ids=str)
def test_gradients_of_several_vectors_agree(options):
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem(**options)]
    weights = torch.randn(arguments[0].shape, dtype=torch.float64)
    results = []
    for backend in BACKENDS:
        y, state = diagonal_scan(*arguments, backend=backend)
        results.append(torch.autograd.grad((y * weights).sum() + state.abs().square().sum(), arguments))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


# Decays that halve within a gap, that do not, and four nodes of the one kind before four of the other.
REACHES = [(-0.5, 1.5), (-6, -1.5), ((-6, -1.5), (-0.5, 1.5))]


def within_reach(reach, H, generator):
    """Rates (H, 8) whose real parts are powers of ten between two numbers."""
    low, high = (np.repeat(np.broadcast_to(bound, 2), 4) for bound in np.transpose(reach))
    decay = 10 ** generator.uniform(low, high, (H, 8))
    return torch.from_numpy(-decay + 1j * generator.normal(size=(H, 8)) * 30)


@pytest.mark.parametrize("reach", REACHES, ids=str)
def test_gradients_in_and_out_of_reach(reach):
    generator = np.random.default_rng(1)
    u, dt, _, _, initial = (torch.from_numpy(x) for x in problem(B=1, H=16, L=70, nodes=8))
    rate = within_reach(reach, 16, generator)
    c = torch.randn(16, 8, dtype=torch.complex128)
    arguments = [x.requires_grad_() for x in (u, dt, rate, c, initial)]
    weights = torch.randn_like(u)
    results = []
    for backend in BACKENDS:
        y, state = diagonal_scan(*arguments, backend=backend)
        results.append((y, *torch.autograd.grad((y * weights).sum() + state.abs().square().sum(), arguments)))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10 * float(y.detach().abs().max()))


@pytest.mark.parametrize(("dtype", "tolerance", "highest"), [(np.float32, 1e-6, 5.9), (np.float64, 2e-13, 2)])
def test_one_step_within_reach_keeps_all_digits(dtype, tolerance, highest):
    """Ā - 1 relative to mpmath, of decays that do not halve within the gap, in float32 of phases of up to 10⁵ turns."""
    rng = np.random.default_rng(0)
    rate = -(10 ** rng.uniform(-8, -0.4, 496)) + 1j * 10 ** rng.uniform(-8, highest, 496)
    gap = dtype(0.7)
    u = np.ones((1, 496, 1), dtype)
    _, state = diagonal_scan(u, np.full((1, 1), gap), rate[:, None], np.ones((496, 1), np.complex64), backend="cpu")
    expected = np.array([complex(mpmath.expm1(mpmath.mpc(x.real, x.imag) * float(gap))) for x in rate])
    np.testing.assert_array_less(np.abs(state[0, :, 0] - expected) / np.abs(expected), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 2e-13)])
def test_one_step_keeps_all_digits(dtype, tolerance):
    """Ā - 1 relative to mpmath, from rates where it is 1e-8 to those where nothing is left of the state."""
    rng = np.random.default_rng(0)
    rate = -(10 ** rng.uniform(-8, 3, 500)) + 1j * 10 ** rng.uniform(-8, 2, 500)
    rate = rate.astype(np.result_type(dtype, np.complex64)).astype(np.complex128)
    u = np.ones((1, 500, 1), dtype)
    _, state = diagonal_scan(u, np.full((1, 1), 0.7, dtype), rate[:, None], np.ones((500, 1), np.complex64))
    gap = float(dtype(0.7))
    expected = np.array([complex(mpmath.expm1(mpmath.mpc(x.real, x.imag) * gap)) for x in rate])
    np.testing.assert_array_less(np.abs(state[0, :, 0] - expected) / np.abs(expected), tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("H", [3, 16])
@pytest.mark.parametrize("gaps", [None, 0.7])
def test_skip(backend, H, gaps):
    u, dt, rate, c, initial = (torch.from_numpy(np.ascontiguousarray(x)) for x in problem(L=9, H=H, gaps=gaps))
    dt, skip = (None if gaps is None else dt), torch.randn(H, dtype=torch.float64, requires_grad=True)
    y, state = diagonal_scan(u, dt, rate, c, initial, skip, backend=backend)
    without, same = diagonal_scan(u, dt, rate, c, initial, backend=backend)
    torch.testing.assert_close(y, without + skip[:, None] * u)
    torch.testing.assert_close(state, same, rtol=0, atol=0)
    y.square().sum().backward()
    torch.testing.assert_close(skip.grad, 2 * (y * u).sum((0, 2)))


def test_channels_may_come_last_in_memory():
    u, dt, rate, c, initial = (torch.from_numpy(np.ascontiguousarray(x)) for x in problem(H=16))
    other = u.transpose(1, 2).contiguous().transpose(1, 2)
    for x, y in zip(diagonal_scan(u, dt, rate, c, initial), diagonal_scan(other, dt, rate, c, initial), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_threads_change_nothing():
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem(B=4, H=48, L=300, nodes=9)]
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            y, state = diagonal_scan(*arguments)
            results.append([y, state, *torch.autograd.grad(y.square().sum() + state.abs().sum(), arguments)])
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, rtol=0, atol=0)


def test_float32_holds_over_a_long_record():
    """A slow node on a regular grid: a rounded Ā would err alike at every step, Ā - 1 does not."""
    u = np.ones((1, 1, 20_000), np.float32)
    rate, c = np.array([[-1e-4 + 0.01j]]), np.array([[1.0 + 0j]])
    expected, _ = diagonal_scan(u, None, rate, c, backend="reference")
    got, _ = diagonal_scan(u, None, rate, c.astype(np.complex64), backend="cpu")
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_wrong_device_and_dtype_are_refused():
    u, dt, rate, c, initial = (torch.from_numpy(x) for x in problem())
    with pytest.raises(BackendError, match=r"it has no torch\.bfloat16"):
        diagonal_scan(u.bfloat16(), dt, rate, c, initial, backend="cpu")
    with pytest.raises(BackendError, match="not torch tensors"):
        diagonal_scan(u, dt, rate, c, initial, backend="reference")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=np.ones((2, 3))), "u must have shape"),
        (dict(u=np.ones((2, 3, 0))), "no axis empty"),
        (dict(dt=np.ones(4)), r"dt must have shape \(2, 4\)"),
        (dict(rate=np.ones((2, 5))), "with 3 channels"),
        (dict(c=np.ones((3, 4))), r"c must have shape \(3, 5\)"),
        (dict(initial=np.ones((3, 5))), r"initial must have shape \(2, 3, 5\)"),
        (dict(skip=np.ones(2)), r"skip must have shape \(3,\)"),
        (dict(discretization="euler"), "'zoh' or 'bilinear'"),
        (dict(c=torch.ones(3, 5)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    arguments = dict(u=np.ones((2, 3, 4)), dt=np.ones((2, 4)), rate=-np.ones((3, 5)), c=np.ones((3, 5)))
    with pytest.raises(ValueError, match=message):
        diagonal_scan(**arguments | change)
