"""Checkpoints: all that training needs to go on as if nothing had happened, in one safetensors file.

The file holds tensors and, as JSON in its metadata, everything else; no code runs when it is read. It is written beside
its place and then put there as a whole, so that a kill at any moment leaves the checkpoint before it.

Above: the loop. Below: safetensors.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor

from statespace.persistence import FileError

_KIND, _VERSION = "statespace checkpoint", 1


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
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
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
