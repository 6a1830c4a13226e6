"""Analog filters by name, as zeros, poles and gain: s is in radians per unit of time, cutoffs in cycles.

Above: ``filters``. Below: `scipy.signal`, which knows the prototypes.
"""

from numbers import Integral, Real

import numpy as np
import scipy.signal

KINDS = ("butterworth", "chebyshev1", "chebyshev2", "elliptic", "bessel", "notch", "peak")
BANDS = ("lowpass", "highpass", "bandpass", "bandstop")


def design(kind, order, cutoff, band, ripple, attenuation, quality):
    """Zeros, poles and gain of an analog filter H(s/ω); the parameters are those of `statespace.lti.LTIFilter`.

    Returns
    -------
    zeros, poles : ndarray, complex
    gain : float
    omega : float
        ω, a power of two near the cutoff. Without it a gain of the order of ω²⁴ would not fit into a float.

    Examples
    --------
    >>> from statespace.lti.prototypes import design
    >>> zeros, poles, gain, omega = design("butterworth", 1, 0.5, "lowpass", 1.0, 40.0, 30.0)
    >>> (omega * poles.real).round(6)  # −2π · 0.5
    array([-3.141593])
    """
    radians = 2.0 * np.pi * np.asarray(cutoff, dtype=np.float64)
    unit = float(2.0 ** np.round(np.mean(np.log2(radians))))
    omega = radians / unit
    if kind in ("notch", "peak"):
        width = float(omega / quality)
        poles = np.roots([1.0, width, omega**2]).astype(complex)
        if kind == "notch":
            return np.array([1j * omega, -1j * omega]), poles, 1.0, unit
        return np.zeros(1, complex), poles, width, unit
    options = {"btype": band, "analog": True, "output": "zpk"}
    if kind == "butterworth":
        designed = scipy.signal.butter(order, omega, **options)
    elif kind == "chebyshev1":
        designed = scipy.signal.cheby1(order, ripple, omega, **options)
    elif kind == "chebyshev2":
        designed = scipy.signal.cheby2(order, attenuation, omega, **options)
    elif kind == "elliptic":
        designed = scipy.signal.ellip(order, ripple, attenuation, omega, **options)
    else:
        designed = scipy.signal.bessel(order, omega, norm="mag", **options)
    zeros, poles, gain = designed
    return np.asarray(zeros, complex), np.asarray(poles, complex), float(gain), unit


def check_design(kind, order, cutoff, band, ripple, attenuation, quality):
    """Refuse parameters that describe no filter; those that the kind does not use are not looked at.

    Examples
    --------
    >>> from statespace.lti.prototypes import check_design
    >>> check_design("butterworth", 4, (0.2, 0.1), "bandpass", 1.0, 40.0, 30.0)
    Traceback (most recent call last):
        ...
    ValueError: cutoff of a bandpass must be a pair (low, high) with 0 < low < high. Got (0.2, 0.1).
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be a LinearSystem or one of {', '.join(map(repr, KINDS))}. Got {kind!r} instead.")
    resonant = kind in ("notch", "peak")
    if not resonant:
        if band not in BANDS:
            raise ValueError(f"band must be one of {', '.join(map(repr, BANDS))}. Got {band!r} instead.")
        if not isinstance(order, Integral) or isinstance(order, bool) or not 1 <= order <= 24:
            raise ValueError(f"order must be a whole number from 1 to 24. Got {order!r}.")
    if cutoff is not None:
        _check_cutoff(cutoff, kind if resonant else f"a {band}", not resonant and band in ("bandpass", "bandstop"))
    for name, value, used in (
        ("ripple", ripple, kind in ("chebyshev1", "elliptic")),
        ("attenuation", attenuation, kind in ("chebyshev2", "elliptic")),
        ("quality", quality, resonant),
    ):
        if used and not (isinstance(value, Real) and 0.0 < value < np.inf):
            raise ValueError(f"{name} must be a positive number. Got {value!r}.")
    if kind == "elliptic" and not ripple < attenuation:
        raise ValueError(f"ripple must be smaller than attenuation, both in decibels. Got {ripple} and {attenuation}.")


def _check_cutoff(cutoff, what, pair):
    try:
        values = np.asarray(cutoff, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full(3, np.nan)
    fits = values.shape == ((2,) if pair else ()) and np.isfinite(values).all() and (values > 0.0).all()
    if not fits or (pair and not values[0] < values[1]):
        wanted = "a pair (low, high) with 0 < low < high" if pair else "one positive frequency"
        raise ValueError(f"cutoff of {what} must be {wanted}. Got {cutoff!r}.")


def evaluated(zeros, poles, gain, s):
    """H(s) = gain Π (s − zeros)/Π (s − poles).

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.prototypes import evaluated
    >>> evaluated(np.zeros(0), np.array([-1.0, -3.0]), 6.0, 0.0)
    np.float64(2.0)
    """
    # A factor of the numerator over one of the denominator at a time: none of them overflows.
    s = np.asarray(s)[..., np.newaxis]
    above = np.concatenate([s - zeros, np.ones((*s.shape[:-1], len(poles) - len(zeros)))], axis=-1)
    return gain * np.prod(above / (s - poles), axis=-1)


def residues(zeros, poles, gain):
    """r and d of H(s) = Σ r_j/(s − p_j) + d, or None where poles are equal or so near that digits would be lost.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.prototypes import residues
    >>> residues(np.zeros(0), np.array([-1.0, -3.0]), 2.0)[0].real
    array([ 1., -1.])
    """
    n, direct = len(poles), gain if len(zeros) == len(poles) else 0.0
    r = np.empty(n, dtype=complex)
    for j, pole in enumerate(poles):
        below = np.append(pole - np.delete(poles, j), 1.0)
        if not np.all(below):
            return None
        above = np.append(pole - zeros, np.ones(n - len(zeros)))
        r[j] = gain * np.prod(above / below)
    # Each mode's answer to a constant of 1 is about r/p: what these sum to at their largest is what is lost.
    if np.abs(r / poles.real).sum() > 1e7 * max(1.0, abs(direct)):
        return None
    return r, direct
