"""GGUF files: the metadata in front of the tensors, and nothing else of them."""

from __future__ import annotations

from .base import BadConfig, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

MAX_COUNT = 2**32 - 1
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS


class Metadata:
    """The keys of a GGUF file, read by their names below the architecture: count("block_count") is llama.block_count.

    tensors: names of the file's tensors, where it is a file.
    """

    def __init__(self, data: Mapping[str, Any], tensors: frozenset[str] = frozenset()) -> None:
        self.data, self.tensors = data, tensors
        architecture = data.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise BadConfig(f'general.architecture: {show(architecture)}; expected a name, such as "llama"')
        self.architecture = architecture

    def __repr__(self) -> str:
        return f"<Metadata of {self.architecture}, {len(self.data)} keys>"

    def get(self, key: str) -> Any:
        return self.data.get(f"{self.architecture}.{key}")

    def bad(self, key: str, value: object, expected: str) -> NoReturn:
        found = "missing" if value is None else show(value)
        raise BadConfig(f"{self.architecture}.{key}: {found}; expected {expected}")

    def checked(self, key: str, value: object, least: int = 0, most: int = MAX_COUNT) -> int:
        if not isinstance(value, int) or not least <= value <= most:
            self.bad(key, value, f"an integer from {least} to {most}")
        return int(value)

    def count(self, key: str, default: int | None = None, least: int = 0, most: int = MAX_COUNT) -> int:
        """A whole number; `default` where the key is absent, and without one it must be there."""
        value = self.get(key)
        return self.checked(key, default if value is None else value, least, most)

    def counts(self, key: str, length: int, default: list[int]) -> list[int]:
        """One number per layer, or one for all (get_key_or_arr, llama-model-loader.cpp)."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, list):
            return [self.checked(key, value)] * length
        if len(value) != length:
            self.bad(key, f"{len(value)} entries", f"{length}, one per layer")
        return [self.checked(f"{key}[{i}]", one) for i, one in enumerate(value)]

    def items(self, key: str) -> list[int] | None:
        """An array of whole numbers or truth values, None where there is none."""
        value = self.get(key)
        if not isinstance(value, list):
            return None
        if len(value) > MAX_LAYERS:
            self.bad(key, f"{len(value)} entries", f"at most {MAX_LAYERS}")
        return [self.checked(f"{key}[{i}]", one) for i, one in enumerate(value)]
