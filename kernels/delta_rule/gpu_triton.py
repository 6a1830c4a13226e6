"""The delta rule on a GPU: chunks as matrix products, all at once but for the state (`triton_chunks.py`)."""

# mypy cannot count what a list is unpacked to.
# mypy: disable-error-code="return-value"

import torch
import triton
from torch import Tensor

from statespace.kernels import launching
from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.delta_rule import triton_chunks as chunks
from statespace.kernels.delta_rule.triton_rows import unit_rows
from statespace.kernels.operators import operator

SIDES = 64, 32, 16  # steps of a chunk
WIDEST = 1024  # numbers of a key, of four bytes: a program holds some columns of a state, and a chunk's keys


def unusable(*arguments, chunk_size=None):
    if chunk_size is not None and chunk_size not in SIDES:
        return f"its chunks have 16, 32 or 64 steps, not {chunk_size}"
    if arguments:
        q, k, v = arguments[:3]
        longest = _longest(k, max(x.dtype.itemsize for x in (q, k, v)))
        if longest < (chunk_size or 1):
            return f"its programs hold {longest} keys of {k.shape[-1]} numbers at most, and a chunk has 16 or more"
    return launching.unusable(*arguments)


@accepts_numpy
def delta_rule(q, k, v, beta, decay=None, initial_state=None, *, chunk_size=None, qk_l2norm=False):
    """See :func:`statespace.kernels.delta_rule`; torch tensors are differentiable, once."""
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.promote_types(v.dtype, torch.float32))
    given = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    given = given if given.is_floating_point else dtype
    (B, L, H, K), V = k.shape, v.shape[-1]
    start = k.new_zeros(B, H, K, V, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    if qk_l2norm:
        q, k = unit_rows(q.to(given)), unit_rows(k.to(given))
    rows = [x.to(given).contiguous() for x in (q, k, v)]
    decay = None if decay is None else decay.to(dtype).contiguous()
    C = chunk_size or min(_longest(k, given.itemsize), 64 if _kind(*rows).itemsize == 2 else 32, _width(L))
    o, state, *_ = _rule(*rows, beta.to(dtype).contiguous(), decay, start.contiguous(), C)
    return o.to(v.dtype) if v.is_floating_point() else o, state


def _kind(*tensors):
    """What is multiplied: float16, whose range is too small for states, as float32."""
    kind = tensors[0].dtype
    for x in tensors[1:]:
        kind = torch.promote_types(kind, x.dtype)
    return kind if kind in (torch.bfloat16, torch.float64) else torch.float32


def _width(numbers):
    """That of a tile that holds so many: a power of two, which products on tensor cores want to be 16 or more."""
    return max(16, triton.next_power_of_2(numbers))


def _longest(k, itemsize):
    """The most steps a chunk can have; 0 where not even the shortest ones fit."""
    room = WIDEST * 4 // (_width(k.shape[-1]) * max(itemsize, 4))
    return next((side for side in SIDES if side <= 16 * room), 0)


def _columns(K, V, kind):
    """Columns of a state that a program holds, of all rows."""
    return max(16, min(4096 // _width(K), 64 if kind.itemsize == 2 else 16, _width(V)))


def _tiled(K, C, kind):
    """The rows of a state in tiles."""
    rows = min(_width(K), max(_width(K) // 8, 64 if kind.itemsize == 2 else 32))
    return {"C": C, "BK": rows, "TILES": _width(K) // rows, **_threads(kind)}


def _threads(kind):
    """The wider the numbers, the more threads share the registers that their products ask for."""
    return {"num_warps": 4, "num_stages": 2} if kind.itemsize == 2 else {"num_warps": 8, "num_stages": 1}


def _shape(k, v, C):
    """(B · H, chunks of C steps)."""
    return k.shape[0] * k.shape[2], triton.cdiv(k.shape[1], C)


def _results(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor | None, start: Tensor, C: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kind, (pairs, N), (K, V) = _kind(q, k, v), _shape(k, v, C), start.shape[2:]
    matrices = [k.new_empty(pairs, N, C, C, dtype=kind) for _ in range(2)]
    states, written = k.new_empty(pairs, N, K, V, dtype=kind), v.new_empty(v.shape, dtype=kind)
    return v.new_empty(v.shape), start.new_empty(start.shape), *matrices, states, written


def _compute(o, final, inverse, reads, states, w, q, k, v, beta, decay, start, C):
    (_, L, H, K), V, (pairs, N) = k.shape, v.shape[-1], _shape(k, v, C)
    columns = _columns(K, V, w.dtype)
    sizes, grid = (L, H, N, K, V), lambda options: (pairs, triton.cdiv(V, options["BV"]))
    narrow = {"C": C, "BK": min(_width(K), 64), **_threads(w.dtype)}
    chunks.prepare[(pairs * N,)](inverse, reads, q, k, beta, decay, *sizes[:4], **narrow)
    chunks.pass_on[grid](
        states, w, final, k, v, beta, decay, inverse, start, *sizes, BV=columns, **_tiled(K, C, w.dtype)
    )
    chunks.read_out[pairs * N, triton.cdiv(V, columns)](o, q, decay, states, w, reads, *sizes, BV=columns, **narrow)


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor | None, inverse: Tensor, reads: Tensor,
    states: Tensor, w: Tensor, of_o: Tensor, of_final: Tensor, C: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_decay = beta.new_empty((0,) if decay is None else decay.shape)
    rows = [x.new_empty(x.shape) for x in (q, k, v)]
    return *rows, beta.new_empty(beta.shape), of_decay, of_final.new_empty(of_final.shape)


def _compute_gradients(
    of_q, of_k, of_v, of_beta, of_decay, of_start, q, k, v, beta, decay, inverse, reads, states, w, of_o, of_final, C
):
    (_, L, H, K), V, (pairs, N) = k.shape, v.shape[-1], _shape(k, v, C)
    columns = _columns(K, V, w.dtype)
    sizes, grid = (L, H, N, K, V), lambda options: (pairs, triton.cdiv(V, options["BV"]))
    of_states, x = torch.empty_like(states), torch.empty_like(w)
    chunks.pass_back[grid](
        of_states, x, of_start, q, k, beta, decay, inverse, reads, of_o, of_final, *sizes, BV=columns,
        **_tiled(K, C, w.dtype),
    )  # fmt: skip
    results, kept = (of_q, of_k, of_v, of_beta, of_decay), (reads, states, of_states, w, x, of_o)
    side = 32 if w.dtype.itemsize == 2 else 16
    options = {"C": C, "BK": min(side, _width(K)), "BV": min(side, _width(V)), "num_warps": 8, "num_stages": 1}
    chunks.gradients[(pairs * N,)](*results, q, k, v, beta, decay, *kept, *sizes, **options)


_rule = operator("delta_rule", _results, _compute)
_rule_backward = operator("delta_rule_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    *tensors, _, ctx.C = inputs
    ctx.save_for_backward(*tensors, *output[2:])


def _differentiate(ctx, of_o, of_final, *_):
    *rows, of_beta, of_decay, of_start = _rule_backward(
        *ctx.saved_tensors, of_o.contiguous(), of_final.contiguous(), ctx.C
    )
    return *rows, of_beta, None if ctx.saved_tensors[4] is None else of_decay, of_start, None


_rule.register_autograd(_differentiate, setup_context=_keep)
