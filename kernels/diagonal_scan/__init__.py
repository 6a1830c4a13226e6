"""The scan of a diagonal system over irregular gaps, with its read-out, states never stored."""

from statespace.kernels.dispatch import choose


def diagonal_scan(u, dt, rate, c, initial=None, *, discretization="zoh", backend=None):
    chosen = choose("diagonal_scan", backend, u, dt, rate, c, initial, discretization=discretization)
    return chosen.diagonal_scan(u, dt, rate, c, initial, discretization=discretization)
