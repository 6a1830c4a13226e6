"""Estimators in a file: one safetensors file whose metadata is JSON. Loading runs no code from it.

The file holds the learned arrays; its metadata the class name, parameters and learned scalars as JSON, the version of
the format and a checksum over all of it. The class name is looked up in a closed list.

An estimator takes part with two methods: ``_export() -> (dict that JSON can hold, dict of ndarray)`` and the class
method ``_import(dict, arrays) -> estimator``.
"""

import hashlib
import json
import os
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import numpy as np

FORMAT_VERSION = 1

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
    plain, kinds = {}, {}
    for key, array in arrays.items():
        plain[key], kind = _plain(np.asarray(array))
        if kind:
            kinds[key] = kind
    try:
        document = json.dumps(
            {"class": name, "state": state, "kinds": kinds}, default=_number, sort_keys=True, ensure_ascii=False
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
            error.errno, f"{error.strerror}: {len(content)} bytes could not be written to {path}.{kept}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path):
    """Read an estimator that ``estimator.save(path)`` wrote. No code runs but this package's own.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    estimator
        Of the class that was saved; its predictions equal those before saving, bit by bit on the same machine.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    FileError
        The file is truncated, was altered, comes from a newer version of this package, names an unknown class, or is
        no model file. It is a ``ValueError``.

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
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file at {path}.")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            plain = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FileError(f"{path} is no complete model file (truncated, or of another kind): {error}.") from None
    if metadata.get("format") != "statespace":
        raise FileError(f"{path} is a safetensors file, but not one that statespace wrote.")
    version = metadata.get("format_version", "")
    if not version.isdecimal() or int(version) > FORMAT_VERSION:
        raise FileError(
            f"{path} has format version {version!r}, newer than {FORMAT_VERSION}, the newest this statespace reads. "
            "Upgrade statespace-learn."
        )
    document = metadata.get("document", "")
    if metadata.get("checksum") != _checksum(document, plain):
        raise FileError(f"{path} was altered after it was written: its checksum does not fit.")
    try:
        content = json.loads(document)
        name, state, kinds = content["class"], content["state"], content["kinds"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} has no readable description of its model: {error!r}.") from None
    if not isinstance(name, str) or name not in _MODULES:
        raise FileError(f"{path} holds a {name!r}; this statespace loads {', '.join(_MODULES)}.")
    arrays = {key: _restored(array, kinds.get(key)) for key, array in plain.items()}
    estimator = getattr(import_module(_MODULES[name]), name)
    try:
        return estimator._import(state, arrays)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise FileError(f"{path} does not describe a whole {name}: {error}.") from error


def _plain(array: np.ndarray) -> tuple[np.ndarray, str]:
    """The array in a type that safetensors knows, and the name of its own if that is another."""
    array = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes a scalar an array of one
    if array.dtype.kind in "mM":
        return array.view(np.int64), array.dtype.str
    if array.dtype.kind == "c":
        part = np.float32 if array.dtype.itemsize == 8 else np.float64
        return array.astype(array.dtype.newbyteorder("=")).reshape(*array.shape, 1).view(part), "complex"
    return array, ""


def _restored(array: np.ndarray, kind: str | None) -> np.ndarray:
    if not kind:
        return array
    if kind == "complex":
        return array.view(np.result_type(array.dtype, 1j))[..., 0]
    return array.view(np.dtype(kind))


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
