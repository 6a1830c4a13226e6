"""S4 layer, forward and backward, against the S4 repository's S4 (DPLR) and S4D and torch's LSTM of the same width.

The repository has no package: S4_REPOSITORY names a clone of it. Its file needs einops and Lightning for a few calls,
which small stand-ins serve here; its pure torch path runs, as it does wherever its CUDA extension is not built.
"""

import importlib.util
import logging
import math
import os
import sys
import types
import warnings
from pathlib import Path

import torch
from harness import machine, race, table

from statespace.layers import S4
from statespace.lti import hippo

TESTS = ["tests/layers/test_s4.py", "tests/kernels/test_dplr_scan.py", "tests/kernels/test_cauchy.py"]
BATCH, WIDTH, STATE = 4, 64, 64
LENGTHS = (512, 2048, 8192, 65_536)
# The repository's kernel holds (1 + rank)² matrices of states by nodes for each channel.
LARGEST = 2**31


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y, _ = layer(u, *extra)
        y.square().mean().backward()

    return run


def rearrange(x, pattern, **sizes):
    """einops' function for the patterns of one file: named axes, groups in brackets, no ellipsis."""
    left, right = (side.replace("(", " ( ").replace(")", " ) ").split() for side in pattern.split("->"))
    groups, names, inside = [], [], False
    for word in left:
        if word in "()":
            inside = word == "("
            if inside:
                groups.append([])
        elif inside:
            groups[-1].append(word)
        else:
            groups.append([word])
    for size, group in zip(x.shape, groups, strict=True):
        known = math.prod(sizes.get(name, 1) for name in group)
        for name in group:
            sizes.setdefault(name, size // known)
        names += group
    x = x.reshape([sizes[name] for name in names])
    order = [word for word in right if word not in "()1"]
    for name in order:
        if name not in names:
            x, names = x.unsqueeze(0).expand(sizes[name], *x.shape), [name, *names]
    x = x.permute([names.index(name) for name in order] + [i for i, name in enumerate(names) if name not in order])
    shape, inside = [], False
    for word in right:
        if word in "()":
            inside = word == "("
            if inside:
                shape.append(1)
        elif inside:
            shape[-1] *= sizes[word]
        else:
            shape.append(1 if word == "1" else sizes[word])
    return x.reshape(shape)


def repository():
    """The module of the clone's standalone S4, or None."""
    path = Path(os.environ.get("S4_REPOSITORY", "")) / "models" / "s4" / "s4.py"
    if not os.environ.get("S4_REPOSITORY") or not path.exists():
        return None
    einops, lightning, utilities = (types.ModuleType(name) for name in ("einops", "pytorch_lightning", "utilities"))
    einops.rearrange = einops.repeat = rearrange
    utilities.rank_zero_only = lambda function: function
    lightning.utilities = utilities
    standing_in = {"einops": einops, "pytorch_lightning": lightning, "pytorch_lightning.utilities": utilities}
    before = {name: sys.modules.get(name) for name in standing_in}
    sys.modules.update(standing_in)
    logging.disable(logging.WARNING)
    try:
        spec = importlib.util.spec_from_file_location("s4_repository", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        logging.disable(logging.NOTSET)
        for name, own in before.items():
            sys.modules.pop(name) if own is None else sys.modules.update({name: own})
    return module


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    peer = repository()
    if peer is None:
        print("S4's repository not found: skipped. S4_REPOSITORY=/path/to/clone names it.")
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for length in LENGTHS:
        # The same number of samples each time from 2048 on, so that a cliff would show in the seconds.
        batch = BATCH if length < 2048 else max(1, BATCH * 2048 // length)
        u, gaps = torch.randn(batch, length, WIDTH), torch.rand(batch, length) * 1.9 + 0.1
        contenders = {
            "S4, regular": training_step(S4(WIDTH, STATE), u),
            "S4, irregular": training_step(S4(WIDTH, STATE), u, gaps),
            "S4 (LegT, rank 2), irregular": training_step(S4(WIDTH, STATE, measure="legt"), u, gaps),
            "S4, the paper's convolution": training_step(S4(WIDTH, STATE, mode="convolution"), u),
            "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
        }
        if peer is not None:
            options = {"d_state": STATE, "l_max": length, "transposed": False}
            contenders["S4D, state-spaces/s4"] = training_step(peer.FFTConv(WIDTH, mode="diag", **options), u)
            if 4 * WIDTH * STATE * length // 2 * 8 < LARGEST:
                contenders["S4, state-spaces/s4"] = training_step(peer.FFTConv(WIDTH, mode="dplr", **options), u)
            else:
                print(
                    f"\nS4, state-spaces/s4 skipped at L {length}: its Cauchy matrices take over {LARGEST >> 30} GiB."
                )
        seconds = race(contenders, rounds=3 if length > 2048 else 5)
        title = f"forward + backward, B {batch}, L {length}, D {WIDTH}, N {STATE}"
        table(title, seconds, "S4, regular", per=batch * length, unit="ns")
        kept = {name: values for name, values in seconds.items() if name in ("S4, irregular", "torch LSTM")}
        table(f"{title}: irregular", kept, "S4, irregular", per=batch * length, unit="ns")
    measures()


def measures():
    """Every HiPPO measure as the initialisation, on irregular gaps: only the rank of P tells their times apart."""
    u, gaps = torch.randn(BATCH, 2048, WIDTH), torch.rand(BATCH, 2048) * 1.9 + 0.1
    layers = {measure: S4(WIDTH, STATE, measure=measure) for measure in hippo.MEASURES}
    contenders = {f"{name}, rank {layer.rank}": training_step(layer, u, gaps) for name, layer in layers.items()}
    contenders["torch LSTM"] = training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u)
    title = f"each measure, forward + backward, irregular, B {BATCH}, L 2048, D {WIDTH}, N {STATE}"
    table(title, race(contenders, rounds=5), "legs, rank 1", per=BATCH * 2048, unit="ns")


if __name__ == "__main__":
    main()
