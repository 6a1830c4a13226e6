"""Stable polynomials by positive numbers, and a stable system in the coordinates in which its stationary covariance is
I.

The Schwarz form of dx = F x dt + b dw has the rates k₁ … k_{p−1}, c > 0,

        ⎡  0    k₁            ⎤
    F = ⎢ −k₁   0   k₂        ⎥ ,   b = √(2c) e_p,   F + Fᵀ = −b bᵀ,
        ⎢      −k₂  0   ⋱     ⎥
        ⎣           ⋱   −c    ⎦

so its stationary covariance is I, exp(FΔ) is a contraction, and det(sI − F) = (s + c) D_{p−1} + k²_{p−1} D_{p−2} with
D₀ = 1, D₁ = s, D_{j+1} = s D_j + k_j² D_{j−1}. Every monic polynomial whose roots lie in the left half-plane is of this
kind, with exactly one set of rates, all positive: Routh's table finds them (Schwarz 1956; Parks 1962).

A(Δ) and Q(Δ) come from a short step h, ‖F‖h ≤ 1/2, by Q ← Q + A Q Aᵀ, A ← A A; on it A is a Taylor series, Q an
integral of ψψᵀ with ψ(s) = exp(Fs) b. Nothing cancels, however long or short the gap.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper

# ‖F‖h ≤ 1/2: the 15th term of the exponential is below 1e-17, and so is the quadrature's error, relative to each entry.
_TERMS, _MOST_DOUBLINGS = 19, 200
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _WEIGHTS


def basis(rates):
    """D₀ … D_{p−1} as the rows of an array (p, p), in ascending powers, for the rates k₁ … k_{p−1}, c."""
    p = len(rates)
    D = np.zeros((p, p), dtype=np.result_type(rates, float))
    D[0, 0] = 1.0
    for j in range(1, p):
        D[j, 1:] = D[j - 1, :-1]
        if j > 1:
            D[j] += rates[j - 2] ** 2 * D[j - 2]
    return D


def polynomial(rates):
    """The monic polynomial of degree p with these rates: (α₀, …, α_{p−1}, 1).

    Parameters
    ----------
    rates : ndarray of shape (p,)

    Returns
    -------
    ndarray of shape (p + 1,)
        In ascending powers.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.schwarz import polynomial
    >>> polynomial(np.array([1.0, 2.0]))
    array([1., 2., 1.])
    """
    p = len(rates)
    result = np.zeros(p + 1, dtype=np.result_type(rates, float))
    if p == 0:
        return result + 1.0
    D = basis(rates)
    result[1:] = D[-1]
    result[:-1] += rates[-1] * D[-1]
    if p > 1:
        result[:-1] += rates[-2] ** 2 * D[-2]
    return result


def rates_of(coefficients):
    """The rates of a polynomial, by Routh's table.

    Parameters
    ----------
    coefficients : ndarray of shape (p + 1,)
        In ascending powers.

    Returns
    -------
    ndarray of shape (p,)

    Raises
    ------
    ValueError
        Naming a root that does not lie in the left half-plane.

    Examples
    --------
    >>> from statespace.kalman.schwarz import rates_of
    >>> rates_of([1.0, 2.0, 1.0])
    array([1., 2.])
    """
    given = np.asarray(coefficients, dtype=float)
    p = len(given) - 1
    rates = np.full(p, np.nan)
    monic = given / given[-1]
    # whole: D_p, whose powers have the parity of p; part: D_{p−1}, which comes with c
    whole, part = monic.copy(), np.zeros(p + 1)
    part[p - 1 :: -2], whole[p - 1 :: -2] = monic[p - 1 :: -2], 0.0
    for j in range(p, 0, -1):
        if not part[j - 1] > 0.0:
            roots = np.roots(given[::-1])
            raise ValueError(f"the root {roots[np.argmax(roots.real)]:.6g} is not in the left half-plane")
        if j == p:
            rates[-1] = part[j - 1]
        else:
            rates[j - 1] = np.sqrt(part[j - 1])
        part = part / part[j - 1]
        whole, part = part, whole - np.append(0.0, part[:-1])
    return rates


@helper()
def _apply(rates, x, out):
    """out = F x."""
    p = len(rates)
    for i in range(p):
        total = 0.0
        if i + 1 < p:
            total += rates[i] * x[i + 1]
        if i > 0:
            total -= rates[i - 1] * x[i - 1]
        out[i] = total
    out[p - 1] -= rates[p - 1] * x[p - 1]


@helper()
def _apply_transposed(rates, x, out):
    """out = Fᵀ x."""
    p = len(rates)
    for i in range(p):
        total = 0.0
        if i + 1 < p:
            total -= rates[i] * x[i + 1]
        if i > 0:
            total += rates[i - 1] * x[i - 1]
        out[i] = total
    out[p - 1] -= rates[p - 1] * x[p - 1]


@helper()
def _add_outer(factor, x_bar, x, rates_bar):
    """Add the derivative of factor · x̄ᵀ F x by the rates."""
    p = len(x)
    for i in range(p - 1):
        rates_bar[i] += factor * (x_bar[i] * x[i + 1] - x_bar[i + 1] * x[i])
    rates_bar[p - 1] -= factor * x_bar[p - 1] * x[p - 1]


@helper()
def _series(rates, step, first, terms):
    """terms[k] = (F step)^k first / k!."""
    terms[0] = first
    for k in range(1, len(terms)):
        _apply(rates, terms[k - 1], terms[k])
        terms[k] *= step / k


@helper()
def _steps(rates, gap, A, Q, columns, impulse, nodes, weights):
    """Fill A[j], Q[j] of the gaps h 2^j, j = 0 … J with h 2^J = gap; returns h and J."""
    p = len(rates)
    largest = 0.0
    for i in range(p):
        row = rates[i] + (rates[i - 1] if i > 0 else 0.0)
        largest = max(largest, row)
    count = 0
    step = gap
    while step * largest > 0.5 and count < _MOST_DOUBLINGS:
        step *= 0.5
        count += 1
    unit = np.zeros(p)
    A[0] = 0.0
    for i in range(p):
        unit[:] = 0.0
        unit[i] = 1.0
        _series(rates, step, unit, columns[i])
        for k in range(_TERMS - 1, -1, -1):
            for r in range(p):
                A[0, r, i] += columns[i, k, r]
    unit[:] = 0.0
    unit[p - 1] = np.sqrt(2.0 * rates[p - 1])
    _series(rates, step, unit, impulse)
    Q[0] = 0.0
    psi = np.zeros(p)
    for m in range(len(nodes)):
        psi[:] = 0.0
        for k in range(_TERMS - 1, -1, -1):
            for r in range(p):
                psi[r] = psi[r] * nodes[m] + impulse[k, r]
        for r in range(p):
            for c in range(p):
                Q[0, r, c] += weights[m] * step * psi[r] * psi[c]
    W = np.zeros((p, p))
    for j in range(count):
        _product(A[j], Q[j], W)
        for r in range(p):
            for c in range(r, p):
                total = Q[j, r, c]
                for u in range(p):
                    total += W[r, u] * A[j, c, u]
                Q[j + 1, r, c] = total
                Q[j + 1, c, r] = total
        _product(A[j], A[j], A[j + 1])
    return step, count


@helper()
def _product(X, Y, out):
    p = len(X)
    for r in range(p):
        for c in range(p):
            total = 0.0
            for u in range(p):
                total += X[r, u] * Y[u, c]
            out[r, c] = total


@entry()
def _fill(rates, gaps, transition, noise, nodes, weights):
    p = len(rates)
    A, Q = np.zeros((_MOST_DOUBLINGS + 1, p, p)), np.zeros((_MOST_DOUBLINGS + 1, p, p))
    columns, impulse = np.zeros((p, _TERMS, p)), np.zeros((_TERMS, p))
    for t in range(len(gaps)):
        _, count = _steps(rates, gaps[t], A, Q, columns, impulse, nodes, weights)
        transition[t] = A[count]
        noise[t] = Q[count]


@entry()
def _contract(rates, gaps, transition_bar, noise_bar, rates_bar, nodes, weights):
    p = len(rates)
    A, Q = np.zeros((_MOST_DOUBLINGS + 1, p, p)), np.zeros((_MOST_DOUBLINGS + 1, p, p))
    columns, impulse, impulse_bar = np.zeros((p, _TERMS, p)), np.zeros((_TERMS, p)), np.zeros((_TERMS, p))
    A_bar, Q_bar, W, V = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
    x, y, psi = np.zeros(p), np.zeros(p), np.zeros(p)
    for t in range(len(gaps)):
        step, count = _steps(rates, gaps[t], A, Q, columns, impulse, nodes, weights)
        for r in range(p):
            for c in range(p):
                A_bar[r, c] = transition_bar[t, r, c]
                Q_bar[r, c] = noise_bar[t, r, c] + noise_bar[t, c, r]
        # Q̄ here is Q̄ + Q̄ᵀ. Back through A′ = A A, Q′ = Q + A Q Aᵀ
        for j in range(count - 1, -1, -1):
            _product(Q_bar, A[j], W)
            _product(W, Q[j], V)
            for r in range(p):
                for c in range(p):
                    for u in range(p):
                        V[r, c] += A_bar[r, u] * A[j, c, u] + A[j, u, r] * A_bar[u, c]
            A_bar[:] = V
            for r in range(p):
                for c in range(p):
                    total = Q_bar[r, c]
                    for u in range(p):
                        total += A[j, u, r] * W[u, c]
                    V[r, c] = total
            Q_bar[:] = V
        # A₀ = Σ_k (F h)^k / k!, column by column
        for i in range(p):
            x[:] = A_bar[:, i]
            for k in range(_TERMS - 1, 0, -1):
                _add_outer(step / k, x, columns[i, k - 1], rates_bar)
                _apply_transposed(rates, x, y)
                for r in range(p):
                    x[r] = A_bar[r, i] + step / k * y[r]
        # Q₀ = Σ_m w_m h ψ_m ψ_mᵀ with ψ_m = Σ_k s_m^k v_k
        impulse_bar[:] = 0.0
        for m in range(len(nodes)):
            psi[:] = 0.0
            for k in range(_TERMS - 1, -1, -1):
                for r in range(p):
                    psi[r] = psi[r] * nodes[m] + impulse[k, r]
            power = weights[m] * step
            for r in range(p):
                x[r] = 0.0
                for c in range(p):
                    x[r] += Q_bar[r, c] * psi[c]
            for k in range(_TERMS):
                for r in range(p):
                    impulse_bar[k, r] += power * x[r]
                power *= nodes[m]
        for k in range(_TERMS - 1, 0, -1):
            _add_outer(step / k, impulse_bar[k], impulse[k - 1], rates_bar)
            _apply_transposed(rates, impulse_bar[k], y)
            for r in range(p):
                impulse_bar[k - 1, r] += step / k * y[r]
        rates_bar[p - 1] += impulse_bar[0, p - 1] / np.sqrt(2.0 * rates[p - 1])


def discretize(rates, gaps):
    """A(Δ) and Q(Δ) of the Schwarz form.

    Parameters
    ----------
    rates : ndarray of shape (p,)
    gaps : ndarray of shape (n_gaps,)

    Returns
    -------
    transition, process_noise : ndarray of shape (n_gaps, p, p)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.schwarz import discretize
    >>> A, Q = discretize(np.array([1.0, 2.0, 0.5]), np.array([0.3, 9.0]))
    >>> bool(np.allclose(A @ A.transpose(0, 2, 1) + Q, np.eye(3), rtol=0, atol=1e-14))
    True
    """
    rates, gaps = np.ascontiguousarray(rates, dtype=float), np.ascontiguousarray(gaps, dtype=float)
    transition, noise = np.empty((2, len(gaps), len(rates), len(rates)))
    _fill(rates, gaps, transition, noise, _NODES, _WEIGHTS)
    return transition, noise


def contract(rates, gaps, transition_bar, noise_bar):
    """Σ over the gaps of ⟨Ā, dA⟩ + ⟨Q̄, dQ⟩ by the rates: the same steps, backwards.

    Parameters
    ----------
    rates : ndarray of shape (p,)
    gaps : ndarray of shape (n_gaps,)
    transition_bar, noise_bar : ndarray of shape (n_gaps, p, p)

    Returns
    -------
    ndarray of shape (p,)
    """
    rates, gaps = np.ascontiguousarray(rates, dtype=float), np.ascontiguousarray(gaps, dtype=float)
    result = np.zeros(len(rates))
    given = (np.ascontiguousarray(array, dtype=float) for array in (transition_bar, noise_bar))
    _contract(rates, gaps, *given, result, _NODES, _WEIGHTS)
    return result
