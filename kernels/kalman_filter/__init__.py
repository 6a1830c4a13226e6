"""Filter, smoother and exact gradient of a linear-Gaussian model on irregular times."""

from statespace.kernels.dispatch import choose


def kalman_filter(*arguments, backend=None, **options):
    return choose("kalman_filter", backend, *arguments, **options).kalman_filter(*arguments, **options)
