"""The linear recurrence x_k = a_k x_{k-1} + b_k along the last axis."""

from statespace.kernels.dispatch import choose


def linear_scan(a, b, initial=None, reverse=False, *, backend=None):
    """x_k = a_k x_{k-1} + b_k, x_{-1} = ``initial``; time last; real or complex; ``a`` broadcasts against ``b``."""
    return choose("linear_scan", backend, a, b, initial).linear_scan(a, b, initial, reverse)
