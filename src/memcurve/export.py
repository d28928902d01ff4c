"""Curves as data files: JSON, CSV, and a self-contained interactive page."""

from __future__ import annotations

import json
import math
from html import escape
from itertools import pairwise

from .base import BadConfig, Record, clean, show
from .crossed import find_crossings, find_places, in_words, rings
from .curve import MemoryCurve
from .engines import SHARED_CONTEXT
from .terms import SCHEMA
from .units import SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction

    from .terms import Expr


MAX_POINTS = 1_000_000
MAX_LISTED = 60  # runs of crossings that a page lists
COLUMNS = 5  # curves beside each other in a table, which fit on paper
MODULES = ("format.js", "dom.js", "curve.js", "chart.js")  # in this order they are one script


class Subject(Record):
    """One curve of a figure, under the name that its legend shows. share: the part of the curve that is shown (seed.py)."""

    name: str
    curve: MemoryCurve
    share: Fraction | int = 1

    def values(self, contexts: list[int], batch: int) -> Sequence[int | float]:
        return [self.curve.bytes(context, batch) for context in contexts]


def make_subjects(curves: Sequence[MemoryCurve | Subject]) -> list[Subject]:
    """Subjects whose names differ: engine and dtype are added to curves where they differ, a number where that is not enough.

    Names are without control characters, which an SVG may not hold.
    """
    for curve in curves:
        if not isinstance(curve, (MemoryCurve, Subject)):
            raise BadConfig(f"curves: {show(curve)}; expected curves, as Model.curve gives them")
    given = [curve if isinstance(curve, Subject) else Subject(name=curve.name, curve=curve) for curve in curves]
    names = [clean(subject.name) for subject in given]
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
        subject if subject.name == name else Subject(name=name, curve=subject.curve, share=subject.share)
        for subject, name in zip(given, names, strict=True)
    ]


def by_sequence(curves: Sequence[MemoryCurve], batch: int) -> tuple[list[MemoryCurve], list[str]]:
    """Curves that can be drawn together: beside other engines, one whose context all sequences share out goes by the context of
    each. And the engines of which some do."""
    sharing = {curve.engine for curve in curves if curve.engine in SHARED_CONTEXT}
    if batch <= 1 or not {curve.engine for curve in curves} - sharing:
        return list(curves), []
    return [curve.per_sequence(batch) if curve.engine in sharing else curve for curve in curves], sorted(sharing)


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
        {"context": one.context, "subjects": [one.cheaper.name, one.dearer.name]}
        for one in find_crossings(subjects, batch, contexts[0], contexts[-1])
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


def to_html(
    subjects: Sequence[Subject],
    contexts: list[int],
    batch: int,
    title: str,
    log: str = "",
    memory: Mapping[str, int] | None = None,
) -> str:
    """A page that needs no network: exact bytes at the pointer, zoom, switches for log axes and single curves, crossings, a
    GPU's memory, a table. log: the axes that are logarithmic at first. memory: bytes at which lines are drawn, by name.
    """
    from .gpus import table as devices

    low, high = contexts[0], contexts[-1]
    lines = [corners(subject, low, high, batch) for subject in subjects]
    places = find_places(find_crossings(subjects, batch, low, high), batch)
    marks = [
        {"x": context, "y": value, "names": [one.cheaper.name, one.dearer.name]}
        for (context, value), one in rings(places, batch).items()
    ]
    runs = [run for place in places for run in place.runs]
    said = [f"<li>{escape(in_words(run))}</li>" for run in runs[:MAX_LISTED]]
    if len(runs) > MAX_LISTED:
        said.append(f"<li>and {len(runs) - MAX_LISTED} more: memcurve cross lists them</li>")
    ends = {low, high, *(2**n for n in range(60) if low <= 2**n <= high)}
    kinks = {context for xs in lines if len(xs) < 20 for context in xs}
    tables = [
        to_table(subjects[first : first + COLUMNS], sorted(ends | kinks), batch)
        for first in range(0, len(subjects), COLUMNS)
    ]
    found = {
        "low": low, "high": high, "batch": batch, "log": log, "crossings": marks,
        "curves": [page_data(subject, batch) for subject in subjects],
        "gpus": [(one.name, one.memory_bytes) for one in devices()], "memory": list((memory or {}).items()),
    }  # fmt: skip
    values = {
        "title": escape(title),
        "crossings": "\n".join(said) or "<li>none here</li>",
        "table": "\n".join(tables),
        "data": json.dumps(found).replace("<", "\\u003c").replace("&", "\\u0026"),
        "style": beside("web", "static", "style.css"),
        "theme": beside("web", "static", "theme.js"),
        "script": "\n".join([*(as_one(beside("web", "static", name)) for name in MODULES), as_one(beside("page.js"))]),
    }
    pieces = beside("page.html").split("{{")
    rest = (piece.partition("}}") for piece in pieces[1:])
    return pieces[0] + "".join(values[name] + text for name, _, text in rest)


def to_table(subjects: Sequence[Subject], contexts: list[int], batch: int) -> str:
    """A table of bytes by context, as HTML."""
    names = "".join(f'<th scope="col">{escape(subject.name)}</th>' for subject in subjects)
    rows = [f'<tr><th scope="col">tokens</th>{names}</tr>']
    for context in contexts:
        cells = (
            shown(subject.values([context], batch)[0]) if context >= subject.curve.first_context(batch) else "—"
            for subject in subjects
        )
        rows.append(f"<tr><th scope='row'>{context:,}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head, body = rows[0], "\n".join(rows[1:])
    return f"<table><caption>Bytes at some contexts</caption><thead>{head}</thead><tbody>\n{body}\n</tbody></table>"


def beside(*names: str) -> str:
    """The text of a file of the package."""
    import os

    with open(os.path.join(os.path.dirname(__file__), *names), encoding="utf-8") as file:
        return file.read()


def as_one(module: str) -> str:
    """A module's text to stand beside those that it imports from: without the lines that say so."""
    lines = (line.removeprefix("export ") for line in module.splitlines() if not line.startswith("import "))
    return "\n".join(lines)


def shown(value: int | float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def page_data(subject: Subject, batch: int) -> dict[str, object]:
    """A curve as the page computes it: share · the sum of weight · slots. Numbers as text, which JavaScript keeps exact."""
    curve = subject.curve
    return {
        "name": subject.name,
        "note": curve.formula,
        "first": curve.first_context(batch),
        "kinks": list(curve.kinks(batch)),
        "share": [str(subject.share.numerator), str(subject.share.denominator)],
        "terms": [[str(weight), expr_text(slots)] for slots, weight in curve.weights(batch).items()],
    }


def expr_text(slots: Expr) -> object:
    """An expression of slots with its numbers as text."""
    return [slots[0], expr_text(slots[1]), expr_text(slots[2])] if isinstance(slots, tuple) else str(slots)


def corners(subject: Subject, low: int, high: int, batch: int, log: bool = False, most: int = 4000) -> list[int]:
    """Contexts between which a curve is straight: its ends, kinks and the sides of its steps.

    Ranges are halved until they are straight, the widest in the figure first, up to `most` of them: steps that are left
    are too fine to show. log: the axis is logarithmic. Contexts that an engine refuses or does not take as they stand
    are left out.
    """
    from heapq import heappop, heappush

    from .lines import Lines

    low = max(low, subject.curve.first_context(batch))
    if low > high:
        return []
    curve = Lines(subject.curve.weights(batch), 0, batch, 0)
    ends = sorted({low - 1, high, *(kink for kink in curve.kinks if low <= kink < high)})
    waiting: list[tuple[float, int, int]] = []
    straight: list[tuple[int, int]] = []

    def wait(first: int, last: int) -> None:
        wide = math.log(max(last, 1) / max(first, 1)) if log else last - first
        heappush(waiting, (-wide, first, last))

    for before, end in pairwise(ends):
        wait(before + 1, end)
    while waiting and len(waiting) + len(straight) < most:
        _, first, last = heappop(waiting)
        _, under, above = curve.over(first, last)
        if under == above:
            straight.append((first, last))
        else:
            middle = (first + last) // 2
            wait(first, middle)
            wait(middle + 1, last)
    found = sorted({context for _, *ends in waiting for context in ends} | {x for ends in straight for x in ends})
    points = [(context, subject.curve.bytes(context, batch)) for context in found]
    kept = points[:1]
    for point, after in pairwise(points[1:]):
        (x, y), (here, value), (then, later) = kept[-1], point, after
        if (value - y) * (then - here) != (later - value) * (here - x):
            kept.append(point)
    return [context for context, _ in kept + points[1:][-1:]]


def outline(contexts: Sequence[int], values: Sequence[int | float]) -> tuple[list[int], list[int | float]]:
    """The points of a line through a curve's corners, a step being upright: the new value stands from its first token on."""
    xs, ys = list(contexts[:1]), list(values[:1])
    for index in range(1, len(contexts)):
        here, value = contexts[index], values[index]
        if here - contexts[index - 1] == 1:
            before = _slope(contexts, values, index - 1)
            after = _slope(contexts, values, index + 1)
            rise = value - values[index - 1]
            if rise not in (before, after):
                xs.append(here)
                ys.append(values[index - 1] + (before if before is not None else 0))
        xs.append(here)
        ys.append(value)
    return xs, ys


def _slope(contexts: Sequence[int], values: Sequence[int | float], index: int) -> float | None:
    """Of the line that ends at a corner; None at the ends."""
    if not 0 < index < len(contexts):
        return None
    return (values[index] - values[index - 1]) / (contexts[index] - contexts[index - 1])
