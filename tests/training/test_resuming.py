"""Training that was cut off at any moment goes on to the same result."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from statespace import MambaClassifier, S4DRegressor
from statespace.models import ResidualStack
from statespace.persistence import FileError
from statespace.training import Checkpoint, RandomStrands, SeriesBatches, checkpoints, fit
from statespace.training.checkpoints import read_checkpoint, write_checkpoint
from tests.training.test_loop import generator, make_data, make_model, squared_error, weights

OPTIONS = {"max_epochs": 5, "batch_size": 5, "learning_rate": 0.02, "patience": 3}


def assert_same(history, expected):
    """The same losses, but for a last digit: products of matrices may round by where their operands lie."""
    assert (history.best_epoch, history.stopped) == (expected.best_epoch, expected.stopped)
    for name in ("loss", "validation_loss"):
        np.testing.assert_allclose(getattr(history, name), getattr(expected, name), rtol=1e-6)


def assert_weights(model, expected):
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


class Killed(BaseException):
    """What no handler of errors expects."""


def train(path=None, resume=True, **options):
    model = make_model()
    checkpoint = None if path is None else Checkpoint(path, resume, {"seed": 0})
    options = OPTIONS | options
    history = fit(
        model, make_data(), squared_error, validation=make_data(4, seed=1), generator=generator(),
        checkpoint=checkpoint, **options,
    )  # fmt: skip
    return model, history


@pytest.fixture(scope="module")
def whole():
    model, history = train()
    return weights(model), history


class AtLine:
    """Runs an action when so many lines of the training package have been run."""

    def __init__(self, number, action):
        self.number, self.action, self.seen = number, action, 0

    def __enter__(self):
        self.previous = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error):
        sys.settrace(self.previous)

    def _trace(self, frame, event, argument):
        if "statespace/training/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.seen += 1
            if self.seen == self.number:
                self.action()
        return self._trace


def kill():
    raise Killed


def n_lines(**options):
    with AtLine(-1, None) as counted:
        train(**options)
    return counted.seen


def test_a_kill_at_any_moment_changes_no_bit(whole, tmp_path):
    total = n_lines(path=tmp_path / "count")
    rng = np.random.default_rng(0)
    for k, number in enumerate(rng.integers(50, total - 20, size=12)):
        path = tmp_path / f"training{k}"
        with pytest.raises(Killed), AtLine(number, kill):
            train(path)
        # And once more, before an epoch is complete.
        with pytest.raises(Killed), AtLine(150, kill):
            train(path)
        model, history = train(path)
        assert_same(history, whole[1])
        assert_weights(model, whole[0])
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


SCRIPT = """
import os, signal, sys
from statespace.training import checkpoints
from tests.training import test_resuming

class Half:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def write(self, content):
        writes.append(1)
        if len(writes) == 4:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.file.write(content)
    def __getattr__(self, name):
        return getattr(self.file, name)
    def __exit__(self, *error):
        self.file.close()

writes = []
checkpoints.open = lambda path, mode: Half(open(path, mode))
test_resuming.train(sys.argv[1])
"""


def test_a_real_kill_in_the_middle_of_writing_leaves_the_checkpoint_before(whole, tmp_path):
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    path = tmp_path / "training"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=environment, cwd=root, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == [".training.part", "training"]
    assert len(read_checkpoint(path)[1]["history"]["loss"]) == 2
    model, history = train(path)
    assert_same(history, whole[1])
    assert_weights(model, whole[0])
    assert os.listdir(tmp_path) == ["training"]


def test_what_is_complete_or_stopped_early_is_only_read(whole, tmp_path, monkeypatch):
    train(tmp_path / "training")
    monkeypatch.setattr("statespace.training.steps.Steps.epoch", kill)
    model, history = train(tmp_path / "training")
    assert_same(history, whole[1])
    assert_weights(model, whole[0])
    with pytest.raises(TypeError):  # kill takes no arguments: an epoch was begun
        train(tmp_path / "training", resume=False)


def test_early_stopping_counts_on(tmp_path):
    options = {"max_epochs": 30, "patience": 2, "learning_rate": 0.2}
    model, expected = train(**options)
    assert expected.stopped == "early"
    last = len(expected.loss) - 1
    for stop in (last - 1, last):
        train(tmp_path / "a", resume=False, callbacks=[lambda epoch, *_, stop=stop: epoch == stop], **options)
        again, history = train(tmp_path / "a", **options)
        assert_same(history, expected)
        assert_weights(again, weights(model))


def test_strands_and_halves_go_on_too(tmp_path):
    """The generator of the strands is that of the batches; halves are remembered."""

    def run(path=None, stop=None):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        own = generator()
        data = SeriesBatches([rng.normal(size=(6, 4)) for _ in range(8)], targets=rng.normal(size=(8, 1)))
        model = ResidualStack(4, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}, pooling="last")

        def loss(model, batch):
            return (model(batch["x"])[0] - batch["y"]).square().sum(), torch.tensor(float(len(batch["x"])))

        checkpoint = None if path is None else Checkpoint(path, resume=True)
        strands = RandomStrands(data, [3, 2, 1, 0], own)
        fit(model, strands, loss, max_epochs=4, batch_size=3, generator=own, checkpoint=checkpoint, callbacks=stop)
        return weights(model)

    expected = run()
    run(tmp_path / "a", [lambda epoch, history, model: epoch == 1])
    for name, value in run(tmp_path / "a").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [S4DRegressor, MambaClassifier])
def test_an_estimator_resumes(kind, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(16, 7, 2))
    y = X[:, :, 0].sum(axis=1) > 0
    options = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 4, "batch_size": 4, "dropout": 0.3}
    # Without an integer the seed is drawn once, and kept.
    kept = {"checkpoint": tmp_path / "training", "resume": True, "random_state": None}
    cut = kind(**options, **kept, callbacks=[lambda epoch, history, model: epoch == 1]).fit(X, y)
    assert len(cut.history_) == 2
    again = kind(**options, **kept, device="cpu", verbose=0).fit(X, y)
    seed = read_checkpoint(tmp_path / "training")[1]["identity"]["seed"]

    class Fixed(np.random.RandomState):
        def randint(self, *bounds):
            return seed

    expected = kind(**options, random_state=Fixed()).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), expected.predict(X))
    assert again.history_.equals(expected.history_)
    assert again.best_epoch_ == expected.best_epoch_


def test_another_training_is_refused(tmp_path):
    X = np.random.default_rng(0).normal(size=(12, 6))
    y = X.sum(axis=1)
    options = {
        "d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "random_state": 0,
        "checkpoint": tmp_path / "a", "resume": True,
    }  # fmt: skip
    S4DRegressor(**options).fit(X, y)
    with pytest.raises(ValueError, match=r"learning_rate was 0.004, and now is 0.5\. Give the same, or resume=False"):
        S4DRegressor(**options | {"learning_rate": 0.5}).fit(X, y)
    with pytest.raises(ValueError, match="the data was"):
        S4DRegressor(**options).fit(X, y[::-1].copy())
    with pytest.raises(ValueError, match="resume=True needs checkpoint="):
        S4DRegressor(resume=True).fit(X, y)
    S4DRegressor(**options | {"learning_rate": 0.5, "resume": False}).fit(X, y)  # starts anew
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-7])
    with pytest.raises(FileError, match="truncated"):
        S4DRegressor(**options).fit(X, y)


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "a"
    write_checkpoint(path, {"x": torch.arange(50.0)}, {"epoch": 1})
    content = path.read_bytes()
    for altered in (content[:-9], content[:-1] + b"\x01", content.replace(b"epoch", b"Epoch"), b"", b"nonsense" * 9):
        path.write_bytes(altered)
        with pytest.raises(FileError, match=r"Delete it to start anew\."):
            read_checkpoint(path)
    X = np.random.default_rng(0).normal(size=(6, 5))
    S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1).fit(X, X.sum(axis=1)).save(path)
    with pytest.raises(FileError, match="no checkpoint of training"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "b")


def test_a_full_disk_costs_a_checkpoint_and_no_training(whole, tmp_path, monkeypatch):
    path, written = tmp_path / "training", []

    def fsync(number):
        written.append(number)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", fsync)
    with pytest.warns(UserWarning, match=r"of epoch 2 could not be written to .*No space left"):
        model, history = train(path)
    assert_same(history, whole[1])
    assert os.listdir(tmp_path) == ["training"]
    with pytest.raises(FileNotFoundError):  # told at once, not after the first epoch
        train(tmp_path / "no" / "folder")


def test_a_file_of_a_model_names_no_path(tmp_path):
    X = np.random.default_rng(0).normal(size=(6, 5))
    options = {"checkpoint": tmp_path / "c", "resume": True, "callbacks": [lambda *_: False]}
    model = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, **options).fit(X, X.sum(axis=1))
    model.save(tmp_path / "model")
    import statespace

    again = statespace.load(tmp_path / "model")
    assert (again.checkpoint, again.resume, again.callbacks) == (None, False, None)


def test_a_forecaster_resumes_and_draws_the_same_windows(tmp_path):
    from statespace.forecasting import S4DForecaster

    y = np.sin(np.arange(60.0) / 3)
    options = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 3, "windows_per_epoch": 8, "random_state": 0}
    expected = S4DForecaster(**options).fit(y, fh=[1, 5])
    kept = options | {"checkpoint": tmp_path / "training", "resume": True}
    cut = S4DForecaster(**kept, callbacks=[lambda epoch, history, model: epoch == 0]).fit(y, fh=[1, 5])
    assert len(cut.history_) == 1
    again = S4DForecaster(**kept).fit(y, fh=[1, 5])
    assert again.history_.equals(expected.history_)
    np.testing.assert_array_equal(again.predict(), expected.predict())
    with pytest.raises(ValueError, match="the data was"):
        S4DForecaster(**kept).fit(y + 1e-9 * np.arange(60), fh=[1, 5])
