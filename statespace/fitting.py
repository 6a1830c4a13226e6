"""Fitting that goes on: from checkpoints, from an earlier fit, or pass by pass; and what is remembered of it.

Above: ``deep``, whose ``_fit`` it serves. Below: ``base`` reads X and times, ``training`` trains.
"""

from copy import deepcopy
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state, check_scalar

from statespace.base import SeriesEstimator
from statespace.series import SeriesCollection
from statespace.training import Checkpoint, History, choose_device, partial_fit
from statespace.training.callbacks import as_callbacks
from statespace.training.checkpoints import digest
from statespace.training.scikit_learn import CallbackSupportMixin
from statespace.weights import check_sample_weight, weights_of_targets

# What fit learns by training, and the parameters that may change between a checkpoint and going on from it.
_OUTCOME = ("model_", "history_", "best_epoch_")
_ELSEWHERE = ("checkpoint", "resume", "callbacks", "device", "n_devices", "verbose", "random_state", "warm_start")
# What the optimiser's steps depend on, in fit and in partial_fit.
_OF_STEPS = (
    "batch_size", "chunk_length", "learning_rate", "ssm_learning_rate", "weight_decay", "gradient_clip", "precision",
)  # fmt: skip

# What belongs to one place and one call of fit, as it is in the file of a model, whoever wrote that.
NOT_SAVED = {"checkpoint": None, "resume": False, "callbacks": None}


class GoingOn(CallbackSupportMixin, SeriesEstimator):
    """How an estimator goes on learning where it stood.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.fitting import GoingOn
    >>> issubclass(S4DRegressor, GoingOn)
    True
    """

    calibrate: Any
    callbacks: Any
    checkpoint: Any
    device: Any
    n_devices: Any
    random_state: Any
    resume: Any

    def _partial_fit(self, X, y, times, sample_weight=None, **options):
        """One pass over the data; the first learns scales too, with ``options`` for its targets."""
        self._check_parameters()
        if self.calibrate:
            raise ValueError("partial_fit holds out no series to calibrate with: use fit, or calibrate=False.")
        if self.n_devices != 1:
            raise ValueError(f"partial_fit trains on one device: set n_devices to 1. Got {self.n_devices!r}.")
        new = "model_" not in vars(self)
        collection, weights, targets, n_outputs = self._take(X, y, times, sample_weight, new=new, **options)
        self._check_chunks()
        self._forget_calibration()
        targets = self._scaled_targets(targets, np.arange(len(collection)), weights) if new else self._scaled(targets)
        device = choose_device(self.device)
        state = vars(self).get("_pass")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) if state is None else 0
        generator = torch.Generator().manual_seed(seed)
        model = self._new_model(n_outputs, seed) if new else self.model_
        try:
            loss, self._pass = partial_fit(
                model,
                self._training_batches(
                    collection, np.flatnonzero(self._known(targets, weights)), targets, weights, device, generator
                ),
                self._loss(targets),
                state=state,
                generator=generator,
                device=device,
                **self._step_options(),
            )
        finally:
            model.cpu().eval()
        self.model_ = model
        self._remember(History(loss=[loss], best_epoch=0), None if new else self.history_)
        return self

    def _check_going_on(self):
        check_going_on(self)
        check_scalar(self.warm_start, "warm_start", (bool, np.bool_))

    def _take(self, X, y, times, sample_weight, *, new, **options):
        """Checked series, weights, targets and the number of outputs; what they are like is learned if ``new``."""
        if new:
            collection, weights = self._learn_inputs(X, times, sample_weight)
            targets, n_outputs = self._learn_targets(y, collection, weights, **options)
            return collection, weights, targets, n_outputs
        collection = self._read(X, times)
        weights = check_sample_weight(sample_weight, collection)
        weights_of_targets(weights, collection, self.per_step_)
        return collection, weights, self._read_targets(y, collection), self.model_.config["d_output"]

    def _identity(self, seed, model, collection, targets, weights):
        """What has to be the same for training to go on from a checkpoint."""
        arrays = [np.asarray(collection.lengths)]
        if isinstance(collection, SeriesCollection):
            arrays += [*collection.values, *(collection.times or ())]
        if isinstance(targets, list | np.ndarray):
            arrays += list(targets)
        arrays += [] if weights is None else list(map(np.asarray, weights))
        return identity(self, seed, model, arrays)

    def _warm(self, model):
        """Give a new model the weights of the fitted one."""
        try:
            model.load_state_dict(self.model_.state_dict())
        except RuntimeError:
            own, other = self.model_.config, model.config
            changed = [name for name in other if own.get(name) != other[name]]
            raise ValueError(
                f"warm_start=True goes on with the network that was fitted, but {', '.join(changed) or 'its form'} "
                "changed. Set it back, or warm_start=False."
            ) from None

    def _as_if_stopped(self, weights, history):
        """What ``fit`` learns if training stops here."""
        model = deepcopy(self.model_).cpu().eval()
        model.load_state_dict(weights)
        return {"model_": model, "history_": _table(history), "best_epoch_": history.best_epoch + 1}

    def _remember(self, history, past):
        """Learn what happened, after what had happened before."""
        table, before = _table(history), 0
        if past is not None:
            before = len(past)
            table.index = table.index + before
            table = pd.concat([past, table])
        self.history_, self.best_epoch_ = table, before + history.best_epoch + 1

    def _step_options(self):
        return {name: getattr(self, name) for name in _OF_STEPS}


def _table(history):
    """The losses of every epoch, counted from 1."""
    losses = {"loss": history.loss}
    if history.validation_loss:
        # An interruption between the two leaves a last epoch without validation.
        missing = len(history.loss) - len(history.validation_loss)
        losses["validation_loss"] = history.validation_loss + [np.nan] * missing
    return pd.DataFrame(losses, index=pd.RangeIndex(1, len(history.loss) + 1, name="epoch"))


def check_going_on(estimator):
    """Check the parameters ``callbacks``, ``checkpoint`` and ``resume`` of an estimator.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.fitting import check_going_on
    >>> check_going_on(S4DRegressor(checkpoint="training", resume=True))
    """
    as_callbacks(estimator.callbacks)
    check_scalar(estimator.resume, "resume", (bool, np.bool_))
    if estimator.resume and estimator.checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the path of the file to go on from.")


def seed_and_checkpoint(estimator):
    """The seed of an estimator's training, which is that of the one it goes on from, and where it is kept.

    Returns
    -------
    seed : int
    checkpoint : Checkpoint or None

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.fitting import seed_and_checkpoint
    >>> seed_and_checkpoint(S4DRegressor(random_state=0))
    (209652396, None)
    """
    checkpoint = None if estimator.checkpoint is None else Checkpoint(estimator.checkpoint, estimator.resume)
    if checkpoint is not None and not isinstance(estimator.random_state, Integral):
        stored = checkpoint.read()
        if stored is not None and "seed" in stored[1]["identity"]:
            return int(stored[1]["identity"]["seed"]), checkpoint
    return int(check_random_state(estimator.random_state).randint(2**31 - 1)), checkpoint


def identity(estimator, seed, model, arrays):
    """What has to be the same for an estimator's training to go on: its parameters, its seed, its data, its start.

    Parameters
    ----------
    estimator : estimator
        That has learned its scales.
    seed : int
    model : nn.Module
        With its starting values.
    arrays : iterable of array-like
        The data.

    Returns
    -------
    identity : dict
        As in `statespace.training.Checkpoint`.

    Examples
    --------
    >>> import torch
    >>> from statespace import S4DRegressor
    >>> from statespace.fitting import identity
    >>> identity(S4DRegressor(), 0, torch.nn.Linear(1, 1), [[1.0, 2.0]])["estimator"]
    'S4DRegressor'
    """
    learned = {name: value for name, value in vars(estimator).items() if name.endswith("_") and name not in _OUTCOME}
    given = estimator.get_params(deep=False)
    return {
        "estimator": type(estimator).__name__,
        **{name: repr(value) for name, value in given.items() if name not in _ELSEWHERE},
        "seed": seed,
        "what was learned from the data": repr(learned),
        "the data": digest(map(np.asarray, arrays)),
        "the weights at the start": digest(value.numpy() for value in model.state_dict().values()),
    }
