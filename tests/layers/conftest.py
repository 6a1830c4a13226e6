"""Whole layers on the GPU kernels run where the kernels do."""

from tests.kernels.conftest import triton_device  # noqa: F401
