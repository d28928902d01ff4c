"""SGLang without a GPU: what stands for its compiled and GPU modules, so that its planning code can be imported."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import logging
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from ..base import MissingExtraError

STUBS = {"triton", "sgl_kernel", "IPython", "loguru", "torchvision", "tvm_ffi"}
VERSION = "0.5.23"


class Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__


class Stub(metaclass=Anything):
    """Stands for every class, function and decorator of a stubbed module."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub()

    def __class_getitem__(cls, _: Any) -> Any:
        return cls


class StubModule(types.ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "99.0.0"
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in STUBS else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def prepare(source: str | None) -> None:
    """Makes `sglang` importable: the installed package, or the wheel unpacked at `source`. MissingExtraError where it is not."""
    warnings.filterwarnings("ignore")
    try:
        torch: Any = importlib.import_module("torch")
        importlib.import_module("transformers")  # before the stubs
        torch.compile = lambda f=None, **_: f if f is not None else (lambda g: g)
        sys.meta_path.insert(0, Finder())
        if source:
            sys.path.insert(0, source)
        logging.disable(logging.WARNING)
        sglang: Any = importlib.import_module("sglang")
        importlib.import_module("sglang.srt.model_executor.pool_configurator")
    except ImportError as error:
        raise MissingExtraError(
            f"verify --engine sglang needs sglang {VERSION} ({error.name or error}): pip install sglang=={VERSION}, or unpack"
            " its wheel, install its Python requirements and name the folder by --source"
        ) from None
    if source and Path(sglang.__file__).parents[1] != Path(source).resolve():
        raise MissingExtraError(f"sglang comes from {sglang.__file__}; expected it from {source}")


def installed() -> str:
    return str(importlib.import_module("sglang").__version__)
