"""S4D and DSS, forward and backward, regular and irregular times, against torch's LSTM and the S4 repository's S4D.

The repository's layers are read from a clone that S4_REPOSITORY names. Both forms are timed: the convolution alone
(``FFTConv`` with a diagonal kernel and no activation), which is what `S4D` here is, and the pedagogical layer with its
gate behind. They have no irregular times.
"""

import s4_repository
import torch
from harness import machine, race, table

from statespace.layers import DSS, S4D

TESTS = ["tests/layers/test_s4d.py", "tests/layers/test_dss.py", "tests/kernels/test_diagonal_scan.py"]
BATCH, WIDTH, STATE = 4, 64, 64
LENGTHS = (512, 2048, 8192, 16_384, 65_536)
# Beyond it the repository's powers, (channels, nodes, length), need several GB.
PEER_LENGTH = 8192


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y, _ = layer(u, *extra)
        y.square().mean().backward()

    return run


def repository(length):
    layers = {}
    if length <= PEER_LENGTH:
        if module := s4_repository.module("models.s4.s4"):
            options = {"mode": "diag", "init": "diag-lin", "d_state": STATE, "l_max": length, "activation": None}
            layers["state-spaces/s4 FFTConv, diagonal"] = module.FFTConv(WIDTH, transposed=False, **options)
        if module := s4_repository.module("models.s4.s4d"):
            layers["state-spaces/s4 S4D, with gate"] = module.S4D(WIDTH, d_state=STATE, transposed=False)
    return layers


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for length in LENGTHS:
        # The same number of samples each time from 2048 on, so that a cliff would show in the seconds.
        batch = min(BATCH, max(1, BATCH * 2048 // length))
        u = torch.randn(batch, length, WIDTH)
        gaps = torch.rand(batch, length) * 1.9 + 0.1
        layer = S4D(WIDTH, d_state=STATE)
        contenders = {
            "S4D, regular (convolution)": training_step(layer, u),
            "S4D, irregular (scan)": training_step(layer, u, gaps),
            # As many complex nodes as S4D has with half of its conjugate pairs.
            "DSS, regular (convolution)": training_step(DSS(WIDTH, d_state=STATE // 2), u),
            "DSS, irregular (scan)": training_step(DSS(WIDTH, d_state=STATE // 2), u, gaps),
            "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
        }
        contenders |= {name: training_step(peer, u) for name, peer in repository(length).items()}
        seconds = race(contenders, rounds=5)
        title = f"forward + backward, B {batch}, L {length}, D {WIDTH}, N {STATE}"
        table(title, seconds, "S4D, regular (convolution)", per=batch * length, unit="ns")
        scanned = {name: seconds[name] for name in ("S4D, irregular (scan)", "DSS, irregular (scan)", "torch LSTM")}
        table(f"{title}: the scan", scanned, "S4D, irregular (scan)", per=batch * length, unit="ns")


if __name__ == "__main__":
    main()
