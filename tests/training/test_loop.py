"""The training loop: batches, rates, early stopping, and what is kept when training goes wrong."""

import math

import numpy as np
import pytest
import torch

from statespace.models import ResidualStack
from statespace.training import (
    DivergenceError,
    SeriesBatches,
    choose_batch_size,
    choose_device,
    fit,
    length_batches,
    loop,
    parameter_groups,
    warmup_cosine,
)


def make_data(n=12, length=9, seed=0):
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(length, 1)) for _ in range(n)]
    return SeriesBatches(inputs, targets=[np.cumsum(x, axis=0) for x in inputs])


def make_model():
    torch.manual_seed(0)
    return ResidualStack(1, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}, dropout=0.2)


def squared_error(model, batch):
    error = model(batch["x"], batch.get("dt"))[0] - batch["y"]
    known = ~batch["y"].isnan()
    return torch.where(known, error, 0).square().sum(), known.sum()


def generator():
    return torch.Generator().manual_seed(0)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_weights(model, expected):
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_training_lowers_the_loss_and_leaves_the_global_generator_alone():
    model = make_model()
    before = torch.get_rng_state()
    options = {"max_epochs": 15, "batch_size": 4, "learning_rate": 0.03}
    history = fit(model, make_data(), squared_error, generator=generator(), **options)
    assert history.loss[-1] < 0.7 * history.loss[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_the_same_generator_gives_the_same_numbers():
    runs = []
    for _ in range(2):
        model = make_model()
        torch.manual_seed(torch.seed())  # whatever the global state is
        history = fit(model, make_data(), squared_error, max_epochs=3, batch_size=5, generator=generator())
        runs.append((history.loss, weights(model)))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_early_stopping_keeps_the_best_weights(monkeypatch):
    scores = iter([3.0, 1.0, 2.0, 1.5, 1.2, 0.1])
    monkeypatch.setattr(loop, "evaluate", lambda *args, **kwargs: next(scores))
    seen = []
    model = make_model()
    history = fit(
        model, make_data(), squared_error, max_epochs=20, patience=3, validation=make_data(3), generator=generator(),
        callbacks=[lambda epoch, history, model: seen.append(weights(model))],
    )  # fmt: skip
    assert (history.stopped, history.best_epoch, len(history.loss)) == ("early", 1, 5)
    assert_weights(model, seen[1])
    assert not torch.equal(seen[1]["head.weight"], seen[-1]["head.weight"])


def test_a_callback_stops():
    history = fit(
        make_model(), make_data(), squared_error, max_epochs=9, callbacks=[lambda epoch, history, model: epoch == 1]
    )
    assert (history.stopped, len(history.loss)) == ("callback", 2)


def failing(at_call, failure):
    """The squared error, which at its call number ``at_call`` fails by ``failure(sum)``."""
    calls = []

    def loss(model, batch):
        total, count = squared_error(model, batch)
        calls.append(1)
        return (failure(total) if len(calls) == at_call else total), count

    return loss


def interrupt(total):
    raise KeyboardInterrupt


@pytest.mark.parametrize("failure", [lambda total: total * math.nan, lambda total: total / 0], ids=["nan", "inf"])
def test_a_loss_that_is_not_finite_says_where_and_keeps_the_best(failure):
    model, seen = make_model(), []
    with pytest.raises(DivergenceError, match=r"in epoch 3 of 8\. Lower learning_rate \(now 0.01\).*of epoch [12]"):
        fit(
            model, make_data(), failing(5, failure), max_epochs=8, batch_size=6, learning_rate=0.01,
            generator=generator(), callbacks=[lambda epoch, history, model: seen.append(weights(model))],
        )  # fmt: skip
    assert len(seen) == 2
    best = seen[1] if torch.equal(model.state_dict()["head.weight"], seen[1]["head.weight"]) else seen[0]
    assert_weights(model, best)


def test_a_gradient_that_is_not_finite_is_refused_too():
    # sqrt at 0 has a finite value and an infinite slope.
    with pytest.raises(DivergenceError, match=r"gradient of (nan|inf)"):
        fit(make_model(), make_data(), failing(1, lambda total: (total * 0).sqrt() + total), generator=generator())


def test_divergence_before_an_epoch_is_complete_keeps_the_first_weights():
    model = make_model()
    expected = weights(model)
    with pytest.raises(DivergenceError, match=r"epoch 1 of .* those before training"):
        fit(model, make_data(), failing(2, lambda total: total * math.nan), batch_size=4, generator=generator())
    assert_weights(model, expected)


def test_ctrl_c_keeps_the_best_weights_and_warns():
    model, seen = make_model(), []
    with pytest.warns(UserWarning, match=r"interrupted in epoch 4 of 50\. The best weights so far, of epoch 3"):
        history = fit(
            model, make_data(), failing(7, interrupt), batch_size=6, generator=generator(),
            callbacks=[lambda epoch, history, model: seen.append(weights(model))],
        )  # fmt: skip
    assert (history.stopped, history.best_epoch) == ("interrupted", 2)
    assert_weights(model, seen[2])


def test_targets_that_are_not_known_carry_no_loss():
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(6, 1)) for _ in range(2)]
    targets = [inputs[0].copy(), np.full((6, 1), np.nan)]
    history = fit(make_model(), SeriesBatches(inputs, targets=targets), squared_error, max_epochs=2, batch_size=1)
    assert np.isfinite(history.loss).all()
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(make_model(), SeriesBatches(inputs[1:], targets=targets[1:]), squared_error)


def rates_by_name(model, **options):
    """(rate, decay) of every parameter, by name."""
    options = {"learning_rate": 0.1, "ssm_learning_rate": 0.01, "weight_decay": 0.5} | options
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, **options)
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == len(names)
    return found


def test_the_dynamics_have_a_rate_of_their_own_and_no_decay():
    found = rates_by_name(make_model())
    for name in ("log_step", "log_A_real", "A_imag", "B"):
        assert found.pop(f"blocks.0.mixer.{name}") == (0.01, 0.0)
    for name in ("encoder.weight", "blocks.0.gate.weight", "blocks.0.mixer.C", "head.weight"):
        assert found.pop(name) == (0.1, 0.5)
    assert set(found.values()) == {(0.1, 0.0)}


def test_each_role_can_have_its_own_rate():
    found = rates_by_name(make_model(), ssm_learning_rate={"A": 0.02, "dt": 0.0})
    mixer = {name.removeprefix("blocks.0.mixer."): pair for name, pair in found.items() if "mixer" in name}
    assert mixer == {
        "log_A_real": (0.02, 0.0), "A_imag": (0.02, 0.0), "log_step": (0.0, 0.0), "B": (0.1, 0.0), "C": (0.1, 0.5),
        "D": (0.1, 0.0),
    }  # fmt: skip


def test_a_rate_of_zero_leaves_a_role_as_it_is():
    model = make_model()
    before = weights(model)
    options = {"max_epochs": 2, "learning_rate": 0.03, "ssm_learning_rate": {"A": 0.0, "B": 0.01, "dt": 0.01}}
    fit(model, make_data(), squared_error, generator=generator(), **options)
    moved = {name.split(".")[-1]: not torch.equal(value, before[name]) for name, value in model.state_dict().items()}
    assert not moved["log_A_real"]
    assert not moved["A_imag"]
    assert moved["B"]
    assert moved["log_step"]


def test_a_mark_may_hold_its_own_rate_factor_and_decay():
    layer = make_model().blocks[0].mixer
    layer.B._optim = {"group": "ssm", "role": "B", "lr_scale": 0.1}
    layer.C._optim = {"lr": 0.3, "weight_decay": 0.7}
    layer.D._optim = {"group": "ssm"}  # no role: the rate of A
    found = rates_by_name(layer, ssm_learning_rate={"A": 0.02, "B": 0.04})
    assert found["B"] == (pytest.approx(0.004), 0.0)
    assert found["C"] == (0.3, 0.7)
    assert found["D"] == (0.02, 0.0)


@pytest.mark.parametrize("rate", [{"C": 0.1}, {"A": -1.0}, {"A": None}, -0.1, math.nan, "slow", True])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match="ssm_learning_rate"):
        parameter_groups(make_model(), learning_rate=0.1, ssm_learning_rate=rate, weight_decay=0.0)


def test_divergence_names_the_rates_of_all_roles():
    with pytest.raises(DivergenceError, match=r"ssm_learning_rate \(now \{'A': 0.1\}\)"):
        fit(make_model(), make_data(), failing(1, lambda total: total * math.nan), ssm_learning_rate={"A": 0.1})


def test_the_schedule_rises_and_falls():
    factors = [warmup_cosine(50, 0.2)(k) for k in range(51)]
    assert max(factors) == factors[9] == 1.0
    assert np.all(np.diff(factors[:10]) > 0)
    assert np.all(np.diff(factors[10:]) < 0)
    assert factors[50] == pytest.approx(0, abs=1e-12)
    assert warmup_cosine(1)(0) == 1.0


def test_batches_hold_every_series_once_and_pad_little():
    lengths = np.random.default_rng(0).integers(1, 100, size=333)
    batches = list(length_batches(lengths, 8, generator()))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(333))
    padded = sum(lengths[b].max() * len(b) for b in batches)
    assert padded < 1.2 * lengths.sum()
    assert batches[0].tolist() != next(iter(length_batches(lengths, 8))).tolist()


def test_a_batch_pads_with_zero_gaps_and_zero_inputs():
    inputs = [np.ones((2, 1)), np.full((4, 1), 2.0)]
    data = SeriesBatches(inputs, gaps=[np.array([1.0, 3.0]), np.array([1.0, 0.5, 0.5, 2.0])], targets=inputs)
    batch = data.batch(np.array([0, 1]))
    assert batch["x"][..., 0].tolist() == [[1, 1, 0, 0], [2, 2, 2, 2]]
    assert batch["dt"].tolist() == [[1, 3, 0, 0], [1, 0.5, 0.5, 2]]
    assert batch["mask"].tolist() == [[True, True, False, False], [True] * 4]
    assert batch["y"][0, 2:].isnan().all()
    assert batch["lengths"].tolist() == [2, 4]
    window = data.batch(np.array([1]), start=1, stop=3)
    assert window["dt"].tolist() == [[0.5, 0.5]]


def test_gaps_of_one_are_a_regular_grid():
    inputs = [np.ones((3, 1)), np.ones((2, 1))]
    data = SeriesBatches(inputs, gaps=[np.ones(3), np.ones(2)])
    assert "dt" not in data.batch(np.array([0]))
    assert data.batch(np.array([0, 1]))["dt"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_devices(capsys):
    assert choose_device("auto", verbose=1).type in ("cpu", "cuda")
    assert "training on" in capsys.readouterr().out
    with pytest.raises(ValueError, match="device='abacus' cannot be used here"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="Use 'auto' or 'cpu'"):
            choose_device("cuda")


def test_few_series_have_small_batches():
    assert [choose_batch_size("auto", n) for n in (1, 39, 40, 100, 256, 10**6)] == [4, 4, 5, 12, 32, 32]
    assert choose_batch_size(100, 3) == 100


def test_an_automatic_batch_is_that_number_of_series():
    losses = []
    for batch_size in ("auto", 5):
        model = make_model()
        history = fit(model, make_data(40), squared_error, max_epochs=2, batch_size=batch_size, generator=generator())
        losses.append(history.loss)
    assert losses[0] == losses[1]
