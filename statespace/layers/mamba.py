"""Mamba: a diagonal system whose step, input and read-out are chosen by the sample (Gu & Dao 2023, "Mamba: Linear-Time
Sequence Modeling with Selective State Spaces", section 3 and figure 3).

    x, z = W_in u                            two branches of E = expand · d_model channels
    x = silu(conv(x))                        each channel with its last d_conv samples
    r, B, C = W_x x                          rank R; N numbers each
    h = softplus(W_dt r + b_dt) · Δ          the step of each channel
    s_k = exp(h_k A) s_{k-1} + h_k B_k x_k
    y = W_out ((C_k s_k + D x_k) silu(z_k))

u, y    (B, L, D)
A       (E, N), real and negative; D, b_dt (E,)
state   the convolution's register (B, E, d_conv - 1), and s (B, E, N)
"""

import math

import torch
from torch.nn.functional import linear, silu, softplus

from statespace.kernels import causal_conv1d, selective_scan, selective_state_update
from statespace.layers.checks import check_gaps
from statespace.layers.linear import log_uniform_steps
from statespace.layers.selective import SelectiveMixer, product


class Mamba(SelectiveMixer):
    """Mamba's block: the input sets how fast time passes for the state, the gap how much time has passed.

        s_k = exp(h_k A) s_{k-1} + h_k B_k x_k,    y_k = C_k s_k + D x_k,    h_k = softplus(W x_k + b) Δ_k

    with x the output of a short convolution, B and C projections of x, and a gate behind. A small step keeps the state
    and ignores the sample, a large one forgets and writes: that is the selection.

    Parameters
    ----------
    d_model : int
        Number of channels D of input and output.
    d_state : int, default 16
        Numbers N in the state of each inner channel.
    d_conv : int, default 4
        Samples that the short convolution reads, the present one included.
    expand : float, default 2
        Inner channels are ``int(expand * d_model)``.
    dt_rank : int or "auto", default "auto"
        Rank of the step's projection; "auto" is d_model / 16, rounded up.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The step of a channel, without input, starts log-uniformly in this range; it multiplies the gaps.
    conv_bias, bias : bool, default True and False
        Whether the convolution, and the projections in and out, have a bias.
    bidirectional : bool, default False
        Add a second layer that runs backwards in time, with the gaps shifted by one and the same projections in and
        out. Such a layer has neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of :func:`statespace.kernels.causal_conv1d` and :func:`statespace.kernels.selective_scan`; None takes
        the best one.

    Raises
    ------
    ValueError
        Options that are no positive numbers, wrong shapes, or negative gaps.

    Notes
    -----
    With all gaps 1 this is the paper's block, with the names and shapes of mamba_ssm's ``Mamba``, whose weights
    ``load_state_dict`` takes as they are. The convolution's register counts samples, however far apart they are, as
    H3's shift does. A padded step (gap 0) is no sample: it enters neither the register nor the state.

    As in the paper's code a sample is written with h B, the first order of the zero-order hold's (exp(hA) - 1) B / A.
    They agree for steps that are short beside 1 / A; over a gap of many such times the state before is gone and the
    sample's own weight goes on growing with the gap.

    A and the step's bias carry ``_optim = {"group": "ssm"}``; no vector is pulled to zero.

    References
    ----------
    .. [1] A. Gu, T. Dao (2023). Mamba: Linear-Time Sequence Modeling with Selective State Spaces. Sections 3.2 to 3.6.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import Mamba
    >>> layer = Mamba(d_model=4)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, (register, state) = layer(u, dt)
    >>> y.shape, register.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 8, 3]), torch.Size([2, 8, 16]))
    >>> y_next, state = layer.step(torch.randn(2, 4), (register, state), dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("causal_conv1d", "selective_scan")
    slow_parameters = {"A_log": "A", "dt_proj.bias": "dt"}
    gated_unit = False

    def __init__(
        self,
        d_model,
        d_state=16,
        *,
        d_conv=4,
        expand=2,
        dt_rank="auto",
        dt_min=1e-3,
        dt_max=1e-1,
        conv_bias=True,
        bias=False,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        for name, value in {"d_state": d_state, "d_conv": d_conv, "dt_rank": rank}.items():
            if isinstance(value, str) or value < 1:
                other = " or 'auto'" if name == "dt_rank" else ""
                raise ValueError(f"{name} must be a positive integer{other}. Got {value!r} instead.")
        self.d_inner = inner = int(expand * d_model)
        if inner < 1:
            raise ValueError(f"expand * d_model must be at least 1. Got {expand!r} * {d_model} instead.")
        self.d_state, self.d_conv, self.dt_rank = d_state, d_conv, rank
        self.in_proj = torch.nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv1d = torch.nn.Conv1d(inner, inner, d_conv, groups=inner, bias=conv_bias)
        self.x_proj = torch.nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = torch.nn.Linear(rank, inner)
        # W_dt r then has the variance of r; its bias is the inverse of softplus at the starting step.
        torch.nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        step = log_uniform_steps(inner, dt_min, dt_max).exp()
        self.dt_proj.bias = torch.nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_log = torch.nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = torch.nn.Parameter(torch.ones(inner))
        self.out_proj = torch.nn.Linear(inner, d_model, bias=bias)
        self._frozen = None
        self._complete(
            d_state=d_state, d_conv=d_conv, expand=expand, dt_rank=dt_rank, dt_min=dt_min, dt_max=dt_max,
            conv_bias=conv_bias, bias=bias,
        )  # fmt: skip

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, d_conv={self.d_conv}, d_inner={self.d_inner}, "
            f"dt_rank={self.dt_rank}, bidirectional={self.bidirectional}"
        )

    @torch.no_grad()
    def steps(self, u, dt=None):
        """The steps h that a record makes the layer take: what it keeps, h near 0, and what it writes.

        Parameters
        ----------
        u : Tensor of shape (batch, length, d_model)
        dt : Tensor of shape (batch, length), optional
            Gaps; None are gaps of 1.

        Returns
        -------
        Tensor of shape (batch, length, d_inner)
            softplus(W x_k + b) Δ_k of every inner channel, forwards in time, without gradient.

        Examples
        --------
        >>> import torch
        >>> from statespace.layers import Mamba
        >>> layer, u = Mamba(d_model=4), torch.randn(1, 5, 4)
        >>> torch.testing.assert_close(layer.steps(u, torch.full((1, 5), 2.0)), 2 * layer.steps(u))
        """
        self._check_shapes(u, None, 3)
        if dt is not None:
            check_gaps(u, dt)
        return self._steps(self._branches(self._working(u))[0], dt)

    def _steps(self, x, dt):
        """The steps that x (B, E, L) before its convolution makes the layer take, (B, L, E)."""
        x = causal_conv1d(
            x,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            activation="silu",
            backend=self._backend("causal_conv1d"),
        )
        h = softplus(self._chosen(x.transpose(1, 2))[0] + self.dt_proj.bias, threshold=40)
        return h if dt is None else h * dt.unsqueeze(-1).to(h.dtype)

    def _selection(self, u, dt):
        x, z = self._branches(u)
        h = self._steps(x, dt)
        kept = torch.exp(h.unsqueeze(-1) * self._rates()).mean(-1)
        return {"step": h, "kept": kept, "gate": silu(z.transpose(1, 2))}

    def freeze(self):
        """Compute A once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            self._frozen = self._rates()
        return self

    def _state_shapes(self, batch_size):
        return (batch_size, self.d_inner, self.d_conv - 1), (batch_size, self.d_inner, self.d_state)

    def _rates(self):
        """A, in float32 at least: its rounding would decay with every step."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    def _branches(self, u):
        """x and z, (B, E, L) with channels last in memory.

        Two products rather than one cut in two: each branch lies in one block, and so does its gradient.
        """
        weights = self.in_proj.weight.chunk(2)
        biases = (None, None) if self.in_proj.bias is None else self.in_proj.bias.chunk(2)
        return [product(u, *both).transpose(1, 2) for both in zip(weights, biases, strict=True)]

    def _chosen(self, x):
        """What the convolved samples (…, E) choose: the step before its bias (…, E), input and read-out (…, N)."""
        step, B, C = product(x, self.x_proj.weight).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        # The step in the type of the weights, also where the products around it are in a shorter one.
        return linear(step.to(self.dt_proj.weight.dtype), self.dt_proj.weight), B, C

    def _read(self, u, dt, lengths, state):
        register, s = (None, None) if state is None else state
        x, z = self._branches(u)
        x, register = causal_conv1d(
            x, self.conv1d.weight.squeeze(1), self.conv1d.bias, None, register, True, "silu",
            lengths=lengths, backend=self._backend("causal_conv1d"),
        )  # fmt: skip
        step, B, C = (part.transpose(1, 2) for part in self._chosen(x.transpose(1, 2)))
        y, s = selective_scan(
            x, step, self._rates(), B, C, self.D, z, self.dt_proj.bias, True, True,
            initial_state=s, dt=dt, backend=self._backend("selective_scan"),
        )  # fmt: skip
        return product(y.transpose(1, 2), self.out_proj.weight, self.out_proj.bias), (register, s)

    def _advance(self, u_t, dt, state):
        register, s = state
        x, z = self.in_proj(u_t).chunk(2, dim=-1)
        window = torch.cat([register.to(x.dtype), x.unsqueeze(-1)], dim=-1)
        x = (window * self.conv1d.weight.squeeze(1)).sum(-1)
        x = silu(x if self.conv1d.bias is None else x + self.conv1d.bias)
        step, B, C = self._chosen(x)
        h = softplus(step + self.dt_proj.bias, threshold=40)
        h = h if dt is None else h * dt.unsqueeze(-1)
        A = self._rates() if self._frozen is None else self._frozen
        y, s = selective_state_update(s, x, h, A, B, C, self.D, z)
        return self.out_proj(y), (window[..., 1:], s)
