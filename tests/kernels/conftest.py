"""Where the Triton kernels run: on the GPU where there is one, in Triton's interpreter on the CPU elsewhere."""

import pytest


@pytest.fixture(scope="session")
def triton_device():
    """``"cuda"`` or, interpreted, ``"cpu"``; skips without Triton."""
    pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")
    from statespace.kernels.launching import INTERPRETED, unusable

    if reason := unusable():
        pytest.skip(reason)
    return "cpu" if INTERPRETED else "cuda"
