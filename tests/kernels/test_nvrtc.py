"""The CUDA sources go through NVRTC, which compiles them where they run and is stricter than nvcc; it needs no GPU."""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import pytest

from statespace.kernels import cuda

KALMAN = dict(
    N=3, UNITS=2, DIRECTIONS=0, THREADS=32, KINDS="0, 4", SIZES="1, 2", OWNERS="0, 1", EACH_H=0, EACH_R=1, READ=0,
    EACH_READ=0, MOVES=1, BY_OBSERVATION=1,
)  # fmt: skip
KINDS = {"float": ("float", 0), "double": ("double", 0), "short": ("float", 1)}
SIZES = {
    "single.cu": dict(LENGTH=1024, ROOTS=1, THREADS=64),
    "rings.cu": dict(LENGTH=4096, ROOTS=16, THREADS=256),
    "columns.cu": dict(LENGTH=4096, ROOTS=256, TILE=16, THREADS=256),
    "sums.cu": dict(TAPS=17, THREADS=128),
}
FOLDER = Path(cuda.__file__).parent


def sources():
    """Every file, with macros as calls set them; the Kalman filter's also with a diffuse start."""
    for path in sorted((FOLDER / "kalman_filter").glob("*.cu")):
        yield "kalman_filter", path.name, KALMAN
        if path.name in ("filter.cu", "smoother.cu", "gradient.cu"):
            yield "kalman_filter", path.name, KALMAN | {"DIRECTIONS": 1}
    for path in sorted((FOLDER / "long_convolution").glob("*.cu")):
        for sample, (real, kind) in KINDS.items():
            types = dict(SAMPLE=sample, KIND=kind, REAL=real, PAIR=real + "2")
            yield "long_convolution", path.name, types | SIZES[path.name]


@pytest.fixture(scope="module")
def nvrtc():
    spec = find_spec("nvidia.cuda_nvrtc") if find_spec("nvidia") else None
    found = [
        x for place in (spec.submodule_search_locations if spec else ()) for x in Path(place).glob("lib/libnvrtc.so*")
    ]
    if not found:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc-cu12")
    return ctypes.CDLL(str(found[0]))


@pytest.mark.parametrize(
    ("primitive", "file", "macros"), list(sources()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_it_compiles(nvrtc, primitive, file, macros):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    code = cuda.source(primitive, file, **macros).encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code, file.encode(), 0, None, None) == 0
    options = [x.encode() for x in (*cuda.OPTIONS, "--gpu-architecture=sm_90")]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    assert not failed, log.value.decode()[:3000]
