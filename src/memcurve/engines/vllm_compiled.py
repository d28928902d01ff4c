"""serve() of vllm_scheduler compiled by Numba, over arrays."""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType
from typing import Any

from numba import njit
from numba.core.types import StructRef, unliteral
from numba.experimental import structref

from . import vllm_scheduler, vllm_tables
from .vllm_tables import Tables


@structref.register
class TablesType(StructRef):
    def preprocess_fields(self, fields):
        return tuple((name, unliteral(kind)) for name, kind in fields)


class TablesRef(structref.StructRefProxy):
    def __new__(cls, *fields):
        return structref.StructRefProxy.__new__(cls, *fields)


structref.define_proxy(TablesRef, TablesType, list(Tables._fields))


def load():
    modules = (vllm_tables, vllm_scheduler)
    digest = sha256(b"".join(Path(one.__file__ or "").read_bytes() for one in (*modules, sys.modules[__name__]))).hexdigest()[:12]
    done: dict[str, Any] = {}
    for one in modules:
        name = f"{one.__name__}_compiled"
        spec = spec_from_file_location(name, one.__file__)
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        for word, function in list(vars(module).items()):
            if word in done:
                setattr(module, word, done[word])
            elif isinstance(function, FunctionType) and function.__module__ == name:
                function.__qualname__ += f"_{digest}"
                if word not in ("serve", "row_of"):
                    done[word] = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")(function)
                else:
                    try:
                        done[word] = njit(cache=True, error_model="numpy")(function)
                    except RuntimeError:  # no folder can be written to
                        done[word] = njit(function)
                setattr(module, word, done[word])
    return done


DONE = load()


def serve(tables, steps):
    return DONE["serve"](TablesRef(*tables), steps)


def row_of(tables, time):
    DONE["row_of"](TablesRef(*tables), time)
