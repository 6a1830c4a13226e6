"""Two processes on a CPU (gloo) give what one gives: uneven batches, ragged series, masks, chunks, errors, Ctrl-C."""

import os
import signal

import numpy as np
import pytest
import torch

from statespace import S4DRegressor
from statespace.models import ResidualStack
from statespace.training import (
    Callback,
    Checkpoint,
    DivergenceError,
    FabricDevices,
    SeriesBatches,
    count_devices,
    fit,
    fit_in_processes,
    target_weights,
)

pytest.importorskip("lightning")
CPU = torch.device("cpu")


def squared_error(model, batch):
    output, _ = model(batch["x"], batch.get("dt"), lengths=batch["lengths"])
    weights = target_weights(batch)
    return (weights * torch.where(weights > 0, output - batch["y"], 0.0).square()).sum(), weights.sum()


def make_data(n=13, seed=0, per_step=True):
    """Thirteen in batches of four: the last batch has one series, and one process none."""
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(k, 2)) for k in rng.integers(3, 30, size=n)]
    gaps = [np.concatenate([[1.0], rng.exponential(size=len(x) - 1)]) for x in X]
    Y = [np.where(rng.random((len(x), 1)) < 0.4, np.nan, np.cumsum(x[:, :1], axis=0)) for x in X]
    y = np.array([np.sum(x[:, :1], axis=0) for x in X])
    return SeriesBatches(X, gaps, Y if per_step else y, dtype=torch.float64, weights=rng.uniform(0, 2, size=n))


def make_model(**options):
    torch.manual_seed(0)
    return ResidualStack(2, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}, **options).double()


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def options(**others):
    return {"max_epochs": 2, "batch_size": 4, "generator": torch.Generator().manual_seed(1)} | others


def in_two(model, data, loss=squared_error, **others):
    """By fork, which the tests can afford; the estimator below starts its processes as a user's would."""
    return fit_in_processes(2, model, data, loss, start_method="fork", **options(**others))


class Stop(Callback):
    """Stop after some epochs, and remember them."""

    def __init__(self, after):
        self.after, self.seen = after, []

    def on_epoch_end(self, epoch, history, model):
        self.seen.append(epoch)
        return epoch + 1 == self.after


@pytest.mark.parametrize("case", ["steps", "series", "chunks"])
def test_two_processes_give_the_result_of_one(case):
    per_step, chunk_length = case != "series", 7 if case == "chunks" else None
    pooling = None if per_step else "mean"
    alone, together = make_model(pooling=pooling), make_model(pooling=pooling)
    validation = make_data(5, seed=1, per_step=per_step)
    others = {"validation": validation, "chunk_length": chunk_length}
    history = fit(alone, make_data(per_step=per_step), squared_error, **options(**others))
    same = in_two(together, make_data(per_step=per_step), **others)
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(same.loss, history.loss, rtol=1e-12)
    np.testing.assert_allclose(same.validation_loss, history.validation_loss, rtol=1e-12)


def test_a_callback_stops_all_processes_and_a_checkpoint_goes_on(tmp_path):
    whole, model = make_model(), make_model()
    stop = Stop(after=1)
    checkpoint = Checkpoint(tmp_path / "training", resume=True)
    history = in_two(model, make_data(), max_epochs=3, callbacks=[stop], checkpoint=checkpoint)
    assert (history.stopped, len(history.loss), stop.seen) == ("callback", 1, [0])
    resumed = in_two(model, make_data(), max_epochs=3, checkpoint=checkpoint)
    fit(whole, make_data(), squared_error, **options(max_epochs=3))
    assert len(resumed.loss) == 3
    torch.testing.assert_close(weights(model), weights(whole), rtol=1e-9, atol=1e-12)


class Interrupt(Callback):
    """Ctrl-C, pressed at the process that waits for the others."""

    def on_step_end(self, step, loss, model):
        if step == 5:
            os.kill(os.getppid(), signal.SIGINT)


def test_ctrl_c_ends_all_processes_with_the_best_weights():
    before = signal.getsignal(signal.SIGINT)
    model = make_model()
    with pytest.warns(UserWarning, match="training was interrupted"):
        history = in_two(model, make_data(), max_epochs=100_000, callbacks=[Interrupt()])
    assert history.stopped == "interrupted"
    assert 0 < len(history.loss) < 100_000
    assert history.best_epoch >= 0
    assert signal.getsignal(signal.SIGINT) is before


def diverging(model, batch):
    total, count = squared_error(model, batch)
    return total * torch.inf, count


def failing(model, batch):
    raise TypeError("a loss that fails")


def test_errors_come_back():
    model = make_model()
    start = weights(model).clone()
    with pytest.raises(DivergenceError, match="the loss became inf in epoch 1 of 2"):
        in_two(model, make_data(), loss=diverging)
    torch.testing.assert_close(weights(model), start, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"(?s)processes has failed.*a loss that fails"):
        in_two(model, make_data(), loss=failing)
    with pytest.raises(ValueError, match="the callbacks cannot be sent to other processes"):
        in_two(model, make_data(), callbacks=[lambda epoch, history, model: None])


def test_an_estimator_starts_processes_that_read_a_memory_map(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(11, 8, 1)).astype(np.float32)
    Y = np.cumsum(X[..., 0], axis=1)
    Y[rng.random(Y.shape) < 0.3] = np.nan
    np.save(tmp_path / "x.npy", X)
    kept = np.load(tmp_path / "x.npy", mmap_mode="r")
    shared = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "batch_size": 4, "dropout": 0.0}
    alone = S4DRegressor(**shared, random_state=0, device="cpu").fit(kept, Y)
    together = S4DRegressor(**shared, random_state=0, device="cpu", n_devices=2).fit(kept, Y)
    np.testing.assert_allclose(together.predict(kept), alone.predict(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.history_, alone.history_, rtol=1e-5)


def test_shares_have_every_series_once():
    class Two:
        device, world_size = CPU, 2

        def __init__(self, rank):
            self.global_rank = rank

    indices = np.array([4, 2, 9])
    assert [FabricDevices(Two(rank)).share(indices).tolist() for rank in (0, 1)] == [[4, 9], [2]]


@pytest.mark.parametrize("n_devices", [0, -1, 1.5, True, "all", None])
def test_bad_numbers_of_devices(n_devices):
    with pytest.raises(ValueError, match="n_devices must be"):
        S4DRegressor(n_devices=n_devices, device="cpu").fit([[1.0, 2.0]], [1.0])


def test_how_many_devices():
    assert count_devices("auto", CPU) == 1
    with pytest.raises(ValueError, match="needs device='cpu' or 'cuda'"):
        count_devices(2, torch.device("mps"))
    with pytest.raises(ValueError, match="partial_fit trains on one device"):
        S4DRegressor(n_devices=2, device="cpu").partial_fit([[1.0, 2.0]], [1.0])
