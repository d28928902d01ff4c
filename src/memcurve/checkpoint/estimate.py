"""The weights of a model from its config alone: each parameter that the Transformers class of its type makes, exactly.

parameters.json holds, per model type, what verify/parameters.py found that transformers 5.23.0 does:

    class       whose parameters these are
    defaults    what a config lacks; alias: other name -> own name
    lets        attributes that the config class computes: a tree
    counts      name of a list of modules -> its length: a tree
    blocks      (prefix of names, number of the block among those that types share)

A block lists objects of suffix of a name -> dimensions, and [condition, block where it holds, block where not]. A tree is
[condition, tree where it holds, tree where not] or a leaf. Expressions and conditions are words in postfix order,
"head_dim num_attention_heads *"; dimensions are expressions with commas. `*` in a name stands for the places in a list of modules;
i, j, k are those places in expressions.
"""

from __future__ import annotations

import json
from os.path import dirname, join

from ..base import BadConfig, NotDescribed, show
from ..config import MAX_COUNT, MAX_LAYERS, Config
from ..families.reading import OLD_WORDS
from ..units import dtype_bytes, dtype_name
from . import Tensor, Weights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..model import Model

# How checkpoints name the dtypes (safetensors' format).
STORED = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int8": "I8",
}  # fmt: skip
INDICES = "ijk"
MAX_TENSORS, MAX_ELEMENTS = 1_000_000, 2**62
FILES = "give the checkpoint: --weights F"
MORE_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")


class _Absent:
    """Stands for a key that neither the config nor its class has."""


ABSENT = _Absent()


def estimate(model: Model, dtype: str | None = None) -> Weights:
    """The weights of the model that a config describes: one tensor per parameter, tied ones once, without buffers.

    dtype: of all tensors; None for the config's own. NotDescribed where the config does not determine them (a GGUF file, a pattern,
    a type without a class in Transformers 5.23.0, quantised weights without dtype); BadConfig for unusable sizes.
    """
    config = model.config
    if not isinstance(config, Config):
        raise NotDescribed(f"{model.name}: no config.json, from which weights could follow; {FILES}")
    entry, notes = _entry(model, config)
    name = _stored_dtype(model, config, dtype)
    known = {"defaults": entry["defaults"], "alias": entry.get("alias", {})}
    values = Values(Config(config.data, config.model_type, known, config.path), entry.get("lets", {}))
    size, kind = dtype_bytes(name), STORED[name]
    tensors = []
    for path, shape in parameters(entry, values):
        elements = 1
        for length in shape:
            elements *= length
        if elements > MAX_ELEMENTS or len(tensors) >= MAX_TENSORS:
            raise BadConfig(f"{model.name}: {path} {list(shape)}: more than any model has; expected smaller sizes")
        tensors.append(Tensor(name=path, dtype=kind, shape=shape, bytes=elements * size))
    return Weights(source=model.name, tensors=tuple(tensors), estimated=True, notes=(*notes, *_more(config)))


def _stored_dtype(model: Model, config: Config, dtype: str | None) -> str:
    if dtype is not None:
        return dtype_name(dtype)
    if any(isinstance(level.get("quantization_config"), dict) for level in (config.root, config.data)):
        raise NotDescribed(
            f"{config.path}quantization_config: {model.name} is stored quantised, in sizes that its config does not tell; "
            f'{FILES}, or dtype="bf16" for its weights unquantised'
        )
    if model.dtype is None:
        raise BadConfig(f'dtype: missing in the config of {model.name}; give one, such as dtype="bf16" (--dtype bf16)')
    return dtype_name(model.dtype)


def _entry(model: Model, config: Config) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the table says of the model's type, or of the class that its config names; and what to say with it."""
    types = table()["types"]
    named = config.architectures
    if config.path:
        raise NotDescribed(
            f"{model.name}: {config.model_type} is one part of it, and its other parts have weights too; {FILES}"
        )
    entry = types.get(config.model_type)
    if entry is None:
        entry = next((one for one in types.values() if one["class"] in named), None)
        if entry is None:
            raise NotDescribed(
                f"model type {show(config.model_type)}: Transformers has no class for it whose weights are known; {FILES}"
            )
    how = f"reckoned from the config: the parameters of {entry['class']} in Transformers 5.23.0, without buffers"
    if named and entry["class"] not in named:
        return entry, (f"{how}; the config names {show(named[0])}, which may have others",)
    return entry, (how,)


def _more(config: Config) -> tuple[str, ...]:
    for key in MORE_LAYERS:
        count = config.data.get(key)
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return (
                f"{key} {count}: files may hold as many layers more, for multi-token prediction, which the class leaves out",
            )
    return ()


_table: dict[str, Any] | None = None


def table() -> dict[str, Any]:
    """parameters.json, read once."""
    global _table
    if _table is None:
        with open(join(dirname(dirname(__file__)), "parameters.json"), encoding="utf-8") as stream:
            _table = json.load(stream)
    return _table


def parameters(entry: dict[str, Any], values: Values) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every parameter of a type's class."""
    blocks = table()["blocks"]
    for prefix, number in entry["blocks"]:
        for place in _places(prefix, entry["counts"], values):
            for suffix, dimensions, inner in _rows(blocks[number], prefix, entry["counts"], values, place):
                name = prefix + suffix
                yield _name(name, inner), values.shape(dimensions, inner, name)


def _rows(
    block: list[Any], prefix: str, counts: dict[str, Any], values: Values, place: tuple[int, ...]
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(suffix, dimensions, places) of what a block has at a place."""
    for item in block:
        if isinstance(item, dict):
            for suffix, dimensions in item.items():
                for inner in _places(suffix, counts, values, prefix, place):
                    yield suffix, dimensions, inner
        else:
            condition, yes, no = item
            if not any(word in INDICES[len(place) :] for word in condition.split(" ")):
                yield from _rows(yes if values.holds(condition, place) else no, prefix, counts, values, place)
                continue
            for part in (yes, no):
                for suffix, dimensions, inner in _rows(part, prefix, counts, values, place):
                    if values.holds(condition, inner) == (part is yes):
                        yield suffix, dimensions, inner


def _places(
    name: str, counts: dict[str, Any], values: Values, before: str = "", place: tuple[int, ...] = ()
) -> list[tuple[int, ...]]:
    """Every combination of indices that the lists in a name have, `place` in front."""
    found = [place]
    parts = name.split("*")
    for at in range(1, len(parts)):
        tree = counts[(before + "*".join(parts[:at])).removesuffix(".")]
        found = [
            (*one, index)
            for one in found
            for index in range(max(0, values.count(values.leaf(tree, one), one, MAX_LAYERS)))
        ]
    return found


def _name(pattern: str, place: tuple[int, ...]) -> str:
    for index in place:
        pattern = pattern.replace("*", str(index), 1)
    return pattern


def _index(items: Any, at: Any) -> Any:
    if not isinstance(items, list) or not isinstance(at, int):
        raise TypeError
    return items[at]


def _power(base: float, exponent: float) -> float:
    if not (abs(base) < MAX_COUNT and 0 <= exponent < 64):
        raise TypeError
    return base**exponent


def _ceil(value: float) -> int:
    return -int(-value // 1)


PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "/": lambda a, b: a / b,
    "%": lambda a, b: a % b,
    "**": _power,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
    "in": lambda a, b: isinstance(b, list) and a in b,
    "[]": _index,
}
SINGLES: dict[str, Callable[[Any], Any]] = {
    "null": lambda a: a is None,
    "has": lambda a: a is not ABSENT,
    "truth": bool,
    "len": len,
    "int": int,
    "round": round,
    "ceil": _ceil,
}


class Values:
    """What expressions speak of: the config's keys as the class holds them, and the places in lists of modules."""

    def __init__(self, config: Config, lets: dict[str, Any]) -> None:
        self.config, self.lets = config, lets
        self._found: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def raw(self, name: str) -> Any:
        """A key as the config or its class has it. BadConfig for what is no plain value."""
        config = self.config
        value = config.get(name) if config.has(name) else self._nested(name)
        if isinstance(value, (bool, str, type(None), _Absent)):
            return value
        if isinstance(value, (int, float)):
            if not -MAX_COUNT <= value <= MAX_COUNT:
                config.bad(name, value, f"a number up to {MAX_COUNT}")
            return value
        if not isinstance(value, list) or len(value) > MAX_LAYERS:
            config.bad(name, value, f"a number, a word, true or false, or a list of at most {MAX_LAYERS:,}")
        return value

    def _nested(self, name: str) -> Any:
        level: Any = self.config.data
        for word in name.split("."):
            if not isinstance(level, dict) or word not in level:
                return ABSENT
            level = level[word]
        return level

    def attribute(self, name: str) -> Any:
        """A key as the class holds it after computing what it computes."""
        if name not in self._found:
            tree = self.lets.get(name, "=")
            value = self._let(name, tree, None)
            if name.rpartition(".")[2] == "layer_types" and isinstance(value, list):
                value = [OLD_WORDS.get(word, word) if isinstance(word, str) else word for word in value]
            self._found[name] = value
        return self._found[name]

    def _let(self, name: str, tree: Any, place: tuple[int, ...] | None) -> Any:
        leaf = self.leaf(tree, place or (), self.raw)
        if leaf == "=":
            return self.raw(name)
        if isinstance(leaf, str):
            return self.reckon(leaf, place or (), self.raw, name)
        if "value" in leaf:
            return leaf["value"]
        count = self.count(self.leaf(leaf["count"], (), self.raw), (), MAX_LAYERS, self.raw)
        return [self._let(name, leaf["item"], (index,)) for index in range(count)]

    def leaf(self, tree: Any, place: tuple[int, ...], look: Callable[[str], Any] | None = None) -> Any:
        """The leaf that a tree's conditions lead to."""
        while isinstance(tree, list):
            tree = tree[1] if self.holds(tree[0], place, look) else tree[2]
        return tree

    def holds(self, condition: str, place: tuple[int, ...], look: Callable[[str], Any] | None = None) -> bool:
        """Whether a condition holds; one about an empty value does not."""
        try:
            return bool(self._run(condition, place, look or self.attribute))
        except (TypeError, ZeroDivisionError):
            return False
        except IndexError:
            raise self._short(condition) from None

    def count(self, text: str, place: tuple[int, ...], most: int, look: Callable[[str], Any] | None = None) -> int:
        value = self.reckon(text, place, look or self.attribute, text)
        if not isinstance(value, int) or isinstance(value, bool) or value > most:
            self.config.bad(text, value, f"an integer up to {most:,}")
        return value

    def shape(self, dimensions: str, place: tuple[int, ...], name: str) -> tuple[int, ...]:
        """The numbers that dimensions give at a place. BadConfig for one that is no size."""
        if dimensions in self._shapes:
            return self._shapes[dimensions]
        found = []
        for text in dimensions.split(",") if dimensions else ():
            value = self.reckon(text, place, self.attribute, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.config.bad(text, value, f"a size of {name}")
            found.append(value)
        if not any(word in INDICES for word in dimensions.replace(",", " ").split(" ")):
            self._shapes[dimensions] = tuple(found)
        return tuple(found)

    def reckon(self, text: str, place: tuple[int, ...], look: Callable[[str], Any], name: str) -> Any:
        """The value of an expression. BadConfig where its keys hold nothing that can be reckoned with."""
        try:
            return self._run(text, place, look)
        except (TypeError, ZeroDivisionError, ValueError, OverflowError):
            keys = {
                word: look(word)
                for word in text.split(" ")
                if word.isidentifier() and word not in (*SINGLES, *PAIRS, *INDICES)
            }
            wrong = next(
                (key for key, value in keys.items() if not isinstance(value, (int, float, list)) or value == 0), name
            )
            value = keys.get(wrong)
            self.config.bad(wrong, None if value is ABSENT else value, f"a number above 0, for {name}")
        except IndexError:
            raise self._short(text) from None

    def _short(self, text: str) -> BadConfig:
        return BadConfig(
            f"{self.config.path}{text.split(' ')[0]}: too short; expected one entry per layer ({self.config.model_type})"
        )

    def _run(self, text: str, place: tuple[int, ...], look: Callable[[str], Any]) -> Any:
        stack: list[Any] = []
        for word in text.split(" "):
            if word in PAIRS:
                right = stack.pop()
                stack.append(PAIRS[word](stack.pop(), right))
            elif word in SINGLES:
                stack.append(SINGLES[word](stack.pop()))
            elif word in INDICES:
                stack.append(place[INDICES.index(word)])
            elif word[0] == "'":
                stack.append(word[1:])
            elif word[0].isdigit() or word[0] == "-":
                stack.append(float(word) if "." in word or "e" in word else int(word))
            else:
                stack.append(look(word))
        return stack.pop()
