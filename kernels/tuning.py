"""Triton kernels in a few variants, of which the fastest one here is found once and kept on disk.

What follows from shapes is decided where a kernel is launched. What does not (how many warps share a block, how many
steps are loaded at a time, how large a block is) a kernel has variants for: each replaces some of a launch's options by
others that give the same numbers, the order of a sum apart. The first variant is the launch as it is.

Variants are timed at the first launch of a kind: of certain types, options and classes of sizes, a class reaching to
the next power of four, so that a new length is seldom a new kind. What is timed runs many times on the same arrays: a
kernel that reads what it writes names these arrays, which are put back before the run that counts. Nothing is timed,
and the launch runs as it is, while a CUDA graph is captured (what is known already is taken), in the interpreter, where
torch is told to use deterministic algorithms, and with ``STATESPACE_AUTOTUNE=0`` in the environment.
"""

import hashlib
import json
import math
import os
from functools import cache, partial
from pathlib import Path

import torch
import triton
from triton.runtime.errors import OutOfResources, PTXASError

from statespace.kernels.launching import INTERPRETED

# Another variant than the first one has to be faster by this much: less is noise, and would be decided by chance.
WORTH = 0.97
# Milliseconds for which a variant runs before it is timed, and while it is.
WARM_UP, TIMED = 5, 25
# Sizes above are of one class: more work of the same kind.
LARGEST = 4**8


def tuned(key, *variants, changed=()):
    """A kernel that is launched in the fastest of some variants: ``@tuned(...)`` above ``@triton.jit``.

    Parameters
    ----------
    key : list of str
        Arguments whose class of size makes another kind of launch; types, options and the number of programs always do.
    *variants : dict or callable
        Options in place of those of the launch, or a function from these to such a dict.
    changed : tuple of str, or callable
        Arguments that a launch reads and changes, or a function from a launch's arguments and options to their names.
    """
    return partial(Tuned, key=key, variants=variants, changed=changed)


def warps(factor):
    """The variant with ``factor`` times as many warps, from one to sixteen; those of a launch are 4 if it says none."""
    return lambda options: {"num_warps": min(16, max(1, int(factor * options.get("num_warps", 4))))}


def classed(n):
    """The class of a size: 1, to 4, to 16, ..."""
    return ((min(n, LARGEST) - 1).bit_length() + 1) // 2


class Tuned:
    """See :func:`tuned`; called as a kernel is, ``kernel[grid](*arguments, **options)``."""

    def __init__(self, kernel, key, variants, changed):
        self.kernel, self.key, self.changed = kernel, key, changed
        self._variants, self._found, self._read = variants, {}, {}
        names = list(kernel.arg_names)
        if unknown := {*key, *(() if callable(changed) else changed)} - {*names}:
            raise ValueError(f"a kernel's arguments are {', '.join(names)}. Got {', '.join(sorted(unknown))} instead.")
        self._sizes = [names.index(name) for name in key]

    def __getitem__(self, grid):
        return partial(self._launch, grid)

    def variants(self, options):
        """What each variant puts in place of a launch's options, without those that come to the same; {} first."""
        found = [{}]
        for variant in self._variants:
            other = variant(options) if callable(variant) else variant
            other = {name: value for name, value in other.items() if options.get(name) != value}
            if other not in found:
                found.append(other)
        return found

    def _launch(self, grid, *arguments, **options):
        return self.kernel[grid](*arguments, **options | self._choose(grid, arguments, options))

    def _choose(self, grid, arguments, options):
        if INTERPRETED or os.environ.get("STATESPACE_AUTOTUNE") == "0" or torch.are_deterministic_algorithms_enabled():
            return {}
        place = _place(torch.cuda.current_device())
        kind = place, self._kind(grid, arguments, options)
        known = self._found.get(kind)
        if known is None:
            known = self._known(place, kind[1], options)
            if known is None:
                if torch.cuda.is_current_stream_capturing():
                    return {}
                known = self._fastest(grid, arguments, options, place, kind[1])
            self._found[kind] = known
        return known

    def _kind(self, grid, arguments, options):
        """What decides which variant is the fastest."""
        types = tuple(x.dtype if isinstance(x, torch.Tensor) else x is None for x in arguments)
        programs = math.prod(grid(options) if callable(grid) else grid)
        sizes = tuple(classed(arguments[i]) for i in self._sizes)
        return types, sizes, classed(programs), tuple(options.items())

    def _text(self, kind):
        """A kind of launch as the file names it."""
        types, sizes, programs, options = kind
        given = [str(x).removeprefix("torch.") if isinstance(x, torch.dtype) else "-" if x else "" for x in types]
        sizes = [f"{name}<={4**size}" for name, size in zip((*self.key, "programs"), (*sizes, programs), strict=True)]
        return " ".join([",".join(given), *sizes, *(f"{name}={value}" for name, value in options)])

    def _known(self, place, kind, options):
        """What the file says, if it is a variant that there is."""
        if place not in self._read:
            self._read[place] = self._stored(place)
        found = self._read[place].get(self._text(kind), (None,))[0]
        return found if found in self.variants(options) else None

    def _fastest(self, grid, arguments, options, place, kind):
        variants = self.variants(options)
        if len(variants) == 1:
            return {}
        named = dict(zip(self.kernel.arg_names, arguments, strict=False))
        changed = self.changed(named | options) if callable(self.changed) else self.changed
        kept = []
        try:
            kept += [(named[name], named[name].clone()) for name in changed if named[name] is not None]
            times = [self._time(grid, arguments, options | variant) for variant in variants]
        except torch.OutOfMemoryError:
            # There is room for the launch alone, and in this process it stays as it is.
            return {}
        finally:
            for array, before in kept:
                array.copy_(before)
        best = min(times)
        fastest = {} if math.isinf(best) or best >= WORTH * times[0] else variants[times.index(best)]
        if triton.knobs.autotuning.print:
            tried = ", ".join(
                f"{variant or 'as launched'}: {t:.4f} ms" for variant, t in zip(variants, times, strict=True)
            )
            print(f"{self._name()}: {tried}")
        if math.isfinite(best):
            self._store(place, self._text(kind), fastest, times)
        return fastest

    def _time(self, grid, arguments, options):
        """Milliseconds; infinite if this GPU has too little of something for it."""
        try:
            return triton.testing.do_bench(
                lambda: self.kernel[grid](*arguments, **options), warmup=WARM_UP, rep=TIMED, return_mode="median"
            )
        except (OutOfResources, PTXASError):
            return math.inf
        except RuntimeError as error:
            # As some passes of Triton's compiler say that they cannot.
            if "PassManager" in str(error):
                return math.inf
            raise

    def _name(self):
        return f"{self.kernel.fn.__module__.removeprefix('statespace.kernels.')}.{self.kernel.fn.__name__}"

    def _file(self, place):
        """One for each kernel, its code, the GPU and the compiler."""
        code = getattr(self.kernel, "cache_key", "")
        digest = hashlib.sha256("\n".join([*map(str, place), code]).encode()).hexdigest()[:16]
        return Path(triton.knobs.cache.dir) / "statespace" / f"{self._name()}-{digest}.json"

    def _stored(self, place):
        """{kind: (its fastest variant, milliseconds of all)}; nothing where there is no file, or none that is whole."""
        try:
            found = json.loads(self._file(place).read_text())["variants"]
            return {kind: (dict(variant), list(times)) for kind, (variant, times) in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _store(self, place, kind, variant, times):
        path = self._file(place)
        written = path.with_suffix(f".{os.getpid()}")
        # JSON has no infinity. What other processes have found since is kept.
        entry = variant, [t if math.isfinite(t) else None for t in times]
        content = dict(zip(("device", "multiprocessors", "triton", "cuda"), place, strict=True))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(json.dumps(content | {"variants": self._stored(place) | {kind: entry}}, indent=1))
            written.replace(path)
        except OSError:
            # A folder that cannot be written to: this process alone knows.
            return


@cache
def _place(index):
    """A GPU, and what compiles for it."""
    device = torch.cuda.get_device_properties(index)
    return device.name, device.multi_processor_count, triton.__version__, torch.version.cuda
