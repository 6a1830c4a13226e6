"""The causal convolution of a record with a kernel as long as itself."""

from statespace.kernels.dispatch import choose


def long_convolution(u, k, *, backend=None):
    """y_t = sum_{s <= t} k_s u_{t-s}; u (B, H, L), k (H, K); y (B, H, L)."""
    return choose("long_convolution", backend, u, k).long_convolution(u, k)
