"""Mamba3 and TIDES, forward and backward, against torch's LSTM, S5, and the same layers as plain loops over time."""

import sys

import torch
from harness import machine, measures_memory, peak, print_memory, race, table

from statespace.layers import S5, TIDES, Mamba3

TESTS = ["tests/layers/test_mamba3.py", "tests/layers/test_tides.py"]
BATCH, WIDTH = 4, 64
LOOP = 512  # steps of the plain loops, which store every state


def folded(layer):
    """The layer as a loop over its own steps: what its recurrence costs in torch operations."""

    def run(u, dt):
        state, outputs = layer.initial_state(len(u)), []
        for k in range(u.shape[1]):
            y, state = layer.step(u[:, k], state, dt[:, k])
            outputs.append(y)
        return torch.stack(outputs, dim=1), state

    run.zero_grad = layer.zero_grad
    return run


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        layer(u, *extra)[0].square().mean().backward()

    return run


def contenders(length, loops=False):
    u, gaps = torch.randn(BATCH, length, WIDTH), torch.rand(BATCH, length) * 1.9 + 0.1
    mamba3, tides = Mamba3(WIDTH), TIDES(WIDTH)
    runs = {
        "Mamba3": training_step(mamba3, u, gaps),
        "TIDES": training_step(tides, u, gaps),
        "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
    }
    if loops:
        runs["Mamba3, folding step"] = training_step(folded(mamba3), u, gaps)
        runs["TIDES, folding step"] = training_step(folded(tides), u, gaps)
        return runs
    runs["Mamba3, rank 4"] = training_step(Mamba3(WIDTH, mimo_rank=4), u, gaps)
    runs["Mamba3, real state"] = training_step(Mamba3(WIDTH, rope_fraction=0), u, gaps)
    runs["TIDES, factors of each state"] = training_step(TIDES(WIDTH, rank=0), u, gaps)
    runs["TIDES, 64 states"] = training_step(TIDES(WIDTH, 64), u, gaps)
    runs["S5, 32 complex states"] = training_step(S5(WIDTH, 64), u, gaps)
    return runs


def measure_memory(name, length):
    contenders(64)[name]()  # compilation
    run = contenders(length)[name]
    print_memory(run)


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for length in (512, 2048, 8192):
        seconds = race(contenders(length), rounds=5 if length < 8192 else 3)
        title = f"forward + backward, irregular gaps, B {BATCH}, L {length}, D {WIDTH}"
        for ours in ("Mamba3", "TIDES"):
            own = {k: v for k, v in seconds.items() if k.split(",")[0] in (ours, "torch LSTM", "S5")}
            table(title, own, ours, per=BATCH * length, unit="ns")
    seconds = race(contenders(LOOP, loops=True), rounds=3)
    for ours in ("Mamba3", "TIDES"):
        own = {k: v for k, v in seconds.items() if k.split(",")[0] == ours}
        table(f"against its own steps, B {BATCH}, L {LOOP}, D {WIDTH}", own, ours, per=BATCH * LOOP, unit="ns")
    if measures_memory():
        print(f"\npeak memory of forward + backward above the inputs, MB, B {BATCH}, D {WIDTH}")
        for length in (2048, 8192):
            for name in contenders(64):
                print(f"  L {length:6d}  {name:32s}{peak(__file__, name, length):10.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]))
    else:
        main()
