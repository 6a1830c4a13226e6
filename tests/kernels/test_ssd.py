"""Both fast forms of state-space duality against the reference: outputs, final states, every gradient by name."""

import numpy as np
import pytest
import torch

from statespace.kernels import selective_scan, ssd

BACKENDS = ["cpu", "pytorch"]
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}
INPUTS = ["x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_states", "gap"]


def problem(L, batch=2, H=2, P=3, G=1, N=5, rates=(0.1, 8.0), gaps=None, packed=False, per_channel=False, **options):
    """Everything the function takes, as float64 tensors by name."""
    generator = torch.Generator().manual_seed(L)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    low, high = (np.log(r) for r in rates)
    found = {
        "x": draw(batch, L, H, P), "dt": draw(batch, L, H), "A": -(low + (high - low) * uniform(H)).exp(),
        "B": draw(batch, L, G, N), "C": draw(batch, L, G, N), "D": draw(H, P) if per_channel else draw(H),
        "z": draw(batch, L, H, P), "dt_bias": draw(H) - 1, "initial_states": draw(batch, H, P, N),
        "gap": uniform(batch, L) * 2 if gaps is None else torch.as_tensor(gaps).double().expand(batch, L).clone(),
        "seq_idx": None, "dt_softplus": True, "return_final_states": True,
    }  # fmt: skip
    if packed:
        found["seq_idx"] = (uniform(batch, L) < 0.1).cumsum(1)
    return found | options


# Gaps of every size in one record, and none at all.
BURSTS = np.resize([0.5, 0.0, 1e6, 1e-6, 1e-4, 1e3, 0.5, 2.0, 1e-6], 63)
PROBLEMS = {
    "one": dict(L=1),
    "two": dict(L=2, packed=True),
    "odd": dict(L=63, batch=3, H=3, P=5, N=7, G=3),
    "packed": dict(L=257, H=4, P=6, N=9, G=2, packed=True, per_channel=True, chunk_size=50),
    "long": dict(L=1000, batch=1, P=17, N=16),
    "vectors": dict(L=70, H=2, P=32, N=24),
    "limits": dict(L=63, dt_limit=(0.1, 0.9), chunk_size=1),
    "bursts": dict(L=63, gaps=BURSTS, H=4, P=4, N=8),
    "slow": dict(L=257, batch=1, rates=(1e-5, 1e-3), P=16),
    "fast": dict(L=63, rates=(1e2, 1e6)),
}


def loop(x, dt, A, B, C, chunk_size=None, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
         dt_softplus=False, dt_limit=(0.0, np.inf), return_final_states=False, gap=None):  # fmt: skip
    """The recurrence once more, in torch operations whose gradients torch knows."""
    B, C = (a.repeat_interleave(x.shape[2] // a.shape[2], dim=2) for a in (B, C))
    step = torch.log1p(torch.exp(dt + dt_bias)).clamp(*dt_limit) * gap[..., None]
    h, outputs = initial_states, []
    for k in range(x.shape[1]):
        if seq_idx is not None and k > 0:
            h = h * (seq_idx[:, k] == seq_idx[:, k - 1])[:, None, None, None]
        size = step[:, k, :, None, None]
        h = torch.exp(size * A[:, None, None]) * h + size * x[:, k, :, :, None] * B[:, k, :, None, :]
        outputs.append((h * C[:, k, :, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1) + (D if D.ndim == 2 else D[:, None]) * x
    return y * z * torch.sigmoid(z), h


def with_gradients(function, arguments):
    """Results by name: y, the final states, and the gradient of a fixed weighting of both in every argument."""
    arguments = {n: a.detach().clone().requires_grad_() if n in INPUTS else a for n, a in arguments.items()}
    y, final = function(**arguments)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a.dtype) for a in (y, final)]
    total = (y * weights[0]).sum() + (final * weights[1]).sum()
    gradients = torch.autograd.grad(total, [arguments[n] for n in INPUTS])
    return {"y": y, "final_states": final} | dict(zip(INPUTS, gradients, strict=True))


@pytest.fixture(scope="module", params=PROBLEMS)
def solved(request):
    arguments = problem(**PROBLEMS[request.param])
    return arguments, with_gradients(loop, arguments)


@pytest.fixture
def memory_of_nan(monkeypatch):
    """What is never written shows."""
    empty, empty_like, new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty

    def filled(x):
        return x.fill_(torch.nan) if x.is_floating_point() else x

    monkeypatch.setattr(torch, "empty", lambda *a, **o: filled(empty(*a, **o)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **o: filled(empty_like(*a, **o)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **o: filled(new_empty(*a, **o)))


def test_the_reference_is_the_recurrence(solved):
    arguments, expected = solved
    arrays = {n: a.numpy() if isinstance(a, torch.Tensor) else a for n, a in arguments.items()}
    y, final = ssd(**arrays, backend="reference")
    np.testing.assert_allclose(y, expected["y"].detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(final, expected["final_states"].detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_outputs_and_every_gradient(backend, dtype, solved, memory_of_nan):
    arguments, expected = solved
    if dtype == torch.float32:
        # What float32 cannot hold is no error of the backend: all start from the numbers that it can.
        arguments = {n: a.float().double() if n in INPUTS else a for n, a in arguments.items()}
        expected = with_gradients(loop, arguments)
        arguments = {n: a.float() if n in INPUTS else a for n, a in arguments.items()}
    got = with_gradients(lambda **a: ssd(**a, backend=backend), arguments)
    for name, value in expected.items():
        assert got[name].dtype == dtype
        scale = max(1.0, value.abs().max().item())
        np.testing.assert_allclose(
            got[name].detach().double(), value.detach(), rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_selective_scan_with_one_rate_for_a_head(backend):
    a = problem(63, H=4, P=3, G=2, N=5)
    y, final = ssd(**a, backend=backend)
    spread = lambda x: x.repeat_interleave(3, dim=-1)  # noqa: E731
    channels = lambda x: x.flatten(2).transpose(1, 2)  # noqa: E731
    expected, last = selective_scan(
        channels(a["x"]), spread(a["dt"]).transpose(1, 2), spread(a["A"]).unsqueeze(1).expand(-1, 5),
        *(a[n].permute(0, 2, 3, 1) for n in "BC"), spread(a["D"]), channels(a["z"]), spread(a["dt_bias"]), True, True,
        initial_state=a["initial_states"].flatten(1, 2), dt=a["gap"], backend="pytorch",
    )  # fmt: skip
    torch.testing.assert_close(channels(y), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(final.flatten(1, 2), last, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_defaults(backend):
    """From rest, no skip, no gate, steps as they are and none of them negative."""
    a = {n: problem(21)[n].numpy() for n in ("x", "dt", "A", "B", "C")}
    got = ssd(**a, backend=backend)
    neutral = dict(D=np.zeros(2), dt_bias=np.zeros(2), initial_states=np.zeros((2, 2, 3, 5)), gap=np.ones((2, 21)))
    expected = ssd(**{**a, "dt": a["dt"].clip(0)}, **neutral, backend="reference")
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_numbers_and_arrays_that_run_backwards(backend):
    """Read-only ones, too."""
    a = {n: problem(9)[n].numpy() for n in ("x", "dt", "A", "B", "C")}
    a["x"] = (10 * a["x"]).astype(int)[:, ::-1]
    a["B"].flags.writeable = False
    got = ssd(**a, dt_softplus=True, backend=backend)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, ssd(**a, dt_softplus=True, backend="reference"), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_of_a_wider_array_and_several_threads(threads):
    """What a split leaves is read where it lies; the channels of one record are shared by threads."""
    arguments = problem(2500, batch=1, P=40, N=16)
    expected = with_gradients(lambda **a: ssd(**a, backend="pytorch"), arguments)

    def of_views(x, B, C, **rest):
        wide = torch.cat([a.flatten(2) for a in (x, B, C)], dim=-1)
        parts = wide.split([80, 16, 16], dim=-1)
        x, B, C = (part.unflatten(-1, a.shape[2:]) for part, a in zip(parts, (x, B, C), strict=True))
        return ssd(x, B=B, C=C, **rest, backend="cpu")

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = with_gradients(of_views, arguments)
    finally:
        torch.set_num_threads(before)
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_carries_states_in_single(backend):
    arguments = problem(257, P=8, N=8)
    low = {n: a.bfloat16() if n in INPUTS else a for n, a in arguments.items()}
    y, final = ssd(**low, backend=backend)
    assert (y.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    exact, exact_final = ssd(**{n: a.double() if n in INPUTS else a for n, a in low.items()})
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-4)
    torch.testing.assert_close(final.double(), exact_final, rtol=0, atol=3e-5 * exact_final.abs().max().item())
    gradients = with_gradients(lambda **a: ssd(**a, backend=backend), low)
    assert all(g.isfinite().all() and g.dtype == torch.bfloat16 for n, g in gradients.items() if n in INPUTS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_steps_behind_a_long_gap_keep_their_digits(backend):
    """In float32, and in one chunk: the difference of sums from the chunk's beginning would have none left."""
    gap = torch.full((1, 64), 1e-3)
    gap[0, 5] = 1e6
    ones = torch.ones(1, 64, 1, 1)
    A = torch.tensor([-16.0])
    y = ssd(ones, ones[..., 0], A, ones, ones, 64, gap=gap, backend=backend)
    exact = ssd(*(a.double() for a in (ones, ones[..., 0], A, ones, ones)), gap=gap.double())
    torch.testing.assert_close(y.double(), exact, rtol=2e-6, atol=0)


def test_dying_states_stay_out_of_subnormal_numbers():
    x = torch.zeros(1, 3000, 1, 16)
    x[:, 0] = 1
    ones = torch.ones(1, 3000, 1, 8)
    _, final = ssd(x, ones[..., 0], -0.1 * ones[0, 0, :, 0], ones, ones, return_final_states=True, backend="cpu")
    assert not ((final != 0) & (final.abs() < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x=np.ones((2, 3, 4))), "x must have shape"),
        (dict(x=np.ones((2, 0, 4, 3))), "no axis empty"),
        (dict(B=np.ones((2, 5, 3, 6))), "a number of groups that divides 4 heads"),
        (dict(B=np.ones((2, 4, 2, 6))), r"B must have shape \(2, 5, groups, N\)"),
        (dict(C=np.ones((2, 5, 2, 7))), r"C must have shape \(2, 5, 2, 6\)"),
        (dict(dt=np.ones((2, 5))), r"dt must have shape \(2, 5, 4\)"),
        (dict(A=np.ones(3)), r"A must have shape \(4,\)"),
        (dict(D=np.ones((4, 2))), r"D must have shape \(4, 3\)"),
        (dict(seq_idx=np.ones((2, 4), int)), r"seq_idx must have shape \(2, 5\)"),
        (dict(gap=np.ones((2, 5, 4))), r"gap must have shape \(2, 5\)"),
        (dict(initial_states=np.ones((2, 4, 6, 3))), r"initial_states must have shape \(2, 4, 3, 6\)"),
        (dict(z=torch.ones(2, 5, 4, 3)), "all torch tensors"),
        (dict(chunk_size=0), "chunk_size must be a positive integer. Got 0 instead"),
        (dict(dt_limit=(1.0, 0.5)), r"dt_limit must be \(lowest, highest\)"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    good = dict(x=np.ones((2, 5, 4, 3)), dt=np.ones((2, 5, 4)), A=-np.ones(4))
    good |= dict(B=np.ones((2, 5, 2, 6)), C=np.ones((2, 5, 2, 6)))
    with pytest.raises(ValueError, match=message):
        ssd(**good | change)


def test_decays_given_apart_from_the_steps():
    """Each sample's own decay, as Mamba-3 has them, against the loop; in the reference, too."""
    found = problem(63, H=2, P=5, G=2, N=7)
    decay = -torch.rand(2, 63, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 3
    decay[:, 20], decay[:, 40] = 0.0, -1e6
    names = ("x", "dt", "B", "C", "decay", "initial_states")
    given = [found["x"], found["dt"].abs(), found["B"], found["C"], decay, found["initial_states"]]

    def explicit(x, dt, B, C, decay, h):
        outputs = []
        for k in range(63):
            h = torch.exp(decay[:, k])[..., None, None] * h
            h = h + dt[:, k, :, None, None] * x[:, k, :, :, None] * B[:, k, :, None, :]
            outputs.append((h * C[:, k, :, None, :]).sum(-1))
        return torch.stack(outputs, dim=1), h

    results = {}
    for backend in (None, *BACKENDS):
        inputs = [a.clone().requires_grad_() for a in given]
        x, dt, B, C, decays, h = inputs
        options = dict(initial_states=h, return_final_states=True, decay=decays, backend=backend)
        y, final = explicit(*inputs) if backend is None else ssd(x, dt, None, B, C, **options)
        results[backend] = y, final, *torch.autograd.grad((y * y).sum() + final.sin().sum(), inputs)
    for backend in BACKENDS:
        for name, got, expected in zip(("y", "final", *names), results[backend], results[None], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    x, dt, B, C, decays, h = (a.numpy() for a in given)
    y, final = ssd(x, dt, None, B, C, initial_states=h, return_final_states=True, decay=decays, backend="reference")
    np.testing.assert_allclose(y, results[None][0].detach(), atol=1e-12)
    np.testing.assert_allclose(final, results[None][1].detach(), atol=1e-12)
    for A, rates, amount in ((None, None, "neither"), (np.ones(2), decays, "both")):
        with pytest.raises(ValueError, match=f"one of A and decay.*{amount}"):
            ssd(x, dt, A, B, C, decay=rates)
