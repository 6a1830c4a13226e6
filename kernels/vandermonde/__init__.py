"""The kernel of a diagonal system: sums of powers of its nodes."""

from statespace.kernels.dispatch import choose


def vandermonde(c, x, L, *, log_nodes=False, real=False, backend=None):
    """K[h, l] = sum_n c[h, n] x[h, n]^l for l = 0 .. L - 1."""
    return choose("vandermonde", backend, c, x, L).vandermonde(c, x, L, log_nodes=log_nodes, real=real)
