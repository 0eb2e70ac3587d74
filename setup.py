"""Builds edgefl._core: the kernel source once per instruction set, everything else once.

What Cython makes of core.pyx only checks and calls, so it is built to be small.

The flags of an instruction set go on its one object alone, so that the module starts on any processor of the
architecture and picks its kernels at import. No -march=native, no -ffast-math.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = "src/kernels/kernels.c"
# Nothing here throws or is unwound: the tables for that would be a twentieth of the module.
SMALL = ["-g0", "-fvisibility=hidden", "-fno-asynchronous-unwind-tables"]
COMPILE = ["-std=c11", "-O3", "-pthread", *SMALL, "-fno-math-errno", "-fno-trapping-math"]
# Sums that must have the same bits on every machine are never contracted into fused multiply-adds.
EXACT = [*COMPILE, "-ffp-contract=off"]
FAST = [*COMPILE, "-ffp-contract=fast"]
GLUE = ["-std=c11", "-Os", *SMALL]
# What only prepares a net, and computes nothing: 13 kB less than at -O3
PREPARES = ["src/arena.c", "src/compile.c", "src/recompute.c"]
X86 = {
    "baseline": ["-O2"],  # for the few processors without AVX2: a twentieth of the module less
    "avx2": ["-mavx2", "-mfma", "-msse4.2"],
    "avx512": ["-mavx512f", "-mavx2", "-mfma", "-msse4.2", "-mprefer-vector-width=512"],
}


def kernel_flags() -> dict[str, list[str]]:
    """The instruction sets to build for, and the flags of each."""
    return X86 if sysconfig.get_platform().endswith("-x86_64") else {"baseline": []}


class BuildCore(build_ext):
    """build_ext that adds the core's C files to the extension, the kernels' once for each instruction set."""

    def build_extension(self, ext: Extension) -> None:
        for sources, more in ((PREPARES, ["-Os"]), (SOURCES, [])):
            ext.extra_objects += self.compiler.compile(
                sources,
                output_dir=self.build_temp,
                macros=DISPATCH,
                include_dirs=["src"],
                extra_postargs=EXACT + more,
            )
        for isa, flags in kernel_flags().items():
            ext.extra_objects += self.compiler.compile(
                [KERNELS],
                output_dir=str(Path(self.build_temp, isa)),
                macros=[("EFL_ISA", isa)],
                extra_postargs=FAST + flags,
            )
        super().build_extension(ext)


_FOUND = sorted(str(path) for path in Path("src").rglob("*.c") if path.parent.name != "kernels")
SOURCES = ["src/kernels/dispatch.c", *(path for path in _FOUND if path not in PREPARES)]
DISPATCH = [("EFL_X86_DISPATCH", "1")] if len(kernel_flags()) > 1 else []

core = Extension(
    "edgefl._core",
    sources=["src/cython/core.pyx"],
    depends=[str(path) for path in Path("src").rglob("*.[ch]")],
    include_dirs=["src"],
    extra_compile_args=GLUE,
    extra_link_args=["-Wl,-s", "-pthread"],
)

setup(
    ext_modules=cythonize([core], include_path=["src/cython"], build_dir="build/cython", language_level=3),
    cmdclass={"build_ext": BuildCore},
)
