"""RWKV's weighted average: outputs, final state, every gradient against the paper's sums; hard keys, gaps, shapes."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, wkv
from statespace.kernels.wkv.step import advance

BACKENDS = ["cpu", "pytorch"]
NAMES = "w", "u", "k", "v", "state", "dt"


def problem(B=2, L=63, D=3, gaps=None, keys=1.0, dtype=np.float64):
    """Arguments with rates from 1e-3 to 20, as in the paper's initial values, and any triple as the state."""
    rng = np.random.default_rng(L)
    dt = rng.exponential(size=(B, L)) if gaps is None else np.resize(gaps, (B, L))
    state = np.stack([rng.normal(size=(B, D)), rng.uniform(0.5, 2, (B, D)), rng.normal(size=(B, D))], axis=-1)
    w, u = 10 ** rng.uniform(-3, 1.3, D), rng.normal(size=D)
    k, v = keys * rng.normal(size=(B, L, D)), rng.normal(size=(B, L, D))
    return tuple(x.astype(dtype) for x in (w, u, k, v, state, dt))


def papers_sums(w, u, k, v, state=None, dt=None):
    """Equation 16 with times: every weight of every pair of samples by itself; logarithms of sums, no running maximum.

    The state is one more value before the record, with weight b e^o and mean a / b; times are sums of gaps.
    """
    B, L, D = k.shape
    dt = torch.ones(B, L, dtype=k.dtype) if dt is None else dt
    real = (dt > 0).unsqueeze(-1)
    nothing = torch.tensor(-torch.inf, dtype=k.dtype)
    if state is None:
        weight, mean = nothing.expand(B, 1, D), torch.zeros(B, 1, D, dtype=k.dtype)
    else:
        a, b, o = state.unsqueeze(1).unbind(-1)
        weight, mean = o + b.log(), a / b
    values = torch.cat([mean, v], dim=1)
    keys = torch.cat([weight, torch.where(real, k, nothing)], dim=1)
    outputs, gone = [], torch.zeros(B, 1, dtype=k.dtype)  # time since the state and since each sample
    for t in range(L):
        gone = gone + torch.where(dt[:, t : t + 1] > 0, dt[:, t : t + 1], 0)
        past = keys[:, : t + 1] - w * (gone.unsqueeze(-1) - 1)
        share = torch.softmax(torch.cat([past, u + k[:, t : t + 1]], dim=1), dim=1)
        outputs.append((share * values[:, : t + 2]).sum(1))
        gone = torch.cat([gone, torch.zeros(B, 1, dtype=k.dtype)], dim=1)
    last = keys - w * gone.unsqueeze(-1)
    total = last.logsumexp(1)
    mean = ((last - total.unsqueeze(1)).exp() * values).sum(1)
    return torch.stack(outputs, 1) * real, torch.stack([mean, torch.ones_like(mean), total], dim=-1)


def results(function, arguments):
    """Outputs and all gradients, by name, of the same function of the outputs."""
    inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in arguments]
    y, state = function(*inputs)
    generator = torch.Generator().manual_seed(0)
    loss = sum(
        (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)).sum() for x in (y, state)
    )
    gradients = torch.autograd.grad(loss, inputs)
    named = dict(zip(NAMES, gradients, strict=True))
    return {"y": y, "final state": state, **{f"d{name}": x for name, x in named.items()}}


HARD = np.array([1e-6, 1e6, 1.0, 0.0, 0.3, 1e-3, 0.0, 1e3])
CASES = [
    dict(L=1), dict(L=2, D=16), dict(L=63, D=5), dict(L=257, B=3, D=16), dict(L=1000, B=1, D=3), dict(L=70, D=48),
    dict(gaps=1.0), dict(gaps=HARD), dict(gaps=0.0), dict(gaps=1e-6), dict(gaps=1e6),
    dict(keys=1e3), dict(keys=1e3, gaps=HARD, D=16),
]  # fmt: skip


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_papers_sums(backend, options):
    arguments = problem(**options)
    expected = [x.detach().numpy() for x in papers_sums(*map(torch.from_numpy, arguments))]
    for x, y in zip(wkv(*arguments, backend=backend), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-11 * max(1, np.abs(y).max()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients(backend, options, dtype):
    arguments = problem(dtype=dtype, **options)
    expected = results(papers_sums, [x.astype(np.float64) for x in arguments])
    got = results(lambda *x: wkv(*x, backend=backend), arguments)
    tolerance = {np.float32: 3e-5, np.float64: 1e-11}[dtype]
    if dtype == np.float32 and {"keys", "gaps"} <= options.keys():
        # Keys of a thousand against decays of a thousand: the rounding of either is 6e-5 in an exponent.
        tolerance = 2e-4
    for name, y in expected.items():
        assert got[name].dtype == torch.from_numpy(arguments[0]).dtype
        error = (got[name].double() - y).abs().max() / max(1, y.abs().max())
        assert error < tolerance, f"{name}: {error:.1e}"


def test_gradients_are_those_of_the_reference():
    """Complex steps through the float64 loop, for one element of each argument."""
    arguments = problem(L=9, gaps=np.r_[HARD, 0.7])
    weights = np.random.default_rng(0).normal(size=(2, 9, 3))
    inputs = [torch.from_numpy(x).requires_grad_() for x in arguments]
    y, state = wkv(*inputs)
    gradients = torch.autograd.grad((y * torch.from_numpy(weights)).sum() + state[..., ::2].sum(), inputs)
    for i, (name, gradient) in enumerate(zip(NAMES, gradients, strict=True)):
        for index in [(0,) * gradient.ndim, tuple(n - 1 for n in gradient.shape)]:
            moved = [x.astype(complex) if i == j else x for j, x in enumerate(arguments)]
            moved[i][index] += 1e-30j
            y, state = wkv(*moved, backend="reference")
            derivative = ((y * weights).sum() + state[..., ::2].sum()).imag / 1e-30
            np.testing.assert_allclose(gradient[index].item(), derivative, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
@pytest.mark.parametrize("D", [3, 16])
def test_defaults_are_unit_gaps_and_a_past_without_samples(backend, D):
    w, u, k, v, state, dt = problem(D=D)
    empty = np.zeros_like(state)
    empty[1] = [0.0, 0.0, -1e38]  # as RWKV's own code starts
    got = wkv(w, u, k, v, backend=backend)
    expected = papers_sums(*map(torch.from_numpy, (w, u, k, v)))
    for x, y, z in zip(got, expected, wkv(w, u, k, v, empty, np.ones_like(dt), backend=backend), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-11)
        np.testing.assert_allclose(x, z, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got[0][:, 0], v[:, 0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_from_a_past_without_samples(backend):
    """Of the empty state itself there is none; no other is spoiled by it, nor by padding that holds anything."""
    w, u, k, v, state, dt = problem(L=40, D=5)
    state[1], dt[1, 20:], dt[0] = 0, 0, 0
    expected = results(papers_sums, (w, u, k, v, np.where(state == 0, [0.0, 1e-300, -600.0], state), dt))
    k[1, 20:], v[1, 20:] = np.nan, np.inf
    got = results(lambda *x: wkv(*x, backend=backend), (w, u, k, v, state, dt))
    for name, y in expected.items():
        if name != "dstate":
            torch.testing.assert_close(got[name], y, rtol=0, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")
    assert (got["dstate"][1] == 0).all()


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_padding_alone_keeps_the_state(backend):
    w, u, k, v, state, _ = problem(L=5)
    state[..., 1] = 1
    state[1] = 0
    y, after = wkv(w, u, k, v, state, np.zeros((2, 5)), backend=backend)
    np.testing.assert_array_equal(after, state)
    assert (y == 0).all()


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_triples_of_the_same_sums_are_the_same_state(backend):
    w, u, k, v, state, dt = problem(L=9)
    other = state * [7.0, 7.0, 1.0] - [0.0, 0.0, np.log(7.0)]
    for x, y in zip(*(wkv(w, u, k, v, s, dt, backend=backend) for s in (state, other)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_record_may_be_cut(backend):
    w, u, k, v, state, dt = problem(L=71)
    whole = wkv(w, u, k, v, state, dt, backend=backend)
    for cut in (1, 32, 50):
        head, middle = wkv(w, u, k[:, :cut], v[:, :cut], state, dt[:, :cut], backend=backend)
        tail, final = wkv(w, u, k[:, cut:], v[:, cut:], middle, dt[:, cut:], backend=backend)
        for x, y in zip((np.concatenate([head, tail], axis=1), final), whole, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gaps", [None, 0.7, 1e6])
def test_a_step_is_a_record_of_one(gaps):
    w, u, k, v, state, dt = map(torch.from_numpy, problem(L=1, keys=100, gaps=gaps))
    dt = None if gaps is None else dt
    for start in (state, torch.zeros_like(state)):
        y, after = wkv(w, u, k, v, start, dt)
        got = advance(w, u, k[:, 0], v[:, 0], start, dt)
        torch.testing.assert_close(got[0], y[:, 0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got[1], after, rtol=1e-12, atol=1e-12)


def test_a_slow_decay_keeps_its_digits_in_float32():
    """A rate of 1e-6 beside keys of 10: their rounded sum would decay at another rate, or not at all."""
    k = np.full((1, 20_000, 16), 10.0, np.float32)
    v = np.linspace(-1, 1, 20_000, dtype=np.float32)[None, :, None].repeat(16, axis=2)
    w, u = np.geomspace(1e-7, 1e-2, 16).astype(np.float32), np.zeros(16, np.float32)
    expected, _ = wkv(w, u, k, v, backend="reference")
    for backend in BACKENDS:
        # What is left is the rounding of a sum of 20,000 numbers; the effect of the slowest rate is 1e-3.
        np.testing.assert_allclose(wkv(w, u, k, v, backend=backend)[0], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_in_float32(backend, dtype):
    w, u, k, v, state, dt = (torch.from_numpy(x).float() for x in problem(L=300, D=16))
    k, v = k.to(dtype), v.to(dtype)
    y, final = wkv(w, u, k, v, state, dt, backend=backend)
    assert (y.dtype, final.dtype) == (dtype, torch.float32)
    exact, last = wkv(w, u, k.float(), v.float(), state, dt)
    torch.testing.assert_close(y, exact.to(dtype), rtol=0, atol=torch.finfo(dtype).eps)
    torch.testing.assert_close(final, last, rtol=0, atol=3e-5)


def test_no_memory_is_read_before_it_is_written(monkeypatch):
    arguments = problem(L=70, D=21)
    expected = results(wkv, arguments)
    empty = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda *x, **options: empty[0](*x, **options).fill_(torch.nan))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *x, **options: empty[1](*x, **options).fill_(torch.nan))
    for name, x in results(wkv, arguments).items():
        torch.testing.assert_close(x, expected[name], rtol=0, atol=0)


def test_threads_change_nothing():
    arguments, threads, runs = problem(B=4, D=48, L=300), torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            runs.append(results(wkv, arguments))
    finally:
        torch.set_num_threads(threads)
    for name, x in runs[0].items():
        torch.testing.assert_close(runs[1][name], x, rtol=0, atol=0)


def test_values_and_keys_may_lie_in_memory_in_any_order():
    w, u, k, v, state, dt = map(torch.from_numpy, problem(D=16))
    expected = wkv(w, u, k, v, state, dt)
    got = wkv(w, u, k.transpose(1, 2).contiguous().transpose(1, 2), torch.cat([v, k], dim=-1)[..., :16], state, dt)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_the_reference_takes_arrays():
    with pytest.raises(BackendError, match="not torch tensors"):
        wkv(*map(torch.from_numpy, problem()), backend="reference")
    with pytest.raises(BackendError, match="a tensor is on meta"):
        wkv(*(torch.from_numpy(x).to("meta") for x in problem()), backend="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(k=np.ones((2, 3))), "k must have shape"),
        (dict(k=np.ones((2, 0, 3))), "no axis empty"),
        (dict(v=np.ones((2, 4, 1))), r"v must have shape \(2, 4, 3\)"),
        (dict(w=np.ones((3, 1))), r"w must have shape \(3,\)"),
        (dict(u=np.ones(2)), r"u must have shape \(3,\). Got \(2,\)"),
        (dict(state=np.ones((2, 3, 2))), r"state must have shape \(2, 3, 3\)"),
        (dict(dt=np.ones((2, 1))), r"dt must have shape \(2, 4\)"),
        (dict(u=torch.ones(3)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    k = np.ones((2, 4, 3))
    with pytest.raises(ValueError, match=message):
        wkv(**dict(w=np.ones(3), u=np.ones(3), k=k, v=k) | change)
