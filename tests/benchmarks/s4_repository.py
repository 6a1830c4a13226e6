"""The S4 repository's own layers, from a clone that the environment variable S4_REPOSITORY names.

The clone needs einops and PyTorch Lightning for little more than reordering axes; where they are not installed,
stand-ins take their place, so that its layers run as they are.
"""

import contextlib
import importlib
import importlib.util
import logging
import math
import os
import re
import sys
import types
from pathlib import Path


def module(name):
    """A module of the clone, such as ``models.s4.s4d``; or None, and a line that says why it is skipped."""
    root = os.environ.get("S4_REPOSITORY")
    if root is None or not Path(root, *name.split(".")).with_suffix(".py").exists():
        print(f"state-spaces/s4 not found: skipped (S4_REPOSITORY={root} has to name a clone)")
        return None
    for package, stand_in in STAND_INS.items():
        parent = package.split(".")[0]
        if parent not in sys.modules and importlib.util.find_spec(parent) is None:
            sys.modules[parent] = types.ModuleType(parent)
            sys.modules[package] = stand_in()
    sys.path.insert(0, root)
    logging.disable(logging.WARNING)  # that CUDA extensions are missing
    try:
        return importlib.import_module(name)
    finally:
        logging.disable(logging.NOTSET)
        with contextlib.suppress(ValueError):
            sys.path.remove(root)


def _axes(pattern, n_dimensions):
    """The axes of both sides of an einops pattern, each a list of groups; an ellipsis becomes names of its own."""
    left, right = ([part.strip("()").split() for part in re.findall(r"\([^)]*\)|\S+", s)] for s in pattern.split("->"))
    others = [[f"…{i}"] for i in range(n_dimensions - sum(group != ["..."] for group in left))]
    return [[axes for group in side for axes in (others if group == ["..."] else [group])] for side in (left, right)]


def _reorder(x, pattern, **sizes):
    """What einops' rearrange and repeat do: axes split, permuted, added and joined."""
    before, after = _axes(pattern, x.ndim)
    for group, size in zip(before, x.shape, strict=True):
        unknown = [name for name in group if name not in sizes]
        known = math.prod(sizes.get(name, 1) for name in group)
        sizes |= {name: size // known for name in unknown}
    names = [name for group in before for name in group]
    wanted = [name for group in after for name in group]
    x = x.reshape([sizes[name] for name in names])
    for name in reversed([name for name in names if name not in wanted]):
        x = x.squeeze(names.index(name))
    names = [name for name in names if name in wanted]
    x = x.permute([names.index(name) for name in wanted if name in names])
    for i, name in enumerate(wanted):
        x = x if name in names else x.unsqueeze(i)
    x = x.expand([sizes.get(name, 1) for name in wanted])
    return x.reshape([math.prod(sizes.get(name, 1) for name in group) for group in after])


def _einops():
    stand_in = types.ModuleType("einops")
    stand_in.rearrange = stand_in.repeat = _reorder
    return stand_in


def _lightning():
    stand_in = types.ModuleType("pytorch_lightning.utilities")
    stand_in.rank_zero_only = lambda function: function
    return stand_in


STAND_INS = {"einops": _einops, "pytorch_lightning.utilities": _lightning}
