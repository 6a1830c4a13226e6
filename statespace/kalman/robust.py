"""Observation noise with heavy tails, Student-t or Huber's, by smoothing with a weight for each sample.

The noise ε = y − Hx has the density p(ε²/R)/√R with a scale √R. Both densities are log-convex in s = ε²/R, so that for
any s₀ ≥ 0 and w = w(s₀) = −2 d log p(s₀)/ds,

    log p(s) ≥ log p(s₀) − ½ w (s − s₀):

normal noise of variance R/w, up to a factor. With it in the place of the noise, the Kalman filter gives a lower bound
of the log-likelihood,

    L(θ, s₀) = ℓ(θ; noise variances R/w_k) + Σ_k [log p(s₀_k) + ½ w_k s₀_k + ½ log(2π/w_k)],

which is highest in s₀ at s₀_k = E[(y_k − H_k x_k)²]/R under the smoother with these very variances. Smoothing and
taking these expectations in turn never lowers L. For Student-t noise that is variational inference with a Gamma weight
for each sample (Tipping & Lawrence 2005); for any such density, Palmer et al. (2006). What is maximised over θ is
L(θ) = max L(θ, s₀), whose gradient is that of its first term (and, by the degrees of freedom, of log p).
"""

from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, log_ndtr, logsumexp, ndtr, ndtri

from statespace.kalman.likelihood import Likelihood
from statespace.kalman.posterior import of_output
from statespace.kernels.kalman_filter import kalman_smoother

# Student-t noise whose degrees of freedom are fitted has no less and no more: at the upper end it is normal.
DF_BOUNDS = (1.0, 1000.0)
# Weights are found when no log s₀ moves by more than this, or when the bound, in proportion, rises by less than that.
_MOVE, _RISE = 1e-7, 1e-12
# Cycles of three steps. Far from where a search ends, where no weights explain the data, they would not settle.
_CYCLES, _SETTLING_CYCLES = 15, 100
_ITERATIONS = 500
_LEAST = 1e-12
# Points of the trapezoidal rule for predictive densities, and samples that are done at once.
_POINTS, _CHUNK = 400, 2048
_LOG_2_PI = np.log(2 * np.pi)


class Tails(NamedTuple):
    """Which noise: a name, and what its shape is.

    Attributes
    ----------
    kind : "student_t" or "huber"
    df : float or None
        Student-t's degrees of freedom; None where they are fitted. Huber's noise has none.
    threshold : float
        Huber's.

    Examples
    --------
    >>> from statespace.kalman.robust import Tails
    >>> Tails.of("student_t", 4.0, 1.345).family().df
    4.0
    """

    kind: str
    df: float | None
    threshold: float

    @classmethod
    def of(cls, kind, df, threshold):
        """None for normal noise.

        Raises
        ------
        ValueError
            For another word, or a shape that is no positive number (or "fit", for the degrees of freedom).
        """
        if kind not in ("gaussian", "student_t", "huber"):
            raise ValueError(f"noise must be 'gaussian', 'student_t' or 'huber'. Got {kind!r}.")
        fitted = isinstance(df, str) and df == "fit"
        if kind == "student_t" and not fitted and not (isinstance(df, Real) and 0 < df < np.inf):
            raise ValueError(f"df, the degrees of freedom, must be 'fit' or a number > 0. Got {df!r}.")
        if kind == "huber" and not (isinstance(threshold, Real) and 0 < threshold < np.inf):
            raise ValueError(f"huber_threshold must be a number > 0. Got {threshold!r}.")
        if kind == "gaussian":
            return None
        if kind == "huber":
            return cls(kind, 0.0, float(threshold))
        return cls(kind, None if fitted else float(df), 0.0)

    @property
    def shape(self):
        """The degrees of freedom or the threshold."""
        return self.threshold if self.kind == "huber" else self.df

    @property
    def fits_df(self):
        """Whether the degrees of freedom are fitted."""
        return self.df is None

    def family(self, df=None):
        """The density: a `StudentT` with these degrees of freedom, or with the given ones, or a `Huber`."""
        return family_of([self.kind, self.shape if df is None else df])


def family_of(described):
    """The density that a name and a number stand for, such as ["student_t", 4.0]; None for None.

    Parameters
    ----------
    described : list of (str, float) or None
        As a family's ``description``.

    Returns
    -------
    StudentT, Huber or None

    Examples
    --------
    >>> from statespace.kalman.robust import family_of
    >>> family_of(["huber", 1.5]).description
    ['huber', 1.5]
    """
    if described is None:
        return None
    return {"student_t": StudentT, "huber": Huber}[described[0]](described[1])


class StudentT:
    """Student's t with ``df`` degrees of freedom ν: p(s) ∝ (1 + s/ν)^(−(ν+1)/2), w(s) = (ν + 1)/(ν + s).

    Parameters
    ----------
    df : float

    Examples
    --------
    >>> from statespace.kalman.robust import StudentT
    >>> StudentT(4.0).weight(0.0), StudentT(4.0).weight(21.0), StudentT(4.0).variance
    (1.25, 0.2, 2.0)
    """

    def __init__(self, df):
        self.df = float(df)
        self.description = ["student_t", self.df]

    @property
    def variance(self):
        """The variance of the noise in units of R; infinite for ν ≤ 2."""
        return self.df / (self.df - 2) if self.df > 2 else np.inf

    def draw(self, random_state, shape):
        """Noise for R = 1."""
        return random_state.standard_t(self.df, size=shape)

    def log_density(self, s):
        """log p(s), for R = 1."""
        half = self.df / 2
        constant = gammaln(half + 0.5) - gammaln(half) - 0.5 * np.log(np.pi * self.df)
        return constant - (half + 0.5) * np.log1p(s / self.df)

    def by_log_df(self, s):
        """d log p(s) / d log ν."""
        nu = self.df
        by = digamma((nu + 1) / 2) - digamma(nu / 2) - 1 / nu - np.log1p(s / nu) + (nu + 1) * s / (nu * (nu + s))
        return nu * by / 2

    def weight(self, s):
        """w(s) = −2 d log p(s) / ds."""
        return (self.df + 1) / (self.df + s)

    def predictive(self, error, variance, scale_variance):
        """log density and two-sided tail probability of an error of a normal signal and this noise.

        Parameters
        ----------
        error, variance, scale_variance : ndarray of shape (n,)
            The error, the signal's variance, and R.

        Returns
        -------
        log_density, p_value : ndarray of shape (n,)
        """
        # The noise is normal with variance R/w, w ~ Gamma(ν/2, ν/2): a smooth integral over log w.
        nu = self.df
        largest = np.max(error**2 / (variance + scale_variance), initial=0.0)
        low = -max(80 / (nu + 1), 9 * np.sqrt(2 / nu)) - np.log1p(largest / nu)
        log_w = np.linspace(low, max(9 * np.sqrt(2 / nu), np.log1p(80 / nu)), _POINTS)
        half = nu / 2
        log_mass = half * np.log(half) - gammaln(half) + half * (log_w - np.exp(log_w)) + np.log(log_w[1] - log_w[0])
        log_density, p_value = np.empty(len(error)), np.empty(len(error))
        for first in range(0, len(error), _CHUNK):
            part = slice(first, first + _CHUNK)
            total = variance[part, np.newaxis] + scale_variance[part, np.newaxis] * np.exp(-log_w)
            squares = error[part, np.newaxis] ** 2 / total
            log_density[part] = logsumexp(log_mass - 0.5 * (_LOG_2_PI + np.log(total) + squares), axis=1)
            p_value[part] = np.exp(logsumexp(log_mass + np.log(2) + log_ndtr(-np.sqrt(squares)), axis=1))
        return log_density, np.minimum(p_value, 1.0)


class Huber:
    """Huber's least favourable noise: normal for |ε| ≤ c √R, exponential beyond; w(s) = min(1, c/√s).

    Parameters
    ----------
    threshold : float
        c; at 1.345 location has 95 % of the efficiency of least squares under normal noise.

    Examples
    --------
    >>> from statespace.kalman.robust import Huber
    >>> float(Huber(2.0).weight(1.0)), float(Huber(2.0).weight(16.0))
    (1.0, 0.5)
    """

    df = None

    def __init__(self, threshold):
        self.threshold = c = float(threshold)
        self.description = ["huber", c]
        core = np.sqrt(2 * np.pi) * (2 * ndtr(c) - 1)
        tail = 2 * np.exp(-(c**2) / 2) / c
        self._core_mass = core / (core + tail)
        self._log_normalizer = np.log(core + tail)
        second = core - 2 * c * np.exp(-(c**2) / 2) + tail * (c**2 + 2 + 2 / c**2)
        self.variance = float(second / (core + tail))

    def draw(self, random_state, shape):
        """Noise for R = 1."""
        c = self.threshold
        core = ndtri(random_state.uniform(ndtr(-c), ndtr(c), size=shape))
        tail = (c + random_state.exponential(1 / c, size=shape)) * random_state.choice([-1.0, 1.0], size=shape)
        return np.where(random_state.uniform(size=shape) < self._core_mass, core, tail)

    def log_density(self, s):
        """log p(s), for R = 1."""
        c = self.threshold
        return np.where(s <= c**2, -s / 2, c**2 / 2 - c * np.sqrt(s)) - self._log_normalizer

    def weight(self, s):
        """w(s) = −2 d log p(s) / ds."""
        return self.threshold / np.sqrt(np.maximum(s, self.threshold**2))

    def predictive(self, error, variance, scale_variance):
        """log density and two-sided tail probability of an error of a normal signal and this noise, as `StudentT`'s."""
        log_density, p_value = np.empty(len(error)), np.empty(len(error))
        # Beyond the error by squares, so that points are dense where the density is largest.
        nodes, weights = np.polynomial.legendre.leggauss(128)
        nodes, weights = (nodes + 1) / 2, weights / 2
        for first in range(0, len(error), _CHUNK):
            part = slice(first, first + _CHUNK)
            v, V, R = np.abs(error[part]), variance[part], scale_variance[part]
            log_density[part] = self._convolved(v, V, R)
            length = 45 * np.sqrt(R) / self.threshold + 12 * np.sqrt(V)
            beyond = v[:, np.newaxis] + length[:, np.newaxis] * nodes**2
            density = np.exp(self._convolved(beyond, V[:, np.newaxis], R[:, np.newaxis]))
            p_value[part] = 2 * (density * (2 * nodes * weights)).sum(axis=1) * length
        return log_density, np.minimum(p_value, 1.0)

    def _convolved(self, v, V, R):
        """log of ∫ N(f; 0, V) p((v − f)²/R)/√R df: a truncated normal between two tilted ones."""
        c, sigma, root = self.threshold, np.sqrt(R), np.sqrt(np.maximum(V, 1e-16 * R))
        V = root**2
        mean, std = v * R / (V + R), root * np.sqrt(R / (V + R))
        core = -0.5 * v**2 / (V + R) + 0.5 * np.log(R / (V + R)) + _log_between(
            (-c * sigma - mean) / std, (c * sigma - mean) / std
        )
        tilt = c**2 / 2 + c**2 * V / (2 * R)
        right = tilt - c * v / sigma + log_ndtr((v - c * V / sigma - c * sigma) / root)
        left = tilt + c * v / sigma + log_ndtr((-v - c * V / sigma - c * sigma) / root)
        return np.logaddexp(core, np.logaddexp(right, left)) - self._log_normalizer - 0.5 * np.log(R)


def quantile(family, probability, variance, scale_variance):
    """Quantiles of a normal signal of mean 0 and this noise together, by bisection of their tail probability.

    Parameters
    ----------
    family : StudentT or Huber
    probability : float
        Between 0 and 1.
    variance, scale_variance : ndarray of shape (n,)
        The signal's variance, and R.

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.stats import t
    >>> from statespace.kalman.robust import StudentT, quantile
    >>> noise_alone = quantile(StudentT(3.0), 0.9, np.zeros(1), np.ones(1))
    >>> bool(np.allclose(noise_alone, t(3).ppf(0.9), rtol=1e-6))
    True
    """
    tail = 2 * min(probability, 1 - probability)
    spread = np.sqrt(variance + scale_variance)
    if tail >= 1.0:
        return np.zeros(len(spread))
    low, high = np.zeros(len(spread)), spread.copy()
    while True:
        short = family.predictive(high, variance, scale_variance)[1] > tail
        if not short.any():
            break
        high[short] *= 4.0
    for _ in range(50):
        middle = (low + high) / 2
        short = family.predictive(middle, variance, scale_variance)[1] > tail
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.sign(probability - 0.5) * (low + high) / 2


def _log_between(a, b):
    """log(Φ(b) − Φ(a)) for a < b, from the side where Φ is small."""
    a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
    high, low = log_ndtr(b), log_ndtr(a)
    with np.errstate(divide="ignore"):
        return high + np.log(-np.expm1(np.minimum(low - high, 0.0)))


def reweigh(binding, y, noise, family, start=None, cycles=_SETTLING_CYCLES):
    """The s₀ that raise the bound L to its highest for one output.

    Parameters
    ----------
    binding : Binding
    y : ndarray of shape (n_times,)
        NaN where missing.
    noise : float or ndarray of shape (n_times,)
        R; a sample with R = 0 keeps normal noise.
    family : StudentT or Huber
    start : ndarray of shape (n_times,), optional
        s₀ to start from. None: the smoother with normal noise.
    cycles : int
        The most cycles of three smoothings.

    Returns
    -------
    s : ndarray of shape (n_times,)
        NaN where there is no weight: the sample is missing or R = 0.
    bound : float
        L in the units of ``binding``.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import Binding
    >>> from statespace.kalman.robust import StudentT, reweigh
    >>> binding = Binding(LocalLevel(0.01), np.r_[0.0, np.ones(4)])
    >>> s, bound = reweigh(binding, np.array([0.1, -0.1, 9.0, 0.0, 0.1]), 1.0, StudentT(4.0))
    >>> StudentT(4.0).weight(s).round(1)
    array([1.2, 1.2, 0.1, 1.2, 1.2])
    """
    R = np.broadcast_to(np.asarray(noise, dtype=float), y.shape)
    known = np.isfinite(y) & (R > 0)
    readout = binding.rows[np.newaxis] if binding.rows.ndim == 1 else binding.rows[:, np.newaxis, :]

    def expected(weights):
        result = binding._call(kalman_smoother, y, R / weights, readout=readout)
        value = result.log_likelihood if binding.starts is None else binding.log_likelihood(y, R / weights)
        squares = (y - result.mean[:, 0]) ** 2 + result.covariance[:, 0]
        return np.divide(squares, R, where=known, out=np.full(y.shape, np.nan)), float(value)

    def smoothed(log_s):
        """log s₀ that smoothing with the weights at ``log_s`` gives, and the bound there."""
        weights = np.ones(y.shape)
        weights[known] = family.weight(np.exp(log_s))
        squares, value = expected(weights)
        return np.log(np.maximum(squares[known], _LEAST)), value + correction(family, np.exp(log_s))

    initial = expected(np.ones(y.shape))[0] if start is None else start
    log_s, bound = _climb(smoothed, np.log(np.maximum(initial[known], _LEAST)), cycles)
    s = np.full(y.shape, np.nan)
    s[known] = np.exp(log_s)
    return s, bound


def _climb(step, x, cycles):
    """The fixed point of ``step``, which returns the next point and the bound at the one before: x and its bound.

    Two steps are extrapolated as long as the bound does not fall (SQUAREM, Varadhan & Roland 2008).
    """
    once, bound = step(x)
    before = -np.inf
    for _ in range(cycles):
        # Where L is not defined, no weights help.
        if not np.isfinite(bound) or np.abs(once - x).max(initial=0.0) < _MOVE:
            break
        if bound - before < _RISE * max(1.0, abs(bound)):
            break
        before = bound
        twice, bound_once = step(once)
        first, bend = once - x, twice - 2 * once + x
        length = max(np.sqrt(np.sum(first**2) / max(np.sum(bend**2), 1e-300)), 1.0)
        leap = x + 2 * length * first + length**2 * bend
        landed, bound_leap = step(leap)
        if bound_leap >= bound_once:
            x, once, bound = leap, landed, bound_leap
        else:
            x, (once, bound) = twice, step(twice)
    return x, bound


def sample_weight(family, error, variance, noise):
    """The weight of one sample given the past: the fixed point of w = w(E[ε²]/R) in one step of the filter.

    Parameters
    ----------
    family : StudentT or Huber
    error, variance : float
        The innovation y − H m, and the signal's variance H P Hᵀ, before the sample.
    noise : float
        R > 0.

    Returns
    -------
    float
        w: the sample is then taken with noise variance R/w.

    Examples
    --------
    >>> from statespace.kalman.robust import StudentT, sample_weight
    >>> round(sample_weight(StudentT(4.0), 0.1, 1.0, 1.0), 3), round(sample_weight(StudentT(4.0), 30.0, 1.0, 1.0), 3)
    (1.117, 0.006)
    """
    weight = 1.0
    for _ in range(_ITERATIONS):
        kept = noise / (noise + variance * weight)
        following = float(family.weight(((error * kept) ** 2 + variance * kept) / noise))
        if abs(following - weight) <= 1e-12 * weight:
            break
        weight = following
    return following


def weights_at(family, s):
    """w(s), and 1 where s is NaN."""
    return np.where(np.isnan(s), 1.0, family.weight(np.nan_to_num(s)))


def correction(family, s):
    """Σ [log p(s) + ½ w s + ½ log(2π/w)], what L adds to the likelihood of normal noise with variances R/w."""
    s = s[np.isfinite(s)]
    w = family.weight(s)
    return float(np.sum(family.log_density(s) + 0.5 * w * s + 0.5 * (_LOG_2_PI - np.log(w))))


class RobustLikelihood(Likelihood):
    """The bound L(θ) as `Likelihood`: the same methods, with noise of another family.

    Parameters
    ----------
    process : Component
    records : list
        As of `Likelihood`.
    tails : Tails
        Where the degrees of freedom are fitted, their logarithm stands last in θ.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import Binding
    >>> from statespace.kalman.robust import RobustLikelihood, Tails
    >>> process = LocalLevel()
    >>> binding = Binding(process, np.r_[0.0, np.ones(3)])
    >>> y = np.array([[0.0], [1.0], [9.0], [0.5]])
    >>> likelihood = RobustLikelihood(process, [(binding, y, None)], Tails("huber", 0.0, 2.0))
    >>> likelihood.gradient(np.zeros(2))[1].shape
    (2,)
    """

    def __init__(self, process, records, tails):
        super().__init__(process, records)
        self.tails = tails
        # θ and s₀ of the last evaluation, or those that every later one is to start from.
        self._last = None
        self._frozen, self._settling = False, False

    def quick(self):
        """None: the noise variances are not alike."""

    def roughly(self):
        """None, for the same reason."""

    def _parts(self, theta):
        """θ without the degrees of freedom, and the family."""
        theta = np.asarray(theta, dtype=float)
        if self.tails.fits_df:
            return theta[:-1], self.tails.family(np.exp(theta[-1]))
        return theta, self.tails.family()

    def squares(self, theta):
        """s₀ at ``theta``, a list with an array (n_times, n_outputs) for each record, and L."""
        if self._frozen and np.array_equal(theta, self._last[0]):
            return self._last[1:]
        start = None
        # s₀ from nearby saves smoothing, s₀ from afar does not.
        if self._last is not None and (self._frozen or np.abs(self._last[0] - theta).max(initial=0.0) < 0.5):
            start = self._last[1]
        rest, family = self._parts(theta)
        found, total, cycles = [], 0.0, _SETTLING_CYCLES if self._settling else _CYCLES
        with np.errstate(all="ignore"):
            for i, (binding, y, noise, _) in enumerate(self._bound(rest)):
                s = np.empty(y.shape)
                for k, column in enumerate(y.T):
                    near = None if start is None else start[i][:, k]
                    s[:, k], bound = reweigh(binding, column, of_output(noise, k), family, near, cycles)
                    total += bound
                found.append(s)
        if not np.isfinite(total):
            return found, -np.inf
        if not self._frozen:
            self._last = np.array(theta, dtype=float), found, total
        return found, total

    def freeze(self, theta, squares=None):
        """Start every later evaluation from s₀ at ``theta`` (found now, or given), and return it."""
        self._frozen, self._settling = False, True
        found, value = self.squares(theta)
        self._last = None
        cold, from_afar = self.squares(theta)
        if from_afar > value + 1e-9:
            found, value = cold, from_afar
        if squares is not None:
            found = squares
        self._settling = False
        self._last, self._frozen = (np.array(theta, dtype=float), found, value), True
        return found

    def value(self, theta):
        """The bound at ``theta``; −inf where it is not defined."""
        return self.squares(theta)[1]

    def gradient(self, theta):
        """The bound at ``theta`` and its gradient of shape (len(theta),)."""
        found, total = self.squares(theta)
        rest, family = self._parts(theta)
        by_theta = np.zeros(len(theta))
        if np.isfinite(total):
            with np.errstate(all="ignore"):
                for s, (binding, y, noise, fitted) in zip(found, self._bound(rest), strict=True):
                    for k, column in enumerate(y.T):
                        variances = of_output(noise, k) / weights_at(family, s[:, k])
                        _, by_process, by_noise = binding.gradient(column, variances)
                        by_theta[: self.n_process] += by_process
                        if fitted:
                            by_theta[self.n_process] += np.sum(variances * by_noise)
                    if self.tails.fits_df:
                        by_theta[-1] += np.sum(family.by_log_df(s[np.isfinite(s)]))
        if not (np.isfinite(total) and np.isfinite(by_theta).all()):
            return -np.inf, np.zeros(len(theta))
        return total, by_theta

    def head(self, n):
        """The bound of no more than the first n samples of each record."""
        return RobustLikelihood(self.process, super().head(n).records, self.tails)
