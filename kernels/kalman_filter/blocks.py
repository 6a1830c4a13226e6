"""The blocks of a block-diagonal A(Δ), Q(Δ): what a linear-Gaussian model is made of.

Letters: Δ gap, A(Δ) transition, Q(Δ) process noise over the gap, λ rate, ω angular frequency, q variance per unit of
time, σ² marginal variance, R(φ) rotation. The formulas stand in ``discretization.py``.
"""

from typing import NamedTuple

import numpy as np

from statespace.kernels import cuda
from statespace.kernels.dispatch import on_gpu

RANDOM_WALK, TREND, ROTATION, OU, MATERN32, MATERN52, TABLE, ROTATED_OU, ROTATED_MATERN32, ROTATED_MATERN52, SHO = (
    range(11)
)

NAMES = (
    "RANDOM_WALK", "TREND", "ROTATION", "OU", "MATERN32", "MATERN52", "TABLE", "ROTATED_OU", "ROTATED_MATERN32",
    "ROTATED_MATERN52", "SHO",
)  # fmt: skip
SIZES = {
    TREND: 2, ROTATION: 2, OU: 1, MATERN32: 2, MATERN52: 3, ROTATED_OU: 2, ROTATED_MATERN32: 4, ROTATED_MATERN52: 6,
    SHO: 2,
}  # fmt: skip
N_PARAMETERS = 3
_ZERO_COLUMNS, _NO_ROWS = np.zeros((1, 0)), np.zeros(0, dtype=np.int64)


class Blocks(NamedTuple):
    """The diagonal blocks of A(Δ) and Q(Δ), in the order of the state.

    kind           size     parameters     process
    ==================== ======== ============== =====================================================================
    kind                 size     parameters     process
    ==================== ======== ============== =====================================================================
    ``RANDOM_WALK``      any s    q              A = I, Q = qΔ I
    ``TREND``            2        q_level,       A = [[1, Δ], [0, 1]],
                                  q_slope        Q = q_level Δ e₁e₁ᵀ + q_slope [[Δ³/3, Δ²/2], [Δ²/2, Δ]]
    ``ROTATION``         2        ω, q           A = R(ωΔ) = [[c, s], [−s, c]], c = cos ωΔ, s = sin ωΔ; Q = qΔ I
    ``OU``               1        λ, σ²          covariance σ² exp(−λ|Δ|)
    ``MATERN32``         2        λ, σ²          covariance σ² (1 + λ|Δ|) exp(−λ|Δ|); state (f, f′)
    ``MATERN52``         3        λ, σ²          covariance σ² (1 + λ|Δ| + λ²Δ²/3) exp(−λ|Δ|); state (f, f′, f″)
    ``TABLE``            any s    –              A and Q looked up: row ``gap_index[t]`` of ``transition`` and
                                                 ``process_noise``; A = I, Q = 0 where that is −1
    ``ROTATED_OU``       2        λ, σ², ω       A = R(ωΔ) ⊗ A_OU, Q = I₂ ⊗ Q_OU: covariance cos(ωΔ) σ² exp(−λ|Δ|)
    ``ROTATED_MATERN32`` 4        λ, σ², ω       R(ωΔ) ⊗ A_M, I₂ ⊗ Q_M: the same of a Matérn 3/2
    ``ROTATED_MATERN52`` 6        λ, σ², ω       the same of a Matérn 5/2
    ``SHO``              2        ω₀, σ²,        f″ + (ω₀/quality) f′ + ω₀² f = noise, marginal variance σ²;
                                  quality        state (f, f′/ω₀), whose stationary covariance is σ² I
    ==================== ======== ============== =====================================================================

    Parameters
    ----------
    kind : ndarray of int64, shape (n_blocks,)
        One of the constants above.
    size : ndarray of int64, shape (n_blocks,)
        States of each block.
    parameters : ndarray of float64, shape (n_blocks, 3)
        λ and ω in radians per unit of time, q and σ² in squared units of the state; 0 where a kind has none. A third
        column that is 0 throughout may be left away.
    transition, process_noise : ndarray of float64, shape (n_gaps, Σ s²), optional
        Only for TABLE blocks: their matrices, row-major, one block after the other; one row for each distinct gap.
    gap_index : ndarray of int64, shape (n_times,), optional
        Only for TABLE blocks: the row that leads from sample t − 1 to sample t. −1 stays where it is: the entries of a
        vector observation are filtered as samples of their own, one after the other, with −1 from the second on.

    Examples
    --------
    A level and one harmonic of period 12:

    >>> import math
    >>> from statespace.kernels.kalman_filter import Blocks
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK, ROTATION
    >>> Blocks([RANDOM_WALK, ROTATION], [1, 2], [[0.5, 0.0], [2 * math.pi / 12, 0.01]]).n_states
    3
    """

    kind: np.ndarray
    size: np.ndarray
    parameters: np.ndarray
    transition: np.ndarray = _ZERO_COLUMNS
    process_noise: np.ndarray = _ZERO_COLUMNS
    gap_index: np.ndarray = _NO_ROWS

    @property
    def n_states(self):
        """The number of states of all blocks."""
        return sum(np.asarray(self.size).tolist())


def behaved(array, dtype=np.float64):
    """``array`` as a writable, aligned, C-contiguous ndarray of ``dtype``, so that Numba sees one type only.

    What is on a GPU stays there, as an array of CuPy.
    """
    # the question is dear beside a short record, and NumPy's own arrays answer it
    if type(array) is not np.ndarray and on_gpu(array):
        return cuda.borrowed(array, dtype)
    array = np.asarray(array, dtype=dtype, order="C")
    return array if array.flags.carray else array.copy()


def at_hand(array, dtype=np.float64):
    """As `behaved`, brought to main memory: the few numbers of a model."""
    elsewhere = type(array) is not np.ndarray and on_gpu(array)
    return behaved(cuda.runtime.fetched(cuda.borrowed(array)) if elsewhere else array, dtype)


def check_blocks(blocks, n_times):
    """``blocks`` with arrays of the right types; ValueError names the block that is wrong."""
    kind, size, parameters, transition, process_noise, gap_index = blocks
    kind, size, parameters = at_hand(kind, np.int64), at_hand(size, np.int64), at_hand(parameters)
    if kind.ndim != 1 or len(kind) == 0 or size.shape != kind.shape or parameters.shape not in (
        (len(kind), N_PARAMETERS), (len(kind), N_PARAMETERS - 1),
    ):  # fmt: skip
        raise ValueError(
            "blocks need kind (n_blocks,), size (n_blocks,) and parameters (n_blocks, 3) with at least one block; got "
            f"shapes {kind.shape}, {size.shape} and {parameters.shape}."
        )
    if parameters.shape[1] < N_PARAMETERS:
        parameters = np.column_stack([parameters, np.zeros(len(kind))])
    n_table = 0
    kinds = kind.tolist()
    for b, (k, s) in enumerate(zip(kinds, size.tolist(), strict=True)):
        if not 0 <= k < len(NAMES):
            raise ValueError(f"block {b} has kind {k}; the kinds are {', '.join(NAMES)} (0 to {len(NAMES) - 1}).")
        if s < 1 or SIZES.get(k, s) != s:
            raise ValueError(f"block {b} ({NAMES[k]}) must have {SIZES.get(k, 'at least 1')} states; got size {s}.")
        n_table += s * s if k == TABLE else 0
    if TABLE not in kinds:
        return Blocks(kind, size, parameters, _ZERO_COLUMNS, _ZERO_COLUMNS, _NO_ROWS)
    transition, process_noise = behaved(transition), behaved(process_noise)
    gap_index = behaved(gap_index, np.int64)
    if transition.ndim != 2 or transition.shape != process_noise.shape or transition.shape[1] != n_table:
        raise ValueError(
            f"the TABLE blocks need transition and process_noise of shape (n_gaps, {n_table}), matrices flattened; "
            f"got {transition.shape} and {process_noise.shape}."
        )
    if gap_index.shape != (n_times,):
        raise ValueError(f"gap_index must have one entry for each of {n_times} samples; got shape {gap_index.shape}.")
    if n_times and (gap_index.min() < -1 or gap_index.max() >= len(transition)):
        raise ValueError(
            f"gap_index must lie in 0..{len(transition) - 1}, the rows of transition, or be -1 for no transition; got "
            f"values from {gap_index.min()} to {gap_index.max()}."
        )
    return Blocks(kind, size, parameters, transition, process_noise, gap_index)


def wanted_entries(blocks, free):
    """Which columns of a table's ``transition`` a gradient is wanted for: those of TABLE blocks free in column 0."""
    pairs = zip(blocks.kind.tolist(), blocks.size.tolist(), free[:, 0].tolist(), strict=True)
    parts = [np.full(s * s, wish) for k, s, wish in pairs if k == TABLE]
    return np.concatenate(parts) if parts else np.zeros(blocks.transition.shape[1], dtype=bool)
