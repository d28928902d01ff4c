"""The weights of a model from its config alone: each parameter that the Transformers class of its type makes, exactly.

parameters.json holds, per model type, what verify/parameters.py found that transformers 5.23.0 does:

    class       whose parameters these are
    expects     conditions with the one outcome that the table knows
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
from ..config import MAX_COUNT, MAX_LAYERS, Config, read_type
from ..families import SIZES
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
    values = Values(Config(config.root if entry.get("sections") else config.data, config.model_type, None), entry)
    missing = tuple(f"{section}." for section in entry.get("sections", {}) if values.given(section) is ABSENT)
    _check(entry, values, missing)
    notes += tuple(f"{section[:-1]}: missing in the config: without the weights of that part" for section in missing)
    size, kind = dtype_bytes(name), STORED[name]
    tensors: list[Tensor] = []
    for path, shape in parameters(entry, values, missing):
        elements = 1
        for length in shape:
            elements *= length
        if min(shape, default=1) < 0:
            raise BadConfig(f"{model.name}: its sizes make {path} {list(shape)}; expected none below 0")
        if elements > MAX_ELEMENTS or len(tensors) >= MAX_TENSORS:
            raise BadConfig(f"{model.name}: {path} {list(shape)}: more than any model has; expected smaller sizes")
        tensors.append(Tensor(name=path, dtype=kind, shape=shape, bytes=elements * size))
    if values.assumed:
        sizes = ", ".join(f"{key} {value}" for key, value in values.assumed.items())
        notes += (f"not in the config, so as the class has it: {sizes}",)
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
    named = config.architectures
    entry = entry_of(f'{json.dumps(read_type(config.root) if config.path else config.model_type)}:{{"')
    if config.path and not (entry and entry.get("sections")):
        raise NotDescribed(
            f"{model.name}: {config.model_type} is one part of it, and its other parts have weights too; {FILES}"
        )
    if entry is None and named and all(config.given(key) for key in SIZES):
        entry = entry_of(f'"class":{json.dumps(named[0])}')
    if entry is None or (entry.get("sections") and not config.path):
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


def _check(entry: dict[str, Any], values: Values, missing: tuple[str, ...]) -> None:
    """NotDescribed for a config that takes the class down a way that the table does not know."""
    config = values.config
    if config.per_layer is not None:
        raise NotDescribed(f"{config.path}per_layer_config: the weights of single layers are not described; {FILES}")
    for section, model_type in entry.get("sections", {}).items():
        given = values.given(f"{section}.model_type")
        if model_type is not None and given not in (ABSENT, model_type):
            raise NotDescribed(
                f"{section}.model_type: {show(given)}; weights of {config.model_type} are described with {model_type} only; {FILES}"
            )
    for condition, usual in entry.get("expects", ()):
        if not _speaks(condition, missing) and values.holds(condition, ()) != usual:
            shown = ", ".join(f"{key} {show(values.attribute(key))}" for key in keys_of(condition))
            raise NotDescribed(f"{shown}: weights of {config.model_type} in this case are not described; {FILES}")


_read: list[str] | None = None


def _lines() -> list[str]:
    """parameters.json, a line per block and per type, read once; a line is parsed when it is asked for."""
    global _read
    if _read is None:
        with open(join(dirname(dirname(__file__)), "parameters.json"), encoding="utf-8") as stream:
            _read = stream.read().split("\n")
    return _read


def entry_of(mark: str) -> dict[str, Any] | None:
    """What the table says of the first type whose line holds this text: its name and a colon, or a class."""
    line = next((line for line in _lines() if mark in line and line.startswith('"')), None)
    return None if line is None else dict(json.loads(line[line.index("{") :].rstrip(",")))


def block(number: int) -> list[Any]:
    """One of the blocks that types share: the first line opens the list."""
    found: list[Any] = json.loads(_lines()[number + 1].rstrip(","))
    return found


def parameters(
    entry: dict[str, Any], values: Values, without: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every parameter of a type's class, but for those that depend on the sections named in `without`."""
    for prefix, number, *section in entry["blocks"]:
        values.section = section[0] if section else ""
        if (without and values.section.startswith(without)) or _depends(prefix, entry["counts"], without):
            continue
        rows = block(number)
        for place in _places(prefix, entry["counts"], values):
            for suffix, dimensions, inner in _rows(rows, prefix, entry["counts"], values, place, without):
                name = prefix + suffix
                yield _name(name, inner), values.shape(dimensions, inner, name)


def _rows(
    rows: list[Any],
    prefix: str,
    counts: dict[str, Any],
    values: Values,
    place: tuple[int, ...],
    without: tuple[str, ...],
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(suffix, dimensions, places) of what a block has at a place."""
    for item in rows:
        if isinstance(item, dict):
            for suffix, dimensions in item.items():
                if without and (_speaks(dimensions, without) or _depends(prefix + suffix, counts, without)):
                    continue
                for inner in _places(suffix, counts, values, prefix, place):
                    yield suffix, dimensions, inner
            continue
        condition, yes, no = item
        if without and _speaks(condition, without):
            continue
        if not any(word in INDICES[len(place) :] for word in condition.split(" ")):
            yield from _rows(yes if values.holds(condition, place) else no, prefix, counts, values, place, without)
            continue
        for part in (yes, no):
            for suffix, dimensions, inner in _rows(part, prefix, counts, values, place, without):
                if values.holds(condition, inner) == (part is yes):
                    yield suffix, dimensions, inner


def _speaks(tree: Any, sections: tuple[str, ...]) -> bool:
    """Whether an expression, dimensions or a tree speak of a key of the sections."""
    if isinstance(tree, list):
        return any(_speaks(one, sections) for one in tree)
    return bool(sections) and any(word.startswith(sections) for word in tree.replace(",", " ").split(" "))


def _depends(name: str, counts: dict[str, Any], sections: tuple[str, ...]) -> bool:
    """Whether a list that a name goes through is as long as a key of the sections says."""
    parts = name.split("*")
    return bool(sections) and any(
        _speaks(counts["*".join(parts[:at]).removesuffix(".")], sections) for at in range(1, len(parts))
    )


def _places(
    name: str, counts: dict[str, Any], values: Values, before: str = "", place: tuple[int, ...] = ()
) -> list[tuple[int, ...]]:
    """Every combination of indices that the lists in a name have, `place` in front."""
    found = [place]
    parts = name.split("*")
    for at in range(1, len(parts)):
        tree = counts[(before + "*".join(parts[:at])).removesuffix(".")]
        look = values.attribute
        lengths = [values.count(values.leaf(tree, one, look), one, look) for one in found]
        if sum(lengths) > MAX_TENSORS:
            values.config.bad(name, f"{sum(lengths):,} modules", f"at most {MAX_TENSORS:,}")
        found = [(*one, index) for one, length in zip(found, lengths, strict=True) for index in range(length)]
    return found


def _name(pattern: str, place: tuple[int, ...]) -> str:
    for index in place:
        pattern = pattern.replace("*", str(index), 1)
    return pattern


def keys_of(text: str) -> list[str]:
    """The keys in an expression, each once."""
    words = (word for word in text.split(" ") if word not in PAIRS and word not in SINGLES and word not in INDICES)
    return list(dict.fromkeys(word for word in words if word[0] == "_" or word[0].isalpha()))


def _index(items: Any, at: Any) -> Any:
    if not isinstance(items, (list, str)) or not isinstance(at, int):
        raise TypeError
    return items[at]


def _list(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise TypeError
    return items


def _power(base: float, exponent: float) -> float:
    if not (abs(base) < MAX_COUNT and 0 <= exponent < 64):
        raise TypeError
    found: float = base**exponent
    return found


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
    "before": lambda items, at: _list(items)[:at].count(_index(items, at)),
    "count": lambda items, word: _list(items).count(word),
    "max": max,
    "min": min,
}
SINGLES: dict[str, Callable[[Any], Any]] = {
    "null": lambda a: a is None,
    "has": lambda a: a is not ABSENT,
    "truth": lambda a: a is not ABSENT and bool(a),
    "len": len,
    "int": int,
    "round": round,
    "ceil": _ceil,
}


class Values:
    """What expressions speak of: the config's keys as the class holds them, and the places in lists of modules."""

    def __init__(self, config: Config, entry: dict[str, Any]) -> None:
        self.config, self.section = config, ""
        self.lets: dict[str, Any] = entry.get("lets", {})
        self.defaults, self.init = entry["defaults"], entry.get("init", {})
        self.alias: dict[str, str] = entry.get("alias", {})
        # Sizes that the config lacks, with the class's own that stood in.
        self.assumed: dict[str, int] = {}
        self._raw: dict[str, Any] = {}
        self._found: dict[str, Any] = {}
        self._shapes: dict[tuple[str, str], tuple[int, ...]] = {}

    def raw(self, name: str) -> Any:
        """A key as the config or its class has it; of a section, whether it is there. BadConfig for what is no plain value."""
        if name not in self._raw:
            value = self._given_or_default(name)
            config = self.config
            if isinstance(value, dict):
                value = True
            elif isinstance(value, (int, float)) and not -MAX_COUNT <= value <= MAX_COUNT:
                config.bad(name, value, f"a number up to {MAX_COUNT}")
            elif isinstance(value, list) and len(value) > MAX_LAYERS:
                config.bad(name, f"{len(value)} entries", f"at most {MAX_LAYERS:,}")
            self._raw[name] = value
        return self._raw[name]

    def _given_or_default(self, name: str) -> Any:
        # A class reads and writes one attribute under all its names; a value under another than its own is set last and wins.
        own = self.alias.get(name, name)
        names = (*(other for other, one in self.alias.items() if one == own and other != own), own)
        for one in names:
            value = self.given(one)
            if value is not ABSENT:
                return value
        for one in names:
            if one in self.init and not isinstance(self.given(one.rpartition(".")[0]), dict):
                return self.init[one]
        value = next((self.defaults[one] for one in names if one in self.defaults), ABSENT)
        if isinstance(value, int) and not isinstance(value, bool):
            self.assumed[own] = value
        return value

    def given(self, name: str) -> Any:
        """What the file itself holds; ABSENT for nothing."""
        level: Any = self.config.data
        for word in name.split("."):
            if not isinstance(level, dict) or word not in level:
                return ABSENT
            level = level[word]
        return level

    def within(self, name: str) -> Any:
        """An attribute of the section that a block speaks of."""
        return self.attribute(self.section + name)

    def attribute(self, name: str) -> Any:
        """A key as the class holds it after computing what it computes."""
        if name not in self._found:
            tree = self.lets.get(name, "=")
            value = self._let(name, tree, None)
            if isinstance(value, list) and name in ("layer_types", self.alias.get("layer_types")):
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
        count = self.count(self.leaf(leaf["count"], (), self.raw), (), self.raw)
        return [self._let(name, leaf["item"], (index,)) for index in range(count)]

    def leaf(self, tree: Any, place: tuple[int, ...], look: Callable[[str], Any] | None = None) -> Any:
        """The leaf that a tree's conditions lead to."""
        while isinstance(tree, list):
            tree = tree[1] if self.holds(tree[0], place, look) else tree[2]
        return tree

    def holds(self, condition: str, place: tuple[int, ...], look: Callable[[str], Any] | None = None) -> bool:
        """Whether a condition holds; one about an empty value does not."""
        try:
            return bool(self._run(condition, place, look or self.within))
        except (TypeError, ZeroDivisionError):
            return False
        except IndexError:
            raise self._short(condition) from None

    def count(self, text: str, place: tuple[int, ...], look: Callable[[str], Any]) -> int:
        """A length of a list: none where it comes out below 0, as range() has it."""
        value = self.reckon(text, place, look, text)
        if not isinstance(value, int) or value > MAX_LAYERS:
            self.config.bad(text, value, f"an integer up to {MAX_LAYERS:,}")
        return max(0, value)

    def shape(self, dimensions: str, place: tuple[int, ...], name: str) -> tuple[int, ...]:
        """The numbers that dimensions give at a place. BadConfig for one that is no size."""
        key = (self.section, dimensions)
        if key in self._shapes:
            return self._shapes[key]
        found = []
        for text in dimensions.split(",") if dimensions else ():
            value = self.reckon(text, place, self.within, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.config.bad(text, value, f"a size of {name}")
            found.append(value)
        if not any(word in INDICES for word in dimensions.replace(",", " ").split(" ")):
            self._shapes[key] = tuple(found)
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
                stack.append(int(word) if word.lstrip("-").isdigit() else float(word))
            else:
                stack.append(look(word))
        return stack.pop()
