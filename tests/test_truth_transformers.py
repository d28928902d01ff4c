"""What Transformers 5.23.0 allocated, replayed to the byte (tests/README.md says how the files read)."""

from __future__ import annotations

from typing import Any

from conftest import truth

from memcurve import Model, load
from memcurve.families import structure_of

VARIANTS = truth("transformers.jsonl")
# A structure that is not described is listed here, never skipped in silence.
NOT_DESCRIBED: set[str] = {"reformer"}


def model_of(config: dict[str, Any]) -> Model:
    return load(config)


def replay(entry: dict[str, Any], config: dict[str, Any]) -> list[str]:
    curve = model_of(config).curve("transformers", entry["dtype"])
    return [
        f"{entry['variant']}: context {context}, batch {batch}: {curve.bytes(context, batch):,}, recorded {total:,}"
        for batch, _, _, context, total in entry["cases"]
        if curve.bytes(context, batch) != total
    ]


def test_every_recorded_type_is_described_or_listed() -> None:
    refused = {entry["variant"] for entry in VARIANTS if not _described(entry["config"])}
    assert refused == NOT_DESCRIBED


def _described(config: dict[str, Any]) -> bool:
    try:
        return structure_of(load(config).model_type) is not None
    except ValueError:
        return False


def test_dynamic_cache(count: Any) -> None:
    described = [entry for entry in VARIANTS if entry["variant"] not in NOT_DESCRIBED]
    wrong = [line for entry in described for line in replay(entry, entry["config"])]
    cases = sum(len(entry["cases"]) for entry in described)
    types = {entry["config"]["model_type"] for entry in described}
    count(f"transformers, dynamic cache: {cases} recorded cases of {len(types)} model types, {len(wrong)} wrong")
    assert wrong == []
    assert cases > 4000


def test_hub_style_keys_give_the_same_answer(count: Any) -> None:
    entries = [entry for entry in VARIANTS if "hub" in entry]
    wrong = [line for entry in entries for line in replay(entry, entry["hub"])]
    for entry in entries:
        assert load(entry["hub"]).layers == load(entry["config"]).layers, entry["variant"]
    count(f"transformers, hub-style keys: {sum(len(entry['cases']) for entry in entries)} cases, {len(wrong)} wrong")
    assert wrong == []


def test_full_size_defaults(count: Any) -> None:
    entries = truth("transformers_fullsize.jsonl")
    for entry in entries:
        batch, context, total = entry["case"]
        for config in (entry["config"], {"model_type": entry["config"]["model_type"]}):
            assert model_of(config).curve("transformers", entry["dtype"]).bytes(context, batch) == total, entry[
                "config"
            ]
    count(f"transformers, class defaults at full size: {len(entries)} types, with every key and with none")


def test_encoder_decoder(count: Any) -> None:
    cases = 0
    for entry in truth("transformers_encoder_decoder.jsonl"):
        curve = model_of(entry["config"]).curve("transformers", entry["dtype"])
        for batch, tokens, encoder, total in entry["cases"]:
            assert curve.bytes(tokens, batch, encoder) == total, entry["config"]["model_type"]
            cases += 1
    count(f"transformers, encoder-decoder: {cases} cases")
    assert cases == 192


def test_static_cache(count: Any) -> None:
    cases = 0
    for entry in VARIANTS:
        if entry["variant"] in NOT_DESCRIBED:
            continue
        model = model_of(entry["config"])
        for length, batch, prefill, total in entry.get("static", ()):
            curve = model.curve("transformers", entry["dtype"], cache="static", max_cache_len=length)
            assert curve.bytes(prefill, batch) == total, entry["variant"]
            cases += 1
    count(f"transformers, static cache: {cases} cases")
    assert cases > 200
