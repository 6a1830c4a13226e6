"""Predators and prey, seen one at a time at random times: a forecast of a nonlinear system from what is left."""

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from statespace.series import SeriesCollection


class PredatorPrey(NamedTuple):
    """What `make_predator_prey` returns.

    Attributes
    ----------
    X : SeriesCollection
        Two channels, the logarithms of prey and predators with noise, NaN where not seen. The last sample of a series
        is the question: nothing is seen, and its time is when the answer is wanted.
    y : ndarray of shape (n_series, 2)
        Logarithms of prey and predators at the last time, without noise.

    Examples
    --------
    >>> from statespace.datasets import make_predator_prey
    >>> make_predator_prey(n_series=2, random_state=0)._fields
    ('X', 'y')
    """

    X: SeriesCollection
    y: np.ndarray


def make_predator_prey(n_series=100, n_times=(20, 40), noise=0.1, horizon=(0.5, 3.0), together=0.1, random_state=None):
    """Forecasts of predators and prey from records that are irregular, noisy, and seen one channel at a time.

    .. math:: u' = a (1 - e^{v}), \\quad v' = b (e^{u} - 1)

    the Lotka-Volterra system in the logarithms u of the prey and v of the predators, relative to their equilibrium. The
    rates a and b are log-uniform in [1/2, 2] for each series, and the start is normal; small cycles take 2π/√(ab),
    large ones longer. Samples come at exponential gaps of mean 0.4. Each shows one channel, chosen at random, or with
    probability ``together`` both.

    Parameters
    ----------
    n_series : int, default=100
    n_times : int or (int, int), default=(20, 40)
        Samples that show something, of every series, or the least and the greatest number of them.
    noise : float, default=0.1
        Standard deviation of the noise.
    horizon : (float, float), default=(0.5, 3.0)
        Range of the uniform time from the last of these to the one that is asked for.
    together : float, default=0.1
        Share of samples that show both channels.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    PredatorPrey
        A named tuple of ``X`` and ``y``.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from statespace.datasets import make_predator_prey
    >>> X, y = make_predator_prey(n_series=3, n_times=(5, 9), random_state=0)
    >>> X
    SeriesCollection(3 series, 7 to 10 samples, 2 channels, times as numbers)
    >>> y.shape
    (3, 2)
    """
    low, high = (n_times, n_times) if np.ndim(n_times) == 0 else n_times
    if n_series < 1 or not 1 <= low <= high or noise < 0 or not 0 <= together <= 1:
        raise ValueError(
            "`n_series` must be at least 1, `n_times` a positive number or (least, greatest), `noise` not negative, "
            f"`together` a share. Got {n_series!r}, {n_times!r}, {noise!r}, {together!r}."
        )
    if not 0 < horizon[0] <= horizon[1]:
        raise ValueError(f"`horizon` must be (least, greatest), both positive. Got {horizon!r}.")
    generator = np.random.default_rng(random_state)
    values, times, answers = [], [], np.empty((n_series, 2))
    for i in range(n_series):
        n = generator.integers(low, high, endpoint=True)
        rates = 2.0 ** generator.uniform(-1, 1, size=2)
        t = np.cumsum(np.append(generator.exponential(0.4, size=n), generator.uniform(*horizon)))
        states = solve_ivp(
            _slopes, (0.0, t[-1]), generator.normal(scale=0.7, size=2), "LSODA", t, args=rates, rtol=1e-8, atol=1e-8
        ).y.T
        seen = states + noise * generator.normal(size=states.shape)
        hidden = generator.integers(0, 2, size=n + 1)
        hidden[generator.random(n + 1) < together] = 2  # none of the two
        seen[np.arange(2) == hidden[:, None]] = np.nan
        seen[-1] = np.nan
        values.append(seen)
        times.append(t)
        answers[i] = states[-1]
    return PredatorPrey(SeriesCollection(values, times), answers)


def _slopes(t, state, a, b):
    u, v = state
    return a * (1 - np.exp(v)), b * (np.exp(u) - 1)
