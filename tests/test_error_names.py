"""Whatever size of a config is damaged, an error names only keys that exist, and the damaged one among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from replay import lines
from test_hub_only import CASES

from memcurve import load
from memcurve.base import MemcurveError
from memcurve.config import class_defaults

DAMAGE: tuple[Any, ...] = ("x", -1, 0, 1, 2**31 - 1, 2**31, 1.5, [], True)


def subjects() -> dict[str, list[dict[str, Any]]]:
    """Per model type one config as its class saves it and one in published keys, or of hub-only code the derived cases."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in ("transformers.jsonl", "transformers_types.jsonl"):
        seen = set()
        for entry in lines(name):
            for form in ("config", "hub"):
                kind = entry["config"]["model_type"]
                if form in entry and (kind, form) not in seen:
                    seen.add((kind, form))
                    found.setdefault(kind, []).append(entry[form])
    for config, _ in CASES:
        found.setdefault(str(config["model_type"]), []).append(config)
    return found


SUBJECTS = subjects()
# Keys that neither these configs nor the classes hold, for which the code stands in.
UNSAID = {"layer_types", "num_hidden_layers", "per_layer_config", "swa_qk_nope_head_dim", "swa_num_key_value_heads", "swa_head_dim", "linear_num_key_heads"}  # fmt: skip


def names_in(value: Any) -> Iterator[str]:
    """Every key at any depth, with what the classes named there know beside it."""
    if isinstance(value, dict):
        known = class_defaults(str(value.get("model_type"))) or {}
        yield from known.get("defaults", {})
        for pair in known.get("alias", {}).items():
            yield from pair
        for key, inner in value.items():
            yield str(key)
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


def sizes(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each place of a config that holds a number, a flag or a list, as the dict and the key."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from sizes(value)
        elif isinstance(value, (int, float, list)):
            yield config, key


def words(label: str) -> set[str]:
    found = "".join(c if c.isalnum() or c == "_" else " " for c in label).split()
    return {word for word in found if not word.isdigit()}


def damaged(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(what was damaged, the error) for every place and damage that gives one."""
    for place, key in list(sizes(config)):
        kept = place[key]
        for value in DAMAGE:
            place[key] = value
            try:
                load(config).curve("transformers", "bf16")
            except MemcurveError as error:
                yield f"{key} = {value!r}", str(error)
            place[key] = kept


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_errors_name_keys_that_exist(name: str) -> None:
    raised = 0
    for config in SUBJECTS[name]:
        known = set(names_in(config)) | UNSAID
        for damage, error in damaged(config):
            raised += 1
            assert "; expected " in error, (damage, error)
            if ": missing; " not in error and "its sizes give " not in error:
                assert words(error.split(": ")[0]) <= known, (damage, error)
    assert raised
