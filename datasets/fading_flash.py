"""Flashes whose glow fades at rates that the input names, over gaps that a model may never have seen."""

from typing import NamedTuple

import numpy as np

from statespace.series import SeriesCollection

MARGIN = 4  # samples before the first and after the last change of the rate


class FadingFlash(NamedTuple):
    """What `make_fading_flash` returns.

    Attributes
    ----------
    X : SeriesCollection
        The flashes, 1 or 0, and one channel for each rate, 1 where it is in force.
    y : ndarray of shape (n_series, n_times)
        One target a step: the glow.

    Examples
    --------
    >>> from statespace.datasets import make_fading_flash
    >>> make_fading_flash(n_series=2, random_state=0)._fields
    ('X', 'y')
    """

    X: SeriesCollection
    y: np.ndarray


def make_fading_flash(
    n_series=100,
    n_times=40,
    gap=(0.5, 1.5),
    *,
    irregular=False,
    rates=(1.0, 1.5, 2.0),
    n_flashes=(2, 4),
    n_zones=(2, 3),
    random_state=None,
):
    """Flashes that light a glow, which fades at a rate that the input names: selectivity in physical time.

    .. math:: h'(t) = -λ(t) h(t) + x(t)

    where the flash x and the rate λ of a sample hold over the gap Δ_k that leads to it, so that
    h_k = α_k h_{k−1} + (1 − α_k) x_k / λ_k with α_k = exp(−λ_k Δ_k). A series is cut into zones of one rate each, no
    two neighbours alike. A model trained on some gaps shows on others whether its rates are rates in time: a rate that
    is fixed cannot follow the zones, and a step that is learned from the input does not know what another gap does.

    Parameters
    ----------
    n_series : int, default=100
    n_times : int, default=40
        Samples of a series.
    gap : float or (float, float), default=(0.5, 1.5)
        The gap, or the range in which it is uniform. The paper trains on its default and tests from 0.1 to 2.
    irregular : bool, default=False
        Whether every sample has a gap of its own, instead of one for the series.
    rates : sequence of float, default=(1.0, 1.5, 2.0)
        The rates λ, one over time.
    n_flashes, n_zones : int or (int, int), default=(2, 4) and (2, 3)
        The number of flashes and of zones in a series, or the least and the greatest number of them.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    FadingFlash
        A named tuple of ``X`` and ``y`` (n_series, n_times).

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    The task is that of [1]_, but for the first sample, which never flashes here: its gap is not in the record.

    References
    ----------
    .. [1] T. Soydan, M. A. Bessa, D. Mohr, R. Barreira (2026). TIDES: Implicit Time-Awareness in Selective State Space
       Models. arXiv 2605.09742; https://github.com/TaylanSoydan/TIDES, fading_flash/task.py.

    Examples
    --------
    >>> from statespace.datasets import make_fading_flash
    >>> X, y = make_fading_flash(n_series=3, random_state=0)
    >>> X
    SeriesCollection(3 series, 40 samples, 4 channels, times as numbers)
    >>> y.shape
    (3, 40)
    """
    low, high = _range("gap", gap, 0.0)
    flashes, zones = _range("n_flashes", n_flashes, 0), _range("n_zones", n_zones, 1)
    rates = np.asarray(rates, dtype=float)
    if n_series < 1:
        raise ValueError(f"`n_series` must be at least 1. Got {n_series!r}.")
    if low <= 0 or rates.ndim != 1 or not (rates > 0).all() or len(rates) < (2 if zones[1] > 1 else 1):
        raise ValueError(
            "`gap` and `rates` must be positive, with two rates at least for more than one zone. "
            f"Got {gap!r} and {rates.tolist()}."
        )
    if flashes[1] >= n_times or zones[1] - 1 > max(0, n_times - 2 * MARGIN):
        raise ValueError(
            f"`n_times` leaves no room for {flashes[1]} flashes and {zones[1]} zones. Got {n_times!r}; the first "
            f"sample has no flash, and no zone changes within {MARGIN} samples of an end."
        )
    generator = np.random.default_rng(random_state)
    values, times, targets = [], [], np.empty((n_series, n_times))
    for i in range(n_series):
        flash, rate = np.zeros(n_times), np.empty(n_times, dtype=int)
        count = generator.integers(*flashes, endpoint=True)
        flash[1 + generator.choice(n_times - 1, size=count, replace=False)] = 1.0
        count = generator.integers(*zones, endpoint=True)
        changes = MARGIN + np.sort(generator.choice(max(1, n_times - 2 * MARGIN), size=count - 1, replace=False))
        level = generator.integers(len(rates))
        for start, stop in zip([0, *changes], [*changes, n_times], strict=True):
            rate[start:stop] = level
            level = (level + generator.integers(1, max(2, len(rates)))) % len(rates)
        gaps = generator.uniform(low, high, size=n_times if irregular else 1) * np.ones(n_times)
        decay = np.exp(-rates[rate] * gaps)
        written = -np.expm1(-rates[rate] * gaps) / rates[rate] * flash
        h = 0.0
        for k in range(n_times):
            h = targets[i, k] = decay[k] * h + written[k]
        values.append(np.column_stack([flash, np.eye(len(rates))[rate]]))
        times.append(np.cumsum(gaps) - gaps[0])
    return FadingFlash(SeriesCollection(values, times=times), targets)


def _range(name, value, least):
    low, high = (value, value) if np.ndim(value) == 0 else value
    if not least <= low <= high:
        raise ValueError(f"`{name}` must be at least {least}, or (least, greatest). Got {value!r}.")
    return low, high
