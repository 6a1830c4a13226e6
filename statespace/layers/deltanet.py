"""DeltaNet and Gated DeltaNet: linear attention that corrects what it remembers (Yang, Wang, Zhang, Shen & Kim 2024,
"Parallelizing Linear Transformers with the Delta Rule over Sequence Length"; Yang, Kautz & Hatamizadeh 2024).

    q, k, v = SiLU(conv(W u)),    q, k divided by their norms,    β = σ(w_β·u)
    S_k = α (I - β k kᵀ) S_{k-1} + β k vᵀ,    o = Sᵀ q,    y = W_o norm(o)

u, y     (B, L, D)
q, k, v  (B, L, H, D/H), heads H
β, α     (B, L, H); α = 1 without a gate, exp(-exp(A) softplus(w_α·u + b)) with it
state    S (B, H, D/H, D/H), and with a convolution its register (B, 3D, d_conv - 1)

**The gap.** The delta rule is a linear differential equation for one unit of time: with a key of length 1,

    S' = -a S - b k (kᵀS) + w k vᵀ,    a = -log α,    b = -log(1 - β) = softplus(w_β·u)

turns S into α^Δ (I - β_Δ k kᵀ) S + ω k vᵀ over a gap Δ, where

    β_Δ = 1 - (1 - β)^Δ,    ω = w (1 - exp(-(a + b) Δ)) / (a + b),

and at Δ = 1 this is the paper's step, exactly, with the w that makes ω = β there. Both factors of the state are raised
to the gap; a gap of 0 writes nothing; two halves of a gap with one input make the whole one. Without a gate ω = β_Δ. It
is the rule that `delta_rule` computes, with the value v ω / β_Δ in the place of v.
"""

import math

import torch
from torch.nn.functional import linear, normalize, silu, softplus

from statespace.kernels import causal_conv1d, delta_rule
from statespace.kernels.delta_rule import SHORTEST
from statespace.layers.selective import SelectiveMixer, product

LEAST = 1e-20  # a rate of writing below this one would leave 0/0


class DeltaNet(SelectiveMixer):
    """DeltaNet: a matrix from keys to values, corrected at each sample by a part β of its error for the sample's key.

        S_k = α_k (I - β_k k_k k_kᵀ) S_{k-1} + β_k k_k v_kᵀ,    o_k = S_kᵀ q_k,    y_k = W_o norm(o_k)

    Where Mamba's state forgets everything alike, a key that comes again replaces its own value and leaves the others.
    Over a gap Δ_k both factors are raised to it: α_k becomes α_k^Δ, and 1 - β_k becomes (1 - β_k)^Δ, the exact
    solution of the differential equation that takes the paper's step in a unit of time. Without a gate the gap sets how
    much is written; ``gated=True`` also forgets by the clock. On a regular grid it is the paper's layer.

    Parameters
    ----------
    d_model : int
        Number of channels.
    n_heads : int, optional
        Heads of the state, a divisor of ``d_model``: each carries a square matrix of d_model / n_heads rows. None is 4,
        or the largest number below that divides ``d_model`` and leaves a head two channels.
    d_conv : int or None, default 4
        Taps of the causal convolutions of q, k and v; None leaves them out.
    gated : bool, default False
        Gated DeltaNet [2]_: α_k = exp(-exp(A) softplus(w·u_k + b)) for each head, and SiLU(W_g u) as a gate of the
        normed output. Otherwise α = 1.
    bidirectional : bool, default False
        Add a second layer that runs backwards in time; see :class:`SelectiveMixer`.
    backend : str, optional
        Backend of the kernels that have it; None takes the best one of each.

    Attributes
    ----------
    in_proj : torch.nn.Linear
        To q, k, v, each d_model, and to β, n_heads; with a gate also to α, n_heads, and to the gate, d_model.
    conv_weight : Parameter of shape (3 · d_model, d_conv)
        The taps; the last one meets the present sample.
    A_log, dt_bias : Parameter of shape (n_heads,)
        A and b of a gated layer.
    norm : torch.nn.RMSNorm
        Of the channels of a head, one weight for all heads. It makes a factor 1/√d_key of the queries needless.
    out_proj : torch.nn.Linear

    References
    ----------
    .. [1] S. Yang, B. Wang, Y. Zhang, Y. Shen, Y. Kim (2024). Parallelizing Linear Transformers with the Delta Rule
       over Sequence Length. Section 3.3.
    .. [2] S. Yang, J. Kautz, A. Hatamizadeh (2024). Gated Delta Networks: Improving Mamba2 with Delta Rule. Section 3.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import DeltaNet
    >>> layer = DeltaNet(d_model=8, gated=True)
    >>> u, dt = torch.randn(2, 100, 8), torch.rand(2, 100)
    >>> y, (memory, register) = layer(u, dt)
    >>> y.shape, memory.shape, register.shape
    (torch.Size([2, 100, 8]), torch.Size([2, 4, 2, 2]), torch.Size([2, 24, 3]))
    >>> y_next, state = layer.step(torch.randn(2, 8), (memory, register), dt=torch.rand(2))
    """

    kernels = ("causal_conv1d", "delta_rule")

    def __init__(self, d_model, *, n_heads=None, d_conv=4, gated=False, bidirectional=False, backend=None):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        if n_heads is None:
            n_heads = next(n for n in (4, 3, 2, 1) if n == 1 or (d_model % n == 0 and d_model >= 2 * n))
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads must divide d_model = {d_model}. Got {n_heads!r} instead.")
        if d_conv is not None and d_conv < 1:
            raise ValueError(f"d_conv must be a positive integer, or None for no convolution. Got {d_conv!r} instead.")
        self.n_heads, self.head_dim, self.d_conv, self.gated = n_heads, d_model // n_heads, d_conv, gated
        self.parts = [3 * d_model, n_heads, *([n_heads, d_model] if gated else [])]
        self.in_proj = torch.nn.Linear(d_model, sum(self.parts), bias=False)
        if d_conv is not None:
            self.conv_weight = torch.nn.Parameter(torch.empty(3 * d_model, d_conv).uniform_(-1, 1) / math.sqrt(d_conv))
        if gated:
            self.A_log = torch.nn.Parameter(torch.empty(n_heads).uniform_(0, 16).log())
            # The inverse of softplus at 0.001 … 0.1.
            steps = torch.exp(torch.empty(n_heads).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_bias = torch.nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
            self.slow_parameters = {"A_log": "A", "dt_bias": "dt"}
        self.norm = torch.nn.RMSNorm(self.head_dim, eps=1e-5)
        self.out_proj = torch.nn.Linear(d_model, d_model, bias=False)
        self._complete(n_heads=n_heads, d_conv=d_conv, gated=gated)

    def _state_shapes(self, batch_size):
        memory = batch_size, self.n_heads, self.head_dim, self.head_dim
        return memory if self.d_conv is None else (memory, (batch_size, 3 * self.d_model, self.d_conv - 1))

    def _read(self, u, dt, lengths, state):
        qkv, *rates = self._projected(u)
        memory, register = state if self.d_conv is not None and state is not None else (state, None)
        if self.d_conv is None:
            qkv = silu(qkv)
        else:
            qkv, register = causal_conv1d(
                qkv.transpose(1, 2), self.conv_weight, initial_states=register, return_final_states=True,
                activation="silu", lengths=lengths, backend=self._backend("causal_conv1d"),
            )  # fmt: skip
            qkv = qkv.transpose(1, 2)
        rule = self._rule(qkv, dt, *rates[:2])
        o, memory = delta_rule(*rule, memory, qk_l2norm=True, backend=self._backend("delta_rule"))
        return self._output(o, *rates[2:]), (memory if self.d_conv is None else (memory, register))

    def _projected(self, u):
        """What a record says, in the parts of ``in_proj``; the rates in the type of the weights."""
        weight = self.in_proj.weight
        if u.dtype == weight.dtype:
            return self.in_proj(u).split(self.parts, dim=-1)
        return [
            linear(u.to(rows.dtype), rows) if i in (1, 2) else product(u, rows)
            for i, rows in enumerate(weight.split(self.parts))
        ]

    def _advance(self, u_t, dt, state):
        qkv, *rates = self.in_proj(u_t).split(self.parts, dim=-1)
        if self.d_conv is None:
            memory, qkv = state, silu(qkv)
        else:
            memory, register = state
            window = torch.cat([register, qkv.to(register.dtype).unsqueeze(-1)], dim=-1)
            register = window[..., 1:]
            qkv = silu((window * self.conv_weight).sum(-1))
        q, k, v, beta, decay = self._rule(qkv, dt, *rates[:2])
        q, k = (normalize(x, dim=-1, eps=SHORTEST) for x in (q, k))
        if decay is not None:
            memory = decay.exp()[..., None, None] * memory
        error = v - (memory * k.unsqueeze(-1)).sum(-2)
        memory = memory + k.unsqueeze(-1) * (beta.unsqueeze(-1) * error).unsqueeze(-2)
        o = (memory * q.unsqueeze(-1)).sum(-2).to(u_t.dtype)
        return self._output(o, *rates[2:]), (memory if self.d_conv is None else (memory, register))

    def _selection(self, u, dt):
        qkv, *rates = self._projected(u)
        *_, written, decay = self._rule(qkv, dt, *rates[:2])
        chosen = {"written": written}
        return chosen | {"kept": torch.exp(decay), "gate": silu(rates[2])} if self.gated else chosen

    def _rule(self, qkv, dt, of_beta, of_alpha=None):
        """q and k of any length, v, β and log α over the gaps; of records or, without an axis of time, of samples."""
        q, k, v = qkv.unflatten(-1, (3, self.n_heads, self.head_dim)).unbind(-3)
        working = torch.promote_types(qkv.dtype, torch.float32)
        # Columns of a wider matrix: torch takes transcendental functions of what lies together in vectors.
        of_beta = of_beta.to(working).contiguous()
        a = None
        if self.gated:
            rate = softplus(of_alpha.to(working).contiguous() + self.dt_bias.to(working))
            a = torch.exp(self.A_log.to(working)) * rate
        if dt is None:
            return q, k, v, torch.sigmoid(of_beta), None if a is None else -a
        dt, b = dt.to(working).unsqueeze(-1), softplus(of_beta) + LEAST
        if a is None:
            return q, k, v, -torch.expm1(-b * dt), None
        # exp(-x) - 1 of x = a + b and b, over the gap and over one; a padded step, which writes nothing, takes any gap.
        both, gap = torch.stack([a + b, b]), torch.where(dt > 0, dt, 1.0)
        forgotten, erased = torch.expm1(-both * gap) / torch.expm1(-both)
        v = v * (forgotten / erased).to(v.dtype).unsqueeze(-1)
        return q, k, v, -torch.expm1(-b * dt), -a * dt

    def _output(self, o, gate=None):
        o = self.norm(o.to(self.norm.weight.dtype)).to(o.dtype).flatten(-2)
        return product(o if gate is None else o * silu(gate), self.out_proj.weight)
