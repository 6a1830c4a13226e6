"""Where training runs: the device, its precision, and the seam behind which several processes may stand.

Above: the loop, which calls `OneDevice` or anything with the same methods. Below: torch.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from statespace.kernels.dispatch import reason_against
from statespace.training.checkpoints import write_checkpoint

PRECISIONS = ("float32", "bfloat16")


class Devices(Protocol):
    """What the loop asks of the place where it runs: four methods, and which part of a batch and of a sum is its own.

    Every process runs the same loop over the same batches in the same order, and computes its share of each.

    Attributes
    ----------
    device : torch.device
        Where this process computes.
    rank, size : int
        The number of this process and how many there are.
    """

    device: torch.device
    rank: int
    size: int

    def setup(self, model: nn.Module, make_optimizer: Callable[[nn.Module], Any]) -> tuple[nn.Module, Any]:
        """The model as it is run, on its device, and its optimiser. The model that was given keeps its parameters."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this process's loss; over several processes the parameters then hold the mean."""
        ...

    def save(self, path: str | os.PathLike, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Write a checkpoint, once for all processes."""
        ...

    def barrier(self) -> None:
        """Wait for all processes."""
        ...

    def share(self, indices: np.ndarray) -> np.ndarray:
        """The series of a batch that this process reads."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of values over all processes."""
        ...


class OneDevice(Devices):
    """This process alone, on one device.

    Parameters
    ----------
    device : str or torch.device, default="cpu"

    Attributes
    ----------
    device : torch.device
    rank, size : int
        0 and 1.

    Examples
    --------
    >>> import torch
    >>> from statespace.training import OneDevice
    >>> devices = OneDevice()
    >>> model, optimizer = devices.setup(torch.nn.Linear(1, 1), lambda model: torch.optim.SGD(model.parameters(), 0.1))
    >>> devices.backward(model(torch.ones(1, 1)).sum())
    >>> model.weight.grad
    tensor([[1.]])
    """

    rank, size = 0, 1

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)

    def setup(self, model: nn.Module, make_optimizer: Callable[[nn.Module], Any]) -> tuple[nn.Module, Any]:
        """The model, moved to the device, and its optimiser."""
        model.to(self.device)
        return model, make_optimizer(model)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss`` to the parameters'."""
        loss.backward()

    def save(self, path: str | os.PathLike, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Write a checkpoint."""
        write_checkpoint(Path(path), tensors, document)

    def barrier(self) -> None:
        """Nobody to wait for."""

    def share(self, indices: np.ndarray) -> np.ndarray:
        """All of them."""
        return indices

    def total(self, values: Tensor) -> Tensor:
        """The values."""
        return values


def answering_type(device: torch.device) -> torch.dtype:
    """The type in which a fitted network answers: float64 on a CPU, float32 on a GPU.

    On a CPU rounding then hides what a batch does to a series' answer, for twice the time. Many GPUs take 32 or 64
    times as long in float64, and Apple's know none.
    """
    return torch.float64 if device.type == "cpu" else torch.float32


def choose_device(device: str | torch.device = "auto", *, verbose: int = 0) -> torch.device:
    """The device to compute on.

    Parameters
    ----------
    device : str or torch.device, default="auto"
        ``"auto"`` takes a CUDA device where there is one and the CPU elsewhere. Apple's ``"mps"`` is taken only when
        asked for: it knows neither float64 nor every complex operation.
    verbose : int, default=0
        Above 0: say which one ``"auto"`` chose.

    Raises
    ------
    ValueError
        There is no such device here.

    Examples
    --------
    >>> from statespace.training import choose_device
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if verbose:
            print(f"device='auto': training on {_described(chosen)}")
        return chosen
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here: {reason} Use 'auto' or 'cpu'.") from None
    return chosen


def check_precision(precision: str) -> None:
    """Refuse a precision that `fit` does not know.

    Raises
    ------
    ValueError
        Neither ``"float32"`` nor ``"bfloat16"``.

    Examples
    --------
    >>> from statespace.training import check_precision
    >>> check_precision("bfloat16")
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be 'float32' or 'bfloat16'. Got {precision!r} instead.")


def at_precision(loss, precision: str, device: torch.device):
    """The loss of a model that computes at this precision on this device.

    Parameters
    ----------
    loss : callable
        ``loss(model, batch) -> (sum, count)``.
    precision : {"float32", "bfloat16"}
    device : torch.device

    Returns
    -------
    loss : callable

    Examples
    --------
    >>> import torch
    >>> from statespace.training.devices import at_precision
    >>> loss = at_precision(lambda model, batch: (model(batch).sum(), 1), "bfloat16", torch.device("cpu"))
    >>> loss(torch.nn.Linear(1, 1), torch.ones(2, 1))[0].dtype
    torch.float32
    """
    check_precision(precision)
    if precision == "float32":
        return loss
    return _under(partial(torch.autocast, device.type, torch.bfloat16), loss)


def _under(context, loss):
    """The loss of a model whose calls run inside a context and answer in float32; its backward runs outside."""

    def within(model, batch):
        widened = model.register_forward_hook(lambda model, inputs, outputs: _widened(outputs))
        try:
            with context():
                return loss(model, batch)
        finally:
            widened.remove()

    return within


def _widened(outputs):
    if isinstance(outputs, tuple):
        return tuple(map(_widened, outputs))
    return outputs.float() if isinstance(outputs, Tensor) and outputs.dtype == torch.bfloat16 else outputs


def _described(device: torch.device) -> str:
    """The device in words; of a GPU also why Triton's kernels are not there, if they are not."""
    if device.type != "cuda":
        return str(device)
    reason = reason_against("token_shift", "triton", torch.empty(0, device=device))
    slower = "" if reason is None else f"; torch's own, slower operations in the place of Triton's kernels: {reason}"
    return f"{device}, {torch.cuda.get_device_name(device)}{slower}"
