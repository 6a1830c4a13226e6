"""Both fast scans against the dense solve: outputs, final state, every gradient, hard gaps, any shape and rank."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, dplr_scan
from statespace.kernels.dplr_scan.step import advance, discretise

BACKENDS = ["cpu", "pytorch"]
NAMES = ("y", "state", "u", "dt", "Lambda", "P", "B", "C", "initial")


def problem(batch=2, H=3, L=21, pairs=5, rank=1, dtype=np.float64, gaps=None):
    rng = np.random.default_rng(0)
    complex_dtype = np.result_type(dtype, np.complex64)
    draw = lambda *shape: (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(complex_dtype)  # noqa: E731
    Lambda = -(10 ** rng.uniform(-4, 0.5, (H, pairs))) + 3j * rng.normal(size=(H, pairs))
    dt = rng.exponential(size=(batch, L)) if gaps is None else np.broadcast_to(gaps, (batch, L))
    u = rng.normal(size=(batch, H, L)).astype(dtype)
    system = Lambda.astype(complex_dtype), draw(H, rank, pairs), draw(H, pairs), draw(H, pairs)
    return u, dt.astype(dtype), *system, draw(batch, H, pairs)


SHAPES = [
    dict(L=1), dict(L=2, pairs=1), dict(L=16), dict(L=35, pairs=17, rank=2), dict(batch=1, H=1, L=70, pairs=33),
    dict(batch=3, H=16, L=18, pairs=2), dict(batch=2, H=17, L=9, pairs=3, rank=2), dict(batch=2, H=32, L=5, pairs=1),
    dict(gaps=1.0), dict(gaps=0.0), dict(gaps=1e-6), dict(gaps=1e6, rank=2),
    dict(gaps=np.repeat([0.5, 0.0, 1e3, 1e-4, 0.5, 0.5, 2.0], 6), L=42),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_reference(backend, options, dtype):
    arguments = problem(dtype=dtype, **options)
    expected = dplr_scan(*arguments, backend="reference")
    got = dplr_scan(*arguments, backend=backend)
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == np.result_type(dtype, np.complex64 if np.iscomplexobj(y) else dtype)
        tolerance = {np.float32: 2e-5, np.float64: 1e-11}[dtype]
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1, np.abs(y).max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_defaults_are_unit_gaps_from_rest(backend):
    u, _, *system, initial = problem(rank=2)
    got = dplr_scan(u, None, *system, backend=backend)
    expected = dplr_scan(u, np.ones(u.shape[::2]), *system, np.zeros_like(initial), backend="reference")
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "options",
    [
        dict(L=5),
        dict(L=5, rank=2),
        dict(L=18, H=1, batch=1, pairs=2, rank=2),
        dict(L=6, gaps=0.7),
        dict(L=1),
        dict(H=16, L=2),
    ],
    ids=str,
)
def test_gradients(backend, options):
    arguments = [torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for x in problem(**options)]
    scan = lambda *x: dplr_scan(*x, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(scan, arguments, atol=1e-7, fast_mode=True)


class DenseStep(torch.autograd.Function):
    """x + Δ D with D = (1 − hA)^{-1} (A x + f), in all states, and its gradients as they are derived: with the midpoint
    m = (1 − hA)^{-1} (x + h f) and μ = (1 − hA)^{-*} g, they are D* μ, Δ μ m*, Δ μ and g + Δ A* μ. Nothing cancels.
    """

    @staticmethod
    def forward(ctx, gap, A, f, x):
        inverted = torch.eye(A.shape[-1]).to(A) - gap.unsqueeze(-1) / 2 * A
        change = torch.einsum("hij,bhj->bhi", A, x) + f
        solved = torch.linalg.solve(inverted, torch.stack([x + gap / 2 * f, change], dim=-1))
        ctx.save_for_backward(gap, A, inverted, solved)
        return x + gap * solved[..., 1]

    @staticmethod
    def backward(ctx, g):
        gap, A, inverted, solved = ctx.saved_tensors
        middle, change = solved.unbind(-1)
        change_back = torch.einsum("hji,bhj->bhi", A.conj(), g)
        mu, back = torch.linalg.solve(inverted.mH, torch.stack([g, change_back], dim=-1)).unbind(-1)
        of_gap = (change.conj() * mu).real.sum((1, 2), keepdim=True)
        return of_gap, torch.einsum("bhi,bhj->hij", gap * mu, middle.conj()), gap * mu, g + gap * back


def dense_scan(u, dt, Lambda, P, B, C, x):
    Lambda, P, B, C, x = (torch.cat([a, a.conj()], dim=-1) for a in (Lambda, P, B, C, x))
    A = torch.diag_embed(Lambda) - P.mT @ P.conj()
    outputs = []
    for u_t, gap in zip(u.permute(2, 0, 1), dt.t()[..., None, None], strict=True):
        x = DenseStep.apply(gap, A, B * u_t.unsqueeze(-1), x)
        outputs.append((C * x).real.sum(-1))
    return torch.stack(outputs, dim=-1), x[..., : x.shape[-1] // 2]


def with_gradients(scan, arguments, dtype):
    types = {True: torch.promote_types(dtype, torch.complex64), False: dtype}
    arguments = [torch.from_numpy(np.ascontiguousarray(x)) for x in arguments]
    arguments = [x.to(types[x.is_complex()]).requires_grad_() for x in arguments]
    y, state = scan(*arguments)
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(y.shape, generator=draw, dtype=torch.float64).to(y)
    of_state = torch.randn(state.shape, generator=draw, dtype=torch.complex128).to(state)
    loss = (y * weights).sum() + (state * of_state).real.sum()
    return y, state, *torch.autograd.grad(loss, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("driven", [True, False], ids=["driven", "at rest"])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("gaps", [1e-6, 1.0, 1e3, 1e6, np.resize([1e6, 1e-6, 1.0, 1e3, 0.0], 19)], ids=str)
def test_gradients_keep_their_digits_at_any_gap(backend, dtype, driven, rank, gaps):
    """Before and after a large gap the state is opposite, and the mean of the two a millionth of them: without inputs
    all gradients are as small. That in each gap is compared with those in gaps of its size.
    """
    u, *rest = problem(L=19, gaps=gaps, rank=rank, dtype=np.float32)
    arguments = (u if driven else 0 * u), *rest
    expected = with_gradients(dense_scan, arguments, torch.float64)
    got = with_gradients(lambda *x: dplr_scan(*x, backend=backend), arguments, dtype)
    for name, x, y in zip(NAMES, got, expected, strict=True):
        parts = [slice(k, None, 5) for k in range(5)] if name == "dt" else [slice(None)]
        for part in parts:
            error = (x[..., part].to(y) - y[..., part]).abs().max() / y[..., part].abs().max().clamp(min=1e-300)
            assert error < {torch.float32: 3e-5, torch.float64: 1e-11}[dtype], f"{name}: {error:.1e}"


def test_gradients_in_torch_have_gradients():
    arguments = [torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for x in problem(L=2, H=1, pairs=2)]
    scan = lambda *x: dplr_scan(*x, backend="pytorch")  # noqa: E731
    assert torch.autograd.gradgradcheck(scan, arguments, atol=1e-7)


@pytest.mark.parametrize("rank", [1, 2])
def test_gradients_over_several_segments_agree_one_by_one(rank):
    """Among them those at a gap of 0, and of gaps that repeat."""
    gaps = np.repeat([0.3, 0.0, 1.7, 0.3], 11)
    arguments = [
        torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for x in problem(L=44, rank=rank, gaps=gaps)
    ]
    weights = torch.randn(2, 3, 44, dtype=torch.float64)
    results = []
    for backend in BACKENDS:
        y, state = dplr_scan(*arguments, backend=backend)
        results.append(torch.autograd.grad((y * weights).sum() + state.abs().square().sum(), arguments))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10 * y.abs().max().item())


def test_a_higher_rank_is_left_to_torch():
    arguments = problem(rank=3)
    got = dplr_scan(*arguments)
    np.testing.assert_allclose(got[0], dplr_scan(*arguments, backend="reference")[0], atol=1e-11)
    with pytest.raises(BackendError, match="its loops take rank 1 and 2, not 3"):
        dplr_scan(*arguments, backend="cpu")


def test_a_slow_mode_keeps_its_digits_in_float32():
    """A memory of 10⁵ steps: Ā rounded to float32 would err by percents, increments do not."""
    row = np.full((1, 1), 1.0 + 0j)
    arguments = np.ones((1, 1, 50_000), np.float32), None, -1e-5 * row, 1e-3 * row[None], row, row
    exact = [x if x is None else x.astype(np.float64 if x.dtype == np.float32 else complex) for x in arguments]
    exact, _ = dplr_scan(*exact, backend="cpu")
    got, _ = dplr_scan(*(x.astype(np.complex64) if np.iscomplexobj(x) else x for x in arguments), backend="cpu")
    np.testing.assert_allclose(got, exact, rtol=0, atol=2e-5 * np.abs(exact).max())


def test_a_step_is_a_scan_of_one():
    u, dt, Lambda, P, B, C, x = (torch.from_numpy(a) for a in problem(L=1, rank=2))
    tables = discretise(dt[..., None], Lambda, P, B)
    expected = dplr_scan(u, dt, Lambda, P, B, C, x)[1]
    torch.testing.assert_close(advance(u[..., 0], x, *tables, P), expected, rtol=1e-11, atol=1e-11)


def test_dying_states_stay_out_of_subnormal_numbers():
    u = np.zeros((1, 16, 3000), np.float32)
    u[..., 0] = 1
    row = np.ones((16, 4), np.complex64)
    _, state = dplr_scan(u, None, -0.1 * row, 0.1 * row[:, None], row, row, backend="cpu")
    assert not ((state.real != 0) & (np.abs(state.real) < np.finfo(np.float32).tiny)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=np.ones((2, 3))), "u must have shape"),
        (dict(u=np.ones((2, 3, 0))), "no axis empty"),
        (dict(dt=np.ones(4)), r"dt must have shape \(2, 4\)"),
        (dict(Lambda=np.ones((2, 5))), "with 3 channels"),
        (dict(P=np.ones((3, 5))), r"P must have shape \(3, rank, 5\)"),
        (dict(P=np.ones((3, 0, 5))), "rank at least 1"),
        (dict(C=np.ones((3, 4))), r"C must have shape \(3, 5\)"),
        (dict(initial=np.ones((3, 5))), r"initial must have shape \(2, 3, 5\)"),
        (dict(C=torch.ones(3, 5)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    row = np.ones((3, 5))
    arguments = dict(u=np.ones((2, 3, 4)), dt=np.ones((2, 4)), Lambda=-row, P=row[:, None], B=row, C=row)
    with pytest.raises(ValueError, match=message):
        dplr_scan(**arguments | change)
