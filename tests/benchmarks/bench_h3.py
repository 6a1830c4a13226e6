"""H3 layer, forward and backward, against torch's LSTM and H3 written from its paper in plain torch operations."""

import math

import torch
from harness import machine, race, table

from statespace.layers import H3

TESTS = ["tests/layers/test_h3.py", "tests/kernels/test_long_convolution.py"]
BATCH, WIDTH, STATE = 4, 64, 64
LENGTHS = (512, 2048, 8192, 65_536)


class PlainH3(torch.nn.Module):
    """The paper's algorithm with kernels of the record's length and FFTs of twice that, as it is usually written."""

    def __init__(self, d_model, d_state):
        super().__init__()
        self.query, self.key, self.value, self.output = (torch.nn.Linear(d_model, d_model) for _ in range(4))
        self.taps = torch.nn.Parameter(torch.randn(d_model, d_state) / math.sqrt(d_state))
        self.log_step = torch.nn.Parameter(torch.rand(d_model) * math.log(100) - math.log(1000))
        self.log_A_real = torch.nn.Parameter(torch.full((d_model, d_state // 2), math.log(0.5)))
        self.A_imag = torch.nn.Parameter(math.pi * torch.arange(d_state // 2).float().repeat(d_model, 1))
        self.C = torch.nn.Parameter(torch.randn(d_model, d_state // 2, 2) * math.sqrt(0.5))
        self.D = torch.nn.Parameter(torch.randn(d_model))

    def forward(self, u):
        L = u.shape[1]
        q, k, v = (projection(u).transpose(1, 2) for projection in (self.query, self.key, self.value))
        A = torch.complex(-self.log_A_real.exp(), self.A_imag)
        z = A * self.log_step.exp().unsqueeze(-1)
        C = torch.view_as_complex(self.C) * (torch.exp(z) - 1) / A
        kernel = 2 * torch.einsum("hn,hnl->hl", C, torch.exp(z.unsqueeze(-1) * torch.arange(L))).real
        product = convolve(k, self.taps) * v
        y = q * (convolve(product, kernel) + self.D.unsqueeze(-1) * product)
        return self.output(y.transpose(1, 2)), None


def convolve(u, k):
    L = u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u, 2 * L) * torch.fft.rfft(k, 2 * L), 2 * L)[..., :L]


def training_step(layer, u, *extra):
    def run():
        layer.zero_grad(set_to_none=True)
        y, _ = layer(u, *extra)
        y.square().mean().backward()

    return run


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for length in LENGTHS:
        batch = min(BATCH, max(1, BATCH * 2048 // length))
        u = torch.randn(batch, length, WIDTH)
        gaps = torch.rand(batch, length) * 1.9 + 0.1
        layer = H3(WIDTH, d_state=STATE)
        contenders = {
            "H3, regular": training_step(layer, u),
            "H3, irregular": training_step(layer, u, gaps),
            "H3, regular, heads of 4": training_step(H3(WIDTH, d_state=STATE, head_dim=4), u),
            "torch LSTM": training_step(torch.nn.LSTM(WIDTH, WIDTH, batch_first=True), u),
        }
        if length <= 8192:  # its powers take (channels, nodes, length) complex numbers
            contenders["plain H3 in torch"] = training_step(PlainH3(WIDTH, STATE), u)
        seconds = race(contenders, rounds=5)
        title = f"forward + backward, B {batch}, L {length}, D {WIDTH}, N {STATE}"
        table(title, seconds, "H3, regular", per=batch * length, unit="ns")
        irregular = {name: seconds[name] for name in ("H3, irregular", "torch LSTM")}
        table(f"{title}: irregular gaps", irregular, "H3, irregular", per=batch * length, unit="ns")


if __name__ == "__main__":
    main()
