"""Batches that do not fit into memory: how the errors of all libraries are told from others."""

import gc

import torch

# What torch's allocators of the CPU and of accelerators say in a plain RuntimeError.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "DefaultCPUAllocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device and from whatever library.

    Parameters
    ----------
    error : BaseException

    Examples
    --------
    >>> from statespace.training.memory import is_out_of_memory
    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")), is_out_of_memory(OSError())
    (True, False)
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def release(device: torch.device) -> None:
    """Give back what a failed step held; its error must be forgotten by now, for it holds the step's tensors.

    Examples
    --------
    >>> import torch
    >>> from statespace.training.memory import release
    >>> release(torch.device("cpu"))
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
