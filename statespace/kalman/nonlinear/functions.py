"""The functions that a user gives: called by the names of their parameters, their results checked, NumPy or torch."""

import inspect
import sys

import numpy as np

_FLOAT = np.dtype(float)


class StateFunction:
    """A function of the state, (..., n) -> (..., size).

    Parameters
    ----------
    function : callable
        Its first parameter is the state; of ``allowed`` it takes those whose names it declares.
    name : str
        What it is in the model, for error messages.
    allowed : tuple of str
        The names of what it may take beside the state.
    shape : tuple of int, optional
        The shape of the result for one state; None leaves it to the first call.
    vectorized : bool
        Whether it takes any number of states at once.
    torch : bool, optional
        Whether it is written in torch; None finds out at the first call.
    state_first : bool
        Whether the first parameter is the state whatever its name; otherwise the state is one of ``allowed``, "x".
    """

    def __init__(self, function, name, allowed, shape=None, *, vectorized=True, torch=None, state_first=True):
        self.function, self.name, self.shape = function, name, shape
        self.vectorized, self.torch, self.state_first = vectorized, torch, state_first
        self.takes = _declared(function, name, allowed, state_first)
        self.plain = False

    @property
    def depends_on_state(self):
        """Whether the function is told the state."""
        return self.state_first or "x" in self.takes

    def __call__(self, x, **given):
        if self.plain:  # without the questions
            result = self.function(x)
            if type(result) is np.ndarray and result.dtype is _FLOAT and result.shape == x.shape[:-1] + self.shape:
                return result
            self.plain = False
        if not self.vectorized and x.ndim > 1 and self.depends_on_state:
            rows = x.reshape(-1, x.shape[-1])
            result = np.stack([self._call(row, given) for row in rows])
            return result.reshape(*x.shape[:-1], *result.shape[1:])
        return self._call(x, given)

    def _call(self, x, given):
        named = {}
        for key in self.takes:
            if key == "x":
                continue
            if given.get(key) is None:
                raise ValueError(f"{self.name} takes {key}, and none was given. Hand {key}= to the filter's method.")
            named[key] = given[key]
        if self.torch is None:
            self.torch = self._is_torch(x, named)
        if self.torch:
            result = self._call_torch(x, named)
        else:
            result = self._apply(x, named)
            # np.asarray would cost more than the question.
            plain = type(result) is np.ndarray and result.dtype is _FLOAT
            if not plain:
                result = self._as_array(result, x)
            self.plain = plain and self.shape is not None and self.state_first and self.vectorized and not self.takes
        leading = x.shape[:-1] if self.depends_on_state else ()
        if self.shape is None:
            if result.ndim != len(leading) + 1:
                raise ValueError(self._wrong(result.shape, x.shape, "(..., n_outputs)"))
            self.shape = result.shape[len(leading) :]
        if result.shape != leading + self.shape:
            if self.depends_on_state and result.shape == self.shape:
                return np.broadcast_to(result, leading + self.shape)  # a constant
            raise ValueError(self._wrong(result.shape, x.shape, _shown(self.shape)))
        return result

    def _apply(self, x, named):
        if self.state_first:
            return self.function(x, **named)
        return self.function(**({"x": x} if "x" in self.takes else {}), **named)

    def _as_array(self, result, x):
        try:
            dtype = complex if np.iscomplexobj(x) and np.iscomplexobj(result) else float
            return np.asarray(result, dtype=dtype)
        except (TypeError, ValueError):
            raise ValueError(
                f"{self.name} must return numbers of shape {_shown(self.shape)} for states (..., {x.shape[-1]}); got "
                f"{type(result).__name__}. Join the entries with np.stack([...], axis=-1)."
            ) from None

    def _is_torch(self, x, named):
        """A function that returns a tensor, or that NumPy arrays make fail and tensors do not, is written in torch."""
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        try:
            return isinstance(self._apply(x, named), torch.Tensor)
        except TypeError:
            try:
                return isinstance(self._apply(*_tensors(torch, x, named)), torch.Tensor)
            except TypeError:
                return False

    def _call_torch(self, x, named):
        import torch

        with torch.no_grad():
            result = self._apply(*_tensors(torch, x, named))
        if not isinstance(result, torch.Tensor):
            return self._as_array(result, x)
        return result.detach().to(torch.float64).numpy()

    def jacobian_torch(self, x, given):
        """∂f/∂x by forward-mode automatic differentiation: (size, n)."""
        import torch

        tensor, named = _tensors(torch, x, {key: given[key] for key in self.takes})
        return torch.func.jacfwd(lambda state: self._apply(state, named))(tensor).detach().to(torch.float64).numpy()

    def check_vectorized(self, x, given):
        """Refuse a function that treats several states at once in another way than one by one.

        Parameters
        ----------
        x : ndarray of shape (m, n)
            Different states, m neither n nor the size of the result.
        given : dict

        Raises
        ------
        ValueError
            With what to change.
        """
        if not self.vectorized or not self.depends_on_state:
            return
        one_by_one = np.stack([self(row, **given) for row in x])
        advice = "Write x[..., i] for x[i] and join with np.stack([...], axis=-1), or give vectorized=False."
        try:
            together = self(x, **given)
        except (ValueError, TypeError, IndexError) as error:
            if str(error).startswith(self.name):
                raise
            raise ValueError(
                f"{self.name} must take states (..., {x.shape[-1]}); for shape {x.shape} it raised "
                f"{type(error).__name__}: {error}. {advice}"
            ) from error
        if not np.allclose(together, one_by_one, rtol=1e-6, atol=1e-9 * _largest(one_by_one), equal_nan=True):
            raise ValueError(
                f"{self.name} gives other values for states of shape {x.shape} than for each of them alone. {advice}"
            )

    def _wrong(self, got, given, expected):
        states = f"({', '.join(['...', str(given[-1])])})"
        inner = expected.strip("()").rstrip(",")
        if "..." not in inner:
            inner = f"..., {inner}"
        advice = "Write x[..., i] for x[i] and join with np.stack([...], axis=-1), or give vectorized=False."
        return (
            f"{self.name} must return ({inner}) for states {states}; got {got} for states of shape {given}. "
            f"{advice if len(given) > 1 else ''}"
        ).rstrip()


class LinearFunction:
    """x -> M x: a matrix where a function may stand.

    Parameters
    ----------
    matrix : ndarray of shape (size, n)
    name : str
    """

    depends_on_state = True
    takes: tuple[str, ...] = ()

    def __init__(self, matrix, name):
        self.matrix, self.name = matrix, name
        self.shape = matrix.shape[:1]

    def __call__(self, x, **given):
        return x @ self.matrix.T

    def check_vectorized(self, x, given):
        """A matrix always is."""


def _tensors(torch, x, named):
    double = {"dtype": torch.float64}
    named = {key: torch.as_tensor(value, **double) for key, value in named.items()}
    return torch.as_tensor(np.ascontiguousarray(x), **double), named


def _declared(function, name, allowed, state_first):
    """The names of what a function takes, in its order, without the state if that comes first."""
    if not callable(function):
        raise ValueError(f"{name} must be a function or a matrix. Got {type(function).__name__}.")
    words = ", ".join(allowed)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        return ()
    if state_first:
        if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise ValueError(f"{name} must take the state first, then any of {words}.")
        parameters = parameters[1:]
    takes = []
    for parameter in parameters:
        if parameter.name in allowed and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            takes.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            after = "the state first, then any of " if state_first else "any of "
            raise ValueError(f"{name} may take {after}{words}, by these names. It has a parameter {parameter.name!r}.")
    return tuple(takes)


def _largest(values):
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def _shown(shape):
    return "(..., n_outputs)" if shape is None else f"(..., {', '.join(map(str, shape))})"
