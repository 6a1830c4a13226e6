"""Random numbers for filters whose steps are functions of a state: each step has a generator of its own."""

import numpy as np


class Seed(tuple):
    """(entropy, steps drawn so far): the same seed gives the same numbers, in whatever order states are stepped."""

    __slots__ = ()

    @classmethod
    def of(cls, random_state):
        """The seed of a record.

        Parameters
        ----------
        random_state : int, Generator or None

        Returns
        -------
        Seed
        """
        if isinstance(random_state, np.random.Generator):
            return cls((int(random_state.integers(2**63)), 0))
        if random_state is not None and (isinstance(random_state, bool) or int(random_state) != random_state):
            raise ValueError(f"random_state must be a whole number, a Generator or None. Got {random_state!r}.")
        return cls((np.random.SeedSequence(random_state).entropy, 0))

    def draw(self):
        """A generator for one step, and the seed of the next.

        Returns
        -------
        Generator
        Seed
        """
        entropy, steps = self
        sequence = np.random.SeedSequence(entropy, spawn_key=(steps,))
        return np.random.Generator(np.random.PCG64(sequence)), Seed((entropy, steps + 1))


def log_sum(logs):
    """log Σ exp(l): scipy's logsumexp without what it does for arrays of every kind, which costs more than the sum.

    Parameters
    ----------
    logs : ndarray of shape (m,)

    Returns
    -------
    float
        −inf where all are; NaN where one is NaN.
    """
    largest = float(logs.max())
    if not np.isfinite(largest):
        return largest
    return largest + float(np.log(np.exp(logs - largest).sum()))


def weighted_covariance(values, mean, weights, difference):
    """Σ w (x − m)(x − m)ᵀ.

    Parameters
    ----------
    values : ndarray of shape (N, n)
    mean : ndarray of shape (n,)
    weights : ndarray of shape (N,)
    difference : callable

    Returns
    -------
    ndarray of shape (n, n)
    """
    deviations = difference(values, mean)
    return (deviations * weights[:, None]).T @ deviations
