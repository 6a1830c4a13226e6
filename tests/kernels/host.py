"""CUDA sources without a GPU: run on the processor by g++ and ``host.h``, and compiled for GPUs by nvcc.

``Host`` stands for ``statespace.kernels.cuda.CuPy``: NumPy's arrays, and kernels as functions of a shared library. The
types of the arguments are compared with the kernel's signature, which on a GPU nobody does.
"""

import ctypes
import hashlib
import re
import subprocess
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np

HEADER = Path(__file__).parent / "host.h"
TYPES = {
    "double": "float64", "float": "float32", "long long": "int64", "int": "int32", "unsigned char": "uint8",
    "short": "int16", "bool": "bool", "float2": "complex64", "double2": "complex128",
}  # fmt: skip
SIGNATURE = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)')
MACRO = re.compile(r"^#define (\w+) (.+)$", re.MULTILINE)
WAITING = re.compile(r"__(sync(threads|warp)|shfl|ballot|any_sync|all_sync)")
# what nvcc finds in its headers, and NVRTC, which has none, does not
HEADERS = re.compile(r"#include <|\bstd::|\b(INFINITY|NAN|M_PI|DBL_\w+|FLT_\w+|u?int(8|16|32|64)_t|printf|assert)\b")


class Host:
    """NumPy for CuPy, the processor for the GPU."""

    arrays = np
    device = "cpu"

    def missing(self):
        return None

    def current(self):
        return "host"

    def resident_threads(self):
        # few, so that a thread has several records
        return 64

    def free_memory(self):
        return 2**26

    def fetched(self, x):
        return np.asarray(x)

    def scope(self, x):
        return nullcontext()

    def compiled(self, code):
        library, signatures = _library(code)

        def found(name):
            return _Kernel(getattr(library, f"host_{name}"), name, signatures[name])

        return found


class _Kernel:
    def __init__(self, run, name, signature):
        self.run, self.name, self.signature = run, name, signature

    def __call__(self, grid, block, arguments, shared_mem=0):
        if len(arguments) != len(self.signature):
            raise TypeError(f"{self.name} takes {len(self.signature)} arguments, not {len(arguments)}.")
        values = [self._value(x, *parameter) for x, parameter in zip(arguments, self.signature, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        sizes = [(ctypes.c_uint * 3)(*given, *(1,) * (3 - len(given))) for given in (grid, block)]
        if min(map(min, sizes)) < 1 or np.prod(sizes[1]) > 1024:
            raise ValueError(f"{self.name} cannot be launched with grid {grid} and block {block}.")
        if not self.run(pointers, *sizes, ctypes.c_size_t(shared_mem)):
            raise RuntimeError(f"{self.name}: the threads of a block wait for one another forever.")

    def _value(self, x, kind, pointer, name):
        if pointer:
            if isinstance(x, np.ndarray):
                if x.dtype != TYPES[kind] or not x.flags.c_contiguous:
                    raise TypeError(f"{self.name}: {name} is {kind}*, contiguous; got {x.dtype}, {x.flags}.")
                return ctypes.c_void_p(x.ctypes.data)
            if type(x) is np.intp and x == 0:
                return ctypes.c_void_p(None)
        elif isinstance(x, np.generic) and x.dtype == TYPES[kind]:
            return np.ctypeslib.as_ctypes_type(x.dtype)(x)
        raise TypeError(f"{self.name}: {name} is {kind}{'*' * pointer}; got {type(x)} {getattr(x, 'dtype', '')}.")


@cache
def _folder():
    return tempfile.TemporaryDirectory()


@cache
def _library(code):
    """The kernels of ``code`` as a shared library, and the types of their arguments."""
    if found := HEADERS.search(code):
        raise ValueError(f"NVRTC has no headers, and the source uses {found[0]!r}.")
    macros = dict(MACRO.findall(code))
    signatures = {name: [_parameter(p, macros) for p in given.split(",")] for name, given in SIGNATURE.findall(code)}
    waits = "true" if WAITING.search(code) else "false"
    dynamic = r"\1* \2 = (\1*)host::dynamic_shared;"
    code = re.sub(r"extern __shared__ ([\w ]+?) (\w+)\[\];", dynamic, code)
    parts = [f'#include "{HEADER}"', code]
    for name, signature in signatures.items():
        given = ", ".join(f"*({kind}{'*' * pointer}*)passed[{i}]" for i, (kind, pointer, _) in enumerate(signature))
        parts.append(
            f'extern "C" int host_{name}(void** given, unsigned* grid, unsigned* block, size_t shared) {{\n'
            f"  static void** passed; passed = given;\n"
            f"  return host::run({{grid[0], grid[1], grid[2]}}, {{block[0], block[1], block[2]}}, shared, {waits},\n"
            f"    [] {{ {name}({given}); }});\n}}"
        )
    text = "\n".join(parts)
    path = Path(_folder().name) / hashlib.sha256(text.encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(text)
    command = ["g++", "-std=c++17", "-O1", "-ffp-contract=fast", "-fno-strict-aliasing", "-w", "-shared", "-fPIC"]
    command += ["-march=native", "-o", path.with_suffix(".so"), path.with_suffix(".cpp")]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"g++ does not compile the source:\n{result.stderr[:6000]}")
    return ctypes.CDLL(str(path.with_suffix(".so"))), signatures


def _parameter(text, macros):
    kind, name = re.fullmatch(r"(.+?)(\w+)", " ".join(text.split())).groups()
    kind = re.sub(r"\b(const|__restrict__)\b", "", kind)
    plain = " ".join(kind.replace("*", "").split())
    return macros.get(plain, plain), "*" in kind, name


def compile_for_gpus(code, architectures=("sm_80", "sm_90")):
    """Machine code by nvcc: for each kernel and architecture registers and spilled bytes of a thread, shared bytes."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.cu"
        path.write_text(code)
        for architecture in architectures:
            command = ["nvcc", "-std=c++17", "-cubin", f"-arch={architecture}", "-Xptxas", "-v", "-o"]
            result = subprocess.run([*command, f"{folder}/code", path], capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"nvcc does not compile the source:\n{result.stderr[:6000]}")
            found += _resources(result.stderr, architecture)
    return found


def _resources(text, architecture):
    for part in re.split(r"Compiling entry function ", text)[1:]:
        numbers = {
            word: int((re.search(pattern, part) or (0, 0))[1])
            for word, pattern in {
                "registers": r"Used (\d+) registers", "stack": r"(\d+) bytes stack frame",
                "spilled": r"(\d+) bytes spill stores", "shared": r"(\d+) bytes smem",
            }.items()
        }  # fmt: skip
        yield {"kernel": re.match(r"'(\w+)'", part)[1], "architecture": architecture, **numbers}
