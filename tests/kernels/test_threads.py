"""The pool runs every task once, in parts that threads take one after the other, and from several threads at once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from numba import njit

from statespace.kernels.threads import OPERATIONS_OF_A_THREAD, PARTS_OF_A_THREAD, in_parallel


@njit(nogil=True)
def count(first, last, calls, tasks):
    calls[first] += 1
    for i in range(first, last):
        tasks[i] += 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n_tasks", "n_operations", "parts"),
    [(7, 1000 * OPERATIONS_OF_A_THREAD, 7), (64, 1000 * OPERATIONS_OF_A_THREAD, 2 * PARTS_OF_A_THREAD),
     (7, 10 * OPERATIONS_OF_A_THREAD, 2), (7, 10, 1), (1, 10 * OPERATIONS_OF_A_THREAD, 1), (0, 0, 0)],
)  # fmt: skip
def test_every_task_runs_once(two_threads, n_tasks, n_operations, parts):
    calls, tasks = np.zeros(n_tasks + 1), np.zeros(n_tasks)
    in_parallel(count, n_tasks, n_operations, calls, tasks)
    assert (tasks == 1).all()
    assert calls[:n_tasks].sum() == parts


def test_callers_may_overlap(two_threads):
    def call(_):
        calls, tasks = np.zeros(64), np.zeros(64)
        in_parallel(count, 64, 10 * OPERATIONS_OF_A_THREAD, calls, tasks)
        return tasks

    with ThreadPoolExecutor(8) as pool:
        assert all((tasks == 1).all() for tasks in pool.map(call, range(50)))


def test_an_error_in_another_thread_arrives(two_threads):
    def loop(first, last):
        if first:
            raise ValueError("from the second part")

    with pytest.raises(ValueError, match="second part"):
        in_parallel(loop, 2, 10 * OPERATIONS_OF_A_THREAD)


def test_a_thread_that_is_held_up_leaves_its_share_to_the_others(two_threads):
    taken, others_done = [], Event()

    def loop(first, last):
        if first == 0:
            others_done.wait(10)
        taken.append(first)
        if len(taken) == 7:
            others_done.set()

    in_parallel(loop, 8, 1000 * OPERATIONS_OF_A_THREAD)
    assert sorted(taken) == list(range(8))
    assert taken[-1] == 0
