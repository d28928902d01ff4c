"""The recorded cases of llama.cpp (tests/truth/llamacpp.jsonl), and memcurve's answers in the same form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from conftest import truth

from memcurve import MemoryCurve, Refused, load

FLASH = {-1: "auto", 0: False, 1: True}
# llama.cpp's K, V, R, S and P, and the states of compressors.
ORDER = ("key", "value", "conv_state", "recurrent_state", "ple_state", "waiting")
OPTIONS = ("type_k", "type_v", "n_batch", "n_ubatch", "n_rs_seq")


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


def curve(metadata: dict[str, Any], workload: dict[str, Any]) -> MemoryCurve:
    return load(metadata).curve(
        "llamacpp",
        **{name: workload[name] for name in OPTIONS},
        flash_attn=FLASH[workload["flash_attn"]],
        swa_full=bool(workload["swa_full"]),
        kv_unified=bool(workload["kv_unified"]),
        mtp_context=workload["ctx_type"] == 1,
    )


def found(metadata: dict[str, Any], workload: dict[str, Any]) -> list[Any]:
    """Bytes per sort of tensor, or why there is no context."""
    sizes = workload["n_ctx"], workload["n_seq_max"]
    try:
        answer = curve(metadata, workload)
        total, rows = answer.bytes(*sizes), answer.breakdown(*sizes)
    except Refused as error:
        return [str(error)]
    held = dict.fromkeys(ORDER, 0)
    for row in rows:
        (name,) = row["tensors"]
        held["waiting" if name.startswith("waiting") else name] += row["bytes"]
    assert total == sum(held.values())
    return list(held.values())
