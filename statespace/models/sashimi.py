"""SaShiMi: sequence mixers on several time scales, with pooling on the way down and skip connections on the way up.

    h₀ = E x + e                                     encoder, at every step
    hᵢ = Dᵢ [hᵢ₋₁ of a whole window]                 down: pᵢ steps of width Hᵢ₋₁ become one of width Hᵢ
    z  = blocks(h_top) + h_top                       the slowest scale
    z  = blocks(shift(Uᵢ z) + hᵢ₋₁)                  up: one step of width Hᵢ becomes pᵢ of width Hᵢ₋₁, one window later
    y  = V norm(z) + v                               head

Letters: p the pooling factors, H the widths, h (B, L, H) features, Δ (B, L) gaps. A coarse step sees what its whole
window holds; the shift by one window keeps the network causal, so that it can be run one sample at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statespace.layers import SequenceMixer
from statespace.models.experts import make_feed_forwards
from statespace.models.stack import ResidualBlock, ResidualStack, make_mixers
from statespace.models.windows import Windows


class FeedForward(nn.Module):
    """Norm, two linear maps with a GELU between them, dropout, and the residual around them, at each step alone.

    Parameters
    ----------
    d_model : int
        Width of the features.
    expand : int
        The width between the two maps, in units of ``d_model``.
    dropout : float, default=0.0

    Examples
    --------
    >>> import torch
    >>> from statespace.models.sashimi import FeedForward
    >>> FeedForward(8, 2)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model: int, expand: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.inner = nn.Linear(d_model, expand * d_model)
        self.outer = nn.Linear(expand * d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """h (..., d_model) -> h (..., d_model)."""
        return h + self.dropout(self.outer(F.gelu(self.inner(self.norm(h)))))


class Scale(nn.Module):
    """The blocks of one time scale: a sequence mixer and a feed-forward map each.

    Parameters
    ----------
    d_model : int
    mixers : sequence of SequenceMixer
    expand : int
        Width of the feed-forward maps; 0 leaves them out.
    dropout : float, default=0.0
    moe : int or mapping, optional
        Mixtures of experts in the place of the feed-forward maps.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import S4D
    >>> from statespace.models.sashimi import Scale
    >>> h, states = Scale(8, [S4D(8, d_state=4)], expand=2)(torch.randn(2, 5, 8))
    >>> h.shape, len(states)
    (torch.Size([2, 5, 8]), 1)
    """

    def __init__(
        self,
        d_model: int,
        mixers: Sequence[SequenceMixer],
        expand: int,
        dropout: float = 0.0,
        moe: int | Mapping[str, Any] | None = None,
    ):
        super().__init__()
        mixtures = make_feed_forwards(moe, d_model, len(mixers))
        self.blocks = nn.ModuleList(
            ResidualBlock(d_model, mixer, dropout, own) for mixer, own in zip(mixers, mixtures, strict=True)
        )
        plain = expand > 0 and moe is None
        self.maps = nn.ModuleList(FeedForward(d_model, expand, dropout) if plain else nn.Identity() for _ in mixers)

    def __iter__(self) -> Iterator[tuple[ResidualBlock, nn.Module]]:
        return iter(zip(cast(Sequence[ResidualBlock], self.blocks), self.maps, strict=True))

    def forward(self, h: Tensor, dt: Tensor | None = None, states: Any = None) -> tuple[Tensor, tuple]:
        """h (B, L, d_model) -> (h (B, L, d_model), states)."""
        states, after = [None] * len(self.blocks) if states is None else states, []
        for (block, map), before in zip(self, states, strict=True):
            h, state = block(h, dt, before)
            h = map(h)
            after.append(state)
        return h, tuple(after)

    def step(self, h_t: Tensor, states: Any, dt: Tensor | None = None) -> tuple[Tensor, tuple]:
        """h_t (B, d_model) -> (h_t (B, d_model), states)."""
        after = []
        for (block, map), before in zip(self, states, strict=True):
            h_t, state = block.step(h_t, before, dt)
            h_t = map(h_t)
            after.append(state)
        return h_t, tuple(after)

    def initial_state(self, batch_size: int) -> tuple:
        """The states before the first step, one for each block."""
        return tuple(block.initial_state(batch_size) for block, _ in self)


class SaShiMi(ResidualStack):
    """A network on several time scales, for long records such as raw audio and ECG [1]_.

    Windows of ``factors[0]`` samples become one step of a slower scale, windows of ``factors[1]`` of those one of the
    next, each ``expand`` times as wide; most of the computation then takes place on short sequences. It keeps the
    contract of `ResidualStack`: folding ``step`` over a record equals ``forward``, a record may be cut anywhere if the
    state is passed on (it holds the windows that are not yet full), and padded steps (Δ = 0) change nothing.

    Parameters
    ----------
    d_input, d_output : int
        Channels of the input and of the output.
    d_model : int, default=64
        Width of the features on the fastest scale.
    n_layers : int, default=4
        Number of blocks on every scale; the paper takes 8.
    layer : str or sequence of str, default="s4"
        Name of the sequence mixer, or a pattern of names repeated over the blocks of each scale.
    layer_options : mapping, optional
        Arguments of the mixer. With a pattern: a mapping from name to such a mapping. ``{"bidirectional": True}`` makes
        a network for whole records, without the shift by one window.
    dropout : float, default=0.0
        Share of each block's outputs dropped while training.
    pooling : {None, "mean", "last"}, default=None
        As in `ResidualStack`: outputs at every step, or of every series.
    factors : sequence of int, default=(4, 4)
        Pooling factors from the fastest to the slowest scale; () has one scale.
    expand : int, default=2
        How much wider each slower scale is.
    feed_forward : int, default=2
        Width of the feed-forward maps in units of the features'; 0 leaves them out.
    unet : bool, default=False
        As many blocks on the way down, too, before each pooling: better and slower, the paper's choice for networks
        that read whole records.
    moe : int or mapping, optional
        As in `ResidualStack`, on every scale; the mixtures stand in the place of the feed-forward maps.

    Raises
    ------
    ValueError
        Unknown options, or some mixers bidirectional and others not.

    Notes
    -----
    The gap before a coarse step is the time that passed in its window, in units of the window's length on a grid: the
    sum of the window's gaps over its factor. On a regular grid every scale is regular.

    A causal network ignores the window that is not yet full. A bidirectional one pools what there is of the last
    window, the rest 0, with the mean of its gaps.

    References
    ----------
    .. [1] Goel, Gu, Donahue & Ré, "It's Raw! Audio Generation with State-Space Models", 2022.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import SaShiMi
    >>> model = SaShiMi(1, 1, d_model=8, n_layers=1, layer="s4d", layer_options={"d_state": 4}, factors=(4, 2))
    >>> x, dt = torch.randn(3, 50, 1), torch.rand(3, 50) + 0.5
    >>> y, state = model(x, dt)
    >>> y.shape
    torch.Size([3, 50, 1])
    >>> y_t, state = model.step(torch.randn(3, 1), state, torch.ones(3))
    >>> y_t.shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 64,
        n_layers: int = 4,
        layer: str | Sequence[str] = "s4",
        layer_options: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        pooling: str | None = None,
        factors: Sequence[int] = (4, 4),
        expand: int = 2,
        feed_forward: int = 2,
        unet: bool = False,
        moe: int | Mapping[str, Any] | None = None,
    ):
        factors = [int(p) for p in factors]
        if any(p < 2 for p in factors):
            raise ValueError(f"factors must be integers of at least 2. Got {factors} instead.")
        if expand < 1 or feed_forward < 0:
            raise ValueError(f"expand must be >= 1 and feed_forward >= 0. Got {expand} and {feed_forward} instead.")
        super().__init__(d_input, d_output, d_model, 0, layer, layer_options, dropout, pooling)
        self.config |= {
            "n_layers": n_layers, "factors": factors, "expand": expand, "feed_forward": feed_forward, "unet": unet,
            "moe": dict(moe) if isinstance(moe, Mapping) else moe,
        }  # fmt: skip
        widths = [d_model * expand**i for i in range(len(factors) + 1)]

        def scale(width, n_layers):
            return Scale(width, make_mixers(layer, layer_options, width, n_layers), feed_forward, dropout, moe)

        self.descents = nn.ModuleList(scale(width, n_layers if unet else 0) for width in widths[:-1])
        self.scales = nn.ModuleList(scale(width, n_layers) for width in widths)
        directions = {bool(getattr(block.mixer, "bidirectional", False)) for block in self._blocks}
        if len(directions) > 1:
            raise ValueError("either all layers are bidirectional or none is: a record is read whole or step by step.")
        self.windows = nn.ModuleList(
            Windows(fast, slow, p, causal=True not in directions)
            for fast, slow, p in zip(widths, widths[1:], factors, strict=False)
        )

    @property
    def _blocks(self) -> Iterator[ResidualBlock]:
        return (block for scale in cast(Sequence[Scale], [*self.descents, *self.scales]) for block, _ in scale)

    def _at(self, i: int) -> tuple[Scale, Windows | None, Scale]:
        """Scale i, the windows that pool it, None for the slowest, and its blocks on the way down."""
        scale = cast(Scale, self.scales[i])
        if i == len(self.windows):
            return scale, None, scale
        return scale, cast(Windows, self.windows[i]), cast(Scale, self.descents[i])

    def features(self, x: Tensor, dt: Tensor | None = None, state: Any = None) -> tuple[Tensor, tuple]:
        """Features before the head; arguments and results as in `ResidualStack.features`.

        The state holds, for each scale, those of its blocks, and for each pooling the window that is not yet full.
        """
        self._count_anew()
        h, state = self._read(0, self.encoder(x), dt, state)
        return self.norm(h), state

    def _read(self, i: int, h: Tensor, dt: Tensor | None, state: Any) -> tuple[Tensor, tuple]:
        """Scale i and all slower ones: features (B, L, H), and the states of its blocks, of those on the way down, of
        its window, and of the slower scales.
        """
        scale, windows, descent = self._at(i)
        own, *slower = (None,) if state is None else state
        if windows is None:
            z, own = scale(h, dt, own)
            return z + h, (own,)
        before, window, below = slower or (None, None, None)
        h, before = descent(h, dt, before)
        coarse, gaps, places = windows.down(h, dt, window)
        if coarse.shape[1]:
            coarse, below = self._read(i + 1, coarse, gaps, below)
        elif below is None:
            below = self._initial(i + 1, len(h))
        lifted, window = windows.up(coarse, places)
        z, own = scale(lifted + h, dt, own)
        return z, (own, before, window, below)

    def step_features(self, x_t: Tensor, state: Any, dt: Tensor | None = None) -> tuple[Tensor, tuple]:
        """The features of `step` before the head: (B, d_model), and the state."""
        h_t, state = self._step(0, self.encoder(x_t), state, dt)
        return self.norm(h_t), state

    def _step(self, i: int, h_t: Tensor, state: Any, dt: Tensor | None) -> tuple[Tensor, tuple]:
        scale, windows, descent = self._at(i)
        if windows is None:
            z, own = scale.step(h_t, state[0], dt)
            return z + h_t, (own,)
        own, before, window, below = state
        h_t, before = descent.step(h_t, before, dt)
        lifted, window, full = windows.push(h_t, dt, window)
        z, own = scale.step(lifted + h_t, own, dt)
        # What the slower scale reads of a window that is not full is a padded step: traced, it always reads.
        if torch.compiler.is_compiling() or bool(full.any()):
            coarse, gaps = windows.pooled(window, full, regular=dt is None)
            coarse, below = self._step(i + 1, coarse, below, gaps)
            window = windows.emptied(window, full, coarse)
        return z, (own, before, window, below)

    def initial_state(self, batch_size: int) -> tuple:
        """The state before the first step: nested from the fastest scale to the slowest."""
        return self._initial(0, batch_size)

    def _initial(self, i: int, batch_size: int) -> tuple:
        scale, windows, descent = self._at(i)
        own = scale.initial_state(batch_size)
        if windows is None:
            return (own,)
        before, window = descent.initial_state(batch_size), windows.initial_state(batch_size)
        return own, before, window, self._initial(i + 1, batch_size)
