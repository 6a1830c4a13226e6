"""S4D layer, forward and backward, against torch's LSTM of the same width; regular and irregular times."""

import torch
from harness import machine, race, table

from statespace.layers import S4D

TESTS = ["tests/layers"]
BATCH, WIDTH, STATE = 4, 64, 64


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y, _ = layer(u, *extra)
        y.square().mean().backward()

    return run


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for length in (2048, 16384, 65536):
        # The same number of samples each time, so that a cliff would show in the seconds.
        batch = max(1, BATCH * 2048 // length)
        u = torch.randn(batch, length, WIDTH)
        gaps = torch.rand(batch, length) * 1.9 + 0.1
        layer = S4D(WIDTH, d_state=STATE)
        contenders = {
            "S4D, regular (convolution)": training_step(layer, u),
            "S4D, irregular (scan)": training_step(layer, u, gaps),
            "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
        }
        seconds = race(contenders, rounds=5)
        title = f"forward + backward, B {batch}, L {length}, D {WIDTH}, N {STATE}"
        table(title, seconds, "S4D, regular (convolution)", per=batch * length, unit="ns")
        scanned = {name: values for name, values in seconds.items() if "convolution" not in name}
        table(f"{title}: the scan", scanned, "S4D, irregular (scan)", per=batch * length, unit="ns")


if __name__ == "__main__":
    main()
