"""What regressors say beside the point: standard deviations, quantiles and intervals, calibrated on held-out series.

Above: ``ssm`` predicts the point. Below: ``statespace.distributions`` reads the network's outputs,
``statespace.conformal`` turns the scores of held-out series into bounds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from statespace.conformal import check_enough, conformal_quantile, group_weights, outward_quantile, some_steps
from statespace.distributions import DISTRIBUTIONS
from statespace.weights import weights_of_targets


class UncertainRegressor:
    """The distributions of the targets: how `DeepRegressor` predicts more than points."""

    distribution: str | None
    distribution_: str | None
    n_outputs_: int
    single_: bool
    per_step_: bool
    y_mean_: np.ndarray
    y_scale_: np.ndarray
    calibration_scores_: np.ndarray
    calibration_weights_: np.ndarray
    calibration_maxima_: np.ndarray
    std_scale_: np.ndarray
    _read: Callable[..., Any]
    _outputs: Callable[..., Any]
    _shaped: Callable[..., Any]

    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95), times=None):
        """Predict quantiles of the targets.

        With ``calibrate=True`` they come from the held-out series: a target of a new one lies above the quantile of a
        level over 1/2 with a probability of at most 1 - level, and below that of a level under 1/2 with a probability
        of at most the level.

        Parameters
        ----------
        X, times
            As in `predict`.
        quantiles : float or array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Levels, between 0 and 1. They do not cross.

        Returns
        -------
        y : ndarray
            As `predict`, with an axis for the quantiles at the end: (n_series, n_quantiles), (n_series, n_outputs,
            n_quantiles), (n_series, n_times, n_quantiles) or (n_series, n_times, n_outputs, n_quantiles). A number for
            ``quantiles`` has no such axis.

        Raises
        ------
        ValueError
            For levels outside (0, 1); for a model with neither a distribution nor calibration; for a level that needs
            more held-out series than there are; and as `predict`.
        """
        levels = np.asarray(quantiles, dtype=np.float64)
        if levels.ndim > 1 or not np.all((levels > 0) & (levels < 1)):
            raise ValueError(f"quantiles must be between 0 and 1, one or a list of them. Got {quantiles!r}.")
        collection = self._read(X, times)
        self._check_uncertain("predict_quantiles")
        flat = levels.reshape(-1)
        if self._calibrated:
            scores = outward_quantile(self.calibration_scores_, flat, self.calibration_weights_).T
            check_enough(scores, max(flat.max(), 1 - flat.min()), self.calibration_weights_)
            values = self._each(lambda rows: self._at(rows, scores), self._outputs(collection))
        else:
            values = self._each(lambda rows: self._quantiles(rows, flat), self._outputs(collection))
        return self._formed(values if levels.ndim else self._each(lambda v: v[..., 0], values), collection)

    def predict_interval(self, X, coverage=0.9, times=None, joint=False):
        """Predict intervals that hold the targets with a probability of ``coverage``.

        With ``calibrate=True`` this probability is at least ``coverage`` for new series that are exchangeable with
        those of ``fit``, whatever the model and the data, and at most ``coverage`` + 1 / (n + 1) with n held-out series
        and scores without ties. For one target a step it is the share of the steps of a new series that is covered,
        averaged over series [1]_; steps of one series are not exchangeable, so that of a single step, such as the last,
        nothing is promised. Without calibration the intervals are as good as the model's distribution.

        Parameters
        ----------
        X, times
            As in `predict`.
        coverage : float, default=0.9
            Between 0 and 1.
        joint : bool, default=False
            True: the intervals of all steps and outputs of a series hold together with that probability. It asks for
            ``calibrate=True``.

        Returns
        -------
        lower, upper : ndarray
            As `predict`. With calibration at equal scores below and above the point; without, the quantiles at levels
            (1 ± coverage) / 2.

        Raises
        ------
        ValueError
            For a coverage outside (0, 1); for a model with neither a distribution nor calibration; for a coverage that
            needs more held-out series than there are; and as `predict`.

        References
        ----------
        .. [1] Y. Lee, R. F. Barber, R. Willett, "Distribution-free inference with hierarchical data", 2023.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be between 0 and 1. Got {coverage!r}.")
        collection = self._read(X, times)
        self._check_uncertain("predict_interval")
        if joint and not self._calibrated:
            raise ValueError("joint=True needs the held-out series of calibrate=True.")
        outputs = self._outputs(collection)
        if self._calibrated:
            scores = self._largest_scores(coverage, joint)[:, np.newaxis] * np.array([-1.0, 1.0])
            values = self._each(lambda rows: self._at(rows, scores), outputs)
        else:
            levels = (1 + coverage * np.array([-1.0, 1.0])) / 2
            values = self._each(lambda rows: self._quantiles(rows, levels), outputs)
        lower = self._formed(self._each(lambda v: v[..., 0], values), collection)
        return lower, self._formed(self._each(lambda v: v[..., 1], values), collection)

    @property
    def _distribution(self):
        """How the outputs are read, as they were in ``fit``."""
        return DISTRIBUTIONS[vars(self).get("distribution_")]

    @property
    def _calibrated(self):
        return "calibration_scores_" in vars(self)

    def _parameters(self, rows):
        """Outputs of the network (..., n_outputs · n_parameters) -> (..., n_outputs, n_parameters)."""
        return rows.reshape(*rows.shape[:-1], self.n_outputs_, self._distribution.n_parameters)

    def _each(self, function, values):
        """The function of each series' rows, or of all series where there is one answer for each."""
        return [function(rows) for rows in values] if self.per_step_ else function(values)

    def _formed(self, values, collection):
        """Values (..., n_outputs, ...) of each series' rows, or of all series, in the form of the y of ``fit``."""
        if self.single_:
            values = self._each(lambda rows: rows[:, 0], values)
        return self._shaped(values, collection) if self.per_step_ else values

    def _location(self, rows):
        return self._distribution.location(self._parameters(rows)) * self.y_scale_ + self.y_mean_

    def _std(self, rows):
        scale = self.y_scale_ * vars(self).get("std_scale_", 1.0)
        return self._distribution.std(self._parameters(rows)) * scale

    def _quantiles(self, rows, levels):
        values = self._distribution.quantiles(self._parameters(rows), levels)
        return values * self.y_scale_[:, np.newaxis] + self.y_mean_[:, np.newaxis]

    def _at(self, rows, scores):
        """The targets at scores (n_outputs, m): (n, n_outputs, m)."""
        values = self._distribution.at(self._parameters(rows), scores)
        return values * self.y_scale_[:, np.newaxis] + self.y_mean_[:, np.newaxis]

    def _largest_scores(self, coverage, joint):
        """How far from the point, in scores, the targets of a new series lie: (n_outputs,)."""
        if joint:
            largest = np.full(self.n_outputs_, conformal_quantile(self.calibration_maxima_, coverage))
        else:
            largest = conformal_quantile(np.abs(self.calibration_scores_), coverage, self.calibration_weights_)
        check_enough(largest, coverage, self.calibration_weights_)
        return largest

    def _check_uncertain(self, what):
        if vars(self).get("distribution_") is None and not self._calibrated:
            raise ValueError(
                f"{what} needs to know more than points: fit with distribution='gaussian', 'student_t' or 'quantile', "
                "or with calibrate=True."
            )

    def _learn_calibration(self, collection, targets, weights):
        """The scores of series that nothing else was learned from, and how far off their standard deviations are."""
        outputs = self._outputs(collection)
        rows = outputs if self.per_step_ else outputs[:, np.newaxis]
        weights = weights_of_targets(weights, collection, self.per_step_)
        scores, errors, groups, counts = [], [], [], []
        self.calibration_maxima_ = np.empty(len(rows))
        for group, (row, y) in enumerate(zip(rows, targets, strict=True)):
            parameters = self._parameters(row)
            scaled = (np.reshape(y, (-1, self.n_outputs_)) - self.y_mean_) / self.y_scale_
            score = self._distribution.score(parameters, scaled)
            self.calibration_maxima_[group] = np.nanmax(np.abs(score))
            error = (scaled - self._distribution.location(parameters)) / self._distribution.std(parameters)
            kept = np.flatnonzero(~np.isnan(score).all(axis=1))
            scores.append(score[kept])
            errors.append(error[kept])
            groups.append(np.full(len(kept), group))
            counts.append(np.ones(len(kept)) if weights is None else np.atleast_1d(weights[group])[kept])
        groups = np.concatenate(groups)
        kept = some_steps(groups)
        self.calibration_scores_ = np.concatenate(scores)[kept]
        shares = group_weights(groups[kept], known=~np.isnan(self.calibration_scores_))
        self.calibration_weights_ = shares * np.concatenate(counts)[kept, np.newaxis]
        squares = np.nansum(self.calibration_weights_ * np.concatenate(errors)[kept] ** 2, axis=0)
        self.std_scale_ = np.sqrt(squares / self.calibration_weights_.sum(axis=0))
