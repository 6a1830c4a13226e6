"""Which entries of a system are learned, and θ, the unbounded numbers that stand for them.

Entries of a matrix stand for themselves. A variance is exp(2θ). A covariance is L Lᵀ with L lower triangular, the
logarithms of its diagonal and the rest of it in units of the standard deviations that it has at the start: whatever θ
is, the covariance is one. Above: `estimation`. Below: `system`.
"""

from typing import NamedTuple

import numpy as np

from statespace.kalman.system import AT, BETWEEN

COVARIANCES = ("process_noise", "observation_noise", "initial_covariance")
MATRICES = (
    "transition", "observation", "state_intercept", "observation_intercept", "input_matrix", "feedthrough",
    "initial_mean",
)  # fmt: skip
# How far the logarithm of a standard deviation may go from where it starts.
_FAR = 30.0


class Free(NamedTuple):
    """One array: ``kind`` is "entries" (of a matrix), "full", "diagonal" or "scalar" (of a covariance)."""

    name: str
    kind: str
    mask: np.ndarray


def check_free(free, system, varying, stationary):
    """The caller's wish as a list of `Free`, or a ValueError that says what can be wished."""
    if free is None:
        free = ("process_noise", "observation_noise")
    wishes = free if isinstance(free, dict) else {name: True for name in ([free] if isinstance(free, str) else free)}
    if not wishes:
        raise ValueError(f"free must name at least one of {', '.join(MATRICES + COVARIANCES)}.")
    result = []
    for name, wish in wishes.items():
        if name not in MATRICES + COVARIANCES:
            raise ValueError(f"free must name some of {', '.join(MATRICES + COVARIANCES)}. Got {name!r}.")
        if name in varying:
            raise ValueError(f"{name} changes from time to time: only a constant array can be learned.")
        if name.startswith("initial"):
            if stationary:
                raise ValueError(
                    f"{name} follows from the stationary start. Give initial_covariance as a matrix to learn it."
                )
            if system.initial_diffuse.shape[1]:
                raise ValueError(
                    f"{name} cannot be learned beside a diffuse start. Give initial_covariance as a matrix."
                )
        array = _value(system, name)
        if array.size == 0:
            raise ValueError(f"the model has no {name}. Give it a start value to learn it.")
        result.append(_wish(name, wish, array))
    return result


def _wish(name, wish, array):
    whole = isinstance(wish, bool | np.bool_)
    if whole and not wish:
        raise ValueError(f"free[{name!r}] is False. Leave it out.")
    if name in MATRICES:
        mask = np.ones(array.shape, bool) if whole else np.asarray(wish)
        if mask.dtype != bool or mask.shape != array.shape or not mask.any():
            raise ValueError(
                f"free[{name!r}] must be True or a mask of shape {array.shape} with something in it. Got {wish!r}."
            )
        return Free(name, "entries", mask)
    k = len(array)
    if whole:
        wish = "full" if k > 1 else "diagonal"
    kinds = ("diagonal", "scalar")
    if isinstance(wish, str):
        if wish not in (*kinds, "full"):
            raise ValueError(f"free[{name!r}] must be True, one of {kinds}, or a mask of shape ({k},). Got {wish!r}.")
        free = Free(name, wish, np.ones(k, bool))
    else:
        mask = np.asarray(wish)
        if mask.dtype != bool or mask.shape != (k,) or not mask.any():
            raise ValueError(f"free[{name!r}] must be True, one of {kinds}, or a mask of shape ({k},). Got {wish!r}.")
        free = Free(name, "diagonal", mask)
    if free.kind != "full":
        rest = array - np.diag(np.diag(array))
        if rest[free.mask].any():
            raise ValueError(f"{name} must start without correlations where its diagonal alone is free.")
    variances = np.diag(array)[free.mask]
    if not (variances > 0.0).all():
        raise ValueError(f"the variances of {name} that are free must start above 0. Got {variances.tolist()}.")
    return free


def _value(system, name):
    array = getattr(system, name)
    return array[0] if name in BETWEEN + AT else array


class Parameters:
    """The free entries of a system as θ, natural values, and gradients.

    Parameters
    ----------
    free : list of Free
    system : System
        Holds the start values.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LinearGaussianModel
    >>> from statespace.kalman.free import Parameters, check_free
    >>> system = LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[4.0]]).system_
    >>> parameters = Parameters(check_free(None, system, set(), False), system)
    >>> parameters.start.round(3), parameters.names
    (array([0.   , 0.693]), ['process_noise[0, 0]', 'observation_noise[0, 0]'])
    """

    def __init__(self, free, system):
        self.free = free
        self.system = system
        parts, limits = [], []
        self.names = []
        self._units = []
        for name, kind, mask in free:
            array = _value(system, name)
            unit = None
            if kind == "entries":
                parts.append(array[mask])
                limits += [(-np.inf, np.inf)] * int(mask.sum())
                places = np.argwhere(mask)
            elif kind == "full":
                unit = np.sqrt(np.diag(array))
                correlation = array / np.outer(unit, unit)
                values, vectors = np.linalg.eigh(correlation)
                L = np.linalg.cholesky((vectors * np.maximum(values, 1e-6)) @ vectors.T)
                on = np.eye(len(L), dtype=bool)
                L[on] = np.log(L[on])
                rows, columns = np.tril_indices(len(L))
                parts.append(L[rows, columns])
                limits += [(x - _FAR, x + _FAR) if i == j else (-np.inf, np.inf) for x, i, j in
                           zip(L[rows, columns], rows, columns, strict=True)]  # fmt: skip
                places = np.column_stack([rows, columns])
            else:
                logs = 0.5 * np.log(np.diag(array)[mask])
                logs = np.array([logs.mean()]) if kind == "scalar" else logs
                parts.append(logs)
                limits += [(x - _FAR, x + _FAR) for x in logs]
                places = np.repeat(np.flatnonzero(mask), 2).reshape(-1, 2)[: len(logs)]
            self._units.append(unit)
            self.names += [f"{name}[{', '.join(map(str, place))}]" for place in places.tolist()]
        self.start = np.concatenate(parts)
        self.bounds = np.array(limits)

    def _parts(self, theta):
        first = 0
        for (name, kind, mask), unit in zip(self.free, self._units, strict=True):
            k = len(mask) * (len(mask) + 1) // 2 if kind == "full" else 1 if kind == "scalar" else int(mask.sum())
            yield name, kind, mask, unit, theta[first : first + k]
            first += k

    def _factor(self, part, unit):
        k = len(unit)
        L = np.zeros((k, k))
        L[np.tril_indices(k)] = part
        on = np.eye(k, dtype=bool)
        L[on] = np.exp(L[on])
        return L * unit[:, np.newaxis]

    def arrays(self, theta):
        """The arrays at θ, as a dict; each has the shape that the system has it in."""
        result = {}
        for name, kind, mask, unit, part in self._parts(theta):
            array = _value(self.system, name).copy()
            if kind == "entries":
                array[mask] = part
            elif kind == "full":
                L = self._factor(part, unit)
                array = L @ L.T
            else:
                array[mask, mask] = np.exp(2.0 * part)
            result[name] = array[np.newaxis] if name in BETWEEN + AT else array
        return result

    def pullback(self, theta, gradients):
        """The gradient by θ from those by the arrays, a dict of arrays of the system's shapes."""
        result = []
        for name, kind, mask, unit, part in self._parts(theta):
            bar = gradients[name][0] if name in BETWEEN + AT else gradients[name]
            if kind == "entries":
                result.append(bar[mask])
            elif kind == "full":
                L = self._factor(part, unit)
                by_factor = 2.0 * (0.5 * (bar + bar.T) @ L) * unit[:, np.newaxis]
                on = np.eye(len(L), dtype=bool)
                by_factor[on] *= (L / unit[:, np.newaxis])[on]
                result.append(by_factor[np.tril_indices(len(L))])
            else:
                by_log = 2.0 * np.exp(2.0 * part) * np.diag(bar)[mask]
                result.append(by_log.sum(keepdims=True) if kind == "scalar" else by_log)
        return np.concatenate(result)

    def natural(self, theta):
        """The free entries themselves, in the order of ``names``."""
        values = []
        for (name, kind, mask), array in zip(self.free, self.arrays(theta).values(), strict=True):
            array = array[0] if name in BETWEEN + AT else array
            if kind == "entries":
                values.append(array[mask])
            elif kind == "full":
                values.append(array[np.tril_indices(len(array))])
            else:
                values.append(np.diag(array)[mask][: 1 if kind == "scalar" else None])
        return np.concatenate(values)
