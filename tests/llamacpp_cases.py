"""The recorded cases of llama.cpp (tests/truth/llamacpp.jsonl)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from conftest import truth


class Case(NamedTuple):
    model: str
    metadata: dict[str, Any]
    workload: dict[str, Any]
    recorded: list[Any]


def metadata(entry: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a model; a drawn one names what it has otherwise than the others, by keys below its architecture."""
    own: dict[str, Any] = entry["metadata"]
    if not entry.get("drawn"):
        return own
    architecture = own["general.architecture"]
    keys = {key: value for key, value in (drawn | own).items() if value is not None}
    whole = ("general.", "tokenizer.", "xielu.")
    return {key if key.startswith(whole) else f"{architecture}.{key}": value for key, value in keys.items()}


def workloads(first: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(first["names"], values, strict=True)) for values in first["workloads"]]


def cases() -> Iterator[Case]:
    first, *entries = truth("llamacpp.jsonl")
    asked = workloads(first)
    for entry in entries:
        keys = metadata(entry, first["drawn"])
        for number, *recorded in entry["cases"]:
            yield Case(entry["model"], keys, asked[number], recorded)
