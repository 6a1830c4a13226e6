"""DeepForecaster: one network for every horizon and query time; the layer is the subclass's choice.

Above: ``ssm`` and the named ones. Below: ``windows`` makes tokens, ``statespace.quantiles`` reads the outputs,
``tables`` keeps the history in files.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from statespace.base import mean_and_scale
from statespace.fitting import check_going_on, identity, seed_and_checkpoint
from statespace.forecasting.base import TimeForecaster, covariate_rows, extended
from statespace.forecasting.baseline import TRENDS
from statespace.forecasting.calibration import Calibration, held_out, held_out_forecasts
from statespace.forecasting.files import check_tokens, exported, imported, take_learned
from statespace.forecasting.horizon import common_freq
from statespace.forecasting.reading import Reader, rows_of
from statespace.forecasting.windows import N_CHANNELS, Records, TrainingWindows, WindowReader, best_trend
from statespace.inspection import summary
from statespace.models import make_backbone
from statespace.quantiles import (
    LEVELS,
    MEDIAN,
    N_OUTPUTS,
    ordered_quantiles,
    pinball,
    quantiles_at,
    variance,
)
from statespace.times import median_gap
from statespace.training import Checkpoint, History, check_precision, choose_device, fit, ssm_rates
from statespace.training.devices import answering_type

# Sines and cosines of every known period: a year's first three harmonics draw any smooth season.
_HARMONICS = 3
# Of a y whose squares, millions of them together, are floats still.
_LARGEST = 1e140
# Parameters that are integers, and the least of each.
_INTEGERS = {"context_length": 1, "windows_per_epoch": 1, "queries_per_window": 1, "batch_size": 1, "max_epochs": 0}


class QueryModel(nn.Module):
    """A network that reads windows, and takes one step of its recurrence to each query.

    Parameters
    ----------
    backbone, options, **config
        As in `statespace.models.make_backbone`.
    """

    def __init__(self, backbone="stack", options=None, **config):
        super().__init__()
        self.stack = make_backbone(backbone, options, d_output=N_OUTPUTS, **config)
        if not self.stack.causal:
            raise ValueError("a forecast steps on from the history's end: its layers must have bidirectional=False.")
        # At first the forecast is the baseline, with the spread of the context as a normal distribution.
        nn.init.zeros_(self.stack.head.weight)
        nn.init.zeros_(self.stack.head.bias)

    def forward(self, x, dt, queries, query_dt, window):
        """Quantiles (n_queries, len(LEVELS)); the arguments as in `windows.Tokens`."""
        _, state = self.stack.features(x, dt)
        return self.answer(state, queries, query_dt, window)

    def answer(self, state, queries, query_dt, window):
        """Each query from the state that its window left, and no query from another."""
        outputs, _ = self.stack.step(queries, rows_of(state, window), query_dt)
        return ordered_quantiles(outputs)


def _loss(model, batch):
    """Weighted sum of pinball losses over the queries, and the sum of weights."""
    quantiles = model(batch["x"], batch["dt"], batch["queries"], batch["query_dt"], batch["window"])
    return (batch["weight"] * pinball(quantiles, batch["y"])).sum(), batch["weight"].sum()


@dataclass(eq=False, repr=False)
class DeepForecaster(TimeForecaster):
    """A network that reads the history once and answers any query time.

    The layer comes from one of the classes in `statespace.parameters`.

    Examples
    --------
    >>> from statespace.forecasting import DeepForecaster, S4DForecaster
    >>> issubclass(S4DForecaster, DeepForecaster)
    True
    """

    _tags: ClassVar = {
        "y_inner_mtype": ["pd.Series", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "python_dependencies": ["torch"],
    }
    # What a file brings instead of training. An attribute of the class, or sktime's reset in fit would delete it.
    _restored = None

    d_model: int = 32
    n_layers: int = 2
    _: KW_ONLY
    backbone: str = "stack"
    backbone_options: Mapping[str, Any] | None = None
    moe: int | Mapping[str, Any] | None = None
    periods: Sequence[float] | None = None
    static: pd.DataFrame | None = None
    trend: str = "auto"
    context_length: int = 256
    max_horizon: float | None = None
    dropout: float = 0.2
    max_epochs: int = 6
    windows_per_epoch: int = 256
    queries_per_window: int = 16
    batch_size: int = 16
    learning_rate: float = 4e-3
    ssm_learning_rate: float | Mapping[str, float] = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0
    time_unit: str | None = None
    device: str | torch.device = "auto"
    precision: str = "float32"
    calibrate: bool = False
    calibration_fraction: float = 0.2
    checkpoint: str | os.PathLike | None = None
    resume: bool = False
    callbacks: Sequence[Any] | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def __post_init__(self):
        # Called by the dataclass, and again by the constructor of sktime's base class, to which it leads.
        if "_state" not in vars(self):
            super().__init__()

    def _fit(self, y, X, fh):
        self._check_parameters()
        _check_finite(y, X, least=1 / _LARGEST)
        self._history = y
        self._covariates = None if X is None else covariate_rows(y.index, X)
        indexes = list(self._indexes().values())
        self._axis = self._make_axis(indexes, freq=common_freq(indexes) if isinstance(y.index, pd.MultiIndex) else None)
        if self._restored is not None:
            self._restore()
            self._records = self._read_records()
            check_tokens(self._restored[0], N_CHANNELS + self._records.covariates.shape[1])
        else:
            self._learn_scales(indexes, fh)
            self._records = self._read_records()
            self._learn(self.max_epochs)
        self._readings = []
        self._read_on()
        return self

    def _update(self, y, X=None, update_params=True):
        if (X is None) != (self._covariates is None):
            raise ValueError("update needs X if fit was given X, and only then.")
        _check_finite(y, X)
        if X is not None:
            self._covariates = extended(self._covariates, covariate_rows(y.index, X))
        ends, numbers = {name: index[-1] for name, index in self._indexes().items()}, self._numbers
        self._history = extended(self._history, y)
        self._records = self._read_records()
        if update_params:
            self._learn(max(1, self.max_epochs // 5))
            self._readings = []
        else:
            firsts = {name: index[0] for name, index in self._indexes(y.index).items()}
            changed = [number for name, number in numbers.items() if name in firsts and firsts[name] <= ends[name]]
            self._readings = [
                reading.take(np.flatnonzero(~np.isin(reading.numbers, changed))).renumbered(numbers, self._numbers)
                for reading in self._readings
            ]
        self._read_on()
        return self

    def _read_on(self):
        """Carry the network's states on to the end of the data; those that do not know it begin anew."""
        numbers = np.flatnonzero(self._records.lengths)
        self._readings = [part.moved("cpu") for part in self._network().read(numbers, self._readings)]

    def _check_parameters(self):
        for name, least in _INTEGERS.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}. Got {value!r} instead.")
        if self.trend not in ("auto", *TRENDS):
            raise ValueError(
                f"trend must be 'auto' or one of {', '.join(map(repr, TRENDS))}. Got {self.trend!r} instead."
            )
        check_going_on(self)
        self._check_calibration()
        ssm_rates(self.ssm_learning_rate, self.learning_rate)
        check_precision(self.precision)
        if any(not period > 0 for period in self.periods or ()):
            raise ValueError(
                f"periods must be positive, in the unit of time of the index. Got {self.periods!r} instead."
            )
        if self.max_horizon is not None and not self.max_horizon > 0:
            raise ValueError(f"max_horizon must be positive, or None. Got {self.max_horizon!r} instead.")

    def _learn_scales(self, indexes, fh):
        """The unit of gaps, the scales of covariates, the longest horizon and context."""
        times = [self._axis.count(index) for index in indexes]
        long = [t for t in times if len(t) > 1]
        self.time_scale_ = float(median_gap(long)) if long else 1.0
        if self._covariates is not None:
            values = self._covariates.to_numpy(dtype=np.float64)
            self.X_mean_, self.X_scale_ = mean_and_scale([values])
        span = max((t[-1] - t[0] for t in long), default=self.time_scale_)
        horizon = self.max_horizon
        if horizon is None:
            asked = 0.0 if fh is None else max(self._reach(fh, index[-1:]) for index in indexes)
            horizon = max(span / 4, min(asked, span / 2), self.time_scale_)
        self.max_horizon_ = float(horizon)
        self.context_length_ = int(min(self.context_length, max(1, max(map(len, times)) // 2)))

    def _reach(self, fh, cutoff):
        return self._axis.count(self._axis.future(fh, cutoff)).max() - self._axis.count(cutoff)[0]

    def _read_records(self):
        """The observed values of all series, with their times and covariates, as the network reads them."""
        values = np.asarray(self._history, dtype=np.float64).reshape(-1)
        X = None if self._covariates is None else self._covariates.to_numpy(dtype=np.float64)
        indexes, parts, self._numbers = self._indexes(), [], {}
        self._static = self._read_static(list(indexes))
        for number, (name, rows) in enumerate(self._places().items()):
            times = self._axis.count(indexes[name])
            if (np.diff(times) <= 0).any():
                k = int(np.argmax(np.diff(times) <= 0))
                raise ValueError(
                    f"times must increase: {indexes[name][k + 1]} follows {indexes[name][k]}"
                    + ("" if name is None else f" in series {name}")
                    + ". Sort the rows and keep one for each time."
                )
            seen = ~np.isnan(values[rows])
            covariates = self._known_at(times, None if X is None else X[rows], np.full(len(times), number))
            parts.append((times[seen], values[rows][seen], covariates[seen]))
            self._numbers[name] = number
        records = Records.join(parts)
        if len(records.values) == 0:
            raise ValueError("y has no value that is not missing: there is nothing to learn from.")
        return records

    def _read_static(self, names):
        """The scaled static covariates of every series, 0 where missing: (n_series, n_static)."""
        if self.static is None:
            return np.empty((len(names), 0))
        if names == [None]:
            raise ValueError("static has covariates of the series of a panel, and y is one series. Leave static out.")
        table = self.static
        if not isinstance(table, pd.DataFrame):
            raise TypeError(
                f"static must be a DataFrame with a row of numbers for each series. Got {type(table).__name__}."
            )
        labels = [name if len(name) > 1 else name[0] for name in names]
        missing = [label for label in labels if label not in table.index]
        if missing:
            raise ValueError(f"static must have a row for every series of y: it has none for {missing[0]!r}.")
        values = table.loc[labels].to_numpy(dtype=np.float64)
        if not hasattr(self, "static_mean_"):
            self.static_mean_, self.static_scale_ = mean_and_scale([values])
        return np.nan_to_num((values - self.static_mean_) / self.static_scale_)

    def _known_at(self, times, X, numbers):
        """What is known at any time of any series, 0 where missing: (n, n_covariates).

        Sines and cosines of the known periods, the scaled covariates, and the static ones.
        """
        columns = []
        for period in self.periods or ():
            for k in range(1, _HARMONICS + 1):
                angle = 2 * np.pi * k * (times / period % 1.0)
                columns += [np.sin(angle), np.cos(angle)]
        parts = [np.stack(columns, axis=-1) if columns else np.empty((len(times), 0))]
        if X is not None:
            parts.append(np.nan_to_num((X - self.X_mean_) / self.X_scale_))
        return np.concatenate([*parts, self._static[numbers]], axis=1)

    def _reader(self, trend):
        scales = self.time_scale_, self.value_scale_, self.max_horizon_, self.context_length_
        return WindowReader(self._records, trend, *scales, n_constant=self._static.shape[1])

    def _learn(self, max_epochs):
        """Train on all of the data; or on their first part, and calibrate with the rest."""
        seed, _ = seed_and_checkpoint(self)
        self.calibration_, everything = None, self._records
        if not self.calibrate:
            self._train(max_epochs, seed)
            return
        cuts = held_out(everything.lengths, self.calibration_fraction)
        self._records = everything.first(cuts)
        try:
            self._train(max_epochs, seed)
        finally:
            self._records = everything
        times = np.split(everything.times, everything.starts[1:])
        numbers, ends, rows = held_out_forecasts(times, cuts, self.max_horizon_, seed)
        first = everything.starts[numbers]
        at, covariates = everything.times[first + rows], everything.covariates[first + rows]
        quantiles = self._network().before(numbers, ends, at, covariates)
        horizons = at - everything.times[first + ends - 1]
        self.calibration_ = Calibration.learned(quantiles, everything.values[first + rows], horizons)

    def _train(self, max_epochs, seed):
        """Train the model: a new one in fit, in update the present one goes on."""
        new = not hasattr(self, "model_")
        device = choose_device(self.device, verbose=self.verbose)
        if new:
            self.value_scale_ = self._records.value_scale
            self.trend_ = best_trend(self._reader, seed) if self.trend == "auto" else self.trend
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.model_ = QueryModel(**self._model_config())
        windows = TrainingWindows(self._reader(self.trend_), self.windows_per_epoch, self.queries_per_window, seed)
        if not windows.n_cuts or max_epochs == 0:
            self.history_ = pd.DataFrame({"loss": []}, index=pd.RangeIndex(1, 1, name="epoch"))
            self.model_.eval()
            return
        checkpoint = None
        if new and self.checkpoint is not None:
            data = [self._records.times, self._records.values, self._records.covariates, self._records.lengths]
            checkpoint = Checkpoint(self.checkpoint, self.resume, identity(self, seed, self.model_, data))
        history = History()
        try:
            fit(
                self.model_,
                windows,
                _loss,
                max_epochs=max_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                ssm_learning_rate=self.ssm_learning_rate,
                weight_decay=self.weight_decay,
                gradient_clip=self.gradient_clip,
                generator=torch.Generator().manual_seed(seed),
                progress=self.verbose > 0,
                device=device,
                precision=self.precision,
                callbacks=self.callbacks,
                checkpoint=checkpoint,
                history=history,
            )
        finally:
            self.model_.cpu().eval()
            epochs = pd.RangeIndex(1, len(history.loss) + 1, name="epoch")
            self.history_ = pd.DataFrame({"loss": history.loss}, index=epochs)

    def _model_config(self):
        layer, options = self._layers()
        return {
            "backbone": self.backbone,
            "options": None if self.backbone_options is None else dict(self.backbone_options),
            "d_input": N_CHANNELS + self._records.covariates.shape[1],
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            "layer": layer,
            "layer_options": options,
            "dropout": self.dropout,
            "moe": dict(self.moe) if isinstance(self.moe, Mapping) else self.moe,
        }

    def _forecast(self, fh, X):
        """The index that is asked for, and the quantiles (n, len(LEVELS)) there."""
        index, numbers = self._asked(fh)
        return index, self._quantiles(index, numbers, X)

    def _points(self, index, numbers, X):
        return self._quantiles(index, numbers, X)[:, MEDIAN]

    def _quantiles(self, index, numbers, X):
        X = None if self._covariates is None else covariate_rows(index, X, self._covariates).to_numpy(dtype=np.float64)
        times = self._axis.count(index.get_level_values(-1))
        return self._answer(numbers, times, self._known_at(times, X, numbers))

    def _network(self):
        """What reads the records with the trained network."""
        device = choose_device(self.device)
        dtype = answering_type(device)
        return Reader(deepcopy(self.model_).to(device, dtype).eval(), self._reader(self.trend_), dtype, device)

    def _answer(self, numbers, times, covariates):
        """Quantiles of series ``numbers`` at ``times``, each given the observations before that time."""
        record, network = self._records, self._network()
        ends = np.empty(len(times), dtype=np.int64)
        for number in np.unique(numbers):
            start, n = record.starts[number], record.lengths[number]
            mine = numbers == number
            ends[mine] = np.searchsorted(record.times[start : start + n], times[mine], side="left")
        quantiles = np.empty((len(times), len(LEVELS)))
        quantiles[ends == 0] = np.quantile(record.values, LEVELS)
        past = np.flatnonzero((ends > 0) & (ends < record.lengths[numbers]))
        if len(past):
            quantiles[past] = network.before(numbers[past], ends[past], times[past], covariates[past])
        present = (ends > 0) & (ends == record.lengths[numbers])
        for reading in self._readings:
            place = np.full(len(record.lengths), -1)
            place[reading.numbers] = np.arange(len(reading.numbers))
            own = np.flatnonzero(present & (place[numbers] >= 0))
            if len(own):
                quantiles[own] = network.at_present(reading, times[own], covariates[own], place[numbers[own]])
        if self.calibration_ is not None:
            known = np.flatnonzero(ends > 0)
            horizons = times[known] - record.times[record.starts[numbers[known]] + ends[known] - 1]
            quantiles[known] = self.calibration_(quantiles[known], horizons)
        return quantiles

    def _predict_quantiles(self, fh, X, alpha):
        index, quantiles = self._forecast(fh, X)
        columns = self._get_columns(method="predict_quantiles", alpha=alpha)
        return pd.DataFrame(quantiles_at(quantiles, alpha), index=index, columns=columns)

    def _predict_var(self, fh, X=None, cov=False):
        if cov:
            raise ValueError("cov=True is not known: every time has a distribution of its own. Use cov=False.")
        index, quantiles = self._forecast(fh, X)
        return pd.DataFrame(variance(quantiles), index=index, columns=self._get_varnames())

    def _predict_proba(self, fh, X, marginal=True):
        from statespace.forecasting.distribution import PiecewiseNormal

        self._refuse_joint(marginal)
        index, quantiles = self._forecast(fh, X)
        return PiecewiseNormal(quantiles[:, np.newaxis], LEVELS, index=index, columns=self._get_varnames())

    def summary(self):
        """Parameters, state and floating-point operations a step of every part of the fitted network.

        A sample of the history is a step, and so is a query.

        Returns
        -------
        table : DataFrame
            As `statespace.inspection.summary` has it.

        Raises
        ------
        sktime.exceptions.NotFittedError
            The forecaster is not fitted.
        """
        return summary(self)

    def _export(self):
        self.check_is_fitted()
        return exported(self)

    @classmethod
    def _import(cls, state, arrays):
        return imported(cls, state, arrays)

    def _restore(self):
        """Take what a file brings in the place of what training would learn."""
        state, arrays = self._restored
        take_learned(self, state, arrays)
        with torch.random.fork_rng(devices=[]):
            self.model_ = QueryModel(**state["model"])
        weights = {
            name.removeprefix("model."): torch.from_numpy(a) for name, a in arrays.items() if name[:6] == "model."
        }
        self.model_.load_state_dict(weights)
        self.model_.eval()


def _check_finite(y, X, least=0.0):
    """Numbers that can be squared and summed up; ``least`` is asked of the largest of y, where it is not zero."""
    for name, table in (("y", y), ("X", X)):
        if table is not None and np.isinf(np.asarray(table, dtype=np.float64)).any():
            raise ValueError(f"Input {name} contains infinity. NaN marks what is missing.")
    sizes = np.abs(np.asarray(y, dtype=np.float64))
    largest = sizes.max(initial=0.0, where=~np.isnan(sizes))
    if largest > _LARGEST or 0.0 < largest < least:
        raise ValueError(
            f"y has values of up to {largest:.3g}, whose squares no float can hold: those must lie between "
            f"{1 / _LARGEST:g} and {_LARGEST:g}. Give y in another unit."
        )
