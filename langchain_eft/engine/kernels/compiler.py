"""From a Python function to the machine code of one kernel, by numba and LLVM.

numba writes the LLVM code of a kernel; the code is compiled here, because numba keeps no machine code that
can be loaded without numba itself, and compiles for its own processor alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from langchain_eft.engine.kernels.target import Target

_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}

_PYTHON = re.compile(r"^declare (.*@(?:numba_|NRT_|Py)\w*\(.*)$", re.MULTILINE)
"""Functions of Python and numba, which an error in a kernel would call."""


def inlined(function: Callable[..., Any]) -> Any:
    """Make a part of kernels, which becomes a piece of each kernel that calls it."""
    from numba import njit

    return njit(function, inline="always", **_OPTIONS)


def called(function: Callable[..., Any]) -> Any:
    """Make a function that kernels call. It is typed once, and LLVM decides where it is inlined."""
    from numba import njit

    return njit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)


def compile_kernel(function: Callable[[int], None], name: str, target: Target) -> bytes:
    """The object file of a kernel. It calls nothing but functions of LLVM.

    Args:
        function: A function of an int64 address, which numba can compile. It raises no errors.
        name: The symbol of the kernel in the object file.
        target: The processor.
    """
    from llvmlite import binding
    from numba import cfunc, types

    with _unoptimized():
        compiled = cfunc(types.void(types.int64), **_OPTIONS)(function)
    # A kernel cannot raise, so LLVM may drop what hands an error to Python.
    code = _PYTHON.sub(r"define internal \1 { unreachable }", compiled.inspect_llvm())
    module = binding.parse_assembly(code)
    for symbol in module.functions:
        if symbol.name == compiled._wrapper_name:
            symbol.name = name
        elif not symbol.is_declaration:
            symbol.linkage = "internal"
    machine = target_machine(target)
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    machine_code: bytes = machine.emit_object(module)
    return machine_code


@contextmanager
def _unoptimized() -> Iterator[None]:
    """Leave optimization to us: numba optimizes every function, and then all of them together."""
    from numba.core import config

    level = config.OPT
    config.OPT = type(level)("0")
    try:
        yield
    finally:
        config.OPT = level


def target_machine(target: Target) -> Any:
    """LLVM's compiler for a processor."""
    from llvmlite import binding

    _initialize()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="static",
        codemodel="jitdefault",
        jit=True,
    )


@cache
def _initialize() -> None:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
