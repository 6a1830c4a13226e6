"""CUDA sources beside the primitives, compiled at run time through CuPy, and arrays that pass to them without a copy.

``load(primitive, file, **defines)`` gives the kernels of ``kernels/<primitive>/<file>``; NVRTC compiles it when it is
first needed, for the GPU at hand, and CuPy keeps the machine code on disk. Sources take no headers but their
neighbours (``#include "name.cuh"``), sizes known at compile time as macros, whole numbers as ``long long`` and
numbers as ``double`` (or the type of a NumPy scalar). CuPy is imported when a call needs it. ``runtime`` is what the
tests replace: NumPy for CuPy, and the same sources compiled for the processor.
"""

import re
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from statespace.kernels.dispatch import INSTALL, is_tensor

# what a block may ask for without being allowed more
SHARED_BYTES = 49152
# of NVRTC, which takes a lambda without a word before it for a function of the host otherwise
OPTIONS = "-std=c++17", "-default-device"


class CuPy:
    """Arrays on a GPU, kernels compiled by NVRTC."""

    device = "cuda"

    @property
    def arrays(self):
        """The array module."""
        import cupy

        return cupy

    def missing(self):
        """What a call would lack here, or None."""
        try:
            import cupy
        except Exception as error:  # a package that is there may fail in any way
            what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            return f"{what} ({INSTALL['cupy']})"
        try:
            if cupy.cuda.runtime.getDeviceCount():
                return None
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"CuPy {cupy.__version__} finds no CUDA device ({error}): a GPU and its driver are needed"
        return f"CuPy {cupy.__version__} finds no CUDA device"

    def compiled(self, code):
        """A function from a kernel's name to what launches it, ``(grid, block, arguments, shared_mem=)``."""
        import cupy

        return cupy.RawModule(code=code, options=OPTIONS).get_function

    def current(self):
        """The number of the current GPU, whose machine code no other can run."""
        import cupy

        return cupy.cuda.runtime.getDevice()

    def resident_threads(self):
        """About as many threads as the current GPU holds where each has many registers."""
        import cupy

        return 256 * cupy.cuda.Device().attributes["MultiProcessorCount"]

    def free_memory(self):
        """Bytes left on the current GPU, with those that CuPy keeps for later."""
        import cupy

        return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()

    def fetched(self, x):
        """``x`` in main memory."""
        import cupy

        return cupy.asnumpy(x)

    @contextmanager
    def scope(self, x):
        """The device of ``x``, and for a torch tensor the stream that torch uses there."""
        import cupy

        with ExitStack() as stack:
            if is_tensor(x):
                import torch

                stack.enter_context(cupy.cuda.Device(x.device.index))
                stream = torch.cuda.current_stream(x.device).cuda_stream
                stack.enter_context(cupy.cuda.ExternalStream(stream, x.device.index))
            elif isinstance(x, cupy.ndarray):
                stack.enter_context(x.device)
            yield


runtime = CuPy()


def unusable(*arguments, **options):
    """The reason of a backend whose kernels are compiled through CuPy, or None."""
    reason = runtime.missing()
    if reason:
        return reason
    for x in filter(is_tensor, (*arguments, *options.values())):
        if x.device.type != runtime.device:
            return f"it takes CuPy and NumPy arrays and torch tensors on a GPU, and a tensor is on {x.device}"
    return None


class Kernels:
    """The kernels of one source."""

    def __init__(self, code):
        self._code = code
        self._found = {}

    def launch(self, name, grid, block, *arguments, shared=0):
        """Run kernel ``name``: arrays, numbers, None for a null pointer; ``shared`` bytes of dynamic shared memory."""
        key = name, runtime.current()
        if key not in self._found:
            self._found[key] = runtime.compiled(self._code)(name)
        kernel = self._found[key]
        if shared > SHARED_BYTES:
            kernel.max_dynamic_shared_size_bytes = shared
        kernel(_sizes(grid), _sizes(block), tuple(map(_passed, arguments)), shared_mem=shared)


@cache
def load(primitive, file, **defines):
    """The ``Kernels`` of a source, one for each set of macros."""
    return Kernels(source(primitive, file, **defines))


def source(primitive, file, **defines):
    """The whole text of a source: macros, then the file with its neighbours in place of their includes."""
    lines = [f"#define {name} {value}" for name, value in defines.items()]
    return "\n".join([*lines, _text(Path(__file__).parent / primitive / file, set())])


def _text(path, seen):
    seen.add(path)

    def included(match):
        neighbour = (path.parent / match[1]).resolve()
        return "" if neighbour in seen else _text(neighbour, seen)

    return re.sub(r'^#include "(.+)"$', included, path.read_text(), flags=re.MULTILINE)


def borrowed(x, dtype=None):
    """``x`` as an array of the runtime: a torch tensor shares its memory, an array of NumPy is copied to the GPU."""
    xp = runtime.arrays
    if is_tensor(x):
        x = xp.from_dlpack(x.detach())
    return xp.ascontiguousarray(x, dtype=dtype)


def returned(x, like):
    """A result in the form of ``like``: a torch tensor shares its memory, an array of NumPy is copied from the GPU."""
    if is_tensor(like):
        import torch

        return torch.from_dlpack(x)
    return x if isinstance(like, runtime.arrays.ndarray) else runtime.fetched(x)


def _sizes(given):
    return tuple(given) if isinstance(given, tuple | list) else (int(given),)


def _passed(x):
    if x is None:
        return np.intp(0)
    if isinstance(x, int):
        return np.int64(x)
    return np.float64(x) if isinstance(x, float) else x
