"""Mamba layer, forward and backward, against mamba.py's block with its parallel scan and torch's LSTM: seconds, memory;
its short convolution against torch's; one streamed step.

mamba.py (https://github.com/alxndrTL/mamba.py) is read from a clone that the environment variable MAMBA_PY_REPOSITORY
names. It has no irregular times.
"""

import os
import sys

import torch
from harness import machine, measures_memory, peak, print_memory, race, table
from torch.nn.functional import conv1d, silu

from statespace.kernels import causal_conv1d
from statespace.layers import Mamba

TESTS = ["tests/layers/test_mamba.py", "tests/kernels/test_causal_conv1d.py", "tests/kernels/test_selective_scan.py"]
BATCH, SAMPLES, WIDTH, STATE = 4, 8192, 64, 16
LENGTHS = (512, 2048, 8192, 16_384)
PEER = "mamba.py, parallel scan"


def peer():
    """mamba.py's block of the same size, or None."""
    folder = os.environ.get("MAMBA_PY_REPOSITORY")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    try:
        from mambapy.mamba import MambaBlock, MambaConfig
    except ImportError:
        return None
    return MambaBlock(MambaConfig(d_model=WIDTH, n_layers=1, d_state=STATE))


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y = layer(u, *extra)
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()

    return run


def contenders(length):
    """What runs on records of this length, by name; and the number of records."""
    batch = min(BATCH, max(1, SAMPLES // length))
    u, gaps = torch.randn(batch, length, WIDTH), torch.rand(batch, length) * 1.9 + 0.1
    ours, theirs = Mamba(WIDTH, STATE), peer()
    runs = {
        "Mamba, regular": training_step(ours, u),
        "Mamba, irregular": training_step(ours, u, gaps),
        "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
    }
    if theirs is not None:
        runs[PEER] = training_step(theirs, u)
    return runs, batch


def convolutions(length, taps):
    """The short convolution of channels that come last in memory, with its gradients; and the number of records."""
    batch = min(BATCH, max(1, SAMPLES // length))
    x, grad = torch.randn(2, batch, length, 2 * WIDTH).unbind(0)
    weight, bias = torch.randn(2 * WIDTH, taps, requires_grad=True), torch.randn(2 * WIDTH, requires_grad=True)
    x.requires_grad_()

    def ours():
        return causal_conv1d(x.transpose(1, 2), weight, bias, activation="silu")

    def torchs():
        padded = conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=taps - 1, groups=2 * WIDTH)
        return silu(padded[..., :length])

    def both_ways(convolve):
        return lambda: torch.autograd.grad(convolve().transpose(1, 2), (x, weight, bias), grad)

    return {"causal_conv1d": both_ways(ours), "torch conv1d, silu": both_ways(torchs)}, batch


def streams():
    """One step of a stream."""
    u, layer, theirs = torch.randn(1, WIDTH), Mamba(WIDTH, STATE).freeze(), peer()
    state, gap = layer.initial_state(1), torch.ones(1)
    cache = (None, torch.zeros(1, 2 * WIDTH, 3))
    runs = {"Mamba.step": lambda: layer.step(u, state), "Mamba.step, with a gap": lambda: layer.step(u, state, gap)}
    if theirs is not None:
        runs["mamba.py step"] = lambda: theirs.step(u, cache)
    return {name: torch.no_grad()(run) for name, run in runs.items()}


def measure_memory(name, length):
    contenders(64)[0][name]()  # compilation
    run = contenders(length)[0][name]
    print_memory(run)


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    if peer() is None:
        print("mamba.py not found: skipped. Let MAMBA_PY_REPOSITORY name a clone of it.")
    torch.manual_seed(0)
    for length in LENGTHS:
        runs, batch = contenders(length)
        seconds = race(runs, rounds=5 if length <= 2048 else 3)
        title = f"forward + backward, B {batch}, L {length}, D {WIDTH}, N {STATE}"
        table(title, seconds, "Mamba, regular", per=batch * length, unit="ns")
        rest = {name: seconds[name] for name in seconds if name != "Mamba, regular"}
        table(f"{title}: irregular gaps", rest, "Mamba, irregular", per=batch * length, unit="ns")
    for length, taps in ((2048, 2), (2048, 4), (16_384, 4)):
        runs, batch = convolutions(length, taps)
        title = f"short convolution, forward + backward, B {batch}, L {length}, {2 * WIDTH} channels, {taps} taps"
        table(title, race(runs), "causal_conv1d", per=batch * length, unit="ns")
    table(f"one step, B 1, D {WIDTH}, N {STATE}", race(streams(), calls=200), "Mamba.step", unit="us")
    if measures_memory():
        print("\npeak memory of forward + backward above the inputs, MB")
        for length in LENGTHS:
            batch = min(BATCH, max(1, SAMPLES // length))
            for name in contenders(64)[0]:
                print(f"  B {batch:2d}, L {length:6d}  {name:28s}{peak(__file__, name, length):10.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]))
    else:
        main()
