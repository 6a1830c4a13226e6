"""Whether a fitted regressor fits: standardised innovations and their tests, information criteria, shocks, outliers."""

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.special import log_ndtr
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from statespace.filtering.noise import check_noise
from statespace.filtering.panel import read_values
from statespace.filtering.posteriors import rows_of_each
from statespace.filtering.summary import Summary
from statespace.kalman.criteria import InformationCriteria
from statespace.kalman.diagnostics import heteroscedasticity, jarque_bera, ljung_box
from statespace.kalman.disturbances import disturbances, innovations
from statespace.kalman.posterior import Posterior, Record, of_output
from statespace.kalman.robust import reweigh, sample_weight, weights_at
from statespace.kalman.rows import read_targets
from statespace.kernels.kalman_filter import kalman_filter

METHODS = ("ahead", "leave_one_out")
_COLUMNS = ("expected", "std", "score", "p_value", "log_density")


class Diagnosis(InformationCriteria):
    """What `statespace.KalmanRegressor` says about its own fit."""

    # Information criteria.

    @property
    def n_estimated_(self):
        """The number of estimated quantities: the fitted parameters, and each diffuse direction that the data closed.

        The convention of Durbin & Koopman (2012, section 7.4): w parameters and q diffuse initial elements; of several
        outputs or series q counts each one's own.
        """
        check_is_fitted(self)
        fitted = self.theta_.size if self.optimizer is not None else 0
        return fitted + sum(_n_closed(estimation.posterior(theta)) for estimation, theta in self._fits())

    def _fits(self):
        """What was fitted: an estimation and its θ, for all series together or for each."""
        thetas = self.theta_ if self._separate else [self.theta_]
        return list(zip(self._estimations, thetas, strict=True))

    @property
    def n_observed_(self):
        """The number of observed samples."""
        check_is_fitted(self)
        return sum(int(np.isfinite(estimation.record.y).sum()) for estimation in self._estimations)

    @property
    def _maximum(self):
        check_is_fitted(self)
        return self.log_marginal_likelihood_value_

    # Predictions of samples that are known.

    def standardized_innovations(self, method="ahead"):
        """e = v/√F of the samples of `fit`; independent N(0, 1) under the model, with ``method="ahead"``.

        Parameters
        ----------
        method : {"ahead", "leave_one_out"}, default="ahead"
            Whether a sample is predicted from those before it or from all others.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the order of `fit`, of many series in that of the rows of all of them. NaN where y is missing or the
            others leave it open. With Student-t or Huber noise, the normal quantile of the error's place in its
            predictive distribution.
        """
        check_is_fitted(self)
        return self._shaped(self._in_order(self._own_table(method)["score"]))

    def anomaly_scores(self, X=None, y=None, noise_variance=None, *, method="ahead", from_prior=False, series=None):
        """How each sample compares with its prediction from others.

        Parameters
        ----------
        X, y : optional
            As in `fit`. The rows join the data of `fit`, of which those at the same times are replaced. None: the data
            of `fit`.
        noise_variance : float or array-like of shape (n_samples,), optional
            Known variances of the noise of these rows; needed where `fit` was given them.
        method : {"ahead", "leave_one_out"}, default="ahead"
            Whether a sample is predicted from those before it, as a stream would, or from all others.
        from_prior : bool, default=False
            Whether the rows are a new series, with the fitted parameters and without the data of `fit`.
        series : label or list of labels, optional
            As in `predict`.

        Returns
        -------
        DataFrame with n_samples rows
            Columns ``expected`` and ``std`` of the sample's prediction, noise included; ``score``, the standardised
            error (y − expected)/std, which is N(0, 1) under the model; ``p_value``, the probability of an error at
            least as large; and ``log_density``, the log of the predictive density, whose sum over a stationary model's
            record is the log-likelihood with ``method="ahead"``. NaN where y is missing or nothing predicts it. Of
            several outputs, one such table beside the other under a first level of columns that counts them. With
            Student-t or Huber noise p-values and densities are those of the signal's normal distribution and that noise
            together, and the score is the normal quantile that has this p-value.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace import KalmanRegressor
        >>> from statespace.kalman import LocalLevel
        >>> t, y = np.arange(30.0)[:, np.newaxis], np.random.default_rng(0).normal(size=30)
        >>> y[20] = 9.0
        >>> gp = KalmanRegressor(LocalLevel(), noise="student_t", df=4).fit(t, y)
        >>> scores = gp.anomaly_scores()
        >>> int(scores["p_value"].argmin())
        20
        """
        check_is_fitted(self)
        if X is None:
            if y is not None:
                raise ValueError("anomaly_scores got y without X. Give both, or neither for the data of fit.")
            table = {name: self._in_order(column) for name, column in self._own_table(method).items()}
            index = self._own_index()[np.argsort(self._order, kind="stable")]
        else:
            panel, codes = self._asked(X, series)
            y, known = self._new_samples(panel, y, noise_variance)
            table, index = {name: np.empty(y.shape) for name in _COLUMNS}, panel.rows.index
            for code, rows in rows_of_each(codes):
                estimation, theta = self._fits()[code if self._separate else 0]
                old = estimation.record if self._separate else estimation.record.one(code)
                noise = known[rows] if np.ndim(known) else known
                kept = np.zeros(len(old.times), dtype=bool)
                if not from_prior:
                    kept = ~np.isin(old.times, panel.rows.times[rows])
                record, place = _joined(old.take(kept), panel.rows, rows, y[rows], noise)
                R = _like(estimation.unpack(theta)[1] if record.noise is None else record.noise, record.y)
                before = estimation.weights(theta)
                if before is not None:
                    own = np.flatnonzero(estimation.record.series == (0 if self._separate else code))
                    before = before[own][kept]
                posterior = _weighted(estimation, theta, R, record, place, before, method)
                for name, column in _predicted(posterior, R, estimation.family(theta), method).items():
                    table[name][rows] = column[place]
        tables = [
            pd.DataFrame({name: column[:, k] for name, column in table.items()}, index=index)
            for k in range(self._record.y.shape[1])
        ]
        return tables[0] if self._single else pd.concat(dict(enumerate(tables)), axis=1)

    def _own_table(self, method):
        """What `anomaly_scores` returns for the data of `fit`, in the order of the records."""
        tables = []
        for estimation, theta in self._fits():
            R = _like(estimation.unpack(theta)[1], estimation.record.y)
            tables.append(_predicted(estimation.posterior(theta), R, estimation.family(theta), method))
        return {name: np.concatenate([table[name] for table in tables]) for name in _COLUMNS}

    def _own_index(self):
        """The times of the records, below the labels of their series."""
        times = pd.Index(np.concatenate([each.record.times for each in self._estimations]), name="time")
        if self.series_ is None:
            return times
        sizes = [np.diff(e.record.starts) if e.record.starts is not None else [len(e.record.times)] for e in
                 self._estimations]  # fmt: skip
        labels = self.series_[np.repeat(np.arange(len(self.series_)), np.concatenate(sizes))]
        levels = [labels.get_level_values(i) for i in range(labels.nlevels)]
        return pd.MultiIndex.from_arrays([*levels, times], names=[*labels.names, "time"])

    def _in_order(self, column):
        """What belongs to the records' samples, in the order of `fit`."""
        result = np.empty_like(column)
        result[self._order] = column
        return result

    def _new_samples(self, panel, y, noise_variance):
        """y of shape (n, m) and the known noise of new rows: None where it is that of `fit`."""
        y = read_targets(read_values(y, panel, "y"), len(panel.series))
        m = self._record.y.shape[1]
        if (y.ndim == 1) != self._single or y.reshape(len(y), -1).shape[1] != m:
            raise ValueError(f"y must have {m} outputs, as in fit. Got an array of shape {y.shape}.")
        if noise_variance is None and self._known_each:
            raise ValueError("noise_variance is needed for new samples: fit was given that of each known sample only.")
        known = noise_variance
        if isinstance(known, list | tuple) or np.ndim(known):
            known = read_values(known, panel, "noise_variance")
        known = None if known is None else check_noise(known, y.shape)
        return y.reshape(len(y), -1), _like(known, y.reshape(len(y), -1)) if np.ndim(known) else known

    def auxiliary_residuals(self):
        """Smoothed disturbances over their standard deviations: outliers and breaks (Durbin & Koopman 2012, 2.12.2).

        Returns
        -------
        DataFrame
            A row for each sample of `fit`, in the order of series and time. ``observation`` is the t-statistic of an
            outlier, u/√D: the error of the sample given all others. The columns of the states are the t-statistics of
            a shock to that state at that time, r/√N (de Jong & Penzer 1998): a shift of a level, a bend of a slope.
            NaN where y is missing or the data cannot tell. Of several outputs, one such table beside the other.
        """
        check_is_fitted(self)
        found = [disturbances(estimation.posterior(theta)) for estimation, theta in self._fits()]
        u, D, r, N = (np.concatenate(parts) for parts in zip(*found, strict=True))
        with np.errstate(all="ignore"):
            usable = 1e-12 * np.max(N, axis=0, keepdims=True) < N
            states, observation = np.where(usable, r / np.sqrt(N), np.nan), u / np.sqrt(D)
        names, index = self.state_names(), self._own_index()
        tables = [
            pd.DataFrame({"observation": observation[:, k]} | dict(zip(names, states[:, :, k].T, strict=True)), index)
            for k in range(u.shape[1])
        ]
        return tables[0] if self._single else pd.concat(dict(enumerate(tables)), axis=1)

    def state_names(self):
        """list of str: a name for each state, the component's with what it is or its number."""
        check_is_fitted(self)
        names = []
        process = self._estimation.unpack(self._fits()[0][1])[0]
        for name, component in process.named():
            kind, n = type(component).__name__, component.n_states
            if kind == "LocalTrend":
                names += [f"{name}.level", f"{name}.slope"]
            elif kind == "Regression" and n == len(component._places()):
                columns = self._estimation.scale.columns
                names += [f"{name}[{columns[place]}]" for place in component._places()]
            else:
                names += [name] if n == 1 else [f"{name}[{i}]" for i in range(n)]
        return names

    # Tests and the summary.

    def diagnostics(self, lags=None, h=None):
        """The textbook's tests of the standardised innovations (Durbin & Koopman 2012, sections 2.12.1 and 7.5).

        Parameters
        ----------
        lags : int, optional
            k of Ljung and Box' Q(k), in samples also on irregular times; by default the whole part of √n.
        h : int, optional
            h of the heteroscedasticity H(h); by default the whole number nearest to n/3.

        Returns
        -------
        DataFrame
            Rows ``ljung_box`` (χ², k − w + 1 degrees of freedom with w fitted parameters; Harvey 1989), ``jarque_bera``
            (χ², 2), ``skewness`` and ``kurtosis`` (3 under the model), and ``heteroscedasticity`` (F(h, h), two-sided);
            columns ``statistic``, ``parameter`` (k and h), ``degrees_of_freedom`` and ``p_value``. NaN where there are
            too few samples. Of several outputs or series, one such table below the other.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace import KalmanRegressor
        >>> from statespace.kalman import LocalLevel
        >>> y = np.cumsum(np.random.default_rng(0).normal(size=100))
        >>> gp = KalmanRegressor(LocalLevel()).fit(np.arange(100.0)[:, np.newaxis], y)
        >>> [*gp.diagnostics().index]
        ['ljung_box', 'jarque_bera', 'skewness', 'kurtosis', 'heteroscedasticity']
        """
        check_is_fitted(self)
        lost = max(self.theta_.shape[-1] - 1, 0) if self.optimizer is not None else 0
        scores = self._own_table("ahead")["score"]
        starts = self._all_starts()
        tables = {
            (i, k): _tests(scores[first:last, k], lags, h, lost)
            for i, (first, last) in enumerate(pairwise(starts))
            for k in range(scores.shape[1])
        }
        return self._stacked(tables, "test")

    def _all_starts(self):
        """Where each series starts in the records end to end."""
        sizes = [np.diff([0, len(e.record.times)] if e.record.starts is None else e.record.starts) for e in
                 self._estimations]  # fmt: skip
        return [0, *np.cumsum(np.concatenate(sizes)).tolist()]

    def _stacked(self, tables, name):
        """The tables of each series and output below each other, with the levels that tell them apart."""
        if len(tables) == 1:
            return next(iter(tables.values()))
        if self.series_ is not None:
            labelled = {(self.series_[i], k): table for (i, k), table in tables.items()}
            whole = pd.concat(list(labelled.values()), keys=range(len(labelled)))
            keys = list(labelled)
        else:
            whole, keys = pd.concat(list(tables.values()), keys=range(len(tables))), list(tables)
        places = whole.index.get_level_values(0)
        levels = {}
        if self.series_ is not None:
            levels["series"] = [keys[place][0] for place in places]
        if not self._single:
            levels["output"] = [keys[place][1] for place in places]
        levels[name] = whole.index.get_level_values(1)
        return whole.set_index(pd.MultiIndex.from_arrays(list(levels.values()), names=list(levels)))

    def final_states(self):
        """The state at the last time, given all of the data, in the data's units.

        Returns
        -------
        DataFrame
            A row for each state; columns ``mean`` and ``std``, which is infinite where the data leave it open. Of
            several outputs or series, one such table below the other.
        """
        check_is_fitted(self)
        tables, i = {}, 0
        for estimation, theta in self._fits():
            whole, scale = estimation.posterior(theta), estimation.scale
            plain = scale._replace(value=1.0, time=1.0, covariates=np.ones_like(scale.covariates))
            for own in range(estimation.record.n_series):
                one = whole.one(own)
                # In the data's own units, with the level that y has.
                posterior = Posterior(
                    one.process, one.given_noise, one.record, plain, one.unit, one.backend, one.weights
                )
                posterior.level, posterior.offset = None, np.zeros_like(posterior.offset)
                for k in range(one.record.y.shape[1]):
                    tables[i, k] = self._state_table(posterior, k)
                i += 1
        return self._stacked(tables, "state")

    def _state_table(self, posterior, output):
        if len(posterior.record.times) == 0:
            mean, covariance, diffuse = posterior.process.initial()
        else:
            mean, covariance, diffuse = posterior.last_states()[output]
        is_open = np.abs(diffuse).max(axis=1, initial=0.0) > 1e-9
        std = np.where(is_open, np.inf, np.sqrt(np.maximum(np.diag(covariance), 0.0)))
        return pd.DataFrame({"mean": mean, "std": std}, index=pd.Index(self.state_names(), name="state"))

    def summary(self, level=0.95):
        """Parameters with standard errors and intervals, information criteria, diagnostics and final states.

        Parameters
        ----------
        level : float, default=0.95
            Of the confidence intervals, which are symmetric about the parameters' logarithms.

        Returns
        -------
        Summary
            It prints as text and shows as HTML in notebooks; its parts are attributes.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace import KalmanRegressor
        >>> from statespace.kalman import LocalLevel
        >>> y = np.cumsum(np.random.default_rng(0).normal(size=100))
        >>> summary = KalmanRegressor(LocalLevel()).fit(np.arange(100.0)[:, np.newaxis], y).summary()
        >>> [*summary.parameters.columns]
        ['estimate', 'standard_error', 'z', 'lower', 'upper', 'at_bound']
        >>> [*summary.criteria.index]
        ['log_likelihood', 'aic', 'aicc', 'bic', 'hqic', 'n_observed', 'n_estimated']
        """
        check_is_fitted(self)
        return Summary.of(self, level)


def _n_closed(posterior):
    """The diffuse directions that a record closes, of all its series and outputs."""
    record, y = posterior.record, posterior.scaled_y
    binding = posterior._binding(record.times, record.covariates, record.starts)
    n_diffuse = binding.initial.diffuse.shape[1] * record.n_series
    open_ones = [binding.n_open(column, of_output(posterior.scaled_noise, k)) for k, column in enumerate(y.T)]
    return int(sum(n_diffuse - n for n in open_ones))


def _joined(old, rows, chosen, y, noise):
    """A record with new rows in the order of time, and where they stand in it."""
    times = np.concatenate([old.times, rows.times[chosen]])
    order = np.argsort(times, kind="stable")
    covariates = np.concatenate([old.covariates, rows.covariates[chosen]])[order]
    values = np.concatenate([old.y, y])[order]
    if noise is not None or np.ndim(old.noise):
        # Where only one of them is known for each sample, the other is one number.
        if noise is None or old.noise is None:
            noise = old.noise if noise is None else noise
        noise = np.concatenate([_like(old.noise, old.y), _like(noise, y)])[order]
    else:
        noise = old.noise
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    return Record(times[order], covariates, values, noise), place[len(old.times) :]


def _weighted(estimation, theta, R, record, new, before, method):
    """The posterior given another record, with the weights that noise of another family gives its samples.

    Predictions from the past weigh each new sample by its own innovation, as a stream does, and the samples of `fit` as
    they were weighed there (``before``): what is predicted must not count on itself. Otherwise all are weighed anew.
    """
    process, _ = estimation.unpack(theta)
    family, arguments = estimation.family(theta), (record, estimation.scale, estimation.unit, estimation.backend)
    posterior = Posterior(process, R, *arguments)
    if family is None:
        return posterior
    binding, y, noise = posterior._binding(record.times, record.covariates), posterior.scaled_y, posterior.scaled_noise
    if method == "ahead":
        weights = np.ones(y.shape)
        weights[np.setdiff1d(np.arange(len(y)), new)] = before
        for k, column in enumerate(y.T):
            _weigh_in_turn(binding, column, noise[:, k], family, weights[:, k], np.sort(new))
        return Posterior(process, R, *arguments, weights)
    squares = np.column_stack([reweigh(binding, y[:, k], noise[:, k], family)[0] for k in range(y.shape[1])])
    return Posterior(process, R, *arguments, weights_at(family, squares))


def _weigh_in_turn(binding, y, noise, family, weights, new):
    """Write the weights of the new samples, each given those before it."""
    done, state = 0, None
    for t in new.tolist():
        if t > done:
            state = binding.part(done, t, state).filter_to_end(y[done:t], noise[done:t] / weights[done:t])
        one = binding.part(t, t + 1, state)
        result = one._call(kalman_filter, y[t : t + 1], noise[t : t + 1])
        error, total = float(result.innovation[0]), float(result.innovation_variance[0])
        if np.isfinite(error) and np.isfinite(total) and noise[t] > 0:
            weights[t] = sample_weight(family, error, max(total - noise[t], 0.0), noise[t])
        state, done = one.filter_to_end(y[t : t + 1], noise[t : t + 1] / weights[t]), t + 1


def _predicted(posterior, R, family, method):
    """What `anomaly_scores` returns, a dict of arrays of shape (n, m), for each sample of a posterior's record."""
    if method not in METHODS:
        raise ValueError(f"method must be 'ahead' or 'leave_one_out'. Got {method!r}.")
    with np.errstate(all="ignore"):
        if method == "ahead":
            error, total = innovations(posterior)
        else:
            found = disturbances(posterior)
            error, total = found.observation / found.observation_variance, 1 / found.observation_variance
        total = np.where(np.isfinite(total), total, np.inf)
        # What the filter took for noise is not the sample's own: an outlier would explain itself.
        variance = np.maximum(total - _like(posterior.noise, error), 0.0)
        known = np.isfinite(error) & np.isfinite(total) & (variance + R > 0)
        std = np.sqrt(variance + R * (1.0 if family is None else family.variance))
        log_density, p_value, score = np.full((3, *error.shape), np.nan)
        if family is None:
            score[known] = (error / std)[known]
            log_density[known] = norm.logpdf(score[known]) - np.log(std[known])
            p_value[known] = 2 * np.exp(log_ndtr(-np.abs(score[known])))
        else:
            log_density[known], p_value[known] = family.predictive(error[known], variance[known], R[known])
            score[known] = np.sign(error[known]) * norm.isf(p_value[known] / 2)
    expected = np.where(known, posterior.record.y - error, np.nan)
    return dict(zip(_COLUMNS, (expected, std, score, p_value, log_density), strict=True))


def _like(noise, y):
    """Noise variances as an ndarray of y's shape (n, m)."""
    return np.array(np.broadcast_to(np.reshape(noise, (-1, 1)) if np.ndim(noise) == 1 else noise, y.shape))


def _tests(e, lags, h, lost):
    """The tests of one series of innovations."""
    e = e[np.isfinite(e)]
    n = len(e)
    nothing = {"statistic": np.nan, "parameter": np.nan, "degrees_of_freedom": np.nan, "p_value": np.nan}
    rows = {name: dict(nothing) for name in ("ljung_box", "jarque_bera", "skewness", "kurtosis", "heteroscedasticity")}
    k = max(int(np.sqrt(n)), 1) if lags is None else lags
    if n > k:
        q = ljung_box(e, k, lost)
        rows["ljung_box"] = {
            "statistic": q.statistic, "parameter": k, "degrees_of_freedom": q.degrees_of_freedom, "p_value": q.p_value
        }  # fmt: skip
    if n >= 2:
        normal = jarque_bera(e)
        rows["jarque_bera"] |= {"statistic": normal.statistic, "degrees_of_freedom": 2, "p_value": normal.p_value}
        for name, value, center, variance in (
            ("skewness", normal.skewness, 0, 6 / n), ("kurtosis", normal.kurtosis, 3, 24 / n)
        ):  # fmt: skip
            p_value = 2 * norm.sf(abs(value - center) / np.sqrt(variance))
            rows[name] |= {"statistic": value, "p_value": p_value}
        if h is None or 2 * h <= n:
            ratio = heteroscedasticity(e, h)
            at = ratio.degrees_of_freedom[0]
            rows["heteroscedasticity"] = {
                "statistic": ratio.statistic, "parameter": at, "degrees_of_freedom": at, "p_value": ratio.p_value
            }  # fmt: skip
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="test"))
