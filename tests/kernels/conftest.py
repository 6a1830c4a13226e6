"""Where GPU kernels run: on the GPU where there is one; elsewhere interpreted or compiled for the processor."""

import shutil

import numpy as np
import pytest


def _scan_by_doubling(self, inputs):
    """Triton's interpreter combines a scan's numbers one by one; an associative product may be grouped in any way."""
    arrays, reach = [x.handle.data for x in inputs], 1
    place = np.arange(arrays[0].shape[self.axis]).reshape([-1] + [1] * (arrays[0].ndim - 1 - self.axis))
    while reach < place.size:
        before = [np.roll(x, reach, self.axis) for x in arrays]
        both = self.combine_fn.fn(
            *(
                self.to_tensor(x, given.dtype)
                for pair in (before, arrays)
                for x, given in zip(pair, inputs, strict=True)
            )
        )
        both = both if isinstance(both, tuple) else (both,)
        arrays = [np.where(place >= reach, y.handle.data, x) for x, y in zip(arrays, both, strict=True)]
        reach *= 2
    return [self.to_tensor(x, given.dtype) for x, given in zip(arrays, inputs, strict=True)]


def _device_call(self, *arguments, **options):
    """Triton's interpreter patches its own modules at every call of a device function, which takes most of its time.

    The kernel around has patched `triton.language`; what some of its functions know it by keeps its patches.
    """
    from triton.runtime.interpreter import _patch_lang

    if self.fn not in _patched:
        _patch_lang(self.fn)
        _patched.add(self.fn)
    return self.rewrite()(*arguments, **options)


_patched: set = set()


@pytest.fixture(scope="session")
def triton_device():
    """``"cuda"`` or, interpreted, ``"cpu"``; skips without Triton."""
    pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")
    from statespace.kernels.launching import INTERPRETED, unusable

    if reason := unusable():
        pytest.skip(reason)
    if INTERPRETED:
        from triton.runtime.interpreter import InterpretedFunction, ScanOps

        ScanOps.generic_scan = _scan_by_doubling
        InterpretedFunction.__call__ = _device_call
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
