"""What Transformers 5.23.0 allocated, replayed to the byte (tests/README.md says how the files read)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from replay import Case, cases, lines

from memcurve import load

CASES = list(cases())


def answer(case: Case) -> int:
    curve = load(case.config).curve("transformers", case.dtype, **case.options)
    return curve.bytes(case.context, case.batch, case.encoder_context)


def test_every_recorded_case_is_equal(count: Any) -> None:
    wrong = [
        f"{case.model_type}, {case.variant}: context {case.context}, batch {case.batch}: {found:,}, recorded {case.total_bytes:,}"
        for case in CASES
        if (found := answer(case)) != case.total_bytes
    ]
    count(
        f"transformers 5.23.0: {len(CASES)} recorded cases of {len({c.model_type for c in CASES})} model types, {len(wrong)} wrong"
    )
    assert wrong == []


def test_no_kind_of_recording_is_missing() -> None:
    kinds = Counter(case.variant.split(" (")[-1].rstrip(")") for case in CASES)
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
