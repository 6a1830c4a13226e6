"""DeepEstimator: a network fitted to series, streamed and saved; what is predicted is the subclass's choice.

Above: ``regression`` and ``classification``. Below: ``base`` reads X and times, ``parameters`` names the layer,
``models`` computes, ``training`` fits, ``streaming`` steps.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from itertools import chain
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted

from statespace.alphabets import Alphabet
from statespace.base import SeriesEstimator
from statespace.models import ReverseComplement, make_backbone, predict_series, predict_steps
from statespace.readers import StoredRows
from statespace.stored import StoredSeries
from statespace.streaming.layer import LayerStream
from statespace.training import (
    Checkpoint,
    History,
    RandomStrands,
    SeriesBatches,
    StoredBatches,
    check_precision,
    choose_device,
    count_devices,
    fit,
    fit_in_processes,
    partial_fit,
    ssm_rates,
)
from statespace.training.callbacks import as_callbacks
from statespace.training.checkpoints import digest
from statespace.training.scikit_learn import CallbackSupportMixin, report, with_callbacks
from statespace.weights import check_sample_weight, weights_of_targets

_POOLING = ("mean", "last")
_REVERSE_COMPLEMENT = (None, "equivariant", "augment")
# What fit learns by training, and the parameters that may change between a checkpoint and going on from it.
_OUTCOME = ("model_", "history_", "best_epoch_")
_ELSEWHERE = ("checkpoint", "resume", "callbacks", "device", "verbose", "random_state", "warm_start")
# What belongs to one place and one call of fit, as it is in a file.
_NOT_SAVED = {"checkpoint": None, "resume": False, "callbacks": None}


@dataclass(eq=False, repr=False)
class DeepEstimator(CallbackSupportMixin, SeriesEstimator):
    """A network over series with one answer a series or one a step: its parameters, training, streams and files.

    A subclass says what y is (``_learn_targets``), what is minimised (``_loss``) and what the network's outputs mean
    (``_answer``). Its layer comes from one of the classes in `statespace.parameters`.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.deep import DeepEstimator
    >>> isinstance(S4DRegressor(), DeepEstimator)
    True
    """

    d_model: int = 64
    n_layers: int = 4
    _: KW_ONLY
    alphabet: str | Sequence[Any] | int | None = None
    reverse_complement: str | None = None
    backbone: str = "stack"
    backbone_options: Mapping[str, Any] | None = None
    moe: int | Mapping[str, Any] | None = None
    bidirectional: bool = False
    dropout: float = 0.1
    pooling: str = "mean"
    max_epochs: int = 50
    batch_size: int = 32
    chunk_length: int | None = None
    learning_rate: float = 4e-3
    ssm_learning_rate: float | Mapping[str, float] = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0
    validation_fraction: float = 0.1
    patience: int | None = 10
    device: str | torch.device = "auto"
    n_devices: int | str = 1
    precision: str = "float32"
    checkpoint: str | os.PathLike | None = None
    resume: bool = False
    warm_start: bool = False
    callbacks: Sequence[Any] | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    @with_callbacks
    def _fit(self, X, y, times, sample_weight=None):
        self._check_parameters()
        vars(self).pop("_pass", None)
        warm = self.warm_start and "model_" in vars(self)
        collection, weights, targets, n_outputs = self._take(X, y, times, sample_weight, new=not warm)
        self._check_chunks()
        device = choose_device(self.device, verbose=self.verbose)
        n_devices = count_devices(self.n_devices, device)
        train = fit if n_devices == 1 else partial(fit_in_processes, n_devices)
        # Of several processes each moves its share of a batch to its own device.
        place = device if n_devices == 1 else torch.device("cpu")
        seed, checkpoint = self._seed_and_checkpoint()
        generator = torch.Generator().manual_seed(seed)
        model = self._new_model(n_outputs, seed)
        if warm:
            self._warm(model)
        if checkpoint is not None:
            checkpoint = replace(checkpoint, identity=self._identity(seed, model, collection, targets, weights))
        self.model_, past = model, self.history_ if warm else None
        training, held_out = self._split(targets, generator, weights)
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        told = report(self, self.max_epochs, self._as_if_stopped, collection, y, metadata)
        callbacks = as_callbacks(self.callbacks)
        history = History()
        try:
            train(
                model,
                self._training_batches(collection, training, targets, weights, place, generator),
                self._loss(targets),
                max_epochs=self.max_epochs,
                validation=self._batches(collection, held_out, targets, weights, place) if len(held_out) else None,
                patience=self.patience,
                generator=generator,
                progress=self.verbose > 0,
                device=device,
                callbacks=callbacks if told is None else [told, *callbacks],
                checkpoint=checkpoint,
                history=history,
                **self._step_options(),
            )
        finally:
            model.cpu().eval()
            self._keep(history, past)
        if told is not None:
            told.end()
        return self

    def _partial_fit(self, X, y, times, sample_weight=None, **options):
        """One pass over the data; the first learns scales too, with ``options`` for its targets."""
        self._check_parameters()
        new = "model_" not in vars(self)
        collection, weights, targets, n_outputs = self._take(X, y, times, sample_weight, new=new, **options)
        self._check_chunks()
        if self.n_devices != 1:
            raise ValueError(f"partial_fit trains on one device: set n_devices to 1. Got {self.n_devices!r}.")
        device = choose_device(self.device)
        state = vars(self).get("_pass")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) if state is None else 0
        generator = torch.Generator().manual_seed(seed)
        model = self._new_model(n_outputs, seed) if new else self.model_
        indices, none = self._split(targets, generator, weights, fraction=0.0)
        try:
            loss, self._pass = partial_fit(
                model,
                self._training_batches(collection, indices, targets, weights, device, generator),
                self._loss(targets),
                state=state,
                generator=generator,
                device=device,
                **self._step_options(),
            )
        finally:
            model.cpu().eval()
        self.model_ = model
        self._keep(History(loss=[loss], best_epoch=0), None if new else self.history_)
        return self

    def _take(self, X, y, times, sample_weight, *, new, **options):
        """Checked series, weights and targets, and the number of outputs; scales are learned from them if ``new``."""
        if new:
            collection, weights = self._learn_inputs(X, times, sample_weight)
            targets, n_outputs = self._learn_targets(y, collection, weights, **options)
            return collection, weights, targets, n_outputs
        collection = self._read(X, times)
        weights = check_sample_weight(sample_weight, collection)
        weights_of_targets(weights, collection, self.per_step_)
        return collection, weights, self._read_targets(y, collection), self.model_.config["d_output"]

    def _seed_and_checkpoint(self):
        """The seed of this training, which is that of the one it goes on from, and where it is kept."""
        checkpoint = None if self.checkpoint is None else Checkpoint(self.checkpoint, self.resume)
        if checkpoint is not None and not isinstance(self.random_state, Integral):
            stored = checkpoint.read()
            if stored is not None and "seed" in stored[1]["identity"]:
                return int(stored[1]["identity"]["seed"]), checkpoint
        return int(check_random_state(self.random_state).randint(2**31 - 1)), checkpoint

    def _identity(self, seed, model, collection, targets, weights):
        """What has to be the same for training to go on from a checkpoint."""
        learned = {name: value for name, value in vars(self).items() if name.endswith("_") and name not in _OUTCOME}
        arrays = chain(collection.values, collection.times or (), targets, () if weights is None else weights)
        return {
            "estimator": type(self).__name__,
            **{name: repr(value) for name, value in self.get_params(deep=False).items() if name not in _ELSEWHERE},
            "seed": seed,
            "what was learned from the data": repr(learned),
            "the data": digest(map(np.asarray, arrays)),
            "the weights at the start": digest(value.numpy() for value in model.state_dict().values()),
        }

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

    def _keep(self, history, past):
        """Learn what happened, after what had happened before."""
        table, before = _table(history), 0
        if past is not None:
            before = len(past)
            table.index = table.index + before
            table = pd.concat([past, table])
        self.history_, self.best_epoch_ = table, before + history.best_epoch + 1

    def _step_options(self):
        names = (
            "batch_size", "chunk_length", "learning_rate", "ssm_learning_rate", "weight_decay", "gradient_clip",
            "precision",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _new_model(self, n_outputs, seed):
        layer, options = self._layers(bidirectional=self.bidirectional)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._make_model(
                self.backbone_options,
                complement=self._alphabet.complement if self.reverse_complement == "equivariant" else None,
                d_input=self._n_inputs,
                d_output=n_outputs,
                d_model=self.d_model,
                n_layers=self.n_layers,
                layer=layer,
                layer_options=options,
                dropout=self.dropout,
                pooling=None if self.per_step_ else self.pooling,
                moe=self.moe,
            )
            if self._alphabet is not None:
                # A step holds one symbol, whose embedding is one column: its fan-in is 1, however many there are.
                torch.nn.init.uniform_(model.encoder.weight, -1.0, 1.0)
        return model

    def _check_parameters(self):
        as_callbacks(self.callbacks)
        for name in ("resume", "warm_start"):
            check_scalar(getattr(self, name), name, bool)
        if self.resume and self.checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the path of the file to go on from.")
        for name in ("d_model", "n_layers", "d_state", "max_epochs", "batch_size"):
            if hasattr(self, name):
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        for name in ("patience", "chunk_length"):
            if getattr(self, name) is not None:
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        if self.gradient_clip is not None:
            check_scalar(self.gradient_clip, "gradient_clip", Real, min_val=0, include_boundaries="neither")
        for name in ("learning_rate", "weight_decay"):
            check_scalar(getattr(self, name), name, Real, min_val=0)
        ssm_rates(self.ssm_learning_rate, self.learning_rate)
        check_precision(self.precision)
        count_devices(self.n_devices, torch.device("cpu"))
        for name in ("dropout", "validation_fraction"):
            check_scalar(getattr(self, name), name, Real, min_val=0, max_val=1, include_boundaries="left")
        if self.pooling not in _POOLING:
            raise ValueError(f"pooling must be 'mean' or 'last'. Got {self.pooling!r} instead.")
        if self.reverse_complement not in _REVERSE_COMPLEMENT:
            raise ValueError(
                f"reverse_complement must be None, 'equivariant' or 'augment'. Got {self.reverse_complement!r} instead."
            )
        alphabet = None if self.alphabet is None else Alphabet(self.alphabet)
        if self.reverse_complement is not None and (alphabet is None or alphabet.complement is None):
            raise ValueError(
                f"reverse_complement={self.reverse_complement!r} needs alphabet='dna' or 'rna', whose bases have "
                f"partners. Got alphabet={self.alphabet!r}."
            )

    def _check_chunks(self):
        if self.chunk_length is None:
            return
        if not self.per_step_:
            raise ValueError(
                f"chunk_length={self.chunk_length} needs a target for every step: one a series would teach its last "
                "chunk alone. Give y one target a step, or chunk_length=None."
            )
        for name, wrong in (("bidirectional", self.bidirectional), ("reverse_complement", self.reverse_complement)):
            if wrong:
                raise ValueError(
                    f"chunk_length={self.chunk_length} reads a record forward, piece by piece, and {name}={wrong!r} "
                    f"has to see the whole. Leave one of the two out."
                )

    def _split(self, targets, generator, weights=None, *, fraction=None):
        """Series to train on and series held out, of those with a target that is known and weighs something."""
        if isinstance(targets, StoredRows):
            known = targets.statistics.known
            if weights is not None:
                known = known & [bool(np.any(weight)) for weight in weights]
        else:
            known = np.array([not np.isnan(row).all() for row in targets])
            if weights is not None:
                rows = zip(targets, weights, strict=True)
                known &= [bool((np.asarray(weight)[..., None] * ~np.isnan(row)).any()) for row, weight in rows]
        known = np.flatnonzero(known)
        order = self._held_out_first(known[torch.randperm(len(known), generator=generator).numpy()], targets)
        n_held_out = int((self.validation_fraction if fraction is None else fraction) * len(order))
        return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])

    def _held_out_first(self, order, targets):
        """The order in which series are held out, from a random one."""
        return order

    def _training_batches(self, collection, indices, targets, weights, device, generator):
        data = self._batches(collection, indices, targets, weights, device)
        if self.reverse_complement == "augment":
            return RandomStrands(data, self._alphabet.complement, generator)
        return data

    def _batches(self, collection, indices, targets, weights, device):
        in_list = self.per_step_ and not isinstance(targets, StoredRows)
        targets = [targets[i] for i in indices] if in_list else targets[indices]
        if weights is not None:
            weights = [weights[i] for i in indices] if isinstance(weights, list) else weights[indices]
        return self._data(collection[indices], targets, weights=weights, device=device)

    def _data(self, collection, targets=None, **options):
        """Series as the network reads them, in batches."""
        if isinstance(collection, StoredSeries):
            return StoredBatches(collection, self._encode_read, self.time_scale_, targets, **options)
        gaps = self._scaled_gaps(collection)
        if self._alphabet is None:
            return SeriesBatches([self._encode(values) for values in collection.values], gaps, targets, **options)
        codes = [values[:, 0] for values in collection.values]
        return SeriesBatches(codes, gaps, targets, rows=self._alphabet.rows, **options)

    def _outputs(self, collection):
        """What the network says: a list of (n_times_i, n_outputs), or (n_series, n_outputs).

        It computes in float64, so that a series' answer does not depend on the series beside it.
        """
        device = choose_device(self.device)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        model = self._copy_model(device, dtype)
        data = self._data(collection, dtype=dtype, device=device)
        return predict_steps(model, data) if self.per_step_ else predict_series(model, data)

    def _shaped(self, rows, collection):
        """Answers a step in the form of the y of ``fit``: an array if y was one, else an object array of arrays."""
        if not self.ragged_ and np.all(collection.lengths == collection.lengths[0]):
            return np.stack(rows)
        result = np.empty(len(rows), dtype=object)
        result[:] = rows
        return result

    def _make_model(self, options=None, *, complement=None, **config):
        """The network; with ``complement`` the one that reads both strands with the same weights."""
        model = make_backbone(self.backbone, options, **config)
        return model if complement is None else ReverseComplement(model, complement)

    def _copy_model(self, device, dtype):
        """The model elsewhere or in another type; the estimator's own stays as it is, whatever other threads do."""
        return deepcopy(self.model_).to(device=device, dtype=dtype).eval()

    def stream(self):
        """The fitted model one sample at a time.

        Returns
        -------
        stream : LayerStream
            ``stream.step(x_t, dt)`` equals what is predicted over the record so far: its last step for one answer a
            step, its one answer for one a series. It does not change the estimator.

        Raises
        ------
        ValueError
            The model is bidirectional or reads both strands: it has to see the whole record.
        """
        return LayerStream(self)

    def _check_streamable(self):
        check_is_fitted(self)
        if isinstance(self.model_, ReverseComplement):
            raise ValueError(
                "A model that reads both strands needs the whole sequence: fit with reverse_complement='augment' or "
                "None to stream."
            )
        if not self.model_.causal:
            raise ValueError("A bidirectional model reads the whole record: fit with bidirectional=False to stream.")

    def _export(self):
        check_is_fitted(self)
        state = {"params": self.get_params(deep=False), "model": self.model_.config, "learned": {}}
        if self.alphabet is not None and "alphabet_" in vars(self):
            state["params"]["alphabet"] = self.alphabet_
        if not isinstance(state["params"]["random_state"], Integral):
            state["params"]["random_state"] = None
        state["params"] |= _NOT_SAVED
        arrays = {f"model.{name}": value.numpy() for name, value in self.model_.state_dict().items()}
        for name, value in vars(self).items():
            if not name.endswith("_") or name == "model_":
                continue
            if name == "history_":
                arrays.update({f"history.{column}": value[column].to_numpy() for column in value})
            elif name == "feature_names_in_":
                state["learned"][name] = value.tolist()
            elif isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                state["learned"][name] = value
        return state, arrays

    @classmethod
    def _import(cls, state, arrays):
        # Whoever wrote the file, it names no path to write to.
        estimator = cls(**state["params"] | _NOT_SAVED)
        for name, value in state["learned"].items():
            setattr(estimator, name, value)
        weights, losses = {}, {}
        for name, array in arrays.items():
            if name.startswith("model."):
                weights[name.removeprefix("model.")] = torch.from_numpy(array)
            elif name.startswith("history."):
                losses[name.removeprefix("history.")] = array
            else:
                setattr(estimator, name, array)
        if "feature_names_in_" in state["learned"]:
            estimator.feature_names_in_ = np.array(state["learned"]["feature_names_in_"], dtype=object)
        if losses:
            n_epochs = len(losses["loss"])
            estimator.history_ = pd.DataFrame(losses, index=pd.RangeIndex(1, n_epochs + 1, name="epoch"))
        with torch.random.fork_rng(devices=[]):
            estimator.model_ = estimator._make_model(**state["model"])
        estimator.model_.load_state_dict(weights)
        estimator.model_.eval()
        return estimator


def _table(history):
    """The losses of every epoch, counted from 1."""
    losses = {"loss": history.loss}
    if history.validation_loss:
        # An interruption between the two leaves a last epoch without validation.
        missing = len(history.loss) - len(history.validation_loss)
        losses["validation_loss"] = history.validation_loss + [np.nan] * missing
    return pd.DataFrame(losses, index=pd.RangeIndex(1, len(history.loss) + 1, name="epoch"))
