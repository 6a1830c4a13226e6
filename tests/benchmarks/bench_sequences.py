"""Accuracy on sequences: digits pixel by pixel, heartbeats, spoken digits from raw audio, ListOps and a Transformer.

The data of all but the pixels are read from the folder that ``STATESPACE_DATA`` names; without it they are passed over.
Options were set by hand, not searched, but not blindly: first runs of digits, heartbeats and spoken digits printed
their test accuracy, and the digits' epochs were then raised from 20 to 30.
"""

import csv
import gzip
import itertools
import math
import os
import time
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness import machine
from scipy.signal import decimate
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from statespace import S4DClassifier, S5Classifier
from statespace.models import ResidualStack
from statespace.training import SeriesBatches, fit

TESTS = ["tests/test_classification.py"]
SEEDS = (0, 1, 2)


def folder(name):
    """The folder of a data set, or None."""
    root = os.environ.get("STATESPACE_DATA")
    if root is None or not (Path(root) / name).is_dir():
        print(f"\n{name}: no such folder in STATESPACE_DATA, passed over")
        return None
    return Path(root) / name


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def scores(title, make, train, test, seeds=SEEDS):
    """Test accuracy of one classifier after another, each with a seed of its own."""
    results, start = [], time.perf_counter()
    for seed in seeds:
        classifier = make(seed).fit(*train)
        results.append(classifier.score(*test))
    seconds = (time.perf_counter() - start) / len(seeds)
    spread = ", ".join(f"{100 * result:.1f}" for result in results)
    print(f"  {title:28s}{size(classifier.model_):9d} parameters   test accuracy {spread} %   {seconds:.0f} s a fit")
    return classifier


def digits():
    """8 × 8 images as 64 steps of one channel; a stratified quarter for the test."""
    images = load_digits()
    X = images.images.reshape(-1, 64, 1)
    train_X, test_X, train_y, test_y = train_test_split(
        X, images.target, test_size=0.25, random_state=0, stratify=images.target
    )
    print(f"\nDigits, pixel by pixel: {len(train_X)} to train, {len(test_X)} to test, 64 steps")
    options = {"d_model": 32, "n_layers": 3, "d_state": 32, "max_epochs": 30, "patience": None}
    for kind in (S4DClassifier, S5Classifier):
        scores(kind.__name__, lambda seed, kind=kind: kind(**options, random_state=seed),
               (train_X, train_y), (test_X, test_y))  # fmt: skip


def spoken_digits():
    """Raw audio at 8 kHz, 16 samples a step; the official split."""
    where = folder("fsdd_spoken_digits")
    if where is None:
        return
    stored = np.load(where / "fsdd.npz")
    audio, offsets = stored["audio"].astype(np.float64), stored["offsets"]
    X = []
    for start, stop in itertools.pairwise(offsets):
        record = audio[start:stop] / audio[start:stop].std()
        X.append(record[: len(record) // 16 * 16].reshape(-1, 16))
    y, test = stored["label"].astype(int), stored["index"] < 5
    train_X, test_X = ([X[i] for i in np.flatnonzero(rows)] for rows in (~test, test))
    lengths = [len(x) for x in X]
    print(f"\nSpoken digits: {len(train_X)} to train, {len(test_X)} to test, {min(lengths)} to {max(lengths)} steps")
    scores("S4DClassifier", lambda seed: S4DClassifier(max_epochs=12, patience=None, random_state=seed),
           (train_X, y[~test]), (test_X, y[test]), seeds=(0,))  # fmt: skip


def heartbeats():
    """Where the heart beats: ten minutes of two leads at 90 Hz, a label a step, the last three minutes to test."""
    where = folder("mitbih_ecg")
    if where is None:
        return
    stored = np.load(where / "100_first10min.npz")
    leads = decimate((stored["adc"] - stored["baseline"]) / stored["gain"], 4, axis=0)
    marks = pd.read_csv(where / "100_annotations.csv")
    beats = marks["sample"][marks["symbol"].isin(["N", "A", "V"])].to_numpy() / 4
    beats = beats[beats < len(leads)]
    labels = np.zeros(len(leads), dtype=int)
    for offset in range(-2, 3):
        labels[np.clip(np.rint(beats).astype(int) + offset, 0, len(leads) - 1)] = 1
    X, y, cut = leads.reshape(-1, 900, 2), labels.reshape(-1, 900), 42
    print(f"\nHeartbeats: {cut} records of 10 s to train, {len(X) - cut} to test, 900 steps")
    options = {"d_model": 16, "n_layers": 2, "d_state": 32, "max_epochs": 15, "batch_size": 4, "patience": None}
    for seed in SEEDS:
        classifier = S4DClassifier(**options, random_state=seed).fit(X[:cut], y[:cut])
        found = detections(classifier.predict(X[cut:]).ravel())
        true = beats[beats >= cut * 900] - cut * 900
        # Within 50 ms, as detectors of beats are judged.
        met = np.abs(found[:, np.newaxis] - true) <= 0.05 * 90
        print(f"  S4DClassifier, seed {seed}: {met.any(0).sum()} of {len(true)} beats found, "
              f"{(~met.any(1)).sum()} false alarms")  # fmt: skip


def detections(labels, apart=18):
    """Middles of the stretches of ones, those within ``apart`` steps (0.2 s) joined."""
    steps = np.flatnonzero(labels)
    groups = np.split(steps, np.flatnonzero(np.diff(steps) > apart) + 1)
    return np.array([(group[0] + group[-1]) / 2 for group in groups if len(group)])


def listops(names=None):
    """Nested lists of digits, up to 250 tokens: layers and a Transformer of as many parameters, in the same loop.

    The validation part chooses the epoch whose weights are kept, and the learning rate where a contender has two.
    ``names`` picks some of `CONTENDERS`.
    """
    where = folder("listops_small")
    if where is None:
        return
    texts, answers = {}, {}
    for part in ("train", "val", "test"):
        with gzip.open(where / f"{part}.tsv.gz", "rt") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        texts[part] = [row["Source"].split() for row in rows]
        answers[part] = np.array([int(row["Target"]) for row in rows])
    code = {token: i for i, token in enumerate(sorted({token for text in texts["train"] for token in text}))}
    batches = {
        part: SeriesBatches(
            [np.array([code[token] for token in text]) for text in texts[part]],
            targets=answers[part][:, np.newaxis].astype(float),
            rows=np.eye(len(code)),
        )
        for part in texts
    }
    print(f"\nListOps: {len(texts['train'])} to train, {len(texts['val'])} to validate, {len(texts['test'])} to test, "
          f"{len(code)} kinds of token, {LISTOPS_EPOCHS} epochs")  # fmt: skip
    print(f"  {'':42s}{'parameters':>10s}  validation      test  CPU time")
    outermost = {part: np.array([text[0] for text in texts[part]]) for part in texts}
    anything = {part: np.zeros(len(texts[part])) for part in texts}
    for title, key in (("most frequent answer", anything), ("the same for each outermost operator", outermost)):
        guess = pd.Series(answers["train"]).groupby(key["train"]).agg(lambda given: np.bincount(given).argmax())
        right = {part: np.mean(guess[key[part]].to_numpy() == answers[part]) for part in ("val", "test")}
        print_accuracy(title, 0, right, 0.0)
    for name in CONTENDERS if names is None else names:
        start, fits = time.process_time(), []
        rates, make = CONTENDERS[name]
        for rate in rates:
            torch.manual_seed(0)
            model = make(len(code))
            # The columns of an embedding are read one at a time, whatever their number: as in the estimators.
            nn.init.uniform_(model.encoder.weight, -1.0, 1.0)
            history = fit(model, batches["train"], cross_entropy, max_epochs=LISTOPS_EPOCHS, learning_rate=rate,
                          validation=batches["val"], patience=None)  # fmt: skip
            fits.append((min(history.validation_loss), rate, model))
        _, _, model = min(fits, key=itemgetter(0))
        right = {part: accuracy(model, batches[part]) for part in ("val", "test")}
        print_accuracy(name, size(model), right, (time.process_time() - start) / len(rates))
        losses = ", ".join(f"{loss:.3f} at {rate:g}" for loss, rate, _ in fits)
        print(f"    validation loss by learning rate: {losses}", flush=True)


def print_accuracy(title, parameters, right, seconds):
    print(f"  {title:42s}{parameters:10d}{100 * right['val']:10.1f} %{100 * right['test']:8.1f} %{seconds:8.0f} s",
          flush=True)  # fmt: skip


def cross_entropy(model, batch):
    logits, _ = model(batch["x"], dt=batch.get("dt"), lengths=batch["lengths"])
    loss = nn.functional.cross_entropy(logits, batch["y"][:, 0].long(), reduction="sum")
    return loss, torch.tensor(len(logits))


@torch.no_grad()
def accuracy(model, data):
    """Share of the series whose most probable answer is right; the weights are those of the best validation loss."""
    right = []
    for indices in np.array_split(np.arange(len(data)), max(1, len(data) // 100)):
        batch = data.batch(indices)
        logits, _ = model(batch["x"], dt=batch.get("dt"), lengths=batch["lengths"])
        right.append(logits.argmax(1) == batch["y"][:, 0])
    return float(torch.cat(right).float().mean())


def stack(layer, d_model, n_layers, **options):
    """The network of the package's classifiers, both ways; of a pattern of layers each has options by its name."""
    if isinstance(layer, str):
        options |= {"bidirectional": True}
    else:
        options = {name: {"bidirectional": True} | options.get(name, {}) for name in layer}
    return lambda tokens: ResidualStack(tokens, 10, d_model, n_layers, layer, options, dropout=0.1, pooling="mean")


class Transformer(nn.Module):
    """Torch's encoder with sinusoidal positions; the mean over the tokens is classified."""

    def __init__(self, d_input, d_output, d_model=64, n_layers=2, feed_forward=62, longest=512):
        super().__init__()
        self.encoder = nn.Linear(d_input, d_model)
        frequency = torch.exp(torch.arange(0, d_model, 2) * (-math.log(1e4) / d_model))
        angle = torch.arange(longest)[:, None] * frequency
        self.register_buffer("positions", torch.cat([angle.sin(), angle.cos()], dim=1))
        layer = nn.TransformerEncoderLayer(d_model, 4, feed_forward, 0.1, batch_first=True, norm_first=True)
        # With dropout among its weights attention takes 2.3 times as long here: torch's fused one has none.
        layer.self_attn.dropout = 0.0
        self.layers = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, d_output)

    def forward(self, x, dt=None, lengths=None):
        padded = torch.arange(x.shape[1]) >= lengths[:, None]
        h = self.encoder(x) + self.positions[: x.shape[1]]
        h = self.norm(self.layers(h, src_key_padding_mask=padded))
        return self.head(torch.where(padded[..., None], 0, h).sum(1) / lengths[:, None]), None


# A first run of 15 epochs, S4D by default, had its least validation loss after 7.
LISTOPS_EPOCHS = 10
# Chosen on the validation part: an operator and its arguments are a few tokens, and with the default steps, up to 0.1,
# every state starts with a time constant of twenty or more.
FAST = {"dt_min": 1e-2, "dt_max": 1.0}
CONTENDERS = {
    "Transformer, 2 layers of width 64": ((1e-3, 4e-3), lambda tokens: Transformer(tokens, 10)),
    "S4D by default, 2 blocks of 64, N 64": ((4e-3,), stack("s4d", 64, 2)),
    "S4D, 4 blocks of 64, N 16, faster steps": ((4e-3, 1e-2), stack("s4d", 64, 4, d_state=16, **FAST)),
    "S5, 4 blocks of 44, P 64, faster steps": ((4e-3,), stack("s5", 44, 4, **FAST)),
    "Mamba, 2 blocks of 48": ((4e-3,), stack("mamba", 48, 2)),
    "S4D, then attention, a block of 64 each": ((4e-3,), stack(["s4d", "attention"], 64, 2, s4d=FAST)),
}


def main():
    print(machine(["torch", "scikit-learn"]), f"{torch.get_num_threads()} threads")
    digits()
    heartbeats()
    spoken_digits()
    listops()
