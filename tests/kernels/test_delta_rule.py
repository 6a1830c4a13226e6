"""The fast backends against the recurrence: outputs, final state, every gradient by name, hard decays, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import delta_rule

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
