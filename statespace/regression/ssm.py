"""SSMRegressor, the regressor for any layer, and what the named ones share with it.

Above: the named regressors. Below: ``deep`` fits, streams and saves; ``parameters`` names the layers.
"""

from dataclasses import KW_ONLY, dataclass
from functools import partial

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from statespace.base import mean_and_scale
from statespace.deep import DeepEstimator
from statespace.distributions import check_distribution
from statespace.models import ReverseComplement
from statespace.models.answers import Targets
from statespace.parameters import SSMParameters
from statespace.readers import StoredRows
from statespace.regression.uncertainty import UncertainRegressor
from statespace.stored import is_ragged
from statespace.training import target_weights
from statespace.validation import check_targets
from statespace.weights import check_sample_weight, joined, weights_of_targets

__all__ = ["DeepRegressor", "SSMRegressor"]


@dataclass(eq=False, repr=False)
class DeepRegressor(UncertainRegressor, RegressorMixin, DeepEstimator):
    """A network fitted to one target a series or one a step; the layer comes from `statespace.parameters`.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.regression import DeepRegressor
    >>> isinstance(S4DRegressor(), DeepRegressor)
    True
    """

    _: KW_ONLY
    target: str = "auto"
    distribution: str | None = None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y=None, times=None, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array-like
            Series: an ndarray of shape (n_series, n_times, n_channels), or (n_series, n_times) for one channel; a list
            of (n_times_i, n_channels) arrays; a DataFrame with a (series, time) MultiIndex; a list of DataFrames
            indexed by time; or a SeriesCollection. NaN is a missing value. With an ``alphabet``: a list or Series of
            texts, or a symbol or its position in the place of each number. What does not fit into memory is read batch
            by batch: an array that is memory-mapped or in chunks (zarr, h5py, dask), a list of such arrays, a
            ``torch.utils.data.Dataset``, or a `statespace.stored.StoredSeries`.
        y : array-like
            One target a series, (n_series,) or (n_series, n_outputs); or one a step, (n_series, n_times), (n_series,
            n_times, n_outputs) or a list of (n_times_i,) or (n_times_i, n_outputs) arrays. NaN is a target that is not
            known and carries no loss. What a two-dimensional array means is the parameter ``target``'s business.
            With what is stored it may be stored as well, or be left out where a Dataset has it in its items.
        times : array-like, optional
            Times of the samples, if X does not bring them: one vector of shape (n_times,) for all series, (n_series,
            n_times), or a list. Numbers, datetimes or timedeltas; they must increase.
        sample_weight : array-like, optional
            One weight a series, (n_series,); or, with targets a step, one a step, in the forms of such a ``y``. A
            series of weight 2 counts as two, in the loss and in the scales of inputs and targets; one of weight 0 is
            left out.

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
        return self._fit(X, y, times, sample_weight)

    def partial_fit(self, X, y, times=None, sample_weight=None):
        """Go on learning by one pass over more series, at constant rates.

        The first call of all learns the scales of inputs, targets and gaps, and what form y has: give it series that
        are like those to come. After `fit`, or the first call, these stay as they are. No series is held out, and the
        weights after the pass are kept. The optimiser's moments go on from call to call; a copy from a file starts
        with new ones.

        Parameters
        ----------
        X, y, times, sample_weight
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad X, times, y or parameters, or for series and targets unlike those of the first call.
        statespace.training.DivergenceError
            The loss became infinite or NaN. The estimator has the weights before this pass, as it has after Ctrl-C.
        """
        return self._partial_fit(X, y, times, sample_weight)

    def predict(self, X, times=None, return_std=False):
        """Predict the targets.

        On a CPU the network computes in float64, so that a series' prediction does not depend on the series beside it;
        on a GPU in float32, where it may in the seventh digit. It reads in chunks with carried state, so that memory
        does not grow with the length of a series.

        Parameters
        ----------
        X, times
            As in `fit`. A model that was fitted with times asks for times.
        return_std : bool, default=False
            Also give the standard deviations of the targets; for a ``distribution``, or with ``calibrate=True``, which
            scales them to the errors of the held-out series.

        Returns
        -------
        y : ndarray
            In the form of the ``y`` of `fit`: (n_series,), (n_series, n_outputs), (n_series, n_times) or (n_series,
            n_times, n_outputs). Targets a step of series that differ in length, or that came as a list, are an object
            array of shape (n_series,) with an array for every series (which ``cross_val_predict`` can join). The mean;
            with ``distribution="quantile"`` the median.
        std : ndarray
            As ``y``; only with ``return_std``.

        Raises
        ------
        ValueError
            For bad X or times, another number of channels, or no times where the model was fitted with times; for
            ``return_std`` of a model with neither a distribution nor calibration.
        """
        collection = self._read(X, times)
        if return_std:
            self._check_uncertain("return_std")
        outputs = self._outputs(collection)
        y = self._formed(self._each(self._location, outputs), collection)
        return (y, self._formed(self._each(self._std, outputs), collection)) if return_std else y

    def score(self, X, y=None, times=None, sample_weight=None):
        """Coefficient of determination R² over the targets that are known, all steps of all series taken together.

        Parameters
        ----------
        X, y, times, sample_weight
            As in `fit`.

        Returns
        -------
        score : float
            The mean over outputs.
        """
        collection = self._read(X, times)
        targets = self._targets_as_fitted(y, collection)
        weights = check_sample_weight(sample_weight, collection)
        weights = joined(weights_of_targets(weights, collection, self.per_step_), self.per_step_)
        rows = targets.values if targets.per_step else [targets.values]
        answers = self._answers(collection)
        true = np.concatenate(list(rows))
        predicted = np.concatenate(answers) if self.per_step_ else answers
        scores = []
        for column, answer in zip(true.T, predicted.T, strict=True):
            known = ~np.isnan(column)
            if known.any():
                own = None if weights is None else weights[known]
                # R² has no unit, and squares of numbers like 1e200 are none.
                unit = np.frexp(np.abs(column[known]).max())[1]
                scores.append(r2_score(*(np.ldexp(x[known], -unit) for x in (column, answer)), sample_weight=own))
        return float(np.mean(scores))

    def _check_parameters(self):
        super()._check_parameters()
        check_distribution(self.distribution)

    def _forget_calibration(self):
        super()._forget_calibration()
        for name in ("calibration_scores_", "calibration_weights_", "calibration_maxima_", "std_scale_"):
            vars(self).pop(name, None)

    def _learn_targets(self, y, collection, weights=None):
        targets = check_targets(y, collection, per=self.target)
        self.per_step_, self.single_, self.n_outputs_ = targets.per_step, targets.single, targets.n_outputs
        self.ragged_ = targets.per_step and is_ragged(y, targets.values, collection)
        weights_of_targets(weights, collection, targets.per_step)  # refuses weights a step of targets a series
        self.distribution_ = self.distribution
        return targets.values, self.n_outputs_ * self._distribution.n_parameters

    def _read_targets(self, y, collection):
        if self.distribution != self.distribution_:
            raise ValueError(
                f"distribution={self.distribution!r} is not that of the model, {self.distribution_!r}, which goes on "
                "learning. Set it back, or fit anew with warm_start=False."
            )
        return self._targets_as_fitted(y, collection).values

    def _targets_as_fitted(self, y, collection):
        targets = check_targets(y, collection, per="step" if self.per_step_ else "series")
        if targets.per_step != self.per_step_ or targets.n_outputs != self.n_outputs_:
            raise ValueError(
                f"y must have {self.n_outputs_} output(s) for every {'step' if self.per_step_ else 'series'}, "
                f"as in fit. Got {targets.n_outputs} for every {'step' if targets.per_step else 'series'}."
            )
        return targets

    def _scaled_targets(self, targets, fitted, weights):
        if isinstance(targets, StoredRows):
            learned_from = targets if len(fitted) == len(targets) else targets[fitted]
        else:
            learned_from = [targets[i] for i in fitted] if self.per_step_ else [targets[fitted]]
        if not self.per_step_ and weights is not None:
            weights = [weights]
        self.y_mean_, self.y_scale_ = mean_and_scale(learned_from, weights)
        return self._scaled(targets)

    def _scaled(self, targets):
        if isinstance(targets, StoredRows):
            return targets.map(partial(_scaled_rows, mean=self.y_mean_, scale=self.y_scale_))
        if self.per_step_:
            return [(row - self.y_mean_) / self.y_scale_ for row in targets]
        return (targets - self.y_mean_) / self.y_scale_

    def _start(self, model):
        """The spread of every distribution starts as that of all targets."""
        n_parameters = self._distribution.n_parameters
        head = (model.strand if isinstance(model, ReverseComplement) else model).head
        shape = torch.arange(len(head.bias)) % n_parameters != 0
        with torch.no_grad():
            head.weight[shape], head.bias[shape] = 0.0, 0.0

    def _loss(self, targets):
        return partial(_distribution_loss, self._distribution)

    def _answers(self, collection):
        """The targets in the units of y: a list of (n_times_i, n_outputs), or (n_series, n_outputs)."""
        return self._each(self._location, self._outputs(collection))

    def _answers_module(self):
        """What an exported model answers, by name, from the network's outputs."""
        return Targets(self.y_mean_, self.y_scale_, self._distribution.answers, vars(self).get("std_scale_", 1.0))

    def _answer(self, outputs):
        """What a stream answers, from one row of the network's outputs."""
        if vars(self).get("distribution_") is None:
            return self._one(self._location(outputs))
        return self._one(self._location(outputs)), self._one(self._std(outputs))

    def _one(self, values):
        return float(values[0]) if self.single_ else values


def _scaled_rows(rows, mean, scale):
    return (rows - mean) / scale


def _distribution_loss(distribution, model, batch):
    """Weighted sum of losses over the targets that are known, and the sum of their weights."""
    output, _ = model(batch["x"], batch.get("dt"), lengths=batch["lengths"])
    y, weights = batch["y"], target_weights(batch)
    # A target that is not known must not reach the loss, whose gradient would be NaN.
    losses = distribution.loss(output.unflatten(-1, (y.shape[-1], -1)), torch.where(weights > 0, y, 0.0))
    return (weights * losses).sum(), weights.sum()


@dataclass(eq=False, repr=False)
class SSMRegressor(DeepRegressor, SSMParameters):
    """Regression on series with a stack of state-space layers, any of them by name, or a pattern of several.

        h = E x + e,    h = h + dropout(GLU(W gelu(layer(norm(h), Δ)))),    y = V norm(h) + v

    Each of ``n_layers`` blocks runs a state-space layer over the gaps Δ that the samples really have and mixes its
    outputs by a gated linear unit; a layer that has a gate of its own, as Mamba has, is added as it is. Inputs and
    targets are scaled to mean 0 and standard deviation 1, gaps by their median. The loss is the mean square, or that of
    a ``distribution``.

    Parameters
    ----------
    layer : str or sequence of str, default="s4d"
        Name of the layer, a key of `statespace.layers.LAYERS`, or a pattern of names that is repeated over the blocks.
    d_model : int, default=64
        Width of the features.
    n_layers : int, default=2
        Number of blocks.
    layer_options : mapping, optional
        Arguments of the layer, such as ``{"d_state": 16}``. With a pattern: a mapping from name to such a mapping.
    alphabet : {"dna", "rna", "protein"}, str, sequence, int or None, default=None
        X then holds sequences of symbols: a list of texts, or of arrays of symbols or of their positions. ``"dna"``,
        ``"rna"`` and ``"protein"`` know upper and lower case and IUPAC's codes of what is uncertain, N for any base;
        another text is its characters, a sequence holds the symbols, and an integer n means the tokens 0 to n - 1. See
        `statespace.alphabets.Alphabet`. None: X holds numbers.
    reverse_complement : {None, "equivariant", "augment"}, default=None
        For what does not depend on the strand of DNA or RNA that was read. ``"equivariant"`` reads both strands with
        the same weights [1]_: the reverse complement of a sequence has the same answer, or the same answers a step in
        reverse; such a model cannot stream. ``"augment"`` trains on either strand at random. None reads what is given,
        as where the strand tells something: a promoter, a splice site.
    backbone : {"stack", "sashimi"}, default="stack"
        The network around the layers: a residual stack, or blocks on several time scales for long records; see
        `statespace.models.SaShiMi`, in which ``n_layers`` counts the blocks of each scale.
    backbone_options : mapping, optional
        Arguments of the network that the estimator has no parameter for, such as ``{"factors": (4, 4)}``.
    moe : int or mapping, optional
        A number of experts: a feed-forward map follows each layer, and every other one of them is a mixture of so many
        experts, of which each step takes two, as in Jamba [2]_. A mapping sets ``"n_experts"``, ``"every"`` and
        what else `statespace.models.ResidualStack` has. None: no such maps.
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
    distribution : {None, "gaussian", "student_t", "quantile"}, default=None
        What the network says about each target. None: a point, by least squares. ``"gaussian"``: mean and standard
        deviation of a normal distribution, by maximum likelihood. ``"student_t"``: the same with heavy tails, for
        targets with outliers; its degrees of freedom are above 2.1, so that it has a standard deviation.
        ``"quantile"``: eleven quantiles from 0.01 to 0.99, by the pinball loss, for a distribution of any shape. Each
        of several outputs has its own, whatever they have to do with each other. See `statespace.distributions`.
    max_epochs : int, default=50
        Passes over the training data.
    batch_size : int or "auto", default="auto"
        Series a step of the optimiser. ``"auto"`` takes an eighth of those that are trained on, from 4 to 32: few
        series teach too little in few steps.
    chunk_length : int or None, default=None
        For records too long to be held in memory at once, with one target a step: truncated back-propagation through
        time. A batch is read in chunks of so many steps, each a step of the optimiser, and the state passes from a
        chunk to the next without its gradient. None reads whole series, as does any length of at least the longest.
    learning_rate : float, default=4e-3
        Largest rate of AdamW; it rises over the first tenth of the steps and falls to 0 along a cosine.
    ssm_learning_rate : float or mapping, default=1e-3
        The same for A, B and the time scales, which have no weight decay; a mapping such as ``{"A": 1e-4, "B": 1e-3,
        "dt": 1e-3}`` gives each its own. What it leaves out learns at ``learning_rate``.
    weight_decay : float, default=0.01
        Decoupled weight decay of the weight matrices.
    gradient_clip : float or None, default=1.0
        Largest norm of the gradient.
    validation_fraction : float, default=0.1
        Share of the series held out to choose the best epoch. With fewer than 1 / ``validation_fraction`` series there
        is none, and the epoch of least training loss is kept.
    calibrate : bool, default=False
        Hold out series of which nothing is learned but how far off the model is, so that intervals and quantiles are
        right for new series whatever the model and the data: split-conformal prediction [3]_, see `predict_interval`.
        With ``warm_start``, ``random_state`` has to be an integer, which holds out the same ones of the same data.
    calibration_fraction : float, default=0.2
        Share of the series held out by ``calibrate``. An interval that covers 90 % needs 9 of them, 95 % 19, 99 % 99;
        the more there are, the less it varies with which ones they are.
    patience : int or None, default=10
        Epochs without a better validation loss after which training stops; None never stops early.
    device : str or torch.device, default="auto"
        ``"auto"`` takes a CUDA device where there is one. The fitted model itself is kept on the CPU.
    n_devices : int or "auto", default=1
        Devices to train on, each in a process of its own that reads its share of every batch: GPUs, or CPUs with
        ``device="cpu"``; ``"auto"`` takes every GPU. It needs ``lightning``, and, in a script, ``if __name__ ==
        "__main__":`` around what the script does. The gradient is that of one device, the mean over all targets of a
        batch. Under ``torchrun`` the processes that it has started are taken.
    precision : {"float32", "bfloat16"}, default="float32"
        Of the products of matrices in training, for GPUs; see `statespace.training.fit`. Predictions are not affected.
    checkpoint : str or os.PathLike, optional
        A file in which training is kept, after every epoch, for one call of `fit`: that of a model that is fitted by
        itself, not of one among many in a search.
    resume : bool, default=False
        Go on from the ``checkpoint``, if there is one, where training was cut off, by a kill at any moment, Ctrl-C or a
        callback. The result is that without the cut, but for a last digit that products of matrices may round by
        where they lie in memory. The data and all other parameters have to be the same, or `fit` refuses.
    warm_start : bool, default=False
        Let `fit` go on from the weights of the fit before it, with its scales of inputs and targets; False starts anew.
    callbacks : sequence, optional
        `statespace.training.Callback` objects, or functions ``f(epoch, history, model)``, called after every epoch; a
        true answer stops training. For scikit-learn's callbacks (1.9 and later) there is ``set_callbacks``.
    random_state : int, RandomState instance or None, default=None
        Initial weights, held-out series, order of batches, dropout. An int gives the same numbers twice.
    verbose : int, default=0
        Above 0: progress bar and device.

    Attributes
    ----------
    model_ : ResidualStack
        The fitted network.
    history_ : DataFrame
        ``loss`` and, with held-out series, ``validation_loss`` of every epoch: mean squares of scaled targets, with a
        ``distribution`` mean negative log-likelihoods, or sums over levels of pinball losses.
    best_epoch_ : int
        The epoch, counted from 1, whose weights were kept; 0: those before training.
    per_step_ : bool
        Whether there is one target a step.
    n_outputs_ : int
        Number of outputs.
    n_channels_, x_mean_, x_scale_, alphabet_, has_missing_, clock_, time_scale_, n_features_in_
        As in `statespace.base.SeriesEstimator`.
    y_mean_, y_scale_ : ndarray of shape (n_outputs,)
        Mean and standard deviation of the known targets.
    calibration_scores_, calibration_weights_ : ndarray of shape (n_scores, n_outputs)
        Only with ``calibrate=True``: errors of held-out series in units of their distributions, and how each counts;
        of series with one target a step a thousand random steps at most.
    n_calibration_ : int
        Number of series that were held out to calibrate with.
    calibration_maxima_ : ndarray of shape (n_calibration,)
        The largest score of each of them, of all its steps and outputs.
    std_scale_ : ndarray of shape (n_outputs,)
        What calibration multiplies standard deviations by: the root mean square of the held-out errors over theirs.

    Notes
    -----
    Missing inputs. Fitted on series with NaN, the model reads, beside each channel (0 where missing), whether it is
    observed. Fitted without, it takes a NaN at prediction for the channel's mean and warns.

    Times. Gaps are taken in float64, divided by ``time_scale_``, and only then cast; the gap before the first sample of
    a series is 1. Fitted with times, the model refuses series without. Equal times within a series are refused.

    Symbols. Each is a row of the identity, of which the encoder E makes its embedding. An uncertain one has equal
    shares of what it may be, so that its embedding is their mean, whether such symbols were seen in ``fit`` or not.

    Uncertainty. ``predict(X, return_std=True)``, `predict_quantiles` and `predict_interval` are about the targets,
    noise included. A likelihood weighs errors by their variance, so that the mean of ``"gaussian"`` may be a worse
    point than that of None where the noise varies much. A stream of a model with a distribution answers with mean and
    standard deviation.

    References
    ----------
    .. [1] Y. Schiff et al., "Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence Modeling", 2024.
    .. [2] O. Lieber et al., "Jamba: A Hybrid Transformer-Mamba Language Model", 2024.
    .. [3] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import SSMRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    >>> rate = rng.uniform(0.1, 1.0, size=40)
    >>> X = np.sin(rate[:, None] * t)
    >>> reg = SSMRegressor("s4d", d_model=8, n_layers=1, layer_options={"d_state": 8}, max_epochs=5, random_state=0)
    >>> reg.fit(X, rate, times=t).predict(X, times=t).shape
    (40,)

    A hybrid: attention behind each two S4D layers, and four experts behind every other layer.

    >>> hybrid = SSMRegressor(["s4d", "s4d", "attention"], d_model=8, n_layers=3, moe=4, max_epochs=2, random_state=0)
    >>> stream = hybrid.fit(X, rate, times=t).stream()

    Intervals that hold three targets in four of new series, from the errors of eight series that are held out:

    >>> reg.set_params(distribution="gaussian", calibrate=True)
    SSMRegressor(...)
    >>> lower, upper = reg.fit(X, rate, times=t).predict_interval(X, coverage=0.75, times=t)
    >>> mean, std = reg.predict(X, times=t, return_std=True)
    >>> bool((lower < mean).all() and (mean < upper).all() and (std > 0).all())
    True
    """
