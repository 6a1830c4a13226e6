"""Records in chunks with carried state: the whole where a chunk holds it, the same values and truncated gradients."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from statespace import MambaRegressor, S4DClassifier, S4DRegressor, SSMRegressor
from statespace.layers import LAYERS
from statespace.models import ResidualStack
from statespace.training import Callback, SeriesBatches, fit, target_weights
from statespace.training.loop import evaluate
from statespace.training.records import Carried, count_steps, spans


def squared_error(model, batch):
    output, _ = model(batch["x"], batch.get("dt"), lengths=batch["lengths"])
    weights = target_weights(batch)
    return (weights * torch.where(weights > 0, output - batch["y"], 0.0).square()).sum(), weights.sum()


def make_data(lengths=(20, 13, 7, 20, 1), seed=0):
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(n, 1)) for n in lengths]
    gaps = [np.concatenate([[1.0], rng.exponential(size=n - 1)]) for n in lengths]
    return SeriesBatches(X, gaps, [np.cumsum(x, axis=0) for x in X], dtype=torch.float64)


def make_model(layer="s4d", **options):
    torch.manual_seed(0)
    return ResidualStack(1, 1, d_model=8, n_layers=2, layer=layer, **options).double()


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def train(model, data=None, **options):
    defaults = {"max_epochs": 2, "batch_size": 3, "learning_rate": 0.02, "validation": make_data(seed=1)}
    generator = torch.Generator().manual_seed(0)
    return fit(model, make_data() if data is None else data, squared_error, generator=generator, **(defaults | options))


def test_a_chunk_that_holds_the_records_is_plain_back_propagation():
    whole, chunked, cut = make_model(dropout=0.1), make_model(dropout=0.1), make_model(dropout=0.1)
    history, same, other = train(whole), train(chunked, chunk_length=20), train(cut, chunk_length=6)
    assert history == same
    torch.testing.assert_close(weights(chunked), weights(whole), rtol=0, atol=0)
    assert len(other.loss) == 2
    assert not torch.equal(weights(cut), weights(whole))


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_values_are_those_of_the_whole_whatever_the_chunks(layer):
    model, data = make_model(layer), make_data()
    expected = evaluate(model, data, squared_error)
    for chunk_length in (1, 6, 20):
        found = evaluate(model, data, squared_error, chunk_length=chunk_length, batch_size=3)
        assert found == pytest.approx(expected, rel=1e-9)


def test_the_gradient_ends_where_a_chunk_begins():
    model = make_model()
    x = torch.randn(2, 8, 1, dtype=torch.float64, requires_grad=True)
    carried = Carried(model)
    carried(x[:, :5])
    output, _ = carried(x[:, 5:])
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient[:, :5].abs().max() == 0
    assert (gradient[:, 5:].abs() > 0).all()
    torch.testing.assert_close(output, model(x)[0][:, 5:])


def test_each_chunk_is_a_step_and_the_rates_fall_to_the_end():
    seen = []

    class Rates(Callback):
        def on_step_end(self, step, loss, model):
            seen.append(step)

    lengths = np.array([20, 13, 7, 20, 1])
    assert count_steps(lengths, 3) == 2
    assert count_steps(lengths, 3, 6) == 3 + 4
    assert spans(13, 6) == [(0, 6), (6, 12), (12, 18)]
    train(make_model(), chunk_length=6, callbacks=[Rates()], validation=None)
    assert seen == list(range(14))


def test_steps_without_targets_carry_the_state_and_are_no_steps():
    data = make_data(lengths=(12, 12))
    data._targets[:6] = torch.nan
    data._targets[12:18] = torch.nan
    seen = []

    class Losses(Callback):
        def on_step_end(self, step, loss, model):
            seen.append(loss)

    options = {"callbacks": [Losses()], "validation": None, "max_epochs": 1, "learning_rate": 0.0, "weight_decay": 0.0}
    train(make_model(), data, chunk_length=6, ssm_learning_rate=0.0, **options)
    train(make_model(), data, ssm_learning_rate=0.0, **options)
    assert len(seen) == 2
    assert seen[0] == pytest.approx(seen[1], rel=1e-12)


def test_memory_does_not_grow_with_the_record(tmp_path):
    """Anonymous memory, which leaves out the pages of the file itself."""

    def memory():
        return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    class Peak(Callback):
        def on_fit_begin(self, history, model):
            self.start = self.peak = memory()

        def on_step_end(self, step, loss, model):
            self.peak = max(self.peak, memory())

    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc, which this system does not have")
    peaks = []
    for n in (20_000, 200_000):
        X = np.lib.format.open_memmap(tmp_path / f"{n}.npy", "w+", np.float32, (1, n, 1))
        X[0, :, 0] = np.sin(np.arange(n))
        peak = Peak()
        model = S4DRegressor(
            d_model=4, n_layers=1, d_state=4, chunk_length=2000, max_epochs=1, validation_fraction=0, random_state=0,
            callbacks=[peak], device="cpu",
        )  # fmt: skip
        model.fit(X, X[:, :, 0])
        peaks.append(peak.peak - peak.start)
    # 180,000 steps in float32 have 3 MB for one array of features alone, and whole would need a hundred of them.
    assert peaks[1] < peaks[0] + 10


@pytest.mark.parametrize("make", [MambaRegressor, S4DClassifier])
def test_estimators_train_in_chunks(make):
    rng = np.random.default_rng(0)
    X = [rng.normal(size=n) for n in (30, 22, 30, 17, 25)]
    y = [np.cumsum(x) > 0 for x in X] if make is S4DClassifier else [np.cumsum(x) for x in X]
    options = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    whole, same = make(**options).fit(X, y), make(chunk_length=30, **options).fit(X, y)
    for row, other in zip(whole.predict(X), same.predict(X), strict=True):
        np.testing.assert_array_equal(row, other)
    cut = make(chunk_length=7, **options).fit(X, y)
    assert cut.history_["loss"].iloc[-1] < whole.history_["loss"].iloc[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_length": 0}, "chunk_length == 0"),
        ({"bidirectional": True}, "bidirectional=True"),
        ({"alphabet": "dna", "reverse_complement": "augment"}, "reverse_complement='augment'"),
        ({"per": "series"}, "a target for every step"),
    ],
)
def test_what_cannot_be_cut_is_refused(options, message):
    options = {"chunk_length": 3} | options
    X = ["ACGT", "GGTA"] if "alphabet" in options else [[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0]]
    y = [1.0, 2.0] if options.pop("per", None) else [[1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match=message):
        SSMRegressor("s4d", d_model=4, n_layers=1, max_epochs=1, device="cpu", **options).fit(X, y)
