"""What hybrids add to state-space layers, forward and backward: attention, and mixtures of experts.

Attention stands beside torch's own, which has no phases and takes a mask or none. A mixture stands beside the sum over
all experts, which costs E maps, and beside one map, the least that it can cost with one expert a step.
"""

import torch
from harness import machine, race, table
from torch.nn import functional as F

from statespace.layers import Attention, Mamba
from statespace.models import MixtureOfExperts

TESTS = ["tests/layers/test_attention.py", "tests/models/test_experts.py"]
BATCH, D_MODEL = 4, 64


def trained(layer, *arguments):
    """Forward and backward of a layer."""

    def run():
        output = layer(*arguments)
        (output[0] if isinstance(output, tuple) else output).sum().backward()

    return run


def attention(length):
    torch.manual_seed(0)
    u = torch.randn(BATCH, length, D_MODEL, requires_grad=True)
    dt = torch.rand(BATCH, length) + 0.5
    ragged = dt.clone()
    ragged[1, length // 2 :] = 0
    peer = torch.nn.MultiheadAttention(D_MODEL, 4, bias=False, batch_first=True)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(length)
    layer = Attention(D_MODEL)
    contenders = {
        "Attention": trained(layer, u, dt),
        "Attention, ragged": trained(layer, u, ragged),
        "Attention, window=128": trained(Attention(D_MODEL, window=128), u, dt),
        "Mamba": trained(Mamba(D_MODEL), u, dt),
        "torch MultiheadAttention": lambda: (
            peer(u, u, u, attn_mask=mask, is_causal=True, need_weights=False)[0].sum().backward()
        ),
    }
    table(f"attention, B {BATCH}, L {length}, D {D_MODEL}", race(contenders, rounds=5), "Attention", unit="ms")


def experts(n_experts):
    torch.manual_seed(0)
    h = torch.randn(BATCH * 2048, D_MODEL, requires_grad=True)
    mixtures = {k: MixtureOfExperts(D_MODEL, n_experts, top_k=k).eval() for k in (1, 2)}
    one = MixtureOfExperts(D_MODEL, 1)
    layer = mixtures[2]

    def dense():
        p = layer.router(h).softmax(dim=-1)
        gate, value = torch.einsum("nd,ewd->enw", h, layer.inner).chunk(2, dim=-1)
        answers = torch.einsum("enw,edw->end", F.silu(gate) * value, layer.outer)
        torch.einsum("ne,end->nd", p, answers).sum().backward()

    contenders = {
        "MixtureOfExperts, top_k=2": trained(layer, h),
        "MixtureOfExperts, top_k=1": trained(mixtures[1], h),
        "all experts": dense,
        "one map": trained(one, h),
    }
    title = f"{n_experts} experts, {len(h)} steps, D {D_MODEL}"
    table(title, race(contenders, rounds=5), "MixtureOfExperts, top_k=2", unit="ms")


def main():
    print(machine(["torch"]))
    for length in (512, 2048, 4096):
        attention(length)
    for n_experts in (4, 16):
        experts(n_experts)


if __name__ == "__main__":
    main()
