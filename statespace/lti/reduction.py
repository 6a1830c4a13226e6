"""Algorithms on the matrices of a system: gramians, balancing, what is reachable, zeros.

Above: ``analysis``. Below: NumPy and SciPy.
"""

import numpy as np
import scipy.linalg


def gramian(A, S, discrete):
    """X of A X + X Aᵀ + S = 0, or of X = A X Aᵀ + S; symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import gramian
    >>> gramian(np.array([[-2.0]]), np.array([[1.0]]), discrete=False)
    array([[0.25]])
    """
    if len(A) == 0:
        return np.zeros((0, 0))
    solve = scipy.linalg.solve_discrete_lyapunov if discrete else scipy.linalg.solve_continuous_lyapunov
    X = solve(A, S if discrete else -S)
    return 0.5 * (X + X.T)


def _factor(X):
    """L of X = L Lᵀ, negative eigenvalues taken as the rounding that they are."""
    values, vectors = np.linalg.eigh(X)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def balancing(A, B, C, discrete):
    """Hankel singular values σ, and the T and L of L A T, L B, C T, with L T = I.

    The square-root method (Laub, Heath, Paige & Ward 1987). Columns of T beyond the rank of the Hankel operator are
    left out.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import balancing
    >>> balancing(np.array([[-1.0]]), np.array([[4.0]]), np.array([[1.0]]), discrete=False)[0]
    array([2.])
    """
    reach = _factor(gramian(A, B @ B.T, discrete))
    see = _factor(gramian(A.T, C.T @ C, discrete))
    U, values, Vh = np.linalg.svd(see.T @ reach)
    kept = values > 1e-15 * values.max(initial=0.0)
    root = np.sqrt(values[kept])
    return values, (reach @ Vh[kept].T) / root, (U[:, kept].T / root[:, np.newaxis]) @ see.T


def residualise(A, B, C, D, order, discrete):
    """The first states, the others in the equilibrium that these and the input set: H(0) is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import residualise
    >>> A, one = np.diag([-1.0, -4.0]), np.ones((2, 1))
    >>> residualise(A, one, one.T, np.zeros((1, 1)), 1, discrete=False)[3]
    array([[0.25]])
    """
    kept, rest = slice(0, order), slice(order, None)
    M = A[rest, rest] - (np.eye(len(A) - order) if discrete else 0.0)
    X, Y = np.linalg.solve(M, A[rest, kept]), np.linalg.solve(M, B[rest])
    return (
        A[kept, kept] - A[kept, rest] @ X,
        B[kept] - A[kept, rest] @ Y,
        C[:, kept] - C[:, rest] @ X,
        D - C[:, rest] @ Y,
    )


def stable_first(A, discrete):
    """T that makes T⁻¹ A T block diagonal, the stable block first, and that block's size.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import stable_first
    >>> T, n_stable = stable_first(np.array([[2.0, 1.0], [0.0, -3.0]]), discrete=False)
    >>> n_stable
    1
    """
    n = len(A)
    if n == 0:
        return np.eye(0), 0

    def stable(real, imaginary=0.0):
        return np.hypot(real, imaginary) < 1.0 if discrete else real < 0.0

    S, Q, n_stable = scipy.linalg.schur(A, sort=stable)
    if n_stable == n:
        return np.eye(n), n
    T = np.eye(n)
    first, rest = slice(0, n_stable), slice(n_stable, None)
    T[first, rest] = scipy.linalg.solve_sylvester(S[first, first], -S[rest, rest], -S[first, rest])
    return Q @ T, n_stable


def _reachable(A, B, tol):
    """An orthonormal basis of the states that inputs reach: the staircase algorithm."""
    n = len(A)
    basis, block = np.zeros((n, 0)), B
    size = max(np.abs(A).max(initial=0.0), np.abs(B).max(initial=0.0))
    while block.size and basis.shape[1] < n:
        for _ in range(2):  # once is not enough where little is left
            block = block - basis @ (basis.T @ block)
        U, values, _ = np.linalg.svd(block, full_matrices=False)
        new = U[:, values > tol * size]
        if not new.shape[1]:
            break
        basis, block = np.concatenate([basis, new], axis=1), A @ new
    return basis


def minimal(A, B, C, tol):
    """A, B and C restricted to what is reachable and observed.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import minimal
    >>> A, B, C = minimal(np.diag([-1.0, -2.0]), np.array([[1.0], [0.0]]), np.ones((1, 2)), 1e-10)
    >>> A
    array([[-1.]])
    """
    if len(A) == 0:
        return A, B, C
    scale = state_scale(A, B, C)
    A, B, C = A * scale / scale[:, np.newaxis], B / scale[:, np.newaxis], C * scale
    Q = _reachable(A, B, tol)
    A, B, C = Q.T @ A @ Q, Q.T @ B, C @ Q
    Q = _reachable(A.T, C.T, tol)
    return Q.T @ A @ Q, Q.T @ B, C @ Q


def state_scale(A, B, C):
    """Powers of two for the states, so that the rows and columns of [[A, B], [C, 0]] are alike in size.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import state_scale
    >>> state_scale(np.zeros((1, 1)), np.full((1, 1), 64.0), np.ones((1, 1)))
    array([8.])
    """
    n = len(A)
    scale = np.ones(n)
    for _ in range(10):
        before = scale.copy()
        for i in range(n):
            others = np.arange(n) != i
            row = np.abs(A[i, others] * scale[others]).sum() + np.abs(B[i]).sum()
            column = np.abs(A[others, i] / scale[others]).sum() + np.abs(C[:, i]).sum()
            if row > 0.0 and column > 0.0:
                scale[i] = 2.0 ** np.round(0.5 * np.log2(row / column))
        if np.array_equal(scale, before):
            break
    return scale


def _without_direct_deficit(A, B, C, D, tol):
    """The same zeros with a D of full row rank (Emami-Naeini & Van Dooren 1982, algorithm REDUCE)."""
    while len(C) and len(A):
        U, values, _ = np.linalg.svd(D)
        rank = int((values > tol).sum())
        if rank == len(D):
            break
        C, D = U.T @ C, (U.T @ D)[:rank]
        upper, lower = C[:rank], C[rank:]
        _, values, Vh = np.linalg.svd(lower)
        seen = int((values > tol).sum())
        if seen == 0:
            C = upper
            break
        # Columns in the order: not seen through `lower`, seen.
        V = np.concatenate([Vh[seen:], Vh[:seen]]).T
        A, B, upper = V.T @ A @ V, V.T @ B, upper @ V
        n = len(A) - seen
        A, C = A[:n, :n], np.concatenate([upper[:, :n], A[n:, :n]])
        B, D = B[:n], np.concatenate([D, B[n:]])
    return A, B, C, D


def transmission_zeros(A, B, C, D):
    """The finite zeros of [[A − s I, B], [C, D]], by compressing it to a regular pencil first.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.reduction import transmission_zeros
    >>> transmission_zeros(np.diag([-1.0, -3.0]), np.ones((2, 1)), np.ones((1, 2)), np.zeros((1, 1)))
    array([-2.])
    """
    if len(A):
        scale = state_scale(A, B, C)
        A, B, C = A * scale / scale[:, np.newaxis], B / scale[:, np.newaxis], C * scale
    size = max((np.abs(M).max(initial=0.0) for M in (A, B, C, D)), default=0.0)
    tol = 1e-12 * size * max(1, len(A))
    A, B, C, D = _without_direct_deficit(A, B, C, D, tol)
    A, C, B, D = (M.T for M in _without_direct_deficit(A.T, C.T, B.T, D.T, tol))
    n = len(A)
    if n == 0:
        return np.zeros(0)
    if D.size == 0:
        return np.linalg.eigvals(A)
    # D is square and invertible now: rotate [C, D] into [0, D'] so that it need not be inverted.
    p = len(D)
    rotation = scipy.linalg.rq(np.concatenate([C, D], axis=1))[1]
    M = np.concatenate([A, B], axis=1) @ rotation.T
    N = np.concatenate([np.eye(n), np.zeros((n, p))], axis=1) @ rotation.T
    zeros = scipy.linalg.eigvals(M[:, :n], N[:, :n])
    return zeros.real if not zeros.imag.any() else zeros
