"""The recorded cases of tests/truth/, each as (model type, config, engine options, batch, context, encoder context, bytes)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from memcurve import catalog

TRUTH = Path(__file__).parent / "truth"


def unquantised(name: str) -> dict[str, Any]:
    """A config of the catalogue as the serving engines' planning was recorded with it: without its quantisation."""
    found = catalog.find(name)
    assert found is not None, name
    return {key: value for key, value in found.items() if key != "quantization_config"}


class Case(NamedTuple):
    """What Transformers 5.23.0 allocated for one config and workload."""

    model_type: str
    variant: str
    config: dict[str, Any]
    dtype: str
    options: dict[str, Any]
    batch: int
    context: int
    encoder_context: int
    total_bytes: int


def lines(name: str) -> Iterator[dict[str, Any]]:
    """The lines of a recorded file; none where it is missing."""
    path = TRUTH / name
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)


def cases() -> Iterator[Case]:
    """Every recorded case; a config in two forms (as saved, in the keys of published configs) gives two."""
    for entry in lines("transformers.jsonl"):
        name, dtype = entry["config"]["model_type"], entry["dtype"]
        for form in ("config", "hub"):
            if form in entry:
                for batch, _, _, context, total in entry["cases"]:
                    yield Case(name, f"{entry['variant']} ({form})", entry[form], dtype, {}, batch, context, 0, total)
        for length, batch, prefill, total in entry.get("static", ()):
            options = {"cache": "static", "max_cache_len": length}
            yield Case(name, f"{entry['variant']} (static)", entry["config"], dtype, options, batch, prefill, 0, total)
    for entry in lines("transformers_fullsize.jsonl"):
        name, (batch, context, total) = entry["config"]["model_type"], entry["case"]
        for form, config in (("full size", entry["config"]), ("class defaults", {"model_type": name})):
            yield Case(name, form, config, entry["dtype"], {}, batch, context, 0, total)
    for entry in lines("transformers_encoder_decoder.jsonl"):
        for batch, context, encoder, total in entry["cases"]:
            name = entry["config"]["model_type"]
            yield Case(name, "encoder-decoder", entry["config"], entry["dtype"], {}, batch, context, encoder, total)
    for entry in lines("transformers_types.jsonl"):
        for form in ("config", "hub"):
            if form in entry:
                for case in entry["cases"]:
                    batch, context, encoder, total = case
                    variant = f"{entry['variant']} ({form})"
                    yield Case(
                        entry["model_type"], variant, entry[form], entry["dtype"], {}, batch, context, encoder, total
                    )
