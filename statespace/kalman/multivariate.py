"""Vector autoregressions and dynamic factors: explicit models whose free entries and start values follow from the data.

Above: user code. Below: `model`, whose ``fit`` learns the entries that are free.
"""

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from statespace.kalman.estimation import Objective
from statespace.kalman.free import Parameters, check_free
from statespace.kalman.maximum_likelihood import standard_errors as observed_errors
from statespace.kalman.model import LinearGaussianModel

_STARTS = ("stationary", "diffuse")
# The largest modulus of an eigenvalue at the start of a search that must stay stable.
_STABLE = 0.98


class Structured(LinearGaussianModel):
    """A model whose matrices are built when the number of series is known: in ``fit(y)``, or from given parameters."""

    def _observations(self, y):
        if "system_" not in self.__dict__:
            name = type(self).__name__
            raise NotFittedError(f"this {name} has no parameters yet: call fit(y), or with_params(…) for given ones.")
        return super()._observations(y)

    def fit(self, y, u=None, *, method="ml", max_iter=None, tolerance=None, standard_errors=True):
        """Maximum likelihood of all parameters.

        Parameters
        ----------
        y : array_like of shape (T, p), or list of those
            NaN where missing. Series may have any units: they are standardised for the search.
        u : None
            These models have no inputs.
        method : {"ml", "em"}, default="ml"
            As in `LinearGaussianModel`; "em" only with a diffuse start.
        max_iter, tolerance, standard_errors
            As in `LinearGaussianModel`.

        Returns
        -------
        self
        """
        records = [_table(record) for record in (y if isinstance(y, list | tuple) and np.ndim(y[0]) == 2 else [y])]
        p = records[0].shape[1]
        if any(record.shape[1] != p for record in records):
            raise ValueError(f"all records must have the same series: {p} in the first, another number later.")
        stacked = np.concatenate(records)
        if not np.isfinite(stacked).any(axis=0).all():
            empty = int(np.flatnonzero(~np.isfinite(stacked).any(axis=0))[0])
            raise ValueError(f"series {empty} of y has no observation.")
        centre, spread = np.nanmean(stacked, axis=0), np.nanstd(stacked, axis=0)
        centre = centre if self.trend is not None else np.zeros(p)
        spread = np.where(spread > 0.0, spread, 1.0)
        scaled = [(record - centre) / spread for record in records]
        self._build(self._start(scaled))
        super().fit(
            scaled, u, method=method, free=self._free(), max_iter=max_iter, tolerance=tolerance, standard_errors=False
        )
        self._take(self._unscaled(self.system_, centre, spread))
        value = sum(self.log_likelihood(record) for record in records)
        self.history_ = self.history_ + (value - self.log_likelihood_)
        self.log_likelihood_ = value
        free = check_free(self._free(), self.system_, self._varying, self._stationary)
        parameters = Parameters(free, self.system_)
        deviations = np.nan
        if standard_errors:
            given = [(record, None, self.system_.part(len(record))) for record in records]
            objective = Objective(parameters, given, self._settle)
            deviations = observed_errors(objective.gradient, parameters.start, parameters.natural)
        self.params_ = pd.DataFrame(
            {"estimate": parameters.natural(parameters.start), "standard_error": deviations}, index=parameters.names
        )
        return self

    def _build(self, arguments):
        """Become the model of these arguments."""
        LinearGaussianModel.__init__(self, **arguments, form=self.form)


def _table(y):
    if isinstance(y, pd.DataFrame | pd.Series):
        y = y.to_numpy(dtype=float, na_value=np.nan)
    y = np.asarray(y, dtype=float)
    y = y[:, np.newaxis] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) == 0 or np.isinf(y).any():
        raise ValueError(f"y must have shape (n_times, n_series) and be finite or NaN. Got shape {y.shape}.")
    return y


def _companion(coefficients):
    """The transition of (x_t, …, x_{t−p+1}) for coefficients (p, k, k)."""
    order, k, _ = coefficients.shape
    A = np.eye(order * k, k=-k)
    A[:k] = np.concatenate(list(coefficients), axis=1)
    return A


def _regression(records, order, k, intercept):
    """Coefficients (order, k, k) and the covariance of the residuals by least squares on the complete stretches."""
    rows, targets = [], []
    for y in records:
        lagged = [y[order - lag : len(y) - lag] for lag in range(1, order + 1)]
        rows.append(
            np.column_stack([*lagged, np.ones(max(len(y) - order, 0))])
            if len(y) > order
            else np.zeros((0, order * k + 1))
        )
        targets.append(y[order:])
    X, Y = np.concatenate(rows), np.concatenate(targets)
    complete = np.isfinite(X).all(axis=1) & np.isfinite(Y).all(axis=1)
    X, Y = X[complete], Y[complete]
    X = X if intercept else X[:, :-1]
    if len(X) <= X.shape[1] + k:
        return np.zeros((order, k, k)), np.zeros(k), np.eye(k)
    weights = np.linalg.lstsq(X, Y, rcond=1e-10)[0]
    rest = Y - X @ weights
    coefficients = weights[: order * k].T.reshape(k, order, k).transpose(1, 0, 2)
    return coefficients, weights[-1] if intercept else np.zeros(k), rest.T @ rest / len(rest) + 1e-8 * np.eye(k)


def _stabilised(coefficients):
    """Coefficients with all eigenvalues drawn inside the unit circle."""
    largest = np.abs(np.linalg.eigvals(_companion(coefficients))).max()
    shrink = min(1.0, _STABLE / max(largest, 1e-300))
    return coefficients * shrink ** np.arange(1, len(coefficients) + 1)[:, np.newaxis, np.newaxis]


def _check(order, start, form):
    if not isinstance(order, int | np.integer) or order < 1:
        raise ValueError(f"order must be an integer, at least 1. Got {order!r}.")
    if start not in _STARTS:
        raise ValueError(f"start must be one of {_STARTS}. Got {start!r}.")
    if form not in ("covariance", "square_root"):
        raise ValueError(f"form must be 'covariance' or 'square_root'. Got {form!r}.")


def vector_autoregression(order, *, trend="c", measurement_noise=False, start="stationary", form="covariance"):
    """A vector autoregression, seen with or without noise, as a `LinearGaussianModel` that ``fit(y)`` learns.

    Parameters
    ----------
    order : int
    trend : {"c", None}, default="c"
        Whether the process has an intercept.
    measurement_noise : bool, default=False
        Whether each series is seen with noise of its own.
    start : {"stationary", "diffuse"}, default="stationary"
        "stationary" counts all observations and keeps the process stable; "diffuse" also takes unit roots.
    form : {"covariance", "square_root"}, default="covariance"

    Returns
    -------
    VectorAutoregression

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import vector_autoregression
    >>> y = np.random.default_rng(0).normal(size=(100, 2))
    >>> vector_autoregression(1).fit(y).coefficients_.shape
    (1, 2, 2)
    """
    return VectorAutoregression(order, trend=trend, measurement_noise=measurement_noise, start=start, form=form)


class VectorAutoregression(Structured):
    """What `vector_autoregression` returns: y_t = x_t + ε_t, x_t = c + Φ₁x_{t−1} + … + Φ_p x_{t−p} + w_t.

    Parameters
    ----------
    order, trend, measurement_noise, start, form
        See `vector_autoregression`.

    Attributes
    ----------
    coefficients_ : ndarray of shape (order, k, k)
        Φ₁ … Φ_p.
    intercept_ : ndarray of shape (k,)
        c.
    covariance_ : ndarray of shape (k, k)
        Of w.
    params_, log_likelihood_, history_, converged_
        As in `LinearGaussianModel`.

    References
    ----------
    Lütkepohl (2005), "New Introduction to Multiple Time Series Analysis", chapters 3 and 18.

    Examples
    --------
    >>> from statespace.kalman import vector_autoregression
    >>> model = vector_autoregression(1, trend=None).with_params([[[0.5, 0.0], [0.1, 0.4]]], [[1.0, 0.0], [0.0, 1.0]])
    >>> round(model.log_likelihood([[1.0, 0.0], [0.5, 0.5]]), 6)
    -4.371139
    """

    def __init__(self, order, *, trend="c", measurement_noise=False, start="stationary", form="covariance"):
        _check(order, start, form)
        if trend not in (None, "c"):
            raise ValueError(f"trend must be None or 'c'. Got {trend!r}.")
        self.order, self.trend, self.measurement_noise, self.start, self.form = (
            order,
            trend,
            measurement_noise,
            start,
            form,
        )

    def with_params(self, coefficients, covariance, *, intercept=None, noise_variance=None):
        """The same model at given parameters.

        Parameters
        ----------
        coefficients : array_like of shape (order, k, k)
        covariance : array_like of shape (k, k)
        intercept : array_like of shape (k,), optional
        noise_variance : array_like of shape (k,), optional

        Returns
        -------
        VectorAutoregression
        """
        coefficients = np.asarray(coefficients, dtype=float)
        if coefficients.ndim != 3 or len(coefficients) != self.order or coefficients.shape[1] != coefficients.shape[2]:
            raise ValueError(f"coefficients must have shape ({self.order}, k, k). Got {coefficients.shape}.")
        k = coefficients.shape[1]
        result = VectorAutoregression(
            self.order, trend=self.trend, measurement_noise=self.measurement_noise, start=self.start, form=self.form
        )
        noise = np.zeros(k) if noise_variance is None else np.asarray(noise_variance, dtype=float)
        result._build(
            result._arguments(coefficients, np.zeros(k) if intercept is None else intercept, covariance, noise)
        )
        return result

    def _settings(self):
        names = ("order", "trend", "measurement_noise", "start", "form")
        return {name: getattr(self, name) for name in names}

    def _arguments(self, coefficients, intercept, covariance, noise):
        k = len(covariance)
        n = k * self.order
        return {
            "transition": _companion(coefficients), "observation": np.eye(k, n), "process_noise": covariance,
            "observation_noise": np.diag(noise), "selection": np.eye(n, k), "initial_covariance": self.start,
            "state_intercept": np.append(intercept, np.zeros(n - k)),
        }  # fmt: skip

    def _start(self, records):
        k = records[0].shape[1]
        coefficients, intercept, covariance = _regression(records, self.order, k, self.trend is not None)
        if self.start == "stationary":
            coefficients = _stabilised(coefficients)
        noise = 0.1 * np.diag(covariance) if self.measurement_noise else np.zeros(k)
        return self._arguments(coefficients, intercept, covariance - np.diag(0.5 * noise), noise)

    def _free(self):
        n, k = self.system_.n_states, self.system_.n_outputs
        top = np.arange(n) < k
        free: dict = {"transition": np.repeat(top[:, np.newaxis], n, axis=1), "process_noise": True}
        if self.trend is not None:
            free["state_intercept"] = top
        if self.measurement_noise:
            free["observation_noise"] = "diagonal"
        return free

    def _unscaled(self, system, centre, spread):
        k = len(spread)
        scale = np.tile(spread, self.order)
        A = system.transition * (scale[:, np.newaxis] / scale)
        c = system.state_intercept[0] * scale
        if self.trend is not None:
            c[:k] += centre - A[0, :k] @ np.tile(centre, self.order)
        return system._replace(
            transition=A, state_intercept=c[np.newaxis],
            process_noise=system.process_noise * np.outer(spread, spread),
            observation_noise=system.observation_noise * np.outer(spread, spread),
        )  # fmt: skip

    @property
    def coefficients_(self):
        """ndarray of shape (order, k, k): Φ₁ … Φ_p."""
        k = self.system_.n_outputs
        return self.system_.transition[0, :k].reshape(k, self.order, k).transpose(1, 0, 2)

    @property
    def intercept_(self):
        """ndarray of shape (k,): c."""
        return self.system_.state_intercept[0, : self.system_.n_outputs]

    @property
    def covariance_(self):
        """ndarray of shape (k, k): that of the innovations w."""
        return self.system_.process_noise[0]


def dynamic_factor(n_factors, order=1, *, error_order=0, trend="c", start="stationary", form="covariance"):
    """Series that share a few autoregressive factors, as a `LinearGaussianModel` that ``fit(y)`` learns.

    Parameters
    ----------
    n_factors : int
    order : int, default=1
        Of the factors' vector autoregression.
    error_order : int, default=0
        Of the autoregression of what is each series' own; 0 is white noise.
    trend : {"c", None}, default="c"
        Whether the series have means.
    start : {"stationary", "diffuse"}, default="stationary"
    form : {"covariance", "square_root"}, default="covariance"

    Returns
    -------
    DynamicFactor

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import dynamic_factor
    >>> rng = np.random.default_rng(0)
    >>> y = np.outer(rng.normal(size=100).cumsum() / 5, [1.0, 2.0, -1.0]) + rng.normal(size=(100, 3))
    >>> dynamic_factor(1).fit(y).loadings_.shape
    (3, 1)
    """
    return DynamicFactor(n_factors, order, error_order=error_order, trend=trend, start=start, form=form)


class DynamicFactor(Structured):
    """What `dynamic_factor` returns: y_t = μ + Λ f_t + e_t, f_t = Φ₁f_{t−1} + … + η_t with η_t ~ N(0, I).

    e_i is white, or an autoregression of its own. The factors are told apart by Λ being lower triangular: series j
    loads on the first j factors only. Order the series so that the first ones stand for the factors.

    Parameters
    ----------
    n_factors, order, error_order, trend, start, form
        See `dynamic_factor`.

    Attributes
    ----------
    loadings_ : ndarray of shape (p, n_factors)
        Λ.
    params_, log_likelihood_, history_, converged_
        As in `LinearGaussianModel`.

    References
    ----------
    Geweke (1977); Stock & Watson (1991); Durbin & Koopman (2012), section 3.7.

    Examples
    --------
    >>> from statespace.kalman import dynamic_factor
    >>> model = dynamic_factor(1).with_params([[1.0], [0.5]], [[[0.7]]], [0.5, 0.5])
    >>> round(model.log_likelihood([[1.0, 0.0], [0.5, 0.5]]), 6)
    -4.249853
    """

    def __init__(self, n_factors, order=1, *, error_order=0, trend="c", start="stationary", form="covariance"):
        _check(order, start, form)
        if not isinstance(n_factors, int | np.integer) or n_factors < 1:
            raise ValueError(f"n_factors must be an integer, at least 1. Got {n_factors!r}.")
        if not isinstance(error_order, int | np.integer) or error_order < 0:
            raise ValueError(f"error_order must be an integer, not negative. Got {error_order!r}.")
        if trend not in (None, "c"):
            raise ValueError(f"trend must be None or 'c'. Got {trend!r}.")
        self.n_factors, self.order, self.error_order = n_factors, order, error_order
        self.trend, self.start, self.form = trend, start, form

    def with_params(self, loadings, coefficients, variances, *, error_coefficients=(), intercept=None):
        """The same model at given parameters.

        Parameters
        ----------
        loadings : array_like of shape (p, n_factors)
        coefficients : array_like of shape (order, n_factors, n_factors)
        variances : array_like of shape (p,)
            Of e, or of what drives its autoregression.
        error_coefficients : array_like of shape (error_order, p), optional
        intercept : array_like of shape (p,), optional
            μ.

        Returns
        -------
        DynamicFactor
        """
        loadings, coefficients = np.asarray(loadings, dtype=float), np.asarray(coefficients, dtype=float)
        variances = np.asarray(variances, dtype=float)
        p = len(variances)
        if loadings.shape != (p, self.n_factors) or coefficients.shape != (self.order, self.n_factors, self.n_factors):
            raise ValueError(
                f"loadings must have shape ({p}, {self.n_factors}) and coefficients ({self.order}, {self.n_factors}, "
                f"{self.n_factors}). Got {loadings.shape} and {coefficients.shape}."
            )
        own = np.reshape(np.asarray(error_coefficients, dtype=float), (-1, p))
        if len(own) != self.error_order:
            raise ValueError(f"error_coefficients must have shape ({self.error_order}, {p}). Got {own.shape}.")
        result = DynamicFactor(
            self.n_factors, self.order, error_order=self.error_order, trend=self.trend, start=self.start, form=self.form
        )
        result._build(
            result._arguments(loadings, coefficients, variances, own, np.zeros(p) if intercept is None else intercept)
        )
        return result

    def _settings(self):
        names = ("n_factors", "order", "error_order", "trend", "start", "form")
        return {name: getattr(self, name) for name in names}

    def _arguments(self, loadings, coefficients, variances, own, intercept):
        p, k = loadings.shape
        m, e = k * self.order, p * self.error_order
        A, G, H = np.zeros((m + e, m + e)), np.eye(m + e, k), np.zeros((p, m + e))
        A[:m, :m] = _companion(coefficients)
        H[:, :k] = loadings
        Q, R = np.eye(k), np.diag(variances)
        if e:
            A[m:, m:] = _companion(np.array([np.diag(row) for row in own]))
            H[:, m : m + p] = np.eye(p)
            G = np.column_stack([G, np.eye(m + e, p, k=-m)])
            Q, R = np.diag(np.append(np.ones(k), variances)), np.zeros((p, p))
        return {
            "transition": A, "observation": H, "process_noise": Q, "observation_noise": R, "selection": G,
            "observation_intercept": intercept, "initial_covariance": self.start,
        }  # fmt: skip

    def _start(self, records):
        """Principal components of the standardised series, rotated so that the loadings are lower triangular."""
        y = np.concatenate(records)
        p, k = y.shape[1], self.n_factors
        if p < k:
            raise ValueError(f"{k} factors need at least as many series. Got {p}.")
        filled = np.nan_to_num(y)
        _, _, directions = np.linalg.svd(filled, full_matrices=False)
        loadings = directions[:k].T
        factors = filled @ loadings
        rotation, _ = np.linalg.qr(loadings[:k].T)
        loadings, factors = loadings @ rotation, factors @ rotation
        cuts = np.cumsum([len(record) for record in records])[:-1]
        coefficients, _, covariance = _regression(np.split(factors, cuts), self.order, k, False)
        # unit innovations: one scale for each factor keeps the zeros of the loadings
        scale = np.sqrt(np.diag(covariance))
        coefficients = _stabilised(coefficients * (scale / scale[:, np.newaxis]))
        loadings = np.tril(loadings * scale)
        rest = y - factors / scale @ loadings.T
        variances = np.maximum(np.nanvar(rest, axis=0), 0.05)
        own = np.zeros((self.error_order, p))
        return self._arguments(loadings, coefficients, variances, own, np.zeros(p))

    def _free(self):
        n, p, k = self.system_.n_states, self.system_.n_outputs, self.n_factors
        m = k * self.order
        A, H = np.zeros((n, n), bool), np.zeros((p, n), bool)
        A[:k, :m] = True
        H[:, :k] = np.tril(np.ones((p, k), bool))
        free: dict = {"transition": A, "observation": H}
        if self.error_order:
            for lag in range(self.error_order):
                A[m + np.arange(p), m + lag * p + np.arange(p)] = True
            free["process_noise"] = np.arange(k + p) >= k
        else:
            free["observation_noise"] = "diagonal"
        if self.trend is not None:
            free["observation_intercept"] = True
        return free

    def _unscaled(self, system, centre, spread):
        k = self.n_factors
        m = k * self.order
        H, Q = system.observation.copy(), system.process_noise.copy()
        H[0, :, :m] *= spread[:, np.newaxis]
        if self.error_order:
            Q[0, k:, k:] *= np.outer(spread, spread)
        # a factor's sign is free: the series that stands for it loads on it positively
        sign = np.where(np.diag(H[0, :k, :k]) < 0.0, -1.0, 1.0)
        H[0, :, :k] *= sign
        A = system.transition.copy()
        A[0, :k, :m] *= np.outer(sign, np.tile(sign, self.order))
        d = system.observation_intercept * spread + centre
        return system._replace(
            transition=A, observation=H, process_noise=Q, observation_intercept=d,
            observation_noise=system.observation_noise * np.outer(spread, spread),
        )  # fmt: skip

    @property
    def loadings_(self):
        """ndarray of shape (p, n_factors): Λ."""
        return self.system_.observation[0, :, : self.n_factors]
