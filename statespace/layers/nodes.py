"""Where the nodes of a diagonal system start: the eigenvalues A of S4D's and DSS's initialisations, in float64."""

import numpy as np
import torch


def _lin(d_state):
    """S4D-Lin, -1/2 + iπn: the frequencies of a Fourier series on one unit of δΔ-scaled time."""
    return -0.5 + 1j * np.pi * np.arange(d_state // 2)


def _inv(d_state):
    """S4D-Inv, -1/2 + i N/π (N/(2n + 1) - 1): close to HiPPO-LegS' eigenvalues (equation 9 of the paper)."""
    n = np.arange(d_state // 2)
    return -0.5 + 1j * d_state / np.pi * (d_state / (2 * n + 1) - 1)


def _legs(d_state):
    """S4D-LegS: the eigenvalues of the normal part of the HiPPO-LegS matrix, -1/2 + S with S skew-symmetric."""
    from statespace.lti import hippo  # brings pandas and SciPy's linear algebra, which no other layer needs

    return hippo.dplr("legs", d_state).Lambda


def _real(d_state):
    """S4D-Real, -(n + 1): HiPPO-LegS' own diagonal; no conjugate pairs."""
    return -(1.0 + np.arange(d_state)) + 0j


INITS = {"lin": _lin, "inv": _inv, "legs": _legs, "real": _real}


def starting_nodes(init, d_model, d_state):
    """The nodes A at which a diagonal system of ``d_state`` real dimensions starts, for each channel.

    ===========  ==================================================================================
    init         A_n
    ===========  ==================================================================================
    ``lin``      -1/2 + iπn
    ``inv``      -1/2 + i N/π (N/(2n + 1) - 1)
    ``legs``     the eigenvalues with Im > 0 of HiPPO-LegS' normal part, A + P Pᵀ with P_n = √(n + 1/2)
    ``real``     -(n + 1)
    ``random``   -1/2 + i exp(ξ), ξ standard normal, drawn anew for each node and channel
    ===========  ==================================================================================

    Parameters
    ----------
    init : {"lin", "inv", "legs", "real", "random"}
    d_model : int
        Number of channels H.
    d_state : int
        Real dimension N: N/2 nodes, one of each conjugate pair, or N real ones with ``"real"``.

    Returns
    -------
    Tensor of shape (d_model, nodes), complex128

    Raises
    ------
    ValueError
        An unknown name, or a ``d_state`` that is odd where nodes come in pairs.

    Examples
    --------
    >>> from statespace.layers.nodes import starting_nodes
    >>> starting_nodes("real", 1, 3)
    tensor([[-1.+0.j, -2.+0.j, -3.+0.j]], dtype=torch.complex128)
    """
    if init not in (*INITS, "random"):
        names = ", ".join(map(repr, (*INITS, "random")))
        raise ValueError(f"init must be one of {names}. Got {init!r} instead.")
    if d_state < 1 or (d_state % 2 and init != "real"):
        raise ValueError(
            f"d_state must be a positive even number (it counts conjugate pairs twice). Got {d_state!r} instead."
        )
    if init == "random":
        frequency = torch.randn(d_model, d_state // 2).double().exp()
        return torch.complex(torch.full_like(frequency, -0.5), frequency)
    return torch.from_numpy(INITS[init](d_state)).repeat(d_model, 1)
