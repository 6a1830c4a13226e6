"""Whether a fitted regressor fits: standardised innovations and their tests, information criteria, shocks, outliers."""

import numpy as np
import pandas as pd
from scipy.special import log_ndtr
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from statespace.filtering.noise import check_noise
from statespace.filtering.summary import Summary
from statespace.kalman.diagnostics import heteroscedasticity, jarque_bera, ljung_box
from statespace.kalman.disturbances import disturbances, innovations
from statespace.kalman.posterior import Posterior, Record, of_output
from statespace.kalman.robust import reweigh, weights_at
from statespace.kalman.rows import read, read_targets

METHODS = ("ahead", "leave_one_out")


class Diagnosis:
    """What `statespace.KalmanRegressor` says about its own fit."""

    # Information criteria.

    @property
    def n_estimated_(self):
        """The number of estimated quantities: the fitted parameters, and each diffuse direction that the data closed.

        The convention of Durbin & Koopman (2012, section 7.4): w parameters and q diffuse initial elements; of several
        outputs or series q counts each one's own.
        """
        check_is_fitted(self)
        fitted = len(self.theta_) if self.optimizer is not None else 0
        return fitted + self._n_closed()

    def _n_closed(self):
        posterior, record = self._posterior(), self._record
        binding, y = posterior._binding(record.times, record.covariates, record.starts), posterior.scaled_y
        n_diffuse = binding.initial.diffuse.shape[1] * record.n_series
        open_ones = [binding.n_open(column, of_output(posterior.scaled_noise, k)) for k, column in enumerate(y.T)]
        return int(sum(n_diffuse - n for n in open_ones))

    @property
    def n_observed_(self):
        """The number of observed samples."""
        check_is_fitted(self)
        return int(np.isfinite(self._record.y).sum())

    @property
    def aic_(self):
        """Akaike's information criterion, −2 log L + 2k with k = ``n_estimated_``."""
        return 2 * (self.n_estimated_ - self.log_marginal_likelihood_value_)

    @property
    def aicc_(self):
        """AIC + 2k (k + 1) / (n − k − 1), Akaike's criterion for short series; infinite for n ≤ k + 1."""
        n, k = self.n_observed_, self.n_estimated_
        return self.aic_ + (2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf)

    @property
    def bic_(self):
        """Schwarz' criterion, −2 log L + k log n with n = ``n_observed_``."""
        return self.n_estimated_ * np.log(self.n_observed_) - 2 * self.log_marginal_likelihood_value_

    @property
    def hqic_(self):
        """Hannan and Quinn's criterion, −2 log L + 2k log log n."""
        n = max(self.n_observed_, 3)
        return 2 * self.n_estimated_ * np.log(np.log(n)) - 2 * self.log_marginal_likelihood_value_

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
            In the order of `fit`. NaN where y is missing or the others leave it open. With Student-t or Huber noise,
            the normal quantile of the error's place in its predictive distribution.
        """
        table = self._predicted(self._posterior(), self._nominal(self._record), method)
        return self._shaped(self._in_order(table["score"]))

    def anomaly_scores(self, X=None, y=None, noise_variance=None, *, method="ahead", from_prior=False):
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
            table = self._predicted(self._posterior(), self._nominal(self._record), method)
            asked, index = self._in_order, pd.Index(self._in_order(self._record.times), name="time")
        else:
            rows = read(X, self, reset=False)
            record, place = self._joined(rows, y, noise_variance, from_prior)
            posterior = Posterior(
                self.process_, self._nominal(record), record, self._estimation.scale, self.time_unit, self.backend
            )
            table = self._predicted(self._weighted(posterior), posterior.noise, method)
            asked, index = (lambda column: column[place]), rows.index
        tables = [
            pd.DataFrame({name: asked(column)[:, k] for name, column in table.items()}, index=index)
            for k in range(self._record.y.shape[1])
        ]
        return tables[0] if self._single else pd.concat(dict(enumerate(tables)), axis=1)

    def _in_order(self, column):
        """What belongs to the record's samples, in the order of `fit`."""
        result = np.empty_like(column)
        result[self._order] = column
        return result

    def _nominal(self, record):
        """The noise variance R of a record's samples, an ndarray of shape (n, m)."""
        R = self._estimation.unpack(self.theta_)[1] if record.noise is None else record.noise
        return _like(R, record.y)

    def _joined(self, rows, y, noise_variance, from_prior):
        """The record with new rows, which take the place of those at the same times, and where they stand in it."""
        old = self._record
        if old.starts is not None:
            raise ValueError("anomaly_scores takes no new rows where fit was given several series. Leave X out.")
        y = read_targets(y, len(rows.times))
        if (y.ndim == 1) != self._single or y.reshape(len(y), -1).shape[1] != old.y.shape[1]:
            raise ValueError(f"y must have {old.y.shape[1]} outputs, as in fit. Got an array of shape {y.shape}.")
        if old.noise is None or np.ndim(old.noise) == 0:
            known = old.noise if noise_variance is None else check_noise(noise_variance, len(y))
        elif noise_variance is None:
            raise ValueError("noise_variance is needed for new samples: fit was given that of each known sample only.")
        else:
            known = check_noise(noise_variance, len(y))
        kept = np.zeros(len(old.times), dtype=bool) if from_prior else ~np.isin(old.times, rows.times)
        times = np.concatenate([old.times[kept], rows.times])
        order = np.argsort(times, kind="stable")
        noise = known
        if np.ndim(known) or np.ndim(old.noise):
            R = np.ravel(self._nominal(old)[:, 0])
            noise = np.concatenate([R[kept], np.broadcast_to(self.noise_variance_ if known is None else known, len(y))])
            noise = noise[order]
        covariates = np.concatenate([old.covariates[kept], rows.covariates])[order]
        values = np.concatenate([old.y[kept], y.reshape(len(y), -1)])[order]
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        return Record(times[order], covariates, values, noise), place[kept.sum() :]

    def _weighted(self, posterior):
        """With the weights that noise of another family gives the samples."""
        family = self._estimation.family(self.theta_)
        if family is None:
            return posterior
        record, noise = posterior.record, posterior.scaled_noise
        binding, y = posterior._binding(record.times, record.covariates, record.starts), posterior.scaled_y
        squares = np.column_stack([reweigh(binding, y[:, k], noise[:, k], family)[0] for k in range(y.shape[1])])
        return Posterior(
            posterior.process, posterior.noise / weights_at(family, squares), record, posterior.scale, posterior.unit,
            posterior.backend,
        )  # fmt: skip

    def _predicted(self, posterior, R, method):
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
            family = self._estimation.family(self.theta_)
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
        columns = {"expected": expected, "std": std, "score": score, "p_value": p_value, "log_density": log_density}
        return columns

    def auxiliary_residuals(self):
        """Smoothed disturbances over their standard deviations: outliers and breaks (Durbin & Koopman 2012, 2.12.2).

        Returns
        -------
        DataFrame
            A row for each sample of `fit`, in the order of time. ``observation`` is the t-statistic of an outlier,
            u/√D: the error of the sample given all others. The columns of the states are the t-statistics of a shock
            to that state at that time, r/√N (de Jong & Penzer 1998): a shift of a level, a bend of a slope. NaN where
            y is missing or the data cannot tell. Of several outputs, one such table beside the other.
        """
        check_is_fitted(self)
        found, record = disturbances(self._posterior()), self._record
        with np.errstate(all="ignore"):
            usable = found.state_variance > 1e-12 * np.nanmax(found.state_variance, axis=0, keepdims=True)
            states = np.where(usable, found.state / np.sqrt(found.state_variance), np.nan)
            observation = found.observation / np.sqrt(found.observation_variance)
        names, index = self.state_names(), pd.Index(record.times, name="time")
        tables = [
            pd.DataFrame({"observation": observation[:, k]} | dict(zip(names, states[:, :, k].T, strict=True)), index)
            for k in range(record.y.shape[1])
        ]
        return tables[0] if self._single else pd.concat(dict(enumerate(tables)), axis=1)

    def state_names(self):
        """list of str: a name for each state, the component's with what it is or its number."""
        check_is_fitted(self)
        names = []
        for name, component in self.process_.named():
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
        record = self._record
        scores = self._predicted(self._posterior(), self._nominal(record), "ahead")["score"]
        lost = max(len(self.theta_) - 1, 0) if self.optimizer is not None else 0
        series = record.series
        tables = {
            (i, k): _tests(scores[series == i, k], lags, h, lost)
            for i in range(record.n_series)
            for k in range(scores.shape[1])
        }
        if len(tables) == 1:
            return tables[0, 0]
        return pd.concat(tables, names=["series", "output", "test"])

    def final_states(self):
        """The state at the last time, given all of the data, in the data's units.

        Returns
        -------
        DataFrame
            A row for each state; columns ``mean`` and ``std``, which is infinite where the data leave it open. Of
            several outputs or series, one such table below the other.
        """
        check_is_fitted(self)
        posterior, record = self._posterior(), self._record
        plain = posterior.scale._replace(value=1.0, time=1.0, covariates=np.ones_like(posterior.scale.covariates))
        tables = {}
        for i in range(record.n_series):
            samples = slice(None) if record.starts is None else slice(*record.starts[i : i + 2])
            noise = posterior.noise[samples] if np.ndim(posterior.noise) else posterior.noise
            own = Posterior(self.process_, noise, record.take(samples), plain, self.time_unit, self.backend)
            # The states themselves are wanted, with the level that y has.
            own.level, own.offset = None, np.zeros_like(own.offset)
            for k, state in enumerate(own.last_states()):
                spread = np.abs(state.diffuse).max(axis=1, initial=0.0)
                std = np.where(spread > 1e-9, np.inf, np.sqrt(np.maximum(np.diag(state.covariance), 0.0)))
                index = pd.Index(self.state_names(), name="state")
                tables[i, k] = pd.DataFrame({"mean": state.mean, "std": std}, index=index)
        return tables[0, 0] if len(tables) == 1 else pd.concat(tables, names=["series", "output"])

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
