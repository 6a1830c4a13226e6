"""What a fitted `KalmanRegressor` is asked for: the signal at other times, its components, draws, streams, a score."""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from statespace.filtering.panel import read_panel, read_values
from statespace.filtering.posteriors import rows_of_each
from statespace.kalman.rows import read_targets


class Prediction:
    """The methods of `statespace.KalmanRegressor` that need a fit and change nothing.

    Of many series, X may hold one entry for each series of `fit` in their order, name them in its index, or come with
    ``series``, the label of each entry (or of X, if it is one series). The parameters are known for a series that
    `fit` did not see if they are shared; nothing else is, so that it is predicted from the process' start alone: at its
    mean and variance, or infinitely open where it starts diffuse. (`KalmanRegressor.condition` takes its data in.)

    Answers have the form of X: an array for one series and for a table, a list of arrays for a list of series.
    """

    def predict(self, X, return_std=False, return_cov=False, include_noise=False, series=None):
        """The signal at other times, given all of the data: interpolated, smoothed or forecast.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1 + n_covariates), or any form that `fit` takes
            In any order.
        return_std : bool, default=False
            Also return standard deviations, in O(n).
        return_cov : bool, default=False
            Also return the joint covariance of all rows; series are independent of each other.
        include_noise : bool, default=False
            Whether std and cov are those of a new observation rather than of the signal.
        series : label or list of labels, optional
            Which series of `fit` the entries of X are; see above.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or (n_samples, n_outputs), or a list of them
        std : of the same shape
            Infinite where the data leave a diffuse process open; the mean is then any number.
        cov : ndarray of shape (n_samples, n_samples) or (n_samples, n_samples, n_outputs), or a list of them

        Raises
        ------
        ValueError
            For X as in `fit`; if both std and cov are asked for; for the noise of new samples where only that of
            each known sample is known; for series that are not told apart.
        """
        check_is_fitted(self)
        if return_std and return_cov:
            raise ValueError("At most one of return_std or return_cov can be requested.")
        panel, codes = self._asked(X, series)
        noise = self._new_noise(codes) if include_noise else 0.0
        rows, posteriors = panel.rows, self._posteriors()
        mean, variance = (part[:, 0] for part in posteriors.at(rows.times, rows.covariates, codes))
        given = panel.given(self._shaped(mean))
        if return_cov:
            return given, self._covariance(panel, codes, posteriors, noise)
        if return_std:
            return given, panel.given(self._shaped(np.sqrt(variance + np.reshape(noise, (-1, 1)))))
        return given

    def _asked(self, X, series):
        """X, and the place in `fit` of the series of each row; beyond the last for series that are new."""
        panel = read_panel(X, self, reset=False)
        if self.series_ is None:
            if panel.labels is not None or series is not None:
                raise ValueError("this model was fitted to one series. Give X as one series, without series=.")
            return panel, panel.series
        labels = self._labels_asked(panel, series)
        places = self.series_.get_indexer(labels)
        new = places < 0
        if new.any() and self.parameters == "separate":
            raise ValueError(
                f"series {labels[new][0]!r} has no parameters: each series of fit has its own. "
                "Fit with parameters='shared' to predict others."
            )
        places[new] = len(self.series_) + np.arange(new.sum())
        return panel, places[panel.series]

    def _labels_asked(self, panel, series):
        if panel.labels is None:
            if series is None:
                raise ValueError("this model was fitted to many series: say with series= which one X is.")
            return pd.Index([series], tupleize_cols=False)
        if series is not None:
            labels = pd.Index(series)
            if panel.lengths is None or len(labels) != len(panel.lengths):
                raise ValueError(
                    f"series must have a label for each of the {len(panel.labels)} series of X, in a list. A table "
                    "names them in its index."
                )
            return labels
        unnamed = panel.lengths is not None and isinstance(panel.labels, pd.RangeIndex)
        if not unnamed:
            return panel.labels
        if len(panel.labels) != len(self.series_):
            raise ValueError(
                f"X has {len(panel.labels)} series and fit had {len(self.series_)}: say with series= which of them "
                "these are."
            )
        return self.series_

    def _shaped(self, array):
        return array[..., 0] if self._single else array

    def _covariance(self, panel, codes, posteriors, noise):
        n, m = len(codes), posteriors.posteriors[0].record.y.shape[1]
        noise = np.broadcast_to(noise, n)
        whole = np.zeros((n, n, m)) if panel.lengths is None else None
        parts = []
        # Entries of a list are apart even where they are of one series.
        for place, rows in rows_of_each(codes if panel.lengths is None else panel.series):
            code = place if panel.lengths is None else codes[rows[0]]
            part = posteriors.one(code).joint_covariance(panel.rows.times[rows], panel.rows.covariates[rows])
            part[np.diag_indices(len(part))] += noise[rows, np.newaxis]
            if whole is None:
                parts.append(self._shaped(part))
            else:
                whole[np.ix_(rows, rows)] = part
        if whole is not None:
            return self._shaped(whole)
        return np.stack(parts) if panel.stacked else parts

    def _new_noise(self, codes):
        """The noise variance of a new sample of each row's series: a number, or an array."""
        if self._known_each:
            raise ValueError(
                "include_noise=True needs the noise variance of new samples, and fit was given that of each known "
                "sample only. Predict without it and add the variance that you know."
            )
        noise = self.noise_variance_ * self._noise_factor()
        return noise[codes] if np.ndim(noise) else noise

    def _families(self):
        """The density of the noise, where it is not normal: of all series together, or of each."""
        thetas = self.theta_ if self._separate else [self.theta_]
        return [each.family(theta) for each, theta in zip(self._estimations, thetas, strict=True)]

    def _noise_factor(self):
        """The variance of the noise in units of R: a number, or one for each series."""
        if self.noise == "gaussian":
            return 1.0
        factors = np.array([family.variance for family in self._families()])
        return factors if self._separate else factors[0]

    def decompose(self, X, series=None):
        """Each component at other times, given all of the data. The components add up to `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1 + n_covariates), or any form that `fit` takes
        series : label or list of labels, optional
            As in `predict`.

        Returns
        -------
        DataFrame with n_samples rows
            Two columns for each component: its mean, and its standard deviation with the suffix ``_std``. Of several
            outputs, one such table beside the other under a first level of columns that counts them. Of many series,
            with a (series, time) index.
        """
        check_is_fitted(self)
        panel, codes = self._asked(X, series)
        posteriors = self._posteriors()
        mean, variance = posteriors.at(panel.rows.times, panel.rows.covariates, codes, components=True)
        index, tables = panel.rows.index, []
        if panel.lengths is not None:
            index = pd.MultiIndex.from_arrays(
                [self._labels_asked(panel, series)[panel.series], index.get_level_values(-1)], names=index.names
            )
        for k in range(mean.shape[2]):
            columns = {}
            for j, (name, _) in enumerate(posteriors.posteriors[0].process.named()):
                columns[name], columns[f"{name}_std"] = mean[:, j, k], np.sqrt(variance[:, j, k])
            tables.append(pd.DataFrame(columns, index=index))
        return tables[0] if self._single else pd.concat(dict(enumerate(tables)), axis=1)

    def sample_y(self, X, n_samples=1, random_state=0, include_noise=False, series=None):
        """Joint draws of the signal at other times, given all of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, 1 + n_covariates), or any form that `fit` takes
        n_samples : int, default=1
        random_state : int, RandomState or None, default=0
        include_noise : bool, default=False
            Whether to draw new observations rather than the signal.
        series : label or list of labels, optional
            As in `predict`.

        Returns
        -------
        ndarray of shape (n_samples_X, n_samples) or (n_samples_X, n_outputs, n_samples), or a list of them
            NaN where the data leave a diffuse process open.
        """
        check_is_fitted(self)
        panel, codes = self._asked(X, series)
        random_state = check_random_state(random_state)
        if include_noise:
            self._new_noise(codes)
        posteriors, rows = self._posteriors(), panel.rows
        parts = [
            (chosen, posteriors.one(code).sample(rows.times[chosen], rows.covariates[chosen], n_samples, random_state))
            for code, chosen in rows_of_each(codes)
        ]
        drawn = np.empty((len(codes), *parts[0][1].shape[1:]))
        for chosen, part in parts:
            drawn[chosen] = part
        if include_noise:
            families, scale = self._families(), np.sqrt(self.noise_variance_)
            for code, chosen in rows_of_each(codes):
                family, shape = families[code if self._separate else 0], drawn[chosen].shape
                draw = random_state.normal(size=shape) if family is None else family.draw(random_state, shape)
                drawn[chosen] += (scale[code] if self._separate else scale) * draw
        return panel.given(drawn[:, 0] if self._single else drawn)

    def score(self, X, y, sample_weight=None, series=None):
        """The coefficient of determination R² of `predict`; samples whose y is missing (NaN) do not count.

        Parameters
        ----------
        X, y : as in `fit`
        sample_weight : array-like of shape (n_samples,), optional
            One for each row of all series.
        series : label or list of labels, optional
            As in `predict`.

        Returns
        -------
        float
            Over the rows of all series together; of several outputs the mean.
        """
        check_is_fitted(self)
        panel, codes = self._asked(X, series)
        y = read_targets(read_values(y, panel, "y"), len(codes)).reshape(len(codes), -1)
        mean = self._posteriors().at(panel.rows.times, panel.rows.covariates, codes)[0][:, 0]
        if mean.shape != y.shape:
            raise ValueError(f"y must have {mean.shape[1]} outputs, as in fit. Got {y.shape[1]}.")
        scores = []
        for target, predicted in zip(y.T, mean.T, strict=True):
            seen = np.isfinite(target)
            weight = None if sample_weight is None else np.asarray(sample_weight)[seen]
            if seen.any():
                scores.append(r2_score(target[seen], predicted[seen], sample_weight=weight))
        return float(np.mean(scores))

    def condition(self, X, y, noise_variance=None):
        """The same parameters, given other data.

        Parameters
        ----------
        X, y, noise_variance : as in `fit`
            One series or many. Where each series has its own parameters, these series must be among those of `fit`.

        Returns
        -------
        KalmanRegressor
            A new one, fitted; this one is not changed.
        """
        check_is_fitted(self)
        other = clone(self)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(other, name, getattr(self, name))
        other._estimations, other._zoned = self._estimations, self._zoned
        if noise_variance is None and self._known_each:
            raise ValueError("condition needs noise_variance: fit was given that of each known sample only.")
        _, record, known = other._read(X, y, noise_variance, reset=False)
        if self._separate:
            if other.series_ is None:
                raise ValueError("each series of fit has its own parameters: name the series of X, as in fit.")
            places = [self._place(label) for label in other.series_]
            pairs = [(self._estimations[p], self.theta_[p], record.one(i)) for i, p in enumerate(places)]
        else:
            pairs = [(self._estimation, self.theta_, record)]
        conditioned = [estimation.given(part, theta) for estimation, theta, part in pairs]
        return other._conclude(*map(list, zip(*conditioned, strict=True)), known)

    def stream(self, from_prior=False, include_noise=False, series=None, lag=None, late="raise"):
        """A filter that takes one sample at a time, at constant cost.

        With Student-t or Huber noise each sample gets its weight when it comes, from its innovation, and keeps it;
        `predict` weighs it by what comes later, too.

        Parameters
        ----------
        from_prior : bool, default=False
            Start a new series with the fitted parameters, rather than at the end of the data of `fit`.
        include_noise : bool, default=False
            Whether its standard deviations are those of an observation rather than of the signal.
        series : label, optional
            Of many series, the one that goes on; needed but for a new one with shared parameters.
        lag : float or timedelta, optional
            How late a sample may come, behind the latest; in the unit of the times.
        late : {"raise", "ignore"}, default="raise"
            What to do with a sample that is later than that.

        Returns
        -------
        KalmanStream
        """
        from statespace.streaming.kalman import KalmanStream

        check_is_fitted(self)
        place = self._place(series, new=from_prior)
        if include_noise:
            self._new_noise(place)
        noise = self.noise_variance_
        return KalmanStream(
            self._posteriors().one(place),
            None if self._known_each else float(noise[place] if np.ndim(noise) else noise),
            family=self._families()[place if self._separate else 0],
            single=self._single,
            from_prior=from_prior,
            include_noise=include_noise,
            lag=lag,
            late=late,
            zoned=self._zoned,
        )

    def _place(self, label, *, new=False):
        """The place of a series of `fit`."""
        if self.series_ is None:
            if label is not None:
                raise ValueError("this model was fitted to one series: leave series= out.")
            return 0
        if label is None and new and self.parameters == "shared":
            return len(self.series_)
        if label is None:
            raise ValueError("this model was fitted to many series: say with series= which one goes on.")
        place = self.series_.get_indexer(pd.Index([label], tupleize_cols=False))[0]
        if place < 0:
            raise ValueError(
                f"series {label!r} was not in fit. There are {len(self.series_)}: {list(self.series_[:5])}…"
            )
        return int(place)
