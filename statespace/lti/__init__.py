"""Linear time-invariant systems: the control engineer's door, on regular and irregular times.

Above: the deep layers, which are such systems with learned weights. Below: `statespace.kernels`.

systems          LinearSystem: simulate, step, discretize
composition      series, parallel, feedback, parts
analysis         poles, zeros, responses, gramians, smaller systems
conversion       transfer functions, scipy.signal, python-control
discretization   exact transitions, input integrals and process noise over gaps
reduction        the algorithms behind analysis, on matrices
realization      matrices from polynomials, zeros and poles
modes            eigenvectors, where they are well-conditioned
sweeps           compiled loops over a record
"""

from statespace.lti.analysis import Bode, Response
from statespace.lti.discretization import Steps, input_weights, process_noise, transition
from statespace.lti.systems import LinearSystem, Simulation, State

__all__ = [
    "Bode", "LinearSystem", "Response", "Simulation", "State", "Steps", "input_weights", "process_noise", "transition",
]  # fmt: skip
