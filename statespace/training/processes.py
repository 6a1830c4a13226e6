"""Several devices, a process each: Lightning's Fabric starts them, and averages their gradients by DDP.

Every process runs the same loop over the same batches in the same order, reads its share of each, and divides its sum
of losses by the number of targets of the whole batch, so that the gradient is that of one process: the mean over all
targets, not the mean of means, however series and targets are spread.

Above: the estimators. Below: ``devices``, whose seam this fills; the loop, which runs in each process; ``lightning``,
which is imported when it is needed.
"""

import inspect
import logging
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from statespace.models.experts import MixtureOfExperts
from statespace.training.callbacks import as_callbacks
from statespace.training.checkpoints import write_checkpoint
from statespace.training.devices import Devices
from statespace.training.history import DivergenceError, History
from statespace.training.loop import fit


class FabricDevices(Devices):
    """The processes of a Fabric that was launched, each with a device of its own.

    Parameters
    ----------
    fabric : lightning.fabric.Fabric
        Launched, with a strategy whose gradients are means over the processes: ``"ddp"``.
    interrupted : callable, optional
        Says whether Ctrl-C was pressed. All processes then stop in the same step.

    Attributes
    ----------
    device : torch.device
    rank, size : int

    Examples
    --------
    >>> from lightning.fabric import Fabric
    >>> from statespace.training import FabricDevices
    >>> devices = FabricDevices(Fabric(accelerator="cpu", devices=1))
    >>> devices.share([3, 1, 2])
    [3, 1, 2]
    """

    def __init__(self, fabric: Any, interrupted: Callable[[], bool] = lambda: False):
        self.fabric, self.interrupted = fabric, interrupted
        self.device: torch.device = fabric.device
        self.rank: int = fabric.global_rank
        self.size: int = fabric.world_size

    def setup(self, model: nn.Module, make_optimizer: Callable[[nn.Module], Any]) -> tuple[nn.Module, Any]:
        """The model as Fabric runs it, on this process's device, and its optimiser."""
        model.to(self.device)
        return self.fabric.setup(model, make_optimizer(model))

    def backward(self, loss: Tensor) -> None:
        """Add the mean over the processes of the gradient of ``loss`` to the parameters'."""
        self.fabric.backward(loss)

    def save(self, path: str | os.PathLike, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Write a checkpoint in the first process; the others wait."""
        if self.rank == 0:
            write_checkpoint(path, tensors, document)  # type: ignore[arg-type]
        self.barrier()

    def barrier(self) -> None:
        """Wait for all processes."""
        self.fabric.barrier()

    def share(self, indices: np.ndarray) -> np.ndarray:
        """Every so many-th series of a batch, which is sorted by length: all processes pad alike."""
        return indices[self.rank :: self.size]

    def total(self, values: Tensor) -> Tensor:
        """The sum of values over all processes.

        Raises
        ------
        KeyboardInterrupt
            Ctrl-C was pressed, in whatever process.
        """
        mine = values.detach().to(self.device, torch.float64).reshape(-1)
        pressed = torch.full((1,), float(self.interrupted()), dtype=torch.float64, device=self.device)
        everything = self.fabric.all_reduce(torch.cat([mine, pressed]), reduce_op="sum")
        if everything[-1] > 0:
            raise KeyboardInterrupt
        return everything[:-1].reshape(values.shape).to(values)


class _Outcome(NamedTuple):
    """What the first process has to tell."""

    weights: dict[str, Tensor]
    history: History
    error: Exception | None
    callbacks: list[dict[str, Any]]
    warnings: list[tuple[str, type[Warning]]]


def count_devices(n_devices: int | str, device: torch.device) -> int:
    """The number of processes.

    Parameters
    ----------
    n_devices : int or "auto"
        ``"auto"``: as many as there are GPUs, and one on a CPU.
    device : torch.device

    Raises
    ------
    ValueError
        There are not so many GPUs, or it is no positive number.

    Examples
    --------
    >>> import torch
    >>> from statespace.training import count_devices
    >>> count_devices(2, torch.device("cpu")), count_devices("auto", torch.device("cpu"))
    (2, 1)
    """
    n_there = torch.cuda.device_count() if device.type == "cuda" else None
    if n_devices == "auto":
        return n_there or 1
    if isinstance(n_devices, bool) or not isinstance(n_devices, int | np.integer) or n_devices < 1:
        raise ValueError(f"n_devices must be a number of at least 1, or 'auto'. Got {n_devices!r} instead.")
    if n_devices > 1 and device.type not in ("cpu", "cuda"):
        raise ValueError(f"n_devices={n_devices} needs device='cpu' or 'cuda'. Got {str(device)!r} instead.")
    if n_there is not None and n_devices > n_there:
        raise ValueError(f"n_devices={n_devices}, but there are {n_there} GPUs here. Give n_devices='auto'.")
    return int(n_devices)


def fit_in_processes(
    n_devices: int,
    model: nn.Module,
    data: Any,
    loss: Any,
    *,
    device: str | torch.device = "cpu",
    callbacks: Any = None,
    start_method: Literal["spawn", "fork"] | None = None,
    **options,
) -> History:
    """`fit` in several processes, each on a device of its own, with the result of one.

    Where ``torchrun`` or SLURM have started the processes, each calls this, and trains with the others; elsewhere they
    are started here and end here. A script then needs ``if __name__ == "__main__":`` around what it does. Each draws
    its own dropout, and balances experts over its own share. Ctrl-C ends all of them in the same step.

    Parameters
    ----------
    n_devices : int
        Processes that are started.
    model, data, loss, callbacks, **options
        As in `fit`. What is sent to processes must be picklable, and lie on the CPU; callbacks are called in the first.
    device : str or torch.device, default="cpu"
        A CPU, or CUDA, of which each process takes one.
    start_method : {"spawn", "fork"}, optional
        How processes are started. None: by fork in an interactive session, where there is no script that a new process
        could read, and else by spawn.

    Returns
    -------
    history : History

    Raises
    ------
    ImportError
        Lightning is not installed.
    DivergenceError, ValueError
        As in `fit`.
    RuntimeError
        A process has failed; the message has its trace.

    Examples
    --------
    >>> from statespace.training import fit_in_processes
    >>> fit_in_processes(2, model, data, squared_error, max_epochs=3)  # doctest: +SKIP
    History(...)
    """
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
        from lightning.fabric.strategies import DDPStrategy
    except ImportError:
        raise ImportError(
            f"n_devices={n_devices} needs lightning, which is not installed here: "
            "pip install 'statespace-learn[distributed]'."
        ) from None
    accelerator = "cuda" if torch.device(device).type == "cuda" else "cpu"
    # Buffers never change in training; a mixture's experts are not all used in every batch.
    names = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
    how: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}
    how["find_unused_parameters"] = any(isinstance(part, MixtureOfExperts) for part in model.modules())
    watching = as_callbacks(callbacks)
    if TorchElasticEnvironment.detect() or SLURMEnvironment.detect():
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", n_devices))
        n_nodes = max(1, int(os.environ.get("WORLD_SIZE", n_local)) // n_local)
        fabric = Fabric(accelerator=accelerator, devices=n_local, num_nodes=n_nodes, strategy=DDPStrategy(**how))
        fabric.launch()
        devices = FabricDevices(fabric)
        return fit(model, data, loss, devices=devices, callbacks=watching if devices.rank == 0 else None, **options)

    # Started by fork where there is no script that a new process could read.
    start = start_method or ("fork" if hasattr(sys, "ps1") and hasattr(os, "fork") else "spawn")
    strategy = DDPStrategy(start_method=start, **how)
    fabric = Fabric(accelerator=accelerator, devices=n_devices, strategy=strategy)
    event = torch.multiprocessing.get_context(start).Event()
    # Not by torch's own pickling, which shares tensors in a memory that is often too small, parameters among them, and
    # forgets the marks of parameters.
    packed = _packed(model=model, data=data, loss=loss, callbacks=watching, options=options)
    try:
        with _forwarded_interrupt(event):
            outcome = pickle.loads(fabric.launch(cast(Any, _work), event, packed))
    except torch.multiprocessing.ProcessRaisedException as error:
        raise RuntimeError(f"one of {n_devices} processes has failed:\n{error}") from None
    model.load_state_dict(outcome.weights)
    model.eval()
    for callback, state in zip(watching, outcome.callbacks, strict=True):
        vars(callback).update(state)
    for message, category in outcome.warnings:
        warnings.warn(message, category, stacklevel=2)
    if options.get("history") is not None:
        vars(options["history"]).update(vars(outcome.history))
    if outcome.error is not None:
        raise outcome.error
    return outcome.history


def _work(fabric, event, packed):
    """What each process does."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    pressed = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    given = pickle.loads(packed)
    model, callbacks, options = given["model"], given["callbacks"], given["options"]
    devices = FabricDevices(fabric, lambda: pressed.is_set() or event.is_set())
    # What batches draw from a generator that they share with the order of the series is each process's own; the order
    # is the same in all.
    order = torch.Generator()
    order.set_state((options.get("generator") or order.manual_seed(0)).get_state())
    history = History()
    options |= {"generator": order, "history": history, "devices": devices}
    error = None
    with warnings.catch_warnings(record=True) as caught:
        try:
            watching = callbacks if devices.rank == 0 else None
            fit(model, given["data"], given["loss"], callbacks=watching, **options)
        except DivergenceError as diverged:
            error = diverged
    told = [(str(warning.message), warning.category) for warning in caught]
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    return pickle.dumps(_Outcome(weights, history, error, [vars(callback) for callback in callbacks], told))


def _packed(**things):
    try:
        return pickle.dumps(things)
    except Exception:
        for name, thing in things.items():
            try:
                pickle.dumps(thing)
            except Exception as error:
                raise ValueError(
                    f"the {name} cannot be sent to other processes: {error}. Define what they hold at the top of a "
                    "module, or train on one device."
                ) from None
        raise


@contextmanager
def _forwarded_interrupt(event) -> Iterator[None]:
    """Ctrl-C tells the processes to stop in the same step; pressed twice it is raised here."""

    def handle(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
