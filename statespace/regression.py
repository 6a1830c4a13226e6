"""Regressors over collections of series: one target a series or one a step.

Above: the user. Below: ``base`` reads X and times, ``models`` computes, ``training`` fits, ``streaming`` steps.
"""

from copy import deepcopy
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted

from statespace.base import SeriesEstimator, mean_and_scale
from statespace.models import ResidualStack, predict_series, predict_steps
from statespace.streaming.layer import LayerStream
from statespace.training import SeriesBatches, choose_device, fit
from statespace.validation import check_targets

_POOLING = ("mean", "last")


class DeepRegressor(RegressorMixin, SeriesEstimator):
    """A residual stack fitted to one target a series or one a step; the layer is the subclass's choice.

    A subclass has an ``__init__`` that stores the parameters of `S4DRegressor`'s list that are not the layer's own, and
    says which layer it stacks: its name in ``_layer``, its arguments by ``_layer_options()``.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.regression import DeepRegressor
    >>> isinstance(S4DRegressor(), DeepRegressor)
    True
    """

    _layer: str

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y, times=None):
        """Fit the model.

        Parameters
        ----------
        X : array-like
            Series: an ndarray of shape (n_series, n_times, n_channels), or (n_series, n_times) for one channel; a list
            of (n_times_i, n_channels) arrays; a DataFrame with a (series, time) MultiIndex; a list of DataFrames
            indexed by time; or a SeriesCollection. NaN is a missing value.
        y : array-like
            One target a series, (n_series,) or (n_series, n_outputs); or one a step, (n_series, n_times), (n_series,
            n_times, n_outputs) or a list of (n_times_i,) or (n_times_i, n_outputs) arrays. NaN is a target that is not
            known and carries no loss. What a two-dimensional array means is the parameter ``target``'s business.
        times : array-like, optional
            Times of the samples, if X does not bring them: one vector of shape (n_times,) for all series, (n_series,
            n_times), or a list. Numbers, datetimes or timedeltas; they must increase.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad X, times, y or parameters; the message says what to change.
        statespace.training.DivergenceError
            The loss became infinite or NaN. The estimator then has the best weights up to there.

        Warns
        -----
        UserWarning
            Ctrl-C was pressed; the best weights so far are kept.
        """
        self._check_parameters()
        collection = self._learn_inputs(X, times)
        targets = check_targets(y, collection, per=self.target)
        self.per_step_, self.single_, self.n_outputs_ = targets.per_step, targets.single, targets.n_outputs
        rows = targets.values if targets.per_step else [targets.values]
        self.ragged_ = targets.per_step and not isinstance(y, np.ndarray)
        self.y_mean_, self.y_scale_ = mean_and_scale(rows)
        device = choose_device(self.device, verbose=self.verbose)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model_ = self._make_model()
        known = np.flatnonzero([not np.isnan(row).all() for row in targets.values])
        order = known[torch.randperm(len(known), generator=generator).numpy()]
        n_validation = int(self.validation_fraction * len(order))
        training = self._batches(collection, np.sort(order[n_validation:]), targets, device)
        validation = self._batches(collection, np.sort(order[:n_validation]), targets, device) if n_validation else None
        try:
            history = fit(
                self.model_,
                training,
                _squared_error,
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                ssm_learning_rate=self.ssm_learning_rate,
                weight_decay=self.weight_decay,
                validation=validation,
                patience=self.patience,
                gradient_clip=self.gradient_clip,
                generator=generator,
                progress=self.verbose > 0,
                device=device,
            )
        finally:
            self.model_.cpu().eval()
        losses = {"loss": history.loss}
        if validation is not None:
            # An interruption between the two leaves a last epoch without validation.
            losses["validation_loss"] = history.validation_loss + [np.nan] * (
                len(history.loss) - len(history.validation_loss)
            )
        self.history_ = pd.DataFrame(losses, index=pd.RangeIndex(1, len(history.loss) + 1, name="epoch"))
        self.best_epoch_ = history.best_epoch + 1
        return self

    def predict(self, X, times=None):
        """Predict the targets.

        The network computes in float64, so that a series' prediction does not depend on the series beside it, and in
        chunks with carried state, so that memory does not grow with the length of a series.

        Parameters
        ----------
        X, times
            As in `fit`. A model that was fitted with times asks for times.

        Returns
        -------
        y : ndarray
            In the form of the ``y`` of `fit`: (n_series,), (n_series, n_outputs), (n_series, n_times) or (n_series,
            n_times, n_outputs). Targets a step of series that differ in length, or that came as a list, are an object
            array of shape (n_series,) with an array for every series (which ``cross_val_predict`` can join).

        Raises
        ------
        ValueError
            For bad X or times, another number of channels, or no times where the model was fitted with times.
        """
        collection = self._read(X, times)
        values = self._outputs(collection)
        if not self.per_step_:
            return values[:, 0] if self.single_ else values
        if self.single_:
            values = [row[:, 0] for row in values]
        if not self.ragged_ and np.all(collection.lengths == collection.lengths[0]):
            return np.stack(values)
        result = np.empty(len(values), dtype=object)
        result[:] = values
        return result

    def score(self, X, y, times=None):
        """Coefficient of determination R² over the targets that are known, all steps of all series taken together.

        Parameters
        ----------
        X, y, times
            As in `fit`.

        Returns
        -------
        score : float
            The mean over outputs.
        """
        collection = self._read(X, times)
        targets = check_targets(y, collection, per="step" if self.per_step_ else "series")
        if targets.per_step != self.per_step_ or targets.n_outputs != self.n_outputs_:
            raise ValueError(
                f"y must have {self.n_outputs_} output(s) for every {'step' if self.per_step_ else 'series'}, "
                f"as in fit. Got {targets.n_outputs} for every {'step' if targets.per_step else 'series'}."
            )
        rows = targets.values if targets.per_step else [targets.values]
        outputs = self._outputs(collection)
        true = np.concatenate(rows)
        predicted = np.concatenate(outputs) if self.per_step_ else outputs
        scores = []
        for column, answer in zip(true.T, predicted.T, strict=True):
            known = ~np.isnan(column)
            if known.any():
                scores.append(r2_score(column[known], answer[known]))
        return float(np.mean(scores))

    def stream(self):
        """The fitted model one sample at a time.

        Returns
        -------
        stream : LayerStream
            ``stream.step(x_t, dt)`` equals `predict` over the record so far: its last step for targets a step, its one
            prediction for a target a series. It does not change the estimator.

        Raises
        ------
        ValueError
            The model is bidirectional: it has to see the whole record.
        """
        return LayerStream(self)

    def _check_streamable(self):
        check_is_fitted(self)
        if not self.model_.causal:
            raise ValueError("A bidirectional model reads the whole record: fit with bidirectional=False to stream.")

    def _check_parameters(self):
        for name in ("d_model", "n_layers", "d_state", "max_epochs", "batch_size"):
            if hasattr(self, name):
                check_scalar(getattr(self, name), name, Integral, min_val=1)
        if self.patience is not None:
            check_scalar(self.patience, "patience", Integral, min_val=1)
        if self.gradient_clip is not None:
            check_scalar(self.gradient_clip, "gradient_clip", Real, min_val=0, include_boundaries="neither")
        for name in ("learning_rate", "ssm_learning_rate", "weight_decay"):
            check_scalar(getattr(self, name), name, Real, min_val=0)
        for name in ("dropout", "validation_fraction"):
            check_scalar(getattr(self, name), name, Real, min_val=0, max_val=1, include_boundaries="left")
        if self.pooling not in _POOLING:
            raise ValueError(f"pooling must be 'mean' or 'last'. Got {self.pooling!r} instead.")

    def _make_model(self):
        return ResidualStack(
            self._n_inputs,
            self.n_outputs_,
            d_model=self.d_model,
            n_layers=self.n_layers,
            layer=self._layer,
            layer_options=self._layer_options(),
            dropout=self.dropout,
            pooling=None if self.per_step_ else self.pooling,
        )

    def _batches(self, collection, indices, targets, device):
        collection = collection[indices]
        if targets.per_step:
            scaled = [(targets.values[i] - self.y_mean_) / self.y_scale_ for i in indices]
        else:
            scaled = (targets.values[indices] - self.y_mean_) / self.y_scale_
        inputs = [self._encode(values) for values in collection.values]
        return SeriesBatches(inputs, self._scaled_gaps(collection), scaled, device=device)

    def _outputs(self, collection):
        """Outputs in the units of y: a list of (n_times_i, n_outputs), or (n_series, n_outputs)."""
        device = choose_device(self.device)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        model = self._copy_model(device, dtype)
        inputs = [self._encode(values) for values in collection.values]
        data = SeriesBatches(inputs, self._scaled_gaps(collection), dtype=dtype, device=device)
        if self.per_step_:
            return [row * self.y_scale_ + self.y_mean_ for row in predict_steps(model, data)]
        return predict_series(model, data) * self.y_scale_ + self.y_mean_

    def _copy_model(self, device, dtype):
        """The model elsewhere or in another type; the estimator's own stays as it is, whatever other threads do."""
        return deepcopy(self.model_).to(device=device, dtype=dtype).eval()

    def _export(self):
        check_is_fitted(self)
        state = {"params": self.get_params(deep=False), "model": self.model_.config, "learned": {}}
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
            estimator.model_ = ResidualStack(**state["model"])
        estimator.model_.load_state_dict(weights)
        estimator.model_.eval()
        return estimator


def _squared_error(model, batch):
    """Sum of squares over the targets that are known, and their number."""
    output, _ = model(batch["x"], batch.get("dt"), lengths=batch["lengths"])
    known = ~batch["y"].isnan()
    return torch.where(known, output - batch["y"], 0.0).square().sum(), known.sum()


class S4DRegressor(DeepRegressor):
    """Regression on series with a stack of S4D layers: diagonal linear systems in continuous time, between gated units.

    Each of ``n_layers`` blocks runs ``d_model`` linear systems x'(t) = A x(t) + B u(t), y(t) = C x(t) + D u(t) with
    diagonal A over the gaps that the samples really have, and mixes their outputs by a gated linear unit [1]_. Inputs
    and targets are scaled to mean 0 and standard deviation 1, gaps by their median.

    Parameters
    ----------
    d_model : int, default=64
        Width of the features.
    n_layers : int, default=4
        Number of blocks.
    d_state : int, default=64
        Real dimension of each system's state.
    init : {"lin", "inv", "legs", "real"}, default="lin"
        Starting values of A; see `statespace.layers.S4D`.
    discretization : {"zoh", "bilinear"}, default="zoh"
        Zero-order hold or the bilinear rule.
    dt_min, dt_max : float, default=1e-3 and 1e-1
        The systems' time scales start between 1 / dt_max and 1 / dt_min median gaps.
    bidirectional : bool, default=False
        Read the series in both directions. Such a model cannot stream, and holds a whole series in memory.
    dropout : float, default=0.1
        Share of each block's outputs dropped while training.
    pooling : {"mean", "last"}, default="mean"
        For one target a series: whether the features of all steps are averaged, or those of the last step are read.
    target : {"auto", "series", "step"}, default="auto"
        What a two-dimensional y holds. ``"series"``: a row of outputs for every series. ``"step"``: a target for every
        step. ``"auto"`` takes y of shape (n_series, n_times), where all series have n_times samples, as one target a
        step, and any other as outputs; say ``"series"`` where the number of outputs happens to be n_times.
    max_epochs : int, default=50
        Passes over the training data.
    batch_size : int, default=32
        Series a step of the optimiser.
    learning_rate : float, default=4e-3
        Largest rate of AdamW; it rises over the first tenth of the steps and falls to 0 along a cosine.
    ssm_learning_rate : float, default=1e-3
        The same for A, B and the time scales, which have no weight decay.
    weight_decay : float, default=0.01
        Decoupled weight decay of the weight matrices.
    gradient_clip : float or None, default=1.0
        Largest norm of the gradient.
    validation_fraction : float, default=0.1
        Share of the series held out to choose the best epoch. With fewer than 1 / ``validation_fraction`` series there
        is none, and the epoch of least training loss is kept.
    patience : int or None, default=10
        Epochs without a better validation loss after which training stops; None never stops early.
    device : str or torch.device, default="auto"
        ``"auto"`` takes a CUDA device where there is one. The fitted model itself is kept on the CPU.
    random_state : int, RandomState instance or None, default=None
        Initial weights, held-out series, order of batches, dropout. An int gives the same numbers twice.
    verbose : int, default=0
        Above 0: progress bar and device.

    Attributes
    ----------
    model_ : ResidualStack
        The fitted network.
    history_ : DataFrame
        ``loss`` and, with held-out series, ``validation_loss`` of every epoch (mean squares of scaled targets).
    best_epoch_ : int
        The epoch, counted from 1, whose weights were kept; 0: those before training.
    per_step_ : bool
        Whether there is one target a step.
    n_outputs_ : int
        Number of outputs.
    n_channels_, x_mean_, x_scale_, has_missing_, clock_, time_scale_, n_features_in_
        As in `statespace.base.SeriesEstimator`.
    y_mean_, y_scale_ : ndarray of shape (n_outputs_,)
        Mean and standard deviation of the known targets.

    Notes
    -----
    Missing inputs. Fitted on series with NaN, the model reads, beside each channel (0 where missing), whether it is
    observed. Fitted without, it takes a NaN at prediction for the channel's mean and warns.

    Times. Gaps are taken in float64, divided by ``time_scale_``, and only then cast; the gap before the first sample of
    a series is 1. Fitted with times, the model refuses series without. Equal times within a series are refused.

    References
    ----------
    .. [1] A. Gu, A. Gupta, K. Goel, C. Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
       2022.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = S4DRegressor(d_model=8, n_layers=1, d_state=8, max_epochs=5, random_state=0).fit(X, rate, times=t)
    >>> reg.predict(X, times=t).shape
    (40,)
    >>> stream = reg.stream()
    >>> for x_k, gap in zip(X[0], np.diff(t[0], prepend=t[0, 0])):
    ...     running = stream.step(x_k, dt=gap)
    >>> bool(np.isclose(running, reg.predict(X[:1], times=t[:1])[0]))
    True
    """

    _layer = "s4d"

    def __init__(
        self,
        d_model=64,
        n_layers=4,
        d_state=64,
        *,
        init="lin",
        discretization="zoh",
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        dropout=0.1,
        pooling="mean",
        target="auto",
        max_epochs=50,
        batch_size=32,
        learning_rate=4e-3,
        ssm_learning_rate=1e-3,
        weight_decay=0.01,
        gradient_clip=1.0,
        validation_fraction=0.1,
        patience=10,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.d_model = d_model
        self.n_layers = n_layers
        self.d_state = d_state
        self.init = init
        self.discretization = discretization
        self.dt_min = dt_min
        self.dt_max = dt_max
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.pooling = pooling
        self.target = target
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.ssm_learning_rate = ssm_learning_rate
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _layer_options(self):
        return {
            "d_state": self.d_state,
            "init": self.init,
            "discretization": self.discretization,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "bidirectional": self.bidirectional,
        }
