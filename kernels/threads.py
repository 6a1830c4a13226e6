"""Compiled loops on several threads: a pool of Python threads around loops that release the interpreter's lock.

Numba's own threading layers are no choice for a library. OpenMP's threads spin while they wait, at the cost of whoever
else needs the cores, share their number with torch, and end a process that forks. ``workqueue`` ends the process when
two Python threads call it at once. Threads that sleep between calls have none of these troubles.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch

# Waking a thread takes some tens of microseconds; it must be worth it.
OPERATIONS_OF_A_THREAD = 100_000


@lru_cache(maxsize=1)
def _pool(process, size):
    """One pool; another one in a forked child (which inherits no threads) or when torch's number of threads changes."""
    return ThreadPoolExecutor(size, thread_name_prefix="statespace")


def in_parallel(loop, n_tasks, n_operations, *arguments):
    """Call ``loop(first, last, *arguments)`` on parts of range(n_tasks), on as many threads as torch has.

    ``loop`` is compiled with ``nogil=True``. With few ``n_operations`` in all, it runs in this thread alone.
    """
    threads = torch.get_num_threads()
    n = max(1, min(threads, n_tasks, n_operations // OPERATIONS_OF_A_THREAD))
    parts = list(pairwise(n_tasks * i // n for i in range(n + 1)))
    others = [_pool(os.getpid(), threads - 1).submit(loop, *part, *arguments) for part in parts[1:]]
    loop(*parts[0], *arguments)
    for other in others:
        other.result()
