"""Configs as read: the decoder's own section found, aliases and class defaults applied, sizes checked.

Knows JSON and what Transformers' config classes assume (defaults.json), nothing about memory.
"""

from __future__ import annotations

import json
from os.path import dirname, join

from .base import BadConfig, NotDescribed, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

MAX_COUNT = 2**31 - 1
MAX_LAYERS = 10_000
MAX_DEPTH = 32
# Sections that hold the language model, where the type has no class in Transformers that names it.
SECTIONS = ("text_config", "llm_config", "language_config", "language_model_config", "text_model_config")


class Abridged(dict):  # type: ignore[type-arg]
    """A config of the catalogue without all keys of the published file: what it lacks says nothing."""


_defaults_text: str | None = None


def _defaults() -> str:
    global _defaults_text
    if _defaults_text is None:
        with open(join(dirname(__file__), "defaults.json"), encoding="utf-8") as file:
            _defaults_text = file.read()
    return _defaults_text


def class_defaults(model_type: str) -> dict[str, Any] | None:
    """What the type's config class assumes, or None for a type that Transformers lacks. One line of the file is parsed."""
    text, mark = _defaults(), f"\n{json.dumps(model_type)}:"
    start = text.find(mark)
    if start < 0:
        return None
    start += len(mark)
    found: dict[str, Any] = json.loads(text[start : text.index("\n", start)].rstrip(","))
    return found


def composites() -> list[str]:
    """Model types whose class nests the decoder's config."""
    return [name for name, entry in json.loads(_defaults()).items() if "text" in entry]


def type_of(mark: str) -> str | None:
    """The model type whose line of the defaults holds this text (a class name, for a config.json that lacks model_type)."""
    text = _defaults()
    at = text.find(mark)
    if at < 0:
        return None
    line = text[text.rindex("\n", 0, at) + 1 :]
    return line[1 : line.index('"', 1)]


def in_transformers(architecture: str) -> bool:
    """Whether Transformers has a generating class of this name."""
    name = json.dumps(architecture)
    return any(type_of(mark) for mark in (f'"arch":[{name}', f",{name}"))


def parse(text: str, where: str) -> dict[str, Any]:
    """A config.json's text as a dict; BadConfig for anything that is not one."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise BadConfig(f"{where}: nested too deeply; expected at most {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise BadConfig(f"{where}: not JSON ({str(error)[:80]}); expected a config.json") from None
    if not isinstance(data, dict):
        raise BadConfig(f"{where}: holds {show(data)}; expected a JSON object")
    return data


class Config:
    """One decoder's config. `get` and `count` look a key up in the file, under its aliases, and in the class defaults."""

    def __init__(
        self,
        data: Mapping[str, Any],
        model_type: str,
        defaults: Mapping[str, Any] | None,
        path: str = "",
        root: Mapping[str, Any] | None = None,
    ) -> None:
        self.data, self.model_type, self.path = data, model_type, path
        # The whole config.json, where this is a section of it: engines choose a model class by its outermost keys.
        self.root = data if root is None else root
        known = defaults or {}
        self.has_class = defaults is not None
        self.defaults: Mapping[str, Any] = known.get("defaults", {})
        alias: Mapping[str, str] = known.get("alias", {})
        self._names: dict[str, tuple[str, ...]] = {}
        for own in set(alias.values()):
            # The class reads and writes one attribute under all these names; a value under an alias is set last and wins.
            names = (*(other for other, name in alias.items() if name == own and other != own), own)
            self._names.update(dict.fromkeys(names, names))
        # What was asked for and is not in the file, with the class default that stood in.
        self.assumed: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Config of {self.model_type}, {len(self.data)} keys>"

    def names(self, key: str) -> tuple[str, ...]:
        """The names under which the class reads a key, the one that wins first."""
        return self._names.get(key, (key,))

    def get(self, key: str) -> Any:
        """The value as the class would hold it before computing anything: from the file, else the class default, else None."""
        names = self.names(key)
        for name in names:
            if name in self.data:
                return self.data[name]
        for name in names:
            if name in self.defaults:
                self.assumed[key] = self.defaults[name]
                return self.defaults[name]
        return None

    def own(self, key: str) -> Any:
        """As get, but under this name only."""
        return self.data.get(key, self.defaults.get(key))

    def given(self, key: str) -> bool:
        """Whether the file itself holds the key with a value other than null."""
        return any(self.data.get(name) is not None for name in self.names(key))

    def has(self, key: str) -> bool:
        """Whether the file or the class knows the key at all."""
        return any(name in self.data or name in self.defaults for name in self.names(key))

    def overlaid(self, values: Mapping[str, Any], path: str | None = None) -> Config:
        """The same config with some values replaced."""
        copy = Config.__new__(Config)
        copy.__dict__.update(self.__dict__)
        copy.data = {**self.data, **values}
        if path is not None:
            copy.path = path
        return copy

    @property
    def architectures(self) -> list[str]:
        """The model classes that the whole config.json names."""
        names = self.root.get("architectures")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def per_layer(self) -> dict[int, Mapping[str, Any]] | None:
        """`per_layer_config`: what single layers override, by index; None without it."""
        value = self.data.get("per_layer_config")
        if value is None:
            return None
        if not isinstance(value, dict):
            self.bad("per_layer_config", value, "an object of layer index to overrides")
        found: dict[int, Mapping[str, Any]] = {}
        for key, overrides in value.items():
            if not (key.isascii() and key.isdigit() and len(key) < 6) or not isinstance(overrides, dict):
                self.bad(f"per_layer_config[{show(key)}]", overrides, "a layer index with an object of overrides")
            found[int(key)] = overrides
        return found

    def layer(self, index: int) -> Config:
        """The config as one layer sees it."""
        overrides = (self.per_layer or {}).get(index)
        return self if overrides is None else self.overlaid(overrides, f"{self.path}per_layer_config[{index}].")

    def bad(self, key: str, value: object, expected: str) -> NoReturn:
        where = f"{self.path}{key}"
        if value is None:
            raise BadConfig(f"{where}: missing; expected {expected} ({self.model_type})")
        raise BadConfig(f"{where}: {show(value)}; expected {expected} ({self.model_type})")

    def count(self, key: str, default: int | None = None, least: int = 1, most: int = MAX_COUNT) -> int:
        """A whole number within bounds. `default` is for a key that is absent or null where the class computes it so."""
        value = self.get(key)
        if value is None:
            value = default
        return self.checked(key, value, least, most)

    def checked(self, key: str, value: Any, least: int = 1, most: int = MAX_COUNT) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.bad(key, value, f"an integer from {least} to {most}")
        return value

    def ratio(self, whole: str, parts: str) -> int:
        """One size divided by another, rounded down: a width by its heads."""
        return self.checked(f"{whole} // {parts}", self.count(whole) // self.count(parts))

    def product(self, factor: str, size: str, default: float | None = None) -> int:
        """One size times another: a width by its expansion, which may be a fraction."""
        return self.checked(f"{factor} * {size}", int(self.number(factor, default) * self.count(size)))

    def optional(self, key: str, least: int = 1) -> int | None:
        """A whole number, or None where the key is absent or null."""
        return None if self.get(key) is None else self.count(key, least=least)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool) and value not in (0, 1):
            self.bad(key, value, "true or false")
        return bool(value)

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < MAX_COUNT:
            self.bad(key, value, "a positive number")
        return float(value)

    def word(self, key: str, default: str | None = None) -> str:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            self.bad(key, value, "a string")
        return value

    def items(self, key: str) -> list[Any] | None:
        """A list, or None where absent or null."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.bad(key, value, "a list")
        if len(value) > MAX_LAYERS:
            self.bad(key, f"{len(value)} entries", f"at most {MAX_LAYERS}")
        return value

    def counts(self, key: str, least: int = 0) -> list[int] | None:
        values = self.items(key)
        return None if values is None else [self.checked(f"{key}[{i}]", value, least) for i, value in enumerate(values)]

    def words(self, key: str) -> list[str] | None:
        values = self.items(key)
        if values is not None:
            for i, value in enumerate(values):
                if not isinstance(value, str):
                    self.bad(f"{key}[{i}]", value, "a string")
        return values

    def section(self, key: str) -> Config | None:
        """A nested object of the file read on its own, without defaults."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.bad(key, value, "an object")
        return Config(value, self.model_type, None, f"{self.path}{key}.")

    def part(self, key: str, model_type: str) -> Config:
        """A nested config that is read with its own class's defaults; all of them where the section is missing."""
        section = self.section(key)
        return Config(section.data if section else {}, model_type, class_defaults(model_type), f"{self.path}{key}.")

    @property
    def layers(self) -> int:
        return self.count("num_hidden_layers", most=MAX_LAYERS)

    @property
    def heads(self) -> int:
        return self.count("num_attention_heads")

    @property
    def kv_heads(self) -> int:
        return self.count("num_key_value_heads", self.optional("num_attention_heads"))

    @property
    def hidden(self) -> int:
        return self.count("hidden_size")

    @property
    def head_dim(self) -> int:
        """head_dim, or what nearly all classes compute without it: hidden_size // num_attention_heads."""
        if self.get("head_dim") is not None:
            return self.count("head_dim")
        return self.ratio("hidden_size", "num_attention_heads")


def read_type(data: Mapping[str, Any], where: str = "") -> str:
    """The model type that a config names, or the one of its architecture."""
    model_type = data.get("model_type")
    if isinstance(model_type, str) and model_type:
        return model_type
    if model_type not in (None, ""):
        raise BadConfig(f"{where}model_type: {show(model_type)}; expected a string")
    if isinstance(data.get("ssm_cfg"), dict) and "d_model" in data:
        return "mamba_ssm"
    if isinstance(data.get("_config_class"), str):
        # Presets kept in Python code name the class instead.
        found = type_of(f'"class":{json.dumps(data["_config_class"])}')
        if found:
            return found
    names = data.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        name = json.dumps(names[0])
        found = type_of(f'"arch":[{name}') or type_of(f",{name}")
        if found:
            return found
        raise NotDescribed(f"{where}architectures: {show(names[0])} is not described, and the config has no model_type")
    raise BadConfig(f'{where}model_type: missing; expected the model type of a config.json, such as "llama"')


def dtype_of(*levels: Mapping[str, Any]) -> Any:
    """The config's own dtype: `dtype` or `torch_dtype`, the innermost section first."""
    for level in levels:
        for key in ("dtype", "torch_dtype"):
            value = level.get(key)
            if value is not None and value != "auto":
                return value
    return None
