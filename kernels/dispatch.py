"""Chooses the backend of a primitive, obeys an explicit wish or raises, and explains.

A backend exists for a primitive when its file does (``kernels/<primitive>/<file>.py``). Such a file exports the
primitive's own name and may export ``unusable(*arguments, **options)``, which returns the reason why it cannot serve
this call, or None. Nothing is imported before it is asked for. Backends of a GPU are only looked at where an array
lies on one, or where they are asked for by name.
"""

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

FILES = {"triton": "gpu_triton", "cupy": "gpu_cupy", "cpu": "cpu", "pytorch": "pytorch", "reference": "reference"}
OF_A_GPU = {"triton", "cupy"}
# Python and Numba over the numbers themselves, which a tracer cannot see into.
LOOPS = {"cpu", "reference"}
INSTALL = {
    "triton": "pip install --upgrade 'statespace-learn[gpu]'",
    "cupy": "pip install --upgrade 'statespace-learn[gpu]'",
    "cpu": "pip install numba",
    "pytorch": "pip install torch",
}


class BackendError(RuntimeError):
    """The backend that was asked for cannot serve this call; the message says why, and which ones can."""


@cache
def available(primitive):
    """The names of the backends for which ``primitive`` has a file, best first."""
    if find_spec(f"statespace.kernels.{primitive}") is None:
        return []
    return [name for name, file in FILES.items() if find_spec(f"statespace.kernels.{primitive}.{file}")]


def reason_against(primitive, backend, *arguments, **options):
    """Why ``backend`` cannot serve this call, or None if it can."""
    if backend not in FILES:
        return f"no backend has this name; the names are {', '.join(FILES)}"
    if backend not in available(primitive):
        return f"{primitive} has no {backend} implementation"
    try:
        module = import_module(f"statespace.kernels.{primitive}.{FILES[backend]}")
    except Exception as error:
        # A GPU's package that is there may fail in any way: another version, a missing library. Elsewhere only an
        # absent package is a reason; a fault of our own must not turn into a slower backend in silence.
        if backend not in OF_A_GPU and not isinstance(error, ImportError):
            raise
        what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        return f"{what} ({INSTALL.get(backend, 'reinstall statespace-learn')})"
    check = getattr(module, "unusable", None)
    return check(*arguments, **options) if check else None


def is_tensor(x):
    """Whether ``x`` is a torch tensor, without importing torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_device_array(x):
    """Whether ``x`` is an array on a GPU that is no torch tensor, such as CuPy's."""
    return not is_tensor(x) and hasattr(x, "__cuda_array_interface__")


def on_gpu(*arguments, **options):
    """Whether an array lies outside main memory: a torch tensor on a device, or a CuPy array."""
    return any(x.device.type != "cpu" if is_tensor(x) else is_device_array(x) for x in (*arguments, *options.values()))


def refuse_tensors(*arguments, **options):
    """The reason of a backend that knows NumPy arrays only, or None."""
    if any(map(is_tensor, arguments)):
        return "it takes NumPy arrays, not torch tensors"
    return "it takes NumPy arrays, not arrays on a GPU" if any(map(is_device_array, arguments)) else None


def refuse_accelerators(*arguments, **options):
    """The reason of a backend whose loops read main memory, or None."""
    given = (*arguments, *options.values())
    for x in filter(is_tensor, given):
        if x.device.type != "cpu":
            return f"its loops run in main memory, and a tensor is on {x.device}"
    return "its loops run in main memory, and an array is on a GPU" if any(map(is_device_array, given)) else None


def refuse_devices(*arguments, **options):
    """The reason of a backend whose loops read float32 and float64 in main memory, or None."""
    for x in filter(is_tensor, (*arguments, *options.values())):
        if x.is_floating_point() and x.dtype.itemsize < 4:
            return f"it has no {x.dtype}"
    return refuse_accelerators(*arguments, **options)


def candidates(primitive, *arguments, **options):
    """The backends that a call without ``backend=`` looks at, best first."""
    elsewhere = set() if on_gpu(*arguments, **options) else OF_A_GPU
    return [name for name in available(primitive) if name not in elsewhere]


def choose(primitive, backend, *arguments, **options):
    """The module of ``backend``, or of the best usable one when ``backend`` is None.

    Raises
    ------
    BackendError
        An explicit backend that cannot serve the call is never replaced by another.
    """
    return getattr(_loaded, _chosen(primitive, backend, *arguments, **options))


# A compiler that traces a call reads attributes of a module anew, while of a dictionary it keeps what it found first,
# without the backends that are loaded later.
_loaded = ModuleType("loaded")


def _kept(primitive, backend):
    """The name in ``_loaded`` of a backend's module."""
    name = f"{primitive}_{FILES[backend]}"
    module = sys.modules[f"statespace.kernels.{primitive}.{FILES[backend]}"]
    dynamo = sys.modules.get("torch._dynamo")
    if backend in LOOPS and dynamo is not None:
        # Where something may be traced: the program of torch.compile ends before a loop and goes on behind it.
        function, aside = getattr(module, primitive), getattr(_loaded, name, None)
        if getattr(aside, "_traced", None) is not function:
            setattr(_loaded, name, _Aside(module, function, **{primitive: dynamo.disable(function)}))
    else:
        setattr(_loaded, name, module)
    return name


class _Aside(SimpleNamespace):
    """A module, one of whose functions is kept from being traced."""

    def __init__(self, module, traced, **functions):
        super().__init__(_module=module, _traced=traced, **functions)

    def __getattr__(self, name):
        return getattr(self._module, name)


def _chosen(primitive, backend, *arguments, **options):
    """The name in ``_loaded`` of the module that serves the call."""
    if backend is None:
        for name in candidates(primitive, *arguments, **options):
            if reason_against(primitive, name, *arguments, **options) is None:
                return _kept(primitive, name)
        raise BackendError(f"no backend can run {primitive} here:\n{explain(primitive, *arguments, **options)}")
    reason = reason_against(primitive, backend, *arguments, **options)
    if reason is None:
        return _kept(primitive, backend)
    usable = [n for n in available(primitive) if reason_against(primitive, n, *arguments, **options) is None]
    raise BackendError(
        f"backend={backend!r} cannot run {primitive} here: {reason}. Usable here: {', '.join(usable) or 'none'}."
    )


# What torch.compiler.assume_constant_result does, without loading torch: a compiled program has guards for the types
# and devices of its tensors, so that the choice holds wherever the program does.
_chosen._dynamo_marked_constant = True  # type: ignore[attr-defined]


def preferred(primitive, backend):
    """``backend`` where ``primitive`` has one of that name, else None, the best: what a caller of several primitives
    hands to each of them.
    """
    return backend if backend in available(primitive) else None


preferred._dynamo_marked_constant = True  # type: ignore[attr-defined]


def explain(primitive, *arguments, **options):
    """One line for each backend of ``primitive``: usable or why not, and which one a call without ``backend=`` takes.

    Parameters
    ----------
    primitive : str
        The primitive's name, such as ``"linear_scan"``.
    *arguments, **options
        The arguments of the call in question; without them only what is installed is judged.

    Returns
    -------
    str

    Examples
    --------
    >>> from statespace.kernels import explain
    >>> print(explain("linear_scan").splitlines()[0])
    linear_scan
    """
    if not available(primitive):
        raise ValueError(f"no primitive is called {primitive!r}; statespace.kernels lists them in __all__.")
    reasons = {name: reason_against(primitive, name, *arguments, **options) for name in FILES}
    chosen = next((name for name in candidates(primitive, *arguments, **options) if reasons[name] is None), None)
    lines = [primitive]
    for name, reason in reasons.items():
        lines.append(f"  {name}: {reason or 'usable'}{' (chosen)' if name == chosen else ''}")
    return "\n".join(lines)
