"""Systems of layers as LinearSystem: their kernels and simulations against what the layers compute."""

import numpy as np
import pytest
import torch

from statespace import S4DRegressor
from statespace.inspection import layer_kernel, linear_system
from statespace.layers import DSS, H3, S4, S4D, S5, Mamba
from statespace.layers.diagonal import run

LAYERS = [
    (S4D, {}), (S4D, {"init": "real"}), (S4D, {"discretization": "bilinear"}), (DSS, {}), (DSS, {"kernel": "softmax"}),
    (S4, {"d_state": 8}), (S4, {"d_state": 6, "rank": 2, "measure": "legt"}), (S5, {}), (S5, {"n_blocks": 2}),
]  # fmt: skip
IDS = [f"{kind.__name__}-{i}" for i, (kind, _) in enumerate(LAYERS)]


def made(kind, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(3, **({"d_state": 8, "dt_min": 0.05, "dt_max": 0.3} | options)).double()


@pytest.mark.parametrize(("kind", "options"), LAYERS, ids=IDS)
def test_the_kernel_is_the_layers_answer_to_an_impulse(kind, options):
    layer, gap, length = made(kind, **options), 0.7, 40
    whole = layer_kernel(layer, length, None, gap=gap)
    for j in range(3):
        u = torch.zeros(1, length, 3, dtype=torch.float64)
        u[0, 0, j] = 1.0
        with torch.no_grad():
            y = layer(u, torch.full((1, length), gap, dtype=torch.float64))[0][0].numpy()
        np.testing.assert_allclose(whole[:, :, j], y, rtol=1e-9, atol=1e-11 * np.abs(y).max())
        own = layer_kernel(layer, length, j, gap=gap)
        np.testing.assert_allclose(own, y[:, j], rtol=1e-9, atol=1e-11 * np.abs(y).max())


@pytest.mark.parametrize(("kind", "options"), [(S4D, {}), (DSS, {}), (S5, {})])
def test_simulation_on_irregular_gaps_is_the_layer(kind, options):
    layer, rng = made(kind, **options), np.random.default_rng(0)
    gaps = rng.exponential(size=30) + 1e-3
    u = rng.normal(size=(30, 3))
    # The layer holds a sample over the gap before it, from the time of its state; a system over the gap behind it.
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    held = linear_system(layer, None)
    y = held.simulate(np.concatenate([u, u[-1:]]), times=times).output[1:]
    with torch.no_grad():
        expected = layer(torch.from_numpy(u)[None], torch.from_numpy(gaps)[None])[0][0].numpy()
    # D passes the sample of its own time on: u_k here, u_{k+1} there.
    shifted = np.concatenate([u[1:], u[-1:]])
    np.testing.assert_allclose(y - shifted @ held.D.T + u @ held.D.T, expected, rtol=1e-9, atol=1e-11)


def test_poles_and_units():
    layer = made(S4D, d_state=8)
    delta, A = torch.exp(layer.log_step).detach(), -torch.exp(layer.log_A_real) + 1j * layer.A_imag
    poles = (delta[1] * A[1]).detach().numpy()
    expected = np.sort_complex(np.concatenate([poles, poles.conj()]))
    np.testing.assert_allclose(np.sort_complex(linear_system(layer, 1).poles), expected, rtol=1e-6)
    t = np.cumsum(np.random.default_rng(0).exponential(size=(8, 12)), axis=1)
    X = np.random.default_rng(1).normal(size=(8, 12))
    options = {"d_model": 4, "n_layers": 2, "d_state": 4, "max_epochs": 1, "random_state": 0}
    seconds = S4DRegressor(**options).fit(X, X[:, 0], times=1000 * t)
    hours = S4DRegressor(**options).fit(X, X[:, 0], times=t)
    slow, fast = (linear_system(reg, 2, layer=-1) for reg in (seconds, hours))
    np.testing.assert_allclose(1000 * slow.poles, fast.poles, rtol=1e-9)
    np.testing.assert_allclose(slow.gain, fast.gain, rtol=1e-9)
    unit = linear_system(hours.model_.blocks[1].mixer, 2)
    np.testing.assert_allclose(unit.poles, hours.time_scale_ * fast.poles, rtol=1e-12)


@pytest.mark.parametrize("kind", [S4D, S4, S5])
def test_the_other_direction(kind):
    layer, length = made(kind, bidirectional=True), 25
    u = torch.zeros(1, length, 3, dtype=torch.float64)
    u[0, 12, 1] = 1.0
    with torch.no_grad():
        y = layer(u)[0][0, :, 1].numpy()
    ahead, behind = (layer_kernel(layer, 13, 1, backward=backward) for backward in (False, True))
    np.testing.assert_allclose(y[12:], ahead + behind[0] * (np.arange(13) == 0), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(y[:13], behind[::-1] + ahead[0] * (np.arange(13) == 12), rtol=1e-9, atol=1e-11)


def test_the_systems_of_h3():
    layer = made(H3, d_state=6, d_shift=2)
    rate, readout = layer._system()
    u = torch.zeros(1, 3, 20, dtype=torch.float64)
    u[..., 0] = 1.0
    options = {"discretization": "zoh", "backend": None}
    with torch.no_grad():
        y, _ = run(u, None, 1.0, None, rate, readout, layer.D, None, **options)
    np.testing.assert_allclose(layer_kernel(layer, 20, 2), y[0, 2].numpy(), rtol=1e-9, atol=1e-12)


def test_wrong_input():
    with pytest.raises(ValueError, match="Mamba has no linear system"):
        linear_system(Mamba(4))
    with pytest.raises(ValueError, match="from 0 to 2"):
        linear_system(made(S4D), 3)
    with pytest.raises(ValueError, match="bidirectional=False"):
        linear_system(made(S4D), backward=True)
    with pytest.raises(ValueError, match="gap must be positive"):
        layer_kernel(made(S4D), 10, gap=0.0)
    with pytest.raises(ValueError, match="length must be"):
        layer_kernel(made(S4D), 0)
    reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1).fit(np.ones((4, 3)), np.arange(4.0))
    with pytest.raises(IndexError, match="has 1 layers"):
        linear_system(reg, layer=1)
