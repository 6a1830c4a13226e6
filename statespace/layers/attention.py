"""Attention, the mixer that forgets nothing, beside state-space layers in hybrids: rotary phases in continuous time.

    q_k, k_k, v_k = W_in u_k,    s_kj = ⟨R(t_k) q_k, R(t_j) k_j⟩ / √P,    y_k = W_out Σ_{j ≤ k} softmax_j(s_kj) v_j

Letters: P channels of a head, t_k the running sum of the gaps, R(t) the rotation of the channels 2i and 2i + 1 by the
angle t · 10000^(−2i/P). As R(t)ᵀ R(s) = R(s − t), a score depends on the time between two samples alone.
"""

import torch
from torch import nn
from torch.nn import functional as F

from statespace.kernels.dispatch import BackendError
from statespace.layers.selective import SelectiveMixer, product

# Angles of rotary phases fall from 1 to almost this fraction of it.
_BASE = 10000.0
# Pairs of a query and a key that are masked at once, which is what a chunk of queries costs in memory; and the queries
# of a block where the window is small.
_PAIRS, _QUERIES = 2**22, 256


class Attention(SelectiveMixer):
    """Multi-head attention over the past, with rotary phases that turn with time rather than with position.

        s_kj = ⟨R(t_k) q_k, R(t_j) k_j⟩ / √P,    y_k = W_out Σ_{j ≤ k} softmax_j(s_kj) v_j

    On a regular grid, Δ = 1, this is rotary position embedding [1]_ in the self-attention of [2]_. On irregular times
    the phase of a sample is its elapsed time, summed in float64, so that only time differences count. Attention holds
    past samples themselves where a state-space layer holds a summary: one such layer among several gives a hybrid that
    can look things up [3]_.

    Parameters
    ----------
    d_model : int
        Number of channels.
    n_heads : int, optional
        Heads, each of d_model / n_heads channels. None takes 4, or 2 or 1 where 4 would not leave each an even number.
        The last channel of an odd number has no phase.
    window : int, optional
        Past samples that are kept, and that a sample attends to beside itself: a step's memory and time are constant.
        None keeps all, in a state that grows with the record.
    bidirectional : bool, default False
        Attend to all samples, those to come too (with ``window``: as many of either side): one attention, not the sum
        of two directions that other layers take. Such a layer has neither ``step`` nor a state to pass on.
    backend : {None, "pytorch"}, default None
        There is one: torch's ``scaled_dot_product_attention``.

    Raises
    ------
    ValueError
        ``n_heads`` does not divide ``d_model``, or ``window`` is no positive integer.
    BackendError
        Another backend.

    Notes
    -----
    The state is one tensor of shape (batch, n_kept, 2 d_model + 3), the newest sample last: key before its rotation,
    value, whether there is a sample, and the time since it, as a number and what it lacks in precision. With ``window``
    n_kept is ``window``; without, it is the largest number of samples that a record of the batch has had.

    References
    ----------
    .. [1] J. Su, Y. Lu, S. Pan, A. Murtadha, B. Wen, Y. Liu (2021). RoFormer: Enhanced Transformer with Rotary Position
       Embedding. Equations 14-16.
    .. [2] A. Vaswani et al. (2017). Attention Is All You Need. Section 3.2.
    .. [3] O. Lieber et al. (2024). Jamba: A Hybrid Transformer-Mamba Language Model.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import Attention
    >>> layer = Attention(d_model=8, n_heads=2, window=16)
    >>> u, dt = torch.randn(3, 50, 8), torch.rand(3, 50) + 0.5
    >>> y, state = layer(u, dt)
    >>> y_t, state = layer.step(torch.randn(3, 8), state, dt=torch.ones(3))
    >>> y_t.shape, state.shape
    (torch.Size([3, 8]), torch.Size([3, 16, 19]))
    """

    def __init__(self, d_model, *, n_heads=None, window=None, bidirectional=False, backend=None):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        if n_heads is None:
            n_heads = next((n for n in (4, 2) if d_model % (2 * n) == 0), 1)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads must be a divisor of d_model = {d_model}. Got {n_heads!r} instead.")
        if window is not None and window < 1:
            raise ValueError(f"window must be a positive integer, or None to keep all samples. Got {window!r} instead.")
        self.n_heads, self.window = n_heads, window
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def _check_backend(self):
        if self.backend not in (None, "pytorch"):
            raise BackendError(f"backend={self.backend!r} cannot run attention: it has only a pytorch implementation.")

    def _state_shapes(self, batch_size):
        return batch_size, self.window, 2 * self.d_model + 3

    def _read(self, u, dt, lengths, state):
        q, k, v = product(u, self.in_proj.weight).chunk(3, dim=-1)
        times = _elapsed(u, dt)
        here = torch.ones_like(times, dtype=torch.promote_types(u.dtype, torch.float32))
        present = None
        if state is not None:
            old_k, old_v, old_here, age, rest = state.split([self.d_model, self.d_model, 1, 1, 1], dim=-1)
            k, v = torch.cat([old_k.to(k.dtype), k], dim=1), torch.cat([old_v.to(v.dtype), v], dim=1)
            here = torch.cat([old_here.squeeze(-1).to(here.dtype), here], dim=1)
            past = -(age.to(times.dtype) + rest.to(times.dtype)).squeeze(-1)
            key_times = torch.cat([past, times], dim=1)
            present = here.detach() > 0.5
            present = None if self._all(present) else present
        else:
            key_times = times
        y = self._attend(self._turned(q, times), self._turned(k, key_times), self._heads(v), present)
        n = k.shape[1] - u.shape[1]
        return product(y.transpose(1, 2).flatten(2), self.out_proj.weight), self._kept(
            k, v, here, times[:, -1:] - key_times, lengths, n
        )

    def _read_both(self, u, dt, lengths):
        q, k, v = product(u, self.in_proj.weight).chunk(3, dim=-1)
        times = _elapsed(u, dt)
        present = None if lengths is None else torch.arange(u.shape[1], device=u.device) < lengths.unsqueeze(-1)
        y = self._attend(self._turned(q, times), self._turned(k, times), self._heads(v), present)
        return product(y.transpose(1, 2).flatten(2), self.out_proj.weight)

    def _advance(self, u_t, dt, state):
        if dt is None:
            y, after = self._read(u_t.unsqueeze(1), None, None, state)
        else:
            real = dt.detach() > 0
            lengths = None if self._all(real) else real.long()
            y, after = self._read(u_t.unsqueeze(1), dt.unsqueeze(1), lengths, state)
        return y.squeeze(1), after

    def _choose(self, real, after, before):
        # A padded sample was not stored; what may have changed is the number of slots.
        return after

    def _all(self, real):
        """Whether all are real: in a graph that is traced, of a layer whose state grows alike for all records."""
        return self.window is None if torch.compiler.is_compiling() else bool(real.all())

    def _heads(self, x):
        """(B, L, d_model) -> (B, H, L, P)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _turned(self, x, times):
        """Heads (B, H, L, P) of x (B, L, d_model), each pair of channels turned by its phase at ``times`` (B, L)."""
        x = self._heads(x)
        P = x.shape[-1]
        if P == 1:
            return x
        exponents = torch.arange(P // 2, device=x.device, dtype=times.dtype) * (2 / P)
        angles = times.unsqueeze(-1) * _BASE**-exponents
        # A pair of channels as one complex number, which is several times as fast as two real ones.
        dtype = torch.promote_types(x.dtype, torch.float32)
        phases = torch.complex(angles.cos().to(dtype), angles.sin().to(dtype)).unsqueeze(1)
        pairs = x if P % 2 == 0 else x[..., :-1].clone(memory_format=torch.contiguous_format)
        pairs = torch.view_as_complex(pairs.to(dtype).unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * phases).flatten(-2).to(x.dtype)
        return turned if P % 2 == 0 else torch.cat([turned, x[..., -1:]], dim=-1)

    def _attend(self, q, k, v, present):
        """Values (B, H, L, P) that the queries (B, H, L, P) find.

        Keys and values (B, H, n + L, P) start with n of the state. ``present`` (B, n + L) says where there is one.
        """
        L, n = q.shape[2], k.shape[2] - q.shape[2]
        reach = L + n if self.window is None else self.window
        if present is None and reach >= n + L - 1:
            if self.bidirectional or L == 1:
                return F.scaled_dot_product_attention(q, k, v)
            if n == 0:
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if max(reach, _QUERIES) < L:
            return self._attend_in_blocks(q, k, v, present)
        size = 1 if L == 1 else max(1, _PAIRS // (len(q) * (n + L)))
        parts = []
        for start in range(0, L, size):
            end = min(start + size, L)
            low = max(0, n + start - reach)
            high = min(n + L, end + reach) if self.bidirectional else n + end
            query = torch.arange(n + start, n + end, device=q.device).unsqueeze(-1)
            key = torch.arange(low, high, device=q.device)
            seen = (query - key).abs() <= reach if self.bidirectional else (key <= query) & (key >= query - reach)
            if present is not None:
                # Each sees itself, so that padding finds something finite.
                seen = seen & present[:, None, low:high] | (key == query)
                seen = seen.unsqueeze(1)
            parts.append(
                F.scaled_dot_product_attention(q[:, :, start:end], k[:, :, low:high], v[:, :, low:high], attn_mask=seen)
            )
        return torch.cat(parts, dim=2)

    def _attend_in_blocks(self, q, k, v, present):
        """As `_attend` with a window shorter than the record, in time and memory that are linear in its length.

        A block of S queries reads the keys of its own S samples and those that a window adds; all are alike.
        """
        B, L, n, reach = len(q), q.shape[2], k.shape[2] - q.shape[2], self.window
        ahead = reach if self.bidirectional else 0
        S = max(reach, _QUERIES)
        C, W = -(-L // S), S + reach + ahead
        front, back = reach - n, C * S - L + ahead
        if present is None:
            present = torch.ones(B, n + L, dtype=torch.bool, device=q.device)
        present = F.pad(present, (front, back)).unfold(1, W, S)
        q = F.pad(q, (0, 0, 0, C * S - L)).unflatten(2, (C, S))
        k, v = (F.pad(x, (0, 0, front, back)).unfold(2, W, S).transpose(-1, -2) for x in (k, v))
        query, key = torch.arange(S, device=q.device).unsqueeze(-1), torch.arange(W, device=q.device)
        band, own = (key >= query) & (key <= query + reach + ahead), key == query + reach
        together = max(1, _PAIRS // (B * S * W))
        parts = []
        for queries, keys, values, there in zip(
            *(x.split(together, dim=2) for x in (q, k, v)), present.split(together, dim=1), strict=True
        ):
            blocks = (x.transpose(1, 2).flatten(0, 1) for x in (queries, keys, values))
            seen = (band & there.unsqueeze(-2) | own).flatten(0, 1).unsqueeze(1)
            answers = F.scaled_dot_product_attention(*blocks, attn_mask=seen)
            parts.append(answers.unflatten(0, (B, -1)).transpose(1, 2).flatten(2, 3))
        return torch.cat(parts, dim=2)[:, :, :L]

    def _kept(self, k, v, here, ages, lengths, n):
        """The state: each record's newest samples, the last in the last slot; ``n`` slots are of the state before."""
        # An age is the sum of two numbers, so that single precision loses nothing over a long record.
        ages = torch.where(here > 0.5, ages, 0.0)
        age = ages.to(here.dtype)
        rest = (ages - age.to(ages.dtype)).to(here.dtype)
        slots = torch.cat([k.to(here.dtype), v.to(here.dtype), torch.stack([here, age, rest], dim=-1)], dim=-1)
        if lengths is None:
            size = slots.shape[1] if self.window is None else self.window
            return F.pad(slots[:, -size:], (0, 0, max(0, size - slots.shape[1]), 0))
        held = (here[:, :n] > 0.5).sum(dim=1) + lengths
        size = int(held.max()) if self.window is None else self.window
        # Padding stands behind the samples of this call: what is kept ends where they do.
        index = (n + lengths - size).unsqueeze(-1) + torch.arange(size, device=k.device)
        kept = slots.gather(1, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, slots.shape[-1]))
        return torch.where((index >= 0).unsqueeze(-1), kept, 0.0)


def _elapsed(u, dt):
    """Time of each sample (B, L) since the state's, in float64 where the device has it."""
    exact = torch.float32 if u.device.type == "mps" else torch.float64
    gaps = torch.ones_like(u[..., 0], dtype=exact) if dt is None else dt.to(exact)
    return gaps.cumsum(dim=1)
