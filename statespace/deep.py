"""DeepEstimator: a network fitted to series, streamed and saved; what is predicted is the subclass's choice.

Above: ``regression`` and ``classification``. Below: ``base`` reads X and times, ``parameters`` names the layer,
``models`` computes, ``training`` fits, ``streaming`` steps.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted

from statespace.alphabets import Alphabet
from statespace.base import SeriesEstimator, set_learned
from statespace.inspection import summary
from statespace.models import ReverseComplement, make_backbone, predict_series, predict_steps, restored_model
from statespace.streaming.layer import LayerStream
from statespace.training import RandomStrands, SeriesBatches, check_precision, choose_device, fit, ssm_rates

_POOLING = ("mean", "last")
# Samples of what a file's model is tried on: more than a window of the slowest scale of `SaShiMi` by default.
_PROBE_LENGTH = 20
_REVERSE_COMPLEMENT = (None, "equivariant", "augment")


@dataclass(eq=False, repr=False)
class DeepEstimator(SeriesEstimator):
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
    learning_rate: float = 4e-3
    ssm_learning_rate: float | Mapping[str, float] = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0
    validation_fraction: float = 0.1
    calibrate: bool = False
    calibration_fraction: float = 0.2
    patience: int | None = 10
    device: str | torch.device = "auto"
    precision: str = "float32"
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def _fit(self, X, y, times, sample_weight=None):
        self._check_parameters()
        collection, weights = self._learn_inputs(X, times, sample_weight)
        targets, n_outputs = self._learn_targets(y, collection, weights)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        training, held_out, calibration = self._split(targets, generator, weights)
        fitted = np.delete(np.arange(len(collection)), calibration)
        if len(calibration):
            # Not even scales are learned from what calibrates: it stands for series that are new.
            self._learn_scales(collection[fitted], _rows(weights, fitted))
        raw, targets = targets, self._scaled_targets(targets, fitted, _rows(weights, fitted))
        device = choose_device(self.device, verbose=self.verbose)
        layer, options = self._layers(bidirectional=self.bidirectional)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model_ = self._make_model(
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
                torch.nn.init.uniform_(self.model_.encoder.weight, -1.0, 1.0)
            self._start(self.model_)
        data = self._batches(collection, training, targets, weights, device)
        if self.reverse_complement == "augment":
            data = RandomStrands(data, self._alphabet.complement, generator)
        try:
            history = fit(
                self.model_,
                data,
                self._loss(targets),
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                ssm_learning_rate=self.ssm_learning_rate,
                weight_decay=self.weight_decay,
                validation=self._batches(collection, held_out, targets, weights, device) if len(held_out) else None,
                patience=self.patience,
                gradient_clip=self.gradient_clip,
                generator=generator,
                progress=self.verbose > 0,
                device=device,
                precision=self.precision,
            )
        finally:
            self.model_.cpu().eval()
        losses = {"loss": history.loss}
        if len(held_out):
            # An interruption between the two leaves a last epoch without validation.
            losses["validation_loss"] = history.validation_loss + [np.nan] * (
                len(history.loss) - len(history.validation_loss)
            )
        self.history_ = pd.DataFrame(losses, index=pd.RangeIndex(1, len(history.loss) + 1, name="epoch"))
        self.best_epoch_ = history.best_epoch + 1
        if len(calibration):
            self._learn_calibration(collection[calibration], [raw[i] for i in calibration])
        return self

    def _scaled_targets(self, targets, fitted, weights):
        """Targets as the network is to say them; what scales them is learned from the series ``fitted``, of weights."""
        return targets

    def _start(self, model):
        """Starting values of a new model that are the subclass's."""

    def _check_parameters(self):
        for name in ("d_model", "n_layers", "d_state", "max_epochs", "batch_size"):
            if hasattr(self, name):
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        if self.patience is not None:
            check_scalar(self.patience, "patience", Integral, min_val=1)
        if self.gradient_clip is not None:
            check_scalar(self.gradient_clip, "gradient_clip", Real, min_val=0, include_boundaries="neither")
        for name in ("learning_rate", "weight_decay"):
            check_scalar(getattr(self, name), name, Real, min_val=0)
        ssm_rates(self.ssm_learning_rate, self.learning_rate)
        check_precision(self.precision)
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

    def _split(self, targets, generator, weights=None):
        """Series to train on, held out, and to calibrate with, of those with a target that is known and weighs."""
        known = np.array([not np.isnan(row).all() for row in targets])
        if weights is not None:
            rows = zip(targets, weights, strict=True)
            known &= [bool((np.asarray(weight)[..., None] * ~np.isnan(row)).any()) for row, weight in rows]
        known = np.flatnonzero(known)
        order = self._held_out_first(known[torch.randperm(len(known), generator=generator).numpy()], targets)
        n_calibration = int(self.calibration_fraction * len(order)) if self.calibrate else 0
        if self.calibrate and n_calibration == 0:
            raise ValueError(
                f"calibrate=True holds out calibration_fraction={self.calibration_fraction:g} of the series with a "
                f"target, which is none of {len(order)}. Give more series, or a larger calibration_fraction."
            )
        calibration, order = order[:n_calibration], order[n_calibration:]
        n_held_out = int(self.validation_fraction * len(order))
        return np.sort(order[n_held_out:]), np.sort(order[:n_held_out]), np.sort(calibration)

    def _held_out_first(self, order, targets):
        """The order in which series are held out, from a random one."""
        return order

    def _batches(self, collection, indices, targets, weights, device):
        targets = [targets[i] for i in indices] if self.per_step_ else targets[indices]
        return self._data(collection[indices], targets, weights=_rows(weights, indices), device=device)

    def _data(self, collection, targets=None, **options):
        """Series as the network reads them, in batches."""
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
        estimator = cls(**state["params"])
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


def _rows(weights, indices):
    """The weights of some series, in the form in which those of all are."""
    if isinstance(weights, list):
        return [weights[i] for i in indices]
    return None if weights is None else weights[indices]
