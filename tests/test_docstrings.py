"""Every example in a docstring runs, and every public name has one."""

import contextlib
import doctest
import importlib
import inspect
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = ("cupy", "triton")


def discover():
    """The names of all modules, found as files so that collecting the tests imports none of them."""
    names = []
    for folder, folders, files in os.walk(ROOT / "statespace", followlinks=True):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        parts = Path(folder).relative_to(ROOT).parts
        names += [".".join([*parts, f[:-3]]).removesuffix(".__init__") for f in sorted(files) if f.endswith(".py")]
    return names


MODULES = discover()


def load(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed here")


def public(module):
    """What a user may call: the names in ``__all__``, or those that a module beside the packages defines."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__ if not name.startswith("_")}
    if hasattr(module, "__path__") or module.__name__.count(".") > 1:
        return {}
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name: value for name, value in own.items() if not name.startswith("_")}


@pytest.fixture(scope="module")
def everything():
    """All modules are imported, so that every class knows its subclasses."""
    for name in MODULES:
        with contextlib.suppress(ImportError, pytest.skip.Exception):  # test_examples_run reports it
            load(name)


def test_discovery_finds_the_linked_folders():
    assert {"statespace", "statespace.series", "statespace.kernels.dispatch", "statespace.datasets"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(load(name), optionflags=flags)
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_a_docstring_with_an_example(name, everything):
    module = load(name)
    assert module.__doc__ or not Path(module.__file__).read_text().strip(), f"{name} does not say what is in it"
    bare = []
    for label, value in public(module).items():
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        doc = inspect.getdoc(value) or ""
        if ">>>" not in doc and not (doc and is_base(value)):
            bare.append(f"{label}: no example")
        if inspect.isclass(value):
            bare += [f"{label}.{m}: no docstring" for m in own_methods(value) if not inspect.getdoc(getattr(value, m))]
    assert bare == []


def is_base(value):
    """A base class is shown by the examples of its subclasses."""
    return inspect.isclass(value) and (issubclass(value, Exception) or bool(value.__subclasses__()))


def own_methods(cls):
    kinds = type(own_methods) | property | classmethod | staticmethod
    return [name for name, value in vars(cls).items() if not name.startswith("_") and isinstance(value, kinds)]
