"""Writes src/memcurve/parameters.json: which parameters the class of each model type makes of a config, and their shapes.

    python verify/parameters.py                # every type that generates; needs torch and the pinned transformers
    python verify/parameters.py llama jamba    # only these; other types' lines stay

Each type's class is built on the meta device from small configs whose values remember what is done with them (learned/symbols.py). Each
parameter then has its dimensions as expressions of config keys, and the conditions that were asked on the way are known. Over many
configs, changed at random, the smallest decision tree over those conditions is found that tells when a parameter is there and
which expressions it has; values that the config class computes (layer_types, head_dim) are found alike. checkpoint/estimate.py
says how the file reads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import transformers
from learned.builds import Pool, Run, class_of, flat_keys, full_keys, prepare, values_at
from learned.explore import Explorer
from learned.known import known_trees
from learned.solve import agrees, at_number, common, defined, definitions, solve, stood_in
from learned.symbols import INDICES
from learned.trees import (
    ABSENT,
    OPERATORS,
    SAME,
    Unsolved,
    attempt,
    definition_names,
    indices_of,
    leaves,
    names,
    postfix,
    tree_names,
)
from transformers import PreTrainedConfig

from memcurve.shrink import config_class
from memcurve.verify.transformers import CONFIG_MAPPING, PINNED, generative_types

TARGET = Path(__file__).parents[1] / "src" / "memcurve" / "parameters.json"


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


# Types whose trees are deep need more configs than others.
MORE = {"gemma4_text": 3, "gemma4": 3, "gemma4_unified": 3}


def describe(model_type: str) -> dict[str, Any]:
    """What the file says of a type."""
    explorer = Explorer(model_type)
    more = MORE.get(model_type, 1)
    explorer.explore(50 * more)
    explorer.focus()
    explorer.explore(75 * more)
    runs, pool = explorer.runs, explorer.pool
    for _ in range(5):
        parameters, counts = solve(runs, pool)
        used: set[str] = set()
        for tree in parameters.values():
            used |= tree_names(tree, lambda label: () if label == ABSENT else set().union(*map(names, label), ()))
        for tree in counts.values():
            used |= tree_names(tree, names)
        for pattern, tree in parameters.items():
            if len(leaves(tree)) > 8:
                raise Unsolved(f"{pattern}: {len(leaves(tree))} leaves, which may fit by chance")
        lets = definitions(runs, pool, used, known_trees(CONFIG_MAPPING[model_type]))
        if all(agrees(made, parameters, counts) and defined(made, lets) for made in explorer.explore(40)):
            break
    else:
        raise Unsolved("new configs keep differing")
    lets |= stood_in(parameters, lets)
    raw = {name for name in used if name not in lets}
    for name, tree in lets.items():
        raw |= definition_names(name, tree)
    cls = CONFIG_MAPPING[model_type]
    standing = flat_keys(full_keys(cls, empty(cls)))
    expects = []
    for condition, usual in expected(runs, pool):
        needed = set().union(
            names(condition), *(definition_names(one, lets[one]) for one in names(condition) if one in lets)
        )
        if all(one in standing or one in lets for one in names(condition)):
            expects.append((postfix(condition), usual))
            raw |= needed & set(standing)
    for section in whole(cls)[0]:
        empty_ones = {values_at(made, ()).get(section) is None for made in runs if section in values_at(made, ())}
        if len(empty_ones) == 1:
            expects.append((f"{section} null", empty_ones.pop()))
    raw |= set(whole(cls)[0]) & set(standing)
    entry: dict[str, Any] = {
        "expects": expects,
        "class": class_of(model_type),
        "defaults": {name: standing[name] for name in sorted(raw) if name in standing},
    }
    alias = {a: b for a, b in aliases(cls).items() if b in raw or a in raw}
    sections, init = whole(cls)
    if sections:
        entry["sections"] = sections
        entry["init"] = {name: value for name, value in init.items() if name in raw}
    if alias:
        entry["alias"] = alias
    if lets:
        entry["lets"] = {name: written(tree, definition_leaf) for name, tree in lets.items()}
    entry["counts"] = {pattern: written(tree, postfix) for pattern, tree in counts.items()}
    entry["blocks"] = grouped({pattern: written(tree, dims) for pattern, tree in parameters.items()})
    return entry


def empty(cls: Any) -> dict[str, Any]:
    """The sections of a config, with nothing in them."""
    return {
        name: None if spec.optional else empty(config_class(spec))
        for name, spec in cls.sub_configs_defaults.items()
        if name != "backbone_config"
    }


def aliases(cls: Any, path: str = "") -> dict[str, str]:
    found = {path + other: path + own for other, own in cls.attribute_map.items()}
    for name, spec in cls.sub_configs_defaults.items():
        found |= aliases(config_class(spec), f"{path}{name}.")
    return found


def whole(cls: Any, path: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """(the model type of each section where it may be another's, else null; values that stand in where a section is missing)."""
    sections: dict[str, Any] = {}
    init: dict[str, Any] = {}
    for name, spec in cls.sub_configs_defaults.items():
        sections[path + name] = None if issubclass(spec.config_class, PreTrainedConfig) else spec.model_type
        init |= flat_keys(spec.init_kwargs, f"{path}{name}.")
        inner, more = whole(config_class(spec), f"{path}{name}.")
        sections, init = sections | inner, init | more
    return sections, init


def expected(runs: list[Run], pool: Pool) -> list[Any]:
    """Conditions on sizes, flags and words that came out one way only, and this way: what lies beyond was not seen."""
    found = {}
    for one in pool.model:
        if (
            indices_of(one)
            or one[0] not in ("<", "==", "truth")
            or at_number(one)
            or common(one)
            or one[1:2] == one[2:]
        ):
            continue
        outcomes = {bool(attempt(one, values_at(made, ()))) for made in runs if names(one) <= set(values_at(made, ()))}
        if len(outcomes) == 1 and not (
            one[0] == "==" and isinstance(one[1], tuple) and one[1][0] == "%" and one[1][1] == one[1][2]
        ):
            found[one] = outcomes.pop()
    return sorted(found.items(), key=lambda item: postfix(item[0]))


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


def scoped(rows: list[Any]) -> tuple[str, list[Any]]:
    """(section, block) with the section's name taken off all keys, where all are of one section."""
    text = compact(rows)
    used = {word for one in re.findall(r'"([^"]*)"', text) for word in re.split("[ ,]", one)}
    keys = {word for word in used if re.fullmatch(r"[a-z]\w*_config\.[\w.]+", word)}
    sections = {word.rpartition(".")[0] for word in keys}
    expressions = set(keys_in(rows))
    if len(sections) != 1 or expressions - keys:
        return "", rows
    section = f"{sections.pop()}."
    return section, json.loads(text.replace(section, ""))


def keys_in(rows: list[Any]) -> set[str]:
    """The keys of a block's expressions."""
    found: set[str] = set()
    for item in rows:
        texts = list(item.values()) if isinstance(item, dict) else [item[0]]
        for text in texts:
            words = re.split("[ ,]", text)
            found |= {
                w
                for w in words
                if w and (w[0].isalpha() or w[0] == "_") and w not in OPERATORS and w not in INDICES and w != "has"
            }
        if not isinstance(item, dict):
            found |= keys_in(item[1]) | keys_in(item[2])
    return found


def cut(name: str) -> tuple[str, str]:
    """A name's prefix, up to the module within the outermost list, and the rest."""
    head, star, tail = name.partition("*.")
    if not star:
        return "", name
    module, _, rest = tail.partition(".")
    return (f"{head}*.{module}.", rest) if "." in rest and module != "*" else (f"{head}*.", tail)


def grouped(parameters: dict[str, Any]) -> list[Any]:
    """[prefix of names, block] of the trees by name, with the section whose keys a block speaks of."""
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, tree in parameters.items():
        prefix, suffix = cut(name)
        groups[prefix][suffix] = tree
    found = []
    for prefix, rows in groups.items():
        section, shared = scoped(block(rows))
        found.append([prefix, shared, section] if section else [prefix, shared])
    return found


def packed(entries: dict[str, Any]) -> str:
    """The file: a line per shared block and per type."""
    numbers: dict[str, int] = {}
    lines = []
    for model_type, entry in sorted(entries.items()):
        blocks = [
            [prefix, numbers.setdefault(compact(one), len(numbers)), *rest] for prefix, one, *rest in entry["blocks"]
        ]
        lines.append(f"{json.dumps(model_type)}:{compact(entry | {'blocks': blocks})}")
    return '{"blocks":[\n' + ",\n".join(numbers) + '\n],"types":{\n' + ",\n".join(lines) + "\n}}\n"


def unpacked(text: str) -> dict[str, Any]:
    """The entries of a file, each with its blocks."""
    table = json.loads(text)
    for entry in table["types"].values():
        entry["blocks"] = [[prefix, table["blocks"][number], *rest] for prefix, number, *rest in entry["blocks"]]
    return dict(table["types"])


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def work(model_type: str) -> tuple[str, Any, float]:
    start = time.time()
    try:
        found: Any = describe(model_type)
    except Exception as error:  # noqa: BLE001 - the type is named with the reason
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return model_type, found, time.time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerate the parameters from the pinned Transformers.")
    parser.add_argument("types", nargs="*")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument(
        "-o", type=Path, default=TARGET, metavar="FILE", help="where to write (default: the package's file)"
    )
    arguments = parser.parse_args()
    prepare()
    if str(transformers.__version__) != PINNED:
        print(f"transformers {transformers.__version__}; expected {PINNED}", file=sys.stderr)
        return 1
    types = arguments.types or generative_types()
    table = unpacked(arguments.o.read_text()) if arguments.o.exists() else {}
    with multiprocessing.Pool(arguments.jobs) as workers:
        for model_type, found, seconds in workers.imap_unordered(work, types, chunksize=1):
            table.pop(model_type, None)
            if isinstance(found, str):
                print(f"{model_type}: {found}", flush=True)
                continue
            table[model_type] = found
            print(f"{model_type}: {len(found['blocks'])} blocks, {seconds:.1f} s", flush=True)
            arguments.o.write_text(packed(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
