"""RWKV's time mixing, forward and backward, against torch's LSTM and the paper's recurrence as a plain torch loop; and
its kernel alone, against its torch backend and that loop."""

import torch
from harness import machine, race, table

from statespace.kernels import wkv
from statespace.layers import RWKV, RWKVBlock

TESTS = ["tests/layers/test_rwkv.py", "tests/kernels/test_wkv.py"]
BATCH, WIDTH = 4, 64
LENGTHS = (512, 2048, 16_384)
# A loop over time in torch keeps some forty tensors a step for its gradient, and takes minutes beyond.
LOOP_LENGTH = 2048


def plain_wkv(w, u, k, v):
    """The paper's recurrence with its running maximum, one step after the other, as it is usually written."""
    a, b, o = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e30)
    outputs = []
    for t in range(k.shape[1]):
        key, value = k[:, t], v[:, t]
        top = torch.maximum(o, u + key)
        old, new = torch.exp(o - top), torch.exp(u + key - top)
        outputs.append((old * a + new * value) / (old * b + new))
        top = torch.maximum(o - w, key)
        old, new = torch.exp(o - w - top), torch.exp(key - top)
        a, b, o = old * a + new * value, old * b + new, top
    return torch.stack(outputs, dim=1)


class PlainRWKV(torch.nn.Module):
    """Time mixing from the paper's equations in torch operations, with the weights of ours."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, u):
        layer = self.layer
        before = torch.nn.functional.pad(u, (0, 0, 1, -1))
        mixes = layer.mix_r, layer.mix_k, layer.mix_v
        weights = layer.in_proj.weight.chunk(3)
        r, k, v = ((mix * u + (1 - mix) * before) @ weight.T for mix, weight in zip(mixes, weights, strict=True))
        average = plain_wkv(torch.exp(layer.log_decay), layer.bonus, k, v)
        return layer.out_proj(torch.sigmoid(r) * average), None


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y, _ = layer(u, *extra)
        y.square().mean().backward()

    return run


def kernel_step(function, *tensors):
    def run():
        y = function(*tensors)
        torch.autograd.grad((y[0] if isinstance(y, tuple) else y).square().mean(), tensors[:4])

    return run


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for length in LENGTHS:
        u = torch.randn(BATCH, length, WIDTH)
        gaps = torch.rand(BATCH, length) * 1.9 + 0.1
        layer = RWKV(WIDTH, zero_init=False)
        contenders = {
            "RWKV, regular": training_step(layer, u),
            "RWKV, irregular": training_step(layer, u, gaps),
            "RWKV block, irregular": training_step(RWKVBlock(WIDTH, zero_init=False), u, gaps),
            "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
        }
        if length <= LOOP_LENGTH:
            contenders["plain torch loop"] = training_step(PlainRWKV(layer), u)
        seconds = race(contenders, rounds=3)
        title = f"forward + backward, B {BATCH}, L {length}, D {WIDTH}"
        table(title, seconds, "RWKV, regular", per=BATCH * length, unit="ns")
        irregular = {name: seconds[name] for name in ("RWKV, irregular", "torch LSTM")}
        table(f"{title}: irregular gaps", irregular, "RWKV, irregular", per=BATCH * length, unit="ns")

        w, bonus = torch.rand(WIDTH, requires_grad=True), torch.randn(WIDTH, requires_grad=True)
        k, v = (torch.randn(BATCH, length, WIDTH, requires_grad=True) for _ in range(2))
        irregular = w, bonus, k, v, None, gaps
        contenders = {
            "wkv, irregular": kernel_step(wkv, *irregular),
            "wkv, regular": kernel_step(wkv, w, bonus, k, v),
            "its torch backend, irregular": kernel_step(lambda *x: wkv(*x, backend="pytorch"), *irregular),
        }
        if length <= LOOP_LENGTH:
            contenders["plain torch loop, regular"] = kernel_step(plain_wkv, w, bonus, k, v)
        table(f"wkv alone, {title}", race(contenders, rounds=3), "wkv, irregular", per=BATCH * length, unit="ns")


if __name__ == "__main__":
    main()
