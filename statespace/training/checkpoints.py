"""Checkpoints: all that training needs to go on as if nothing had happened, in one safetensors file.

The file holds tensors and, as JSON in its metadata, everything else; no code runs when it is read. It is written beside
its place and then put there as a whole, so that a kill at any moment leaves the checkpoint before it.

Above: the loop. Below: safetensors.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from statespace.persistence import FileError

_KIND, _VERSION = "statespace checkpoint", 1


@dataclass(frozen=True)
class Checkpoint:
    """Where training is kept, and whether it goes on from there.

    Parameters
    ----------
    path : str or os.PathLike
        One file, written before the first epoch and after each.
    resume : bool, default=False
        Go on from the file if there is one, and start anew if there is none; False always starts anew, and replaces the
        file.
    identity : mapping, optional
        What must be the same for training to go on, such as parameters and a digest of the data, in JSON's types.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> import numpy as np
    >>> from statespace.models import ResidualStack
    >>> from statespace.training import Checkpoint, SeriesBatches, fit
    >>> x = np.random.default_rng(0).normal(size=(4, 9, 1))
    >>> data = SeriesBatches(list(x), targets=x.sum(axis=1))
    >>> def squared_error(model, batch):
    ...     return (model(batch["x"])[0] - batch["y"]).square().sum(), torch.tensor(4.0)
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> model = ResidualStack(1, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}, pooling="last")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(os.path.join(folder, "training"), resume=True)
    ...     stop = [lambda epoch, history, model: epoch == 2]
    ...     first = fit(model, data, squared_error, max_epochs=5, checkpoint=checkpoint, callbacks=stop)
    ...     rest = fit(model, data, squared_error, max_epochs=5, checkpoint=checkpoint)
    >>> len(first.loss), len(rest.loss), rest.loss[:3] == first.loss
    (3, 5, True)
    """

    path: str | os.PathLike
    resume: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and document of the checkpoint to go on from; None to start anew.

        Raises
        ------
        FileError
            The file is no whole checkpoint.
        """
        if not self.resume or not Path(self.path).exists():
            return None
        return read_checkpoint(Path(self.path))

    def check(self, document: Mapping[str, Any]) -> None:
        """Refuse what was written in another training.

        Raises
        ------
        ValueError
            Something else was trained, or with other parameters or data; the message names the first.
        """
        given, stored = json.loads(json.dumps(dict(self.identity))), document["identity"]
        for name in sorted({*given, *stored}):
            if given.get(name) != stored.get(name):
                raise ValueError(
                    f"the checkpoint at {self.path} is of another training: {name} was {stored.get(name)}, and now is "
                    f"{given.get(name)}. Give the same, or resume=False to start anew, or another path."
                )


def digest(arrays: Iterable[np.ndarray]) -> str:
    """A short name of what arrays hold, by which other data are told from the same.

    Parameters
    ----------
    arrays : iterable of ndarray

    Returns
    -------
    name : str

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.training.checkpoints import digest
    >>> digest([np.ones(3)]) == digest([np.ones(2), np.ones(1)])
    False
    """
    summed = hashlib.sha256()
    for array in arrays:
        summed.update(f"{array.dtype.str} {array.shape}".encode())
        summed.update(np.ascontiguousarray(array).tobytes())
    return summed.hexdigest()[:16]


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a checkpoint, in the place of the one before it.

    Parameters
    ----------
    path : Path
    tensors : mapping from str to Tensor
    document : mapping
        What JSON can hold.

    Raises
    ------
    OSError
        The file cannot be written, as on a full disk; the one before it is left whole.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from statespace.training.checkpoints import read_checkpoint, write_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(Path(folder, "checkpoint"), {"a": torch.ones(2)}, {"epoch": 3})
    ...     read_checkpoint(Path(folder, "checkpoint"))
    ({'a': tensor([1., 1.])}, {'epoch': 3})
    """
    from safetensors.torch import save

    # Contiguous, on the CPU, and none a view of another: what safetensors takes.
    plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(document)
    metadata = {"kind": _KIND, "version": str(_VERSION), "document": text, "checksum": _checksum(text, plain)}
    # One name, so that what a kill leaves half written is overwritten and does not pile up.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(save(plain, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_checkpoint` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tensors : dict from str to Tensor
    document : dict

    Raises
    ------
    FileNotFoundError
        There is no such file.
    FileError
        The file is no checkpoint, truncated, altered, or newer than this version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}.")
    again = "Delete it to start anew."
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != _KIND:
                raise FileError(f"{path} is a safetensors file, but no checkpoint of training. Give another path.")
            if metadata.get("version") != str(_VERSION):
                raise FileError(f"{path} is a checkpoint of another version of statespace-learn. {again}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FileError(f"{path} is no whole checkpoint (truncated, or of another kind): {error}. {again}") from None
    text = metadata.get("document", "")
    if metadata.get("checksum") != _checksum(text, tensors):
        raise FileError(f"{path} was altered after it was written: its checksum does not fit. {again}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} has no readable description: {error}. {again}") from None
    return tensors, document


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name].numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
