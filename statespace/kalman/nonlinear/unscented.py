"""The unscented Kalman filter and its kin: Gaussians carried by a few chosen points."""

from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg.lapack import dpotrf

from statespace.kalman.nonlinear.gaussian import GaussianFilter
from statespace.kalman.nonlinear.roots import solve_lower

# A conditional variance so small beside the variance is rounding.
_SINGULAR = 1e-11


class SigmaPoints:
    """Points ξ_i and weights that have the moments of N(0, I).

    Parameters
    ----------
    n : int
    kind : {"unscented", "cubature", "gauss-hermite"}
    alpha, beta, kappa : float
    order : int

    Attributes
    ----------
    points : ndarray of shape (m, n)
    weights : ndarray of shape (m,)
        Of the mean.
    """

    def __init__(self, n, kind, alpha, beta, kappa, order):
        self.extra = 0.0
        if kind == "gauss-hermite":
            nodes, weights = hermegauss(order)
            self.points = np.array(list(product(nodes, repeat=n)))
            self.weights = np.array([np.prod(w) for w in product(weights / weights.sum(), repeat=n)])
        else:
            if kind == "cubature":
                alpha, beta, kappa = 1.0, 0.0, 0.0
            spread = alpha**2 * (n + kappa)  # n + λ
            if not spread > 0.0:
                raise ValueError(f"alpha² (n + kappa) must be positive, n being {n} states. Got {spread}.")
            directions = np.sqrt(spread) * np.eye(n)
            self.points = np.concatenate([directions, -directions])
            self.weights = np.full(2 * n, 0.5 / spread)
            centre = 1.0 - n / spread
            # With d_i = f(x_i) − f(x_0) and e = Σ w d_i, the scaled transform's covariance is
            # w Σ d_i d_iᵀ + (β − α²) e eᵀ: the weight of the centre point, which may be −1e6, cancels.
            self.extra = beta - alpha**2
            if kind == "unscented":
                self.points = np.concatenate([np.zeros((1, n)), self.points])
                self.weights = np.concatenate([[centre], self.weights])
        self.central = kind == "unscented"
        self.roots = np.sqrt(self.weights[1:] if self.central else self.weights)
        self.centred = self.extra < 0.0 and self.weights[0] + self.extra + 1.0 >= -1e-14
        if self.central and self.extra < 0.0 and not self.centred:
            raise ValueError(
                f"With alpha={alpha}, beta={beta} and kappa={kappa} covariances may become negative. Take "
                "beta >= alpha² (2 for Gaussian states), or kappa >= 0 with alpha=1, beta=0."
            )
        # Of the state itself: √w ξ, with a column for the centre that does not move.
        self.own = (self.points[1:] if self.central else self.points).T * self.roots
        if self.central:
            self.own = np.concatenate([self.own, np.zeros((n, 1))], axis=1)

    def spread(self, mean, root):
        """The points of N(mean, root rootᵀ): ndarray of shape (m, n)."""
        return mean + self.points @ root.T

    def combine(self, values, difference):
        """Mean of values at the points, and their deviations in the columns of ``own``.

        Parameters
        ----------
        values : ndarray of shape (m, size)
        difference : callable
            a − b.

        Returns
        -------
        mean : ndarray of shape (size,)
        deviations : ndarray of shape (size, columns)
        """
        moved = difference(values[1:], values[0]) if self.central else difference(values, values[0])
        if not self.central:
            shift = self.weights @ moved
            return values[0] + shift, (moved - shift).T * self.roots
        shift = self.weights[1:] @ moved
        mean = values[0] + shift
        result = np.empty((len(shift), len(moved) + 1))
        if self.centred:
            # All weights are >= 0: deviations from the mean, with the centre's own.
            result[:, :-1] = (moved - shift).T * self.roots
            result[:, -1] = np.sqrt(max(self.weights[0] + self.extra + 1.0, 0.0)) * shift
        else:
            result[:, :-1] = moved.T * self.roots
            result[:, -1] = np.sqrt(self.extra) * shift
        return mean, result

    def slope(self, values):
        """E[(g(x) − ḡ) ξᵀ] and ḡ of values g at the points: (size, n) and (size,)."""
        moved = values - values[0]
        mean = values[0] + self.weights @ moved
        return (moved.T * self.weights) @ self.points, mean


class UnscentedKalmanFilter(GaussianFilter):
    """Filter, smoother and forecasts with sigma points: no Jacobians, exact to the third order.

    The points x_i = m ± √(n + λ) S e_i, λ = α² (n + κ) − n, pass through a function in one call;

        z̄ = Σ w_i z_i,    cov(x, z) = Σ w_i (x_i − m)(z_i − z̄)ᵀ,    w_i = 1 / (2(n + λ)).

    The square-root form sums squares only: written with differences from the centre point, the covariance is
    w Σ d_i d_iᵀ + (β − α²) e eᵀ, which for β >= α² has no negative part however small α is. Continuous models
    integrate the mean and covariance with the drift's expected value and slope under the points, drawn anew at each
    stage. On a linear model this is the exact Kalman filter.

    Parameters
    ----------
    model : NonlinearModel
    alpha : float, default=1.0
        The points' spread, √(alpha² (n + kappa)) standard deviations: with 1, as far out as the state itself is.
    beta : float, default=2.0
        2 is best for Gaussian states.
    kappa : float, default=0.0
        3 − n is another usual choice.
    points : {"unscented", "cubature", "gauss-hermite"}, default="unscented"
        "cubature" is the third-degree spherical rule (alpha 1, beta 0, kappa 0, no centre); "gauss-hermite" the product
        rule with order^n points.
    order : int, default=3
        Of the Gauss–Hermite rule.
    tolerance, substeps
        As in `ExtendedKalmanFilter`.

    References
    ----------
    Julier and Uhlmann 2004; Wan and van der Merwe 2000; Särkkä, *On unscented Kalman filtering for state estimation of
    continuous-time nonlinear systems*, IEEE Trans. Automatic Control 52, 2007; Särkkä and Svensson 2023, ch. 8 and 14.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import NonlinearModel, UnscentedKalmanFilter
    >>> def polar(x):
    ...     return np.stack([np.hypot(x[..., 0], x[..., 1]), np.arctan2(x[..., 1], x[..., 0])], axis=-1)
    >>> model = NonlinearModel(
    ...     drift=[[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], diffusion=np.eye(4)[:, 2:],
    ...     observation=polar, observation_noise=[0.01, 1e-4], observation_angles=[1],
    ...     initial_mean=[-5.0, 0.5, 1.0, 0.0], initial_covariance=1.0,
    ... )
    >>> ukf = UnscentedKalmanFilter(model)
    >>> smoothed = ukf.smooth([[5.1, 3.0], [4.2, np.nan], [3.0, -3.1]], times=[0.0, 0.7, 2.0])
    >>> smoothed.mean.shape
    (3, 4)
    """

    def __init__(
        self, model, *, alpha=1.0, beta=2.0, kappa=0.0, points="unscented", order=3, tolerance=1e-10, substeps=None
    ):
        super().__init__(model, tolerance=tolerance, substeps=substeps)
        if points not in ("unscented", "cubature", "gauss-hermite"):
            raise ValueError(f"points must be 'unscented', 'cubature' or 'gauss-hermite'. Got {points!r}.")
        if int(order) != order or order < 2:
            raise ValueError(f"order must be a whole number >= 2. Got {order}.")
        self.alpha, self.beta, self.kappa, self.points, self.order = alpha, beta, kappa, points, order
        self._sigma = SigmaPoints(model.n_states, points, alpha, beta, kappa, order)

    def _rates(self, mean, covariance, columns, arguments, least):
        model, sigma = self.model, self._sigma
        root = _root_within(covariance, least)
        if root is None:  # a trial step that was too long
            return np.full_like(mean, np.nan), np.nan, np.nan
        points = sigma.spread(mean, root)
        slope, drift = sigma.slope(model.drift(points, **arguments))
        noise = model.diffusion.at(points, **arguments)
        if noise.ndim == 2:
            diffusion = noise @ noise.T
        else:
            diffusion = np.tensordot(sigma.weights, noise @ np.swapaxes(noise, -1, -2), axes=1)
        return drift, slope @ solve_lower(root, columns), diffusion

    def _move(self, mean, root, arguments):
        sigma = self._sigma
        values = self.model.transition(sigma.spread(mean, root), **arguments)
        mean, after = sigma.combine(values, self.model.state_difference)
        return mean, after, root @ sigma.own

    def _observe(self, mean, root, arguments):
        sigma = self._sigma
        values = self.model.observation(sigma.spread(mean, root), **arguments)
        expected, observed = sigma.combine(values, self.model.observation_difference)
        return expected, observed, root @ sigma.own


def _root_within(covariance, least):
    """A root of the covariance at a stage of the integrator, or None where there is none.

    A direction without uncertainty gets a little, so that the drift's slope along it is known: the slope of the
    statistical linearisation tends to the tangent's.
    """
    covariance = (covariance + covariance.T) / 2
    if not np.isfinite(covariance).all():
        return None
    diagonal = np.maximum(covariance.diagonal(), 0.0)
    root, info = dpotrf(covariance, lower=1, clean=1)
    if info == 0 and (np.square(root.diagonal()) > _SINGULAR * diagonal).all():
        return root
    spread = covariance + np.diag(np.square(least) + _SINGULAR * diagonal)
    root, info = dpotrf(spread, lower=1, clean=1)
    if info == 0:
        return root
    root, info = dpotrf(spread + np.diag((least == 0.0) * 1e-200), lower=1, clean=1)
    return root if info == 0 else None
