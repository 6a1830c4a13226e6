"""Makes a record irregular by leaving samples out."""

import numpy as np


def make_irregular(*arrays, keep=0.5, n_gaps=0, gap_length=0.05, random_state=None):
    """The same rows of one or several arrays, chosen at random and kept in their order.

    Each row is kept with equal chance, after whole stretches have been left out if there are any.

    Parameters
    ----------
    *arrays : array-like of shape (n_times, ...), DataFrame or Series
        All of the same length; the index of a DataFrame goes with its rows.
    keep : float, default=0.5
        The fraction of all rows that remains, in (0, 1].
    n_gaps : int, default=0
        The number of stretches that are left out as a whole; they may overlap.
    gap_length : float, default=0.05
        The length of such a stretch, as a fraction of the record.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same rows.

    Returns
    -------
    array or list of arrays
        As many as were given, of the same kind, with round(keep · n_times) rows: at least one, and fewer if the
        stretches leave fewer.

    Raises
    ------
    ValueError
        If a fraction is outside its range, there is nothing to choose from, or lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.datasets import make_irregular
    >>> times, values = make_irregular(np.arange(8), np.arange(8) ** 2, keep=0.5, random_state=0)
    >>> times
    array([2, 3, 4, 6])
    >>> values
    array([ 4,  9, 16, 36])
    """
    if not arrays:
        raise ValueError("make_irregular needs at least one array.")
    for name, value, low_open in (("keep", keep, True), ("gap_length", gap_length, False)):
        if not (0 < value <= 1 if low_open else 0 <= value < 1):
            raise ValueError(f"`{name}` must be a fraction in {'(0, 1]' if low_open else '[0, 1)'}. Got {value!r}.")
    n_times = len(arrays[0])
    if n_times == 0 or any(len(a) != n_times for a in arrays):
        raise ValueError(f"arrays must be of one length and not empty. Got lengths {[len(a) for a in arrays]}.")
    generator = np.random.default_rng(random_state)
    left = np.ones(n_times, dtype=bool)
    length = round(gap_length * n_times)
    for start in generator.integers(0, n_times - length + 1, size=n_gaps):
        left[start : start + length] = False
    candidates = np.flatnonzero(left)
    if len(candidates) == 0:
        raise ValueError(f"{n_gaps} stretches of {length} rows leave none of {n_times}. Lower n_gaps or gap_length.")
    n_kept = min(max(round(keep * n_times), 1), len(candidates))
    rows = np.sort(generator.choice(candidates, size=n_kept, replace=False))
    chosen = [a.iloc[rows] if hasattr(a, "iloc") else np.asarray(a)[rows] for a in arrays]
    return chosen if len(chosen) > 1 else chosen[0]
