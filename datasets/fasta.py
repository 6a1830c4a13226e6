"""Sequences from FASTA files, read by Biopython."""

import gzip
import os
import warnings
import zlib

import pandas as pd


def read_fasta(path):
    """The records of a FASTA file, plain or compressed with gzip (bgzip too).

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    records : DataFrame of shape (n_records, 2)
        A row for each record in the order of the file, under its name, the first word of its header. Column
        ``sequence`` holds the letters as they stand, lower case (soft masking) kept, white space left out; it is what
        an estimator with ``alphabet="dna"`` takes as X. Column ``description`` holds the rest of the header.

    Raises
    ------
    ImportError
        If Biopython is not installed.
    FileNotFoundError
        There is no such file.
    ValueError
        If the file is empty, or no FASTA file, or a compressed one that is damaged.

    Warns
    -----
    UserWarning
        A name comes twice. All records are kept.

    Examples
    --------
    >>> import os, tempfile
    >>> from statespace.datasets import read_fasta
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "genes.fasta")
    ...     with open(path, "w") as file:
    ...         _ = file.write(">lacZ beta-galactosidase\\nATGACC\\nATGATT\\n>lacY\\nATGtac\\n")
    ...     records = read_fasta(path)
    >>> records["sequence"].tolist()
    ['ATGACCATGATT', 'ATGtac']
    >>> records.loc["lacZ", "description"]
    'beta-galactosidase'
    """
    try:
        from Bio.SeqIO.FastaIO import SimpleFastaParser
    except ImportError:
        raise ImportError(
            "read_fasta reads with Biopython, and Biopython is not installed: pip install 'statespace-learn[dna]'"
        ) from None
    with open(path, "rb") as file:
        opened = gzip.open if file.read(2) == b"\x1f\x8b" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            _check_start(file, path)
            records = list(SimpleFastaParser(file))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{os.fspath(path)} is no whole gzip file: {error}.") from None
    words = [title.split(maxsplit=1) for title, _ in records]
    names = pd.Index([word[0] if word else "" for word in words], name="name", dtype=object)
    if not names.is_unique:
        name = names[names.duplicated()][0]
        warnings.warn(
            f"{os.fspath(path)} has {(names == name).sum()} records called {name!r}; all are kept.",
            UserWarning,
            stacklevel=2,
        )
    columns = {
        "sequence": [sequence for _, sequence in records],
        "description": [word[1] if len(word) > 1 else "" for word in words],
    }
    return pd.DataFrame(columns, index=names, dtype=object)


def _check_start(file, path):
    """Refuse what does not begin with a record, and go back to the start of what does."""
    for number, line in enumerate(file, start=1):
        if line.startswith(">"):
            file.seek(0)
            return
        if line.strip() and not line.startswith(";"):
            raise ValueError(
                f"{os.fspath(path)} is no FASTA file: a record begins with '>', but line {number} is {line[:40]!r}."
            )
    raise ValueError(f"{os.fspath(path)} is empty: there is no record in it.")
