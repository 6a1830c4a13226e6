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

identification   LTIRegressor: a system from its input and output
identified       what can be done with it then
records          the forms in which it takes them
subspace         order, A and C on a regular grid
growth           systems mode by mode, where there is no such grid
initialization   the starts of the search
search           Gauss-Newton and BFGS steps
prediction_error the criteria, with their gradients
parametrization  the parameters, without changes of the basis
prediction       states, predictions k samples ahead, streams
recursions       compiled loops over records that also give derivatives
markov           systems from impulse responses: era
"""

from statespace.lti.analysis import Bode, Response
from statespace.lti.discretization import Steps, input_weights, process_noise, transition
from statespace.lti.identification import LTIRegressor
from statespace.lti.markov import era, observer_markov_parameters
from statespace.lti.prediction import LTIStream
from statespace.lti.systems import LinearSystem, Simulation, State

__all__ = [
    "Bode", "LTIRegressor", "LTIStream", "LinearSystem", "Response", "Simulation", "State", "Steps", "era",
    "input_weights", "observer_markov_parameters", "process_noise", "transition",
]  # fmt: skip
