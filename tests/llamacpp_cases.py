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


def cases() -> Iterator[Case]:
    first, *entries = truth("llamacpp.jsonl")
    workloads = [dict(zip(first["names"], values, strict=True)) for values in first["workloads"]]
    for entry in entries:
        for number, *recorded in entry["cases"]:
            yield Case(entry["model"], entry["metadata"], workloads[number], recorded)


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
