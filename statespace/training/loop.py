"""One small training loop: index batches, AdamW, warm-up and cosine, clipping, early stopping, best weights kept.

Above: the estimators. Below: ``devices`` runs it, ``checkpoints`` keeps it, ``callbacks`` watch it.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from statespace.training.batches import choose_batch_size, length_batches
from statespace.training.callbacks import Callback, as_callbacks
from statespace.training.checkpoints import Checkpoint
from statespace.training.devices import Devices, OneDevice, at_precision
from statespace.training.history import DivergenceError, History
from statespace.training.interruption import Interruption
from statespace.training.optimizer import parameter_groups, warmup_cosine
from statespace.training.records import Carried, count_steps, spans
from statespace.training.run import Best, Run, weights_of
from statespace.training.steps import Batches, Loss, NonFinite, Steps, cut, to_device


def fit(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    *,
    max_epochs: int = 50,
    batch_size: int | str = 32,
    chunk_length: int | None = None,
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
    callbacks: Iterable[Callback | Callable[[int, History, nn.Module], Any]] | None = None,
    checkpoint: Checkpoint | None = None,
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
    max_epochs : int
    batch_size : int or "auto"
        As in `choose_batch_size`.
    chunk_length : int, optional
        Truncated back-propagation through time: series are read in chunks of so many steps, a step of the optimiser
        each, and the state passes from a chunk to the next without its gradient, in validation as well. Memory does
        not grow with the length of a record. For causal models with a target a step, whose loss calls ``model(x, dt,
        lengths=...)`` once, and data whose ``batch(indices, start, stop)`` cuts them.
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
    callbacks : iterable of Callback or callable, optional
        A function is called as ``function(epoch, history, model)`` after an epoch; a true answer stops training.
    checkpoint : Checkpoint, optional
        Keep training in a file, and go on from it: to the same weights as if it had not been cut off, but for a last
        digit that a product of matrices may round by where its operands lie in memory.
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
        No batch has a target; or the checkpoint is of another training.
    FileError
        The checkpoint is no whole file.

    Warns
    -----
    UserWarning
        Ctrl-C was pressed; the best weights so far are kept. (Pressed twice, it is raised once these are in place.) Or
        a batch did not fit into memory: from there on each is computed in two halves, whose gradients are added. Or a
        checkpoint could not be written, as on a full disk: the one before it is kept, and training goes on.

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
    batch_size = choose_batch_size(batch_size, len(data))
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    history = History() if history is None else history

    def make_optimizer(model):
        groups = parameter_groups(
            model, learning_rate=learning_rate, ssm_learning_rate=ssm_learning_rate, weight_decay=weight_decay
        )
        # One pass over each parameter in the place of ten: a small network's optimiser is all calls.
        return torch.optim.AdamW(groups, fused=devices.device.type == "cpu")

    running, optimizer = devices.setup(model, make_optimizer)
    n_steps = max_epochs * count_steps(data.lengths, batch_size, chunk_length)
    watching = as_callbacks(callbacks)
    steps = Steps(
        running, loss, optimizer, devices, generator, factor=warmup_cosine(n_steps, warmup),
        gradient_clip=gradient_clip, callbacks=watching, chunk_length=chunk_length,
    )  # fmt: skip
    run = Run(model, steps, data, history, Best(math.inf, weights_of(model)))
    stored = None if checkpoint is None else checkpoint.read()
    with Interruption() as interruption, _own_state(devices, generator):
        if checkpoint is not None and stored is not None:
            checkpoint.check(stored[1])
            run.restore(*stored)
        elif checkpoint is not None:
            devices.save(checkpoint.path, *run.packed(checkpoint.identity))
        start = max_epochs if history.stopped == "early" else len(history.loss)
        bar = tqdm(range(start, max_epochs), disable=not progress or devices.rank > 0, unit="epoch",
                   initial=start, total=max_epochs)  # fmt: skip
        try:
            interruption.open = True
            for callback in watching:
                callback.on_fit_begin(history, model)
            for epoch in bar:
                for callback in watching:
                    callback.on_epoch_begin(epoch, history, model)
                history.loss.append(steps.epoch(data, batch_size))
                score = history.loss[-1]
                if validation is not None:
                    score = evaluate(
                        running, validation, loss, batch_size=batch_size, devices=devices, chunk_length=chunk_length
                    )
                    if not math.isfinite(score):
                        raise NonFinite(score)
                    history.validation_loss.append(score)
                if score < run.best.score:
                    run.best, history.best_epoch = Best(score, weights_of(model)), epoch
                bar.set_postfix(loss=f"{history.loss[-1]:.4g}", best=f"{run.best.score:.4g}", refresh=False)
                wish = any([callback.on_epoch_end(epoch, history, model) for callback in watching])
                stop = float(devices.total(torch.tensor(float(wish)))) > 0
                if validation is not None and patience is not None and epoch - history.best_epoch >= patience:
                    history.stopped = "early"
                elif stop:
                    history.stopped = "callback"
                if checkpoint is not None:
                    _keep(checkpoint, run, devices)
                if history.stopped != "max_epochs":
                    break
        except NonFinite as error:
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
            interruption.closed = True
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
            model.load_state_dict(run.best.weights)
            model.eval()
            for callback in watching:
                callback.on_fit_end(history, model)
    return history


def _keep(checkpoint: Checkpoint, run: Run, devices: Devices) -> None:
    """Write a checkpoint; a disk that is full does not cost the training."""
    try:
        devices.save(checkpoint.path, *run.packed(checkpoint.identity))
    except OSError as error:
        warnings.warn(
            f"the checkpoint of epoch {len(run.history.loss)} could not be written to {checkpoint.path}: {error}. The "
            "one before it is kept, and training goes on.",
            UserWarning,
            stacklevel=3,
        )


def partial_fit(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    *,
    state: dict[str, Any] | None = None,
    batch_size: int | str = 32,
    chunk_length: int | None = None,
    learning_rate: float = 4e-3,
    ssm_learning_rate: float | Mapping[str, float] = 1e-3,
    weight_decay: float = 0.01,
    gradient_clip: float | None = 1.0,
    generator: torch.Generator | None = None,
    device: str | torch.device = "cpu",
    devices: Devices | None = None,
    precision: str = "float32",
) -> tuple[float, dict[str, Any]]:
    """Train ``model`` in place by one pass over ``data``, at constant rates; the weights after it are kept.

    Parameters
    ----------
    model, data, loss, batch_size, chunk_length, learning_rate, ssm_learning_rate, weight_decay, gradient_clip
        As in `fit`.
    state : dict, optional
        What the pass before this one returned: the optimiser's moments, and generators. They go on.
    generator : torch.Generator, optional
        Order of the batches and dropout, without a ``state``.
    device, devices, precision
        As in `fit`.

    Returns
    -------
    loss : float
        The mean over the pass.
    state : dict
        For the next pass.

    Raises
    ------
    DivergenceError
        The loss or its gradient became infinite or NaN. The model then has the weights before this pass, as it has
        after any other error and after Ctrl-C, which is raised.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.models import ResidualStack
    >>> from statespace.training import SeriesBatches, partial_fit
    >>> x = np.random.default_rng(0).normal(size=(4, 9, 1))
    >>> data = SeriesBatches(list(x), targets=x.sum(axis=1))
    >>> def squared_error(model, batch):
    ...     return (model(batch["x"])[0] - batch["y"]).square().sum(), torch.tensor(4.0)
    >>> model = ResidualStack(1, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}, pooling="last")
    >>> first, state = partial_fit(model, data, squared_error)
    >>> second, state = partial_fit(model, data, squared_error, state=state)
    >>> second < first
    True
    """
    devices = OneDevice(device) if devices is None else devices
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    def make_optimizer(model):
        groups = parameter_groups(
            model, learning_rate=learning_rate, ssm_learning_rate=ssm_learning_rate, weight_decay=weight_decay
        )
        # One pass over each parameter in the place of ten: a small network's optimiser is all calls.
        return torch.optim.AdamW(groups, fused=devices.device.type == "cpu")

    before = weights_of(model)
    batch_size = choose_batch_size(batch_size, len(data))
    running, optimizer = devices.setup(model, make_optimizer)
    loss = at_precision(loss, precision, devices.device)
    steps = Steps(
        running, loss, optimizer, devices, generator, factor=lambda step: 1.0, gradient_clip=gradient_clip,
        chunk_length=chunk_length,
    )  # fmt: skip
    whole = False
    with Interruption() as interruption, _own_state(devices, generator):
        try:
            interruption.open = True
            if state is not None:
                steps.restore(state)
            mean = steps.epoch(data, batch_size)
            state, whole = steps.packed(), True
        except NonFinite as error:
            raise DivergenceError(
                f"the loss became {error}. Lower learning_rate (now {learning_rate:g}) or ssm_learning_rate (now "
                f"{_text(ssm_learning_rate)}). The weights are those before this pass."
            ) from None
        finally:
            interruption.closed = True
            if not whole:
                model.load_state_dict(before)
            model.eval()
    return mean, state


def evaluate(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    devices: Devices | None = None,
    chunk_length: int | None = None,
) -> float:
    """Mean loss over ``data`` in evaluation mode; NaN if nothing counts."""
    devices = OneDevice(device) if devices is None else devices
    model.eval()
    total = np.zeros(2)
    with torch.no_grad():
        for indices in length_batches(data.lengths, batch_size):
            own = devices.share(indices)
            carried = model if chunk_length is None else Carried(model)
            sums = np.zeros(2)
            for span in spans(int(data.lengths[own].max(initial=0)), chunk_length) if len(own) else []:
                batch_sum, batch_count = loss(carried, to_device(cut(data, own, span), devices.device))
                sums += torch.stack([batch_sum, batch_count.to(batch_sum)]).tolist()
            total += devices.total(torch.from_numpy(sums)).tolist()
    return float(total[0] / total[1]) if total[1] else math.nan


@contextmanager
def _own_state(devices: Devices, generator: torch.Generator):
    """Dropout draws from torch's global generator: it is seeded from ours, another in each process, and put back.

    So is whether gradients are recorded: Ctrl-C between ``no_grad``'s beginning and its body would leave that off.
    """
    device, recording = devices.device, torch.is_grad_enabled()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)) + devices.rank)
            yield
    finally:
        torch.set_grad_enabled(recording)


def _text(rate: float | Mapping[str, float]) -> str:
    return f"{rate}" if isinstance(rate, Mapping) else f"{rate:g}"


def _kept(best_epoch: int) -> str:
    if best_epoch < 0:
        return "No epoch was complete: the weights are those before training."
    return f"The best weights so far, of epoch {best_epoch + 1}, are kept."
