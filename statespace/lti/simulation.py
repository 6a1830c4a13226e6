"""A system over a record and sample by sample: simulate, step, kernel.

Above: ``systems``. Below: ``discretization`` (gaps), ``sweeps`` (records).
"""

from datetime import timedelta
from typing import NamedTuple

import numpy as np

from statespace.lti.discretization import METHODS, Steps, input_weights
from statespace.times import check_length, check_times, elapsed, gaps

_EXACT = ("zoh", "foh")


class Simulation(NamedTuple):
    """What `LinearSystem.simulate` returns.

    Attributes
    ----------
    output : ndarray of shape (n_times, n_outputs)
        (n_times,) if u had one dimension and there is one output.
    state : ndarray of shape (n_times, n_states)

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem(-1.0, 1.0, 1.0).simulate([1.0, 1.0]).output.round(6)
    array([0.      , 0.632121])
    """

    output: np.ndarray
    state: np.ndarray


class State(NamedTuple):
    """What `LinearSystem.step` remembers between two samples.

    Attributes
    ----------
    x : ndarray of shape (n_states,)
        The state at the last sample.
    u : ndarray of shape (n_inputs,) or None
        The last input; None before the first sample.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem(-1.0, 1.0, 1.0).step(2.0)[1]
    State(x=array([0.]), u=array([2.]))
    """

    x: np.ndarray
    u: np.ndarray | None


class Simulated:
    """The two faces of `LinearSystem`.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> LinearSystem(0.0, 1.0, 1.0).simulate([1.0, 1.0], times=[0.0, 2.5]).output
    array([0. , 2.5])
    """

    def simulate(self, u=None, times=None, initial_state=None, hold="zoh", time_unit="D"):
        """States and outputs for an input that is known at any times.

        Parameters
        ----------
        u : array-like of shape (n_times,) or (n_times, n_inputs), optional
            None is zero.
        times : array-like of shape (n_times,), optional
            Numbers, datetimes or timedeltas that do not decrease. None: a grid, of step 1 or of the system's dt.
        initial_state : array-like of shape (n_states,), optional
            The state at the first time. None is zero.
        hold : str, default="zoh"
            What u does between samples: "zoh" keeps u_{k−1} until t_k, "foh" draws a line from u_{k−1} to u_k; both
            are exact on any gap. The other methods of `discretize` approximate. Not used in discrete time.
        time_unit : str or Timedelta, default="D"
            The system's unit of time, for datetimes and timedeltas.

        Returns
        -------
        Simulation
            ``output`` and ``state``, both at the times given. A record cut at sample k goes on from
            ``initial_state=state[k]`` with sample k as its first.

        Raises
        ------
        ValueError
            NaN or infinity in u, times that decrease, lengths that do not fit, an unknown hold; for a system in
            discrete time also times that are not one dt apart.

        Notes
        -----
        Where the eigenvectors of A are well-conditioned each mode is stepped in closed form; elsewhere the state is,
        by a Taylor series over short gaps and by step doubling over long or repeated ones.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> integrator = LinearSystem(0.0, 1.0, 1.0)
        >>> integrator.simulate([0.0, 1.0, 3.0], times=[0.0, 1.0, 3.0], hold="foh").output
        array([0. , 0.5, 4.5])
        """
        u, single = self._input(u, times)
        x = self._initial(initial_state)
        if hold not in METHODS:
            raise ValueError(f"hold must be one of {', '.join(map(repr, METHODS))}. Got {hold!r} instead.")
        steps = self._gaps(times, len(u), time_unit)
        from statespace.lti import sweeps

        if self.dt is not None:
            states = sweeps.recurrence(self.A, u @ self.B.T, x)
        elif hold in _EXACT and self._modes is not None:
            states = self._modal_states(sweeps, u, steps, x, hold)
        else:
            states = sweeps.dense(self.A, u @ self.B.T, steps, x, hold)
        finite = np.isfinite(states).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"The state at sample {int(np.argmin(finite))} is too large for a float: the system is unstable, with "
                f"poles {self.poles}. Simulate a shorter record, or feed it back first."
            )
        output = states @ self.C.T + u @ self.D.T
        return Simulation(output[:, 0] if single and self.n_outputs == 1 else output, states)

    def _modal_states(self, sweeps, u, steps, x, hold):
        rate, V, W = self._modes
        b, nothing = W @ self.B, np.zeros((self.n_states, self.n_inputs))
        states = np.empty((len(u), self.n_states))
        z = W @ x
        for first in range(0, len(u), sweeps.CHUNK):
            # A chunk begins with the last sample of the one before, whose state it starts from.
            rows = slice(max(0, first - 1), first + sweeps.CHUNK)
            states[rows], z = sweeps.modal(u[rows], steps[rows], rate, b, V, nothing, z, hold)
        if len(u):
            states[0] = x
        return states

    def step(self, u_t, state=None, dt=None, hold="zoh"):
        """Advance by one sample; a fold of it over a record equals `simulate`.

        Parameters
        ----------
        u_t : float or array-like of shape (n_inputs,)
        state : State or array-like of shape (n_states,), optional
            What the last step returned. Before the first sample: the state at it, by default zero; no time has then
            passed, and ``dt`` is not used.
        dt : float or timedelta, optional
            The time since the sample before; a timedelta counts in days. None is 1, or the system's own dt.
        hold : str, default="zoh"
            As in `simulate`.

        Returns
        -------
        y_t : float or ndarray of shape (n_outputs,)
            A float if there is one output and u_t is a number.
        state : State

        Raises
        ------
        ValueError
            As in `simulate`.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> integrator = LinearSystem(0.0, 1.0, 1.0)
        >>> y, state = integrator.step(2.0)
        >>> y, state = integrator.step(5.0, state, dt=0.5)
        >>> y
        1.0
        """
        u = np.atleast_1d(np.asarray(u_t, dtype=np.float64))
        if u.shape != (self.n_inputs,) or not np.isfinite(u).all():
            raise ValueError(f"u_t must hold {self.n_inputs} finite input(s). Got {u_t!r}.")
        if not isinstance(state, State):
            state = State(self._initial(state), None)
        x = state.x
        if state.u is not None:
            if self.dt is not None:
                if dt is not None and not np.isclose(dt, self.dt, rtol=1e-6):
                    raise ValueError(f"dt must be the system's own, {self.dt:g}, or left out. Got {dt}.")
                x = self.A @ x + self.B @ state.u
            else:
                A, B0, B1 = self._step_weights(_number(dt), hold)
                x = A @ x + B0 @ state.u + B1 @ u
        y = self.C @ x + self.D @ u
        return (float(y[0]) if np.ndim(u_t) == 0 and self.n_outputs == 1 else y), State(x, u)

    def _step_weights(self, gap, hold):
        """`input_weights` for one gap; those of the last gaps are remembered."""
        known = self.__dict__.setdefault("_known_steps", {})
        if (gap, hold) not in known:
            if len(known) >= 256:
                known.clear()
            known[gap, hold] = Steps(*input_weights(self.A, self.B, gap, method=hold))
        return known[gap, hold]

    def kernel(self, dt, length, method="zoh"):
        """The impulse response on a grid: y = convolve(kernel, u) equals `simulate`.

        Parameters
        ----------
        dt : float
            The grid's step; None for a system in discrete time.
        length : int
        method : str, default="zoh"
            As in `discretize`.

        Returns
        -------
        ndarray of shape (length, n_outputs, n_inputs)
            D, C B̄, C Ā B̄, ...; of shape (length,) for one input and one output.

        Raises
        ------
        ValueError
            As in `discretize`; a length below 1.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.lti import LinearSystem
        >>> low_pass, u = LinearSystem(-1.0, 1.0, 1.0), [1.0, 0.0, 2.0, 1.0]
        >>> y = np.convolve(low_pass.kernel(0.5, 4), u)[:4]
        >>> bool(np.allclose(y, low_pass.simulate(u, times=[0.0, 0.5, 1.0, 1.5]).output))
        True
        """
        if length < 1:
            raise ValueError(f"length must be at least 1. Got {length}.")
        if self.dt is not None and dt not in (None, self.dt):
            raise ValueError(f"dt must be the system's own, {self.dt:g}, or None. Got {dt}.")
        grid = self if self.dt is not None else self.discretize(dt, method=method)
        # Doubling: the columns Ā^j B̄ for j < 2^i, then Ā^(2^i) times these.
        columns, power = grid.B, grid.A
        while columns.shape[1] < (length - 1) * self.n_inputs:
            columns = np.concatenate([columns, power @ columns], axis=1)
            power = power @ power
        taps = (grid.C @ columns).reshape(self.n_outputs, -1, self.n_inputs).swapaxes(0, 1)
        return self._siso(np.concatenate([grid.D[np.newaxis], taps[: length - 1]]))

    def _input(self, u, times):
        if u is None:
            if times is None:
                raise ValueError("simulate needs an input u, or times= for the answer to no input.")
            u = np.zeros((len(times), self.n_inputs))
        u = np.asarray(u, dtype=np.float64)
        single = u.ndim == 1
        u = u[:, np.newaxis] if single else u
        if u.ndim != 2 or u.shape[1] != self.n_inputs:
            raise ValueError(
                f"u must have shape (n_times, {self.n_inputs}){', or (n_times,)' * (self.n_inputs == 1)}. "
                f"Got {u.shape[:1] if single else u.shape}."
            )
        if not np.isfinite(u).all():
            k = int(np.argmin(np.isfinite(u).all(axis=1)))
            raise ValueError(f"u must be finite: u[{k}] = {u[k]}. Leave that sample and its time out.")
        return u, single

    def _initial(self, state):
        if state is None:
            return np.zeros(self.n_states)
        x = np.asarray(state.x if isinstance(state, State) else state, dtype=np.float64)
        if x.shape != (self.n_states,) or not np.isfinite(x).all():
            raise ValueError(f"The initial state must hold {self.n_states} finite number(s). Got shape {x.shape}.")
        return x

    def _gaps(self, times, n_times, time_unit):
        if times is None:
            return np.ones(n_times)
        times = check_times(times)
        check_length(times, n_times)
        steps = gaps(times, unit=time_unit)
        if self.dt is not None and not np.allclose(steps[1:], self.dt, rtol=1e-6, atol=0.0):
            k = 1 + int(np.argmax(~np.isclose(steps[1:], self.dt, rtol=1e-6, atol=0.0)))
            raise ValueError(
                f"times of a system in discrete time must be dt = {self.dt:g} apart: between times[{k - 1}] and "
                f"times[{k}] lie {steps[k]:g}. Simulate the system in continuous time."
            )
        return steps


def _number(dt):
    if dt is None:
        return 1.0
    if isinstance(dt, (timedelta, np.timedelta64)):
        return float(elapsed(np.array([dt], dtype="timedelta64[ns]"), origin=np.timedelta64(0, "ns"))[0])
    return float(dt)
