"""Convolution in CUDA: transforms, product and inverse in one kernel, padding nowhere; short kernels by the sum itself.

``ring.cuh`` says how, README.md why. Records pass through shared memory once; what is longer than it holds is split
into rings through a scratch array whose pieces stay in a second cache.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from statespace.kernels import cuda
from statespace.kernels.dispatch import is_tensor
from statespace.kernels.long_convolution.plan import plan, tables
from statespace.kernels.operators import operator

# Up to here the sum takes less time than a transform.
SHORT = 32
# Bytes of scratch that are written and read again at once.
PIECE = 24_000_000
# Blocks of threads that fill a GPU; bytes of shared memory for the columns of one.
FILLING, COLUMN_BYTES = 528, 1 << 15
TYPES = {
    "float32": ("float", 0), "float64": ("double", 0), "bfloat16": ("short", 1), "float16": ("short", 2),
}  # fmt: skip


def unusable(u=None, k=None):
    """The reason against this call, or None."""
    if reason := cuda.unusable(u, k):
        return reason
    if u is None:
        return None
    for x in (u, k):
        if _name(x) not in TYPES:
            return f"it has kernels for {', '.join(TYPES)}, not for {_name(x)}"
    itemsize = 8 if "float64" in (_name(u), _name(k)) else 4
    if k.shape[-1] > SHORT and plan(u.shape[-1], min(u.shape[-1], k.shape[-1]), itemsize) is None:
        return f"its transforms are too short for a kernel of {k.shape[-1]} taps"
    return None


def long_convolution(u, k):
    """See :func:`statespace.kernels.long_convolution`; torch tensors are differentiable, once."""
    K = min(k.shape[-1], u.shape[-1])
    if is_tensor(u):
        dtype = torch.promote_types(u.dtype, k.dtype)
        return _convolution(u.to(dtype).contiguous(), k[:, :K].to(torch.promote_types(dtype, torch.float32)))
    with cuda.runtime.scope(u):
        xp = cuda.runtime.arrays
        dtype = np.promote_types(u.dtype, k.dtype)
        given = cuda.borrowed(u, dtype), cuda.borrowed(k[:, :K], np.promote_types(dtype, np.float32))
        y = xp.empty(given[0].shape, dtype)
        _convolve(_bits(y), _bits(given[0]), given[1], dtype.name, xp.empty)
        return cuda.returned(y, u)


def _name(x):
    return str(x.dtype).removeprefix("torch.")


def _bits(x):
    """Half precision as whole numbers: not every library knows it."""
    if is_tensor(x):
        return cuda.borrowed(x.detach().view(torch.int16) if x.dtype.itemsize == 2 else x)
    return x.view(np.int16) if x.dtype.itemsize == 2 else x


def _room(device):
    """Scratch from torch's own memory."""
    return lambda shape, dtype: cuda.borrowed(torch.empty(shape, dtype=getattr(torch, dtype), device=device))


def _result(u: Tensor, k: Tensor) -> Tensor:
    return torch.empty_like(u)


def _run(y, u, k):
    with cuda.runtime.scope(u):
        _convolve(_bits(y), _bits(u), cuda.borrowed(k), _name(u), _room(u.device))


def _gradients(u: Tensor, k: Tensor, grad: Tensor, by_u: bool, by_k: bool) -> tuple[Tensor, Tensor]:
    return grad.new_empty(u.shape if by_u else 0), k.new_empty(k.shape if by_k else 0)


def _run_gradients(grad_u, grad_k, u, k, grad, by_u, by_k):
    with cuda.runtime.scope(u):
        wanted = _bits(grad_u) if by_u else None, cuda.borrowed(grad_k) if by_k else None
        _differentiate(*wanted, _bits(u), cuda.borrowed(k), _bits(grad), _name(u), _room(u.device))


_convolution = operator("long_convolution", _result, _run)
_convolution_backward = operator("long_convolution_backward", _gradients, _run_gradients)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _back(ctx, grad):
    u, k = ctx.saved_tensors
    by_u, by_k = ctx.needs_input_grad
    grad_u, grad_k = _convolution_backward(u, k.contiguous(), grad.contiguous(), by_u, by_k)
    return grad_u if by_u else None, grad_k if by_k else None


_convolution.register_autograd(_back, setup_context=_keep)


class _Launcher:
    """The kernels for records (B, H, L) of type ``name`` with kernels (H, K)."""

    def __init__(self, u, k, name, empty):
        (self.B, self.H, self.L), self.K = u.shape, k.shape[-1]
        self.empty, self.real = empty, k.dtype.name
        sample, kind = TYPES[name]
        self.types = {"REAL": {"float32": "float", "float64": "double"}[self.real], "SAMPLE": sample, "KIND": kind}
        self.types["PAIR"] = self.types["REAL"] + "2"
        self.complex = {"float32": "complex64", "float64": "complex128"}[self.real]
        self.plan = None if self.K <= SHORT else plan(self.L, self.K, k.dtype.itemsize)
        if self.plan:
            self._lay_out(k.dtype.itemsize)

    def _lay_out(self, itemsize):
        length, roots = self.plan[:2]
        tile = max(4, min(length, 32, COLUMN_BYTES // (2 * itemsize * roots)))
        sizes = {"LENGTH": length, "ROOTS": roots}
        self.columns, self.rows = _constants(length, roots, self.complex, cuda.runtime.current())
        self.threads = max(32, min(512, length // 16))
        source = "single.cu" if roots == 1 else "rings.cu"
        self.kernels = cuda.load("long_convolution", source, **self.types, **sizes, THREADS=self.threads)
        # the gaps of ring.cuh
        self.row_bytes = 2 * itemsize * (length + (length >> (4 if itemsize == 4 else 3)))
        if roots > 1:
            self.column_threads = max(32, min(512, roots * tile // 16))
            self.column_kernels = cuda.load(
                "long_convolution", "columns.cu", **self.types, **sizes, TILE=tile, THREADS=self.column_threads
            )
            self.column_grid = length // tile
            self.column_bytes = 0 if roots == 16 else 2 * itemsize * roots * tile

    def by_row(self, name, grid, *arguments, together=1):
        self.kernels.launch(name, grid, (self.threads, together), *arguments, shared=together * self.row_bytes)

    def by_column(self, name, rows, *arguments):
        grid, block = (self.column_grid, rows), self.column_threads
        self.column_kernels.launch(name, grid, block, *arguments, shared=self.column_bytes)

    def direct(self, name, grid, threads, *arguments):
        sizes = {"TAPS": self.K, "THREADS": threads}
        cuda.load("long_convolution", "sums.cu", **self.types, **sizes).launch(name, grid, threads, *arguments)

    def sum_directly(self, y, u, k, backwards):
        rows = self.B * self.H
        grid = -(-self.L // 1024), min(rows, 65535)
        self.direct("convolve_directly", grid, 128, y, u, k, rows, self.H, self.L, backwards)

    def parts(self, pieces):
        """Into how many sums the pieces of a channel are cut, so that all channels fill a GPU."""
        return max(1, min(pieces, FILLING // self.H))

    def pieces(self):
        """First channel and number of channels, first record and number of records, of bounded scratch."""
        length, roots, _, blocks = self.plan
        rows = max(1, PIECE // (length * roots * blocks * np.dtype(self.complex).itemsize))
        channels = min(self.H, rows)
        records = max(1, min(self.B, rows // channels))
        for h in range(0, self.H, channels):
            for b in range(0, self.B, records):
                yield h, min(channels, self.H - h), b, min(records, self.B - b)

    def transforms(self, k):
        """The kernels' transforms, 1 / M of them."""
        length, roots = self.plan[:2]
        spectrum = self.empty((self.H, roots * length), self.complex)
        if roots == 1:
            self.by_row("transform_kernels", self.H, spectrum, k, self.rows, self.K)
        else:
            self.by_column("split_kernels", self.H, spectrum, k, self.columns, self.K)
            self.by_row("transform_rings", (roots, self.H), spectrum, self.rows)
        return spectrum

    def multiply(self, y, u, spectrum, conjugate):
        """y from u, forth (from K - 1 samples before a block) or back (from K - 1 samples after it)."""
        length, roots, size, blocks = self.plan
        before, after = (0, self.K - 1) if conjugate else (self.K - 1, 0)
        if roots == 1:
            rows = self.B * self.H * blocks
            together = max(1, min(rows, 128 // self.threads))
            self.by_row(
                "convolve", -(-rows // together), y, u, spectrum, self.rows, self.B, self.H, self.L, blocks, size,
                before, after, conjugate, together=together,
            )  # fmt: skip
            return
        for h, channels, b, records in self.pieces():
            rows = channels * records * blocks
            scratch = self.empty((rows, roots * length), self.complex)
            where = self.H, self.L, records, blocks, size, h, b, before
            self.by_column("split_samples", rows, scratch, u, self.columns, *where, after)
            given = records, blocks, h, conjugate
            self.by_row("multiply_rings", (roots, rows), scratch, spectrum, self.rows, *given)
            self.by_column("join_samples", rows, y, scratch, self.columns, *where)

    def correlate(self, grad_u, grad_k, u, grad, spectrum):
        length, roots, size, blocks = self.plan
        if roots == 1:
            parts = self.parts(self.B * blocks)
            sums, scratch = (self.empty((self.H * parts, length), self.complex) for _ in range(2))
            where = self.B, self.H, self.L, blocks, size, self.K - 1
            self.by_row("correlate", (self.H, parts), sums, scratch, grad_u, u, grad, spectrum, self.rows, *where)
            self.by_row("join_kernels", self.H, grad_k, sums, self.rows, self.K, parts)
            return
        sums = self.empty((self.H, roots * length), self.complex)
        for h, channels, b, records in self.pieces():
            rows = channels * records * blocks
            inputs, outputs = (self.empty((rows, roots * length), self.complex) for _ in range(2))
            where = self.H, self.L, records, blocks, size, h, b, 0
            self.by_column("split_samples", rows, inputs, u, self.columns, *where, 0)
            self.by_column("split_samples", rows, outputs, grad, self.columns, *where, self.K - 1)
            given = records, blocks, h, b
            self.by_row("correlate_rings", (roots, channels), sums, inputs, outputs, spectrum, self.rows, *given)
            if grad_u is not None:
                self.by_column("join_samples", rows, grad_u, outputs, self.columns, *where)
        self.by_row("join_rings", (roots, self.H), sums, self.rows)
        self.by_column("join_kernel_columns", self.H, grad_k, sums, self.columns, self.K)


@cache
def _constants(length, roots, dtype, device):
    xp = cuda.runtime.arrays
    return [None if x is None else xp.asarray(x.astype(dtype)) for x in tables(length, roots)]


def _convolve(y, u, k, name, empty):
    launcher = _Launcher(u, k, name, empty)
    if launcher.plan is None:
        launcher.sum_directly(y, u, k, 0)
    else:
        launcher.multiply(y, u, launcher.transforms(k), 0)


def _differentiate(grad_u, grad_k, u, k, grad, name, empty):
    """What is None is not wanted."""
    launcher = _Launcher(u, k, name, empty)
    if launcher.plan is None:
        if grad_u is not None:
            launcher.sum_directly(grad_u, grad, k, 1)
        if grad_k is not None:
            parts, taps = launcher.parts(launcher.B * math.ceil(launcher.L / 1024)), -(-launcher.K // 8) * 8
            sums = empty((launcher.H, parts, taps), launcher.real)
            sizes = launcher.B, launcher.H, launcher.L
            launcher.direct("correlate_directly", (launcher.H, parts), 4 * taps, sums, u, grad, *sizes)
            grid = -(-launcher.H * launcher.K // 128)
            launcher.direct("add_parts", grid, 128, grad_k, sums, launcher.H, parts)
        return
    spectrum = None if grad_u is None else launcher.transforms(k)
    if grad_k is None:
        launcher.multiply(grad_u, grad, spectrum, 1)
    else:
        launcher.correlate(grad_u, grad_k, u, grad, spectrum)
