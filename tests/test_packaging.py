"""What is built holds every module once, and importing it is cheap."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def git(*arguments):
    """Lines of a git command in this repository; the test is skipped outside one."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, which knows the files that belong to the repository")
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def python(code, cwd):
    """A new interpreter, which finds modules in ``cwd`` first."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Names and contents of the sdist, of the wheel built from it, and of the wheel built from the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for name in git("ls-files", "--cached", "--others", "--exclude-standard"):
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    build = [sys.executable, "-m", "build", "--no-isolation", str(tree)]
    subprocess.run([*build, "--wheel", "--outdir", str(tree / "direct")], check=True, capture_output=True)
    shutil.rmtree(tree / "build")
    subprocess.run([*build, "--outdir", str(tree / "out")], check=True, capture_output=True)  # the wheel from the sdist
    (sdist,) = (tree / "out").glob("*.tar.gz")
    (wheel,) = (tree / "out").glob("*.whl")
    (direct,) = (tree / "direct").glob("*.whl")
    assert wheel.name == direct.name
    assert wheel.name.startswith("statespace_learn-")
    with tarfile.open(sdist) as archive:
        files = [
            (m.name.split("/", 1)[1], archive.extractfile(m).read()) for m in archive.getmembers() if not m.isdir()
        ]
    return files, read_wheel(wheel), read_wheel(direct)


def read_wheel(path):
    with zipfile.ZipFile(path) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def package_files():
    """What a user must get, as the import system names it."""
    tracked = [Path(name) for name in git("ls-files", "--cached", "--others", "--exclude-standard")]
    moved = {"kernels": Path("statespace/kernels"), "datasets": Path("statespace/datasets")}
    files = set()
    for path in tracked:
        path = moved[path.parts[0]].joinpath(*path.parts[1:]) if path.parts[0] in moved else path
        inside = path.parts[0] == "statespace" and path not in moved.values()
        shipped = path.suffix in (".py", ".cu", ".cuh") or path.name in ("README.md", "py.typed")
        if inside and shipped and (ROOT / path).exists():
            files.add(path.as_posix())
    return files


def test_wheel_holds_every_file_once(built):
    _, wheel, _ = built
    counts = Counter(name for name, _ in wheel if ".dist-info/" not in name)
    assert set(counts) == package_files()
    assert set(counts.values()) == {1}
    assert {name.split("/")[0] for name in counts} == {"statespace"}


def test_sdist_holds_every_module_once(built):
    sdist, _, _ = built
    counts = Counter(name for name, _ in sdist)
    assert package_files() <= set(counts)
    assert set(counts.values()) == {1}
    assert not [name for name in counts if name.startswith(("kernels/", "datasets/"))]
    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(counts)


def test_wheel_from_sdist_is_the_wheel(built):
    _, wheel, direct = built
    assert sorted(wheel) == sorted(direct)


def test_wheel_imports_from_anywhere(built, tmp_path):
    _, wheel, _ = built
    for name, content in wheel:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    code = f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]; import statespace.kernels as k"
    result = python(f"{code}; print(k.__file__)", tmp_path)
    assert result.stdout.strip() == str(tmp_path / "statespace/kernels/__init__.py"), result.stderr


def test_links_are_committed_and_relative():
    links = {line.split("\t")[1]: line.split()[0] for line in git("ls-files", "-s") if line.startswith("120000")}
    assert links == {"statespace/datasets": "120000", "statespace/kernels": "120000"}
    for name in ("datasets", "kernels"):
        assert (ROOT / "statespace" / name).readlink() == Path("..") / name


@pytest.mark.parametrize("name", ["kernels", "datasets"])
def test_bare_import_is_refused(name):
    result = python(f"import {name}", ROOT)
    assert f"ImportError: this folder is imported as statespace.{name}, not as a bare `{name}`" in result.stderr


@pytest.mark.parametrize("module", ["statespace", "statespace.kernels", "statespace.datasets"])
def test_import_is_cheap(module):
    heavy = ["torch", "numba", "sktime", "matplotlib", "sklearn", "scipy", "pandas"]
    result = python(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])", ROOT)
    assert result.stdout.strip() == "[]", result.stderr


def test_kalman_side_never_imports_torch():
    code = "import sys, statespace.filtering, statespace.kalman; print('torch' in sys.modules)"
    result = python(code, ROOT)
    assert result.stdout.strip() == "False", result.stderr


def test_every_public_name_resolves():
    result = python("import statespace as s; print([n for n in s.__all__ if getattr(s, n) is None])", ROOT)
    assert result.stdout.strip() == "[]", result.stderr
