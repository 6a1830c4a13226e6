"""What selection is for: copying what matters out of noise, and recalling what followed; Mamba beside S4D.

Selective copying: 16 data symbols among 256 steps of noise, 16 symbols in all. Induction heads: trained on series of 8
to 256 steps, as many short ones as long ones, and tried on series of 4,096. Each line is one fit with one seed; the
test series are drawn anew. Learning rates were chosen on smaller tasks (64 steps, 8 symbols); one trial of another
recipe printed its accuracy on the test series too.
"""

import time

import numpy as np
import torch
from harness import machine

from statespace import SSMClassifier
from statespace.datasets import make_induction_heads, make_selective_copying

TESTS = ["tests/datasets/test_tokens.py", "tests/layers/test_mamba.py"]
TEST_SEED = 10**6
SETTINGS = {"d_model": 64, "n_layers": 2, "alphabet": 16, "dropout": 0.0, "weight_decay": 0.0, "patience": None}


def fitted(layer, X, y, **settings):
    """A classifier of the symbol at every step that asks, the minutes that its fit took, and its parameters."""
    classifier = SSMClassifier(layer, **SETTINGS | {"validation_fraction": 0.01, "random_state": 0} | settings)
    start = time.perf_counter()
    classifier.fit(X, y)
    minutes = (time.perf_counter() - start) / 60
    return classifier, minutes, sum(parameter.numel() for parameter in classifier.model_.parameters())


def selective_copying(n_series=100_000, epochs=2, batch=32, rate=3e-3):
    X, y, _ = make_selective_copying(n_series, random_state=0)
    test_X, test_y, _ = make_selective_copying(1000, random_state=TEST_SEED)
    print(f"\nSelective copying: {n_series} series of {X.shape[1]} steps, {epochs} epochs; chance is 7.1 %")
    for layer in ("mamba", "s4d"):
        classifier, minutes, size = fitted(
            layer, X, y, max_epochs=epochs, batch_size=batch, learning_rate=rate, ssm_learning_rate=rate
        )
        share = np.mean([classifier.score(test_X[i : i + 100], test_y[i : i + 100]) for i in range(0, 1000, 100)])
        line = f"  {layer:10s}{size:9d} parameters   test accuracy {100 * share:5.1f} %   {minutes:.1f} minutes"
        print(line, flush=True)


def short_and_long(n_series, longest, random_state):
    """Induction heads over lengths from 8 to ``longest``, as many between 8 and 16 as between 128 and 256."""
    generator = np.random.default_rng(random_state)
    lengths = np.exp(generator.uniform(np.log(8), np.log(longest + 1), size=n_series)).astype(int)
    tasks = [make_induction_heads(1, int(length), random_state=generator) for length in lengths]
    return [task.X[0] for task in tasks], [task.y[0] for task in tasks]


def induction_heads(n_series=40_000, epochs=2, batch=32, rate=3e-3):
    X, y = short_and_long(n_series, 256, 0)
    print(f"\nInduction heads: {n_series} series of 8 to 256 steps, {epochs} epochs; chance is 6.7 %")
    for layer in ("mamba", "s4d"):
        classifier, minutes, size = fitted(
            layer, X, y, max_epochs=epochs, batch_size=batch, learning_rate=rate, ssm_learning_rate=rate
        )
        shares = []
        for length in (64, 256, 1024, 4096):
            test_X, test_y, _ = make_induction_heads(200, length, random_state=TEST_SEED)
            parts = [classifier.score(test_X[i : i + 20], test_y[i : i + 20]) for i in range(0, 200, 20)]
            shares.append(f"{length}: {100 * np.mean(parts):.1f} %")
        print(f"  {layer:10s}{size:9d} parameters   {', '.join(shares)}   {minutes:.1f} minutes", flush=True)


def main():
    print(machine(["statespace-learn", "torch", "numba"]))
    print(f"{torch.get_num_threads()} threads")
    selective_copying()
    induction_heads()
