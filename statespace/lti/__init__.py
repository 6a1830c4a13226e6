"""Linear time-invariant systems: the control engineer's door, on regular and irregular times.

Above: the deep layers, which are such systems with learned weights. Below: `statespace.kernels`.

discretization   exact transitions, input integrals and process noise over gaps
"""

from statespace.lti.discretization import Steps, input_weights, process_noise, transition

__all__ = ["Steps", "input_weights", "process_noise", "transition"]
