"""Seasonal autoregressive integrated moving averages, with exactly diffuse differencing, regressors and missing values.

    φ(L) Φ(L^s) (1 − L)^d (1 − L^s)^D (y_t − x_t·β) = θ(L) Θ(L^s) ε_t,   ε_t ~ N(0, σ²),

φ(L) = 1 − φ₁L − …, θ(L) = 1 + θ₁L + …. The state is Harvey's form of the stationary part, then the last d + sD values
of y, which start exactly diffuse. Above: user code. Below: `model`, `sequential`.
"""

from math import factorial, log, pi

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from statespace.kalman.estimation import warn_not_converged
from statespace.kalman.innovations import state_output_covariance, whiten
from statespace.kalman.maximum_likelihood import climb, standard_errors
from statespace.kalman.model import LinearGaussianModel
from statespace.kalman.system import System, stationary_covariance
from statespace.kernels.kalman_filter import Blocks, kalman_filter, kalman_gradient
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS, TABLE

_PARTS = ("ar", "ma", "seasonal_ar", "seasonal_ma")
# A partial autocorrelation of 1 − 5e-9.
_FURTHEST = 1e4
# The variance of a stationary process over that of its innovations, beyond which the quick recursion loses digits.
_LARGEST_RATIO = 1e6
_COMPLEX_STEP = 1e-30


def partial_to_coefficients(x):
    """Coefficients φ of a stationary autoregression from unbounded x: partial autocorrelations r = x/√(1 + x²).

    Parameters
    ----------
    x : ndarray of shape (p,)
        Real or complex.

    Returns
    -------
    ndarray of shape (p,)

    References
    ----------
    Monahan (1984), "A note on enforcing stationarity in autoregressive-moving average models".

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.seasonal_arima import partial_to_coefficients
    >>> partial_to_coefficients(np.array([0.75, 0.0]))
    array([0.6, 0. ])
    """
    r = x / np.sqrt(1.0 + x * x)
    coefficients = r[:0]
    for last in r:
        coefficients = np.append(coefficients - last * coefficients[::-1], last)
    return coefficients


def coefficients_to_partial(coefficients):
    """The x that `partial_to_coefficients` maps to these coefficients; ValueError if they are not stationary.

    Parameters
    ----------
    coefficients : ndarray of shape (p,)

    Returns
    -------
    ndarray of shape (p,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.seasonal_arima import coefficients_to_partial
    >>> coefficients_to_partial(np.array([0.6, 0.0]))
    array([0.75, 0.  ])
    """
    rest, r = np.asarray(coefficients, dtype=float), []
    while len(rest):
        last = rest[-1]
        if not abs(last) < 1.0:
            raise ValueError(f"{np.asarray(coefficients).tolist()} has a root on or inside the unit circle.")
        r.append(last)
        rest = (rest[:-1] + last * rest[:-1][::-1]) / (1.0 - last * last)
    r = np.array(r[::-1])
    return r / np.sqrt(1.0 - r * r)


def _polynomial(coefficients, sign, step=1):
    """1 + sign (c₁ L^step + c₂ L^{2 step} + …), ascending."""
    result = np.zeros(len(coefficients) * step + 1, dtype=coefficients.dtype)
    result[0] = 1.0
    result[step::step] = sign * coefficients
    return result


def arima(order, seasonal_order=(0, 0, 0, 0), *, trend=None, differencing="exact", form="covariance"):
    """A seasonal ARIMA model, as a `LinearGaussianModel` whose parameters are learned by ``fit(y)``.

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
    log_likelihood_, history_, converged_
        As in `LinearGaussianModel`; ``log_likelihood_`` is that of the record of `fit`.

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
        y = np.asarray(y, dtype=float)
        y = y[:, np.newaxis] if y.ndim == 1 else y
        if y.ndim != 2 or y.shape[1] != 1 or np.isinf(y).any():
            raise ValueError(f"y must have shape (n_times,) and be finite or NaN. Got shape {y.shape}.")
        X = self._regressors(len(y), u)
        likelihood = _Likelihood(self, y, np.zeros((len(y), 0)) if X is None else X)
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
        return self


class _Likelihood:
    """The log-likelihood of one record in θ = (unbounded partial autocorrelations, log σ); β is concentrated out.

    β maximises the likelihood at each θ (generalised least squares on the innovations of y and of each regressor), so
    that the gradient by θ is that at the best β.
    """

    def __init__(self, model, y, X):
        self.model, self.X = model, X
        m = len(model._difference) - 1
        self.y = y
        self.short = m > 0 and (model.differencing == "simple" or not np.isnan(y).any())
        if self.short or m == 0:
            self.y = self._differenced(y)
            self.X = self._differenced(X)
        self.observed = ~np.isnan(self.y[:, 0])
        self.n_counted = int(self.observed.sum()) - (0 if self.short else m)
        k = sum(model._sizes.values())
        if self.n_counted <= k + 1 + X.shape[1]:
            raise ValueError(
                f"y has too few observations for {k + 1 + X.shape[1]} parameters and {m} differences. Got "
                f"{int((~np.isnan(y)).sum())}."
            )
        self.constant = 0.0 if self.short else model._constant
        differenced = self._differenced(y)
        # where no difference is observed, or all are alike, y itself tells the size
        enough = np.isfinite(differenced).sum() > 1 and np.nanstd(differenced) > 0.0
        spread = np.nanstd(differenced if enough else y)
        if not spread > 0.0:
            raise ValueError("y is constant: no variance can be estimated.")
        self._log_scale = np.log(spread)
        self.bounds = np.array([[-_FURTHEST, _FURTHEST]] * k + [[self._log_scale - 20.0, self._log_scale + 20.0]])
        # the information of a sample: 1 on a partial autocorrelation near 0, 2 on log σ
        self.curvature = np.append(np.ones(k), 2.0) * self.n_counted
        slots, first = {}, 0
        for name, size in model._sizes.items():
            slots[name], first = slice(first, first + size), first + size
        self._slots = slots
        self._complete = bool(self.observed.all()) and (self.short or m == 0)
        self._lay_out(0 if self.short else m)

    def _lay_out(self, m):
        """What stays the same whatever the parameters are; m values of y in the state."""
        model = self.model
        whole = model._whole(*model._lags(**self.coefficients(np.zeros(len(self.bounds)))), 1.0, np.zeros(0))
        self._r = whole.stationary
        n = self._r + m
        self._transition = whole.transition[0, :n, :n]
        self._observation = whole.observation[0, 0, :n]
        self._diffuse = whole.initial_diffuse[:n, :m]
        self._gaps = np.zeros(len(self.y))
        self._index = np.zeros(len(self.y), dtype=np.int64)
        self._index[0] = -1
        self._shape = np.array([TABLE]), np.array([n]), np.zeros((1, N_PARAMETERS))
        autoregressive = model._sizes["ar"] + model._sizes["seasonal_ar"] > 0
        self._moving = np.full((1, N_PARAMETERS), autoregressive)

    def _differenced(self, array):
        weights = self.model._difference
        m = len(weights) - 1
        return sum(w * array[m - lag : len(array) - lag] for lag, w in enumerate(weights))

    def coefficients(self, theta):
        """φ, θ, Φ, Θ by name."""
        result = {}
        for name, slot in self._slots.items():
            coefficients = partial_to_coefficients(theta[slot])
            result[name] = coefficients if name.endswith("ar") else -coefficients
        return result

    def variance(self, theta):
        return float(np.exp(2.0 * theta[-1]))

    def natural(self, theta):
        return np.concatenate([*self.coefficients(theta).values(), [np.exp(2.0 * theta[-1])]])

    def arguments(self, theta, values):
        """What the kernel's functions take; ``values`` (T,). Called often, so it leaves out the way by `Sequence`."""
        phi, load = self._process(**self.coefficients(theta))
        A = self._transition.copy()
        A[: self._r, 0] = phi
        Q, P = np.zeros(A.shape), np.zeros(A.shape)
        r = self._r
        Q[:r, :r] = self.variance(theta) * (load[:, np.newaxis] * load)
        P[:r, :r] = stationary_covariance(A[:r, :r], Q[:r, :r])
        blocks = Blocks(*self._shape, A.reshape(1, -1), Q.reshape(1, -1), self._index)
        return (values, self._gaps, blocks, self._observation, 0.0, np.zeros(len(A)), P, self._diffuse), load

    def _process(self, **coefficients):
        """φ, θ (r,) of the products, θ from lag 0 on."""
        lags, moving = self.model._lags(**coefficients)
        phi, load = np.zeros((2, self._r), dtype=np.result_type(lags, moving))
        phi[: len(lags)] = lags
        load[0], load[1 : len(moving) + 1] = 1.0, moving
        return phi, load

    def _quick(self, theta):
        """φ and c for the recursion without covariances, or None where it does not apply or would lose digits."""
        if not self._complete:
            return None
        phi, load = self._process(**self.coefficients(theta))
        c = state_output_covariance(phi, load)
        return (phi, c) if 0.0 < c[0] < _LARGEST_RATIO else None

    def _whitened(self, theta, columns):
        """Standardised innovations of columns (T, k), without those that resolve the diffuse start, and Σ log F."""
        quick = self._quick(theta)
        if quick is not None:
            white, totals, _ = whiten(columns.T, *quick)
            return white.T / np.exp(theta[-1]), totals[0] + 2.0 * len(columns) * theta[-1]
        result = []
        for column in columns.T:
            found = kalman_filter(*self.arguments(theta, np.where(self.observed, column, np.nan))[0])
            kept = self.observed & np.isfinite(found.innovation_variance)
            result.append(found.innovation[kept] / np.sqrt(found.innovation_variance[kept]))
        return np.column_stack(result), np.log(found.innovation_variance[kept]).sum()

    def regression(self, theta):
        """β and its standard errors at θ."""
        k = self.X.shape[1]
        if k == 0:
            return np.zeros(0), np.zeros(0)
        white, _ = self._whitened(theta, np.column_stack([self.y, self.X]))
        size = np.linalg.norm(white[:, 1:], axis=0)
        size = np.where(size > 0.0, size, 1.0)
        beta, _, rank, _ = np.linalg.lstsq(white[:, 1:] / size, white[:, 0], rcond=1e-10)
        if rank < k:
            raise np.linalg.LinAlgError("the regressors (with the trend) are collinear once differenced.")
        errors = np.sqrt(np.diag(np.linalg.inv((white[:, 1:] / size).T @ (white[:, 1:] / size)))) / size
        return beta / size, errors

    def start(self):
        """Partial autocorrelations chosen one by one from a few, and the variance that fits them."""
        self.regression(np.append(np.zeros(len(self.bounds) - 1), self._log_scale))
        theta = np.append(np.zeros(len(self.bounds) - 1), self._log_scale)
        best, theta = self._concentrated(theta)
        for j in range(len(theta) - 1):
            for value in (-0.5, 0.5):
                trial = theta.copy()
                trial[j] = value
                found, trial = self._concentrated(trial)
                if found > best:
                    best, theta = found, trial
        return theta

    def _concentrated(self, theta):
        """The log-likelihood at the best variance but for a constant, and θ with that variance."""
        rest = self.y - (self.X @ self.regression(theta)[0])[:, np.newaxis]
        white, logs = self._whitened(theta, rest)
        variance = float(np.mean(white**2))
        value = -0.5 * (logs + len(white) * np.log(variance))
        return value, np.append(theta[:-1], theta[-1] + 0.5 * np.log(variance))

    def gradient(self, theta):
        """The log-likelihood and its gradient; −inf and 0 where there is none."""
        nothing = -np.inf, np.zeros(len(theta))
        try:
            with np.errstate(all="ignore"):
                values = self.y[:, 0]
                if self.X.shape[1]:
                    values = values - self.X @ self.regression(theta)[0]
                quick = self._quick(theta)
                if quick is not None:
                    return self._quick_gradient(theta, values, *quick)
                arguments, load = self.arguments(theta, values)
                value, g = kalman_gradient(*arguments, free_parameters=self._moving, by_observation=False)
                slope = self._pullback(theta, load, arguments, g)
        except (ValueError, np.linalg.LinAlgError):
            return nothing
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return nothing
        return value + self.constant, slope

    def _pullback(self, theta, load, arguments, g):
        r, variance = self._r, self.variance(theta)
        n = len(arguments[5])
        A, P = arguments[2].transition.reshape(n, n)[:r, :r], arguments[6][:r, :r]
        # P = A P Aᵀ + Q: its adjoint solves the transposed equation
        Y = stationary_covariance(A.T, g.covariance[:r, :r])
        phi_bar = g.transition.reshape(n, n)[:r, 0] + 2.0 * (Y @ (A @ P[:, 0]))
        load_bar = 2.0 * variance * ((g.process_noise.reshape(n, n)[:r, :r] + Y) @ load)
        result = np.empty(len(theta))
        result[-1] = load @ load_bar
        for j, (phi, moving) in enumerate(self._directions(theta)):
            result[j] = phi_bar @ phi.imag + load_bar @ moving.imag
        return result / np.append(np.full(len(theta) - 1, _COMPLEX_STEP), 1.0)

    def _directions(self, theta):
        """φ, θ with each parameter moved by a complex step: their imaginary parts are exact derivatives."""
        parts = self.coefficients(theta)
        for name, slot in self._slots.items():
            for j in range(slot.start, slot.stop):
                moved = theta[slot].astype(complex)
                moved[j - slot.start] += _COMPLEX_STEP * 1j
                sign = 1.0 if name.endswith("ar") else -1.0
                yield self._process(**(parts | {name: sign * partial_to_coefficients(moved)}))

    def _quick_gradient(self, theta, values, phi, c):
        moved = [(direction, state_output_covariance(direction, load)) for direction, load in self._directions(theta)]
        k, r = len(moved), self._r
        phi_dot, c_dot = (
            np.array([pair[which].imag for pair in moved]).reshape(k, r) / _COMPLEX_STEP for which in (0, 1)
        )
        _, (logs, squares), slopes = whiten(values[np.newaxis], phi, c, phi_dot, c_dot)
        T, variance = len(values), self.variance(theta)
        squares = squares / variance
        value = -0.5 * (T * (log(2.0 * pi) + 2.0 * theta[-1]) + logs + squares)
        slope = np.append(-0.5 * (slopes[0] + slopes[1] / variance), squares - T)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return -np.inf, np.zeros(len(theta))
        return float(value), slope

    def errors(self, theta):
        return standard_errors(self.gradient, theta, self.natural)
