"""A config.json gives the caches of the GGUF file that llama.cpp's converter makes of it (tests/README.md says how the file reads)."""

from __future__ import annotations

from typing import Any

from conftest import truth

from memcurve import catalog, load
from memcurve.gguf import Metadata
from memcurve.model import Model
from memcurve.views import View, view
from memcurve.views.convert import metadata

RECORDED = truth("llamacpp_converter.jsonl")
# The converter writes experts for every Nemotron-H, since Transformers' class has them, and then no width for its dense
# layers: llama.cpp opens no such file. memcurve goes by the layers there are.
BY_LAYERS = {
    "nvidia/Nemotron-H-8B-Base-8K",
    "nvidia/Nemotron-H-56B-Base-8K",
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
}
# What no key of the file tells: windows that llama.cpp does not use, and an expansion that Transformers takes from
# elsewhere than the file's intermediate_size.
UNTOLD = {
    "mistralai/Ministral-8B-Instruct-2410",
    "mistralai/Mistral-7B-v0.1",
    "mlc/mistral_7b",
    "mlc/starcoder2",
    "pfnet/plamo-2-1b",
}


def seen(model: Model, source: Any, unread: list[str]) -> View:
    found = view("llamacpp", model.layers, None, source)
    facts = dict(found.facts)
    layers = found.layers
    if unread:
        # Draft layers that only the weights tell of keep nothing in an ordinary context.
        layers = tuple(layer for layer in layers if getattr(layer, "why", "") != "a draft layer")
        del facts["mtp_layers"]
    if isinstance(facts["trained_context"], str):
        del facts["trained_context"]
    return View(layers=layers, dtype=found.dtype, facts=facts)


def test_every_recorded_config_gives_the_same_caches(count: Any) -> None:
    wrong = []
    for entry in RECORDED:
        model, unread = load(entry["name"]), entry.get("unread", [])
        mine, theirs = seen(model, model.config, unread), seen(model, Metadata(entry["keys"]), unread)
        if "trained_context" not in mine.facts:
            theirs = theirs.replace(facts={k: v for k, v in theirs.facts.items() if k != "trained_context"})
        if (mine.layers, mine.facts) != (theirs.layers, theirs.facts) and entry["name"] not in BY_LAYERS:
            wrong.append(entry["name"])
    count(f"llama.cpp's converter: {len(RECORDED)} configs of the catalogue, {len(wrong)} otherwise")
    assert wrong == []


def test_a_gguf_file_keeps_what_its_config_keeps() -> None:
    def kept(model: Model) -> list[int]:
        line = model.curve("logical", "bf16")
        return [line.bytes(context, 2, 7) for context in (1, 300, 70_000)]

    names = {entry["name"] for entry in RECORDED if kept(load(entry["keys"])) != kept(load(entry["name"]))}
    assert names == UNTOLD | BY_LAYERS


def test_types_of_the_catalogue_are_converted_or_named() -> None:
    recorded = {entry["name"] for entry in RECORDED}
    assert len(recorded) > 150
    assert recorded <= set(catalog.names())
    assert metadata(load("openai/gpt-oss-20b").config).architecture == "gpt-oss"  # type: ignore[arg-type]
