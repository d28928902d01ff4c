"""Writes src/memcurve/parameters.json: which parameters the class of each model type makes of a config, and their shapes.

    python verify/parameters.py                # every type with a causal class; needs torch and the pinned transformers
    python verify/parameters.py llama jamba    # only these; other types' lines stay

Each type's class is built on the meta device from small configs whose values remember what is done with them (symbols.py). Each
parameter then has its dimensions as expressions of config keys, and the conditions that were asked on the way are known. Over many
configs, changed at random, the smallest decision tree over those conditions is found that tells when a parameter is there and
which expressions it has; values that the config class computes (layer_types, head_dim) are found alike. checkpoint/estimate.py
says how the file reads.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import math
import multiprocessing
import operator
import random
import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import symbols
import torch
import transformers
from record import HUB
from symbols import INDICES, expression, plain, tracing
from transformers import PreTrainedConfig

from memcurve.shrink import base_keys, merge, small
from memcurve.verify.transformers import (
    CONFIG_MAPPING,
    PINNED,
    classes_of,
    find_config,
    model_class,
    quiet,
)

TARGET = Path(__file__).parents[1] / "src" / "memcurve" / "parameters.json"
OPAQUE = ("model_type", "dtype", "architectures", "transformers_version", "id2label", "label2id", "name_or_path")
BASE = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {
    "tie_word_embeddings", "is_decoder", "add_cross_attention", "is_encoder_decoder", "vocab_size",
}  # fmt: skip


# Asked for in all configs, and no part of a model's structure.
NEVER = {"quantization_config", "pruned_heads", "torchscript", "attn_implementation", "is_encoder_decoder", "per_layer_config", "base_model_tp_plan",
    "decoder", "encoder", "generator", "text_config", "text_encoder", "thinker_config", "language_config", "llm_config", "decoder_config",
    "audio_config", "vision_config", "audio_encoder", "vocoder_config", "sub_configs", "auto_map", "adapter_config",
}  # fmt: skip


class Run:
    """One config of a type, and what the class made of it."""

    def __init__(self, raw: dict[str, Any], attributes: dict[str, Any], computed: dict[str, Any]) -> None:
        self.raw, self.attributes, self.computed = raw, attributes, computed
        self.parameters: dict[str, dict[tuple[int, ...], tuple[Any, ...]]] = defaultdict(dict)
        self.counts: dict[str, dict[tuple[int, ...], int]] = defaultdict(dict)
        self.shapes: dict[str, dict[tuple[int, ...], tuple[int, ...]]] = defaultdict(dict)
        self.values: dict[tuple[int, ...], dict[Any, Any]] = {}


class Pool:
    """What was asked in all runs of a type: conditions and counts of loops, by the config class and by the model's."""

    def __init__(self) -> None:
        self.config: set[Any] = set()
        self.model: set[Any] = set()
        self.counts: set[Any] = set()

    def extra(self) -> list[str]:
        """Keys that are asked for though no field of the class."""
        return sorted(name for word, name in (one for one in self.model if one[0] == "has") if name not in NEVER)


# --- one run ---


def flat(config: Any, path: str = "") -> dict[str, tuple[Any, str, Any]]:
    """path: (config object, attribute, value) of a config and the configs within."""
    found: dict[str, tuple[Any, str, Any]] = {}
    for name, value in list(vars(config).items()):
        if name.startswith("_") or name in OPAQUE:
            continue
        if isinstance(value, PreTrainedConfig):
            found |= flat(value, f"{path}{name}.")
        elif isinstance(value, dict) and value and all(isinstance(one, int) for one in value.values()):
            found |= {f"{path}{name}.{key}": (value, key, one) for key, one in value.items()}
        elif not isinstance(value, (dict, torch.dtype)):
            found[path + name] = (config, name, value)
    return found


def configs(config: Any, path: str = "") -> dict[int, str]:
    found = {id(config): path}
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            found |= configs(value, f"{path}{name}.")
    return found


def own_fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {
        field.name: field
        for field in dataclasses.fields(cls)
        if field.name not in BASE and field.name not in OPAQUE and field.name not in cls.sub_configs_defaults
    }


def full_keys(cls: Any, keys: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments with every field of the class stated, nested configs as given."""
    found = dict(keys)
    for name, field in own_fields(cls).items():
        if name in found:
            continue
        if field.default is not dataclasses.MISSING:
            found[name] = copy.deepcopy(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[name] = field.default_factory()
    for name in ("tie_word_embeddings",):
        found.setdefault(name, getattr(cls, name, None))
        if found[name] is None:
            found.pop(name)
    return found


def kept(keys: dict[str, Any], nested: Any, path: str = "") -> dict[str, Any]:
    """Keyword arguments whose values remember their names."""
    found = {}
    for name, value in keys.items():
        if name in nested and isinstance(value, dict):
            spec = nested[name]
            inner = getattr(spec, "config_class", spec)
            found[name] = kept(value, getattr(inner, "sub_configs_defaults", {}), f"{path}{name}.")
        elif name in OPAQUE or isinstance(value, dict):
            found[name] = value
        else:
            found[name] = symbols.keep(value, path + name)
    return found


def flat_keys(keys: dict[str, Any], path: str = "") -> dict[str, Any]:
    found = {}
    for name, value in keys.items():
        if isinstance(value, dict):
            found |= flat_keys(value, f"{path}{name}.")
        else:
            found[path + name] = plain(value)
    return found


@functools.cache
def watched() -> Any:
    """The config class's attribute access, noting which flags and empty values are read."""
    real = PreTrainedConfig.__getattribute__

    def read(self: Any, name: str) -> Any:
        try:
            value = real(self, name)
        except AttributeError:
            if not name.startswith("_") and id(self) in READING:
                symbols.note("has", READING[id(self)] + name)
            raise
        if (value is None or value is True or value is False) and not name.startswith("_") and READING:
            path = READING.get(id(self))
            if path is not None:
                own = real(self, "attribute_map").get(name, name)
                symbols.note("null" if value is None else "truth", path + own)
        return value

    return read


READING: dict[int, str] = {}


def run(cls: Any, name: str, keys: dict[str, Any], pool: Pool) -> Run:
    """Builds the class from the keys; raises what it raises."""
    stated = full_keys(cls, keys)
    symbols.CONDITIONS.clear()
    symbols.COUNTS.clear()
    READING.clear()
    real = PreTrainedConfig.__getattribute__
    with tracing():
        config = cls(**{k: v for k, v in kept(stated, cls.sub_configs_defaults).items() if k != "model_type"})
        asked, loops = set(symbols.CONDITIONS), set(symbols.COUNTS)
        symbols.CONDITIONS.clear()
        symbols.COUNTS.clear()
        values = flat(config)
        made = Run(
            flat_keys(stated),
            {path: plain_list(value) for path, (_, _, value) in values.items()},
            {
                path: [*map(expression, value)] if type(value) in (list, tuple) else expression(value)
                for path, (_, _, value) in values.items()
            },
        )
        for path, (owner, attribute, value) in values.items():
            (owner if isinstance(owner, dict) else owner.__dict__)[attribute] = symbols.keep(plain_list(value), path)
        READING.update(configs(config))
        PreTrainedConfig.__getattribute__ = watched()  # type: ignore[method-assign]
        try:
            built = model_class(cls.model_type, name)
            model = built(find_config(config, built.config_class) or config)
        finally:
            PreTrainedConfig.__getattribute__ = real  # type: ignore[method-assign]
            READING.clear()
    conditions = {tidy(condition) for condition in symbols.CONDITIONS}
    pool.model |= conditions
    pool.config |= {tidy(condition) for condition in asked}
    pool.config |= {("null", path) for path, value in made.raw.items() if value is None}
    pool.config |= {("has", path) for path in made.raw if path not in own_fields(cls)}
    pool.config |= {("truth", path) for path, value in made.raw.items() if isinstance(value, bool)}
    pool.counts |= symbols.COUNTS | loops
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, (torch.nn.ModuleList, torch.nn.ParameterList))
    }
    for path, module in lists.items():
        pattern, indices = split(path, lists)
        made.counts[pattern][indices] = len(module)
    for path, parameter in model.named_parameters():
        pattern, indices = split(path, lists)
        shape = tuple(map(int, parameter.shape))
        made.parameters[pattern][indices] = tuple(getattr(parameter, "dimensions", shape))
        made.shapes[pattern][indices] = shape
    return made


def plain_list(value: Any) -> Any:
    value = plain(value)
    return [plain_list(item) for item in value] if isinstance(value, (list, tuple)) else value


def tidy(condition: Any) -> Any:
    """A condition in one form: of two sides of == the constant last."""
    word, *sides = condition
    if word == "==" and not isinstance(sides[0], (tuple, str)):
        sides.reverse()
    return (word, *sides)


def split(path: str, lists: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """A name with * for its places in lists, and those places."""
    parts = path.split(".")
    indices = []
    for at, part in enumerate(parts):
        if part.isdigit() and ".".join(parts[:at]) in lists:
            indices.append(int(part))
            parts[at] = "*"
    return ".".join(parts), tuple(indices)


# --- expressions ---

OPERATORS: dict[str, Any] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "/": operator.truediv, "**": operator.pow, "<": operator.lt, "==": operator.eq, "[]": lambda a, b: a[b],
    "in": lambda a, b: a in b, "ceil": math.ceil, "round": round, "int": int, "len": len, "null": lambda a: a is None, "truth": bool,
}  # fmt: skip


class Missing(Exception):
    """A key has no value here."""


def evaluate(how: Any, values: dict[str, Any]) -> Any:
    if isinstance(how, str):
        if how.startswith("'"):
            return how[1:]
        if how not in values:
            raise Missing(how)
        return values[how]
    if not isinstance(how, tuple):
        return how
    word, *operands = how
    return OPERATORS[word](*(evaluate(operand, values) for operand in operands))


def attempt(how: Any, values: dict[str, Any]) -> Any:
    """The value, or None where it can't be had."""
    if isinstance(how, tuple) and how[0] == "has":
        return how[1] in values
    try:
        return evaluate(how, values)
    except (Missing, TypeError, IndexError, ZeroDivisionError, OverflowError):
        return None


def postfix(how: Any) -> str:
    if isinstance(how, tuple):
        return " ".join([*map(postfix, how[1:]), how[0]])
    return str(how)


def names(how: Any) -> set[str]:
    """The keys in an expression."""
    if isinstance(how, tuple):
        return set().union(*map(names, how[1:]))
    return {how} if isinstance(how, str) and not how.startswith("'") and how not in INDICES else set()


def size(how: Any) -> int:
    return sum(map(size, how[1:])) + 1 if isinstance(how, tuple) else 1


# --- the smallest tree ---


class Unsolved(Exception):
    """No tree over the known conditions tells the samples apart."""


def learn(
    samples: list[tuple[dict[str, Any], Any]], labels: list[Any], fits: Any, conditions: list[Any], depth: int = 2
) -> Any:
    """The shallowest tree: a label that fits every sample, or (condition, where it holds, where not)."""
    seen: dict[tuple[tuple[bool, ...], int], int] = {}
    usable: list[Any] = []
    columns: list[tuple[bool, ...]] = []
    known: set[tuple[bool, ...]] = set()
    for condition in conditions:
        column = tuple(remembered(condition, values) for values, _ in samples)
        if any(column) and not all(column) and column not in known:
            usable.append(condition)
            columns.append(column)
            known.add(column)
    masks = []
    for values, truth in samples:
        mask = 0
        for at, label in enumerate(labels):
            if fits(label, values, truth):
                mask |= 1 << at
        masks.append(mask)
    rows = list(zip(*columns, strict=True)) if columns else [()] * len(samples)
    for row, mask in zip(rows, masks, strict=True):
        seen[(row, mask)] = seen.get((row, mask), 0) + 1
    items = list(seen)

    def leaf(part: list[Any]) -> Any:
        common = -1
        for _, mask in part:
            common &= mask
            if not common:
                return None
        return next(labels[at] for at in range(len(labels)) if common >> at & 1)

    def grow(part: list[Any], depth: int) -> Any:
        found = leaf(part)
        if found is not None:
            return found
        if not depth:
            return None
        best = None
        for at, condition in enumerate(usable):
            yes, no = [item for item in part if item[0][at]], [item for item in part if not item[0][at]]
            if not yes or not no:
                continue
            first = grow(yes, depth - 1)
            if first is None:
                continue
            second = grow(no, depth - 1)
            if second is None:
                continue
            tree = ("?", condition, first, second)
            if best is None or weight(tree) < weight(best):
                best = tree
        return best

    def mixed(part: list[Any]) -> float:
        """The entropy of a part's kinds of sample, in bits times their number."""
        kinds = Counter(mask for _, mask in part)
        return -sum(count * math.log2(count / len(part)) for count in kinds.values())

    def greedy(part: list[Any], depth: int) -> Any:
        found = leaf(part)
        if found is not None:
            return found
        best = None
        for at in range(len(usable)):
            yes, no = [item for item in part if item[0][at]], [item for item in part if not item[0][at]]
            if yes and no and (best is None or mixed(yes) + mixed(no) < best[0] - 1e-9):
                best = (mixed(yes) + mixed(no), at, yes, no)
        if best is None or not depth:
            return None
        first, second = greedy(best[2], depth - 1), greedy(best[3], depth - 1)
        return None if first is None or second is None else ("?", usable[best[1]], first, second)

    for limit in range(depth + 1):
        tree = grow(items, limit)
        if tree is not None:
            return tree
    tree = greedy(items, 10)
    if tree is not None:
        return tree
    raise Unsolved(f"{len(items)} kinds of sample, {len(usable)} conditions")


def weight(tree: Any) -> int:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return 2 + size(tree[1]) + weight(tree[2]) + weight(tree[3])
    return 0


ABSENT = "absent"


def same_shape(label: Any, values: dict[str, Any], truth: Any) -> bool:
    if label == ABSENT or truth is None:
        return label == ABSENT and truth is None
    return len(label) == len(truth) and all(attempt(how, values) == n for how, n in zip(label, truth, strict=True))


def counts_so(how: Any, values: dict[str, Any], truth: int) -> bool:
    found = attempt(how, values)
    return isinstance(found, int) and max(0, found) == truth


def by_size(conditions: set[Any]) -> list[Any]:
    return sorted(conditions, key=lambda condition: (size(condition), postfix(condition)))


def places(pattern: str, made: Run) -> list[tuple[int, ...]]:
    """All indices that a name could have in a run."""
    parts = pattern.split(".")
    found: list[tuple[int, ...]] = [()]
    for at, part in enumerate(parts):
        if part == "*":
            counts = made.counts.get(".".join(parts[:at]), {})
            found = [(*place, index) for place in found for index in range(counts.get(place, 0))]
    return found


def values_at(made: Run, place: tuple[int, ...]) -> dict[str, Any]:
    """What expressions of the model's class speak of: attributes, keys that the config class takes without keeping them, and places."""
    if place not in made.values:
        made.values[place] = {**made.raw, **made.attributes, **dict(zip(INDICES, place, strict=False))}
    return made.values[place]


def remembered(condition: Any, values: dict[Any, Any]) -> bool:
    """Whether a condition holds, kept beside the values."""
    if condition not in values:
        values[condition] = bool(attempt(condition, values))
    return bool(values[condition])


def supposed(runs: list[Run], config: bool) -> list[Any]:
    """Conditions on a layer's place that nobody asked: a class may repeat words or compare positions without a loop."""
    found: list[Any] = []
    source = runs[0].raw if config else values_at(runs[0], ())
    for name, value in source.items():
        if isinstance(value, list) and any(isinstance(one, str) for one in value):
            words = dict.fromkeys(
                one for made in runs for one in (values_at(made, ()).get(name) or ()) if isinstance(one, str)
            )
            found += [("==", ("[]", name, "i"), f"'{word}") for word in words]
    layers = next((one for one in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if one in source), None)
    if layers:
        found += [("<", "i", ("-", layers, name)) for name in source if "shared" in name and type(source[name]) is int]
    if config:
        found += [("==", "i", ("-", layers, 1))] if layers else []
        keys = dict.fromkeys(
            name for made in runs for name, value in made.raw.items() if type(value) is int and "." not in name
        )
        found += [("<", "i", name) for name in keys if "layer" in name or "replace" in name or "dense" in name]
        found += [("<", "i", number) for number in range(1, 5)]
    return found


def solve(runs: list[Run], pool: Pool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tree of each parameter's name, tree of each list's length)."""
    conditions = [*by_size(pool.model), *supposed(runs, False)]
    conditions += by_size({one for one in pool.config if one[0] == "has"})
    parameters: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for pattern in dict.fromkeys(name for made in runs for name in made.parameters):
        depth = pattern.count("*")
        samples, labels = [], Counter[Any]()
        for made in runs:
            for place in places(pattern, made):
                truth = made.shapes.get(pattern, {}).get(place)
                samples.append((values_at(made, place), truth))
                labels[made.parameters[pattern][place] if truth is not None else ABSENT] += 1
        # Equal expressions fit more often than numbers that happen to be equal.
        ordered = sorted(
            labels,
            key=lambda label: (label == ABSENT, sum(not isinstance(d, (tuple, str)) for d in label), -labels[label]),
        )
        usable = [one for one in conditions if not (indices_of(one) - set(INDICES[:depth]))]
        try:
            parameters[pattern] = learn(samples, ordered, same_shape, usable)
        except Unsolved as error:
            raise Unsolved(
                f"{pattern}: {error}; {[[postfix(d) for d in label] if label != ABSENT else 0 for label in ordered[:4]]}"
            ) from None
    for pattern in dict.fromkeys(name for made in runs for name in made.counts):
        if not any(name.startswith(f"{pattern}.*") for name in parameters):
            continue
        samples = [
            (values_at(made, place), count) for made in runs for place, count in made.counts.get(pattern, {}).items()
        ]
        depth = pattern.count("*")
        labels_ = [one for one in by_size(pool.counts) if not (indices_of(one) - set(INDICES[:depth]))]
        labels_ += sorted({count for _, count in samples})
        usable = [one for one in conditions if not (indices_of(one) - set(INDICES[:depth]))]
        try:
            counts[pattern] = learn(samples, labels_, counts_so, usable)
        except Unsolved as error:
            raise Unsolved(f"{pattern}.*: {error}") from None
    return parameters, counts


def indices_of(how: Any) -> set[str]:
    if isinstance(how, tuple):
        return set().union(*map(indices_of, how[1:]))
    return {how} if isinstance(how, str) and how in INDICES else set()


def agrees(made: Run, parameters: dict[str, Any], counts: dict[str, Any]) -> bool:
    """Whether the trees give just what a run has."""
    for pattern, by_place in made.counts.items():
        for place, count in by_place.items():
            values = values_at(made, place)
            if pattern in counts and not counts_so(pick(counts[pattern], values), values, count):
                return False
    if set(made.shapes) - set(parameters):
        return False
    for pattern, tree in parameters.items():
        for place in places(pattern, made):
            values = values_at(made, place)
            if not same_shape(pick(tree, values), values, made.shapes.get(pattern, {}).get(place)):
                return False
    return True


def tree_names(tree: Any, leaf_names: Any) -> set[str]:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return names(tree[1]) | tree_names(tree[2], leaf_names) | tree_names(tree[3], leaf_names)
    return set(leaf_names(tree))


SAME, EACH = "same", "each"


def definitions(runs: list[Run], pool: Pool, used: set[str]) -> dict[str, Any]:
    """How the config class computes the attributes that are used, of those that it does not take as they are."""
    found: dict[str, Any] = {}
    conditions = by_size({one for one in pool.config if not indices_of(one)})
    for name in sorted(used):
        samples = [(dict(made.raw), made.attributes.get(name)) for made in runs]
        if all(made.raw.get(name) == value for made, (_, value) in zip(runs, samples, strict=True)):
            continue
        traces = [made.computed.get(name) for made in runs]
        labels: list[Any] = [SAME]
        known = set().union(*(made.raw for made in runs))
        labels += [
            one
            for one, _ in Counter(t for t in traces if isinstance(t, (tuple, str)) and t != name).most_common()
            if names(one) and names(one) <= known
        ]
        if any(isinstance(value, list) for _, value in samples):
            labels += [("=", []), EACH]
        labels += [("=", value) for value in dict.fromkeys(v for _, v in samples if not isinstance(v, list))]

        def fits(label: Any, values: dict[str, Any], truth: Any, name: str = name) -> bool:
            if label == SAME:
                return name in values and values[name] == truth and type(values[name]) is type(truth)
            if label == EACH:
                return isinstance(truth, list) and values.get(name) != truth
            if label[0] == "=":
                return bool(label[1] == truth)
            return bool(attempt(label, values) == truth)

        try:
            tree = learn(samples, labels, fits, conditions)
        except Unsolved as error:
            raise Unsolved(f"config's {name}: {error}") from None
        if EACH in leaves(tree):
            rows = [made for made in runs if pick(tree, made.raw) == EACH]
            tree = replace(tree, ("each", *each(name, rows, pool)))
        found[name] = tree
    return found


def defined(made: Run, lets: dict[str, Any]) -> bool:
    """Whether the definitions give what a run's config has."""

    def value(name: str, tree: Any, values: dict[str, Any]) -> Any:
        leaf = pick(tree, values)
        if leaf == SAME:
            return values.get(name)
        if leaf[0] == "=":
            return leaf[1]
        if leaf[0] == "each":
            count = max(0, attempt(pick(leaf[1], values), values) or 0)
            return [value(name, leaf[2], {**values, "i": at}) for at in range(count)]
        return attempt(leaf, values)

    return all(
        name not in made.attributes or value(name, tree, made.raw) == made.attributes[name]
        for name, tree in lets.items()
    )


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return leaves(tree[2]) + leaves(tree[3])
    return [tree]


def pick(tree: Any, values: dict[str, Any]) -> Any:
    while isinstance(tree, tuple) and tree and tree[0] == "?":
        tree = tree[2] if attempt(tree[1], values) else tree[3]
    return tree


def replace(tree: Any, new: Any) -> Any:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return ("?", tree[1], replace(tree[2], new), replace(tree[3], new))
    return new if tree == EACH else tree


def each(name: str, runs: list[Run], pool: Pool) -> tuple[Any, Any]:
    """(length, tree of the item at i) of a list that the config class computes."""
    lengths = [(dict(made.raw), len(made.attributes[name])) for made in runs]
    labels: list[Any] = by_size({one for one in pool.counts if not indices_of(one)})
    labels += sorted({count for _, count in lengths})
    conditions = [*by_size({one for one in pool.config if not (indices_of(one) - {"i"})}), *supposed(runs, True)]
    length = learn(lengths, labels, counts_so, [c for c in conditions if not indices_of(c)])
    samples = [({**made.raw, "i": at}, item) for made in runs for at, item in enumerate(made.attributes[name])]
    items: list[Any] = [
        ("=", item) for item in dict.fromkeys(item for _, item in samples if not isinstance(item, list))
    ]
    items.append(("[]", name, "i"))
    traces = {one for made in runs if isinstance(made.computed[name], list) for one in made.computed[name]}
    known = set().union(*(made.raw for made in runs))
    items += by_size({one for one in traces if isinstance(one, (tuple, str)) and names(one) and names(one) <= known})
    try:
        tree = learn(
            samples,
            items,
            lambda label, values, truth: label[1] == truth if label[0] == "=" else attempt(label, values) == truth,
            conditions,
        )
    except Unsolved as error:
        raise Unsolved(f"config's {name}[i]: {error}") from None
    return length, tree


# --- configs changed at random ---


def literals(cls: Any) -> list[str]:
    """Keys that the class takes beside its fields, as its source names them."""
    import inspect

    try:
        source = inspect.getsource(cls)
    except OSError:
        return []
    return re.findall(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)["']""", source)


def change(
    cls: Any,
    keys: dict[str, Any],
    words: dict[str, list[Any]],
    extra: list[str],
    relevant: set[str],
    thresholds: dict[str, list[int]],
    source: random.Random,
) -> dict[str, Any]:
    """The keyword arguments with some changed: a few of any, or once it is known which keys matter, many of those."""
    found = copy.deepcopy(keys)
    for name in extra:
        if source.random() < (0.3 if name in relevant else 0.5 / len(extra)):
            sensible = small(name, 1)
            found[name] = source.choice((sensible, 2 * sensible, 24) if sensible else (1, 2, 3, 8, True, False, None))
            if "pattern" in name and source.random() < 0.5:
                found[name] = "".join(source.choice("M*E-FS") for _ in range(source.choice((3, 4, 6))))
    fields = own_fields(cls)
    stated = full_keys(cls, keys)
    candidates = [name for name in stated if name in fields or name in keys]
    candidates = [name for name in candidates if name not in OPAQUE and not name.endswith("token_id")]
    if relevant:
        rate = source.choice((0.1, 0.2, 0.4))
        chosen = [
            name
            for name in candidates
            if (name in relevant and source.random() < (0.5 if isinstance(stated[name], bool) else rate))
            or name in cls.sub_configs_defaults
        ]
    else:
        chosen = [source.choice(candidates) for _ in range(source.choice((1, 1, 2, 3)))]
    for name in chosen:
        if name in cls.sub_configs_defaults and isinstance(found.get(name), dict):
            inner = getattr(cls.sub_configs_defaults[name], "config_class", None)
            if inner is not None and issubclass(inner, PreTrainedConfig):
                nested = {key.removeprefix(f"{name}.") for key in relevant if key.startswith(f"{name}.")}
                found[name] = change(inner, found[name], {}, [], nested, {}, source)
            continue
        found[name] = other(name, stated[name], fields.get(name), words, stated, source)
        if name in thresholds and type(stated[name]) is int and source.random() < 0.3:
            found[name] = source.choice(thresholds[name])
        if name in keys and name in fields and fields[name].default is None and source.random() < 0.3:
            found[name] = None
    return found


def other(
    name: str, value: Any, field: Any, words: dict[str, list[Any]], stated: dict[str, Any], source: random.Random
) -> Any:
    """Another value for a key."""
    kind = str(field.type) if field is not None else ""
    layers = next(
        (stated[key] for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if key in stated), 3
    )
    if name in words and source.random() < 0.7:
        return [source.choice(words[name]) for _ in range(layers if isinstance(layers, int) else 3)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str) and ("_act" in name or "activation" in name):
        return source.choice(("gelu", "relu", "silu", "gelu_pytorch_tanh", "relu2"))
    if isinstance(value, int):
        if "layers" in name:
            return source.choice((1, 2, 4, 5, 7, value))
        if "None" in kind and source.random() < 0.2:
            return None
        return source.choice((value * 2, value * 3, value + 1, max(1, value // 2), 1, 2, 0, value * 4))
    if isinstance(value, float):
        return value * source.choice((2, 3, 0.5))
    if value is None:
        if "bool" in kind:
            return source.choice((True, False))
        if "list" in kind and ("int" not in kind.split("list")[0] or source.random() < 0.5):
            return (
                sorted(source.sample(range(6), source.choice((0, 1, 2, 3))))
                if "int" in kind.split("list")[-1]
                else None
            )
        if "int" in kind:
            return small(name, 1) or source.choice((1, 2, 4, 8, 16))
        return None
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value) and source.random() < 0.7:
        return [source.choice(value) if source.random() < 0.7 else item for item in value]
    if isinstance(value, list) and not value:
        return sorted(source.sample(range(4), source.choice((0, 1, 2))))
    return value


class Explorer:
    """The runs of a type so far, and what is known of it."""

    def __init__(self, model_type: str, seed: int = 0) -> None:
        self.cls = CONFIG_MAPPING[model_type]
        self.name = CAUSAL.get(model_type) or classes_of(model_type)[0]
        self.source = random.Random(f"{seed} {model_type}")
        self.keys = base_keys(model_type)
        self.pool, self.failures = Pool(), Counter[str]()
        self.words: dict[str, list[Any]] = {}
        self.relevant: set[str] = set()
        self.runs = [run(self.cls, self.name, self.keys, self.pool)]
        # Keys beside the fields: those that the class's source names, and attributes that it computes, which a config may state.
        fields = {*own_fields(self.cls), *self.cls.sub_configs_defaults}
        beside = [
            *literals(self.cls),
            *(name for name in self.runs[0].attributes if name.split(".")[0] not in fields and "." not in name),
        ]
        self.literals = [one for one in dict.fromkeys(beside) if one not in NEVER and one not in BASE]
        self.variants = list(HUB.get(model_type, {}).values())

    def explore(self, attempts: int) -> list[Run]:
        """More runs, of configs changed at random."""
        first = len(self.runs)
        for _ in range(attempts):
            self.learn_words(self.runs[-1])
            extra = [*self.literals, *self.pool.extra()]
            keys = change(self.cls, self.keys, self.words, extra, self.relevant, self.thresholds(), self.source)
            if self.variants and self.source.random() < 0.3:
                keys = merge(keys, self.source.choice(self.variants))
            try:
                self.runs.append(run(self.cls, self.name, keys, self.pool))
            except Exception as error:  # noqa: BLE001 - a class refuses many changed configs, each in its own way
                self.failures[f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"] += 1
        return self.runs[first:]

    def focus(self) -> None:
        """From now on only keys are changed that a shape or a condition was seen to ask for."""
        found: set[str] = set()
        for made in self.runs:
            for by_place in made.parameters.values():
                for label in by_place.values():
                    found.update(*map(names, label), ())
        for condition in self.pool.model | self.pool.config:
            if condition[0] not in ("null", "truth", "has") or condition in self.pool.model:
                found |= names(condition)
        for name in list(found):
            for made in self.runs:
                trace = made.computed.get(name, "")
                for one in trace if isinstance(trace, list) else [trace]:
                    found |= names(one)
        self.relevant = found | {"tie_word_embeddings"}

    def thresholds(self) -> dict[str, list[int]]:
        """Values around the numbers that keys were compared with."""
        found: dict[str, list[int]] = defaultdict(list)
        for word, *sides in self.pool.model | self.pool.config:
            if word in ("<", "=="):
                for key, number in (sides, sides[::-1]):
                    if isinstance(key, str) and type(number) is int and not key.startswith("'") and abs(number) < 100:
                        found[key] += [max(0, number - 1), number, number + 1]
        return found

    def learn_words(self, made: Run) -> None:
        for path, value in made.attributes.items():
            if isinstance(value, list) and value and "." not in path and ("type" in path or "pattern" in path):
                self.words[path] = list(dict.fromkeys([*self.words.get(path, []), *value]))
        for word, *sides in self.pool.model:
            if (
                word == "=="
                and isinstance(sides[0], tuple)
                and sides[0][0] == "[]"
                and sides[0][1] in self.words
                and isinstance(sides[1], str)
            ):
                path = sides[0][1]
                self.words[path] = list(dict.fromkeys([*self.words[path], sides[1][1:]]))


CAUSAL: dict[str, str] = {}


def causal_types() -> dict[str, str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MAPPING

    return {one: name for one, name in MAPPING.items() if one in CONFIG_MAPPING}


# --- as the file has it ---


def stood_in(parameters: dict[str, Any], lets: dict[str, Any]) -> dict[str, Any]:
    """Keys beside the class's fields for which one expression stands wherever they are not given: they become definitions.

    The trees lose the branches that differ in nothing else.
    """
    nodes: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def visit(tree: Any) -> None:
        if isinstance(tree, tuple) and tree and tree[0] == "?":
            if tree[1][0] == "has":
                nodes[tree[1][1]].append((tree[2], tree[3]))
            visit(tree[2])
            visit(tree[3])

    for tree in parameters.values():
        visit(tree)
    found = {}
    for name, pairs in nodes.items():
        for instead in candidates(name, pairs):
            if names(instead) & set(lets) or not all(swapped(yes, name, instead) == no for yes, no in pairs):
                continue
            found[name] = ("?", ("has", name), SAME, instead)
            for pattern, tree in parameters.items():
                parameters[pattern] = without(tree, ("has", name))
            break
    return found


def candidates(name: str, pairs: list[tuple[Any, Any]]) -> list[Any]:
    """Expressions that stand where the key would, the most likely first."""
    found: dict[Any, None] = {}
    for yes, no in pairs:
        if isinstance(yes, tuple) and isinstance(no, tuple) and len(yes) == len(no) and "?" not in (yes[:1] + no[:1]):
            found.update({n: None for y, n in zip(yes, no, strict=True) if y == name})
            for one in no:
                found.update(dict.fromkeys(parts_of(one)))
    return list(found)


def parts_of(how: Any) -> list[Any]:
    return [how, *(part for one in how[1:] for part in parts_of(one))] if isinstance(how, tuple) else [how]


def swapped(how: Any, name: str, instead: Any) -> Any:
    """An expression, label or tree with another expression in a key's place."""
    if how == name:
        return instead
    if not isinstance(how, tuple) or how == ABSENT:
        return how
    if how and isinstance(how[0], str) and how[0] in ("+", "-", "*", "//", "/", "%", "**"):
        return symbols.apply(how[0], swapped(how[1], name, instead), swapped(how[2], name, instead))
    return tuple(swapped(one, name, instead) for one in how)


def without(tree: Any, condition: Any) -> Any:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        if tree[1] == condition:
            return without(tree[2], condition)
        return ("?", tree[1], without(tree[2], condition), without(tree[3], condition))
    return tree


def dims(label: Any) -> Any:
    return 0 if label == ABSENT else ",".join(map(postfix, label))


def written(tree: Any, leaf: Any) -> Any:
    """A tree as JSON: [condition, where it holds, where not], or a leaf."""
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return [postfix(tree[1]), written(tree[2], leaf), written(tree[3], leaf)]
    return leaf(tree)


def definition_leaf(tree: Any) -> Any:
    if tree == SAME:
        return "="
    if tree[0] == "=":
        return {"value": tree[1]}
    if tree[0] == "each":
        return {"count": written(tree[1], postfix), "item": written(tree[2], definition_leaf)}
    return postfix(tree)


def describe(model_type: str) -> dict[str, Any]:
    """What the file says of a type."""
    explorer = Explorer(model_type)
    explorer.explore(70)
    explorer.focus()
    explorer.explore(110)
    runs, pool = explorer.runs, explorer.pool
    for _ in range(5):
        parameters, counts = solve(runs, pool)
        used: set[str] = set()
        for tree in parameters.values():
            used |= tree_names(tree, lambda label: () if label == ABSENT else set().union(*map(names, label), ()))
        for tree in counts.values():
            used |= tree_names(tree, names)
        lets = definitions(runs, pool, used)
        if all(agrees(made, parameters, counts) and defined(made, lets) for made in explorer.explore(50)):
            break
    else:
        raise Unsolved("new configs keep differing")
    lets |= stood_in(parameters, lets)
    raw = {name for name in used if name not in lets}
    for name, tree in lets.items():
        raw |= definition_names(name, tree)
    cls = CONFIG_MAPPING[model_type]
    standing = flat_keys(full_keys(cls, {}))
    entry: dict[str, Any] = {
        "class": CAUSAL.get(model_type) or classes_of(model_type)[0],
        "defaults": {name: standing[name] for name in sorted(raw) if name in standing},
    }
    alias = {a: b for a, b in cls.attribute_map.items() if b in raw or a in raw}
    if alias:
        entry["alias"] = alias
    if lets:
        entry["lets"] = {name: written(tree, definition_leaf) for name, tree in lets.items()}
    entry["counts"] = {pattern: written(tree, postfix) for pattern, tree in counts.items()}
    entry["parameters"] = {pattern: written(tree, dims) for pattern, tree in parameters.items()}
    entry["_runs"], entry["_failed"] = len(runs), sum(explorer.failures.values())
    entry["_failures"] = explorer.failures.most_common(3)
    entry["_constant"] = sorted(
        f"{postfix(one)} {value}"
        for one in pool.model
        if not indices_of(one)
        for value in [{bool(attempt(one, made.attributes)) for made in runs}]
        if len(value) == 1
    )
    return entry


def definition_names(name: str, tree: Any) -> set[str]:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return names(tree[1]) | definition_names(name, tree[2]) | definition_names(name, tree[3])
    if tree == SAME:
        return {name}
    if tree[0] == "=":
        return set()
    if tree[0] == "each":
        return tree_names(tree[1], names) | definition_names(name, tree[2])
    return names(tree)


def block(rows: dict[str, Any]) -> list[Any]:
    """Dimensions by suffix, and under each condition what it brings."""
    plain_rows = {suffix: tree for suffix, tree in rows.items() if isinstance(tree, str)}
    groups: dict[str, list[dict[str, Any]]] = {}
    for suffix, tree in rows.items():
        if isinstance(tree, list):
            yes, no = groups.setdefault(tree[0], [{}, {}])
            yes[suffix], no[suffix] = tree[1], tree[2]
    return ([plain_rows] if plain_rows else []) + [
        [condition, block(yes), block(no)] for condition, (yes, no) in groups.items()
    ]


def cut(name: str) -> tuple[str, str]:
    """A name's prefix, up to the module within the outermost list, and the rest."""
    head, star, tail = name.partition("*.")
    if not star:
        return "", name
    module, dot, rest = tail.partition(".")
    return (f"{head}*.{module}.", rest) if "." in rest and module != "*" else (f"{head}*.", tail)


def packed(entries: dict[str, Any]) -> str:
    """The file: a line per shared block and per type."""
    numbers: dict[str, int] = {}
    types = {}
    for model_type, entry in sorted(entries.items()):
        groups: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, tree in entry["parameters"].items():
            prefix, suffix = cut(name)
            groups[prefix][suffix] = tree
        blocks = [[prefix, numbers.setdefault(compact(block(rows)), len(numbers))] for prefix, rows in groups.items()]
        shown = {key: value for key, value in entry.items() if not key.startswith("_") and key != "parameters"}
        types[model_type] = shown | {"blocks": blocks}
    lines = ",\n".join(f"{json.dumps(model_type)}:{compact(entry)}" for model_type, entry in types.items())
    return '{"blocks":[\n' + ",\n".join(numbers) + '\n],"types":{\n' + lines + "\n}}\n"


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def work(model_type: str) -> tuple[str, Any, float]:
    start = time.time()
    try:
        found: Any = describe(model_type)
    except Exception as error:  # noqa: BLE001 - the type is named with the reason
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return model_type, found, time.time() - start


def prepare() -> None:
    warnings.simplefilter("ignore")
    quiet()
    CAUSAL.update(causal_types())


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerate the parameters from the pinned Transformers.")
    parser.add_argument("types", nargs="*")
    parser.add_argument("-o", default="/tmp/params_raw.json")
    arguments = parser.parse_args()
    prepare()
    if str(transformers.__version__) != PINNED:
        print(f"transformers {transformers.__version__}; expected {PINNED}", file=sys.stderr)
        return 1
    from memcurve.families import model_types

    types = arguments.types or sorted(set(CAUSAL) & set(model_types()))
    path = Path(arguments.o)
    table = json.loads(path.read_text()) if path.exists() else {}
    with multiprocessing.Pool(2) as workers:
        for model_type, found, seconds in workers.imap_unordered(work, types, chunksize=1):
            if isinstance(found, str):
                print(f"{model_type}: {found}", flush=True)
                table.pop(model_type, None)
            else:
                print(
                    f"{model_type}: {len(found['parameters'])} names, {found['_runs']} runs, {found['_failed']} failed, {seconds:.1f} s",
                    flush=True,
                )
                table[model_type] = found
            path.write_text(json.dumps(table, indent=1))
    path.write_text(json.dumps(table, indent=1))
    TARGET.write_text(packed(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
