"""S5 layer, forward and backward, against s5-pytorch and torch's LSTM; regular and irregular times, seconds and memory.

s5-pytorch (https://github.com/i404788/s5-pytorch) is found as an installed package, or in a clone that the environment
variable S5_PYTORCH_REPOSITORY names. It keeps both halves of the conjugate pairs: its P states have the real dimension
of ours; a row with as many complex numbers as it has stands beside.
"""

import os
import sys

import torch
from harness import machine, measures_memory, peak, print_memory, race, table

from statespace.layers import S5

TESTS = ["tests/layers/test_s5.py", "tests/kernels/test_diagonal_states.py"]
SAMPLES = 8192  # of a batch; longer records stand alone
# s5-pytorch writes down one complex (P, H) matrix for each step of each record, and several arrays of its size.
MOST_BYTES = 1.1e9


def peer():
    """s5-pytorch's S5, or None."""
    folder = os.environ.get("S5_PYTORCH_REPOSITORY")
    if folder:
        sys.path.append(folder)
    try:
        from s5 import S5
    except ImportError:
        return None
    return S5


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y = layer(u, *extra)
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()

    return run


def contenders(length, width, states):
    """What runs on records of this length, by name; and the number of records."""
    batch = max(1, SAMPLES // length)
    u, gaps = torch.randn(batch, length, width), torch.rand(batch, length) * 1.9 + 0.1
    ours, theirs = S5(width, states), peer()
    runs = {
        "S5, regular": training_step(ours, u),
        "S5, irregular": training_step(ours, u, gaps),
        "S5, irregular, d_state x 2": training_step(S5(width, 2 * states), u, gaps),
        "torch LSTM": training_step(torch.nn.LSTM(width, width, batch_first=True), u),
    }
    if theirs is not None:
        other = theirs(width, states)
        runs["s5-pytorch, regular"] = training_step(other, u)
        if matrices(length, width, states) <= MOST_BYTES:
            runs["s5-pytorch, irregular"] = training_step(other, u, gaps)
    return runs, batch


def matrices(length, width, states):
    """Bytes of s5-pytorch's input matrices on irregular times."""
    return 8 * max(1, SAMPLES // length) * length * states * width


def measure_memory(name, length, width, states):
    contenders(SAMPLES, 4, 2)[0].get(name, lambda: None)()  # compilation
    run = contenders(length, width, states)[0][name]
    print_memory(run)


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    if peer() is None:
        print("s5-pytorch not found: skipped. Install it, or let S5_PYTORCH_REPOSITORY name a clone of it.")
    torch.manual_seed(0)
    for width, states in ((128, 128), (64, 64)):
        for length in (512, 2048, 8192, 65536):
            runs, batch = contenders(length, width, states)
            seconds = race(runs, rounds=3 if length < 65536 else 1)
            title = f"forward + backward, B {batch}, L {length}, H {width}, P {states}"
            of_gaps = lambda kind: {k: v for k, v in seconds.items() if kind in k.split(", ") or "LSTM" in k}  # noqa: B023, E731
            table(f"{title}: regular", of_gaps("regular"), "S5, regular", per=batch * length, unit="ns")
            table(f"{title}: irregular", of_gaps("irregular"), "S5, irregular", per=batch * length, unit="ns")
    if measures_memory():
        print("\npeak memory of forward + backward above the inputs, MB, H 128, P 128")
        for length in (512, 2048, 8192, 65536):
            batch = max(1, SAMPLES // length)
            for name in ("S5, regular", "S5, irregular", "s5-pytorch, regular", "s5-pytorch, irregular"):
                if name.startswith("s5-pytorch") and peer() is None:
                    continue
                if name == "s5-pytorch, irregular" and matrices(length, 128, 128) > MOST_BYTES:
                    needed = f"not run: its matrices alone take {matrices(length, 128, 128) / 1e9:.1f} GB"
                else:
                    needed = f"{peak(__file__, name, length, 128, 128):10.0f}"
                print(f"  B {batch:2d}, L {length:6d}  {name:24s}{needed}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
