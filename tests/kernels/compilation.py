"""Compiles for real GPUs what Triton's interpreter has run: needs no GPU, only Triton's own compiler."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import torch

KINDS = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64", torch.int32: "i32",
    torch.int64: "i64", torch.bool: "i1", torch.uint8: "u8",
}  # fmt: skip


@contextmanager
def launches():
    """A list that fills with what Triton's interpreter is asked to run inside the block: kernel, types, constants."""
    from triton.runtime.interpreter import InterpretedFunction

    found, run = [], InterpretedFunction.run

    def recording(self, *arguments, grid, warmup, **options):
        launch = {"module": self.fn.__module__, "kernel": self.fn.__name__, "options": {}, "types": {}, "values": {}}
        launch["options"] = {k: options[k] for k in ("num_warps", "num_stages") if k in options}
        launch["aligned"] = []
        named = dict(zip(self.arg_names, arguments, strict=False)) | {
            k: v for k, v in options.items() if k in self.arg_names
        }
        for name, value in named.items():
            if "constexpr" in str(self.fn.__annotations__.get(name)) or value is None:
                launch["types"][name], launch["values"][name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                launch["types"][name] = "*" + KINDS[value.dtype]
                launch["aligned"] += [name] * (value.data_ptr() % 16 == 0)
            elif isinstance(value, bool):
                launch["types"][name] = "u1"
            elif isinstance(value, int) and name in (self.kwargs.get("do_not_specialize") or ()):
                launch["types"][name] = "i32"
            elif isinstance(value, int) and value == 1:
                launch["types"][name], launch["values"][name] = "constexpr", 1
            else:
                launch["types"][name] = "fp32" if isinstance(value, float) else "i32"
                launch["aligned"] += [name] * (isinstance(value, int) and value % 16 == 0)
        if launch not in found:
            found.append(launch)
        return run(self, *arguments, grid=grid, warmup=warmup, **options)

    InterpretedFunction.run = recording
    try:
        yield found
    finally:
        InterpretedFunction.run = run


def compile_for_gpus(found, capabilities=(80, 90), variants=False):
    """Machine code of every launch for each compute capability; tuned kernels in all of their ``variants`` if asked.

    Returns one dict for each: kernel, capability, constants, the variant, registers and spilled bytes of a thread, and
    shared bytes of a block. A compilation that fails raises, with Triton's message.
    """
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    result = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([found, capabilities, variants]),
        capture_output=True,
        text=True,
        env=environment,
    )
    if result.returncode:
        raise RuntimeError(f"a kernel does not compile:\n{result.stdout[-2000:]}\n{result.stderr[-6000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def _compile(launch, capability, variants):
    from importlib import import_module

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from statespace.kernels.tuning import Tuned

    kernel, others = getattr(import_module(launch["module"]), launch["kernel"]), [{}]
    if isinstance(kernel, Tuned):
        others = kernel.variants(launch["values"] | launch["options"]) if variants else others
        kernel = kernel.kernel
    for variant in others:
        values = launch["values"] | {name: x for name, x in variant.items() if name in kernel.arg_names}
        options = launch["options"] | {name: x for name, x in variant.items() if name not in kernel.arg_names}
        types = {name: "constexpr" if name in values else launch["types"][name] for name in kernel.arg_names}
        # As at a launch: pointers and numbers that 16 divides are known to be so, which decides how memory is read.
        aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if n in launch["aligned"]}
        source = ASTSource(fn=kernel, signature=types, constexprs=values, attrs=aligned)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        found = {"kernel": launch["kernel"], "capability": capability, "constants": values, "variant": variant}
        yield found | _resources(compiled)


def _resources(compiled):
    """What ptxas says of the machine code."""
    import re
    import tempfile

    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = dict(re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", text))
    return {
        "registers": int(numbers["REG"]), "spilled": int(numbers["STACK"]), "shared": compiled.metadata.shared,
    }  # fmt: skip


if __name__ == "__main__":
    found, capabilities, variants = json.loads(sys.stdin.read())
    print(json.dumps([entry for launch in found for c in capabilities for entry in _compile(launch, c, variants)]))
