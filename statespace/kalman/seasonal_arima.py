"""Seasonal autoregressive integrated moving averages, with exactly diffuse differencing, regressors and missing values.

    φ(L) Φ(L^s) (1 − L)^d (1 − L^s)^D (y_t − x_t·β) = θ(L) Θ(L^s) ε_t,   ε_t ~ N(0, σ²),

φ(L) = 1 − φ₁L − …, θ(L) = 1 + θ₁L + …. The state is Harvey's form of the stationary part, then the last d + sD values
of y, which start exactly diffuse. Above: user code. Below: `model`, `sequential`.
"""

from math import factorial, log, pi

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from statespace.forms import as_floats
from statespace.kalman.arima_likelihood import ArimaLikelihood, coefficients_to_partial
from statespace.kalman.estimation import warn_not_converged
from statespace.kalman.maximum_likelihood import climb
from statespace.kalman.model import LinearGaussianModel
from statespace.kalman.system import System

_PARTS = ("ar", "ma", "seasonal_ar", "seasonal_ma")


def _polynomial(coefficients, sign, step=1):
    """1 + sign (c₁ L^step + c₂ L^{2 step} + …), ascending."""
    result = np.zeros(len(coefficients) * step + 1, dtype=coefficients.dtype)
    result[0] = 1.0
    result[step::step] = sign * coefficients
    return result


def arima(order, seasonal_order=(0, 0, 0, 0), *, trend=None, differencing="exact", form="covariance"):
    """A seasonal ARIMA model, as a `LinearGaussianModel` whose parameters are learned by ``fit(y)``.

        φ(L) Φ(Lˢ) (1 − L)ᵈ (1 − Lˢ)ᴰ (y_t − β'u_t) = θ(L) Θ(Lˢ) ε_t,   ε_t ~ N(0, σ²),   L y_t = y_{t−1},

    with φ(L) = 1 − φ₁L − … − φ_pLᵖ and Φ of order P, θ(L) = 1 + θ₁L + … + θ_qL^q and Θ of order Q, kept stationary and
    invertible by their partial autocorrelations.

    Parameters
    ----------
    order : (p, d, q)
    seasonal_order : (P, D, Q, s), default=(0, 0, 0, 0)
        s is the period in samples.
    trend : {None, "c"}, default=None
        "c": the differenced series has a mean; y itself has a constant (d + D = 0), a drift (1), …
    differencing : {"exact", "simple"}, default="exact"
        What `fit` does with missing values. "exact" keeps every observation, by a diffuse state for each difference.
        "simple" differences the record first, which loses those that stand d + sD samples after a missing one.
        Without missing values both are the same.
    form : {"covariance", "square_root"}, default="covariance"
        As in `LinearGaussianModel`.

    Returns
    -------
    Arima

    Raises
    ------
    ValueError
        If orders are no integers ≥ 0 or the period is below 2; in `fit`, for a record that is constant or has too few
        observations.

    References
    ----------
    Box & Jenkins (1976), "Time Series Analysis: Forecasting and Control", chapter 9; Durbin & Koopman (2012), section
    3.4; Monahan (1984) for the partial autocorrelations.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import arima
    >>> y = np.random.default_rng(0).normal(size=200).cumsum()
    >>> model = arima((0, 1, 1)).fit(y)
    >>> model.forecast(y, steps=3).mean.shape
    (3, 1)
    """
    return Arima(order, seasonal_order, trend=trend, differencing=differencing, form=form)


class Arima(LinearGaussianModel):
    """What `arima` returns: the methods of `LinearGaussianModel`, in the units of y, with regressors as ``u``.

    The log-likelihood is that of the differenced record, as is the custom: the first d + sD observations, which resolve
    the diffuse state, are not counted. In the full convention of `LinearGaussianModel` each would add −½ log 2π.

    Parameters
    ----------
    order, seasonal_order, trend, differencing, form
        See `arima`.

    Attributes
    ----------
    params_ : DataFrame
        Estimates and standard errors of β (``trend``, ``u[0]`` …), ``ar[1]`` …, ``ma[1]`` …, ``seasonal_ar[1]`` …,
        ``seasonal_ma[1]`` … and ``variance``.
    log_likelihood_, history_, converged_, aic_, aicc_, bic_, hqic_
        As in `LinearGaussianModel`; ``log_likelihood_`` is that of the record of `fit`.
    n_observed_, n_estimated_ : int
        The observations that the likelihood counts, those that resolve the diffuse state left out; the parameters.

    References
    ----------
    Durbin & Koopman (2012), section 3.4; Harvey (1989), "Forecasting, structural time series models and the Kalman
    filter"; Ansley & Kohn (1985) on diffuse differencing.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import arima
    >>> model = arima((1, 0, 0)).with_params(ar=[0.5], variance=2.0)
    >>> round(model.log_likelihood([1.0, 0.5, np.nan, -0.2]), 6)
    -4.260574
    """

    def __init__(self, order, seasonal_order=(0, 0, 0, 0), *, trend=None, differencing="exact", form="covariance"):
        for name, value, count in (("order", order, 3), ("seasonal_order", seasonal_order, 4)):
            if len(value) != count or any(not isinstance(k, int | np.integer) or k < 0 for k in value):
                raise ValueError(f"{name} must hold {count} integers, none negative. Got {value!r}.")
        if any(seasonal_order[:3]) and seasonal_order[3] < 2:
            raise ValueError(f"the period of seasonal_order must be at least 2 samples. Got {seasonal_order!r}.")
        if trend not in (None, "c"):
            raise ValueError(f"trend must be None or 'c'. Got {trend!r}.")
        if differencing not in ("exact", "simple"):
            raise ValueError(f"differencing must be 'exact' or 'simple'. Got {differencing!r}.")
        if form not in ("covariance", "square_root"):
            raise ValueError(f"form must be 'covariance' or 'square_root'. Got {form!r}.")
        self.order, self.seasonal_order, self.trend = tuple(order), tuple(seasonal_order), trend
        self.differencing, self.form = differencing, form
        self._varying, self._stationary, self._centred, self._inputs = frozenset(), True, True, trend is not None
        p, d, q = order
        P, D, Q, s = seasonal_order
        self._sizes = dict(zip(_PARTS, (p, q, P, Q), strict=True))
        difference = np.array([1.0])
        for step, times in ((1, d), (s, D)):
            for _ in range(times):
                difference = np.convolve(difference, _polynomial(np.ones(1), -1.0, step))
        self._difference = difference
        self._constant = 0.5 * (len(difference) - 1) * log(2.0 * pi)

    # The model at given parameters.

    def with_params(self, *, ar=(), ma=(), seasonal_ar=(), seasonal_ma=(), variance, regression=()):
        """The same model at given parameters.

        Parameters
        ----------
        ar, ma, seasonal_ar, seasonal_ma : array_like
            φ, θ, Φ, Θ of the orders of the model; their roots must lie outside the unit circle.
        variance : float
            σ².
        regression : array_like, optional
            β: that of the trend first, where there is one, then one for each column of ``u``.

        Returns
        -------
        Arima
        """
        given = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in
                 zip(_PARTS, (ar, ma, seasonal_ar, seasonal_ma), strict=True)}  # fmt: skip
        for name, value in given.items():
            if value.shape != (self._sizes[name],):
                raise ValueError(f"{name} must have shape ({self._sizes[name]},). Got {value.shape}.")
            coefficients_to_partial(value if name.endswith("ar") else -value)
        if not variance > 0.0:
            raise ValueError(f"variance must be above 0. Got {variance}.")
        beta = np.atleast_1d(np.asarray(regression, dtype=float))
        if len(beta) < (self.trend is not None):
            raise ValueError("regression must begin with the coefficient of the trend.")
        result = Arima(
            self.order, self.seasonal_order, trend=self.trend, differencing=self.differencing, form=self.form
        )
        result._inputs = len(beta) > 0
        result._take(result._whole(*result._lags(**given), float(variance), beta))
        return result

    def _lags(self, ar, ma, seasonal_ar, seasonal_ma):
        """The coefficients of the products φ(L)Φ(L^s) and θ(L)Θ(L^s) from lag 1 on."""
        s = self.seasonal_order[3]
        left = np.convolve(_polynomial(ar, -1.0), _polynomial(seasonal_ar, -1.0, s or 1))
        right = np.convolve(_polynomial(ma, 1.0), _polynomial(seasonal_ma, 1.0, s or 1))
        return -left[1:], right[1:]

    def _stationary_part(self, phi, theta, variance):
        """The system of the differenced record, without regressors."""
        r = max(len(phi), len(theta) + 1)
        A, load = np.eye(r, k=1), np.zeros(r)
        A[: len(phi), 0] = phi
        load[0] = 1.0
        load[1 : len(theta) + 1] = theta
        H = np.zeros((1, 1, r))
        H[0, 0, 0] = 1.0
        return System(
            A[np.newaxis], H, variance * np.outer(load, load)[np.newaxis], np.zeros((1, 1, 1)), np.zeros((1, r)),
            np.zeros((1, 1)), np.zeros((1, r, 0)), np.zeros((1, 1, 0)), None, None, np.zeros(r), np.zeros((r, r)),
            np.zeros((r, 0)), r,
        )  # fmt: skip

    def _whole(self, phi, theta, variance, beta):
        """The system of y: the stationary part, then the last values of y."""
        part = self._stationary_part(phi, theta, variance)
        r, m = part.n_states, len(self._difference) - 1
        n = r + m
        A, Q, H = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n)
        A[:r, :r], Q[:r, :r] = part.transition[0], part.process_noise[0]
        H[0], H[r:] = 1.0, -self._difference[1:]
        if m:
            A[r] = H
            A[r + 1 :, r:-1] = np.eye(m - 1)
        return part._replace(
            transition=A[np.newaxis], process_noise=Q[np.newaxis], observation=H[np.newaxis, np.newaxis],
            state_intercept=np.zeros((1, n)), input_matrix=np.zeros((1, n, len(beta))),
            feedthrough=beta[np.newaxis, np.newaxis], initial_mean=np.zeros(n), initial_covariance=np.zeros((n, n)),
            initial_diffuse=np.eye(n)[:, r:],
        )  # fmt: skip

    def _settings(self):
        names = ("order", "seasonal_order", "trend", "differencing", "form")
        return {name: getattr(self, name) for name in names}

    # Records: the trend is a regressor that the user does not see.

    def _observations(self, y):
        if "system_" not in self.__dict__:
            raise NotFittedError("this Arima has no parameters yet: call fit(y), or with_params(…) for given ones.")
        return super()._observations(y)

    def _record(self, y, u):
        y = self._observations(y)
        k = self.system_.n_inputs - (self.trend is not None)
        if u is not None and k == 0:
            raise ValueError("u was given, but the model has no regressors: give them to fit as well.")
        if u is None and k > 0:
            raise ValueError(f"the model has regressors: give u of shape ({len(y)}, {k}).")
        return super()._record(y, self._regressors(len(y), u))

    def _regressors(self, n_times, u):
        columns = []
        if self.trend is not None:
            power = self.order[1] + self.seasonal_order[1]
            # of which the differences are 1
            scale = factorial(power) * float(max(self.seasonal_order[3], 1)) ** self.seasonal_order[1]
            columns.append(np.arange(1.0, n_times + 1.0)[:, np.newaxis] ** power / scale)
        if u is not None:
            u = np.asarray(u, dtype=float)
            u = u[:, np.newaxis] if u.ndim == 1 else u
            if u.ndim != 2 or len(u) != n_times or not np.isfinite(u).all():
                raise ValueError(f"u must be finite and have a row for each of {n_times} samples. Got shape {u.shape}.")
            columns.append(u)
        return np.concatenate(columns, axis=1) if columns else None

    # Fitting.

    def fit(self, y, u=None, *, max_iter=None, tolerance=None, standard_errors=True):
        """Exact maximum likelihood; stationary and invertible by parametrisation.

        Parameters
        ----------
        y : array_like of shape (T,)
            NaN where missing.
        u : array_like of shape (T, k), optional
            Regressors.
        max_iter : int, default=500
        tolerance : float, default=1e-4
            The gradient in units of its likely standard deviation; the likelihood lacks its square at most.
        standard_errors : bool, default=True

        Returns
        -------
        self
        """
        y = as_floats(y, "y")
        y = y[:, np.newaxis] if y.ndim == 1 else y
        if y.ndim != 2 or y.shape[1] != 1 or np.isinf(y).any():
            raise ValueError(f"y must have shape (n_times,) and be finite or NaN. Got shape {y.shape}.")
        X = self._regressors(len(y), u)
        likelihood = ArimaLikelihood(self, y, np.zeros((len(y), 0)) if X is None else X)
        theta, value, history, converged = climb(
            likelihood.gradient, likelihood.start(), likelihood.bounds, likelihood.n_counted, max_iter or 500,
            tolerance or 1e-4, likelihood.curvature,
        )  # fmt: skip
        if not converged:
            warn_not_converged(history)
        beta, beta_errors = likelihood.regression(theta)
        self._inputs = len(beta) > 0
        self._take(self._whole(*self._lags(**likelihood.coefficients(theta)), likelihood.variance(theta), beta))
        self.log_likelihood_, self.history_, self.converged_ = float(value), np.array(history), converged
        errors = np.full(len(theta), np.nan)
        if standard_errors:
            errors = likelihood.errors(theta)
        else:
            beta_errors = np.full(len(beta), np.nan)
        names = ["trend"] * (self.trend is not None)
        names += [f"u[{j}]" for j in range(len(beta) - len(names))]
        names += [f"{name}[{j + 1}]" for name in _PARTS for j in range(self._sizes[name])] + ["variance"]
        self.params_ = pd.DataFrame(
            {
                "estimate": np.concatenate([beta, likelihood.natural(theta)]),
                "standard_error": np.concatenate([beta_errors, errors]),
            },
            index=names,
        )
        self.n_observed_, self.n_estimated_ = likelihood.n_counted, len(names)
        return self
