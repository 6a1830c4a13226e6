"""Kernels as torch operators, which tracing and `torch.compile` take as one piece and CUDA graphs capture."""

from contextlib import nullcontext
from functools import wraps

import torch


def operator(name, allocate, compute):
    """A torch operator ``statespace::name`` that allocates its results and has a kernel fill them.

    ``allocate(*arguments)`` returns the results as empty tensors; its annotations (Tensor, Tensor | None, int, float,
    bool) are the operator's signature, and all that tracing runs. ``compute(*results, *arguments)`` fills them. Neither
    may return or store an argument. Gradients are registered on what is returned: ``register_autograd``.
    """

    @wraps(allocate)
    def run(*arguments):
        results = allocate(*arguments)
        each = results if isinstance(results, tuple) else (results,)
        device = each[0].device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            compute(*each, *arguments)
        return results

    found = torch.library.custom_op(f"statespace::{name}", run, mutates_args=())
    found.register_fake(allocate)
    return found
