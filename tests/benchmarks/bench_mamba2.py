"""Mamba-2 layer, forward and backward, against Mamba and torch's LSTM: seconds, peak memory; the loop of `ssd` against
its dual form by matrix products, over shapes; its gated norm against torch operations; one streamed step.

Mamba's sixteen states are the default there, Mamba-2's sixty-four here; both are also timed with the other's number.
"""

import sys

import torch
from harness import machine, measures_memory, peak, print_memory, race, table

from statespace.kernels import rms_norm, ssd
from statespace.layers import Mamba, Mamba2

TESTS = ["tests/layers/test_mamba2.py", "tests/kernels/test_ssd.py", "tests/kernels/test_rms_norm.py"]
BATCH, SAMPLES, WIDTH = 4, 8192, 64
LENGTHS = (512, 2048, 8192, 16_384)
# (records, length, heads, P, groups, N): the layer of 64 channels, one of 768 as in the paper's smallest model, many
# narrow heads, many states.
SHAPES = ((4, 2048, 2, 64, 1, 64), (1, 2048, 24, 64, 1, 128), (4, 2048, 32, 4, 1, 16), (4, 2048, 2, 64, 1, 256))
CHUNKS = (32, 64, 128)


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        layer(u, *extra)[0].square().mean().backward()

    return run


def contenders(length):
    """What runs on records of this length, by name; and the number of records."""
    batch = min(BATCH, max(1, SAMPLES // length))
    u, gaps = torch.randn(batch, length, WIDTH), torch.rand(batch, length) * 1.9 + 0.1
    layer = Mamba2(WIDTH)
    return {
        "Mamba-2, N 64, regular": training_step(layer, u),
        "Mamba-2, N 64, irregular": training_step(layer, u, gaps),
        "Mamba-2, N 16": training_step(Mamba2(WIDTH, 16), u),
        "Mamba, N 16": training_step(Mamba(WIDTH, 16), u),
        "Mamba, N 64": training_step(Mamba(WIDTH, 64), u),
        "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
    }, batch


def duals(batch, length, H, P, G, N):
    """The scan with all of its gradients, by backend and chunk."""
    x, dt = torch.randn(batch, length, H, P), torch.rand(batch, length, H) * 0.1
    arguments = [x, dt, -1 - 15 * torch.rand(H), *torch.randn(2, batch, length, G, N)]
    arguments = [a.requires_grad_() for a in arguments]
    grad = torch.randn_like(x)

    def both_ways(backend, chunk=None):
        return lambda: torch.autograd.grad(ssd(*arguments, chunk, backend=backend), arguments, grad)

    runs = {"loop": both_ways("cpu")}
    return runs | {f"dual form, chunks of {chunk}": both_ways("pytorch", chunk) for chunk in CHUNKS}


def norms():
    """The gated norm with its gradients."""
    x, z, grad = torch.randn(3, BATCH, 2048, 2 * WIDTH).unbind(0)
    arguments = x.requires_grad_(), torch.ones(2 * WIDTH, requires_grad=True), z.requires_grad_()

    def both_ways(backend):
        return lambda: torch.autograd.grad(rms_norm(*arguments, backend=backend), arguments, grad)

    return {"rms_norm": both_ways("cpu"), "torch operations": both_ways("pytorch")}


def streams():
    """One step of a stream."""
    u, gap = torch.randn(1, WIDTH), torch.ones(1)

    def steps(layer, *extra):
        state = layer.initial_state(1)
        return torch.no_grad()(lambda: layer.step(u, state, *extra))

    first, second = Mamba(WIDTH).freeze(), Mamba2(WIDTH).freeze()
    return {"Mamba2.step": steps(second), "Mamba2.step, with a gap": steps(second, gap), "Mamba.step": steps(first)}


def measure_memory(name, length):
    contenders(64)[0][name]()  # compilation
    run = contenders(length)[0][name]
    print_memory(run)


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for length in LENGTHS:
        runs, batch = contenders(length)
        seconds = race(runs, rounds=5 if length <= 2048 else 3)
        title = f"forward + backward, B {batch}, L {length}, D {WIDTH}"
        table(title, seconds, "Mamba-2, N 64, regular", per=batch * length, unit="ns")
        rest = {name: seconds[name] for name in ("Mamba-2, N 16", "Mamba, N 16")}
        table(f"{title}: sixteen states", rest, "Mamba-2, N 16", per=batch * length, unit="ns")
    for shape in SHAPES:
        title = "ssd, forward + backward, B {}, L {}, H {}, P {}, G {}, N {}".format(*shape)
        table(title, race(duals(*shape), rounds=3), "loop", per=shape[0] * shape[1], unit="ns")
    title = f"gated norm, forward + backward, B {BATCH}, L 2048, {2 * WIDTH} channels"
    table(title, race(norms()), "rms_norm", per=BATCH * 2048, unit="ns")
    table(f"one step, B 1, D {WIDTH}", race(streams(), calls=200), "Mamba2.step", unit="us")
    if measures_memory():
        print("\npeak memory of forward + backward above the inputs, MB")
        for length in LENGTHS:
            for name in ("Mamba-2, N 64, regular", "Mamba-2, N 16", "Mamba, N 16", "torch LSTM"):
                batch = min(BATCH, max(1, SAMPLES // length))
                print(f"  B {batch:2d}, L {length:6d}  {name:28s}{peak(__file__, name, length):10.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]))
    else:
        main()
