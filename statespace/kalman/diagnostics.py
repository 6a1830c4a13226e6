"""Whether a model fits: standardised innovations, and the tests of what they should be, independent and normal.

With innovations v_t and their variances F_t, e_t = v_t / √F_t are independent N(0, 1) under the model (Durbin & Koopman
2012, section 2.12). Missing samples and those that only fix a diffuse start have none; they are NaN and are left out. A
lag counts observed samples, also on irregular times: under the model the e_t are independent whatever the gaps.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as f_distribution

__all__ = [
    "NormalityResult", "TestResult", "autocorrelation", "heteroscedasticity", "jarque_bera", "ljung_box",
    "standardized_innovations",
]  # fmt: skip


class TestResult(NamedTuple):
    """A test: its statistic, distribution and p-value.

    Attributes
    ----------
    statistic : float or ndarray
    p_value : float or ndarray
        The probability, if the model holds, of a statistic at least as extreme.
    degrees_of_freedom : int, tuple of int or ndarray of int
        Of the χ² or F distribution.

    Examples
    --------
    >>> from statespace.kalman.diagnostics import heteroscedasticity
    >>> heteroscedasticity([1.0, -1.0, 0.5, 1.0, 1.0, -1.0], h=2).statistic
    1.0
    """

    statistic: float | np.ndarray
    p_value: float | np.ndarray
    degrees_of_freedom: int | tuple[int, int] | np.ndarray


class NormalityResult(NamedTuple):
    """The Bowman–Shenton (Jarque–Bera) test with the moments that it is made of.

    Attributes
    ----------
    statistic : float
        N, χ² with 2 degrees of freedom.
    p_value : float
    skewness : float
        S, N(0, 6/n) of normal data.
    kurtosis : float
        K, N(3, 24/n) of normal data.

    Examples
    --------
    >>> from statespace.kalman.diagnostics import jarque_bera
    >>> round(jarque_bera([-1.5, -0.5, 0.0, 0.5, 1.5]).kurtosis, 2)
    2.05
    """

    statistic: float
    p_value: float
    skewness: float
    kurtosis: float


def standardized_innovations(result):
    """e_t = v_t / √F_t; of vector observations e_t = L_t⁻¹ v_t with F_t = L_t L_tᵀ.

    Parameters
    ----------
    result : FilterResult
        Of `statespace.kernels.kalman_filter`, with ``innovation`` and ``innovation_variance`` of shape (n_times,); or
        any with ``innovation`` (n_times, p) and ``innovation_covariance`` (n_times, p, p).

    Returns
    -------
    ndarray of the shape of ``innovation``
        NaN where y is missing, and where the sample sees a diffuse direction (F infinite). Of a vector with missing
        entries the others are standardised.

    References
    ----------
    Durbin & Koopman (2012), "Time Series Analysis by State Space Methods", sections 2.12.1 and 7.5.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from statespace.kalman.diagnostics import standardized_innovations
    >>> result = SimpleNamespace(innovation=np.array([1.0, 2.0]), innovation_variance=np.array([np.inf, 4.0]))
    >>> standardized_innovations(result)
    array([nan,  1.])
    """
    v = np.asarray(result.innovation, dtype=float)
    if hasattr(result, "innovation_variance"):
        F = np.asarray(result.innovation_variance, dtype=float)
        usable = np.isfinite(v) & np.isfinite(F) & (F > 0)
        return np.divide(v, np.sqrt(F, where=usable, out=np.ones_like(F)), where=usable, out=np.full(v.shape, np.nan))
    standardized = np.full(v.shape, np.nan)
    for e, v_t, F_t in zip(standardized, v, np.asarray(result.innovation_covariance, dtype=float), strict=True):
        known = np.isfinite(v_t) & np.isfinite(np.diag(F_t))
        if known.any():
            e[known] = np.linalg.solve(np.linalg.cholesky(F_t[np.ix_(known, known)]), v_t[known])
    return standardized


def autocorrelation(residuals, lags):
    """r_j = Σ_t (e_t − ē)(e_{t−j} − ē) / Σ_t (e_t − ē)² for the lags j = 1 … ``lags``.

    Parameters
    ----------
    residuals : array-like of shape (n,)
        NaN are left out.
    lags : int
        Less than the number of residuals.

    Returns
    -------
    ndarray of shape (lags,)
        NaN if the residuals are all equal. The variance of r_j of independent residuals is (n − j) / (n (n + 2)).

    Raises
    ------
    ValueError
        If an entry is infinite or there are too few.

    Examples
    --------
    >>> from statespace.kalman.diagnostics import autocorrelation
    >>> autocorrelation([1.0, -1.0, 1.0, -1.0], 2)
    array([-0.75,  0.5 ])
    """
    e = _observed(residuals)
    n = len(e)
    if not 1 <= lags < n:
        raise ValueError(f"lags must lie between 1 and n − 1 = {n - 1} for n = {n} residuals. Got {lags}.")
    d = e - e.mean()
    total = _spread(d, e)
    if n < 4096:
        return np.array([d[j:] @ d[:-j] for j in range(1, lags + 1)]) / total
    from scipy.fft import irfft, next_fast_len, rfft

    length = next_fast_len(n + lags, real=True)
    return irfft(np.abs(rfft(d, length)) ** 2, length)[1 : lags + 1] / total


def ljung_box(residuals, lags=None, n_parameters=0):
    """Serial correlation: Q(k) = n (n + 2) Σ_{j=1}^k r_j² / (n − j), χ² under independence.

    Parameters
    ----------
    residuals : array-like of shape (n,)
        Standardised innovations; NaN are left out, and a lag counts the others.
    lags : int or sequence of int, optional
        k; by default the whole part of √n.
    n_parameters : int, default=0
        How many degrees of freedom fitting took: k − ``n_parameters`` are left. Of a structural model with w fitted
        variances w − 1, as their common scale has no part in the correlation (Harvey 1989, section 5.4.2).

    Returns
    -------
    TestResult
        With arrays if ``lags`` is a sequence; the p-value is NaN where no degree of freedom is left.

    References
    ----------
    Ljung & Box (1978), "On a measure of lack of fit in time series models". Durbin & Koopman (2012), section 2.12.1.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.diagnostics import ljung_box
    >>> white = np.random.default_rng(0).normal(size=200)
    >>> bool(ljung_box(white).p_value > 0.05), bool(ljung_box(white.cumsum()).p_value > 0.05)
    (True, False)
    """
    e = _observed(residuals)
    n = len(e)
    if lags is None:
        lags = max(int(np.sqrt(n)), 1)
    chosen = np.atleast_1d(lags)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1 or len(chosen) == 0:
        raise ValueError(f"lags must be a whole number or a sequence of them. Got {lags!r}.")
    if not (isinstance(n_parameters, int | np.integer) and n_parameters >= 0):
        raise ValueError(f"n_parameters must be a whole number >= 0. Got {n_parameters!r}.")
    # The smallest as well as the greatest lag has to be one.
    r = autocorrelation(e, int(chosen.max() if chosen.min() >= 1 else chosen.min()))
    terms = n * (n + 2) * r**2 / (n - np.arange(1, len(r) + 1))
    statistic = np.cumsum(terms)[chosen - 1]
    freedom = chosen - n_parameters
    p_value = np.where(freedom > 0, chi2.sf(statistic, np.maximum(freedom, 1)), np.nan)
    if np.ndim(lags) == 0:
        return TestResult(float(statistic[0]), float(p_value[0]), int(freedom[0]))
    return TestResult(statistic, p_value, freedom)


def jarque_bera(residuals):
    """Normality: N = n (S²/6 + (K − 3)²/24), χ² with 2 degrees of freedom (Bowman & Shenton 1975, Jarque & Bera 1980).

    With the central moments m_q = Σ (e_t − ē)^q / n, the skewness is S = m₃ / m₂^(3/2) and the kurtosis K = m₄ / m₂².

    Parameters
    ----------
    residuals : array-like of shape (n,)
        Standardised innovations; NaN are left out.

    Returns
    -------
    NormalityResult

    Raises
    ------
    ValueError
        If an entry is infinite or there are less than two.

    References
    ----------
    Durbin & Koopman (2012), section 2.12.1.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.diagnostics import jarque_bera
    >>> rng = np.random.default_rng(1)
    >>> bool(jarque_bera(rng.normal(size=500)).p_value > 0.05), bool(jarque_bera(rng.laplace(size=500)).p_value > 0.05)
    (True, False)
    """
    e = _observed(residuals)
    n = len(e)
    if n < 2:
        raise ValueError(f"A test of normality needs two residuals at least. Got {n}.")
    d = e - e.mean()
    variance = _spread(d, e) / n
    skewness, kurtosis = np.mean(d**3) / variance**1.5, np.mean(d**4) / variance**2
    statistic = n * (skewness**2 / 6 + (kurtosis - 3) ** 2 / 24)
    return NormalityResult(float(statistic), float(chi2.sf(statistic, 2)), float(skewness), float(kurtosis))


def heteroscedasticity(residuals, h=None):
    """Whether the variance changes: H(h) = Σ_{t=n−h+1}^n e_t² / Σ_{t=1}^h e_t², F(h, h), tested to both sides.

    Parameters
    ----------
    residuals : array-like of shape (n,)
        Standardised innovations; NaN are left out.
    h : int, optional
        The number of residuals at either end; by default the whole number nearest to n/3.

    Returns
    -------
    TestResult

    Raises
    ------
    ValueError
        If an entry is infinite or h does not lie between 1 and n/2.

    References
    ----------
    Durbin & Koopman (2012), section 2.12.1.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.diagnostics import heteroscedasticity
    >>> growing = np.random.default_rng(0).normal(size=90) * np.linspace(0.2, 2.0, 90)
    >>> bool(heteroscedasticity(growing).p_value < 0.001), heteroscedasticity(growing).degrees_of_freedom
    (True, (30, 30))
    """
    e = _observed(residuals)
    n = len(e)
    h = max(round(n / 3), 1) if h is None else h
    if not (isinstance(h, int | np.integer) and 1 <= h <= n / 2):
        raise ValueError(f"h must be a whole number between 1 and n/2 = {n / 2:g} for n = {n} residuals. Got {h!r}.")
    first, last = np.sum(e[:h] ** 2), np.sum(e[n - h :] ** 2)
    statistic = float(last / first) if first > 0 else np.nan if last == 0 else np.inf
    p_value = 2 * min(f_distribution.cdf(statistic, h, h), f_distribution.sf(statistic, h, h))
    return TestResult(statistic, float(p_value), (int(h), int(h)))


def _observed(residuals):
    e = np.asarray(residuals, dtype=float)
    if e.ndim != 1:
        raise ValueError(f"residuals must have shape (n,), one series at a time. Got {e.shape}.")
    if np.isinf(e).any():
        raise ValueError(f"residuals must be finite, or NaN where missing. residuals[{np.argmax(np.isinf(e))}] is not.")
    return e[~np.isnan(e)]


def _spread(d, e):
    """Σ d², NaN where only rounding is left of it."""
    total = d @ d
    return total if total > len(e) * (1e-13 * np.abs(e).max()) ** 2 else np.nan
