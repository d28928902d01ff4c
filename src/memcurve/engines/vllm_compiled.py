"""serve() of vllm_scheduler compiled by Numba, over arrays of records."""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType

import numpy as np
from numba import njit
from numba.core.types import StructRef, unliteral
from numba.experimental import structref

from . import vllm_scheduler, vllm_tables
from .vllm_tables import Tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MODULES = (vllm_tables, vllm_scheduler)
# What is called from outside; all else is compiled into it.
CALLED = ("serve", "row_of")


@structref.register
class TablesType(StructRef):
    """Tables by reference: passed by value, all their arrays would be copied with each call."""

    def preprocess_fields(self, fields: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
        return tuple((name, unliteral(kind)) for name, kind in fields)  # type: ignore[no-untyped-call]


class TablesRef(structref.StructRefProxy):
    def __new__(cls, *fields: Any) -> Any:
        return structref.StructRefProxy.__new__(cls, *fields)  # type: ignore[no-untyped-call]


structref.define_proxy(TablesRef, TablesType, list(Tables._fields))  # type: ignore[no-untyped-call]


def digest() -> str:
    """Of all sources: Numba keeps code by a function's file, and would not see that what it calls elsewhere changed."""
    found = sha256()
    for one in (*MODULES, sys.modules[__name__]):
        found.update(Path(one.__file__ or "").read_bytes())
    return found.hexdigest()[:12]


DIGEST = digest()


LINK = np.dtype([(name, np.int64) for name in ("piece", "rest")])


@njit
def more_links(k: Any) -> None:
    wide = np.zeros(2 * len(k.links), LINK)
    wide[: len(k.links)] = k.links
    k.links = wide
    k.run[0].room_links = len(wide)


@njit(cache=True)
def links_of(k: Any) -> Any:
    return k.links


def load() -> dict[str, Any]:
    """The functions of both modules once more: compiled when they are first called, and kept beside their source (or in the user's
    cache) for the next process."""
    done: dict[str, Any] = {"more_links": more_links}
    for one in MODULES:
        name = f"{one.__name__}_compiled"
        spec = spec_from_file_location(name, one.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
        for word, function in list(vars(module).items()):
            if word not in done:
                if not isinstance(function, FunctionType) or function.__module__ != name:
                    continue
                function.__qualname__ += f"_{DIGEST}"
                done[word] = compiled(word, function)
            setattr(module, word, done[word])
    return done


def compiled(word: str, function: FunctionType) -> Any:
    if word not in CALLED:
        # Without the wrappers that Python would call it by
        return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")(function)  # type: ignore[call-overload]
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written to
        return njit(error_model="numpy")(function)


FUNCTIONS = load()


def kept() -> bool:
    """Whether the code is there from an earlier process."""
    stats = FUNCTIONS["serve"].stats
    return stats.cache_path is not None and any(Path(stats.cache_path).glob(f"*serve_{DIGEST}*.nbc"))


def serve(tables: Tables, steps: int) -> tuple[int, Tables]:
    """Why it stopped, and the tables, of which it may have made one larger."""
    by_reference = TablesRef(*tables)
    stop = int(FUNCTIONS["serve"](by_reference, steps))
    return stop, tables._replace(links=links_of(by_reference))


def row_of(tables: Tables, time: int) -> None:
    FUNCTIONS["row_of"](TablesRef(*tables), time)
