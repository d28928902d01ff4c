"""The recorded cases of MLX-LM (tests/truth/mlx.jsonl)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from conftest import truth


class Case(NamedTuple):
    """recorded: bytes, or what MLX-LM raises."""

    variant: str
    config: dict[str, Any]
    workload: dict[str, Any]
    recorded: int | str


def cases() -> Iterator[Case]:
    first, *entries = truth("mlx.jsonl")
    workloads = [dict(zip(first["names"], values, strict=True)) for values in first["workloads"]]
    for entry in entries:
        for number, recorded in entry["cases"]:
            yield Case(entry["variant"], entry["config"], workloads[number], recorded)
