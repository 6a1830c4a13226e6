"""Where GPU kernels run: on the GPU where there is one; elsewhere interpreted or compiled for the processor."""

import shutil

import pytest


@pytest.fixture(scope="session")
def triton_device():
    """``"cuda"`` or, interpreted, ``"cpu"``; skips without Triton."""
    pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")
    from statespace.kernels.launching import INTERPRETED, unusable

    if reason := unusable():
        pytest.skip(reason)
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def cuda_runtime(monkeypatch):
    """What ``statespace.kernels.cuda`` computes with: CuPy, or NumPy and g++ where CuPy has no GPU; skips without."""
    from statespace.kernels import cuda

    if cuda.runtime.missing():
        if shutil.which("g++") is None:
            pytest.skip("CuPy has no GPU here, and there is no g++ to compile its kernels for the processor")
        from tests.kernels.host import Host

        monkeypatch.setattr(cuda, "runtime", Host())
    return cuda.runtime


@pytest.fixture(scope="session")
def nvcc():
    """Skips without the compiler of CUDA."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
