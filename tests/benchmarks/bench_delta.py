"""The delta rule against a plain loop and flash-linear-attention's naive chunks; DeltaNet against torch's LSTM.

flash-linear-attention (https://github.com/fla-org/flash-linear-attention) is read from a clone that the environment
variable FLA_REPOSITORY names. Its kernels are Triton's; what runs without a GPU are the functions of its two
``naive.py``. They scale the queries by 1/√K and divide nothing by norms.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from harness import machine, measures_memory, peak, print_memory, race, table

from statespace.kernels import delta_rule
from statespace.layers import DeltaNet

TESTS = ["tests/kernels/test_delta_rule.py", "tests/layers/test_deltanet.py"]
# Batch, length, heads, and channels of a head.
SHAPES = [(4, 2048, 4, 16), (4, 2048, 1, 64), (1, 2048, 4, 128)]


def naive(rule):
    """flash-linear-attention's module of naive functions for ``rule``, or None."""
    path = Path(os.environ.get("FLA_REPOSITORY", "")) / "fla" / "ops" / rule / "naive.py"
    if "FLA_REPOSITORY" not in os.environ or not path.exists():
        return None
    if "einops" not in sys.modules and importlib.util.find_spec("einops") is None:
        sys.modules["einops"] = stand_in()
    spec = importlib.util.spec_from_file_location(f"fla_{rule}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in():
    """What these functions need of einops, where it is not installed: one axis cut in two, and two made one."""
    einops = ModuleType("einops")

    def rearrange(x, pattern, c=None):
        if pattern == "b h (n c) d -> b h n c d":
            return x.unflatten(2, (-1, c))
        if pattern == "b h n c d -> b h (n c) d":
            return x.flatten(2, 3)
        raise ValueError(f"unknown pattern {pattern!r}")

    einops.rearrange = rearrange
    return einops


def problem(B, L, H, K, gated):
    q, k, v = (torch.randn(B, L, H, K) for _ in range(3))
    decay = -torch.rand(B, L, H) * 0.2 if gated else None
    inputs = [q, torch.nn.functional.normalize(k, dim=-1), v, torch.rand(B, L, H), decay]
    return [None if x is None else x.requires_grad_() for x in inputs]


def plain_loop(q, k, v, beta, decay):
    S, outputs = 0, []
    for t in range(k.shape[1]):
        key = k[:, t].unsqueeze(-1)
        if decay is not None:
            S = S * decay[:, t, :, None, None].exp()
        read = (S * key).sum(-2) if t else 0
        S = S + key * (beta[:, t].unsqueeze(-1) * (v[:, t] - read)).unsqueeze(-2)
        outputs.append((S * q[:, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outputs, dim=1)


def theirs(gated):
    """flash-linear-attention's chunks with our arguments, or None."""
    module = naive("gated_delta_rule" if gated else "delta_rule")
    if module is None:
        return None
    if gated:
        return lambda q, k, v, beta, decay: module.naive_chunk_gated_delta_rule(q, k, v, decay, beta)[0]
    heads_first = lambda *tensors: [x.transpose(1, 2) for x in tensors]  # noqa: E731
    return lambda q, k, v, beta, decay: module.delta_rule_chunkwise(*heads_first(q, k, v, beta))[0].transpose(1, 2)


def backward(call, inputs, scale=1.0):
    def run():
        (scale * call(*inputs)).square().mean().backward()

    return run


def kernels():
    for B, L, H, K in SHAPES:
        for gated in (False, True):
            inputs = problem(B, L, H, K, gated)
            ours = lambda *x: delta_rule(*x, backend="cpu")[0]  # noqa: E731
            runs = {
                "statespace, cpu": backward(ours, inputs),
                "statespace, pytorch": backward(lambda *x: delta_rule(*x, backend="pytorch")[0], inputs),
            }
            if K == 16:  # it takes seconds
                runs["plain loop in torch"] = backward(plain_loop, inputs)
            peer = theirs(gated)
            if peer is None:
                print("flash-linear-attention not found: skipped. FLA_REPOSITORY may name a clone.")
            else:
                with torch.no_grad():
                    torch.testing.assert_close(peer(*inputs) * K**0.5, ours(*inputs), rtol=1e-3, atol=1e-4)
                runs["flash-linear-attention, naive"] = backward(peer, inputs, K**0.5)
            title = f"delta rule, {'gated' if gated else 'plain'}, B {B}, L {L}, H {H}, K = V = {K}: forward + backward"
            table(title, race(runs, rounds=2), "statespace, cpu", unit="ms")


def contenders(B, L, D):
    u, dt = torch.randn(B, L, D), torch.rand(B, L) + 0.1

    def training_step(layer, *extra):
        def run():
            layer.zero_grad(set_to_none=True)
            layer(u, *extra)[0].square().mean().backward()

        return run

    return {
        "DeltaNet": training_step(DeltaNet(D)),
        "DeltaNet, irregular": training_step(DeltaNet(D), dt),
        "Gated DeltaNet": training_step(DeltaNet(D, gated=True)),
        "Gated DeltaNet, irregular": training_step(DeltaNet(D, gated=True), dt),
        "torch LSTM": training_step(torch.nn.LSTM(D, D, batch_first=True)),
    }


def measure_memory(name, *shape):
    contenders(1, 32, shape[-1])[name]()  # compilation
    run = contenders(*shape)[name]
    print_memory(run)


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    kernels()
    for shape in ((4, 2048, 64), (1, 8192, 64), (2, 1024, 256)):
        runs = contenders(*shape)
        table("layer, B {}, L {}, D {}: forward + backward".format(*shape), race(runs, rounds=5), "DeltaNet", unit="ms")
    if measures_memory():
        print("\npeak memory of forward + backward above the inputs, MB")
        for shape in ((4, 2048, 64), (1, 16384, 64)):
            for name in contenders(1, 1, 4):
                print("  B {}, L {:5d}, D {}".format(*shape), f"  {name:28s}{peak(__file__, name, *shape):8.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
