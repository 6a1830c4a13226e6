"""SaShiMi, forward and backward and one step, against a stack of as many blocks without pooling and against the S4
repository's SaShiMi (https://github.com/state-spaces/s4), a clone of which S4_REPOSITORY names.
"""

import os
import sys

import torch
from harness import machine, race, table

from statespace.models import ResidualStack, SaShiMi

TESTS = ["tests/models/test_sashimi.py"]
WIDTH, LAYERS = 32, 2
SAMPLES = 16_384


def peer():
    """The S4 repository's backbone and why it is not there."""
    folder = os.environ.get("S4_REPOSITORY")
    if not folder:
        return None, "let S4_REPOSITORY name a clone of it"
    sys.path.append(folder)
    try:
        from models.sashimi.sashimi import Sashimi
    except ImportError as error:
        return None, f"{error}; it needs einops and pytorch_lightning"
    torch.manual_seed(0)
    return Sashimi(d_model=WIDTH, n_layers=LAYERS), ""


def training_step(model, x, *extra):
    def run():
        model.zero_grad(set_to_none=True)
        y = model(x, *extra)
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()

    return run


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    theirs, reason = peer()
    if theirs is None:
        print(f"the S4 repository's SaShiMi not found: skipped; {reason}.")
    torch.manual_seed(0)
    # Ours reads and answers WIDTH channels, too: the repository's backbone has no encoder and no head.
    models = {
        "SaShiMi, S4": SaShiMi(WIDTH, WIDTH, WIDTH, LAYERS, "s4"),
        "SaShiMi, S4D": SaShiMi(WIDTH, WIDTH, WIDTH, LAYERS, "s4d"),
        "stack, S4": ResidualStack(WIDTH, WIDTH, WIDTH, 3 * LAYERS, "s4"),
        "stack, S4D": ResidualStack(WIDTH, WIDTH, WIDTH, 3 * LAYERS, "s4d"),
    }
    for length in (1024, 16_384):
        x, dt = torch.randn(SAMPLES // length, length, WIDTH), torch.rand(SAMPLES // length, length) + 0.5
        runs = {f"{name}, regular": training_step(model, x) for name, model in models.items()}
        runs |= {f"{name}, irregular": training_step(model, x, dt) for name, model in models.items()}
        if theirs is not None:
            runs["S4 repository's SaShiMi"] = training_step(theirs, x)
        title = f"forward + backward, B {len(x)}, L {length}, D {WIDTH}, 2 blocks a scale"
        table(title, race(runs, rounds=3), "SaShiMi, S4, regular", per=SAMPLES, unit="us")
    with torch.inference_mode():
        steps = {}
        for name, model in models.items():
            model.eval().freeze()
            steps[name] = lambda model=model: fold(model, model.initial_state(1))
        table("one step, B 1, mean of 160", race(steps, rounds=3), "SaShiMi, S4", per=160, unit="us")


def fold(model, state):
    x = torch.zeros(1, WIDTH)
    for _ in range(160):
        _, state = model.step(x, state)


if __name__ == "__main__":
    main()
