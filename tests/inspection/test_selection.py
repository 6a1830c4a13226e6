"""What layers choose against what they then do."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from statespace import MambaClassifier, S4DRegressor, SSMRegressor
from statespace.inspection import selection
from statespace.layers import RWKV, TIDES, Attention, ChannelMixing, DeltaNet, Mamba, Mamba2, Mamba3

TINY = {"d_model": 4, "n_layers": 2, "max_epochs": 1, "random_state": 0}
T = np.cumsum(np.random.default_rng(0).exponential(size=(6, 11)) + 0.1, axis=1)
X = np.random.default_rng(1).normal(size=(6, 11))


def made(kind, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(8, **options).double()


def record():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, 9, 8, dtype=torch.float64, generator=generator)
    return u, torch.rand(2, 9, dtype=torch.float64, generator=generator) + 0.2


# The state that decays, and how the sizes of its entries are summed up for "kept".
DECAYS = [
    (Mamba, {}, lambda state: state[1], lambda ratio: ratio.mean(-1)),
    (Mamba2, {"d_state": 4}, lambda state: state[1], lambda ratio: ratio.mean((-1, -2))),
    (Mamba3, {"d_state": 4, "rope_fraction": 0.0}, lambda state: state[0], lambda ratio: ratio.mean((-1, -2))),
    (TIDES, {"d_state": 4, "init_scale": 0.5}, torch.view_as_complex, torch.abs),
]


@pytest.mark.parametrize(("kind", "options", "part", "mean"), DECAYS, ids=[case[0].__name__ for case in DECAYS])
def test_kept_is_what_a_step_leaves_of_the_state(kind, options, part, mean):
    layer, (u, dt) = made(kind, **options), record()
    kept = layer.selection(u, dt)["kept"]
    state = layer.initial_state(2)
    with torch.no_grad():
        for k in range(u.shape[1]):
            # A state that differs by 1 before the step differs by what is kept after it.
            other = tuple(s.clone() for s in state) if isinstance(state, tuple) else state.clone()
            part(other)[...] += 1.0
            _, after = layer.step(u[:, k], other, dt[:, k])
            _, state = layer.step(u[:, k], state, dt[:, k])
            torch.testing.assert_close(mean(part(after) - part(state)), kept[:, k], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        (Mamba, {}, {"step", "kept", "gate"}), (Mamba2, {}, {"step", "kept", "gate"}),
        (Mamba3, {}, {"step", "kept", "trapezoid", "gate"}),
        (Mamba3, {"mimo_rank": 2}, {"step", "kept", "trapezoid", "gate"}),
        (RWKV, {"zero_init": False}, {"kept", "key", "gate"}), (DeltaNet, {}, {"written"}),
        (DeltaNet, {"gated": True}, {"written", "kept", "gate"}), (TIDES, {}, {"kept"}),
        (ChannelMixing, {"zero_init": False}, {"gate"}),
    ],
)  # fmt: skip
def test_ranges_and_gaps(kind, options, names):
    layer, (u, dt) = made(kind, **options), record()
    chosen, doubled = layer.selection(u, dt), layer.selection(u, 2 * dt)
    assert set(chosen) == names
    assert all(part.shape[:2] == u.shape[:2] for part in chosen.values())
    if "step" in names:
        torch.testing.assert_close(doubled["step"], 2 * chosen["step"])
        assert bool((chosen["step"] > 0).all())
    if "kept" in names:
        assert bool(((chosen["kept"] > 0) & (chosen["kept"] <= 1)).all())
        assert bool((doubled["kept"] <= chosen["kept"]).all())
    if "kept" in names and kind is not Mamba:
        # A mean of powers is no power.
        torch.testing.assert_close(doubled["kept"], chosen["kept"] ** 2)
    if "gate" in names:
        torch.testing.assert_close(doubled["gate"], chosen["gate"])
    with pytest.raises(ValueError, match="must be positive"):
        layer.selection(u, 0 * dt)


def test_steps_and_gates_of_mamba():
    layer, (u, dt) = made(Mamba), record()
    chosen = layer.selection(u, dt)
    torch.testing.assert_close(chosen["step"], layer.steps(u, dt))
    torch.testing.assert_close(chosen["gate"], F.silu(u @ layer.in_proj.weight[16:].T))


def test_what_deltanet_writes():
    layer, (u, dt) = made(DeltaNet, n_heads=2, d_conv=None), record()
    written = layer.selection(u, dt)["written"]
    with torch.no_grad():
        _, before = layer(u[:, :4], dt[:, :4])
        _, after = layer.step(u[:, 4], before, dt[:, 4])
        k = F.normalize(F.silu(layer.in_proj(u[:, 4])[:, 8:16]).view(2, 2, 4), dim=-1)
    # What the memory says of the key moves by this share towards the value.
    said, says = ((memory * k.unsqueeze(-1)).sum(-2) for memory in (before, after))
    with torch.no_grad():
        v = F.silu(layer.in_proj(u[:, 4])[:, 16:24]).view(2, 2, 4)
    torch.testing.assert_close(says - said, written[:, 4].unsqueeze(-1) * (v - said))


def test_of_an_estimator():
    clf = MambaClassifier(**TINY, d_state=4).fit(X, [0, 1] * 3, times=T)
    tables = selection(clf, [X[0], X[1, :7]], times=[T[0], T[1, :7]], layer=1)
    assert [len(table) for table in tables] == [11, 7]
    np.testing.assert_array_equal(tables[1].index, T[1, :7])
    # Of a record that is cut nothing changes, and of a batch nothing depends on the others.
    whole = selection(clf, X[:2], times=T[:2], layer=1)
    pd.testing.assert_frame_equal(whole[1].iloc[:7], tables[1])
    first = clf.model_.blocks[0]
    with torch.no_grad():
        u = torch.from_numpy(clf._encode(X[:1, :, None])).float()
        gaps = torch.from_numpy(np.diff(T[:1], prepend=T[:1, :1] - clf.time_scale_) / clf.time_scale_).float()
        h, _ = first(clf.model_.encoder(u), gaps)
        expected = clf.model_.blocks[1].mixer.steps(clf.model_.blocks[1].norm(h), gaps)[0]
    np.testing.assert_allclose(tables[0]["step"], expected, rtol=2e-5)


def test_on_a_slower_scale():
    options = {"layer": "mamba", "layer_options": {"d_state": 4}, "backbone": "sashimi"}
    for bidirectional, rows in ((False, [3, 7]), (True, [3, 7, 10])):
        reg = SSMRegressor(
            **TINY | {"n_layers": 1}, **options, backbone_options={"factors": (4,)}, bidirectional=bidirectional
        ).fit(X, X[:, 0], times=T)
        assert list(selection(reg, X[:1], times=T[:1], layer=1)[0].index) == list(T[0, rows])
    reg.set_params(bidirectional=False).fit(X, X[:, 0], times=T)
    assert selection(reg, [X[0, :3]], times=[T[0, :3]], layer=1)[0]["step"].shape == (0, 16)


def test_wrong_input():
    lti = S4DRegressor(**TINY, d_state=4).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="linear_system gives it"):
        selection(lti, X)
    with pytest.raises(ValueError, match="neither steps nor gates"):
        made(Attention).selection(torch.ones(1, 2, 8, dtype=torch.float64))
    with pytest.raises(TypeError, match="deep regressor or classifier"):
        selection(made(Mamba), X)
