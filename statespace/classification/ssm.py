"""SSMClassifier, the classifier for any layer, and what the named ones share with it.

Above: the named classifiers. Below: ``deep`` fits, streams and saves; ``parameters`` names the layers.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from torch.nn import functional as F

from statespace.classification.sets import UncertainClassifier
from statespace.deep import DeepEstimator
from statespace.labels import check_numbers, flat_labels
from statespace.models.answers import Probabilities
from statespace.parameters import SSMParameters
from statespace.readers import StoredRows
from statespace.stored import StoredSeries, is_ragged, stored_targets
from statespace.training import target_weights
from statespace.weights import check_sample_weight, joined, weights_of_targets

__all__ = ["DeepClassifier", "SSMClassifier"]


@dataclass(eq=False, repr=False)
class DeepClassifier(UncertainClassifier, ClassifierMixin, DeepEstimator):
    """A network fitted to one label a series or one a step; the layer comes from `statespace.parameters`.

    Examples
    --------
    >>> from statespace import S4DClassifier
    >>> from statespace.classification import DeepClassifier
    >>> isinstance(S4DClassifier(), DeepClassifier)
    True
    """

    _: KW_ONLY
    class_weight: Mapping[Any, float] | str | None = None

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
            Labels: numbers, texts or booleans. One a series, (n_series,); or one a step, (n_series, n_times), a list of
            (n_times_i,) arrays, or a Series with a (series, time) MultiIndex. NaN or None is a label that is not known
            and carries no loss.
            With what is stored it may be stored as well, or be left out where a Dataset has it in its items.
        times : array-like, optional
            Times of the samples, if X does not bring them: one vector of shape (n_times,) for all series, (n_series,
            n_times), or a list. Numbers, datetimes or timedeltas; they must increase.
        sample_weight : array-like, optional
            One weight a series, (n_series,); or, with labels a step, one a step, in the forms of such a ``y``. A series
            of weight 2 counts as two, in the loss, in the scales of inputs and in ``class_weight="balanced"``; one of
            weight 0 is left out.

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

    def partial_fit(self, X, y, times=None, classes=None, sample_weight=None):
        """Go on learning by one pass over more series, at constant rates.

        The first call of all learns the scales of inputs and gaps, and what form y has: give it series that are like
        those to come. After `fit`, or the first call, these stay as they are. No series is held out, and the weights
        after the pass are kept. The optimiser's moments go on from call to call; a copy from a file starts with new
        ones.

        Parameters
        ----------
        X, y, times, sample_weight
            As in `fit`.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever come. Needed in the first call of all, and the same if given again.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad X, times, y or parameters, for series and labels unlike those of the first call, or for
            ``class_weight="balanced"``, which has to see all labels at once.
        statespace.training.DivergenceError
            The loss became infinite or NaN. The estimator has the weights before this pass, as it has after Ctrl-C.
        """
        new = "model_" not in vars(self)
        if new and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit: all labels that will ever come.")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' has to see all labels at once: fit, or set class_weight to a mapping from "
                "label to weight for partial_fit."
            )
        if not new and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"classes={classes!r} is not the same as on the first call to partial_fit, or as in fit: "
                f"{self.classes_.tolist()}."
            )
        return self._partial_fit(X, y, times, sample_weight, **({"classes": classes} if new else {}))

    def predict(self, X, times=None):
        """Predict the most probable label.

        Parameters
        ----------
        X, times
            As in `fit`. A model that was fitted with times asks for times.

        Returns
        -------
        y : ndarray
            (n_series,); or one label a step: (n_series, n_times), or for series that differ in length, or where y came
            as a list, an object array of shape (n_series,) with an array for every series.

        Raises
        ------
        ValueError
            For bad X or times, another number of channels, or no times where the model was fitted with times.
        """
        collection = self._read(X, times)
        outputs = self._outputs(collection)
        if not self.per_step_:
            return self.classes_[outputs.argmax(axis=1)]
        return self._shaped([self.classes_[row.argmax(axis=1)] for row in outputs], collection)

    def predict_proba(self, X, times=None):
        """Predict the probability of every class: the softmax of the network's outputs, divided by ``temperature_``.

        Parameters
        ----------
        X, times
            As in `predict`.

        Returns
        -------
        probabilities : ndarray
            (n_series, n_classes), in the order of ``classes_``; or one row a step, (n_series, n_times, n_classes), or
            an object array of shape (n_series,) with an array of shape (n_times_i, n_classes) for every series.
        """
        return self._each(np.exp, self.predict_log_proba(X, times))

    def predict_log_proba(self, X, times=None):
        """Predict the logarithms of `predict_proba`, also where a probability is too small for a float.

        Parameters
        ----------
        X, times
            As in `predict`.

        Returns
        -------
        logarithms : ndarray
            As `predict_proba`.
        """
        collection = self._read(X, times)
        outputs = self._outputs(collection)
        if not self.per_step_:
            return self._log_proba(outputs)
        return self._shaped([self._log_proba(row) for row in outputs], collection)

    def score(self, X, y=None, times=None, sample_weight=None):
        """Accuracy over the labels that are known, all steps of all series taken together.

        Parameters
        ----------
        X, y, times, sample_weight
            As in `fit`.

        Returns
        -------
        score : float
            Weighted share of the labels that are predicted.
        """
        collection = self._read(X, times)
        targets, per_step = self._numbers_as_fitted(y, collection), self.per_step_
        outputs = self._outputs(collection)
        answers, truth = (np.concatenate(outputs), np.concatenate(list(targets))) if per_step else (outputs, targets)
        known = ~np.isnan(truth[:, 0])
        weights = check_sample_weight(sample_weight, collection)
        weights = joined(weights_of_targets(weights, collection, per_step), per_step)
        right = answers.argmax(axis=1)[known] == truth[known, 0]
        return float(np.average(right, weights=None if weights is None else weights[known]))

    def _check_parameters(self):
        super()._check_parameters()
        if not (self.class_weight is None or self.class_weight == "balanced" or isinstance(self.class_weight, Mapping)):
            raise ValueError(
                f"class_weight must be None, 'balanced' or a mapping from label to weight. Got {self.class_weight!r}."
            )

    def _forget_calibration(self):
        super()._forget_calibration()
        self.temperature_ = 1.0
        for name in ("calibration_scores_", "calibration_weights_"):
            vars(self).pop(name, None)

    def _learn_targets(self, y, collection, weights=None, classes=None):
        if isinstance(collection, StoredSeries):
            y = stored_targets(y, collection)
        if isinstance(y, StoredRows):
            return self._learn_stored_labels(y, collection, weights, classes)
        labels, restore = flat_labels(y)
        known = ~pd.isna(labels)
        if labels.dtype.kind == "f":
            assert_all_finite(labels, allow_nan=True, input_name="y")
        given = labels[known]
        if given.dtype == object:  # None beside integers makes objects of them
            given = pd.Series(given).infer_objects().to_numpy()
        numbers = np.full(len(labels), np.nan)
        if known.any():
            try:
                self.classes_, numbers[known] = np.unique(given, return_inverse=True)
            except TypeError as error:
                raise ValueError(f"y has labels of several kinds: {error}. Give all of them one type.") from None
            check_classification_targets(given)
        if classes is not None:
            self.classes_ = np.unique(classes)
            numbers[known] = pd.Index(self.classes_).get_indexer(given)
            if (numbers == -1).any():
                unknown = sorted(set(map(str, pd.unique(given))) - set(map(str, self.classes_)))
                raise ValueError(f"y has labels that classes= does not name: {', '.join(unknown)}.")
        targets, self.per_step_ = check_numbers(restore(numbers), collection)
        self.ragged_ = self.per_step_ and not isinstance(y, np.ndarray)
        weights = weights_of_targets(weights, collection, self.per_step_)
        self.class_weight_ = self._class_weights(given, targets, weights)
        return targets, len(self.classes_)

    def _learn_stored_labels(self, y, collection, weights, classes):
        """The same of labels a step that stay where they are stored."""
        statistics = y.learn(weights_of_targets(weights, collection, True))
        if statistics.labels is None:
            raise ValueError("y has more than 65,536 different labels: are these the targets of a regression?")
        if not statistics.known.any():
            raise ValueError("Input y contains NaN only: there is no target to learn from.")
        check_classification_targets(statistics.labels)
        self.classes_ = statistics.labels if classes is None else np.unique(classes)
        counts = np.zeros(len(self.classes_))
        places = pd.Index(self.classes_).get_indexer(statistics.labels)
        if (places < 0).any():
            unknown = ", ".join(map(str, statistics.labels[places < 0]))
            raise ValueError(f"y has labels that classes= does not name: {unknown}.")
        counts[places] = statistics.counts
        self.per_step_, self.ragged_ = True, is_ragged(y, y, collection)
        if self.class_weight == "balanced":
            self.class_weight_ = counts.sum() / ((counts > 0).sum() * np.where(counts > 0, counts, np.inf))
        else:
            self.class_weight_ = compute_class_weight(self.class_weight, classes=self.classes_, y=statistics.labels)
        return y.map(partial(_class_numbers, classes=self.classes_)), len(self.classes_)

    def _read_targets(self, y, collection):
        targets = self._numbers_as_fitted(y, collection)
        if any((row == -1).any() for row in targets):
            if isinstance(targets, StoredRows):
                raise ValueError("y has labels that are not among the classes of the first fit. Fit anew.")
            unknown = sorted(set(map(str, pd.unique(flat_labels(y)[0]))) - set(map(str, self.classes_)))
            raise ValueError(
                f"y has labels that are not among the classes of the first fit: {', '.join(unknown)}. Name all that "
                "will ever come as classes= in the first call to partial_fit, or fit anew."
            )
        return targets

    def _numbers_as_fitted(self, y, collection):
        """Numbers of classes; -1, a label never seen in fit, is known and cannot be predicted."""
        if isinstance(collection, StoredSeries):
            y = stored_targets(y, collection)
        if isinstance(y, StoredRows) and self.per_step_:
            return y.map(partial(_class_numbers, classes=self.classes_))
        labels, restore = flat_labels(y)
        numbers = pd.Index(self.classes_).get_indexer(labels).astype(np.float64)
        numbers[pd.isna(labels)] = np.nan
        targets, per_step = check_numbers(restore(numbers), collection)
        if per_step != self.per_step_:
            raise ValueError(
                f"y must have one label for every {'step' if self.per_step_ else 'series'}, as in fit. "
                f"Got one for every {'step' if per_step else 'series'}."
            )
        return targets

    def _class_weights(self, given, targets, weights):
        """The weight of each class, in which ``"balanced"`` counts labels by their own weights."""
        if weights is None or self.class_weight != "balanced":
            return compute_class_weight(self.class_weight, classes=self.classes_, y=given)
        numbers = (np.concatenate(targets) if self.per_step_ else targets)[:, 0]
        known = ~np.isnan(numbers)
        own = joined(weights, self.per_step_)[known]
        counts = np.bincount(numbers[known].astype(int), own, minlength=len(self.classes_))
        # A class whose labels all weigh 0 is as good as absent, whatever its weight.
        return counts.sum() / ((counts > 0).sum() * np.where(counts > 0, counts, np.inf))

    def _held_out_first(self, order, targets):
        """Series of all classes in turn, in proportion, so that no class is held out as a whole."""
        if self.per_step_:
            return order
        labels = targets[order, 0].astype(int)
        place = pd.Series(labels).groupby(labels).cumcount().to_numpy()
        return order[np.argsort((place + 0.5) / np.bincount(labels)[labels], kind="stable")]

    def _loss(self, targets):
        return partial(_cross_entropy, weight=torch.tensor(self.class_weight_))

    def _answers_module(self):
        """What an exported model answers, by name, from the network's outputs."""
        return Probabilities(float(vars(self).get("temperature_", 1.0)))

    def _answer(self, outputs):
        """What a stream answers, from one row of the network's outputs."""
        return np.exp(self._log_proba(outputs))

    def _log_proba(self, outputs):
        return log_softmax(outputs / vars(self).get("temperature_", 1.0), axis=-1)

    @staticmethod
    def _each(function, values):
        """The function of an array, or of each array in an array of arrays."""
        if values.dtype != object:
            return function(values)
        result = np.empty_like(values)
        result[:] = [function(row) for row in values]
        return result

    def _export(self):
        state, arrays = super()._export()
        # Labels may be text, and the keys of JSON always are.
        arrays.pop("classes_")
        state["classes"] = [self.classes_.dtype.str, self.classes_.tolist()]
        if isinstance(self.class_weight, Mapping):
            state["params"]["class_weight"] = [[_plain(label), weight] for label, weight in self.class_weight.items()]
        return state, arrays

    @classmethod
    def _import(cls, state, arrays):
        if isinstance(state["params"]["class_weight"], list):
            state["params"]["class_weight"] = dict(state["params"]["class_weight"])
        estimator = super()._import(state, arrays)
        dtype, classes = state["classes"]
        estimator.classes_ = np.array(classes, dtype=dtype)
        return estimator


def _class_numbers(rows, classes):
    """The place of each label among the classes, -1 for another, NaN for one that is not known."""
    numbers = pd.Index(classes).get_indexer(rows.ravel()).astype(np.float64)
    numbers[pd.isna(rows.ravel())] = np.nan
    return numbers.reshape(rows.shape)


def _plain(label):
    return label.item() if isinstance(label, np.generic) else label


def _cross_entropy(model, batch, weight):
    """Weighted sum of -log p(label) over the labels that are known, and the sum of the weights."""
    output, _ = model(batch["x"], batch.get("dt"), lengths=batch["lengths"])
    weights = target_weights(batch)[..., 0]
    known = weights > 0
    labels = batch["y"][..., 0][known].long()
    weights = weight.to(output)[labels] * weights[known].to(output)
    return (weights * F.cross_entropy(output[known], labels, reduction="none")).sum(), weights.sum()


@dataclass(eq=False, repr=False)
class SSMClassifier(DeepClassifier, SSMParameters):
    """Classification of series, or of their steps, with a stack of state-space layers, any of them by name.

        h = E x + e,    h = h + dropout(GLU(W gelu(layer(norm(h), Δ)))),    p = softmax(V norm(h) + v)

    The network is that of `SSMRegressor`; the loss is the cross-entropy of the labels that are known.

    Parameters
    ----------
    layer, d_model, n_layers, layer_options, bidirectional, pooling, max_epochs, ...
        And all others but the following: as in `SSMRegressor`.
    class_weight : mapping, "balanced" or None, default=None
        Weight of each label in the loss; ``"balanced"`` weighs a class by n_labels / (n_classes · its labels). None
        weighs all the same, as does a mapping the labels that it leaves out.
    calibrate : bool, default=False
        Hold out ``calibration_fraction`` of the series, on which a temperature is fitted that makes the probabilities
        honest and changes no prediction, and with which `predict_set` covers what it says. The temperature is worth its
        series where a network learns its labels by heart; one that is kept at its best validation loss is seldom far
        off. It does not undo ``class_weight``, with which probabilities are those of other shares of classes.

    Attributes
    ----------
    temperature_ : float
        What the network's outputs are divided by before the softmax; 1 without ``calibrate``. Above 1 where the network
        was too sure. See `statespace.classification.temperature`.
    n_calibration_ : int
        Number of series that were held out to calibrate.
    calibration_scores_, calibration_weights_ : ndarray of shape (n_scores,)
        Only with ``calibrate``: -log p of the labels that were held out, and the weight of each.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    class_weight_ : ndarray of shape (n_classes,)
        The weight of each.
    per_step_ : bool
        Whether there is one label a step.
    model_, history_, best_epoch_, n_channels_, x_mean_, x_scale_, has_missing_, clock_, time_scale_, n_features_in_
        As in `SSMRegressor`; the losses are mean cross-entropies.

    Examples
    --------
    Slow or fast, told by the times alone:

    >>> import numpy as np
    >>> from statespace import SSMClassifier
    >>> rng = np.random.default_rng(0)
    >>> phase = np.cumsum(rng.exponential(size=(60, 30)), axis=1)
    >>> speed = np.repeat(["slow", "fast"], 30)
    >>> t = np.where(speed == "slow", 3.0, 0.5)[:, None] * phase
    >>> clf = SSMClassifier("s4d", d_model=8, n_layers=1, layer_options={"d_state": 8}, max_epochs=15, random_state=0)
    >>> clf.fit(np.sin(phase), speed, times=t).score(np.sin(phase), speed, times=t) > 0.9
    True
    >>> clf.predict_proba(np.sin(phase), times=t).shape
    (60, 2)

    DNA, on either strand:

    >>> sequences = ["".join(rng.choice(list("ACGT"), n)) for n in rng.integers(10, 20, size=60)]
    >>> rich = [s.count("G") + s.count("C") > len(s) / 2 for s in sequences]
    >>> clf = SSMClassifier(alphabet="dna", reverse_complement="equivariant", d_model=8, n_layers=1, random_state=0)
    >>> clf.set_params(max_epochs=15).fit(sequences, rich).predict(["ACGGCCN", "TATATATA"])
    array([ True, False])
    """
