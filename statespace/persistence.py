"""Estimators in a file: one safetensors file whose metadata is JSON. Loading runs no code from it.

The file holds the learned arrays; its metadata the class name, parameters and learned scalars as JSON, the version of
the format and a checksum over all of it. The class name is looked up in a closed list. The checksum tells damage, not
intent: whoever alters a file can compute it anew, so nothing that a file says is believed. What it claims of sizes is
held against the arrays that it brings before anything of that size is made.

An estimator takes part with two methods: ``_export() -> (dict that JSON can hold, dict of ndarray)`` and the class
method ``_import(dict, arrays) -> estimator``. With two more its file tells whether the model that was loaded computes
what the saved one did: ``_probe() -> dict of ndarray`` makes some input and ``_answer_probe(dict) -> dict of ndarray``
answers it, when it is saved and again when it is loaded.

Format 1 had no probe. Format 2 has one.
"""

import hashlib
import json
import os
import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

import numpy as np

FORMAT_VERSION = 2

# The metadata, which are read as a whole; all arrays of a model are outside of them.
_LARGEST_HEADER = 2**26
# What in a description is a size of something that is made, and may not be far larger than what the file brings.
_SIZES = {
    "d_conv", "d_hidden", "d_input", "d_model", "d_output", "d_shift", "d_state", "dt_rank", "expand", "feed_forward",
    "harmonics", "head_dim", "mimo_rank", "n_blocks", "n_experts", "n_groups", "n_heads", "n_layers", "order", "range",
    "rank", "top_k",
}  # fmt: skip
# Sizes of what is made later, or by more than its size; no model that serves comes near.
_LIMITS = {"d_state": 2**13, "window": 2**20, "chunk_size": 2**24, "d_shift": 2**20, "factors": 2**16}
# A prediction that was stored differs from the one here by rounding at most.
_TOLERANCE = 1e-6
_PROBE = "probe."

_MODULES = {
    "KalmanRegressor": "statespace.filtering",
    "LTIFilter": "statespace.lti",
    "SSMRegressor": "statespace.regression",
    "S4Regressor": "statespace.regression",
    "S4DRegressor": "statespace.regression",
    "S5Regressor": "statespace.regression",
    "H3Regressor": "statespace.regression",
    "MambaRegressor": "statespace.regression",
    "Mamba2Regressor": "statespace.regression",
    "RWKVRegressor": "statespace.regression",
    "DeltaNetRegressor": "statespace.regression",
    "SSMClassifier": "statespace.classification",
    "S4Classifier": "statespace.classification",
    "S4DClassifier": "statespace.classification",
    "S5Classifier": "statespace.classification",
    "H3Classifier": "statespace.classification",
    "MambaClassifier": "statespace.classification",
    "Mamba2Classifier": "statespace.classification",
    "RWKVClassifier": "statespace.classification",
    "DeltaNetClassifier": "statespace.classification",
    "KalmanForecaster": "statespace.forecasting",
    "SSMForecaster": "statespace.forecasting",
    "S4Forecaster": "statespace.forecasting",
    "S4DForecaster": "statespace.forecasting",
    "S5Forecaster": "statespace.forecasting",
    "H3Forecaster": "statespace.forecasting",
    "MambaForecaster": "statespace.forecasting",
    "Mamba2Forecaster": "statespace.forecasting",
    "RWKVForecaster": "statespace.forecasting",
    "DeltaNetForecaster": "statespace.forecasting",
    "LinearGaussianModel": "statespace.kalman",
    "Arima": "statespace.kalman",
    "VectorAutoregression": "statespace.kalman",
    "DynamicFactor": "statespace.kalman",
    "KalmanStream": "statespace.streaming",
    "LayerStream": "statespace.streaming",
    "LTIRegressor": "statespace.lti",
    "HiPPOMemory": "statespace.lti",
}


class FileError(ValueError):
    """A model file that cannot be loaded: truncated, altered, newer than this version, or of an unknown class."""


def save(estimator, path) -> None:
    """Write a fitted estimator to one file.

    The file is written beside ``path`` and then put in its place, so that an interruption leaves the old file whole.

    Parameters
    ----------
    estimator : estimator
        Fitted, of one of the package's own classes.
    path : str or os.PathLike
        The file; its name is taken as it is.

    Raises
    ------
    TypeError
        An estimator of another class, or a parameter that JSON cannot hold.
    sklearn.exceptions.NotFittedError
        The estimator is not fitted.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, statespace
    >>> from statespace.persistence import save
    >>> X, y = np.random.default_rng(0).normal(size=(20, 10)), np.arange(20.0)
    >>> reg = statespace.S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(reg, os.path.join(folder, "model"))
    ...     os.listdir(folder)
    ['model']
    """
    from safetensors.numpy import save as to_bytes

    name = type(estimator).__name__
    if _MODULES.get(name) is None or not type(estimator).__module__.startswith(_MODULES[name]):
        raise TypeError(f"save knows {', '.join(_MODULES)}. Got {type(estimator).__qualname__} instead.")
    state, arrays = estimator._export()
    if hasattr(estimator, "_probe"):
        probe = estimator._probe()
        arrays = arrays | {f"{_PROBE}given.{key}": array for key, array in probe.items()}
        arrays |= {f"{_PROBE}answer.{key}": array for key, array in estimator._answer_probe(probe).items()}
    plain, kinds = {}, {}
    for key, array in arrays.items():
        plain[key], kind = _plain(np.asarray(array))
        if kind:
            kinds[key] = kind
    try:
        document = json.dumps(
            {"class": name, "state": state, "kinds": kinds, "written_by": _versions()},
            default=_number,
            sort_keys=True,
            ensure_ascii=False,
        )
    except TypeError as error:
        raise TypeError(f"{name} has a parameter that a file cannot hold: {error}.") from None
    metadata = {
        "format": "statespace",
        "format_version": str(FORMAT_VERSION),
        "document": document,
        "checksum": _checksum(document, plain),
    }
    replace(path, to_bytes(plain, metadata))


def replace(path, content: bytes) -> None:
    """Put a file in the place of an old one, whole or not at all.

    It is written beside ``path``, forced to the disk and then renamed: whenever the power fails or the process is
    killed, there is the old file or the new one. A killed process may leave the other under a hidden name.

    Parameters
    ----------
    path : str or os.PathLike
    content : bytes

    Raises
    ------
    OSError
        The disk is full, the folder does not exist, ...; the old file is as it was.

    Examples
    --------
    >>> import os, tempfile
    >>> from statespace.persistence import replace
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace(os.path.join(folder, "file"), b"content")
    ...     os.listdir(folder)
    ['file']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        kept = " The file that is there is as it was." if path.is_file() else ""
        raise type(error)(
            error.errno, f"{error.strerror or error}: {len(content)} bytes could not be written to {path}.{kept}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path, *, check=True):
    """Read an estimator that ``estimator.save(path)`` wrote. No code runs but this package's own.

    Parameters
    ----------
    path : str or os.PathLike
    check : bool, default=True
        Compare what the loaded model answers to the input that is stored in the file with the answer that is stored
        beside it.

    Returns
    -------
    estimator
        Of the class that was saved; its predictions equal those before saving, bit by bit on the same machine.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    FileError
        The file is truncated, was altered, comes from a newer version of this package, names an unknown class, claims
        sizes that its arrays do not have, or is no model file; or the model that it holds computes something else
        here than where it was saved. It is a ``ValueError``.

    Notes
    -----
    Files of all earlier versions of the format are read. A file may come from anyone: nothing in it is executed, and
    the memory it takes is a small multiple of its size. What such a model predicts is nobody's word but its author's.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, statespace
    >>> X, y = np.random.default_rng(0).normal(size=(20, 10)), np.arange(20.0)
    >>> reg = statespace.S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reg.save(os.path.join(folder, "model"))
    ...     again = statespace.load(os.path.join(folder, "model"))
    >>> bool((again.predict(X) == reg.predict(X)).all())
    True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file at {path}.")
    content, arrays = _read(path)
    probe = {key: arrays.pop(key) for key in [*arrays] if key.startswith(_PROBE)}
    name = content["class"]
    estimator = kind(name, path)
    try:
        _check_sizes(content["state"], arrays)
        loaded = estimator._import(content["state"], arrays)
    except FileError as error:
        raise FileError(f"{path} does not describe a whole {name}: {error}") from None
    except Exception as error:  # a description that makes no sense can fail anywhere in what it describes
        raise FileError(f"{path} does not describe a whole {name}: {error!r:.500}") from error
    if check and probe:
        _check_probe(path, loaded, probe, content.get("written_by"))
    return loaded


def kind(name, path="the file"):
    """The class of a name in a file, which is in the closed list or refused.

    Parameters
    ----------
    name : str
    path : str or os.PathLike, optional
        For the message.

    Raises
    ------
    FileError
        Another name, or no name.

    Examples
    --------
    >>> from statespace.persistence import kind
    >>> kind("KalmanRegressor").__name__
    'KalmanRegressor'
    """
    if not isinstance(name, str) or name not in _MODULES:
        raise FileError(f"{path} holds a {name!r:.100}; this statespace loads {', '.join(_MODULES)}.")
    return getattr(import_module(_MODULES[name]), name)


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The description and the arrays of a file, once its checksum has been found to fit."""
    from safetensors import safe_open

    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > _LARGEST_HEADER:
            raise FileError(f"{path} is no complete model file: it claims a header of {header} bytes.")
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "statespace":
                raise FileError(f"{path} is a safetensors file, but not one that statespace wrote.")
            _check_version(path, metadata.get("format_version", ""))
            plain = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileError:
        raise
    except MemoryError:
        raise FileError(f"{path} holds more than fits into memory: {path.stat().st_size} bytes.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error}.") from error
    except Exception as error:  # of the reader, whose errors have several types
        raise FileError(
            f"{path} is no complete model file (truncated, or of another kind): {error!s:.500}."
        ) from None
    document = metadata.get("document", "")
    if metadata.get("checksum") != _checksum(document, plain):
        raise FileError(f"{path} was altered after it was written: its checksum does not fit.")
    try:
        content = json.loads(document)
        kinds = {str(key): value for key, value in content["kinds"].items()}
        arrays = {key: _restored(array, kinds.get(key)) for key, array in plain.items()}
        content["class"], content["state"].keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{path} has no readable description of its model: {error!r:.500}.") from None
    return content, arrays


def _check_version(path: Path, given: str) -> None:
    if not re.fullmatch("[0-9]{1,9}", given) or int(given) > FORMAT_VERSION:
        raise FileError(
            f"{path} has format version {given!r:.50}, newer than {FORMAT_VERSION}, the newest this statespace reads. "
            "Upgrade statespace-learn."
        )


def _check_sizes(state, arrays: dict[str, np.ndarray]) -> None:
    """Refuse a description by which something far larger would be made than its arrays are."""
    largest = max((max(array.shape, default=1) for array in arrays.values()), default=1)
    room = 2 * largest + len(arrays) + 64
    todo = [("", state)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict):
            todo += value.items()
        elif isinstance(value, list):
            # A stream's window is a pair of times, an attention's a number of steps.
            todo += [("" if name == "window" else name, item) for item in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            most = min(room if name in _SIZES else np.inf, _LIMITS.get(name, np.inf))
            if not value <= most and most < np.inf:
                raise FileError(f"it claims {name} = {value!r:.50}, and its largest array has {largest} rows.")


def _check_probe(path, estimator, probe: dict[str, np.ndarray], written_by) -> None:
    """Refuse a model that computes here something else than where it was saved."""
    given, stored = (
        {key.removeprefix(part): array for key, array in probe.items() if key.startswith(part)}
        for part in (f"{_PROBE}given.", f"{_PROBE}answer.")
    )
    try:
        answers = estimator._answer_probe(given)
        away = max(_distance(answers[key], stored[key]) for key in stored | answers)
    except Exception as error:
        raise FileError(
            f"{path} cannot be used: its model fails on the input that is stored with it: {error!r:.500}"
        ) from error
    if away > _TOLERANCE:
        raise FileError(
            f"{path} holds a model that computes something else here than where it was saved: its answer to the input "
            f"stored with it differs by {away:.1e} of the answer's size. It was saved by {written_by!r:.200}; here "
            f"are {_versions()}. Use those versions, or load(path, check=False) and compare its predictions with known "
            "ones."
        )


def _distance(answer, stored) -> float:
    """The largest difference of two arrays in units of the second one's largest value."""
    answer, stored = np.asarray(answer, dtype=np.float64), np.asarray(stored, dtype=np.float64)
    if answer.shape != stored.shape:
        return np.inf
    if np.array_equal(answer, stored, equal_nan=True):
        return 0.0
    return float(np.max(np.abs(answer - stored)) / max(np.max(np.abs(stored)), 1e-300))


def _versions() -> dict[str, str]:
    """The versions on which a model's numbers may depend."""
    from statespace import __version__

    found = {"statespace": __version__}
    for name in ("torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(array: np.ndarray) -> tuple[np.ndarray, str]:
    """The array in a type that safetensors knows, and the name of its own if that is another."""
    array = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes a scalar an array of one
    if array.dtype.kind in "mM":
        return array.view(np.int64), array.dtype.str
    if array.dtype.kind == "c":
        part = np.float32 if array.dtype.itemsize == 8 else np.float64
        return array.astype(array.dtype.newbyteorder("=")).reshape(*array.shape, 1).view(part), "complex"
    return array, ""


def _restored(array: np.ndarray, kind) -> np.ndarray:
    """The array as it was before `_plain`; ``kind`` is what a file says, of which only these few words are known."""
    if not kind:
        return array
    if kind == "complex" and array.dtype in (np.float32, np.float64) and array.shape[-1:] == (2,):
        return array.view(np.result_type(array.dtype, 1j))[..., 0]
    if isinstance(kind, str) and re.fullmatch(r"[<>=|]?[mM]8(\[[1-9]?[a-zA-Zμ]{1,7}\])?", kind):
        return array.view(np.dtype(kind))
    raise ValueError(f"no kind of array is called {kind!r:.50}")


def _checksum(document: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(document.encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {arrays[key].shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _number(value):
    """NumPy's scalars as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is of type {type(value).__name__}")
