r"""HiPPO: linear systems whose state is a running approximation of their input's past.

    x'(t) = A x(t) + B u(t),    u(t − s) ≈ Σ_n x_n(t) g_n(s)

The state holds the coefficients of the past in a basis g_n of functions of the age s, best in the sense of a measure
ω(s): x_n(t) = ∫ u(t − s) g_n(s) ω(s) ds. This page keeps one sign throughout, that of S4: A is stable.

============  ====================================  ====================  =====================================
measure       basis g_n(s)                          ω(s)                  A = −c I + S − P Pᵀ, S skew-symmetric
============  ====================================  ====================  =====================================
``legs``      √(2n+1) Pₙ(2 exp(−s) − 1)             exp(−s)               c = 1/2, rank 1
``legt``      √(2n+1) Pₙ(1 − 2s)                    1 on [0, 1]           c = 0, rank 2
``lagt``      Lₙ(s) exp(−(1 − β)s/2)                exp(−βs)              c = β/2, rank 1
``fourier``   1, √2 cos 2πms, √2 sin 2πms           1 on [0, 1]           c = 0, rank 1
``legsd``     (``legs`` without P, and B/2)                               c = 1/2, rank 0
``foud``      (``fourier`` without P, decaying)                           c = 1/2, rank 0
============  ====================================  ====================  =====================================

Legendre's Pₙ, Laguerre's Lₙ. Time is in units of the window for ``legt`` and ``fourier``, of the decay's time constant
for ``lagt``. ``legs`` on a clock that runs as the logarithm of time, dx/d(ln t) = A x + B u, is HiPPO-LegS itself: the
whole past [0, t] in equal weight, of age s = ln(t/τ) for what happened at τ.

Above: `statespace.lti.HiPPOMemory`, and the layers that start from these matrices. Below: NumPy.

References
----------
A. Gu, T. Dao, S. Ermon, A. Rudra, C. Ré (2020). HiPPO: Recurrent Memory with Optimal Polynomial Projections.
A. Gu, K. Goel, C. Ré (2022). Efficiently Modeling Long Sequences with Structured State Spaces (S4).
A. Gu, I. Johnson, A. Timalsina, A. Rudra, C. Ré (2022). How to Train Your HiPPO.
K. Goel, A. Gu, C. Donahue, C. Ré (2022). It's Raw! Audio Generation with State-Space Models.
"""

from typing import NamedTuple

import numpy as np

MEASURES = ("legs", "legt", "lagt", "fourier", "legsd", "foud")
_ALIASES = {"fout": "fourier"}

__all__ = ["MEASURES", "NPLR", "basis", "dplr", "matrices", "nplr", "weight"]


class NPLR(NamedTuple):
    """A normal matrix plus one of low rank: A = V (diag(Λ) − P* P) V*, in the form that stays stable.

    With the rows of P as p: A = V (diag(Λ) − Σ pᴴ p) V*, a normal matrix with Re Λ ≤ 0 less a positive semi-definite
    one, so that A remains stable for every P (Goel et al. 2022, section 4.1; S4 has Λ − P Q* with free Q).

    Attributes
    ----------
    Lambda : ndarray of shape (n,), complex
        Eigenvalues Λ of the normal part. Those with a positive imaginary part come first, ascending, then their
        conjugates in the same order, exactly; a single real one at the end if n is odd.
    P : ndarray of shape (rank, n), complex
        The real rows times V, so that V P* P V* is what they subtract from A.
    B : ndarray of shape (n,), complex
        V* B.
    V : ndarray of shape (n, n), complex
        Unitary; its columns are conjugate where Λ is. The real state is V z for the state z of the diagonal form.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti import hippo
    >>> form = hippo.nplr("legt", 8)
    >>> A, B = hippo.matrices("legt", 8)
    >>> inner = np.diag(form.Lambda) - form.P.conj().T @ form.P
    >>> bool(np.abs(form.V @ inner @ form.V.conj().T - A).max() < 1e-12)
    True
    """

    Lambda: np.ndarray
    P: np.ndarray
    B: np.ndarray
    V: np.ndarray


def matrices(measure, n, *, beta=1.0):
    """A and B of x' = A x + B u for a measure, as in the papers.

    With R = (√1, √3, √5, …), rows i and columns k counted from 0:

    - ``legs``: A_ik = −R_i R_k below the diagonal, −(i + 1) on it, 0 above; B = R (S4, equation 2).
    - ``legt``: A_ik = −R_i R_k, times (−1)^(i−k) above the diagonal; B = R (How to Train Your HiPPO, LegT).
    - ``lagt``: A_ik = −1 below the diagonal, −(1 + β)/2 on it, 0 above; B = 1 (HiPPO, appendix D.2, α = 0).
    - ``fourier`` (or ``fout``): A = J − 2 g gᵀ, B = 2 g with g = g(0) = (1, √2, 0, √2, 0, …), J turning each pair of
      cosine and sine by 2πm (How to Train Your HiPPO, FouT).
    - ``legsd``: A + R Rᵀ/2 of ``legs``, and R/2 (S4D, theorem 3).
    - ``foud``: J − I/2, and g, the diagonal variant of ``fourier``.

    Parameters
    ----------
    measure : {"legs", "legt", "lagt", "fourier", "fout", "legsd", "foud"}
    n : int
        Number of coefficients. For ``fourier`` an odd one makes a constant and pairs; with an even one the last stays
        at zero, as the sine of frequency 0 in S4's code.
    beta : float, default=1.0
        Of ``lagt``: 1 weighs the past by exp(−s) and is HiPPO's choice; 0 weighs it equally, with basis functions that
        decay, and is the one in S4's proof of theorem 1.

    Returns
    -------
    A : ndarray of shape (n, n)
    B : ndarray of shape (n, 1)

    Raises
    ------
    ValueError
        Another measure, an n that is no positive integer, or a ``beta`` outside [0, 1].

    Notes
    -----
    The S4 repository has the same matrices but for units and order: half of ``legt`` and ``fourier``, whose window
    is then 2 long; ``lagt`` with β = 0; and in ``fourier`` each sine, that of frequency 0 too, behind its cosine.

    Examples
    --------
    >>> from statespace.lti import hippo
    >>> A, B = hippo.matrices("legs", 3)
    >>> A.round(3)
    array([[-1.   ,  0.   ,  0.   ],
           [-1.732, -2.   ,  0.   ],
           [-2.236, -3.873, -3.   ]])
    >>> B.ravel().round(3)
    array([1.   , 1.732, 2.236])
    """
    decay, S, P, B = _parts(measure, n, beta)
    # LegS' and LagT's zeros above the diagonal are differences of equal numbers: exact, but for rounding of products.
    A = S - decay * np.eye(n) - P.T @ P
    if _name(measure) in ("legs", "lagt"):
        A = np.tril(A)
    if _name(measure) == "legs":
        A[np.diag_indices(n)] = -(1.0 + np.arange(n))
    return A, B[:, np.newaxis]


def nplr(measure, n, rank=None, *, beta=1.0):
    """The normal plus low-rank form of a measure's system: A = V (diag(Λ) − P* P) V*.

    Parameters
    ----------
    measure, n, beta
        As in `matrices`.
    rank : int, optional
        Rows of P; rows of zeros beyond what the measure needs, which is 1 for ``legs``, ``lagt`` and ``fourier``, 2 for
        ``legt`` and 0 for the diagonal ones. None: as many as needed.

    Returns
    -------
    NPLR

    Raises
    ------
    ValueError
        As for `matrices`, or a rank that is less than the measure needs.

    Notes
    -----
    The eigenvectors are those of the Hermitian matrix −iS of the skew-symmetric part S, so that they are orthonormal
    however close eigenvalues are; the eigenvectors of A itself are conditioned like 2^(4n/3) (S4, lemma 3.2). The phase
    of each is such that B ≥ 0.

    Examples
    --------
    >>> from statespace.lti import hippo
    >>> form = hippo.nplr("legs", 4)
    >>> form.Lambda.round(3)
    array([-0.5+0.557j, -0.5+4.603j, -0.5-0.557j, -0.5-4.603j])
    >>> form.P.shape
    (1, 4)
    """
    decay, S, P, B = _parts(measure, n, beta)
    needed = len(P)
    rank = needed if rank is None else rank
    if not _is_integer(rank) or rank < needed:
        raise ValueError(
            f"rank must be an integer of at least {needed} for measure {measure!r}, whose matrix is normal plus rank "
            f"{needed}. Got {rank!r} instead."
        )
    omega, V = _skew_eigenvectors(S, B)
    half = n // 2
    V = np.concatenate([V[:, :half], V[:, :half].conj(), V[:, half:]], axis=1)
    Lambda = (0.0 - decay) + 1j * np.concatenate([omega, -omega, np.zeros(n % 2)])
    padded = np.zeros((rank, n), dtype=np.complex128)
    padded[:needed], B = P @ V, V.conj().T @ B
    # Conjugate to the last bit, whatever order a matrix product sums in.
    padded[:, half : 2 * half], B[half : 2 * half] = padded[:, :half].conj(), B[:half].conj()
    return NPLR(Lambda, padded, B, V)


def dplr(measure, n, rank=None, *, beta=1.0):
    """One of each conjugate pair of `nplr`: what S4 stores for a real system of n dimensions.

    Parameters
    ----------
    measure, n, rank, beta
        As in `nplr`; n is even.

    Returns
    -------
    NPLR
        Λ of shape (n/2,), P (rank, n/2), B (n/2,) and V (n, n/2). The real state is 2 Re(V z), and a read-out C of the
        real state reads 2 Re(C V z).

    Raises
    ------
    ValueError
        As for `nplr`, or an odd n.

    Examples
    --------
    >>> from statespace.lti import hippo
    >>> form = hippo.dplr("fourier", 64)
    >>> form.Lambda.shape, form.P.shape, form.V.shape
    ((32,), (1, 32), (64, 32))
    """
    form = nplr(measure, n, rank, beta=beta)
    if n % 2:
        raise ValueError(f"n must be even for halves of conjugate pairs. Got {n} instead; nplr takes any n.")
    half = n // 2
    return NPLR(form.Lambda[:half], form.P[:, :half], form.B[:half], form.V[:, :half])


def basis(measure, n, ages, *, beta=1.0):
    """The functions g_n(s) that rebuild the past from a state: u(t − s) ≈ Σ_n x_n(t) g_n(s).

    Parameters
    ----------
    measure : {"legs", "legt", "lagt", "fourier", "fout"}
    n : int
        Number of coefficients.
    ages : array-like of shape (...)
        s ≥ 0: at most 1 for ``legt`` and ``fourier``; ln(t/τ) for what HiPPO-LegS saw at τ until t, which may be
        infinite (τ = 0).
    beta : float, default=1.0
        Of ``lagt``, as in `matrices`.

    Returns
    -------
    ndarray of shape (..., n)

    Raises
    ------
    ValueError
        A measure or n as in `matrices`, one of the diagonal variants, which are no projections, or ages outside the
        measure's window.

    Examples
    --------
    >>> from statespace.lti import hippo
    >>> hippo.basis("legt", 3, [0.0, 0.5, 1.0]).round(3)
    array([[ 1.   ,  1.732,  2.236],
           [ 1.   ,  0.   , -1.118],
           [ 1.   , -1.732,  2.236]])
    """
    name, n, beta = _checked(measure, n, beta)
    s = _checked_ages(name, ages)
    if name in ("legs", "legt"):
        z = 2.0 * np.exp(-s) - 1.0 if name == "legs" else 1.0 - 2.0 * s
        return legendre(n, z)
    values = np.empty((*s.shape, n))
    if name == "lagt":
        # The decay goes into the first function: the recurrence is linear, and Lₙ alone would overflow.
        values[..., 0] = np.exp(-(1.0 - beta) / 2.0 * s)
        if n > 1:
            values[..., 1] = (1.0 - s) * values[..., 0]
        for k in range(1, n - 1):
            values[..., k + 1] = ((2 * k + 1 - s) * values[..., k] - k * values[..., k - 1]) / (k + 1)
        return values
    values[..., 0] = 1.0
    values[..., -1] = 1.0 if n == 1 else 0.0
    pairs = (n - 1) // 2
    phase = 2.0 * np.pi * s[..., np.newaxis] * np.arange(1, pairs + 1)
    values[..., 1 : 2 * pairs : 2] = np.sqrt(2.0) * np.cos(phase)
    values[..., 2 : 2 * pairs + 1 : 2] = np.sqrt(2.0) * np.sin(phase)
    return values


def weight(measure, ages, *, beta=1.0):
    """The measure ω(s) under which the functions of `basis` are orthonormal, ∫ g_i(s) g_k(s) ω(s) ds = δ_ik.

    Parameters
    ----------
    measure, ages, beta
        As in `basis`.

    Returns
    -------
    ndarray of shape (...)

    Raises
    ------
    ValueError
        As for `basis`.

    Examples
    --------
    >>> from statespace.lti import hippo
    >>> hippo.weight("lagt", [0.0, 1.0]).round(3)
    array([1.   , 0.368])
    """
    name, _, beta = _checked(measure, 1, beta)
    s = _checked_ages(name, ages)
    if name in ("legs", "lagt"):
        return np.exp(-(beta if name == "lagt" else 1.0) * s)
    return np.ones_like(s)


def legendre(n, z):
    """The orthonormal Legendre polynomials √(2k+1) P_k(z), k < n, on [−1, 1] with the weight 1/2; (..., n)."""
    values = np.empty((*np.shape(z), n))
    values[..., 0] = 1.0
    if n > 1:
        values[..., 1] = z
    for k in range(1, n - 1):
        values[..., k + 1] = ((2 * k + 1) * z * values[..., k] - k * values[..., k - 1]) / (k + 1)
    return values * np.sqrt(2.0 * np.arange(n) + 1.0)


def _parts(measure, n, beta):
    """c, S (n, n), P (rank, n) and B (n,) of A = −c I + S − Pᵀ P, all real."""
    name, n, beta = _checked(measure, n, beta)
    k = np.arange(n)
    below = np.tril(np.ones((n, n)), -1)
    if name in ("legs", "legsd"):
        R = np.sqrt(2.0 * k + 1.0)
        S = -0.5 * np.outer(R, R) * (below - below.T)
        return (0.5, S, R[np.newaxis] / np.sqrt(2.0), R) if name == "legs" else (0.5, S, np.empty((0, n)), R / 2.0)
    if name == "legt":
        R = np.sqrt(2.0 * k + 1.0)
        odd = (k[:, np.newaxis] + k) % 2
        # The even and the odd coefficients: with one row of R alone the rest would not be normal.
        P = np.stack([np.where(k % 2 == 0, R, 0.0), np.where(k % 2 == 1, R, 0.0)])
        return 0.0, -np.outer(R, R) * odd * (below - below.T), P, R
    if name == "lagt":
        return beta / 2.0, -0.5 * (below - below.T), np.full((1, n), np.sqrt(0.5)), np.ones(n)
    # A last cosine without its sine would be tied to the constant for ever (A would have no decay between them).
    g = np.where((k % 2 == 1) & (k < n - 1), np.sqrt(2.0), 0.0)
    g[0] = 1.0
    # d/ds of √2 cos 2πms is −2πm times its sine, and of the sine 2πm times the cosine.
    turn = np.where(k % 2 == 1, np.pi * (k + 1.0), 0.0)[: n - 1]
    J = np.diag(turn, -1) - np.diag(turn, 1)
    return (0.0, J, np.sqrt(2.0) * g[np.newaxis], 2.0 * g) if name == "fourier" else (0.5, J, np.empty((0, n)), g)


def _skew_eigenvectors(S, B):
    """ω > 0 ascending (n // 2,) and orthonormal v with S v = iω v (n, ceil(n / 2)), the last one real if n is odd."""
    n = len(S)
    values, vectors = np.linalg.eigh(-1j * S)
    # −iS has the eigenvalues ±ω: v and its conjugate. Those that vanish (one if n is odd, and two of an even Fourier
    # basis) share their real space.
    count = int(np.sum(values > 1e-10 * max(values[-1], 1e-300)))
    V = vectors[:, n - count :]
    vanishing = vectors[:, count : n - count]
    if vanishing.shape[1]:
        real = np.linalg.svd(np.concatenate([vanishing.real, vanishing.imag], axis=1))[0][:, : vanishing.shape[1]]
        pairs = (real[:, 0:-1:2] + 1j * real[:, 1::2]) / np.sqrt(2.0)
        V = np.concatenate([pairs, V, real[:, len(pairs.T) * 2 :]], axis=1)
    half = n // 2
    omega = np.concatenate([np.zeros(half - count), values[n - count :]])
    # Orthonormal to v's own conjugate too, which eigh does not know of: one step towards the polar factor.
    W = np.concatenate([np.sqrt(2.0) * V[:, :half].real, np.sqrt(2.0) * V[:, :half].imag, V[:, half:].real], axis=1)
    W = 1.5 * W - 0.5 * W @ (W.T @ W)
    V = np.concatenate([(W[:, :half] + 1j * W[:, half : 2 * half]) / np.sqrt(2.0), W[:, 2 * half :]], axis=1)
    projection = V.conj().T @ B
    projection = np.where(np.abs(projection) > 1e-8 * np.linalg.norm(B), projection, 1.0)
    return omega, V * (projection / np.abs(projection))


def _checked(measure, n, beta):
    name = _name(measure)
    if not _is_integer(n) or n < 1:
        raise ValueError(f"n, the number of coefficients, must be a positive integer. Got {n!r} instead.")
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must lie in [0, 1]. Got {beta!r} instead.")
    return name, int(n), float(beta)


def _name(measure):
    name = _ALIASES.get(measure, measure) if isinstance(measure, str) else None
    if name not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(map(repr, MEASURES))}. Got {measure!r} instead.")
    return name


def _is_integer(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _checked_ages(name, ages):
    if name in ("legsd", "foud"):
        raise ValueError(
            f"measure {name!r} is a start for diagonal layers, not a projection: it has no basis. "
            f"Use {'legs' if name == 'legsd' else 'fourier'!r}."
        )
    s = np.asarray(ages, dtype=np.float64)
    highest = 1.0 if name in ("legt", "fourier") else np.inf
    if not ((s >= 0.0) & (s <= highest)).all():
        raise ValueError(f"ages must lie in [0, {highest:g}] for measure {name!r}. Got {s.min():g} to {s.max():g}.")
    return s
