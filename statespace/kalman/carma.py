"""Continuous-time autoregressive moving averages of any order, stationary and invertible by their parameters."""

import copy

import numpy as np

from statespace.kalman.base import Component, Initial
from statespace.kalman.schwarz import basis, contract, discretize, polynomial, rates_of
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS, TABLE, Blocks

# The complex step by which derivatives of the observation row are taken: exact to the last digit.
_STEP = 1e-40


class CARMA(Component):
    """A continuous-time autoregressive moving average, α(D) f = σ β(D) w′ with white noise w′ (Kelly et al. 2014).

    α(s) = α₀ + α₁ s + … + α_{p−1} s^{p−1} + s^p and β(s) = β₀ + … + β_q s^q, q < p, in ascending powers of D = d/dt.
    The autocovariance at lag r is a sum over the roots of α,

        σ² Σ_k β(ρ_k) β(−ρ_k) exp(ρ_k r) / (−2 Re(ρ_k) Π_{l ≠ k} (ρ_l − ρ_k)(ρ̄_l + ρ_k)),

    so there are p states: real roots are exponentials, pairs of complex ones quasi-periodic oscillations.

    What is fitted are not these coefficients but positive numbers that stand for them one to one: the rates k₁ …
    k_{p−1}, c > 0 of α's Schwarz form, those of β's, and the marginal variance. With the last noise-driven state damped
    by c and the others linked by k_j the stationary covariance is the identity. So every θ is a stationary, invertible
    process (all roots of α and β in the left half-plane), repeated roots are points like any others, and the noise over
    a gap comes from step doubling, without cancellation for bursts and long gaps alike.

    Parameters
    ----------
    ar : sequence of p floats, optional
        (α₀, …, α_{p−1}); α_j in 1 / units of time to the power p − j. None, with ``order``, takes a start value from
        the data.
    ma : sequence of q + 1 floats, optional
        (β₀, …, β_q), (1,) by default. Only σβ matters; after a fit β₀ = 1.
    sigma : float, optional
        σ. None takes a start value from the data, and a marginal variance of 1 where there are none.
    order : (int, int), optional
        (p, q), where ``ar`` is not given.
    rate_bounds, zero_bounds, variance_bounds : pair of float, "fixed" or None, default=None
        Of the rates of α and of β, in 1 / units of time, and of the marginal variance. "fixed" keeps them as given.
        None stands for wide bounds in the data's units.

    Raises
    ------
    ValueError
        When the process meets data or its matrices are asked for: α or β has a root outside the left half-plane, which
        is named; or q ≥ p.

    References
    ----------
    Kelly et al. (2014), "Flexible and scalable methods for quantifying stochastic variability in the era of massive
    time-domain astronomical data sets", ApJ 788; Brockwell (2001), "Continuous-time ARMA processes".

    Examples
    --------
    >>> from statespace.kalman import CARMA
    >>> damped = CARMA(ar=(1.0, 0.2), ma=(1.0,), sigma=0.5)
    >>> damped.autocovariance([0.0, 3.0]).round(4)
    array([ 0.625 , -0.4501])
    >>> CARMA(order=(3, 1)).hyperparameters()
    ['rate_1', 'rate_2', 'rate_3', 'zero_1', 'variance']
    """

    def __init__(
        self, ar=None, ma=None, sigma=None, *, order=None, rate_bounds=None, zero_bounds=None, variance_bounds=None
    ):
        self.ar = ar
        self.ma = ma
        self.sigma = sigma
        self.order = order
        self.rate_bounds = rate_bounds
        self.zero_bounds = zero_bounds
        self.variance_bounds = variance_bounds

    # What (ar, ma, sigma) stand for, with the values that it was computed from: a fitted process keeps its θ to the
    # last digit.
    _kept: tuple | None = None

    # The parameters: groups of rates, zeros and the variance.

    def _sizes(self):
        """p and q; ValueError where they are no orders."""
        p, q = (None, None) if self.ar is None else (np.size(self.ar), 0)
        if self.order is not None:
            order = np.asarray(self.order)
            if order.shape != (2,) or order.dtype.kind not in "iu" or not 0 <= order[1] < order[0]:
                raise ValueError(
                    f"order of CARMA must be a pair (p, q) of integers with p > q >= 0. Got {self.order!r}."
                )
            if p is not None and p != order[0]:
                raise ValueError(f"order of CARMA is {self.order!r}, and ar has {p} entries. Give one of them only.")
            p, q = (int(n) for n in order)
        if p is None:
            raise ValueError("CARMA needs the coefficients ar, or order=(p, q) to have them fitted.")
        if self.ma is not None:
            if self.order is not None and np.size(self.ma) != q + 1:
                raise ValueError(
                    f"order of CARMA is {self.order!r}, and ma has {np.size(self.ma)} entries, not {q + 1}."
                )
            q = np.size(self.ma) - 1
        if not 0 <= q < p:
            raise ValueError(f"CARMA needs fewer zeros than poles: ma may have 1 to {p} entries. Got {q + 1}.")
        return p, q

    def _natural(self):
        """The rates of α, those of β, and the marginal variance; 1 where None stands for them."""
        given = (self.ar, self.ma, self.sigma)
        if self._kept is not None and all(a is b for a, b in zip(self._kept[0], given, strict=True)):
            return self._kept[1]
        p, q = self._sizes()
        rates = _shape(p) if self.ar is None else _checked_rates("ar", [*np.ravel(self.ar), 1.0])
        zeros = _shape(q) if self.ma is None else _checked_rates("ma", np.ravel(self.ma))
        variance = 1.0
        if self.sigma is not None:
            if not (np.isscalar(self.sigma) and np.isreal(self.sigma) and 0 < self.sigma < np.inf):
                raise ValueError(f"sigma of CARMA must be a positive number or None. Got {self.sigma!r}.")
            row = _row(rates, zeros)
            scale = self.sigma * (1.0 if self.ma is None else np.ravel(self.ma)[0])
            variance = float(scale**2 * (row @ row))
        return rates, zeros, variance

    def _with(self, rates, zeros, variance):
        """A copy with other parameters, its coefficients in step with them."""
        clone = copy.copy(self)
        ma = polynomial(zeros)
        row = _row(rates, zeros)
        clone.ar = tuple(polynomial(rates)[:-1].tolist())
        clone.ma = tuple((ma / ma[0]).tolist())
        clone.sigma = float(np.sqrt(variance / (row @ row)))
        clone._kept = (clone.ar, clone.ma, clone.sigma), (rates, zeros, float(variance))
        return clone

    def _groups(self):
        """For each group its name, its values, whether they are given, and its bounds."""
        rates, zeros, variance = self._natural()
        return (
            ("rate", rates, self.ar is not None, self.rate_bounds),
            ("zero", zeros, self.ma is not None, self.zero_bounds),
            ("variance", np.array([variance]), self.sigma is not None, self.variance_bounds),
        )

    def _free_groups(self):
        return [g for g in self._groups() if not (isinstance(g[3], str) and g[3] == "fixed")]

    @property
    def free(self):
        """The names of the parameters that are fitted, in the order of ``theta``."""
        names = []
        for name, values, _, _ in self._free_groups():
            names += [name] if name == "variance" else [f"{name}_{j + 1}" for j in range(len(values))]
        return tuple(names)

    @property
    def theta(self):
        """ndarray of shape (n_free,): the natural logarithms of the free parameters."""
        return np.log(np.concatenate([values for _, values, _, _ in self._free_groups()] or [np.zeros(0)]))

    @property
    def bounds(self):
        """ndarray of shape (n_free, 2): the natural logarithms of their bounds."""
        pairs = [[self._bounds_of(name)] * len(values) for name, values, _, _ in self._free_groups()]
        return np.log([pair for group in pairs for pair in group]).reshape(-1, 2)

    def clone_with_theta(self, theta):
        """The same process with other free parameters."""
        names, theta = self.free, np.asarray(theta, dtype=float)
        if theta.shape != (len(names),):
            raise ValueError(f"theta must have {len(names)} entries {names}, got an array of shape {theta.shape}.")
        parts, at = [], 0
        for _, values, _, bounds in self._groups():
            if isinstance(bounds, str) and bounds == "fixed":
                parts.append(values)
            else:
                parts.append(np.exp(theta[at : at + len(values)]))
                at += len(values)
        return self._with(parts[0], parts[1], parts[2][0])

    # Meeting the data.

    def validate(self):
        """Refuse orders that are none, and coefficients that are not stationary or not invertible."""
        self._sizes()
        self._natural()

    def resolved(self, scale):
        """A copy in which neither a coefficient nor a bound is None any more."""
        self.validate()
        (low, high), (least, greatest) = scale.natural((0, -1)), scale.natural((2, 0))
        rates, zeros, variance = self._natural()
        middle = np.sqrt(low * high)
        if self.ar is None:
            rates = middle * rates
        if self.ma is None:
            zeros = middle * zeros
        if self.sigma is None:
            variance = np.sqrt(least) * np.sqrt(greatest)
        clone = self._with(rates, zeros, variance)
        for name, values in (("rate_bounds", rates), ("zero_bounds", zeros)):
            if getattr(self, name) is None:
                wide = np.array([1e-2 * low, 1e2 * high, *(1e-2 * values), *(1e2 * values)])
                setattr(clone, name, (float(wide.min()), float(wide.max())))
        if self.variance_bounds is None:
            clone.variance_bounds = min(1e-12 * least, 1e-2 * variance), max(1e4 * greatest, 1e2 * variance)
        return clone

    def ranges(self, scale):
        """ndarray of shape (n_free, 2): the logarithms of the likely values, to start from."""
        low, high = scale.natural((0, -1))
        likely = []
        for name, values, given, _ in self._free_groups():
            if given:
                likely += [(value, value) for value in values]
            elif name == "variance":
                likely.append(scale.natural((2, 0)))
            else:
                likely += [(low * value, high * value) for value in values]
        return np.log(likely).reshape(-1, 2)

    def is_variance(self):
        """ndarray of shape (n_free,): which of ``theta`` scale a noise, which vanishes when they run to zero."""
        return np.array([name == "variance" for name in self.free], dtype=bool)

    def rescaled(self, scale):
        """The same process for y / ``scale.value`` and times / ``scale.time``."""
        rates, zeros, variance = self._natural()
        clone = self._with(rates * scale.time, zeros * scale.time, variance / scale.value**2)
        for name, factor in (("rate", scale.time), ("zero", scale.time), ("variance", scale.value**-2)):
            bounds = getattr(self, f"{name}_bounds")
            if bounds is not None and not isinstance(bounds, str):
                setattr(clone, f"{name}_bounds", (bounds[0] * factor, bounds[1] * factor))
        return clone

    # The process.

    def transition(self, dt):
        """A(Δ) of shape (..., p, p) for gaps of shape (...)."""
        return self._discretized(dt)[0]

    def process_noise(self, dt):
        """Q(Δ) of shape (..., p, p) for gaps of shape (...)."""
        return self._discretized(dt)[1]

    def _discretized(self, dt):
        dt = np.asarray(dt, dtype=float)
        A, Q = discretize(self._natural()[0], dt.ravel())
        return A.reshape(*dt.shape, *A.shape[1:]), Q.reshape(*dt.shape, *Q.shape[1:])

    def observation(self):
        """The row H, whose squares add up to the marginal variance."""
        rates, zeros, variance = self._natural()
        row = _row(rates, zeros)
        return row * np.sqrt(variance / (row @ row))

    def initial(self):
        """Stationary: the identity, in the coordinates of the Schwarz form."""
        p = self._sizes()[0]
        return Initial(np.zeros(p), np.eye(p), np.zeros((p, 0)))

    def blocks(self, gaps=None):
        """The kernel's description of A and Q, tabulated for the different gaps."""
        gaps = np.zeros(1) if gaps is None else gaps
        A, Q = discretize(self._natural()[0], gaps)
        p = A.shape[1]
        return Blocks(
            np.array([TABLE]), np.array([p]), np.zeros((1, N_PARAMETERS)), A.reshape(len(A), -1),
            Q.reshape(len(Q), -1), None,
        )  # fmt: skip

    def pullback(self, gradient, gaps=None):
        """The exact gradient by θ."""
        rates, zeros, variance = self._natural()
        p, q = len(rates), len(zeros)
        by_log = np.zeros(p + q + 1)
        shape = (-1, p, p)
        bars = gradient.transition.reshape(shape), gradient.process_noise.reshape(shape)
        if self.rate_bounds != "fixed":
            by_log[:p] = rates * contract(rates, np.zeros(1) if gaps is None else gaps, *bars)
        natural = np.concatenate([rates, zeros])
        for j in range(p + q):
            moved = natural.astype(complex)
            moved[j] *= 1 + 1j * _STEP
            row = _row(moved[:p], moved[p:])
            row = row * np.sqrt(variance / (row * row).sum())
            by_log[j] += gradient.observation @ row.imag / _STEP
        by_log[-1] = 0.5 * gradient.observation @ self.observation()
        held = [isinstance(b, str) and b == "fixed" for b in (self.rate_bounds, self.zero_bounds, self.variance_bounds)]
        return by_log[~np.repeat(held, [p, q, 1])]

    # What users ask of it.

    def roots(self):
        """The roots of α, one for each state: decay and angular frequency of what the process is made of.

        Returns
        -------
        ndarray of complex, shape (p,)
            In 1 / units of time.
        """
        return np.roots(polynomial(self._natural()[0])[::-1])

    def autocovariance(self, lags):
        """cov(f(t), f(t + lag)).

        Parameters
        ----------
        lags : array-like
            In units of time.

        Returns
        -------
        ndarray of the same shape
        """
        row = self.observation()
        return self.transition(np.abs(np.asarray(lags, dtype=float))) @ row @ row

    def power_spectral_density(self, frequency):
        """``σ² |β(2πi f)|² / |α(2πi f)|²``, two-sided: its integral over all f is the marginal variance.

        Parameters
        ----------
        frequency : array-like
            In cycles for each unit of time.

        Returns
        -------
        ndarray of the same shape
        """
        s = 2j * np.pi * np.asarray(frequency, dtype=float)
        rates, zeros, variance = self._natural()
        ma, row = polynomial(zeros), _row(rates, zeros)
        gain = np.polyval(ma[::-1] / ma[0], s) / np.polyval(polynomial(rates)[::-1], s)
        return variance / (row @ row) * np.abs(gain) ** 2


def _shape(n):
    """The rates of (s + 1)^n, which has no oscillation and no rate that stands out."""
    return rates_of(np.poly(-np.ones(n))[::-1]) if n else np.zeros(0)


def _checked_rates(name, coefficients):
    coefficients = np.asarray(coefficients, dtype=float)
    if not np.isfinite(coefficients).all() or coefficients[-1] == 0:
        raise ValueError(f"{name} of CARMA must be finite, its highest coefficient not 0. Got {coefficients.tolist()}.")
    try:
        return rates_of(coefficients)
    except ValueError as error:
        what, instead = {
            "ar": ("stationary", "the process explodes"),
            "ma": ("invertible", "with that root mirrored, the process has the same covariance"),
        }[name]
        raise ValueError(f"{name} of CARMA is not {what}: {error}; {instead}.") from None


def _row(rates, zeros):
    """The row H for σ = β₀ = 1: β(s) = √(2c) Σ_j H_j k_j ⋯ k_{p−1} D_{j−1}(s)."""
    p = len(rates)
    rest = np.zeros(p, dtype=np.result_type(rates, zeros, float))
    ma = polynomial(zeros)
    rest[: len(ma)] = ma / ma[0]
    D = basis(rates)
    row = np.zeros_like(rest)
    for j in range(p - 1, -1, -1):
        row[j] = rest[j]
        rest = rest - rest[j] * D[j]
    links = np.append(np.cumprod(rates[: p - 1][::-1])[::-1], 1.0)
    return row / (links * np.sqrt(2.0 * rates[-1]))
