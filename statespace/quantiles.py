"""A forecast distribution as quantiles: how a network gives them in order, how they are scored, what lies between.

Between two levels, and beyond the outermost, the quantile function is linear in z = Φ⁻¹(level): a normal distribution
is met exactly, and the tails are normal.
"""

import numpy as np
import torch
from scipy.stats import norm
from torch.nn import functional as F

LEVELS = np.array([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99])
MEDIAN = len(LEVELS) // 2
# Numbers that a network gives for one distribution: median, logarithm of the scale, and one step for every other level.
N_OUTPUTS = len(LEVELS) + 1
_Z = norm.ppf(LEVELS)
# The scale stays within e^±8 of that of the context.
_LARGEST_LOG_SCALE = 8.0


def ordered_quantiles(outputs):
    """Quantiles at `LEVELS` that cannot cross: the median, and positive steps from it outwards.

        q_j = m + exp(a) Σ softplus(s_i)    for levels above the median, minus the sum for those below

    Outputs of zero give the standard normal distribution.

    Parameters
    ----------
    outputs : Tensor of shape (..., N_OUTPUTS)
        m, a, and the steps s from the lowest level to the highest.

    Returns
    -------
    quantiles : Tensor of shape (..., len(LEVELS))

    Examples
    --------
    >>> import torch
    >>> from statespace.quantiles import N_OUTPUTS, ordered_quantiles
    >>> ordered_quantiles(torch.zeros(N_OUTPUTS, dtype=torch.float64))[[1, 5, 9]].round(decimals=2)
    tensor([-1.9600,  0.0000,  1.9600], dtype=torch.float64)
    """
    median = outputs[..., :1]
    scale = outputs[..., 1:2].clamp(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE).exp()
    normal = torch.as_tensor(np.diff(_Z), dtype=outputs.dtype, device=outputs.device)
    steps = scale * F.softplus(outputs[..., 2:] + normal.expm1().log())
    below = median - steps[..., :MEDIAN].flip(-1).cumsum(-1).flip(-1)
    return torch.cat([below, median, median + steps[..., MEDIAN:].cumsum(-1)], dim=-1)


def pinball(quantiles, y):
    """The pinball loss, summed over `LEVELS`: its expectation is least at the true quantiles (Koenker & Bassett 1978).

        ρ_α(y − q) = max(α (y − q), (α − 1) (y − q))

    Parameters
    ----------
    quantiles : Tensor of shape (..., len(LEVELS))
    y : Tensor of shape (...)

    Returns
    -------
    loss : Tensor of shape (...)

    Examples
    --------
    >>> import torch
    >>> from statespace.quantiles import LEVELS, pinball
    >>> float(pinball(torch.zeros(len(LEVELS)), torch.tensor(2.0)))  # 2 Σ α
    11.0
    """
    levels = torch.as_tensor(LEVELS, dtype=quantiles.dtype, device=quantiles.device)
    error = y[..., None] - quantiles
    return torch.maximum(levels * error, (levels - 1) * error).sum(-1)


def quantiles_at(quantiles, levels):
    """Any quantiles from those at `LEVELS`, linear in z = Φ⁻¹(level).

    Parameters
    ----------
    quantiles : ndarray of shape (n, len(LEVELS))
    levels : array-like of shape (m,)
        Between 0 and 1.

    Returns
    -------
    ndarray of shape (n, m)

    Examples
    --------
    >>> from scipy.stats import norm
    >>> from statespace.quantiles import LEVELS, quantiles_at
    >>> quantiles_at(3 + 2 * norm.ppf(LEVELS)[None], [0.3, 0.999]).round(6) == (3 + 2 * norm.ppf([0.3, 0.999])).round(6)
    array([[ True,  True]])
    """
    return at_z(quantiles, norm.ppf(levels))


def variance(quantiles):
    """The variance of the distribution whose quantiles at `LEVELS` these are.

    Parameters
    ----------
    quantiles : ndarray or Tensor of shape (..., len(LEVELS))

    Returns
    -------
    ndarray or Tensor of shape (...)

    Examples
    --------
    >>> from scipy.stats import norm
    >>> from statespace.quantiles import LEVELS, variance
    >>> variance(3 + 2 * norm.ppf(LEVELS)[None]).round(6)
    array([4.])
    """
    # Equal steps of z over ±9 standard deviations: the trapezoidal rule is exact to rounding for what is smooth.
    z = np.linspace(-9, 9, 721)
    weight = norm.pdf(z) * (z[1] - z[0])
    values = at_z(np.eye(len(LEVELS)), z)  # linear in the quantiles
    if isinstance(quantiles, torch.Tensor):
        weight, values = (torch.from_numpy(array).to(quantiles) for array in (weight, values))
    values = (quantiles - quantiles[..., MEDIAN, None]) @ values
    return (values - (values @ weight)[..., None]) ** 2 @ weight


def at_z(quantiles, z):
    """The quantile function at level Φ(z), linear in z.

    Parameters
    ----------
    quantiles : ndarray of shape (n, len(LEVELS))
    z : ndarray of shape (m,) or (n, m)
        Of all distributions, or of each.

    Returns
    -------
    ndarray of shape (n, m)

    Examples
    --------
    >>> from scipy.stats import norm
    >>> from statespace.quantiles import LEVELS, at_z
    >>> at_z(3 + 2 * norm.ppf(LEVELS)[None], [-10.0, 0.5])
    array([[-17.,   4.]])
    """
    z = np.asarray(z, dtype=np.float64)
    part = np.clip(np.searchsorted(_Z, z) - 1, 0, len(_Z) - 2)
    share = (z - _Z[part]) / (_Z[part + 1] - _Z[part])
    if z.ndim == 1:
        low, high = quantiles[:, part], quantiles[:, part + 1]
    else:
        low, high = np.take_along_axis(quantiles, part, axis=1), np.take_along_axis(quantiles, part + 1, axis=1)
    with np.errstate(invalid="ignore"):  # 0 times an infinite z
        return np.where(np.isinf(z), z, low + share * (high - low))


def z_of(quantiles, y):
    """Where y lies in each distribution: the z with ``at_z(quantiles, z) = y``.

    Parameters
    ----------
    quantiles : ndarray of shape (n, len(LEVELS))
        Not decreasing; where two are equal, z is that of the higher level.
    y : ndarray of shape (n,)
        NaN where unknown, as z then is.

    Returns
    -------
    z : ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.stats import norm
    >>> from statespace.quantiles import LEVELS, z_of
    >>> z_of(3 + 2 * norm.ppf(LEVELS)[None], np.array([4.0])).round(12)
    array([0.5])
    """
    part = np.clip((quantiles <= y[:, None]).sum(axis=1) - 1, 0, len(_Z) - 2)
    rows = np.arange(len(y))
    low, high = quantiles[rows, part], quantiles[rows, part + 1]
    # Quantiles that are equal to rounding must not divide by 0.
    width = np.maximum(high - low, np.finfo(np.float64).tiny)
    return _Z[part] + (y - low) / width * (_Z[part + 1] - _Z[part])
