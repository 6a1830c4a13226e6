"""Selective scan, forward and with every gradient, and its peak memory, against what other packages do on a CPU.

mamba.py's parallel scan and the reference scan of state-spaces/mamba are read from clones that MAMBA_PY_REPOSITORY and
MAMBA_REPOSITORY name; of the latter the one function alone, as its package asks for CUDA. "torch loop" is the
recurrence in torch, sample by sample. The peers have neither gaps nor initial states, so that none are given.
"""

import ast
import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import s4_repository
import torch
from harness import machine, race, table

from statespace.kernels import selective_scan, selective_state_update

TESTS = ["tests/kernels/test_selective_scan.py", "tests/kernels/test_selective_state_update.py"]
# Batch, channels, length, states.
SHAPES = ((4, 128, 2048, 16), (4, 128, 512, 16), (1, 128, 16_384, 16), (4, 128, 2048, 64), (4, 1024, 1024, 16))
# Beyond it, in numbers of states over all steps, the peers need too much memory or time.
PEER_SIZE = 4 * 128 * 2048 * 16
OURS, REFERENCE = "selective_scan, cpu", "state-spaces/mamba reference"
# Beyond it the gradient of the reference's slices, each as large as what it is taken from, outweighs all else.
REFERENCE_LENGTH = 512


def problem(batch, channels, length, states, dtype=torch.float32):
    """Inputs as a Mamba layer makes them: channels last in memory, steps between 1e-3 and 1e-1."""
    torch.manual_seed(0)
    draw = lambda width: torch.randn(batch, length, width, dtype=dtype).transpose(1, 2)  # noqa: E731
    A = -torch.arange(1, states + 1, dtype=dtype).expand(channels, states).clone()
    bias = torch.expm1(torch.exp(torch.empty(channels, dtype=dtype).uniform_(-6.9, -2.3))).log()
    arguments = draw(channels), 0.1 * draw(channels), A, draw(states), draw(states), torch.ones(channels, dtype=dtype)
    return [x.detach().requires_grad_() for x in (*arguments, draw(channels), bias)]


def ours(backend):
    return lambda *x: selective_scan(*x, delta_softplus=True, backend=backend)


def loop(u, delta, A, B, C, D, z, bias):
    """Sample by sample."""
    h = torch.nn.functional.softplus(delta + bias[:, None])
    x, outputs = u.new_zeros(u.shape[0], *A.shape), []
    # Not u[..., k]: the gradient of each such piece would be as large as u.
    for h_k, v_k, B_k, C_k in zip(*(m.unbind(-1) for m in (h, h * u, B, C)), strict=True):
        x = torch.exp(h_k.unsqueeze(-1) * A) * x + B_k.unsqueeze(1) * v_k.unsqueeze(-1)
        outputs.append((x * C_k.unsqueeze(1)).sum(-1))
    return (torch.stack(outputs, -1) + D[:, None] * u) * torch.nn.functional.silu(z)


def clone(variable, name):
    """The folder that a variable of the environment names, or None, with a word."""
    root = os.environ.get(variable)
    if root is None or not Path(root).is_dir():
        print(f"{name} not found: skipped ({variable}={root} has to name a clone)")
        return None
    return Path(root)


def parallel_scan():
    """mamba.py's way: decays and inputs of all steps, its parallel scan, the read-out."""
    root = clone("MAMBA_PY_REPOSITORY", "mamba.py")
    if root is None:
        return None
    sys.path.insert(0, str(root))
    try:
        from mambapy.pscan import pscan
    finally:
        sys.path.remove(str(root))

    def scan(u, delta, A, B, C, D, z, bias):
        u, h = u.transpose(1, 2), torch.nn.functional.softplus(delta.transpose(1, 2) + bias)
        decays, inputs = torch.exp(h.unsqueeze(-1) * A), (h * u).unsqueeze(-1) * B.transpose(1, 2).unsqueeze(2)
        y = (pscan(decays, inputs) @ C.transpose(1, 2).unsqueeze(-1)).squeeze(3) + D * u
        return (y * torch.nn.functional.silu(z.transpose(1, 2))).transpose(1, 2)

    return scan


def reference_scan():
    """``selective_scan_ref`` alone, out of its file."""
    root = clone("MAMBA_REPOSITORY", "state-spaces/mamba")
    if root is None:
        return None
    source = (root / "mamba_ssm" / "ops" / "selective_scan_interface.py").read_text()
    function = next(x for x in ast.parse(source).body if getattr(x, "name", None) == "selective_scan_ref")
    einops = s4_repository.STAND_INS.get("einops", lambda: types.SimpleNamespace())()
    scope = {"torch": torch, "F": torch.nn.functional, "rearrange": einops.rearrange, "repeat": einops.repeat}
    exec(ast.unparse(function), scope)
    return lambda *x: scope["selective_scan_ref"](*x, delta_softplus=True)


def contenders():
    found = {
        OURS: ours("cpu"),
        "selective_scan, pytorch": ours("pytorch"),
        "mamba.py pscan": parallel_scan(),
        REFERENCE: reference_scan(),
        "torch loop": loop,
    }
    return {name: scan for name, scan in found.items() if scan is not None}


def training_step(scan, arguments):
    def run():
        torch.autograd.grad(scan(*arguments).square().mean(), arguments)

    return run


def forward(scan, arguments):
    def run():
        with torch.no_grad():
            scan(*arguments)

    return run


def peak(name, batch, channels, length, states):
    """Megabytes that a training step adds to the peak of a process of its own, after a step on a short record."""
    scan = contenders()[name]
    training_step(scan, problem(batch, channels, 32, states))()
    arguments = problem(batch, channels, length, states)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    training_step(scan, arguments)()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def steps():
    """One sample at a time, as a stream of one record takes them."""
    u, delta, A, B, C, D, z, bias = (x.detach() for x in problem(1, 128, 256, 16))
    state = torch.zeros(1, 128, 16)

    def run():
        x = state
        for k in range(256):
            _, x = selective_state_update(
                x, u[..., k], delta[..., k], A, B[..., k], C[..., k], D, z[..., k], bias, dt_softplus=True
            )

    with torch.no_grad():
        table(
            "one step, B 1, D 128, N 16", race({"selective_state_update": run}, 5), "selective_state_update", 256, "us"
        )


def main():
    print(machine(["torch", "numba"]), f"{torch.get_num_threads()} threads")
    every = contenders()
    for shape in SHAPES:
        arguments = problem(*shape)
        batch, channels, length, states = shape
        size = batch * channels * length * states
        racing = every if size <= PEER_SIZE else {OURS: every[OURS]}
        title = f"B {batch}, D {channels}, L {length}, N {states}, with softplus, D and gate"
        for kind, make in (("forward", forward), ("forward + backward", training_step)):
            if make is training_step and length > REFERENCE_LENGTH and REFERENCE in racing:
                print(f"\n{REFERENCE}: its backward takes minutes here, passed over")
                racing = {name: scan for name, scan in racing.items() if name != REFERENCE}
            seconds = race({name: make(scan, arguments) for name, scan in racing.items()}, rounds=2)
            table(f"{kind}, {title}", seconds, OURS, unit="ms")
        if size == PEER_SIZE:
            print(
                f"\npeak memory of a training step, {title}; u alone has {batch * channels * length * 4 / 2**20:.0f} MB"
            )
            for name in racing:
                command = [sys.executable, __file__, name, *map(str, shape)]
                environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
                result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                print(f"  {name:34s}{float(result.stdout.splitlines()[-1]):10.0f} MB")
    steps()


if __name__ == "__main__":
    peak(sys.argv[1], *map(int, sys.argv[2:])) if len(sys.argv) > 1 else main()
