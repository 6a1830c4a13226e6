"""θ as the kernel's numbers, and their gradient as that by θ, where each number is a product of powers of exp θ.

    p_i = p_i(0) exp(Σ_j E_ij θ_j),      ∂ℓ/∂θ_j = Σ_i E_ij p_i ∂ℓ/∂p_i:

a variance, a rate √(2ν)/length, an entry σ² λ² of a start's covariance. Nearly every closed form is made of such, and
sums of them are; a search then needs no copies of components. Above: `likelihood`. Below: `closed`.
"""

import numpy as np

from statespace.kalman.closed import ClosedForm
from statespace.kalman.composition import Sum


class Powers:
    """Numbers that are products of powers.

    Parameters
    ----------
    values : ndarray of shape (...)
        At θ = 0.
    exponents : ndarray of shape (..., k)

    Attributes
    ----------
    moves : ndarray of bool, shape (...)
        Which numbers depend on θ.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.powers import Powers
    >>> numbers, out = Powers(np.array([2.0, 3.0]), np.array([[1.0, -2.0], [0.0, 0.0]])), np.zeros(2)
    >>> numbers.write(np.log([3.0, 2.0]), out)
    >>> out
    array([1.5, 0. ])
    """

    def __init__(self, values, exponents):
        self.moves = (exponents != 0.0).any(axis=-1)
        self._places = np.flatnonzero(self.moves)
        self._values, self._exponents = values[self.moves], exponents[self.moves]
        self._now = self._values

    def write(self, theta, out):
        """Write the numbers that depend on θ into ``out``, of the shape of all of them and C-contiguous."""
        if len(self._places):
            self._now = self._values * np.exp(self._exponents @ theta)
            out.reshape(-1)[self._places] = self._now

    def pullback(self, gradient):
        """ndarray of shape (k,): the gradient by the θ that was written last, from that by all numbers."""
        return (self._now * gradient.reshape(-1)[self._places]) @ self._exponents


def powers(process):
    """The block parameters and the start's covariance of a process as `Powers`.

    Parameters
    ----------
    process : Component

    Returns
    -------
    (Powers, Powers) or None
        None if they are not products of powers, or θ enters elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel, Matern
    >>> from statespace.kalman.powers import powers
    >>> parameters, _ = powers(LocalLevel() + Matern(nu=1.5))
    >>> out = np.zeros((2, 3))
    >>> parameters.write(np.log([2.0, 3.0, 5.0]), out)
    >>> out.round(4)
    array([[2.    , 0.    , 0.    ],
           [0.5774, 5.    , 0.    ]])
    """
    components = process.components if isinstance(process, Sum) else [process]
    if not all(isinstance(component, ClosedForm) for component in components):
        return None
    k = len(process.free)
    process = process.clone_with_theta(np.zeros(k))
    parameters, start = process.blocks().parameters, process.initial()
    by_blocks, by_start = np.zeros((*parameters.shape, k)), np.zeros((*start.covariance.shape, k))
    block = state = column = 0
    for component in process.components if isinstance(process, Sum) else [process]:
        derivatives = component.derivatives()
        n_blocks, n = len(component.blocks().kind), component.n_states
        for name in component.free:
            of_blocks, of_start = derivatives[name]
            by_blocks[block : block + n_blocks, :, column] = of_blocks
            if of_start is not None:
                by_start[state : state + n, state : state + n, column] = of_start
            column += 1
        block, state = block + n_blocks, state + n
    result = _exponents(parameters, by_blocks), _exponents(start.covariance, by_start)
    # What is a power there is one everywhere else, or it is none.
    theta = np.linspace(-0.7, 0.9, k)
    other = process.clone_with_theta(theta)
    numbers, covariance, expected = parameters.copy(), start.covariance.copy(), other.initial()
    result[0].write(theta, numbers)
    result[1].write(theta, covariance)
    pairs = [
        (numbers, other.blocks().parameters), (covariance, expected.covariance), (start.mean, expected.mean),
        (start.diffuse, expected.diffuse),
    ]  # fmt: skip
    return result if all(np.allclose(mine, true, rtol=1e-12, atol=0.0) for mine, true in pairs) else None


def _exponents(values, derivatives):
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.where(derivatives == 0.0, 0.0, derivatives / values[..., np.newaxis])
    # Where they stand for whole or half powers, rounding is taken off them.
    halves = np.rint(2.0 * exponents) / 2.0
    near = np.abs(exponents - halves) < 1e-12
    return Powers(values, np.where(near, halves, exponents))
