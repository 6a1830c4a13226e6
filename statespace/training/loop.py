"""One small training loop: index batches, AdamW, warm-up and cosine, clipping, early stopping, best weights kept.

Above: the estimators. Below: ``devices`` runs it, ``checkpoints`` keeps it, ``callbacks`` watch it.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from statespace.models.experts import auxiliary_loss
from statespace.training.batches import length_batches
from statespace.training.devices import Devices, OneDevice, at_precision
from statespace.training.history import DivergenceError, History
from statespace.training.interruption import Interruption
from statespace.training.memory import is_out_of_memory, release
from statespace.training.optimizer import parameter_groups, warmup_cosine


class Batches(Protocol):
    """What the loop reads: series that are cut into batches by index."""

    lengths: np.ndarray

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]: ...


Loss = Callable[[Any, dict[str, Tensor]], tuple[Tensor, Tensor]]


def fit(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    *,
    max_epochs: int = 50,
    batch_size: int = 32,
    learning_rate: float = 4e-3,
    ssm_learning_rate: float | Mapping[str, float] = 1e-3,
    weight_decay: float = 0.01,
    validation: Batches | None = None,
    patience: int | None = 10,
    warmup: float = 0.1,
    gradient_clip: float | None = 1.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
    device: str | torch.device = "cpu",
    devices: Devices | None = None,
    precision: str = "float32",
    callbacks: Iterable[Callable[[int, History, nn.Module], Any]] = (),
    history: History | None = None,
) -> History:
    """Train ``model`` in place and leave it with its best weights.

    AdamW on batches of series of like length. The dynamics A, B and Δ of a layer learn at ``ssm_learning_rate`` without
    weight decay. Mixtures of experts add to what is minimised (`statespace.models.auxiliary_loss`), not to the history.
    The best weights are those of the epoch with the least validation loss, or without validation data the least
    training loss.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to ``device`` and left there in evaluation mode.
    data : Batches
        Has ``__len__``, ``lengths`` and ``batch(indices) -> dict of Tensor``; see `SeriesBatches`.
    loss : callable
        ``loss(model, batch) -> (sum, count)``: the weighted sum over the batch's targets and the sum of their weights
        (see `target_weights`). A batch that counts 0 is passed over.
    max_epochs, batch_size : int
    learning_rate, ssm_learning_rate, weight_decay : float
        As in `parameter_groups`; ``ssm_learning_rate`` may be a mapping from ``"A"``, ``"B"`` and ``"dt"`` to rates.
    validation : Batches, optional
        Held-out data of the same kind.
    patience : int or None, default=10
        Stop after so many epochs without a better validation loss; None never does. Without validation data there is
        no early stop.
    warmup : float, default=0.1
        Share of the steps in which the rates rise; then they fall along a cosine, to 0 at ``max_epochs``.
    gradient_clip : float or None, default=1.0
        Largest norm of the gradient.
    generator : torch.Generator, optional
        Order of the batches and dropout; the global random state is left as it was.
    progress : bool, default=False
        Show a progress bar.
    device : str or torch.device, default="cpu"
    devices : Devices, optional
        Where it runs, in the place of `OneDevice` on ``device``.
    precision : {"float32", "bfloat16"}, default="float32"
        ``"bfloat16"`` multiplies matrices, and keeps what passes between layers' kernels, in that type, by torch's
        autocast. Weights, their gradients and steps, the layers' A, Δ and states, norms and losses stay in float32.
        Meant for GPUs.
    callbacks : iterable of callable
        Each is called as ``callback(epoch, history, model)`` after an epoch; a true answer stops training.
    history : History, optional
        An empty one to fill, for who wants to read it when training ends in an error; else a new one.

    Returns
    -------
    history : History

    Raises
    ------
    DivergenceError
        The loss or its gradient became infinite or NaN. The model then has the best weights up to there.
    MemoryError
        Not even half a batch fits into memory. The model then has the best weights up to there.
    ValueError
        No batch has a target.

    Warns
    -----
    UserWarning
        Ctrl-C was pressed; the best weights so far are kept. (Pressed twice, it is raised once these are in place.) Or
        a batch did not fit into memory: from there on each is computed in two halves, whose gradients are added.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.models import ResidualStack
    >>> from statespace.training import SeriesBatches, fit
    >>> rng = np.random.default_rng(0)
    >>> inputs = [rng.normal(size=(n, 1)) for n in (20, 30, 25, 28)]
    >>> data = SeriesBatches(inputs, targets=[np.cumsum(x, axis=0) / 5 for x in inputs])
    >>> def squared_error(model, batch):
    ...     error = model(batch["x"], batch.get("dt"))[0] - batch["y"]
    ...     seen = ~batch["y"].isnan()
    ...     return torch.where(seen, error, 0).square().sum(), seen.sum()
    >>> model = ResidualStack(1, 1, d_model=8, n_layers=1, layer_options={"d_state": 4})
    >>> history = fit(model, data, squared_error, max_epochs=3, generator=torch.Generator().manual_seed(0))
    >>> len(history.loss)
    3
    """
    devices = OneDevice(device) if devices is None else devices
    device = devices.device
    loss = at_precision(loss, precision, device)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    history = History() if history is None else history

    def make_optimizer(model):
        return torch.optim.AdamW(
            parameter_groups(
                model, learning_rate=learning_rate, ssm_learning_rate=ssm_learning_rate, weight_decay=weight_decay
            )
        )

    running, optimizer = devices.setup(model, make_optimizer)
    n_steps = max_epochs * math.ceil(len(data) / batch_size)
    steps = Steps(
        running, loss, optimizer, devices, generator, factor=warmup_cosine(n_steps, warmup), gradient_clip=gradient_clip
    )
    callbacks = list(callbacks)
    best = _Best(math.inf, _weights(model))
    bar = tqdm(range(max_epochs), disable=not progress or devices.rank > 0, unit="epoch")
    with Interruption() as interruption, _own_randomness(device, generator):
        try:
            for epoch in bar:
                history.loss.append(steps.epoch(data, batch_size))
                score = history.loss[-1]
                if validation is not None:
                    score = evaluate(running, validation, loss, batch_size=batch_size, devices=devices)
                    if not math.isfinite(score):
                        raise _NonFinite(score)
                    history.validation_loss.append(score)
                if score < best.score:
                    best, history.best_epoch = _Best(score, _weights(model)), epoch
                bar.set_postfix(loss=f"{history.loss[-1]:.4g}", best=f"{best.score:.4g}", refresh=False)
                if any([callback(epoch, history, model) for callback in callbacks]):
                    history.stopped = "callback"
                    break
                if validation is not None and patience is not None and epoch - history.best_epoch >= patience:
                    history.stopped = "early"
                    break
        except _NonFinite as error:
            history.stopped = "diverged"
            raise DivergenceError(
                f"the loss became {error} in epoch {epoch + 1} of {max_epochs}. Lower learning_rate "
                f"(now {learning_rate:g}) or ssm_learning_rate (now {_text(ssm_learning_rate)}). "
                + _kept(history.best_epoch)
            ) from None
        except MemoryError as error:
            history.stopped = "memory"
            raise MemoryError(f"{error} {_kept(history.best_epoch)}") from None
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            warnings.warn(
                f"training was interrupted in epoch {len(history.loss) + 1} of {max_epochs}. "
                + _kept(history.best_epoch),
                UserWarning,
                stacklevel=2,
            )
        finally:
            interruption.closed = True
            bar.close()
            model.load_state_dict(best.weights)
            model.eval()
    return history


def evaluate(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    devices: Devices | None = None,
) -> float:
    """Mean loss over ``data`` in evaluation mode; NaN if nothing counts."""
    devices = OneDevice(device) if devices is None else devices
    model.eval()
    total = np.zeros(2)
    with torch.no_grad():
        for indices in length_batches(data.lengths, batch_size):
            batch_sum, batch_count = loss(model, _to(data.batch(devices.share(indices)), devices.device))
            total += devices.total(torch.stack([batch_sum, batch_count.to(batch_sum)])).tolist()
    return float(total[0] / total[1]) if total[1] else math.nan


class Steps:
    """The steps of an optimiser: gradients of batches, clipped, at rates that follow a schedule.

    Parameters
    ----------
    model : nn.Module
        As the devices run it.
    loss : callable
    optimizer : torch.optim.Optimizer
        Its groups' rates are the largest that the schedule reaches.
    devices : Devices
    generator : torch.Generator
        Order of the batches.
    factor : callable
        Number of the step -> factor of the rates.
    gradient_clip : float or None

    Attributes
    ----------
    n_taken : int
        Steps so far.
    n_parts : int
        Parts into which each batch is cut: 1, or 2 since one did not fit into memory.
    """

    def __init__(self, model, loss, optimizer, devices, generator, *, factor, gradient_clip):
        self.model, self.loss, self.optimizer, self.devices = model, loss, optimizer, devices
        self.generator, self.factor, self.gradient_clip = generator, factor, gradient_clip
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.n_taken, self.n_parts = 0, 1

    def epoch(self, data: Batches, batch_size: int) -> float:
        """One pass over the data; the mean loss."""
        self.model.train()
        total, count = 0.0, 0.0
        for indices in length_batches(data.lengths, batch_size, self.generator):
            value, n = self.step(data, indices)
            total, count = total + value * n, count + n
        if count == 0:
            raise ValueError("no series has a target that is not missing: there is nothing to learn from.")
        return total / count

    def step(self, data: Batches, indices: np.ndarray) -> tuple[float, float]:
        """One step on a batch; its mean loss and count. A batch that counts 0 is none."""
        value, n = self._gradient_that_fits(data, indices)
        if n == 0:
            return 0.0, 0.0
        clip = math.inf if self.gradient_clip is None else self.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        value, norm = torch.stack([value, norm.to(value)]).tolist()
        if not math.isfinite(value):
            raise _NonFinite(value)
        if not math.isfinite(norm):
            raise _NonFinite(f"{value:.4g} with a gradient of {norm}")
        factor = self.factor(self.n_taken)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.n_taken += 1
        return value, n

    def _gradient_that_fits(self, data, indices):
        """The gradient of a batch, which is halved if it is the first that does not fit into memory."""
        before = self.generator.get_state(), _dropout_state(self.devices.device)
        try:
            return self._gradient(data, indices)
        except (RuntimeError, MemoryError) as error:
            # What another process computes meanwhile cannot be called back.
            if not is_out_of_memory(error) or self.devices.size > 1:
                raise
            if self.n_parts > 1 or len(indices) == 1:
                longest = int(data.lengths[indices].max())
                halved = "" if len(indices) == 1 else " even in two halves"
                raise MemoryError(
                    f"a batch of {len(indices)} series of up to {longest} steps does not fit into the memory of "
                    f"{self.devices.device}{halved}. Lower batch_size, d_model or n_layers, or cut the series."
                ) from None
        # Here the error is forgotten, and with it what the failed step held.
        self.n_parts = 2
        self.optimizer.zero_grad(set_to_none=True)
        release(self.devices.device)
        warnings.warn(
            f"a batch of {len(indices)} series did not fit into the memory of {self.devices.device}: from here on each "
            "batch is computed in two halves, whose gradients are added. A lower batch_size needs no halves.",
            UserWarning,
            stacklevel=4,
        )
        self.generator.set_state(before[0])
        _set_dropout_state(self.devices.device, before[1])
        return self._gradient_that_fits(data, indices)

    def _gradient(self, data, indices):
        """Leave the gradient of the batch's mean loss in the parameters; that loss, and its count."""
        devices = self.devices
        self.optimizer.zero_grad(set_to_none=True)
        unit = 0.0
        sums = torch.zeros(2)
        for part in np.array_split(devices.share(indices), min(self.n_parts, len(indices))):
            batch_sum, batch_count = self.loss(self.model, _to(data.batch(part), devices.device))
            counts = torch.stack([batch_sum.detach(), batch_count.to(batch_sum)])
            # All parts, and all processes, divide by one number, at first that of the targets in the first part.
            unit = unit or float(devices.total(counts)[1]) / devices.size
            devices.backward((batch_sum + batch_count * auxiliary_loss(self.model)) / (unit or 1.0))
            sums = counts + sums.to(counts)
        sums = devices.total(sums)
        n = float(sums[1])
        if n and (scale := unit * devices.size / n) != 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        return sums[0] / (n or 1.0), n


class _Best(NamedTuple):
    """The least loss so far, and the weights that had it."""

    score: float
    weights: dict[str, Tensor]


class _NonFinite(Exception):
    """Carries the value that is not finite to where the epoch and the rates are known."""


@contextmanager
def _own_randomness(device: torch.device, generator: torch.Generator):
    """Dropout draws from torch's global generator: it is seeded from ours and put back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def _dropout_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_dropout_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _to(batch: dict[str, Tensor], device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _text(rate: float | Mapping[str, float]) -> str:
    return f"{rate}" if isinstance(rate, Mapping) else f"{rate:g}"


def _kept(best_epoch: int) -> str:
    if best_epoch < 0:
        return "No epoch was complete: the weights are those before training."
    return f"The best weights so far, of epoch {best_epoch + 1}, are kept."
