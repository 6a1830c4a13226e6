"""The fast backends against the recurrence: outputs, final state, every gradient by name, hard decays, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, delta_rule

BACKENDS = ["cpu", "pytorch"]
NAMES = ["q", "k", "v", "beta", "decay", "initial_state"]
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-11}


def problem(B=2, L=21, H=3, K=5, V=7, dtype=np.float64, beta="below 1", normalised=True, decay="mixed", **_):
    rng = np.random.default_rng(L)
    q, k, v = (rng.normal(size=(B, L, H, n)) for n in (K, K, V))
    if normalised:
        k /= np.linalg.norm(k, axis=-1, keepdims=True)
    else:
        k /= np.sqrt(K) * 1.5
        k[:, ::5] *= 1e-4  # shorter than what `qk_l2norm` divides by
    strength = {"below 1": rng.uniform(0, 1, (B, L, H)), "below 2": rng.uniform(0, 2, (B, L, H))}.get(beta)
    if strength is None:
        strength = np.full((B, L, H), float(beta))
    rates = {
        "none": None,
        "mixed": -(10 ** rng.uniform(-6, 1, (B, L, H))),
        "near 1": np.full((B, L, H), -1e-6),
        "hard": -(10 ** rng.uniform(-6, 6, (B, L, H))),
        "zero": np.zeros((B, L, H)),
    }[decay]
    arrays = q, k, v, strength, rates, rng.normal(size=(B, H, K, V))
    return {n: None if x is None else x.astype(dtype) for n, x in zip(NAMES, arrays, strict=True)}


def loop(q, k, v, beta, decay=None, initial_state=None, qk_l2norm=False):
    """The recurrence once more, in torch, for its gradients."""
    if qk_l2norm:
        q, k = (x / x.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-3) for x in (q, k))
    S = k.new_zeros(*k.shape[::2], k.shape[3], v.shape[3]) if initial_state is None else initial_state
    outputs = []
    identity = torch.eye(k.shape[-1], dtype=k.dtype)
    for t in range(k.shape[1]):
        step = beta[:, t, :, None, None]
        key = k[:, t].unsqueeze(-1)
        change = identity - step * key @ key.mT
        if decay is not None:
            change = change * decay[:, t, :, None, None].exp()
        S = change @ S + step * key @ v[:, t].unsqueeze(-2)
        outputs.append((S.mT @ q[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, dim=1), S


def assert_close(got, expected, dtype, name):
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


SHAPES = [
    dict(L=1), dict(L=2, B=1, H=1, K=1, V=1), dict(L=63, K=16, V=16), dict(L=257, B=1, K=17, V=3),
    dict(L=1000, B=1, H=1, K=20, V=33), dict(L=32, K=33, V=18),
]  # fmt: skip
CASES = [
    dict(decay="none"), dict(decay="none", beta="below 2"), dict(decay="none", beta="below 2", normalised=False),
    dict(decay="near 1", beta="1.0", L=100), dict(decay="hard", L=63), dict(decay="zero", beta="0.0"),
    dict(decay="none", beta="2.0", L=40), dict(decay="mixed", normalised=False),
    dict(qk_l2norm=True, normalised=False, K=18, L=40),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [*SHAPES, *CASES], ids=str)
def test_equals_the_reference_with_every_gradient(backend, dtype, options, monkeypatch):
    arrays = problem(dtype=dtype, **options)
    unit = dict(qk_l2norm=options.get("qk_l2norm", False))
    expected = delta_rule(**arrays, **unit, backend="reference")
    got = delta_rule(**arrays, **unit, backend=backend)
    assert [x.dtype for x in got] == [dtype, dtype]
    for name, x, y in zip(("o", "state"), got, expected, strict=True):
        assert_close(x, y, dtype, name)

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=x.shape) for x in expected]
    exact = {n: None if x is None else torch.from_numpy(x).double().requires_grad_() for n, x in arrays.items()}
    own = {n: None if x is None else torch.from_numpy(x).requires_grad_() for n, x in arrays.items()}
    given = [n for n in NAMES if arrays[n] is not None]

    def gradients(results, inputs):
        total = sum((x * torch.from_numpy(w).to(x.dtype)).sum() for x, w in zip(results, weights, strict=True))
        return torch.autograd.grad(total, [inputs[n] for n in given])

    oracle = loop(**exact, **unit)
    for x, y in zip(oracle, expected, strict=True):
        np.testing.assert_allclose(x.detach(), y, atol=1e-11 * max(1, np.abs(y).max()))
    for name, x, y in zip(
        given, gradients(delta_rule(**own, **unit, backend=backend), own), gradients(oracle, exact), strict=True
    ):
        assert_close(x.numpy(), y.numpy(), dtype, f"gradient of {name}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_defaults_are_no_decay_from_rest(backend):
    arrays = problem(L=40)
    plain = {n: arrays[n] for n in NAMES[:4]}
    zeros = dict(decay=np.zeros_like(arrays["decay"]), initial_state=np.zeros_like(arrays["initial_state"]))
    got, expected = delta_rule(**plain, backend=backend), delta_rule(**plain, **zeros, backend="reference")
    for name, x, y in zip(("o", "state"), got, expected, strict=True):
        assert_close(x, y, np.float64, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_factor_of_zero_forgets_all_and_has_no_gradient(backend):
    """Not even one of rounding, which a rate times a long gap would blow up."""
    arrays = {n: torch.from_numpy(x).requires_grad_() for n, x in problem(L=45, dtype=np.float32).items()}
    with torch.no_grad():
        arrays["decay"][:, [7, 16, 30]] = -1e6
        arrays["decay"][:, 33] = -torch.inf
    o, state = delta_rule(**arrays, backend=backend)
    later = {n: arrays[n][:, 33:].detach().numpy() for n in NAMES[:5]}
    expected, final = delta_rule(**later, backend="reference")
    assert_close(o[:, 33:].detach().numpy(), expected, np.float32, "o")
    assert_close(state.detach().numpy(), final, np.float32, "state")
    (of_decay,) = torch.autograd.grad(o.square().sum() + state.square().sum(), arrays["decay"], retain_graph=True)
    assert (of_decay[:, [7, 16, 30, 33]] == 0).all()
    assert (of_decay != 0).any()
    (of_initial,) = torch.autograd.grad(o[:, 7:].square().sum(), arrays["initial_state"])
    assert (of_initial == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_writes_nothing_changes_nothing(backend):
    arrays = problem(L=37)
    silent = np.array([0, 1, 15, 16, 31, 36])
    arrays["beta"][:, silent], arrays["decay"][:, silent] = 0, 0
    rest = np.setdiff1d(np.arange(37), silent)
    o, state = delta_rule(**arrays, backend=backend)
    kept = {n: x if n == "initial_state" else x[:, rest] for n, x in arrays.items()}
    expected, final = delta_rule(**kept, backend=backend)
    assert_close(o[:, rest], expected, np.float64, "o")
    assert_close(state, final, np.float64, "state")


@pytest.mark.parametrize("backend", BACKENDS)
def test_records_and_heads_of_any_layout_in_memory(backend):
    """Slices of what one projection gives, a broadcast gradient, memory that holds something else before."""
    together = torch.randn(2, 35, 3, 2, 20, dtype=torch.float64)
    q, k, v = together[..., :18].unbind(2)
    v = v.mT.contiguous().mT
    beta = torch.rand(2, 2, 35, dtype=torch.float64).mT
    expected = delta_rule(*(x.contiguous().numpy() for x in (q, k, v, beta)), qk_l2norm=True, backend="reference")
    inputs = [x.requires_grad_() for x in (q, k, v, beta)]
    got = delta_rule(*inputs, qk_l2norm=True, backend=backend)
    for name, x, y in zip(("o", "state"), got, expected, strict=True):
        assert_close(x.detach().numpy(), y, np.float64, name)
    exact = [x.detach().contiguous().requires_grad_() for x in inputs]
    for name, x, y in zip(
        NAMES,
        torch.autograd.grad(got[0].sum(), inputs),
        torch.autograd.grad(loop(*exact, qk_l2norm=True)[0].sum(), exact),
        strict=False,
    ):
        assert_close(x.numpy(), y.numpy(), np.float64, name)


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_chunks_of_any_size(size):
    arrays = problem(L=33)
    for x, y in zip(delta_rule(**arrays, chunk_size=size), delta_rule(**arrays, backend="reference"), strict=True):
        assert_close(x, y, np.float64, size)


def test_the_chunks_of_the_compiled_loops_have_sixteen_steps():
    with pytest.raises(BackendError, match="its chunks have 16 steps, not 64"):
        delta_rule(**problem(), chunk_size=64, backend="cpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_states_in_single(backend, dtype):
    arrays = problem(L=70)
    q, k, v, beta = (torch.from_numpy(arrays[n]).to(dtype).requires_grad_() for n in NAMES[:4])
    decay = torch.from_numpy(arrays["decay"]).float()
    o, state = delta_rule(q, k, v, beta, decay, backend=backend)
    assert (o.dtype, state.dtype) == (dtype, torch.float32)
    exact = [x.detach().double().numpy() for x in (q, k, v, beta, decay)]
    expected, final = delta_rule(*exact, backend="reference")
    assert_close(state.detach().numpy(), final, np.float32, "state")
    np.testing.assert_allclose(o.detach().double(), expected, rtol=0.01, atol=0.01)
    o.float().square().sum().backward()
    assert {x.grad.dtype for x in (q, k, v, beta)} == {dtype}


def test_second_derivatives_are_left_to_torch():
    arrays = {n: torch.from_numpy(x).requires_grad_() for n, x in problem(B=1, L=5, H=1, K=2, V=2).items()}
    call = lambda *x: delta_rule(*x, chunk_size=2, backend="pytorch")  # noqa: E731
    assert torch.autograd.gradgradcheck(call, tuple(arrays.values()), atol=1e-6)
    o, _ = delta_rule(**arrays, backend="cpu")
    (first,) = torch.autograd.grad(o.square().sum(), arrays["v"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(k=np.ones((2, 3, 4))), "k must have shape"),
        (dict(k=np.ones((2, 0, 3, 4))), "no axis empty"),
        (dict(q=np.ones((2, 4, 3, 6))), r"q must have shape \(2, 4, 3, 5\)"),
        (dict(v=np.ones((2, 4, 1, 6))), r"v must have shape \(2, 4, 3, d_value\)"),
        (dict(beta=np.ones((2, 4, 3, 1))), r"beta must have shape \(2, 4, 3\)"),
        (dict(decay=np.ones((2, 4))), r"decay must have shape \(2, 4, 3\)"),
        (dict(initial_state=np.ones((2, 3, 6, 5))), r"initial_state must have shape \(2, 3, 5, 6\)"),
        (dict(chunk_size=0), "chunk_size must be a positive integer or None. Got 0"),
        (dict(chunk_size=2.5), "chunk_size must be a positive integer or None. Got 2.5"),
        (dict(beta=torch.ones(2, 4, 3)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    keys = np.ones((2, 4, 3, 5))
    arguments = dict(q=keys, k=keys, v=np.ones((2, 4, 3, 6)), beta=np.ones((2, 4, 3)))
    with pytest.raises(ValueError, match=message):
        delta_rule(**arguments | change)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_read_that_was_not_written(backend):
    """With this setting torch fills what it allocates with NaN."""
    arrays = problem(L=57, K=20, V=9)

    def results():
        tensors = {n: torch.from_numpy(x).requires_grad_() for n, x in arrays.items()}
        o, state = delta_rule(**tensors, qk_l2norm=True, backend=backend)
        return o, state, *torch.autograd.grad(o.square().sum() + state.square().sum(), list(tensors.values()))

    expected = results()
    try:
        torch.use_deterministic_algorithms(True)
        got = results()
    finally:
        torch.use_deterministic_algorithms(False)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_dying_states_stay_out_of_subnormal_numbers():
    rng = np.random.default_rng(0)
    k, beta = rng.normal(size=(1, 3000, 1, 4)).astype(np.float32), np.full((1, 3000, 1), 0.1, np.float32)
    v = np.zeros_like(k)
    v[:, 0] = 1
    for end in (2500, 2750, 3000):
        inputs = (x[:, :end] for x in (k, k, v, beta, -0.3 * beta))
        _, state = delta_rule(*inputs, qk_l2norm=True, backend="cpu")
        assert not ((state != 0) & (np.abs(state) < np.finfo(np.float32).tiny)).any()
