"""What Transformers 5.23.0 allocated, replayed to the byte (tests/README.md says how the files read)."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from replay import Case, cases, lines

from memcurve import load

BY_TYPE: dict[str, list[Case]] = {}
for case in cases():
    BY_TYPE.setdefault(case.model_type, []).append(case)


@pytest.mark.parametrize("name", sorted(BY_TYPE))
def test_every_recorded_case_is_equal(name: str) -> None:
    curves = {}
    for case in BY_TYPE[name]:
        key = json.dumps([case.config, case.options, case.dtype])
        if key not in curves:
            curves[key] = load(case.config).curve("transformers", case.dtype, **case.options)
        assert curves[key].bytes(case.context, case.batch, case.encoder_context) == case.total_bytes, case


def test_no_kind_of_recording_is_missing(count: Any) -> None:
    every = [case for found in BY_TYPE.values() for case in found]
    count(f"transformers 5.23.0: {len(every)} recorded cases of {len(BY_TYPE)} model types")
    kinds = Counter(case.variant.split(" (")[-1].rstrip(")") for case in every)
    assert kinds["config"] > 4000
    assert kinds["hub"] > 300
    assert kinds["static"] == 235
    assert kinds["full size"] == kinds["class defaults"] == 122
    assert kinds["encoder-decoder"] == 192


def test_hub_style_keys_give_the_same_layers() -> None:
    entries = [
        entry for name in ("transformers.jsonl", "transformers_types.jsonl") for entry in lines(name) if "hub" in entry
    ]
    assert entries
    for entry in entries:
        assert load(entry["hub"]).layers == load(entry["config"]).layers, entry["variant"]
