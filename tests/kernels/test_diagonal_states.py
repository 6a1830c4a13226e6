"""Both fast backends against the reference: states, every gradient, hard gaps, any shape, both directions."""

import mpmath
import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, diagonal_scan, diagonal_states

BACKENDS = ["cpu", "pytorch"]
RULES = ["zoh", "bilinear"]


def problem(B=2, L=71, states=5, dtype=np.float64, gaps=None):
    rng = np.random.default_rng(0)
    rate = -(10 ** rng.uniform(-4, 0.5, states)) + 1j * rng.normal(size=states) * 3
    dt = rng.exponential(size=(B, L)) if gaps is None else np.broadcast_to(gaps, (B, L))
    v, initial = rng.normal(size=(B, L, 2, states)), rng.normal(size=(B, 2, states))
    return v.astype(dtype), dt.astype(dtype), rate, initial.astype(dtype)


SHAPES = [
    dict(L=1), dict(L=2, states=1), dict(B=1, L=64, states=8), dict(L=67, states=32), dict(B=3, L=31, states=33),
    dict(B=1, L=257, states=70), dict(gaps=1.0), dict(gaps=0.0), dict(gaps=1e-6), dict(gaps=1e6),
    dict(gaps=1e12), dict(gaps=np.repeat([0.5, 0.0, 1e3, 1e-4, 0.5, 0.5, 2.0], 10), L=70),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("discretization", RULES)
@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_reference(backend, discretization, options, dtype):
    arguments = problem(dtype=dtype, **options)
    tolerance = {np.float32: 2e-5, np.float64: 1e-12}[dtype]
    for reverse in (False, True):
        rule = dict(discretization=discretization, reverse=reverse)
        expected = diagonal_states(*arguments, **rule, backend="reference")
        got = diagonal_states(*arguments, **rule, backend=backend)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_defaults_are_unit_gaps_from_rest(backend):
    v, _, rate, initial = problem()
    for reverse in (False, True):
        got = diagonal_states(v, None, rate, reverse=reverse, backend=backend)
        arguments = v, np.ones(v.shape[:2]), rate, np.zeros_like(initial)
        expected = diagonal_states(*arguments, reverse=reverse, backend="reference")
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_reading_from_the_end_is_reading_the_reversed_record():
    v, dt, rate, initial = problem()
    forwards = diagonal_states(v[:, ::-1].copy(), dt[:, ::-1].copy(), rate, initial)
    np.testing.assert_array_equal(diagonal_states(v, dt, rate, initial, reverse=True), forwards[:, ::-1])


def test_the_read_out_is_that_of_the_diagonal_scan():
    """One channel whose input writes to every state alike is what `diagonal_scan` computes."""
    v, dt, rate, _ = problem()
    c = np.exp(1j * np.arange(5.0))
    u = v[:, :, 0, 0]
    v = np.stack([np.repeat(u[..., np.newaxis], 5, axis=-1), np.zeros(v[:, :, 0].shape)], axis=2)
    x = diagonal_states(v, dt, rate)
    expected, _ = diagonal_scan(u[:, np.newaxis], dt, rate[np.newaxis], c[np.newaxis], backend="reference")
    np.testing.assert_allclose(((x[:, :, 0] + 1j * x[:, :, 1]) @ c).real, expected[:, 0], atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("discretization", RULES)
@pytest.mark.parametrize("options", [dict(L=5), dict(L=6, gaps=0.7), dict(B=1, L=1, states=2)], ids=str)
def test_gradients(backend, discretization, options):
    arguments = [torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for x in problem(**options)]
    for reverse in (False, True):
        rule = dict(discretization=discretization, reverse=reverse, backend=backend)
        assert torch.autograd.gradcheck(lambda *x, rule=rule: diagonal_states(*x, **rule), arguments, atol=1e-7)


@pytest.mark.parametrize("gaps", [None, np.repeat([0.5, 2.0], 75)])
@pytest.mark.parametrize("want_dt", [True, False])
def test_gradients_of_several_blocks_agree(gaps, want_dt):
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem(L=150, states=70, gaps=gaps)]
    wanted = arguments if want_dt else [arguments[i] for i in (0, 2, 3)]
    arguments[1].requires_grad_(want_dt)
    weights = torch.randn(2, 150, 2, 70, dtype=torch.float64)
    results = []
    for backend in BACKENDS:
        x = diagonal_states(*arguments, backend=backend)
        results.append(torch.autograd.grad((x * weights).sum() + x.square().sum(), wanted))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_threads_change_nothing():
    """One record of few states: its blocks are smaller where there are more threads."""
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem(B=1, L=4001, states=27)]
    before, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 4):
            torch.set_num_threads(n_threads)
            x = diagonal_states(*arguments)
            results.append([x, *torch.autograd.grad(x.square().sum(), arguments)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 2e-13)])
def test_one_step_keeps_all_digits(dtype, tolerance):
    """Ā - 1 relative to mpmath, from rates where it is 1e-8 to those where nothing is left of the state."""
    rng = np.random.default_rng(0)
    rate = -(10 ** rng.uniform(-8, 3, 300)) + 1j * 10 ** rng.uniform(-8, 2, 300)
    rate = rate.astype(np.result_type(dtype, np.complex64)).astype(np.complex128)
    v = np.zeros((1, 1, 2, 300), dtype)
    v[:, :, 0] = 1
    x = diagonal_states(v, np.full((1, 1), 0.7, dtype), rate)[0, 0]
    gap = float(dtype(0.7))
    expected = np.array([complex(mpmath.expm1(mpmath.mpc(r.real, r.imag) * gap)) for r in rate])
    np.testing.assert_array_less(np.abs(x[0] + 1j * x[1].astype(float) - expected) / np.abs(expected), tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gaps", [None, 0.5])
def test_float32_holds_over_a_long_record(backend, gaps):
    """A slow state: a rounded Ā would err alike at every step of a regular grid, Ā - 1 does not."""
    if gaps is not None:
        gaps = (gaps + np.random.default_rng(0).random((1, 20_000))).astype(np.float32)
    v = np.ones((1, 20_000, 2, 1), np.float32)
    rate = np.array([-1e-4 + 0.01j])
    expected = diagonal_states(v, gaps, rate, backend="reference")
    got = diagonal_states(v, gaps, rate, backend=backend)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_dying_states_and_gradients_stay_out_of_subnormal_numbers():
    v = torch.zeros(1, 3000, 2, 3)
    v[:, 0] = 1
    v.requires_grad_()
    x = diagonal_states(v, None, torch.tensor([-0.05 + 1j, -1 + 1j, -40 + 0j], dtype=torch.complex128))
    (gradient,) = torch.autograd.grad(x[:, -1].sum(), v)
    for values in (x, gradient):
        assert torch.isfinite(values).all()
        assert not ((values != 0) & (values.abs() < torch.finfo(torch.float32).tiny)).any()


def test_wrong_device_and_dtype_are_refused():
    v, dt, rate, initial = (torch.from_numpy(x) for x in problem())
    with pytest.raises(BackendError, match=r"it has no torch\.bfloat16"):
        diagonal_states(v.bfloat16(), dt, rate, initial, backend="cpu")
    with pytest.raises(BackendError, match="not torch tensors"):
        diagonal_states(v, dt, rate, initial, backend="reference")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(v=np.ones((2, 4, 5))), "v must have shape"),
        (dict(v=np.ones((2, 4, 3, 5))), r"Got \(2, 4, 3, 5\)"),
        (dict(v=np.ones((2, 0, 2, 5))), "no axis empty"),
        (dict(dt=np.ones(4)), r"dt must have shape \(2, 4\)"),
        (dict(rate=np.ones((1, 5))), r"rate must have shape \(5,\)"),
        (dict(initial=np.ones((2, 5))), r"initial must have shape \(2, 2, 5\)"),
        (dict(discretization="euler"), "'zoh' or 'bilinear'"),
        (dict(dt=torch.ones(2, 4)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    arguments = dict(v=np.ones((2, 4, 2, 5)), dt=np.ones((2, 4)), rate=-np.ones(5))
    with pytest.raises(ValueError, match=message):
        diagonal_states(**arguments | change)
