"""Windows of steps as single steps of a slower scale, and back: what `SaShiMi` pools with.

    down: z_j = D [h_{jp} … h_{jp+p−1}] + d        up: [h_{jp} … h_{jp+p−1}] = U y_{j−1} + u

A step sees the outputs of windows that were full before its own began. Records in a batch may have been cut anywhere
and padded, so that each has a phase of its own in its window: the general case scatters the real steps into windows.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Places(NamedTuple):
    """Where the steps of a call lie in windows, between `Windows.down` and `Windows.up`.

    Attributes
    ----------
    lifted : Tensor of shape (B, p, fast) or None
        For the steps of the first window; None without a shift.
    tail : tuple of Tensor
        Buffer (B, p, fast), elapsed (B,) and count (B,) after the last step.
    n_windows : Tensor of shape (B,)
        Full windows of each record.
    steps : Tensor of shape (B, L) or slice
        The place of each step.

    Examples
    --------
    >>> import torch
    >>> from statespace.models.windows import Windows
    >>> *_, places = Windows(4, 8, 2, causal=True).down(torch.randn(1, 5, 4), None, None)
    >>> places.n_windows
    tensor([2])
    """

    lifted: Tensor | None
    tail: tuple
    n_windows: Tensor
    steps: Tensor | slice


class Windows(nn.Module):
    """Pooling between two scales.

    Parameters
    ----------
    fast, slow : int
        Widths of the two scales.
    factor : int
        p, the steps of a window.
    causal : bool
        Whether what comes up is shifted by one window, and a window that is not full waits in the state.

    Examples
    --------
    >>> import torch
    >>> from statespace.models.windows import Windows
    >>> windows = Windows(fast=4, slow=8, factor=3, causal=True)
    >>> coarse, gaps, places = windows.down(torch.randn(2, 10, 4), torch.ones(2, 10), None)
    >>> coarse.shape
    torch.Size([2, 3, 8])
    >>> lifted, state = windows.up(coarse, places)
    >>> lifted.shape
    torch.Size([2, 10, 4])
    """

    def __init__(self, fast: int, slow: int, factor: int, causal: bool):
        super().__init__()
        self.fast, self.factor, self.causal = fast, factor, causal
        self.down_map = nn.Linear(fast * factor, slow)
        self.up_map = nn.Linear(slow, fast * factor)

    def initial_state(self, batch_size: int) -> tuple:
        """An empty window: buffer (B, p, fast), what came up for it (B, p, fast), elapsed time and count (B,)."""
        like = self.down_map.weight
        empty = like.new_zeros(batch_size, self.factor, self.fast)
        return empty, empty, like.new_zeros(batch_size), like.new_zeros(batch_size, dtype=torch.int64)

    def down(self, h: Tensor, dt: Tensor | None, state: tuple | None) -> tuple[Tensor, Tensor | None, Places]:
        """h (B, L, fast) and its gaps -> the windows that are full (B, W, slow), theirs (B, W), and places for `up`."""
        p = self.factor
        buffer, lifted, elapsed, count = self.initial_state(len(h)) if state is None else state
        regular = dt is None and (state is None or bool((elapsed == count).all()))
        gaps = torch.ones_like(h[..., 0]) if dt is None else dt
        steps: Tensor | slice
        if bool((gaps > 0).all()) and bool((count == count[0]).all()):
            c = int(count[0])
            n = count + h.shape[1]
            steps = slice(c, c + h.shape[1])
            room = int(n[0]) // p * p + p - int(n[0])
            rows = torch.cat([buffer[:, :c], h, h.new_zeros(len(h), room, self.fast)], dim=1)
            gaps = F.pad(gaps, (c, room))
        else:
            real = gaps > 0
            n = count + real.sum(dim=1)
            size = int(n.max()) // p * p + p
            # A padded step goes to one place behind all windows, which is then dropped.
            steps = torch.where(real, count[:, None] + real.cumsum(dim=1) - 1, size)
            rows = F.pad(buffer, (0, 0, 0, size + 1 - p))
            rows = rows.scatter(1, steps[..., None].expand_as(h), h)[:, :size]
            gaps = gaps.new_zeros(len(h), size + 1).scatter(1, steps, gaps)[:, :size]
        times = gaps.unflatten(1, (-1, p)).sum(dim=2)
        times = torch.cat([times[:, :1] + elapsed[:, None].to(times.dtype), times[:, 1:]], dim=1)
        n_windows = n // p if self.causal else (n + p - 1) // p
        each = torch.arange(len(h), device=h.device)
        rows = rows.unflatten(1, (-1, p))
        tail = (rows[each, n // p], times[each, n // p].to(elapsed.dtype), n % p)
        wide = int(n_windows.max())
        full = torch.arange(wide, device=h.device) < n_windows[:, None]
        coarse = torch.where(full[..., None], self.down_map(rows[:, :wide].flatten(2)), 0)
        if regular and bool(full.all()):
            return coarse, None, Places(lifted if self.causal else None, tail, n_windows, steps)
        held = (n[:, None] - p * torch.arange(wide, device=h.device)).clamp(1, p)
        times = torch.where(full, times[:, :wide] / held, 0)
        return coarse, times, Places(lifted if self.causal else None, tail, n_windows, steps)

    def up(self, y: Tensor, places: Places) -> tuple[Tensor, tuple | None]:
        """Outputs of the slower scale (B, W, slow) -> what they add at the steps (B, L, fast), and the state."""
        rows = self.up_map(y).unflatten(2, (self.factor, self.fast))
        state = None
        if places.lifted is not None:
            rows = torch.cat([places.lifted[:, None].to(rows.dtype), rows], dim=1)
            buffer, elapsed, count = places.tail
            state = buffer, rows[torch.arange(len(rows), device=rows.device), places.n_windows], elapsed, count
        rows = rows.flatten(1, 2)
        if isinstance(places.steps, slice):
            return rows[:, places.steps], state
        steps = places.steps.clamp(max=rows.shape[1] - 1)
        return rows.gather(1, steps[..., None].expand(-1, -1, self.fast)), state

    def push(self, h_t: Tensor, dt: Tensor | None, state: tuple) -> tuple[Tensor, tuple, Tensor]:
        """One step h_t (B, fast) into its window -> what comes up for it, the window, and whether that is full (B,)."""
        buffer, lifted, elapsed, count = state
        real = torch.ones_like(count, dtype=torch.bool) if dt is None else dt > 0
        here = torch.arange(self.factor, device=h_t.device) == count[:, None]
        buffer = torch.where((here & real[:, None])[..., None], h_t[:, None], buffer)
        elapsed = elapsed + (1.0 if dt is None else dt.to(elapsed.dtype))
        came_up = lifted[torch.arange(h_t.shape[0], device=h_t.device), count]
        count = count + real
        return came_up, (buffer, lifted, elapsed, count), count == self.factor

    def pooled(self, state: tuple, full: Tensor, regular: bool) -> tuple[Tensor, Tensor | None]:
        """The slower scale's step (B, slow) and gap (B,), or None for 1: nothing where the window is not ``full``."""
        buffer, _, elapsed, count = state
        coarse = torch.where(full[:, None], self.down_map(buffer.flatten(1)), 0)
        if regular and not torch.compiler.is_compiling() and bool((full & (elapsed == count)).all()):
            return coarse, None
        return coarse, torch.where(full, elapsed / self.factor, 0)

    def emptied(self, state: tuple, full: Tensor, y: Tensor) -> tuple:
        """The state once the slower scale has answered y (B, slow) to the windows that are ``full``."""
        buffer, lifted, elapsed, count = state
        rows = self.up_map(y).unflatten(1, (self.factor, self.fast))
        return (
            torch.where(full[:, None, None], 0, buffer),
            torch.where(full[:, None, None], rows, lifted),
            torch.where(full, 0, elapsed),
            torch.where(full, 0, count),
        )
