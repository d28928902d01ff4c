"""Curves as data files: JSON, CSV, and a self-contained interactive page."""

from __future__ import annotations

import json
from html import escape
from itertools import combinations
from math import lcm

from .base import BadConfig, Record, show
from .curve import MemoryCurve, crossings
from .terms import SCHEMA
from .units import SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

MAX_POINTS = 1_000_000


class Subject(Record):
    """One curve of a figure, under the name that its legend shows. share: the part of the curve that is shown (seed.py)."""

    name: str
    curve: MemoryCurve
    share: Fraction | int = 1

    def values(self, contexts: list[int], batch: int) -> Sequence[int | float]:
        return [self.curve.bytes(context, batch) for context in contexts]


def make_subjects(curves: Sequence[MemoryCurve | Subject]) -> list[Subject]:
    """Subjects whose names differ: engine and dtype are added to curves where they differ, a number where that is not enough."""
    for curve in curves:
        if not isinstance(curve, (MemoryCurve, Subject)):
            raise BadConfig(f"curves: {show(curve)}; expected curves, as Model.curve gives them")
    given = [curve if isinstance(curve, Subject) else Subject(name=curve.name, curve=curve) for curve in curves]
    names = [subject.name for subject in given]
    for words in (
        [subject.curve.engine for subject in given],
        [SHORT.get(subject.curve.dtype, subject.curve.dtype) for subject in given],
    ):
        if len(set(words)) > 1:
            names = [
                name if isinstance(curve, Subject) else f"{name} · {word}"
                for curve, name, word in zip(curves, names, words, strict=True)
            ]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[index] = f"{name} ({seen[name]})"
    return [
        subject if subject.name == name else Subject(name=name, curve=subject.curve)
        for subject, name in zip(given, names, strict=True)
    ]


def default_title(subjects: Sequence[Subject], batch: int) -> str:
    """Engine, dtype and batch, where all subjects agree; else what they are in the legend."""
    engines = sorted({subject.curve.engine for subject in subjects})
    dtypes = sorted({SHORT.get(subject.curve.dtype, subject.curve.dtype) for subject in subjects})
    return f"engine {', '.join(engines)} · {', '.join(dtypes)} · batch {batch:,}"


def check_range(low: int, high: int) -> None:
    if low < 0:
        raise BadConfig(f"min_ctx: {low}; expected 0 or more")
    if high < low:
        raise BadConfig(f"max_ctx: {high}; expected at least min_ctx = {low}")


def sample(low: int, high: int, step: int) -> list[int]:
    """Contexts low, low + step, … up to high. BadConfig for an empty range and for more than a million points."""
    check_range(low, high)
    if step < 1:
        raise BadConfig(f"step: {step}; expected 1 or more")
    if (high - low) // step >= MAX_POINTS:
        raise BadConfig(
            f"step: {step}; expected at most {MAX_POINTS:,} points between {low:,} and {high:,}: try --step {(high - low) // 1000}"
        )
    return list(range(low, high + 1, step))


def find_crossings(subjects: Sequence[Subject], batch: int, low: int, high: int) -> list[tuple[int, Subject, Subject]]:
    """(context, a, b): from this context on the cheaper of a and b is another one. Within [low, high], sorted."""
    whole = lcm(*(subject.share.denominator for subject in subjects))
    curves = [_times(subject.curve, int(subject.share * whole)) for subject in subjects]
    found = [
        (context, subjects[i], subjects[j])
        for i, j in combinations(range(len(subjects)), 2)
        for context in crossings(curves[i], curves[j], batch)
        if low < context <= high
    ]
    return sorted(found, key=lambda item: item[0])


def _times(curve: MemoryCurve, factor: int) -> MemoryCurve:
    if factor == 1:
        return curve
    return curve.replace(terms=tuple(term.replace(layers=term.layers * factor) for term in curve.terms))


def to_data(subjects: Sequence[Subject], contexts: list[int], batch: int) -> dict[str, object]:
    """The figure as plain data: one list of contexts, per subject one list of bytes of the same length."""
    entries = []
    for subject in subjects:
        curve, share = subject.curve, subject.share
        values = [int(value) if value == int(value) else value for value in subject.values(contexts, batch)]
        entries.append(
            {
                "name": subject.name,
                "engine": curve.engine,
                "dtype": curve.dtype,
                "formula": curve.formula if share == 1 else f"{share} · {curve.formula}",
                "breakpoints": list(curve.breakpoints),
                "bytes": values,
                "curve": curve.to_dict(),
            }
        )
    crossed = [
        {"context": context, "subjects": [a.name, b.name]}
        for context, a, b in find_crossings(subjects, batch, contexts[0], contexts[-1])
    ]
    return {"schema": SCHEMA, "batch": batch, "contexts": contexts, "subjects": entries, "crossings": crossed}


def to_json(subjects: Sequence[Subject], contexts: list[int], batch: int) -> str:
    return json.dumps(to_data(subjects, contexts, batch)) + "\n"


def to_csv(subjects: Sequence[Subject], contexts: list[int], batch: int) -> str:
    """A header of "context" and the subjects' names, then a row of bytes per context."""
    import csv
    import io

    data = to_data(subjects, contexts, batch)
    columns = [entry["bytes"] for entry in data["subjects"]]  # type: ignore[attr-defined]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["context", *(subject.name for subject in subjects)])
    writer.writerows(zip(contexts, *columns, strict=True))
    return stream.getvalue()


def to_html(subjects: Sequence[Subject], contexts: list[int], batch: int, title: str) -> str:
    """A page that needs no network: the curves as exact points, hover, switches for log axes and for single curves, and a table."""
    import os

    lines = [corners(subject, contexts[0], contexts[-1], batch) for subject in subjects]
    points = [
        {"name": subject.name, "x": xs, "y": list(subject.values(xs, batch)), "note": subject.curve.formula}
        for subject, xs in zip(subjects, lines, strict=True)
    ]
    crossed = [
        {"x": context, "y": a.values([context], batch)[0], "names": [a.name, b.name]}
        for context, a, b in find_crossings(subjects, batch, contexts[0], contexts[-1])
    ]
    ends = {contexts[0], contexts[-1], *(2**n for n in range(60) if contexts[0] <= 2**n <= contexts[-1])}
    kinks = {context for xs in lines if len(xs) < 20 for context in xs}
    table = ["<tr><th>tokens</th>" + "".join(f"<th>{escape(subject.name)}</th>" for subject in subjects) + "</tr>"]
    for context in sorted(ends | kinks):
        cells = "".join(f"<td>{subject.values([context], batch)[0]:,}</td>" for subject in subjects)
        table.append(f"<tr><th>{context:,}</th>{cells}</tr>")
    with open(os.path.join(os.path.dirname(__file__), "page.html"), encoding="utf-8") as file:
        page = file.read()
    data = json.dumps({"curves": points, "crossings": crossed}).replace("<", "\\u003c").replace("&", "\\u0026")
    for mark, value in (("{{title}}", escape(title)), ("{{table}}", "\n".join(table)), ("{{data}}", data)):
        page = page.replace(mark, value)
    return page


def corners(subject: Subject, low: int, high: int, batch: int, most: int = 2000) -> list[int]:
    """Contexts between which a curve is straight: its ends and breakpoints; for a staircase also its steps, or enough of them."""
    curve = subject.curve
    found = {low, high, *(kink for kink in curve.kinks(batch) if low < kink < high)}
    period = curve.period
    if period > 1:
        step = max(1, (high - low) // most)
        start = low - low % period
        for context in range(start, high + 1, max(period, step - step % period or period)):
            found.update(edge for edge in (context - 1, context) if low <= edge <= high)
    return sorted(found)
