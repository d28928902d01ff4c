"""What a sweep comes to: how many points had an answer, and which models no other beats at once in bytes and in a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .spec import Grid, Spec

REASONS = 20


class Front:
    """Collects the points of a chunk that the front is chosen from: those at its context and batch."""

    def __init__(self, spec: Spec, columns: Mapping[str, Any]) -> None:
        self.pareto, self.columns = spec.pareto, columns
        self.found: list[dict[str, Any]] = []

    def add(
        self, grid: Grid, line: int, dtype: str | None, contexts: Any, batches: Any, found: Any, reasons: Any
    ) -> None:
        if self.pareto is None:
            return
        (there,) = ((contexts == self.pareto["context"]) & (batches == self.pareto["batch"]) & (reasons < 0)).nonzero()
        if not there.size:
            return
        one = grid.line(line)
        settings = {"subject": one.subject, **one.sizes, "engine": one.engine, "dtype": dtype, **one.options}
        mine = {
            name: value.get(one.subject) if isinstance(value, dict) else value
            for name, value in grid.data["columns"].items()
        }
        value = {**settings, **mine}.get(self.pareto["column"])
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.found.append({**settings, **mine, "bytes": int(found[there[0]])})


def frontier(points: Iterable[dict[str, Any]], spec: Spec) -> list[dict[str, Any]]:
    """Of each engine the points that no other beats, by bytes: nothing takes fewer bytes and is as good in the column."""
    if spec.pareto is None:
        return []
    name, sign = spec.pareto["column"], 1 if spec.pareto["best"] == "least" else -1
    best: dict[str, float] = {}
    kept = []
    for point in sorted(points, key=lambda one: (one["engine"], one["bytes"], sign * one[name])):
        value = sign * point[name]
        if point["engine"] not in best or value < best[point["engine"]]:
            best[point["engine"]] = value
            kept.append(point)
    return kept


def summed(notes: Sequence[Mapping[str, Any]], spec: Spec) -> dict[str, Any]:
    """The notes of all chunks as one."""
    reasons: dict[str, int] = {}
    for note in notes:
        for text, count in note["reasons"].items():
            reasons[text] = reasons.get(text, 0) + count
    sizes = [note[key] for note in notes for key in ("least", "most") if note[key] is not None]
    return {
        "points": sum(note["rows"] for note in notes),
        "invalid": sum(note["invalid"] for note in notes),
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:REASONS]),
        "least": min(sizes, default=None),
        "most": max(sizes, default=None),
        "front": frontier((point for note in notes for point in note["front"]), spec),
    }
