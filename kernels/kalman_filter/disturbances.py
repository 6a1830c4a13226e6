"""The backward recursion with what it meets on the way: u and D of each observation, r and N of each state.

    u = v/F − k·r,   D = 1/F + kᵀNk,   r ← r + u h,   N ← (I − h kᵀ) N (I − k hᵀ) + h hᵀ/F,   k = m/F,

then r ← Aᵀr, N ← AᵀNA over the gap before (Durbin & Koopman 2012, section 4.5). A sample that fixes a diffuse direction
has k = K0 and 1/F = 0 (section 5.4).
"""

from statespace.kernels.kalman_filter.compiled import entry


@entry()
def disturb(observed, A, Q, rows, P0, P, v, F, gains, r, N, u, D, states, variances, k, x, W):
    """Take r (n,) and N (n, n) back over the samples of a part, from its last to its first.

    ``observed`` is 0 for a missing sample, 1 for a usual one, 2 for one that fixes a diffuse direction, whose K0 stands
    in ``gains``. P0 is the covariance before the part, P (T, n, n) the filtered ones; v and F (T,) the innovations.
    u, D (T,), r before each sample's own state in ``states`` (T, n), the diagonal of N in ``variances`` (T, n) are
    written. ``k``, ``x`` (n,) and ``W`` (n, n) are room to work in.
    """
    n = len(r)
    each = 1 if len(rows) > 1 else 0
    for t in range(len(v) - 1, -1, -1):
        h = rows[t * each]
        if observed[t] != 0:
            if observed[t] == 2:
                for i in range(n):
                    k[i] = gains[t, i]
                inverse = 0.0
            else:
                # k = (A P Aᵀ + Q) h / F, by Aᵀh and P (Aᵀh).
                before = P[t - 1] if t > 0 else P0
                for i in range(n):
                    W[0, i] = 0.0
                    for j in range(n):
                        W[0, i] += A[t, j, i] * h[j]
                for i in range(n):
                    x[i] = 0.0
                    for j in range(n):
                        x[i] += before[i, j] * W[0, j]
                inverse = 1.0 / F[t]
                for i in range(n):
                    total = 0.0
                    for j in range(n):
                        total += A[t, i, j] * x[j] + Q[t, i, j] * h[j]
                    k[i] = total * inverse
            total = 0.0
            for i in range(n):
                total += k[i] * r[i]
            u[t] = v[t] * inverse - total
            # With Nk in W's first row, N being symmetric: N ← N − (Nk)hᵀ − h(Nk)ᵀ + (kᵀNk + 1/F) hhᵀ.
            spread = inverse
            for i in range(n):
                W[0, i] = 0.0
                for j in range(n):
                    W[0, i] += N[i, j] * k[j]
                spread += k[i] * W[0, i]
            D[t] = spread
            for i in range(n):
                r[i] += u[t] * h[i]
                for j in range(n):
                    N[i, j] += spread * h[i] * h[j] - W[0, i] * h[j] - h[i] * W[0, j]
        for i in range(n):
            states[t, i] = r[i]
            variances[t, i] = N[i, i]
        for i in range(n):
            x[i] = 0.0
            for j in range(n):
                x[i] += A[t, j, i] * r[j]
        for i in range(n):
            r[i] = x[i]
        for i in range(n):
            for j in range(n):
                W[i, j] = 0.0
                for l in range(n):
                    W[i, j] += N[i, l] * A[t, l, j]
        for i in range(n):
            for j in range(n):
                N[i, j] = 0.0
                for l in range(n):
                    N[i, j] += A[t, l, i] * W[l, j]
