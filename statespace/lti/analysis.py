"""What is known of a system without simulating it: poles, zeros, responses, gramians, smaller systems like it.

Above: ``systems``. Below: ``reduction`` for the algorithms on matrices, ``discretization``, NumPy.
"""

from typing import NamedTuple

import numpy as np

from statespace.lti import reduction
from statespace.lti.discretization import input_weights, transition


class Bode(NamedTuple):
    """What `LinearSystem.bode` returns.

    Attributes
    ----------
    frequency : ndarray of shape (n_frequencies,)
        Cycles per unit of time.
    magnitude : ndarray of shape (n_frequencies[, n_outputs, n_inputs])
        In decibels, ``20 log₁₀ |H|``.
    phase : ndarray of the same shape
        In degrees, unwrapped.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem(0.0, 1.0, 1.0).bode([0.1, 1.0]).phase
    array([-90., -90.])
    """

    frequency: np.ndarray
    magnitude: np.ndarray
    phase: np.ndarray


class Response(NamedTuple):
    """An answer over time since an impulse or a step.

    Attributes
    ----------
    times : ndarray of shape (n_times,)
    output : ndarray of shape (n_times[, n_outputs, n_inputs])

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem(0.0, 1.0, 1.0).step_response([0.0, 2.0])
    Response(times=array([0., 2.]), output=array([0., 2.]))
    """

    times: np.ndarray
    output: np.ndarray


class Analysis:
    """The analysis of `LinearSystem`.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem(-2.0, 1.0, 1.0).is_stable
    True
    """

    @property
    def poles(self):
        """The eigenvalues of A, (n_states,)."""
        return np.linalg.eigvals(self.A)

    @property
    def zeros(self):
        """The transmission zeros: where the rank of H(s) falls, among them what is not reachable or not observed."""
        return reduction.transmission_zeros(self.A, self.B, self.C, self.D)

    @property
    def gain(self):
        """The answer to a constant input of 1, H(0) = D − C A⁻¹ B; all infinite with a pole there."""
        return self._siso(self._response_at(np.array([0.0 if self.dt is None else 1.0]))[0].real)

    @property
    def is_stable(self):
        """Whether all poles lie in the open left half plane, or inside the unit circle in discrete time."""
        poles = self.poles
        return bool(np.all(poles.real < 0.0 if self.dt is None else np.abs(poles) < 1.0))

    def _response_at(self, s):
        """H(s) = C (s I − A)⁻¹ B + D at complex points, (n, n_outputs, n_inputs); z takes the place of s with dt."""
        eye = np.eye(self.n_states)
        H = np.empty((len(s), *self.D.shape), dtype=complex)
        size = max(1, 1_000_000 // max(1, self.n_states**2))
        for first in range(0, len(s), size):
            part = s[first : first + size, np.newaxis, np.newaxis]
            matrices = part * eye - self.A
            try:
                X = np.linalg.solve(matrices, np.broadcast_to(self.B, (len(part), *self.B.shape)))
            except np.linalg.LinAlgError:
                X = np.stack([_solved(matrix, self.B) for matrix in matrices])
            with np.errstate(invalid="ignore"):
                answer = self.C @ X + self.D
            H[first : first + size] = np.where(np.isfinite(answer), answer, np.inf)
        return H

    def frequency_response(self, frequency):
        """H(2πi f), the gain and phase that a sinusoid of frequency f gets.

        Parameters
        ----------
        frequency : float or array-like of shape (n_frequencies,)
            Cycles per unit of time.

        Returns
        -------
        ndarray of shape (n_frequencies, n_outputs, n_inputs), complex
            (n_frequencies,) with one input and one output; without the first axis for a single frequency.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.lti import LinearSystem
        >>> abs(LinearSystem(-1.0, 1.0, 1.0).frequency_response(1 / (2 * np.pi))).round(12) == np.sqrt(0.5).round(12)
        np.True_
        """
        f = np.asarray(frequency, dtype=np.float64)
        if f.ndim > 1 or not np.isfinite(f).all():
            raise ValueError("frequency must be a finite number or a vector of them, in cycles per unit of time.")
        s = 2j * np.pi * np.atleast_1d(f)
        H = self._siso(self._response_at(s if self.dt is None else np.exp(s * self.dt)))
        return H if f.ndim else H[0]

    def bode(self, frequency=None):
        """Magnitude in decibels and phase in degrees.

        Parameters
        ----------
        frequency : array-like of shape (n_frequencies,), optional
            Cycles per unit of time. None: 500 of them, from a tenth of the slowest pole or zero to ten times the
            fastest, in discrete time to 1/(2 dt).

        Returns
        -------
        Bode

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 1.0, 1.0).bode([1e-6, 1e3]).magnitude.round(1)
        array([ -0., -76.])
        """
        f = self._frequencies() if frequency is None else np.atleast_1d(np.asarray(frequency, dtype=np.float64))
        H = self.frequency_response(f)
        with np.errstate(divide="ignore"):
            magnitude = 20.0 * np.log10(np.abs(H))
        return Bode(f, magnitude, np.degrees(np.unwrap(np.angle(H), axis=0)))

    def _rates(self):
        """The rates |s| of poles and zeros that are not 0."""
        points = np.concatenate([self.poles, self.zeros if self.D.shape[0] == self.D.shape[1] else []])
        if self.dt is not None:
            points = np.log(points[points != 0.0].astype(complex)) / self.dt
        rates = np.abs(points)
        return rates[rates > 1e-9 * rates.max(initial=0.0)]

    def _frequencies(self):
        rates = self._rates() / (2 * np.pi)
        low, high = (rates.min() / 10, rates.max() * 10) if len(rates) else (0.01, 100.0)
        if self.dt is not None:
            high = 0.5 / self.dt
            low = min(low, high / 100)
        return np.geomspace(low, high, 500)

    def _default_times(self):
        if self.dt is not None:
            return self.dt * np.arange(100)
        rates = self._rates()
        poles = self.poles
        decay = np.abs(poles.real[np.abs(poles.real) > 1e-9 * np.abs(poles).max(initial=0.0)])
        slowest = decay.min() if len(decay) else (rates.min() / 7 if len(rates) else 1.0)
        return np.linspace(0.0, 10.0 / slowest, 500)

    def impulse_response(self, times=None):
        """C exp(A t) B; the impulse that D passes on at t = 0 is left out.

        Parameters
        ----------
        times : array-like of shape (n_times,), optional
            Since the impulse, in any order; in discrete time whole multiples of dt. None: until it is over.

        Returns
        -------
        Response
            In discrete time of an input of 1 at the first sample, D included.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 1.0, 1.0).impulse_response([0.0, np.log(4.0)]).output
        array([1.  , 0.25])
        """
        times = self._times_or(times, self._default_times())
        if self.dt is not None:
            k = self._multiples(times)
            taps = self.kernel(None, int(k.max(initial=0)) + 1)
            return Response(times, taps[k])
        return Response(times, self._siso(self.C @ self._weights_at(times)[0] @ self.B))

    def step_response(self, times=None):
        """The answer to an input that jumps from 0 to 1 at t = 0.

        Parameters
        ----------
        times : array-like of shape (n_times,), optional
            Since the step, as for `impulse_response`.

        Returns
        -------
        Response

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 1.0, 1.0).step_response([0.0, np.log(4.0)]).output
        array([0.  , 0.75])
        """
        times = self._times_or(times, self._default_times())
        if self.dt is not None:
            k = self._multiples(times)
            return Response(times, np.cumsum(self.kernel(None, int(k.max(initial=0)) + 1), axis=0)[k])
        return Response(times, self._siso(self.C @ self._weights_at(times)[1] + self.D))

    def _times_or(self, times, default):
        """Times of a response since its beginning, in the system's unit."""
        if times is None:
            return default
        times = np.asarray(times, dtype=np.float64)
        if times.ndim != 1 or not (np.isfinite(times) & (times >= 0.0)).all():
            raise ValueError("times of a response must be a vector of finite numbers >= 0, since the impulse or step.")
        return times

    def _weights_at(self, times):
        """exp(A t) and its integral times B."""
        return transition(self.A, times), input_weights(self.A, self.B, times).B0

    def _multiples(self, times):
        k = np.round(times / self.dt).astype(np.int64)
        if not np.allclose(k * self.dt, times, rtol=1e-6, atol=1e-6 * self.dt):
            raise ValueError(f"times of a system in discrete time must be multiples of dt = {self.dt:g}.")
        return k

    def gramian(self, kind):
        """∫₀^∞ exp(A t) B Bᵀ exp(Aᵀ t) dt ("controllability"), or ∫₀^∞ exp(Aᵀ t) Cᵀ C exp(A t) dt ("observability").

        Parameters
        ----------
        kind : {"controllability", "observability"}

        Returns
        -------
        ndarray of shape (n_states, n_states)

        Raises
        ------
        ValueError
            The system is not stable: the integral does not exist.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 2.0, 1.0).gramian("controllability")
        array([[2.]])
        """
        if kind not in ("controllability", "observability"):
            raise ValueError(f"kind must be 'controllability' or 'observability'. Got {kind!r}.")
        self._stable("a gramian")
        A, S = (self.A, self.B @ self.B.T) if kind == "controllability" else (self.A.T, self.C.T @ self.C)
        return reduction.gramian(A, S, self.dt is not None)

    def _stable(self, what):
        if not self.is_stable:
            raise ValueError(f"{what} exists for a stable system only; this one has the poles {self.poles}.")

    def h2_norm(self):
        """The root mean square of the output for white noise of unit density at every input, (Σ ∫ |h(t)|² dt)^½.

        Returns
        -------
        float
            Infinite if the system is not stable, or passes white noise on in continuous time (D ≠ 0).

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-2.0, 1.0, 1.0).h2_norm()
        0.5
        """
        if not self.is_stable or (self.dt is None and self.D.any()):
            return float("inf")
        total = np.trace(self.C @ self.gramian("controllability") @ self.C.T)
        if self.dt is not None:
            total += (self.D**2).sum()
        return float(np.sqrt(max(total, 0.0)))

    def hankel_singular_values(self):
        """How much each balanced state carries from past inputs to future outputs, in decreasing order.

        Returns
        -------
        ndarray of shape (n_states,)

        Raises
        ------
        ValueError
            The system is not stable.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 1.0, 1.0).hankel_singular_values()
        array([0.5])
        """
        self._stable("The Hankel operator")
        return reduction.balancing(self.A, self.B, self.C, self.dt is not None)[0]

    def balanced(self):
        """The same system in coordinates whose two gramians are equal and diagonal, the Hankel singular values.

        Returns
        -------
        LinearSystem
            Without the states that are not reachable or not observed.

        Raises
        ------
        ValueError
            The system is not stable.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 4.0, 1.0).balanced().gramian("observability")
        array([[2.]])
        """
        self._stable("A balanced realisation")
        values, T, L = reduction.balancing(self.A, self.B, self.C, self.dt is not None)
        kept = values > 1e-14 * values.max(initial=0.0)
        T, L = T[:, kept], L[kept]
        return self._like(L @ self.A @ T, L @ self.B, self.C @ T, self.D)

    def reduce(self, order, match_gain=False):
        """A smaller system with nearly the same response: balanced truncation (Moore 1981).

        Of a stable system, the largest gain of the difference is at most twice the sum of the Hankel singular values
        left out. Unstable poles are kept, and the stable rest is reduced.

        Parameters
        ----------
        order : int
            The number of states to keep.
        match_gain : bool, default=False
            Keep the gain for constant inputs exact (singular perturbation) rather than that at high frequencies.

        Returns
        -------
        LinearSystem

        Raises
        ------
        ValueError
            An order that is negative, above n_states, or below the number of unstable poles.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> system = LinearSystem([[-1.0, 0.0], [0.0, -50.0]], [1.0, 1.0], [1.0, 0.1])
        >>> system.reduce(1, match_gain=True).gain.round(6) == system.gain.round(6)
        np.True_
        """
        if not 0 <= order <= self.n_states:
            raise ValueError(f"order must lie between 0 and {self.n_states}, the number of states. Got {order}.")
        discrete = self.dt is not None
        T, n_stable = reduction.stable_first(self.A, discrete)
        split = self.transform(T)
        n_kept = order - (self.n_states - n_stable)
        if n_kept < 0:
            raise ValueError(f"order must be at least {self.n_states - n_stable}, the number of unstable poles.")
        first, rest = slice(0, n_stable), slice(n_stable, None)
        stable = self._like(split.A[first, first], split.B[first], split.C[:, first], self.D)
        _, T, L = reduction.balancing(stable.A, stable.B, stable.C, discrete)
        n_kept = min(n_kept, T.shape[1])
        if match_gain:
            matrices = reduction.residualise(L @ stable.A @ T, L @ stable.B, stable.C @ T, self.D, n_kept, discrete)
        else:
            T, L = T[:, :n_kept], L[:n_kept]
            matrices = L @ stable.A @ T, L @ stable.B, stable.C @ T, self.D
        if n_stable == self.n_states:
            return self._like(*matrices)
        unstable = self._like(split.A[rest, rest], split.B[rest], split.C[:, rest], np.zeros_like(self.D))
        return self._like(*matrices) + unstable

    def minimal(self, tol=1e-10):
        """Without the states that no input reaches and those that no output shows.

        Parameters
        ----------
        tol : float, default=1e-10
            What counts as zero, relative to the size of the balanced matrices.

        Returns
        -------
        LinearSystem

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> lag = LinearSystem(-1.0, 1.0, 1.0)
        >>> (lag - lag * 1.0 + lag).minimal()
        LinearSystem(1 state, 1 input, 1 output)
        """
        return self._like(*reduction.minimal(self.A, self.B, self.C, tol), self.D)


def _solved(matrix, B):
    """``solve``; infinite where s is a pole to the last digit."""
    try:
        return np.linalg.solve(matrix, B)
    except np.linalg.LinAlgError:
        return np.full(B.shape, np.inf, dtype=complex)
