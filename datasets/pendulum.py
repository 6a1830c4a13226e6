"""Images of a swinging pendulum behind noise that comes and goes, sampled at random times."""

from typing import NamedTuple

import numpy as np

from statespace.series import SeriesCollection

GRAVITY = 9.81
STEP = 0.05  # seconds between two of the ``n_times`` points of the grid
SUBSTEPS = 10  # of the integration, in each of them


class Pendulum(NamedTuple):
    """What `make_pendulum` returns.

    Attributes
    ----------
    X : SeriesCollection
        The images, row by row from the top, one channel for each pixel in [0, 1]; times in units of the grid's step.
    y : ndarray of shape (n_series, n_kept, 2)
        One target a step: sine and cosine of the angle, which is 0 where the pendulum hangs down.
    clarity : ndarray of shape (n_series, n_kept)
        How much of each image is the pendulum and not noise: 1 is a clear image, 0 noise alone.

    Examples
    --------
    >>> from statespace.datasets import make_pendulum
    >>> make_pendulum(n_series=2, random_state=0)._fields
    ('X', 'y', 'clarity')
    """

    X: SeriesCollection
    y: np.ndarray
    clarity: np.ndarray


def make_pendulum(
    n_series=100,
    n_times=100,
    n_kept=50,
    image_size=24,
    *,
    torque_noise=0.1,
    friction=0.1,
    n_clear=5,
    random_state=None,
):
    """Images of a pendulum that random torques disturb, at a random part of the times; the angle is to be told.

    .. math:: θ'' = -\\frac{g}{l} \\sin θ - γ θ' + σ w(t)

    from rest at an angle that is uniform in [−π, π), with g = 9.81, l = 1, unit mass, friction γ and white noise w of
    size σ; observed every 0.05 s for ``n_times`` steps, of which ``n_kept`` are left at random. The bob is a white disk
    on black. Noise hides it in stretches: with f_0 uniform in [0, 1] and a random walk f_k = f_{k−1} + r_k, r_k uniform
    in [−0.2, 0.2], held within [0, 1], the clarity of image k is 0 where f_k < t₁, 1 where f_k > t₂ and linear between
    (t₁ uniform in [0, 0.25], t₂ in [0.75, 1], one of each for a series); the rest of the image are pixels uniform in
    [0, 1]. At the first ``n_clear`` points of the grid there is no noise. An image says nothing of the velocity and
    often little of the angle, so that a model has to know how far the pendulum has swung since the last clear one.

    Parameters
    ----------
    n_series : int, default=100
    n_times : int, default=100
        Points of the grid.
    n_kept : int, default=50
        How many of them are observed, at least 1.
    image_size : int, default=24
        Pixels of a side.
    torque_noise : float, default=0.1
        σ, in rad s^(−3/2).
    friction : float, default=0.1
        γ, in 1/s.
    n_clear : int, default=5
        Points at the beginning of the grid whose images are clear; ``n_times``: all.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    Pendulum
        A named tuple of ``X``, ``y`` and ``clarity``.

    Raises
    ------
    ValueError
        If a number is out of range.

    References
    ----------
    P. Becker, H. Pandya, G. Gebhardt, C. Zhao, J. Taylor, G. Neumann (2019). Recurrent Kalman Networks: Factorized
    Inference in High-Dimensional Deep Feature Spaces. ICML: the noise.
    M. Schirmer, M. Eltayeb, S. Lessmann, M. Rudolph (2022). Modeling Irregular Time Series with Continuous Recurrent
    Units. ICML: the task, 50 of 100 times. The friction and the size of the torques are this function's own.

    Examples
    --------
    >>> from statespace.datasets import make_pendulum
    >>> X, y, clarity = make_pendulum(n_series=3, random_state=0)
    >>> X
    SeriesCollection(3 series, 50 samples, 576 channels, times as numbers)
    >>> y.shape, clarity.shape
    ((3, 50, 2), (3, 50))
    """
    if n_series < 1 or not 1 <= n_kept <= n_times or image_size < 4 or min(torque_noise, friction, n_clear) < 0:
        raise ValueError(
            "`n_series` must be at least 1, `n_kept` from 1 to `n_times`, `image_size` at least 4, `torque_noise`, "
            f"`friction` and `n_clear` not negative. Got {n_series!r}, {n_kept!r} of {n_times!r}, {image_size!r}, "
            f"{torque_noise!r}, {friction!r}, {n_clear!r}."
        )
    generator = np.random.default_rng(random_state)
    angle = _swing(n_series, n_times, torque_noise, friction, generator)
    clarity = _clarity(n_series, n_times, generator)
    clarity[:, :n_clear] = 1
    kept = np.sort(generator.permuted(np.tile(np.arange(n_times), (n_series, 1)), axis=1)[:, :n_kept], axis=1)
    angle, clarity = (np.take_along_axis(x, kept, axis=1) for x in (angle, clarity))
    images = []
    for theta, clear in zip(angle, clarity, strict=True):
        image = _draw(theta, image_size).reshape(n_kept, -1)
        noise = generator.uniform(size=image.shape)
        images.append(clear[:, np.newaxis] * image + (1 - clear[:, np.newaxis]) * noise)
    y = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    return Pendulum(SeriesCollection(images, times=list(kept.astype(np.float64))), y, clarity)


def _swing(n_series, n_times, torque_noise, friction, generator):
    """Angles (n_series, n_times) by Euler & Cromer's rule, which keeps the energy of a free pendulum bounded."""
    angle, velocity = generator.uniform(-np.pi, np.pi, size=n_series), np.zeros(n_series)
    dt = STEP / SUBSTEPS
    angles = np.empty((n_series, n_times))
    for k in range(n_times):
        angles[:, k] = angle
        for _ in range(SUBSTEPS):
            kick = torque_noise * np.sqrt(dt) * generator.normal(size=n_series)
            velocity = velocity - dt * (GRAVITY * np.sin(angle) + friction * velocity) + kick
            angle = angle + dt * velocity
    return angles


def _clarity(n_series, n_times, generator):
    walk = np.empty((n_series, n_times))
    walk[:, 0] = generator.uniform(size=n_series)
    for k in range(1, n_times):
        walk[:, k] = np.clip(walk[:, k - 1] + generator.uniform(-0.2, 0.2, size=n_series), 0, 1)
    low, high = generator.uniform(0, 0.25, size=(n_series, 1)), generator.uniform(0.75, 1, size=(n_series, 1))
    return np.clip((walk - low) / (high - low), 0, 1)


def _draw(angle, size):
    """Images (n, size, size) of a disk at the end of a rod that is fixed in the middle, its edge one pixel wide."""
    radius, length = size / 8, 0.34 * size
    pixel = np.arange(size) + 0.5 - size / 2
    x = pixel[np.newaxis, np.newaxis, :] - length * np.sin(angle)[:, np.newaxis, np.newaxis]
    y = pixel[np.newaxis, :, np.newaxis] - length * np.cos(angle)[:, np.newaxis, np.newaxis]
    return np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
