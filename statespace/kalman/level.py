"""The constant that a process absorbs: a diffuse direction that never changes and is read as 1."""

import numpy as np

from statespace.kalman.base import Component
from statespace.kalman.composition import Rescaled, Sum

# No rotation returns to where it was over all three.
_GAPS = np.array([0.37, 1.0, np.e])


def find_level(process):
    """The component whose diffuse start absorbs any constant that is added to y.

    With D the diffuse directions there is a c such that H D c = 1 and A(Δ) D c = D c for every Δ. The likelihood of
    y − b is then that of y, and the signal given y − b is that given y, less b: a level of 1e9 can be taken away before
    anything is rounded.

    Parameters
    ----------
    process : Component

    Returns
    -------
    int or None
        Its place in ``process.named()``.

    Examples
    --------
    >>> from statespace.kalman import LocalTrend, Matern, Seasonal
    >>> from statespace.kalman.level import find_level
    >>> find_level(Matern() + Seasonal(12) + LocalTrend())
    2
    >>> find_level(Matern()) is None
    True
    """
    for place, component in enumerate(process.components if isinstance(process, Sum) else [process]):
        own = component.component if isinstance(component, Rescaled) else component
        if type(own).design is Component.design and _is_level(component):
            return place
    return None


def _is_level(component):
    diffuse = component.initial().diffuse
    if diffuse.shape[1] == 0:
        return False
    moves = (component.transition(_GAPS) - np.eye(len(diffuse))) @ diffuse
    system = np.vstack([moves.reshape(-1, diffuse.shape[1]), component.observation() @ diffuse])
    wanted = np.zeros(len(system))
    wanted[-1] = 1.0
    direction = np.linalg.lstsq(system, wanted)[0]
    return bool(np.abs(system @ direction - wanted).max() < 1e-12)
