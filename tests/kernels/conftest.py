"""Where the Triton kernels run: on the GPU where there is one, in Triton's interpreter on the CPU elsewhere."""

import numpy as np
import pytest


def _scan_by_doubling(self, inputs):
    """Triton's interpreter combines a scan's numbers one by one; an associative product may be grouped in any way."""
    arrays, reach = [x.handle.data for x in inputs], 1
    place = np.arange(arrays[0].shape[self.axis]).reshape([-1] + [1] * (arrays[0].ndim - 1 - self.axis))
    while reach < place.size:
        before = [np.roll(x, reach, self.axis) for x in arrays]
        both = self.combine_fn.fn(
            *(self.to_tensor(x, given.dtype) for pair in (before, arrays) for x, given in zip(pair, inputs, strict=True))
        )
        both = both if isinstance(both, tuple) else (both,)
        arrays = [np.where(place >= reach, y.handle.data, x) for x, y in zip(arrays, both, strict=True)]
        reach *= 2
    return [self.to_tensor(x, given.dtype) for x, given in zip(arrays, inputs, strict=True)]


@pytest.fixture(scope="session")
def triton_device():
    """``"cuda"`` or, interpreted, ``"cpu"``; skips without Triton."""
    pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")
    from statespace.kernels.launching import INTERPRETED, unusable

    if reason := unusable():
        pytest.skip(reason)
    if INTERPRETED:
        from triton.runtime.interpreter import ScanOps

        ScanOps.generic_scan = _scan_by_doubling
    return "cpu" if INTERPRETED else "cuda"
