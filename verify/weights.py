"""Asks Transformers which parameters a config gives, on the meta device, and compares memcurve's estimate name by name and shape by shape.

    python verify/weights.py                  # class defaults of every type, changed ones, and the catalogue
    python verify/weights.py llama jamba      # only these types, and the catalogue's models of them
    python verify/weights.py --record         # the same, and writes tests/truth/weights.jsonl

A line of the file: the catalogue's name or the config's keys, the class, its parameters in total, how many tensors, and the first
16 hex digits of the SHA-256 of its lines "name shape", sorted. No number of memcurve's goes into it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import multiprocessing
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import parameters
import torch
from learned.builds import class_of, full_keys, own_fields, prepare
from learned.explore import other
from transformers import PreTrainedConfig

from memcurve import catalog
from memcurve.base import MemcurveError, NotDescribed
from memcurve.checkpoint.estimate import entry_of, estimate
from memcurve.model import load
from memcurve.shrink import config_class
from memcurve.verify.transformers import CONFIG_MAPPING, find_config, model_class

TARGET = Path(__file__).parents[1] / "tests" / "truth" / "weights.jsonl"


def real(data: dict[str, Any], name: str) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every parameter of the class, tied ones once."""
    config = CONFIG_MAPPING[data["model_type"]].from_dict(copy.deepcopy(data))
    built = model_class(data["model_type"], name)
    with torch.device("meta"):
        model = built(find_config(config, built.config_class) or config)
    return [(path, tuple(parameter.shape)) for path, parameter in model.named_parameters()]


def digest(tensors: list[tuple[str, tuple[int, ...]]]) -> str:
    lines = sorted(f"{name} {'×'.join(map(str, shape))}" for name, shape in tensors)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def elements(tensors: list[tuple[str, tuple[int, ...]]]) -> int:
    total = 0
    for _, shape in tensors:
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def with_sections(data: dict[str, Any]) -> dict[str, Any]:
    """A config with its missing sections stated, empty: the estimate leaves out the part of one that is not stated."""
    found = dict(data)
    for name, spec in CONFIG_MAPPING[data["model_type"]].sub_configs_defaults.items():
        if name not in found and not spec.optional and name != "backbone_config":
            found[name] = {"model_type": spec.model_type}
    return found


def changed(model_type: str, number: int) -> dict[str, Any]:
    """The class's config with a few of the keys changed that bear on its parameters."""
    source = random.Random(f"weights {model_type} {number}")
    entry = entry_of(f'{json.dumps(model_type)}:{{"') or {"defaults": {}}
    found: dict[str, Any] = with_sections({"model_type": model_type})
    places = [(CONFIG_MAPPING[model_type], found, "")]
    for section in entry.get("sections", {}):
        spec = CONFIG_MAPPING[model_type].sub_configs_defaults.get(section)
        if spec is not None and isinstance(found.get(section), dict):
            places.append((config_class(spec), found[section], f"{section}."))
    keys = []
    for cls, inside, path in places:
        fields = own_fields(cls)
        known = [key.removeprefix(path) for key in (*entry["defaults"], *entry.get("lets", {})) if key.startswith(path)]
        keys += [(cls, inside, key, fields[key]) for key in dict.fromkeys(known) if key in fields]
    for cls, inside, key, field in source.sample(keys, min(len(keys), source.choice((1, 2, 3, 4)))):
        stated = full_keys(cls, {})
        value = other(key, stated[key], field, {}, stated, source)
        if not isinstance(value, PreTrainedConfig) and value != stated[key] and (value != 0 or isinstance(value, bool)):
            inside[key] = value
    return found


def cases(types: list[str], count: int) -> list[tuple[str, dict[str, Any], str]]:
    """(what to call it, config, class) of everything that is compared."""
    found = []
    for model_type in types:
        name = class_of(model_type)
        found.append((model_type, with_sections({"model_type": model_type}), name))
        found += [(f"{model_type} changed", changed(model_type, number), name) for number in range(count)]
    for known in catalog.names():
        data = catalog.find(known) or {}
        model_type = data.get("model_type", "")
        if model_type in types:
            found.append((known, with_sections(data), class_of(model_type)))
    return found


def compare(case: tuple[str, dict[str, Any], str]) -> tuple[str, str, str, dict[str, Any] | None]:
    """(what, outcome, detail, recorded line) of one case."""
    what, data, name = case
    try:
        theirs: Any = real(data, name)
    except Exception as error:  # noqa: BLE001 - whatever a class raises is the finding
        theirs = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    try:
        model = load(data)
    except MemcurveError as error:
        return what, "not a model", str(error)[:200], None
    try:
        ours = [(tensor.name, tensor.shape) for tensor in estimate(model, "bf16").tensors]
    except NotDescribed as error:
        return what, "refused", str(error)[:200], None
    except MemcurveError as error:
        return what, "refused" if isinstance(theirs, str) else "differs", f"{error} | {str(theirs)[:100]}"[:300], None
    if isinstance(theirs, str):
        return what, "no class", f"{theirs} {json.dumps(data)[:150] if ' ' in what else ''}", None
    config = what if "/" in what and data == catalog.find(what) else data
    line = {
        "config": config,
        "class": name,
        "parameters": elements(theirs),
        "tensors": len(theirs),
        "shapes": digest(theirs),
    }
    if sorted(ours) == sorted(theirs):
        return what, "equal", "", line
    extra, missing = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    keys = json.dumps(data)[:200] if " " in what else ""
    return what, "differs", f"{len(extra)} only ours {extra[:2]}; {len(missing)} only theirs {missing[:2]} {keys}", line


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare estimated weights with Transformers on the meta device.")
    parser.add_argument("types", nargs="*")
    parser.add_argument("--record", action="store_true", help="write tests/truth/weights.jsonl")
    parser.add_argument("--changed", type=int, default=3, metavar="N", help="changed configs per type (default: 3)")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    prepare()
    types = arguments.types or sorted(parameters.unpacked(parameters.TARGET.read_text()))
    outcomes, lines = Counter[str](), []
    with multiprocessing.Pool(arguments.jobs) as workers:
        for what, outcome, detail, line in workers.imap(compare, cases(types, arguments.changed), chunksize=4):
            outcomes[outcome] += 1
            if outcome != "equal":
                print(f"{what}: {outcome}: {detail}", flush=True)
            if line is not None:
                lines.append(line)
    print(", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()))
    if arguments.record:
        TARGET.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return int(bool(outcomes["differs"]))


if __name__ == "__main__":
    sys.exit(main())
