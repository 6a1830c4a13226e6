"""The kernels under the linear layers, forward and backward, against what one would write in torch operations.

Cauchy and Vandermonde products with their whole matrix, scans by doubling over the record or step by step.
"""

import torch
from harness import machine, race, table

from statespace.kernels import cauchy, dplr_scan, linear_scan, vandermonde

TESTS = [f"tests/kernels/test_{name}.py" for name in ("cauchy", "vandermonde", "linear_scan", "dplr_scan")]
CHANNELS, PAIRS = 64, 32
LENGTHS = (512, 2048, 8192)
# Beyond it a loop over steps takes seconds, each with its own graph.
LONGEST_LOOP = 512


def both_ways(function, *inputs):
    """Calls ``function`` and its backward pass; inputs are leaves of their own."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]

    def run():
        out = function(*inputs)
        torch.autograd.grad((torch.view_as_real(out) if out.is_complex() else out).square().mean(), inputs)

    return run


def whole_cauchy(v, z, w):
    """Both halves of every pair, as S4's code has it where no CUDA extension is built."""
    v, w = torch.cat([v, v.conj()], -1), torch.cat([w, w.conj()], -1)
    return (v.unsqueeze(-1) / (z.unsqueeze(-2) - w.unsqueeze(-1))).sum(-2)


def whole_vandermonde(c, rate, length):
    return (c.unsqueeze(-1) * torch.exp(rate.unsqueeze(-1) * torch.arange(length))).sum(-2).real


def doubling(a, b):
    """Hillis and Steele's scan: log2 L passes over the record."""
    reach, length = 1, b.shape[-1]
    while reach < length:
        before = torch.nn.functional.pad(b[..., :-reach], (reach, 0))
        b, a = b + a * before, a * torch.nn.functional.pad(a[..., :-reach], (reach, 0))
        reach *= 2
    return b


def dense_steps(u, dt, Lambda, P, B, C):
    """The bilinear rule with a dense solve a step, in all states."""
    Lambda, P, B, C = (torch.cat([x, x.conj()], -1) for x in (Lambda, P, B, C))
    A = torch.diag_embed(Lambda) - P.mT @ P.conj()
    x, eye, outputs = u.new_zeros(len(u), *B.shape, dtype=A.dtype), torch.eye(A.shape[-1]), []
    for k in range(u.shape[-1]):
        half = dt[:, k, None, None, None] / 2
        right = x.unsqueeze(-1) + half * (A @ x.unsqueeze(-1)) + 2 * half * (B * u[..., k, None]).unsqueeze(-1)
        x = torch.linalg.solve(eye - half * A, right).squeeze(-1)
        outputs.append((C * x).real.sum(-1))
    return torch.stack(outputs, -1)


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.complex64)  # noqa: E731
    Lambda = torch.complex(-torch.rand(CHANNELS, PAIRS) - 0.1, torch.randn(CHANNELS, PAIRS))
    P, B, C = draw(CHANNELS, 1, PAIRS), draw(CHANNELS, PAIRS), draw(CHANNELS, PAIRS)
    for length in LENGTHS:
        z = 1j * torch.linspace(-30.0, 30.0, length // 2)
        runs = {
            "cauchy": both_ways(lambda v, w, z=z: cauchy(v, z, w, conjugate=True), B, Lambda),
            "the whole matrix in torch": both_ways(lambda v, w, z=z: whole_cauchy(v, z, w), B, Lambda),
        }
        table(f"{length // 2} nodes, {CHANNELS} systems of {PAIRS} pairs", race(runs, rounds=3), "cauchy", unit="ms")
        runs = {
            "vandermonde": both_ways(
                lambda c, x, L=length: vandermonde(c, x, L, log_nodes=True, real=True), B, 0.1 * Lambda
            ),
            "all powers in torch": both_ways(lambda c, x, L=length: whole_vandermonde(c, x, L), B, 0.1 * Lambda),
        }
        table(f"{length} powers, {CHANNELS} systems of {PAIRS} nodes", race(runs, rounds=3), "vandermonde", unit="ms")
        for kind in (torch.float32, torch.complex64):
            a, b = torch.rand(4, CHANNELS, length).to(kind), torch.randn(4, CHANNELS, length, dtype=kind)
            runs = {"linear_scan": both_ways(linear_scan, a, b), "by doubling, in torch": both_ways(doubling, a, b)}
            title = f"x_k = a_k x_{{k-1}} + b_k, {str(kind)[6:]}, {4 * CHANNELS} rows of {length}"
            table(title, race(runs, rounds=3), "linear_scan", unit="ms")
        u, dt = torch.randn(1, CHANNELS, length), torch.rand(1, length) + 0.1
        scan = lambda *x: dplr_scan(*x)[0]  # noqa: E731
        torch_scan = lambda *x: dplr_scan(*x, backend="pytorch")[0]  # noqa: E731
        runs = {"dplr_scan": both_ways(scan, u, dt, Lambda, P, B, C)}
        if length <= LONGEST_LOOP:
            runs["Woodbury's step in torch"] = both_ways(torch_scan, u, dt, Lambda, P, B, C)
            runs["a dense solve a step in torch"] = both_ways(dense_steps, u, dt, Lambda, P, B, C)
        title = f"diagonal plus rank 1, irregular, {CHANNELS} systems of {PAIRS} pairs, {length} samples"
        table(title, race(runs, rounds=2), "dplr_scan", unit="ms")


if __name__ == "__main__":
    main()
