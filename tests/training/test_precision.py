"""bfloat16 for the products of matrices alone: what is learned, and what of every layer stays in float32."""

import math

import numpy as np
import pytest
import torch

from statespace import SSMForecaster, SSMRegressor
from statespace.layers.registry import LAYERS
from statespace.training import devices, loop
from tests.training.test_loop import generator, make_data, make_model, squared_error

# Layers with wide products of matrices, which a shorter type speeds up. TIDES' are as narrow as its states.
MIXED = {"attention", "channel_mixing", "deltanet", "mamba", "mamba2", "mamba3", "rwkv"}


def parts(state):
    return [state] if isinstance(state, torch.Tensor) else [x for part in state for x in parts(part)]


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_shortens_products_and_neither_steps_nor_states(name):
    torch.manual_seed(0)
    options = {"zero_init": False} if name in ("rwkv", "channel_mixing") else {}
    layer = LAYERS[name](8, backend="pytorch", **options)
    u, dt = torch.randn(2, 37, 8), torch.rand(2, 37) + 0.1
    u[1, 30:], dt[1, 30:] = 0, 0
    expected, state = layer(u, dt)
    exact = torch.autograd.grad(expected.square().mean(), list(layer.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        y, final = layer(u, dt)
        again, after = layer(u, dt, tuple(parts(final)) if isinstance(final, tuple) else final)
    found = torch.autograd.grad(y.square().mean(), list(layer.parameters()))
    assert y.dtype == again.dtype == torch.float32
    assert {x.dtype for x in (*parts(final), *parts(after), *found)} == {torch.float32}
    # Rounded once to eight bits, here and there; or not at all.
    largest = float((y - expected).detach().abs().max() / expected.detach().abs().max())
    assert (1e-4 < largest < 0.03) if name in MIXED else largest < 1e-6
    for got, kept in zip(parts(final), parts(state), strict=True):
        torch.testing.assert_close(got, kept, rtol=0, atol=0.02 * float(kept.abs().max()))
    for got, one in zip(found, exact, strict=True):
        assert float((got - one).norm()) <= 0.05 * float(one.norm()) + 1e-12


@torch.no_grad()
def test_on_the_cpu_layers_keep_to_its_loops():
    layer, u = LAYERS["mamba"](8), torch.randn(2, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(u)
    torch.testing.assert_close(y, layer(u)[0], rtol=0, atol=0)


def test_training_in_bfloat16_learns_as_in_float32():
    losses = {}
    for precision in ("float32", "bfloat16"):
        model, seen = make_model(), []

        def noting(model, batch, seen=seen):
            y, _ = model(batch["x"], batch.get("dt"))
            seen.append(y.dtype)
            return squared_error(model, batch)

        options = {"max_epochs": 15, "batch_size": 4, "learning_rate": 0.03, "precision": precision}
        history = loop.fit(model, make_data(), noting, validation=make_data(3), generator=generator(), **options)
        losses[precision] = history.loss[-1]
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        # The loss never sees a short number, whatever the model is made of.
        assert set(seen) == {torch.float32}
        assert not model._forward_hooks
        assert history.loss[-1] < 0.7 * history.loss[0]
    assert losses["float32"] != losses["bfloat16"]
    assert math.isclose(*losses.values(), rel_tol=0.1)


def test_unknown_precisions_are_refused():
    with pytest.raises(ValueError, match=r"precision must be 'float32' or 'bfloat16'\. Got 'half' instead\."):
        loop.fit(make_model(), make_data(), squared_error, precision="half")
    with pytest.raises(ValueError, match="precision must be"):
        SSMRegressor(precision="half").fit(np.ones((4, 9)), np.arange(4.0))


def test_estimators_take_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8, 20))
    options = {"d_model": 4, "n_layers": 1, "max_epochs": 2, "device": "cpu", "random_state": 0}
    found = [SSMRegressor(precision=p, **options).fit(X, X[:, -1]).predict(X) for p in ("float32", "bfloat16")]
    assert not np.array_equal(*found)
    np.testing.assert_allclose(*found, atol=0.1)
    options |= {"windows_per_epoch": 8, "max_epochs": 1}
    SSMForecaster(precision="bfloat16", **options).fit(np.sin(np.arange(40.0)), fh=[1, 2]).predict()


def test_auto_says_which_device_it_takes(monkeypatch, capsys):
    assert devices.choose_device("auto", verbose=1) == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert capsys.readouterr().out.startswith("device='auto': training on c")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr(devices, "reason_against", lambda *arguments: None)
    devices.choose_device("auto", verbose=1)
    monkeypatch.setattr(devices, "reason_against", lambda *arguments: "No module named 'triton' (pip install it)")
    devices.choose_device("auto", verbose=1)
    assert capsys.readouterr().out.splitlines() == [
        "device='auto': training on cuda, a GPU",
        "device='auto': training on cuda, a GPU; torch's own, slower operations in the place of Triton's kernels: "
        "No module named 'triton' (pip install it)",
    ]


def test_a_network_answers_in_float64_on_a_cpu_and_in_float32_on_a_gpu(monkeypatch):
    kinds = {name: devices.answering_type(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert kinds == {"cpu": torch.float64, "cuda": torch.float32, "mps": torch.float32}
    rng = np.random.default_rng(0)
    X, times = rng.normal(size=(6, 30)), np.cumsum(rng.uniform(0.1, 2, size=(6, 30)), axis=1)
    regressor = SSMRegressor(d_model=4, n_layers=1, max_epochs=1, device="cpu", random_state=0).fit(X, X[:, -1], times)
    expected, types, copy = regressor.predict(X, times), [], SSMRegressor._copy_model
    monkeypatch.setattr("statespace.deep.answering_type", lambda device: kinds["cuda"])
    monkeypatch.setattr(SSMRegressor, "_copy_model", lambda self, *to: types.append(to[1]) or copy(self, *to))
    found = regressor.predict(X, times)
    assert types == [torch.float32]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert (found != expected).any()
