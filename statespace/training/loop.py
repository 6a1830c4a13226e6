"""One small training loop: index batches, AdamW, warm-up and cosine, clipping, early stopping, best weights kept."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from statespace.kernels.dispatch import reason_against
from statespace.models.experts import auxiliary_loss
from statespace.training.batches import length_batches
from statespace.training.optimizer import parameter_groups, warmup_cosine

PRECISIONS = ("float32", "bfloat16")


class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN. The model holds the best weights up to then."""


class Batches(Protocol):
    """What the loop reads: series that are cut into batches by index."""

    lengths: np.ndarray

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]: ...


Loss = Callable[[Any, dict[str, Tensor]], tuple[Tensor, Tensor]]


@dataclass
class History:
    """What happened in training, epoch by epoch.

    Attributes
    ----------
    loss, validation_loss : list of float
        Mean loss of every epoch; ``validation_loss`` is empty without validation data.
    best_epoch : int
        The epoch (from 0) whose weights were kept; -1: those before the first epoch.
    stopped : {"max_epochs", "early", "callback", "interrupted", "diverged"}
        Why training ended.

    Examples
    --------
    >>> from statespace.training import History
    >>> History(loss=[1.0, 0.5], best_epoch=1).stopped
    'max_epochs'
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = -1
    stopped: str = "max_epochs"


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
    precision: str = "float32",
    callbacks: Iterable[Callable[[int, History, nn.Module], Any]] = (),
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
        ``loss(model, batch) -> (sum, count)``: the sum over the batch's targets and their number. A batch that counts 0
        is passed over.
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
    precision : {"float32", "bfloat16"}, default="float32"
        ``"bfloat16"`` multiplies matrices, and keeps what passes between layers' kernels, in that type, by torch's
        autocast. Weights, their gradients and steps, the layers' A, Δ and states, norms and losses stay in float32.
        Meant for GPUs.
    callbacks : iterable of callable
        Each is called as ``callback(epoch, history, model)`` after an epoch; a true answer stops training.

    Returns
    -------
    history : History

    Raises
    ------
    DivergenceError
        The loss or its gradient became infinite or NaN. The model then has the best weights up to there.
    ValueError
        No batch has a target.

    Warns
    -----
    UserWarning
        Ctrl-C was pressed; the best weights so far are kept.

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
    check_precision(precision)
    device = torch.device(device)
    if precision == "bfloat16":
        loss = _under(partial(torch.autocast, device.type, torch.bfloat16), loss)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model.to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(
            model, learning_rate=learning_rate, ssm_learning_rate=ssm_learning_rate, weight_decay=weight_decay
        )
    )
    n_steps = max_epochs * math.ceil(len(data) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(n_steps, warmup))
    history, best = History(), math.inf
    best_weights = _weights(model)
    bar = tqdm(range(max_epochs), disable=not progress, unit="epoch")
    # Dropout draws from torch's global generator: it is seeded from ours and put back as it was.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        try:
            for epoch in bar:
                history.loss.append(
                    _train(model, data, loss, optimizer, schedule, batch_size, gradient_clip, generator, device)
                )
                score = history.loss[-1]
                if validation is not None:
                    score = evaluate(model, validation, loss, batch_size=batch_size, device=device)
                    if not math.isfinite(score):
                        raise _NonFinite(score)
                    history.validation_loss.append(score)
                if score < best:
                    best, history.best_epoch, best_weights = score, epoch, _weights(model)
                bar.set_postfix(loss=f"{history.loss[-1]:.4g}", best=f"{best:.4g}", refresh=False)
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
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            warnings.warn(
                f"training was interrupted in epoch {len(history.loss) + 1} of {max_epochs}. "
                + _kept(history.best_epoch),
                UserWarning,
                stacklevel=2,
            )
        finally:
            bar.close()
            model.load_state_dict(best_weights)
            model.eval()
    return history


def evaluate(
    model: nn.Module, data: Batches, loss: Loss, *, batch_size: int = 32, device: str | torch.device = "cpu"
) -> float:
    """Mean loss over ``data`` in evaluation mode; NaN if nothing counts."""
    model.eval()
    total, count = 0.0, 0.0
    with torch.no_grad():
        for indices in length_batches(data.lengths, batch_size):
            batch_sum, batch_count = loss(model, _to(data.batch(indices), device))
            total, count = total + float(batch_sum), count + float(batch_count)
    return total / count if count else math.nan


def _under(context, loss: Loss) -> Loss:
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


class _NonFinite(Exception):
    """Carries the value that is not finite to where the epoch and the rates are known."""


def _train(model, data, loss, optimizer, schedule, batch_size, gradient_clip, generator, device) -> float:
    """One epoch; the mean loss."""
    model.train()
    total, count = 0.0, 0.0
    for indices in length_batches(data.lengths, batch_size, generator):
        batch_sum, batch_count = loss(model, _to(data.batch(indices), device))
        n = float(batch_count)
        if n == 0:
            continue
        optimizer.zero_grad(set_to_none=True)
        mean = batch_sum / n
        (mean + auxiliary_loss(model)).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if gradient_clip is None else gradient_clip)
        value, norm = torch.stack([mean.detach(), norm.to(mean.dtype)]).tolist()
        if not math.isfinite(value):
            raise _NonFinite(value)
        if not math.isfinite(norm):
            raise _NonFinite(f"{value:.4g} with a gradient of {norm}")
        optimizer.step()
        schedule.step()
        total, count = total + value * n, count + n
    if count == 0:
        raise ValueError("no series has a target that is not missing: there is nothing to learn from.")
    return total / count


def _to(batch: dict[str, Tensor], device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _described(device: torch.device) -> str:
    """The device in words; of a GPU also why Triton's kernels are not there, if they are not."""
    if device.type != "cuda":
        return str(device)
    reason = reason_against("token_shift", "triton", torch.empty(0, device=device))
    slower = "" if reason is None else f"; torch's own, slower operations in the place of Triton's kernels: {reason}"
    return f"{device}, {torch.cuda.get_device_name(device)}{slower}"


def _text(rate: float | Mapping[str, float]) -> str:
    return f"{rate}" if isinstance(rate, Mapping) else f"{rate:g}"


def _kept(best_epoch: int) -> str:
    if best_epoch < 0:
        return "No epoch was complete: the weights are those before training."
    return f"The best weights so far, of epoch {best_epoch + 1}, are kept."
