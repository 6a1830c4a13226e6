"""Compiled loops on several threads: a pool of Python threads around loops that release the interpreter's lock.

Numba's own threading layers are no choice for a library. OpenMP's threads spin while they wait, at the cost of whoever
else needs the cores, share their number with torch, and end a process that forks. ``workqueue`` ends the process when
two Python threads call it at once. Threads that sleep between calls have none of these troubles.
"""

import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

# Waking a thread takes some tens of microseconds; it must be worth it.
OPERATIONS_OF_A_THREAD = 100_000
# More would even out better what threads get done; each costs some ten microseconds.
PARTS_OF_A_THREAD = 8


@lru_cache(maxsize=1)
def _pool(process, size):
    """One pool; another one in a forked child (which inherits no threads) or when the number of threads changes."""
    return ThreadPoolExecutor(size, thread_name_prefix="statespace")


def number_of_threads():
    """As many as torch has, where torch is loaded; else what ``OMP_NUM_THREADS`` says, or one for each core.

    Half of the package never loads torch, which reads the same variable.
    """
    torch = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):
        return torch.get_num_threads()
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(loop, n_tasks, n_operations, *arguments):
    """Call ``loop(first, last, *arguments)`` on parts of range(n_tasks), on several threads (``number_of_threads``).

    ``loop`` is compiled with ``nogil=True``. With few ``n_operations`` in all, it runs in this thread alone. Else each
    thread takes another part when it is done with one: a core on which torch's threads still wait for work, or another
    process runs, gets less of it.
    """
    threads = number_of_threads()
    worthwhile = n_operations // OPERATIONS_OF_A_THREAD
    n = max(1, min(threads, n_tasks, worthwhile))
    if n == 1:
        loop(0, n_tasks, *arguments)
        return
    n_parts = min(n_tasks, max(n, worthwhile // 4), PARTS_OF_A_THREAD * n)
    parts = deque(pairwise(n_tasks * i // n_parts for i in range(n_parts + 1)))

    def work():
        while True:
            try:
                part = parts.popleft()
            except IndexError:
                return
            loop(*part, *arguments)

    others = [_pool(os.getpid(), threads - 1).submit(work) for _ in range(n - 1)]
    work()
    for other in others:
        # One that has not begun has nothing left to do.
        if not other.cancel():
            other.result()
