"""What the gaps are worth: each layer with its times and without, beside a constant, a Kalman filter and a GRU.

Predators and prey, seen one at a time at random times (`make_predator_prey`): what will both be at a later time? The
error is the root mean square over both logarithms and all test series, averaged over SEEDS fits of a network; behind it
stands the range of these. Nothing was tuned on the test series; all networks have the same width, depth, epochs and
rates.
"""

import time

import numpy as np
import torch
from harness import machine

from statespace import KalmanRegressor, SSMRegressor
from statespace.datasets import make_predator_prey
from statespace.kalman import DampedOscillator, Matern
from statespace.layers import LAYERS
from statespace.training import SeriesBatches, fit

TESTS = ["tests/datasets/test_predator_prey.py"]
TRAIN, TEST, EPOCHS, WIDTH, SEEDS = 1000, 500, 30, 32, 3
OPTIONS = {
    "d_model": WIDTH, "n_layers": 2, "max_epochs": EPOCHS, "pooling": "last", "dropout": 0.0,
}  # fmt: skip


class GRU(torch.nn.Module):
    """A GRU that reads values, what is seen, and the gap before each sample."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.GRU(5, WIDTH, num_layers=2, batch_first=True)
        self.head = torch.nn.Linear(WIDTH, 2)

    def forward(self, x, lengths):
        h, _ = self.layer(x)
        return self.head(h[torch.arange(len(h)), lengths - 1])


def gru(train, y, test, with_gaps, seed):
    """Trained as the layers are, by the same loop."""
    mean, scale = np.nanmean(np.concatenate(train.values), 0), np.nanstd(np.concatenate(train.values), 0)

    def inputs(X):
        gaps = X.gaps(first=0.4)
        return [
            np.column_stack([np.nan_to_num((v - mean) / scale), ~np.isnan(v), g if with_gaps else np.ones_like(g)])
            for v, g in zip(X.values, gaps, strict=True)
        ]

    def loss(model, batch):
        error = model(batch["x"], batch["lengths"]) - batch["y"]
        return error.square().sum(), error.numel()

    torch.manual_seed(seed)
    model, n = GRU(), len(y) * 9 // 10
    rows = inputs(train)
    fit(
        model, SeriesBatches(rows[:n], None, y[:n]), loss, max_epochs=EPOCHS, batch_size=32, learning_rate=4e-3,
        validation=SeriesBatches(rows[n:], None, y[n:]), patience=10, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    data = SeriesBatches(inputs(test))
    with torch.no_grad():
        batch = data.batch(np.arange(len(test)))
        return model.eval()(batch["x"], batch["lengths"]).numpy()


def kalman(train, test):
    """One process for both channels of all series, each series a record of its own."""
    model = KalmanRegressor(DampedOscillator() + Matern(nu=1.5))
    model.fit([t[:-1, None] for t in train.times[:200]], [v[:-1] for v in train.values[:200]])
    model = model.condition([t[:-1, None] for t in test.times], [v[:-1] for v in test.values])
    return np.stack([np.ravel(p) for p in model.predict([t[-1:, None] for t in test.times])])


def error(prediction, y):
    return np.sqrt(np.mean((prediction - y) ** 2))


def row(name, with_gaps, without=None, seconds=0.0):
    """The mean and the range over fits, with the gaps and without."""
    text = f"{with_gaps:9.3f}"
    if without is not None:
        text = "".join(f"{np.mean(e):9.3f} ({min(e):.3f} to {max(e):.3f})" for e in (with_gaps, without))
    ratio = "" if without is None else f"{np.mean(without) / np.mean(with_gaps):10.2f}"
    print(f"  {name:24s}{text:60s}{ratio:10s}{seconds:10.0f}", flush=True)


def compare(name, fitted):
    """A network, with the gaps and without, fitted with every seed: ``fitted(with_gaps, seed)`` predicts the test."""
    start = time.perf_counter()
    errors = [[fitted(with_gaps, seed) for seed in range(SEEDS)] for with_gaps in (True, False)]
    row(name, *errors, time.perf_counter() - start)


def main():
    print(machine(["torch", "numba"]), f"{torch.get_num_threads()} threads")
    train, y = make_predator_prey(TRAIN, random_state=0)
    test, answers = make_predator_prey(TEST, random_state=1)
    print(f"\nPredators and prey: {TRAIN} series to train, {TEST} to test, {EPOCHS} epochs; root mean square error")
    print(f"  {'':24s}{'with gaps':>30s}{'without':>30s}{'ratio':>10s}{'seconds':>10s}")
    row("constant", error(y.mean(0), answers))
    last = [[v[~np.isnan(v[:, c]), c][-1:].sum() for c in (0, 1)] for v in test.values]
    row("last value seen", error(np.array(last), answers))
    start = time.perf_counter()
    row("Kalman filter", error(kalman(train, test), answers), seconds=time.perf_counter() - start)
    compare("GRU, gaps as an input", lambda gaps, seed: error(gru(train, y, test, gaps, seed), answers))
    for layer in sorted(set(LAYERS) - {"channel_mixing"}):

        def fitted(with_gaps, seed, layer=layer):
            X, X_test = (train, test) if with_gaps else (train.values, test.values)
            return error(SSMRegressor(layer, **OPTIONS, random_state=seed).fit(X, y).predict(X_test), answers)

        compare(layer, fitted)
