"""When a type's class has which parameter, and how its config computes what it computes: trees found over many runs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

from .builds import Pool, Run, places, values_at
from .symbols import INDICES
from .trees import (
    ABSENT,
    EACH,
    SAME,
    SUPPOSED,
    Unsolved,
    attempt,
    by_size,
    indices_of,
    learn,
    leaves,
    names,
    parts_of,
    pick,
    postfix,
    replace,
    swapped,
    without,
)


def same_shape(label: Any, values: dict[str, Any], truth: Any) -> bool:
    if label == ABSENT or truth is None:
        return label == ABSENT and truth is None
    return len(label) == len(truth) and all(attempt(how, values) == n for how, n in zip(label, truth, strict=True))


def counts_so(how: Any, values: dict[str, Any], truth: int) -> bool:
    found = attempt(how, values)
    return isinstance(found, int) and max(0, found) == truth


def restored(samples: list[tuple[dict[Any, Any], Any]], labels: Counter[Any]) -> dict[Any, int]:
    """Labels for shapes whose numbers forgot what they were made of: with the one key that always has their value."""
    shapes = {truth for _, truth in samples if truth is not None}
    if len(shapes) < 3 or len(labels) < len(shapes) or len({len(shape) for shape in shapes}) != 1:
        return {}
    found: list[Any] = []
    for at in range(len(next(iter(shapes)))):
        numbers = {shape[at] for shape in shapes}
        rows = [(values, truth[at]) for values, truth in samples if truth is not None]
        keys = [key for key in rows[0][0] if isinstance(key, str) and all(values.get(key) == n for values, n in rows)]
        if len(numbers) > 1 and not keys:
            return {}
        found.append(min(keys, key=len) if len(numbers) > 1 else numbers.pop())
    return {tuple(found): 1}


# Asked of every config by code that all classes share.
COMMON = re.compile(r"^(decoder|generator|encoder|text_config|quantization_config|is_heterogeneous|is_encoder_decoder|pad_token_id|base_model_\w+|"
                    r"gradient_checkpointing|auto_map|output_proj_dims|use_cache|output_\w+|return_dict|\w*dropout\w*|\w*_token_id|initializer_range|rope_\w+)$")  # fmt: skip


def common(condition: Any) -> bool:
    """Whether a condition asks what code that all classes share asks, or what rotary positions need of a head's size."""
    if any(COMMON.match(name.rpartition(".")[2]) for name in names(condition)):
        return True
    return (
        condition[0] == "<" and isinstance(condition[2], tuple) and condition[2][0] == "-" and not indices_of(condition)
    )


def at_number(how: Any) -> bool:
    """Whether an expression takes one certain item of a list: what loops of the class bring about, not what it asks."""
    return isinstance(how, tuple) and ((how[0] == "[]" and type(how[2]) is int) or any(map(at_number, how[1:])))


def word_lists(runs: list[Run]) -> dict[str, list[str]]:
    """The words in each list of words, by its name."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for made in runs:
        for name, value in values_at(made, ()).items():
            if isinstance(value, list) and isinstance(name, str):
                found[name].update(dict.fromkeys(one for one in value if isinstance(one, str)))
    return {name: list(words) for name, words in found.items() if words}


def supposed(runs: list[Run], config: bool) -> list[Any]:
    """Conditions on a layer's place that nobody asked: a class may repeat words or compare positions without a loop."""
    found: list[Any] = []
    source = {
        name: one for name, one in (runs[0].raw if config else values_at(runs[0], ())).items() if isinstance(name, str)
    }
    for name, words in word_lists(runs).items():
        if name in source:
            for word in words:
                found.append(("==", ("[]", name, "i"), f"'{word}"))
                found.append(("==", ("[]", name, ("%", "i", ("len", name))), f"'{word}"))
            for key in source:
                if "num_mem" in key:
                    found.append(("<", ("before", name, "i"), key))
                    found.append(("==", ("%", "j", key), ("before", name, "i")))
            found.append(("==", ("before", name, "i"), 0))
    counts = [
        one for one in source if one.rpartition(".")[2] in ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    ]
    for layers in counts:
        inside = layers.rpartition(".")[0]
        shared = [name for name in source if "shared" in name and type(source[name]) is int]
        found += [("<", "i", ("-", layers, name)) for name in shared if name.rpartition(".")[0] == inside]
    if config:
        found += [("==", "i", ("-", layers, 1)) for layers in counts]
        keys = dict.fromkeys(name for made in runs for name, value in made.raw.items() if type(value) is int)
        found += [("<", "i", name) for name in keys if "layer" in name or "replace" in name or "dense" in name]
        found += [("<", "i", number) for number in range(1, 5)]
        found += [
            ("==", ("%", ("+", "i", 1), name), 0)
            for name in keys
            if "interval" in name or "freq" in name or "every" in name
        ]
    SUPPOSED.update(found)
    return found


def solve(runs: list[Run], pool: Pool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tree of each parameter's name, tree of each list's length)."""
    SUPPOSED.clear()
    conditions = [
        *by_size({one for one in pool.model if not at_number(one) and not common(one) and telling(one)}),
        *(one for one in supposed(runs, False) if one not in pool.model),
    ]
    SUPPOSED.difference_update(pool.model)
    given = by_size({one for one in pool.config if one[0] == "has" and not common(one)})
    conditions += [*given, *(("null", name) for _, name in given)]
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
        labels.update(restored(samples, labels))
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
            (values_at(made, place), made.counts.get(pattern, {}).get(place, 0))
            for made in runs
            for place in places(pattern, made)
        ]
        depth = pattern.count("*")
        listed = {("count", name, f"'{word}") for name, words in word_lists(runs).items() for word in words}
        labels_ = [
            one
            for one in [*by_size(pool.counts), *by_size(listed)]
            if "hybrid_layer_ids" not in names(one) and not (indices_of(one) - set(INDICES[:depth]))
        ]
        labels_ += sorted({count for _, count in samples})
        usable = [one for one in conditions if not (indices_of(one) - set(INDICES[:depth]))]
        try:
            counts[pattern] = learn(samples, labels_, counts_so, usable)
        except Unsolved as error:
            raise Unsolved(f"{pattern}.*: {error}") from None
    return parameters, counts


def agrees(made: Run, parameters: dict[str, Any], counts: dict[str, Any]) -> bool:
    """Whether the trees give just what a run has."""
    for pattern in counts:
        for place in places(pattern, made):
            values, count = values_at(made, place), made.counts.get(pattern, {}).get(place, 0)
            if not counts_so(pick(counts[pattern], values), values, count):
                return False
    if set(made.shapes) - set(parameters):
        return False
    for pattern, tree in parameters.items():
        for place in places(pattern, made):
            values = values_at(made, place)
            if not same_shape(pick(tree, values), values, made.shapes.get(pattern, {}).get(place)):
                return False
    return True


def definitions(runs: list[Run], pool: Pool, used: set[str], written: dict[str, Any]) -> dict[str, Any]:
    """How the config class computes the attributes that are used, of those that it does not take as they are."""
    found: dict[str, Any] = {}
    conditions = by_size({one for one in pool.config if not indices_of(one) and telling(one)})
    for name in sorted(used):
        if name in written:
            found[name] = written[name]
            continue
        if any(name in made.raw and name not in made.attributes for made in runs):
            continue  # the class takes the key and keeps no attribute of its name
        samples = [(dict(made.raw), made.attributes[name]) for made in runs if name in made.attributes]
        if all(values.get(name) == value for values, value in samples):
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
            fixed = {
                tuple(v): v for given, v in samples if isinstance(v, list) and given.get(name) != v and flat_list(v)
            }
            labels += [
                ("=", []),
                *(("=", value) for value in list(fixed.values())[:1] if len(fixed) == 1 and value),
                EACH,
            ]
        labels += [one[1] for one in conditions if one[0] == "has"]
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
            tree = learn(samples, labels, fits, conditions, 3)
        except Unsolved as error:
            raise Unsolved(f"config's {name}: {error}") from None
        if EACH in leaves(tree):
            rows = [made for made in runs if pick(tree, made.raw) == EACH]
            tree = replace(tree, ("each", *each(name, rows, pool)))
        simple(name, tree)
        found[name] = tree
    return found


def flat_list(value: list[Any]) -> bool:
    return not any(isinstance(one, list) for one in value)


def telling(condition: Any) -> bool:
    """Whether a class may decide by a condition: not by a key's being one certain larger number."""
    word, *sides = condition
    return (
        word not in ("==", "<")
        or bool(indices_of(condition))
        or not all(type(one) is int and one > 1 for one in sides[-1:])
    )


def simple(name: str, tree: Any) -> None:
    """A found tree with many leaves may fit the samples by chance: what computes it has to be written down."""
    for one in leaves(tree):
        if isinstance(one, tuple) and one and one[0] == "each" and (len(leaves(one[1])) > 2 or len(leaves(one[2])) > 4):
            raise Unsolved(f"config's {name}[i]: {len(leaves(one[2]))} leaves")
    if len(leaves(tree)) > 4:
        raise Unsolved(f"config's {name}: {len(leaves(tree))} leaves")


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

    def same(found: Any, real: Any) -> bool:
        # A list may be longer than the class keeps it: it is read by place.
        return bool(
            found == real or (isinstance(found, list) and isinstance(real, list) and found[: len(real)] == real)
        )

    known = {name: tree for name, tree in lets.items() if name in made.attributes}
    return all(same(value(name, tree, made.raw), made.attributes[name]) for name, tree in known.items())


def each(name: str, runs: list[Run], pool: Pool) -> tuple[Any, Any]:
    """(length, tree of the item at i) of a list that the config class computes."""
    lengths = [(dict(made.raw), len(made.attributes[name])) for made in runs]
    labels: list[Any] = by_size({one for one in pool.counts if not indices_of(one)})
    labels += sorted({count for _, count in lengths})
    SUPPOSED.clear()
    asked = {one for one in pool.config if not (indices_of(one) - {"i"}) and telling(one)}
    conditions = [*by_size(asked), *(one for one in supposed(runs, True) if one not in asked)]
    SUPPOSED.difference_update(asked)
    try:
        length = learn(lengths, labels, counts_so, [c for c in conditions if not indices_of(c)])
    except Unsolved as error:
        raise Unsolved(f"length of config's {name}: {error}") from None
    samples = [({**made.raw, "i": at}, item) for made in runs for at, item in enumerate(made.attributes[name])]
    items: list[Any] = [
        ("=", item) for item in dict.fromkeys(item for _, item in samples if not isinstance(item, list))
    ]
    items.append(("[]", name, "i"))
    lists = (made.computed[name] for made in runs if isinstance(made.computed[name], list))
    traces = {one for computed in lists for one in computed if isinstance(one, (tuple, str))}
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
