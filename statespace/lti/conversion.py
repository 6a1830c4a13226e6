"""LinearSystem to and from transfer functions, zeros and poles, `scipy.signal` and python-control.

Above: ``systems``. Below: ``realization``. `scipy.signal` and python-control are imported when they are asked for.
"""

import numpy as np

from statespace.lti import realization


class Conversion:
    """The conversions of `LinearSystem`.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem.from_zpk([], [-1.0, -2.0], 2.0).gain
    array(1.)
    """

    @classmethod
    def from_transfer_function(cls, numerator, denominator, dt=None):
        """From H(s) = numerator / denominator, coefficients in descending powers as in `scipy.signal`.

        Parameters
        ----------
        numerator : array-like of shape (n_coefficients,) or (n_outputs, n_coefficients)
        denominator : array-like of shape (n_coefficients,)
        dt : float, optional

        Returns
        -------
        LinearSystem
            A companion form with its states rescaled. Where poles and zeros are known, `from_zpk` is more accurate.

        Raises
        ------
        ValueError
            The numerator has the higher degree: the system would differentiate its input.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem.from_transfer_function([1.0], [1.0, 2.0, 1.0]).frequency_response(0.0)
        np.complex128(1+0j)
        """
        return cls(*realization.from_polynomials(numerator, denominator), dt=dt)

    @classmethod
    def from_zpk(cls, zeros, poles, gain, dt=None):
        """From H(s) = gain Π (s − zeros) / Π (s − poles), as a cascade of sections of one or two states.

        Parameters
        ----------
        zeros, poles : array-like of shape (n_zeros,), (n_poles,)
            Real, or in conjugate pairs.
        gain : float
        dt : float, optional

        Returns
        -------
        LinearSystem

        Raises
        ------
        ValueError
            More zeros than poles, or one that has no conjugate.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem.from_zpk([0.0], [-1 + 1j, -1 - 1j], 3.0).poles
        array([-1.+1.j, -1.-1.j])
        """
        return cls(*realization.from_zpk(zeros, poles, gain), dt=dt)

    @classmethod
    def from_sos(cls, sos, dt=None):
        """From a cascade of sections (b₀ s² + b₁ s + b₂)/(a₀ s² + a₁ s + a₂), rows [b₀, b₁, b₂, a₀, a₁, a₂].

        Parameters
        ----------
        sos : array-like of shape (n_sections, 6)
            As `scipy.signal` designs them; with ``dt`` for a digital filter.
        dt : float, optional

        Returns
        -------
        LinearSystem

        Examples
        --------
        >>> import scipy.signal
        >>> from statespace.lti import LinearSystem
        >>> sos = scipy.signal.butter(4, 1.0, analog=True, output="sos")
        >>> LinearSystem.from_sos(sos).gain.round(12)
        np.float64(1.0)
        """
        sos = np.asarray(sos, dtype=np.float64)
        if sos.ndim != 2 or sos.shape[1] != 6:
            raise ValueError(f"sos must have shape (n_sections, 6). Got {sos.shape}.")
        system = cls(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), [[1.0]], dt=dt)
        for section in sos:
            numerator, denominator = section[:3], section[3:]
            if dt is not None:
                # In powers of z⁻¹, of which trailing zeros are delays that cancel.
                while len(denominator) > 1 and denominator[-1] == 0.0 and numerator[-1] == 0.0:
                    numerator, denominator = numerator[:-1], denominator[:-1]
            system = cls.from_transfer_function(numerator, denominator, dt=dt) @ system
        return system

    @classmethod
    def from_scipy(cls, system, dt=None):
        """From `scipy.signal`: an ``lti`` or ``dlti`` in any form, or the tuple of one.

        Parameters
        ----------
        system : StateSpace, TransferFunction, ZerosPolesGain, or tuple
            A tuple of two is (numerator, denominator), of three (zeros, poles, gain), of four (A, B, C, D).
        dt : float, optional
            For tuples; systems bring their own.

        Returns
        -------
        LinearSystem

        Examples
        --------
        >>> import scipy.signal
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem.from_scipy(scipy.signal.TransferFunction([1.0], [1.0, 0.0, 1.0]))
        LinearSystem(2 states, 1 input, 1 output)
        """
        import scipy.signal

        if isinstance(system, scipy.signal.lti | scipy.signal.dlti):
            dt = _sample_time(system.dt)
            if isinstance(system, scipy.signal.TransferFunction):
                system = system.num, system.den
            elif isinstance(system, scipy.signal.ZerosPolesGain):
                system = system.zeros, system.poles, system.gain
            else:
                system = system.A, system.B, system.C, system.D
        makers = {2: cls.from_transfer_function, 3: cls.from_zpk, 4: cls}
        if not isinstance(system, tuple) or len(system) not in makers:
            raise ValueError(
                "from_scipy takes a scipy.signal system, or a tuple (num, den), (z, p, k) or (A, B, C, D). "
                f"Got {type(system).__name__}."
            )
        return makers[len(system)](*system, dt=dt)

    def to_scipy(self):
        """As `scipy.signal.StateSpace`.

        Returns
        -------
        scipy.signal.StateSpace

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 1.0, 1.0).to_scipy().A
        array([[-1.]])
        """
        import scipy.signal

        matrices = (self.A, self.B, self.C, self.D)
        return scipy.signal.StateSpace(*matrices) if self.dt is None else scipy.signal.StateSpace(*matrices, dt=self.dt)

    def to_zpk(self):
        """Zeros, poles and gain of a system with one input and one output.

        Returns
        -------
        zeros, poles : ndarray
        gain : float
            The ratio of the leading coefficients.

        Raises
        ------
        ValueError
            There are several inputs or outputs: take one with ``G[i, j]``.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem([[-1.0, 0.0], [0.0, -3.0]], [1.0, 1.0], [1.0, 1.0]).to_zpk()
        (array([-2.]), array([-1., -3.]), 2.0)
        """
        if self.D.shape != (1, 1):
            raise ValueError(f"to_zpk needs one input and one output; take G[i, j] of this one's {self.D.shape}.")
        zeros, poles = self.zeros, self.poles
        # Where H is compared with its factors: away from all of them.
        s = 2.0 * max(np.abs(np.concatenate([zeros, poles])).max(initial=0.0), 0.5)
        H = self._response_at(np.array([s]))[0, 0, 0].real
        return zeros, poles, _gain(H, s, zeros, poles)

    def to_transfer_function(self):
        """Numerator and denominator of a system with one input and one output, in descending powers.

        Returns
        -------
        numerator, denominator : ndarray

        Raises
        ------
        ValueError
            As for `to_zpk`.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem([[-1.0, 0.0], [0.0, -3.0]], [1.0, 1.0], [1.0, 1.0]).to_transfer_function()
        (array([2., 4.]), array([1., 4., 3.]))
        """
        zeros, poles, gain = self.to_zpk()
        return gain * np.atleast_1d(np.real(np.poly(zeros))), np.atleast_1d(np.real(np.poly(poles)))

    @classmethod
    def from_control(cls, system):
        """From python-control.

        Parameters
        ----------
        system : control.StateSpace or control.TransferFunction

        Returns
        -------
        LinearSystem

        Raises
        ------
        ImportError
            python-control is not installed.
        ValueError
            Another kind of system.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> system = LinearSystem(-1.0, 1.0, 1.0)
        >>> try:
        ...     again = LinearSystem.from_control(system.to_control())
        ... except ImportError:  # python-control is optional
        ...     again = system
        >>> again.A
        array([[-1.]])
        """
        control = _control()
        dt = _sample_time(system.dt)
        if isinstance(system, control.StateSpace):
            return cls(system.A, system.B, system.C, system.D, dt=dt)
        if not isinstance(system, control.TransferFunction):
            raise ValueError(
                f"from_control takes a control.StateSpace or control.TransferFunction. Got {type(system).__name__}."
            )
        rows = []
        for i in range(system.noutputs):
            entries = [
                cls.from_transfer_function(system.num[i][j], system.den[i][j], dt=dt) for j in range(system.ninputs)
            ]
            rows.append(_beside(entries))
        return _above(rows)

    def to_control(self):
        """As `control.StateSpace`.

        Returns
        -------
        control.StateSpace

        Raises
        ------
        ImportError
            python-control is not installed.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> try:
        ...     poles = LinearSystem(-1.0, 1.0, 1.0).to_control().poles().real
        ... except ImportError:  # python-control is optional
        ...     poles = [-1.0]
        >>> float(poles[0])
        -1.0
        """
        matrices = (self.A, self.B, self.C, self.D)
        return _control().ss(*matrices) if self.dt is None else _control().ss(*matrices, self.dt)


def _gain(H, s, zeros, poles):
    """k of H = k Π (s − zeros)/Π (s − poles), factors taken in turn so that none overflows."""
    extra = np.ones(len(poles) - len(zeros))
    factors = (s - poles) / np.concatenate([s - zeros, extra])
    return float((H * np.prod(factors)).real)


def _control():
    try:
        import control
    except ImportError:
        raise ImportError("python-control is not installed: pip install control") from None
    return control


def _sample_time(dt):
    """None for continuous time; True, "some grid" in both libraries, is a grid of step 1."""
    if dt is None or (dt is not True and dt == 0):
        return None
    return 1.0 if dt is True else float(dt)


def _beside(systems):
    """[G1, G2, ...]: one output, an input for each."""
    result = systems[0]
    for system in systems[1:]:
        keep, new = np.eye(result.n_inputs, result.n_inputs + 1), np.eye(1, result.n_inputs + 1, result.n_inputs)
        result = result @ keep + system @ new
    return result


def _above(systems):
    """Systems with the same inputs, their outputs one above the other."""
    result = systems[0]
    for system in systems[1:]:
        n = result.n_outputs
        keep, new = np.eye(n + 1, n), np.eye(n + 1, 1, -n)
        result = keep @ result + new @ system
    return result
