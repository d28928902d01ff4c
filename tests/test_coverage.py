"""Every model type that generates in the pinned Transformers is described, with an example, or refused by name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import memcurve
from memcurve import NotDescribed, load
from memcurve.families import REFUSED, STRUCTURES, model_types, structure_of

DEFAULTS = json.loads((Path(memcurve.__file__).parent / "defaults.json").read_text())
GENERATIVE = sorted(name for name, entry in DEFAULTS.items() if "arch" in entry)


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_generative_type_is_described_or_refused(name: str) -> None:
    if name in REFUSED:
        with pytest.raises(NotDescribed, match="has no answer: ") as caught:
            load({"model_type": name})
        assert REFUSED[name] in str(caught.value)
    else:
        # {"model_type": "x"} answers as XConfig() does: every key is the class's
        model = load({"model_type": name})
        assert model.curve("transformers", "bf16").bytes(100, 1, 100) > 0


def test_counts(count: Any) -> None:
    described = [name for name in GENERATIVE if name not in REFUSED]
    hub_only = [name for name in model_types() if name not in DEFAULTS]
    count(
        f"coverage: {len(described)} of {len(GENERATIVE)} generative types of Transformers described, "
        f"{len(REFUSED)} refused by name, {len(hub_only)} types of hub-only code described"
    )
    assert len(GENERATIVE) > 280
    assert len(REFUSED) <= 12
    assert set(REFUSED) <= set(DEFAULTS)
    assert not set(REFUSED) & set(model_types())


def test_a_type_is_claimed_once_by_a_structure_that_exists() -> None:
    words = [word for types in STRUCTURES.values() for word in types.split()]
    assert len(words) == len(set(words)), sorted(word for word in words if words.count(word) > 1)
    for name in STRUCTURES:
        module, function = name.split(".")
        read = getattr(importlib.import_module(f"memcurve.families.{module}"), function)
        assert read.__doc__, f"{name} needs a docstring that names its source"
    assert all(structure_of(word) for word in words)
