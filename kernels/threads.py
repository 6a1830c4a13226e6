"""How many threads a Numba loop takes: torch's number, one knob for both, and one where waking another costs more."""

from contextlib import contextmanager

import numba
import torch


@contextmanager
def threads(n_operations):
    """Within it, parallel loops run on as many threads as torch has, or on one if there is little to do."""
    before = numba.get_num_threads()
    wanted = 1 if n_operations < 100_000 else min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(wanted)
    try:
        yield
    finally:
        numba.set_num_threads(before)
