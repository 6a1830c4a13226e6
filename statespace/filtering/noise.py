"""The variance of the observation noise: fitted, one known number, or one for each sample."""

import numpy as np

# Noise variances that are fitted lie between these multiples of y's variance: the lower one stands for none.
_NOISE = (1e-14, 1e2)


def check_noise(noise, shape):
    """A noise variance as a user gives it.

    Parameters
    ----------
    noise : "fit", float, or array-like of shape (n,) or (n, m)
    shape : tuple of int
        That of y: (n,) or (n, m).

    Returns
    -------
    None, float, or ndarray of shape (n,) or (n, m)
        None where it is fitted.

    Raises
    ------
    ValueError
        For another word, another shape, or variances that are negative or not finite.

    Examples
    --------
    >>> from statespace.filtering.noise import check_noise
    >>> check_noise([1, 2], (2,))
    array([1., 2.])
    """
    if isinstance(noise, str):
        if noise != "fit":
            raise ValueError(f"noise_variance must be 'fit' or a number >= 0. Got {noise!r}.")
        return None
    noise = np.asarray(noise, dtype=float)
    if noise.shape not in ((), shape[:1], shape):
        outputs = f" (or {shape}: of each output)" if len(shape) > 1 else ""
        raise ValueError(
            f"noise_variance must be a number or one for each of the {shape[0]} rows{outputs}. Got {noise.shape}."
        )
    if not (np.isfinite(noise).all() and (noise >= 0).all()):
        wrong = noise if noise.ndim == 0 else noise[~(noise >= 0) | ~np.isfinite(noise)][0]
        raise ValueError(f"noise_variance must be finite and >= 0. Got {wrong}.")
    return noise if noise.ndim else float(noise)


def noise_start(scale, bounds=None):
    """Where the search for a noise variance begins.

    Parameters
    ----------
    scale : Scale
    bounds : pair of float, optional

    Returns
    -------
    start : float
    bounds, likely : ndarray of shape (2,)
        All three as natural logarithms; ``likely`` are the least and the greatest value that is likely.

    Raises
    ------
    ValueError
        If bounds are no pair of positive numbers in their order.

    Examples
    --------
    >>> from statespace.filtering.noise import noise_start
    >>> from statespace.kalman.scale import Scale
    >>> start, bounds, likely = noise_start(Scale(value=2.0, time=1.0, span=10.0))
    >>> bool(likely[0] < start < likely[1])
    True
    """
    variance = scale.value**2
    low, high = (_NOISE[0] * variance, _NOISE[1] * variance) if bounds is None else bounds
    if not 0 < low <= high:
        raise ValueError(f"noise_variance_bounds must be a pair 0 < lower <= upper or None. Got {bounds!r}.")
    return np.log(0.1 * variance), np.log([low, high]), np.log([1e-4 * variance, variance])
