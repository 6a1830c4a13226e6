"""Dynamic factors: many series that share a few autoregressions.

Above: user code. Below: `structured`.
"""

import numpy as np

from statespace.kalman.structured import Structured, check_structure, companion, least_squares, stabilised


def dynamic_factor(n_factors, order=1, *, error_order=0, trend="c", start="stationary", form="covariance"):
    """Series that share a few autoregressive factors, as a `LinearGaussianModel` that ``fit(y)`` learns.

        y_t = μ + Λ f_t + e_t,   f_t = Φ₁ f_{t−1} + … + η_t,   η_t ~ N(0, I),

    with e_t white, or each of its entries an autoregression of its own.

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

    Raises
    ------
    ValueError
        For orders that are none; in `fit`, for a series without any observation.

    References
    ----------
    Geweke (1977), "The dynamic factor analysis of economic time series models"; Stock & Watson (1991), "A probability
    model of the coincident economic indicators"; Durbin & Koopman (2012), section 3.7.

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
    params_, log_likelihood_, history_, converged_, n_observed_, n_estimated_, aic_, aicc_, bic_, hqic_
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
        check_structure(order, start, form)
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
        A[:m, :m] = companion(coefficients)
        H[:, :k] = loadings
        Q, R = np.eye(k), np.diag(variances)
        if e:
            A[m:, m:] = companion(np.array([np.diag(row) for row in own]))
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
        coefficients, _, covariance = least_squares(np.split(factors, cuts), self.order, k, False)
        # unit innovations: one scale for each factor keeps the zeros of the loadings
        scale = np.sqrt(np.diag(covariance))
        coefficients = stabilised(coefficients * (scale / scale[:, np.newaxis]))
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
