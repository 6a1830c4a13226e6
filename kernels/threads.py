"""How many threads a Numba loop takes: torch's number, one knob for both, and one where waking another costs more."""

from contextlib import contextmanager

import numba
import torch


@contextmanager
def threads(n_operations):
    """Within it, parallel loops run on as many threads as torch has, or on one if there is little to do."""
    of_torch = torch.get_num_threads()
    before = numba.get_num_threads()
    wanted = 1 if n_operations < 100_000 else min(of_torch, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(wanted)
    try:
        yield
    finally:
        numba.set_num_threads(before)
        # Numba's OpenMP layer sets the number that torch reads too: left so, a tiny net is ten times slower.
        if torch.get_num_threads() != of_torch:
            torch.set_num_threads(of_torch)
