"""What classifiers say beside one label: sets of labels that hold the true one, calibrated on held-out series.

    C(x) = { y : -log p(y | x) <= q }  and the most probable label

q is the conformal quantile of -log p(y_i | x_i) over the held-out series: of all such sets that cover as often, those
by the probability of the label are the smallest on average, where the probabilities are right [1]_. They are taken
before the temperature, which is fitted on the same series: the bound holds for scores that do not know them.

Above: ``ssm`` predicts labels and probabilities. Below: ``temperature``, and ``statespace.conformal``, which turns the
scores of held-out series into bounds.

References
----------
.. [1] M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous Set-Valued Classifiers With Bounded Error Levels", 2019,
   section 2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import log_softmax

from statespace.classification.temperature import fit_temperature
from statespace.conformal import check_enough, conformal_quantile, group_weights, some_steps
from statespace.weights import joined, weights_of_targets


class UncertainClassifier:
    """Temperature and sets of labels: what `DeepClassifier` learns from series that it is not trained on."""

    classes_: np.ndarray
    per_step_: bool
    temperature_: float
    calibration_scores_: np.ndarray
    calibration_weights_: np.ndarray
    _read: Callable[..., Any]
    _outputs: Callable[..., Any]
    _shaped: Callable[..., Any]

    def predict_set(self, X, coverage=0.9, times=None):
        """Predict sets of labels that hold the true one with a probability of ``coverage``.

        Of a model with ``calibrate=True``, this probability is at least ``coverage`` for new series that are
        exchangeable with those of ``fit``, whatever the model: over all of them, not for each label by itself. For one
        label a step it is the share of the steps of a new series whose set holds their label, averaged over series; of
        a single step nothing is promised. The most probable label is always in the set; a model that is right more
        often than ``coverage`` says names one label for almost every series, and covers more.

        Parameters
        ----------
        X, times
            As in `predict`.
        coverage : float, default=0.9
            Between 0 and 1.

        Returns
        -------
        sets : ndarray of bool
            Whether each label is in the set: (n_series, n_classes), in the order of ``classes_``; or one row a step, in
            the form of `predict_proba`.

        Raises
        ------
        ValueError
            For a coverage outside (0, 1); for a model without calibration; for a coverage that needs more held-out
            series than there are; and as `predict`.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace import S4DClassifier
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat(["rest", "walk"], 30)
        >>> X = rng.normal(size=(60, 12)) + np.where(y == "walk", 1.0, 0.0)[:, None]
        >>> clf = S4DClassifier(d_model=8, n_layers=1, d_state=4, max_epochs=10, calibrate=True, random_state=0)
        >>> sets = clf.fit(X, y).predict_set(X, coverage=0.8)
        >>> sets.shape, bool(sets.any(axis=1).all())
        ((60, 2), True)
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be between 0 and 1. Got {coverage!r}.")
        collection = self._read(X, times)
        if "calibration_scores_" not in vars(self):
            raise ValueError("predict_set needs held-out series: fit with calibrate=True.")
        bound = conformal_quantile(self.calibration_scores_, coverage, self.calibration_weights_)
        check_enough(bound, coverage, self.calibration_weights_)
        outputs = self._outputs(collection)
        if not self.per_step_:
            return _sets(outputs, bound)
        return self._shaped([_sets(rows, bound) for rows in outputs], collection)

    def _learn_calibration(self, collection, targets, weights):
        """The temperature, and how improbable the labels of series are that nothing else was learned from."""
        outputs = self._outputs(collection)
        outputs = np.concatenate(outputs) if self.per_step_ else outputs
        labels = np.concatenate(targets).reshape(-1)
        weights = joined(weights_of_targets(weights, collection, self.per_step_), self.per_step_)
        lengths = collection.lengths if self.per_step_ else np.ones(len(collection), dtype=int)
        groups = np.repeat(np.arange(len(collection)), lengths)
        known = ~np.isnan(labels)
        outputs, labels, groups = outputs[known], labels[known].astype(int), groups[known]
        weights = np.ones(len(labels)) if weights is None else weights[known]
        self.temperature_ = fit_temperature(outputs, labels, weights)
        kept = some_steps(groups)
        scores = -log_softmax(outputs[kept], axis=1)
        self.calibration_scores_ = scores[np.arange(len(kept)), labels[kept]]
        self.calibration_weights_ = group_weights(groups[kept]) * weights[kept]


def _sets(outputs, bound):
    """Rows of the network's outputs (n, n_classes) as sets of the same shape."""
    scores = -log_softmax(outputs, axis=1)
    return scores <= np.maximum(bound, scores.min(axis=1, keepdims=True))
