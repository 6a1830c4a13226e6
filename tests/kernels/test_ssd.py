"""Both fast forms of state-space duality against the reference: outputs, final states, every gradient by name."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, ssd

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
