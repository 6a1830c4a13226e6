"""The package is built as docs/architecture.md draws it."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = {"__pycache__", "_build", "_templates", "api", "gallery"}

# From the bottom to the top. A module may import from its own entry and from those in lower rows, so that arrows point
# down: estimator -> model -> layer -> kernel. Entries of one row do not know each other.
TIERS = [
    ["kernels", "forms", "times", "persistence", "quantiles", "conformal"],
    ["alphabets", "distributions", "statistics"],
    ["readers"],
    ["series", "stored"],
    ["validation", "datasets", "persistence"],
    ["lti", "weights"],
    ["layers", "kalman"],
    ["models"],
    ["training", "inspection"],
    ["base", "labels", "parameters"],
    ["streaming", "export", "fitting"],
    ["deep"],
    ["regression", "classification", "filtering"],
    ["forecasting"],
    ["transformations", "panels"],
    ["plotting"],
]
HEIGHT = {entry: height for height, tier in enumerate(TIERS) for entry in tier}


def drawn():
    """The paths in the tree of docs/architecture.md: a line has names, then two spaces and what they are."""
    tree = re.search(r"```text\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL).group(1)
    paths, parents = [], []
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        parents = parents[:depth]
        paths += ["/".join([*parents, name.rstrip("/")]) for name in names if name]
        parents.append(names[0].rstrip("/"))
    return paths


def on_disk():
    """Every folder with something in it, and the modules of the package that stand beside its folders."""
    paths = []
    for top in ("statespace", "kernels", "datasets", "tests", "examples", "docs"):
        for folder, folders, files in os.walk(ROOT / top):
            folders[:] = [f for f in folders if f not in SKIPPED]
            if files or folders:
                paths.append(Path(folder).relative_to(ROOT).as_posix())
    modules = [f"statespace/{path.name}" for path in (ROOT / "statespace").glob("*.py")]
    links = ["statespace/kernels", "statespace/datasets"]
    return [p for p in paths if p not in links] + modules


def test_everything_drawn_exists():
    missing = [path for path in drawn() if "<" not in path and not (ROOT / path).exists()]
    assert missing == []


def test_everything_on_disk_is_drawn():
    patterns = [re.sub("<[^>]*>", "[^/]+", path.replace(".", "[.]")) for path in drawn()]
    not_drawn = [path for path in on_disk() if not any(re.fullmatch(pattern, path) for pattern in patterns)]
    assert not_drawn == []


def modules():
    for folder, folders, files in os.walk(ROOT / "statespace", followlinks=True):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for file in sorted(files):
            if file.endswith(".py") and Path(folder, file) != ROOT / "statespace" / "__init__.py":
                yield Path(folder, file).relative_to(ROOT).as_posix()


def imports(path):
    """What a module imports from ``statespace``, also inside functions, but not what only a type checker reads."""
    tree = ast.parse((ROOT / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write statespace.…"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "statespace" and "." in name:
                yield name.split(".")[1], node.lineno


def public_homes():
    """``from statespace import X`` imports the module that X lives in."""
    return importlib.import_module("statespace")._HOME


@pytest.mark.parametrize("path", list(modules()))
def test_imports_point_down(path):
    own = path.split("/")[1].removesuffix(".py")
    assert own in HEIGHT, f"give {own} its place in TIERS"
    wrong = []
    for entry, line in imports(path):
        entry = public_homes().get(entry, entry)
        if entry != own and HEIGHT.get(entry, 0) >= HEIGHT[own]:
            wrong.append(f"{path}:{line} imports statespace.{entry}, which is not below {own}")
    assert wrong == []


def test_every_package_has_its_page_in_the_api():
    listed = set(re.findall(r"^   (statespace[.\w]*)$", (ROOT / "docs" / "api.rst").read_text(), re.MULTILINE))
    packages = {f"statespace.{path.parent.name}" for path in (ROOT / "statespace").glob("*/__init__.py")}
    assert packages <= listed
    for name, home in public_homes().items():
        assert listed & {f"statespace.{name}", f"statespace.{home}"}, f"{name} has no page"


def primitives():
    return sorted(p.parent.name for p in (ROOT / "kernels").glob("*/__init__.py"))


def backends():
    dispatch = importlib.import_module("statespace.kernels.dispatch")
    files = dispatch.FILES.values()
    return [(p, file) for p in primitives() for file in files if (ROOT / f"kernels/{p}/{file}.py").exists()]


def parameters(function):
    """The parameters by name; ``backend`` is what the public function adds."""
    return {name: p for name, p in inspect.signature(function).parameters.items() if name != "backend"}


@pytest.mark.parametrize(("primitive", "file"), backends())
def test_backends_have_the_signature_of_the_primitive(primitive, file):
    name = f"statespace.kernels.{primitive}"
    try:
        backend = importlib.import_module(f"{name}.{file}")
    except ModuleNotFoundError as error:
        if error.name not in ("triton", "cupy"):
            raise
        pytest.skip(f"{error.name} is not installed here")
    public = getattr(importlib.import_module("statespace.kernels"), primitive)
    expected, own = parameters(public), parameters(getattr(backend, primitive))
    assert [(name, p.kind) for name, p in own.items()] == [(name, p.kind) for name, p in expected.items()]
    # The public function fills its defaults in, so a backend may have none, but never another one.
    assert all(p.default in (inspect.Parameter.empty, expected[name].default) for name, p in own.items())


@pytest.mark.parametrize("primitive", primitives())
def test_every_primitive_has_its_truth_and_its_derivation(primitive):
    assert (ROOT / "kernels" / primitive / "reference.py").exists()
    assert (ROOT / "kernels" / primitive / "README.md").read_text().startswith("# ")
