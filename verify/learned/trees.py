"""Expressions over config keys, and the smallest tree of conditions that tells samples apart."""

from __future__ import annotations

import math
import operator
from collections import Counter
from typing import Any

from . import symbols
from .symbols import INDICES

OPERATORS: dict[str, Any] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "/": operator.truediv, "**": operator.pow, "<": operator.lt, "==": operator.eq, "[]": lambda a, b: a[b],
    "in": lambda a, b: a in b, "ceil": math.ceil, "round": round, "int": int, "len": len, "max": max, "min": min, "before": lambda a, b: a[:b].count(a[b]), "count": lambda a, b: a.count(b), "null": lambda a: a is None, "truth": bool,
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
    except (Missing, TypeError, AttributeError, IndexError, ZeroDivisionError, OverflowError):
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
        return 2 + size(tree[1]) + (20 if tree[1] in SUPPOSED else 0) + weight(tree[2]) + weight(tree[3])
    return 0


# Conditions that no class asked.
SUPPOSED: set[Any] = set()


def by_size(conditions: set[Any]) -> list[Any]:
    return sorted(conditions, key=lambda condition: (size(condition), postfix(condition)))


def remembered(condition: Any, values: dict[Any, Any]) -> bool:
    """Whether a condition holds, kept beside the values."""
    if condition not in values:
        values[condition] = bool(attempt(condition, values))
    return bool(values[condition])


def indices_of(how: Any) -> set[str]:
    if isinstance(how, tuple):
        return set().union(*map(indices_of, how[1:]))
    return {how} if isinstance(how, str) and how in INDICES else set()


def tree_names(tree: Any, leaf_names: Any) -> set[str]:
    if isinstance(tree, tuple) and tree and tree[0] == "?":
        return names(tree[1]) | tree_names(tree[2], leaf_names) | tree_names(tree[3], leaf_names)
    return set(leaf_names(tree))


# Leaves: no such parameter; as the config has it; computed item by item.
ABSENT, SAME, EACH = "absent", "same", "each"


def when(condition: Any, yes: Any, no: Any) -> Any:
    return ("?", condition, yes, no)


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
