"""Irregularly sampled damped oscillators, which no model can follow that ignores the gaps."""

from typing import NamedTuple

import numpy as np

from statespace.series import SeriesCollection


class Oscillators(NamedTuple):
    """What `make_oscillators` returns.

    Attributes
    ----------
    X : SeriesCollection
        One channel, the displacement with noise; times in units of the mean gap.
    y : ndarray of shape (n_series,)
        One target a series: log₂ of its frequency in cycles per unit of time.
    y_steps : list of ndarray of shape (n_times_i,)
        One target a step: the velocity without noise, divided by the angular frequency of the series.

    Examples
    --------
    >>> from statespace.datasets import make_oscillators
    >>> make_oscillators(n_series=3, random_state=0)._fields
    ('X', 'y', 'y_steps')
    """

    X: SeriesCollection
    y: np.ndarray
    y_steps: list


def make_oscillators(n_series=100, n_times=(40, 80), noise=0.05, regular=False, random_state=None):
    """Damped oscillations of random frequency, sampled at random times.

    .. math:: x(t) = e^{-γ t} \\cos(ω t + φ), \\quad ω = 2π f, \\quad γ = ω / 2Q

    with log₂ f uniform in [−5, −2], the quality Q uniform in [5, 20], the phase φ uniform in [0, 2π) and gaps that are
    exponential with mean one, so that values without their times say little about f.

    Parameters
    ----------
    n_series : int, default=100
    n_times : int or (int, int), default=(40, 80)
        The number of samples of every series, or the least and the greatest number of them.
    noise : float, default=0.05
        Standard deviation of the measurement noise; the amplitude at the start is 1.
    regular : bool, default=False
        Whether all gaps are 1 instead.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    Oscillators
        A named tuple of ``X``, ``y`` (n_series,) and ``y_steps``, a list of (n_times_i,).

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from statespace.datasets import make_oscillators
    >>> X, y, y_steps = make_oscillators(n_series=3, n_times=(5, 9), random_state=0)
    >>> X
    SeriesCollection(3 series, 7 to 9 samples, 1 channel, times as numbers)
    >>> y.shape, [len(v) for v in y_steps]
    ((3,), [9, 8, 7])
    """
    low, high = (n_times, n_times) if np.ndim(n_times) == 0 else n_times
    if n_series < 1 or not 1 <= low <= high or noise < 0:
        raise ValueError(
            "`n_series` must be at least 1, `n_times` a positive number or (least, greatest), `noise` not negative. "
            f"Got {n_series!r}, {n_times!r}, {noise!r}."
        )
    generator = np.random.default_rng(random_state)
    lengths = generator.integers(low, high, size=n_series, endpoint=True)
    frequency = 2.0 ** generator.uniform(-5, -2, size=n_series)
    values, times, velocities = [], [], []
    for n, omega in zip(lengths, 2 * np.pi * frequency, strict=True):
        gaps = np.ones(n) if regular else generator.exponential(size=n)
        t = np.cumsum(gaps) - gaps[0]
        gamma = omega / (2 * generator.uniform(5, 20))
        angle, envelope = omega * t + generator.uniform(0, 2 * np.pi), np.exp(-gamma * t)
        values.append(envelope * np.cos(angle) + noise * generator.normal(size=n))
        velocities.append(-envelope * (np.sin(angle) + gamma / omega * np.cos(angle)))
        times.append(t)
    return Oscillators(SeriesCollection(values, times=times), np.log2(frequency), velocities)
