"""DeepEstimator: a network fitted to series, streamed and saved; what is predicted is the subclass's choice.

Above: ``regression`` and ``classification``. Below: ``base`` reads X and times, ``parameters`` names the layer,
``models`` computes, ``training`` fits, ``streaming`` steps.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from statespace.alphabets import Alphabet
from statespace.base import set_learned
from statespace.fitting import NOT_SAVED, GoingOn, seed_and_checkpoint
from statespace.inspection import summary
from statespace.models import ReverseComplement, make_backbone, predict_series, predict_steps, restored_model
from statespace.readers import StoredRows
from statespace.stored import StoredSeries
from statespace.streaming.layer import LayerStream
from statespace.training import (
    History,
    RandomStrands,
    SeriesBatches,
    StoredBatches,
    check_precision,
    choose_device,
    count_devices,
    fit,
    fit_in_processes,
    ssm_rates,
)
from statespace.training.callbacks import as_callbacks
from statespace.training.devices import answering_type
from statespace.training.scikit_learn import report, with_callbacks

_POOLING = ("mean", "last")
# Samples of what a file's model is tried on: more than a window of the slowest scale of `SaShiMi` by default.
_PROBE_LENGTH = 20
_REVERSE_COMPLEMENT = (None, "equivariant", "augment")


@dataclass(eq=False, repr=False)
class DeepEstimator(GoingOn):
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
    n_layers: int = 2
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
    batch_size: int | str = "auto"
    chunk_length: int | None = None
    learning_rate: float = 4e-3
    ssm_learning_rate: float | Mapping[str, float] = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0
    validation_fraction: float = 0.1
    calibrate: bool = False
    calibration_fraction: float = 0.2
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
        if warm and self.calibrate:
            self._check_same_held_out()
        collection, weights, targets, n_outputs = self._take(X, y, times, sample_weight, new=not warm)
        self._check_chunks()
        self._forget_calibration()
        seed, checkpoint = seed_and_checkpoint(self)
        generator = torch.Generator().manual_seed(seed)
        training, held_out, calibration = self._split(targets, generator, weights)
        raw = targets
        if warm:
            targets = self._scaled(targets)
        else:
            fitted = np.delete(np.arange(len(collection)), calibration)
            if len(calibration):
                # Not even scales are learned from what calibrates: it stands for series that are new.
                self._learn_scales(collection[fitted], _rows(weights, fitted))
            targets = self._scaled_targets(targets, fitted, _rows(weights, fitted))
        device = choose_device(self.device, verbose=self.verbose)
        n_devices = count_devices(self.n_devices, device)
        train = fit if n_devices == 1 else partial(fit_in_processes, n_devices)
        # Of several processes each moves its share of a batch to its own device.
        place = device if n_devices == 1 else torch.device("cpu")
        model = self._new_model(n_outputs, seed)
        if warm:
            self._warm(model)
        if checkpoint is not None:
            checkpoint = replace(checkpoint, identity=self._identity(seed, model, collection, targets, weights))
        self.model_, past = model, self.history_ if warm else None
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        told = report(self, self.max_epochs, self._as_if_stopped, collection, y, metadata)
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
                callbacks=[*([] if told is None else [told]), *as_callbacks(self.callbacks)],
                checkpoint=checkpoint,
                history=history,
                **self._step_options(),
            )
        finally:
            model.cpu().eval()
            self._remember(history, past)
        if len(calibration):
            self._learn_calibration(
                collection[calibration], [raw[i] for i in calibration], _rows(weights, calibration)
            )
            self.n_calibration_ = len(calibration)
        if told is not None:
            told.end()
        return self

    def _new_model(self, n_outputs, seed):
        """The network, with the starting values that belong to the seed."""
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
            self._start(model)
        return model

    def _scaled_targets(self, targets, fitted, weights):
        """Targets as the network is to say them; what scales them is learned from the series ``fitted``, of weights."""
        return self._scaled(targets)

    def _scaled(self, targets):
        """Targets as the network is to say them, by the scales that were learned."""
        return targets

    def _forget_calibration(self):
        """Drop what earlier held-out series said of a model that is to change."""
        self.n_calibration_ = 0

    def _check_same_held_out(self):
        """Refuse to calibrate with series that the model may have learned from."""
        if not vars(self).get("n_calibration_") or not isinstance(self.random_state, Integral):
            raise ValueError(
                "calibrate=True with warm_start=True needs an earlier fit that held out the same series: one with "
                "calibrate=True and an integer random_state. Else the model has learned from what should calibrate it: "
                "fit anew with warm_start=False."
            )

    def _start(self, model):
        """Starting values of a new model that are the subclass's."""

    def _check_parameters(self):
        self._check_going_on()
        for name in ("d_model", "n_layers", "d_state", "max_epochs"):
            if hasattr(self, name):
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        for name in ("patience", "chunk_length"):
            if getattr(self, name) is not None:
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        if isinstance(self.batch_size, str) and self.batch_size != "auto":
            raise ValueError(f"batch_size must be 'auto' or a number of series. Got {self.batch_size!r} instead.")
        if self.batch_size != "auto":
            check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        if self.gradient_clip is not None:
            check_scalar(self.gradient_clip, "gradient_clip", Real, min_val=0, include_boundaries="neither")
        for name in ("learning_rate", "weight_decay"):
            check_scalar(getattr(self, name), name, Real, min_val=0)
        ssm_rates(self.ssm_learning_rate, self.learning_rate)
        check_precision(self.precision)
        count_devices(self.n_devices, torch.device("cpu"))
        for name in ("dropout", "validation_fraction", "calibration_fraction"):
            check_scalar(getattr(self, name), name, Real, min_val=0, max_val=1, include_boundaries="left")
        if not isinstance(self.calibrate, bool | np.bool_):
            raise ValueError(f"calibrate must be True or False. Got {self.calibrate!r} instead.")
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

    def _split(self, targets, generator, weights=None):
        """Series to train on, held out, and to calibrate with, of those with a target that is known and weighs."""
        known = np.flatnonzero(self._known(targets, weights))
        order = self._held_out_first(known[torch.randperm(len(known), generator=generator).numpy()], targets)
        n_calibration = int(self.calibration_fraction * len(order)) if self.calibrate else 0
        if self.calibrate and n_calibration == 0:
            raise ValueError(
                f"calibrate=True holds out calibration_fraction={self.calibration_fraction:g} of the series with a "
                f"target: none of n_samples={len(order)}. Give more series, or a larger calibration_fraction."
            )
        calibration, order = order[:n_calibration], order[n_calibration:]
        n_held_out = int(self.validation_fraction * len(order))
        return np.sort(order[n_held_out:]), np.sort(order[:n_held_out]), np.sort(calibration)

    def _known(self, targets, weights):
        """Whether each series has a target that is known and weighs something."""
        if isinstance(targets, StoredRows):
            known = targets.statistics.known
            return known if weights is None else known & [bool(np.any(weight)) for weight in weights]
        known = np.array([not np.isnan(row).all() for row in targets])
        if weights is not None:
            rows = zip(targets, weights, strict=True)
            known &= [bool((np.asarray(weight)[..., None] * ~np.isnan(row)).any()) for row, weight in rows]
        return known

    def _held_out_first(self, order, targets):
        """The order in which series are held out, from a random one."""
        return order

    def _training_batches(self, collection, indices, targets, weights, device, generator):
        data = self._batches(collection, indices, targets, weights, device)
        if self.reverse_complement == "augment":
            return RandomStrands(data, self._alphabet.complement, generator)
        return data

    def _batches(self, collection, indices, targets, weights, device):
        targets = _rows(targets, indices)
        return self._data(collection[indices], targets, weights=_rows(weights, indices), device=device)

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

        On a CPU it computes in float64, so that a series' answer does not depend on the series beside it.
        """
        device = choose_device(self.device)
        dtype = answering_type(device)
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

    def summary(self):
        """Parameters, state and floating-point operations a step of every part of the fitted network.

        Returns
        -------
        table : DataFrame
            As `statespace.inspection.summary` has it.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The estimator is not fitted.
        """
        return summary(self)

    def export_onnx(self, path, *, dtype="float32"):
        """Write the step of the fitted model as an ONNX graph: `statespace.export.export_onnx` says what is in it.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.
        dtype : {"float32", "float64"}, default="float32"
            In which the graph computes.
        """
        from statespace.export import export_onnx

        export_onnx(self, path, dtype=dtype)

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
        state["params"] |= NOT_SAVED
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
        estimator = cls(**state["params"] | NOT_SAVED)
        for name, value in state["learned"].items():
            set_learned(estimator, name, value)
        weights, losses = {}, {}
        for name, array in arrays.items():
            if name.startswith("model."):
                weights[name.removeprefix("model.")] = torch.from_numpy(array)
            elif name.startswith("history."):
                losses[name.removeprefix("history.")] = array
            else:
                set_learned(estimator, name, array)
        if "feature_names_in_" in state["learned"]:
            estimator.feature_names_in_ = np.array(state["learned"]["feature_names_in_"], dtype=object)
        if losses:
            n_epochs = len(losses["loss"])
            estimator.history_ = pd.DataFrame(losses, index=pd.RangeIndex(1, n_epochs + 1, name="epoch"))
        estimator.model_ = restored_model(lambda: estimator._make_model(**state["model"]), weights)
        return estimator

    def _probe(self):
        """Two short series as the network would read them, for `statespace.persistence`."""
        rng = np.random.default_rng(0)
        if self._alphabet is None:
            x = self.x_mean_ + self.x_scale_ * rng.normal(size=(2, _PROBE_LENGTH, self.n_channels_))
        else:
            x = rng.integers(len(self._alphabet.rows), size=(2, _PROBE_LENGTH, 1)).astype(np.float64)
        return {"x": x} | ({} if self.clock_ is None else {"dt": rng.exponential(size=x.shape[:2]) + 0.1})

    def _answer_probe(self, given):
        """What the network makes of them, in the units of the targets."""
        model = self._copy_model(torch.device("cpu"), torch.float64)
        x = torch.from_numpy(self._encode(given["x"]).astype(np.float64, copy=False))
        dt = torch.from_numpy(given["dt"]) if "dt" in given else None
        with torch.inference_mode():
            outputs, _ = model(x, dt)
            return {name: value.numpy() for name, value in self._answers_module()(outputs).items()}


def _rows(values, indices):
    """The weights or targets of some series, in the form in which those of all are."""
    if isinstance(values, list):
        return [values[i] for i in indices]
    return None if values is None else values[indices]
