"""H3: a shift system and a diagonal system with gates between them (Dao, Fu, Saab, Thomas, Rudra & Ré 2023, "Hungry
Hungry Hippos: Towards Language Modeling with State Space Models").

    q, k, v = W_q u, W_k u, W_v u
    k̄ = shift(k)                       what was read some samples ago
    z = k̄ vᵀ                           for each head, d_h × d_h products of its channels
    s = diagonal(z)                     one system a head, remembers them over time
    y = W_o (qᵀ s)

u, y    (B, L, D)
taps    (D, m)                read-out of the shift's register
A       (heads, N/2)          nodes of the diagonal systems, as in S4D; B, C (heads, N/2), D and δ (heads,)
state   the register (B, D, m - 1), and the diagonal states (B, heads, d_h, d_h, N/2)
"""

import math

import torch
from torch.nn.functional import linear

from statespace.layers.checks import check_shapes
from statespace.layers.diagonal import advance, decay_of, run
from statespace.layers.linear import LinearMixer, log_uniform_steps
from statespace.layers.nodes import starting_nodes
from statespace.layers.shift import shift


class H3(LinearMixer):
    """H3: two linear systems and two gates, which recall what followed when a key was last seen.

        k̄ = shift(k),    s = diagonal(k̄ vᵀ),    y = W_o (qᵀ s),    q, k, v = W_q u, W_k u, W_v u

    On a regular grid the diagonal systems convolve; on irregular gaps they scan, and their states decay by the gap that
    each sample really has. The shift system reads the samples before, however long ago they came.

    Parameters
    ----------
    d_model : int
        Number of channels.
    d_state : int, default 64
        Real dimension N of each diagonal system: N/2 conjugate pairs, or N real nodes with ``init="real"``.
    d_shift : int, optional
        Number m of samples that the shift system reads, the present one included. None is ``d_state``, as in the paper.
    head_dim : int, default 1
        Channels d_h of a head, whose diagonal system carries the d_h × d_h products of its keys and values: state and
        work grow with it.
    init : {"lin", "inv", "legs", "real", "random"}, default "lin"
        Starting nodes of the diagonal systems, as in :class:`S4D`.
    discretization : {"zoh", "bilinear"}, default "zoh"
        Zero-order hold or the bilinear rule, for the diagonal systems.
    mode : {"auto", "convolution", "scan"}, default "auto"
        As in :class:`S4D`.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The step δ of a head starts log-uniformly in this range; it multiplies the gaps.
    bidirectional : bool, default False
        Add second read-outs of both systems run backwards in time, with the gaps shifted by one. Such a layer has
        neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the diagonal kernels, see :func:`statespace.kernels.diagonal_scan`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps, or ``mode="convolution"`` on unequal gaps (the first is named).

    Notes
    -----
    With all gaps 1 this is the paper's layer. The shift matrix is nilpotent and so has no logarithm: no system in
    continuous time shifts, and the register counts samples, as a short convolution does. A padded step (gap 0) is no
    sample: it enters neither the register nor the diagonal states.

    The diagonal systems' δ, A and B carry ``_optim = {"group": "ssm"}``.

    References
    ----------
    T. Dao, D. Y. Fu, K. K. Saab, A. W. Thomas, A. Rudra, C. Ré (2023). Hungry Hungry Hippos: Towards Language Modeling
    with State Space Models. Section 3 and algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import H3
    >>> layer = H3(d_model=4, d_state=16, d_shift=4, head_dim=2)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, (register, state) = layer(u, dt)
    >>> y.shape, register.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 4, 3]), torch.Size([2, 2, 2, 2, 8, 2]))
    >>> y_next, state = layer.step(torch.randn(2, 4), (register, state), dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("diagonal_scan", "diagonal_convolution", "long_convolution")
    slow_parameters = {"log_step": "dt", "log_A_real": "A", "A_imag": "A", "B": "B"}

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        d_shift=None,
        head_dim=1,
        init="lin",
        discretization="zoh",
        mode="auto",
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, mode=mode, bidirectional=bidirectional, backend=backend)
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
        if d_shift is not None and d_shift < 1:
            raise ValueError(f"d_shift must be a positive integer, or None for d_state. Got {d_shift!r} instead.")
        if head_dim < 1 or d_model % head_dim:
            raise ValueError(f"head_dim must divide d_model = {d_model}. Got {head_dim!r} instead.")
        self.d_state, self.d_shift = d_state, d_state if d_shift is None else d_shift
        self.head_dim, self.init, self.discretization = head_dim, init, discretization
        self.heads = heads = d_model // head_dim
        directions = 2 if bidirectional else 1
        A = starting_nodes(init, heads, d_state)
        self.weight = 1.0 if init == "real" else 2.0
        self.projection = torch.nn.Linear(d_model, 3 * d_model)
        self.taps = torch.nn.Parameter(torch.randn(directions * d_model, self.d_shift) / math.sqrt(self.d_shift))
        self.log_step = torch.nn.Parameter(log_uniform_steps(heads, dt_min, dt_max))
        self.log_A_real = torch.nn.Parameter(torch.log(-A.real).float())
        imaginary = A.imag.float()
        if init == "real":
            self.register_buffer("A_imag", imaginary)
        else:
            self.A_imag = torch.nn.Parameter(imaginary)
        self.B = torch.nn.Parameter(torch.tensor([1.0, 0.0]).repeat(*A.shape, 1))
        self.C = torch.nn.Parameter(torch.randn(directions * heads, A.shape[1], 2) * math.sqrt(0.5))
        self.D = torch.nn.Parameter(torch.randn(heads))
        self.output = torch.nn.Linear(d_model, d_model)
        self._mark_slow_parameters()

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, d_shift={self.d_shift}, head_dim={self.head_dim}, "
            f"init={self.init!r}, discretization={self.discretization!r}, mode={self.mode!r}, "
            f"bidirectional={self.bidirectional}"
        )

    def freeze(self):
        """Compute δA and CB/A once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            rate, readout = self._system()
            self._frozen = rate, readout, decay_of(rate, self.discretization)
        return self

    def step(self, u_t, state, dt=None):
        """One sample in O(1): ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        if state is None:
            state = self.initial_state(len(u_t))
        check_shapes(self, u_t, state, 2)
        register, s = state
        with torch.autocast(u_t.device.type, enabled=False):
            rate, readout, decay = self._frozen or (*self._system(), None)
            if dt is not None or decay is None:
                z = rate if dt is None else rate * dt.to(rate.real.dtype).view(-1, 1, 1)
                decay = decay_of(z, self.discretization)
            working = u_t.to(torch.promote_types(u_t.dtype, torch.float32))
            q, k, v = linear(working, *_of_type(self.projection, working.dtype)).chunk(3, dim=-1)
            window = torch.cat([register.to(k.dtype), k.unsqueeze(-1)], dim=-1)
            key = (self.taps.to(k.dtype).flip(-1) * window).sum(-1)
            after = window[..., 1:]
            if dt is not None:
                real = (dt > 0).unsqueeze(-1)
                key, after = torch.where(real, key, 0.0), torch.where(real.unsqueeze(-1), after, register)
            heads = (-1, self.heads, self.head_dim)
            product = key.view(heads).unsqueeze(-1) * v.view(heads).unsqueeze(-2)  # (B, heads, d_h, d_h)
            # The systems stand on the last axis but one of a state, the products of a head before it.
            remembered, s = advance(
                product.permute(0, 2, 3, 1), s.permute(0, 2, 3, 1, 4, 5), _spread(decay), readout, self.D.to(k.dtype)
            )
            y = torch.einsum("bhi,bijh->bhj", q.view(heads), remembered).flatten(1)
            y = linear(y, *_of_type(self.output, y.dtype))
        return y.to(u_t.dtype), (after, s.permute(0, 3, 1, 2, 4, 5))

    def _system(self):
        """δA (heads, n) and the read-out CB/A of the diagonal systems' states (directions · heads, n)."""
        A = torch.complex(-torch.exp(self.log_A_real.double()), self.A_imag.double())
        B, C = (torch.view_as_complex(p.double()) for p in (self.B, self.C))
        scale = self.weight * B / A
        return torch.exp(self.log_step.double()).unsqueeze(-1) * A, scale.repeat(len(C) // len(A), 1) * C

    def _state_shapes(self, batch_size):
        nodes = self.log_A_real.shape[1]
        register = batch_size, self.d_model, self.d_shift - 1
        return register, (batch_size, self.heads, self.head_dim, self.head_dim, nodes, 2)

    def _mix(self, u, dt, gap, lengths, system, direction, state):
        rate, readout = system
        readout = readout[direction * self.heads : (direction + 1) * self.heads]
        taps = self.taps[direction * self.d_model : (direction + 1) * self.d_model]
        skip = self.D if direction == 0 else None
        register, s = (None, None) if state is None else state
        (B, _, L), d = u.shape, self.head_dim
        real = None if dt is None or torch.compiler.is_exporting() or bool((dt > 0).all()) else dt > 0
        weight, bias = _of_type(self.projection, u.dtype)
        # (B, L, D), each by itself: channels last in memory is what the kernels read in place.
        q, k, v = (linear(u.transpose(1, 2), *part) for part in zip(weight.chunk(3), bias.chunk(3), strict=True))
        key, register = shift(k.transpose(1, 2), taps, register, real, backend=self._backend("long_convolution"))
        key = key.transpose(1, 2)
        if real is not None:
            # What a biased projection makes of padding must not reach the states of a reversed record.
            key = torch.where(real.unsqueeze(-1), key, 0.0)
        # All products of a head go through the same system, so they stand with the batch, (B, d_h, d_h, L, heads).
        q, key, v = (x.unflatten(-1, (self.heads, d)).permute(0, 3, 1, 2) for x in (q, key, v))
        product = (key.unsqueeze(2) * v.unsqueeze(1)).reshape(B * d * d, L, self.heads)
        if d > 1:
            dt, lengths = (None if x is None else x.repeat_interleave(d * d, dim=0) for x in (dt, lengths))
        if s is not None:
            s = s.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        options = {"discretization": self.discretization, "backend": self.backend}
        remembered, s = run(product.transpose(1, 2), dt, gap, lengths, rate, readout, skip, s, **options)
        remembered = remembered.transpose(1, 2).unflatten(0, (B, d, d))
        y = q.unsqueeze(2) * remembered
        y = (y.sum(1) if d > 1 else y.squeeze(1)).permute(0, 2, 3, 1).reshape(B, L, self.d_model)
        weight, bias = _of_type(self.output, u.dtype)
        y = linear(y, weight, bias if direction == 0 else None)
        return y.transpose(1, 2), (register, s.unflatten(0, (B, d, d)).permute(0, 3, 1, 2, 4, 5))


def _of_type(module, dtype):
    return module.weight.to(dtype), module.bias.to(dtype)


def _spread(decay):
    """Ā - 1 (heads, nodes), or (B, heads, nodes), for all products (B, d_h, d_h, heads, nodes)."""
    return decay if decay.ndim == 2 else decay[:, None, None]
