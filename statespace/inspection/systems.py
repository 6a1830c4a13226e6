"""The linear system in an LTI layer, as a `statespace.lti.LinearSystem`: one object for both families."""

import numpy as np
import torch
from scipy.linalg import block_diag

from statespace.inspection.parts import layer_of
from statespace.layers import DSS, H3, S4, S4D, S5
from statespace.lti import LinearSystem


@torch.no_grad()
def linear_system(model, channel=0, *, layer=0, backward=False):
    """The system that an LTI layer has learned, in continuous time and in real numbers.

        x'(t) = A x(t) + B u(t),    y(t) = C x(t) + D u(t)

    Its ``poles``, ``impulse_response``, ``bode`` and so on say what the layer remembers, for how long, and which
    frequencies it passes. A layer holds each sample over the gap that leads to it, and so sees it at once: in discrete
    time its weights are those of `layer_kernel`.

    Parameters
    ----------
    model : DeepEstimator, DeepForecaster, ResidualStack or LinearMixer
        An estimator has been fitted. Of a `statespace.layers.S4D`, `DSS`, `S4`, `S5` or `H3`.
    channel : int or None, default=0
        The system from this channel of the layer's input to the same of its output; of H3 that of this head, between
        the product of shifted key and value and what the query reads. None: of all channels, one beside the other, as
        S5 mixes them.
    layer : int, default=0
        Which layer, counted from the input; negative from the output.
    backward : bool, default=False
        Of a bidirectional layer the system that runs backwards in time.

    Returns
    -------
    system : LinearSystem
        In continuous time. Its unit is that of the times of `fit`, days for datetimes; for a model or a layer a gap
        of 1.

    Raises
    ------
    ValueError
        The layer's system depends on its input; or there is no such channel or direction.

    Notes
    -----
    Poles of S4 are eigenvalues of a matrix that is far from normal, as HiPPO's are: of large ones (``d_state`` of some
    dozens) those that decay fastest are not well determined in float64. Its responses are.

    Examples
    --------
    >>> from statespace.inspection import linear_system
    >>> from statespace.layers import S4D
    >>> layer = S4D(d_model=4, d_state=8, dt_min=0.1, dt_max=0.1)
    >>> system = linear_system(layer, channel=2)
    >>> system.poles.real.round(3).max().item(), system.poles.imag.round(3).max().item()
    (-0.05, 0.942)
    >>> system.impulse_response([0.0, 1.0]).output.shape
    (2,)
    """
    mixer, unit = layer_of(model, layer)
    kind = next((kind for kind in _MATRICES if isinstance(mixer, kind)), None)
    if kind is None:
        raise ValueError(
            f"{type(mixer).__name__} has no linear system of its own: what it does depends on its input. "
            "statespace.inspection.selection shows what a record makes it choose."
        )
    if backward and not mixer.bidirectional:
        raise ValueError(f"this {kind.__name__} reads forwards only: it was made with bidirectional=False.")
    n = mixer.heads if kind is H3 else mixer.d_model
    if channel is not None and not -n <= channel < n:
        raise ValueError(f"channel must be None or an integer from 0 to {n - 1}. Got {channel!r} instead.")
    matrices = _MATRICES[kind](mixer, n * int(backward))
    D = np.zeros(n) if backward else mixer.D.double().numpy()
    if kind is S5:
        A, B, C = matrices
        system = LinearSystem(A / unit, B / unit, C, np.diag(D))
        return system if channel is None else system[channel, channel]
    if channel is not None:
        A, B, C = (part[channel] for part in matrices)
        return LinearSystem(A / unit, B / unit, C, D[channel])
    A, B, C = matrices
    columns, rows = block_diag(*(b[:, np.newaxis] for b in B)), block_diag(*(c[np.newaxis] for c in C))
    return LinearSystem(block_diag(*A) / unit, columns / unit, rows, np.diag(D))


def layer_kernel(model, length, channel=0, *, layer=0, backward=False, gap=None):
    """The weights with which an LTI layer reads samples that lie one gap apart.

        y_k = Σ_l K_l u_{k-l},    K_l = C Ā^l B̄ + D [l = 0]

    Parameters
    ----------
    model, channel, layer, backward
        As in `linear_system`.
    length : int
        How many of them.
    gap : float, optional
        In the units of the times of `fit`; None is the typical one, ``time_scale_``, and 1 for a model or a layer.

    Returns
    -------
    K : ndarray of shape (length,)
        K_l is the weight of the sample l steps ago, or in the backward direction l steps ahead. With ``channel=None``
        of shape (length, n_outputs, n_inputs).

    Raises
    ------
    ValueError
        As in `linear_system`; a length below 1 or a gap that is not positive.

    Examples
    --------
    >>> import torch
    >>> from statespace.inspection import layer_kernel
    >>> from statespace.layers import S4D
    >>> layer = S4D(d_model=4, d_state=8)
    >>> impulse = torch.zeros(1, 50, 4)
    >>> impulse[0, 0] = 1.0
    >>> y, _ = layer(impulse)
    >>> bool(torch.allclose(torch.from_numpy(layer_kernel(layer, 50)).float(), y[0, :, 0], atol=1e-5))
    True
    """
    if length < 1:
        raise ValueError(f"length must be at least 1. Got {length!r}.")
    grid = discretized(model, channel, layer=layer, backward=backward, gap=gap)
    K = grid.kernel(None, length + 1)
    first, K = K[0], K[1:].copy()
    K[0] += first
    return K


def discretized(model, channel=0, *, layer=0, backward=False, gap=None):
    """The system of `linear_system` as the layer takes it over one gap: Ā, B̄, C and D, by the layer's own rule.

    Parameters
    ----------
    model, channel, layer, backward, gap
        As in `layer_kernel`.

    Returns
    -------
    grid : LinearSystem
        In discrete time. Its own answers come one sample later than the layer's, which reads each sample at once.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.inspection.systems import discretized, linear_system
    >>> from statespace.layers import S4D
    >>> layer = S4D(d_model=4, d_state=2)
    >>> bool(np.allclose(discretized(layer, gap=3.0).poles, np.exp(3.0 * linear_system(layer).poles)))
    True
    """
    mixer, unit = layer_of(model, layer)
    gap = unit if gap is None else float(gap)
    if not 0 < gap < np.inf:
        raise ValueError(f"gap must be positive and finite. Got {gap!r}.")
    system = linear_system(model, channel, layer=layer, backward=backward)
    if isinstance(mixer, S4) or getattr(mixer, "discretization", "zoh") == "bilinear":
        # The layers' bilinear rule reads the new sample alone.
        half = np.eye(system.n_states) - gap / 2 * system.A
        A = np.linalg.solve(half, np.eye(system.n_states) + gap / 2 * system.A)
        return LinearSystem(A, np.linalg.solve(half, gap * system.B), system.C, system.D, dt=gap)
    return system.discretize(gap)


def _rotation(rate):
    """Complex numbers (..., n) on a diagonal as real matrices over real and imaginary parts."""
    real, imag = (torch.diag_embed(part) for part in (rate.real, rate.imag))
    return torch.cat([torch.cat([real, -imag], dim=-1), torch.cat([imag, real], dim=-1)], dim=-2)


def _diagonal(mixer, start):
    """s' = λ (s + u), y = Re Σ c s: A (H, N, N), B and C (H, N)."""
    rate, readout = mixer._system()
    readout = readout[start : start + len(rate)]
    if bool((rate.imag == 0).all()):
        return torch.diag_embed(rate.real).numpy(), rate.real.numpy(), readout.real.numpy()
    write, read = torch.cat([rate.real, rate.imag], -1), torch.cat([readout.real, -readout.imag], -1)
    return _rotation(rate).numpy(), write.numpy(), read.numpy()


def _low_rank(mixer, start):
    """x' = (Λ - P P*) x + B u, y = 2 Re(C x), where P* meets both halves of every pair."""
    Lambda, P, B, C = mixer._system()
    C = C[start : start + mixer.d_model]
    P = torch.cat([P.real, P.imag], dim=-1)  # (H, r, N)
    A = _rotation(Lambda) - 2 * P.mT @ P
    write, read = torch.cat([B.real, B.imag], dim=-1), torch.cat([2 * C.real, -2 * C.imag], dim=-1)
    return A.numpy(), write.numpy(), read.numpy()


def _many_inputs(mixer, start):
    """s' = λ (s + B u), y = Re Σ C s: A (P, P), B (P, H), C (H, P)."""
    rate, write, read = mixer._system()
    A = _rotation(rate)
    return A.numpy(), (A @ write.T).numpy(), read[int(start > 0)].T.numpy()


_MATRICES = {S4D: _diagonal, DSS: _diagonal, H3: _diagonal, S4: _low_rank, S5: _many_inputs}
