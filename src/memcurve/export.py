"""Curves as data files: JSON, CSV, and a self-contained interactive page."""

from __future__ import annotations

import json
import math
from html import escape
from itertools import combinations, pairwise
from math import lcm

from .base import BadConfig, Record, show
from .curve import MemoryCurve, order
from .terms import SCHEMA
from .units import SHORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from .curve import Order

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


class Crossing(Record):
    """From this context on, `cheaper` takes fewer bytes than `dearer`; before it the other way round, or as many."""

    context: int
    cheaper: Subject
    dearer: Subject


def compare(a: Subject, b: Subject, batch: int, until: int | None = None) -> tuple[Order, list[Crossing]]:
    """How two subjects compare, over all contexts or up to one."""
    whole = lcm(a.share.denominator, b.share.denominator)
    left, right = (_times(subject.curve, int(subject.share * whole)) for subject in (a, b))
    found = order(left, right, batch, until=until)
    pair = (b, a) if found.first < 0 else (a, b)
    crossed = [
        Crossing(context=context, cheaper=pair[index % 2], dearer=pair[1 - index % 2])
        for index, context in enumerate(found.crossings)
    ]
    return found, crossed


def find_crossings(subjects: Sequence[Subject], batch: int, low: int, high: int) -> list[Crossing]:
    """The crossings of all pairs within ]low, high], by context."""
    found = [one for a, b in combinations(subjects, 2) for one in compare(a, b, batch, high)[1] if one.context > low]
    return sorted(found, key=lambda one: one.context)


def in_runs(crossings: Sequence[Crossing], batch: int) -> list[list[Crossing]]:
    """Crossings in order, where stairs of one pair swap places within a step of each other together: one list for each run."""
    runs: list[list[Crossing]] = []
    latest: dict[frozenset[str], list[Crossing]] = {}
    for one in crossings:
        pair = frozenset((one.cheaper.name, one.dearer.name))
        step = max(one.cheaper.curve.step(batch), one.dearer.curve.step(batch))
        run = latest.get(pair)
        if run is not None and one.context - run[-1].context <= step:
            run.append(one)
        else:
            latest[pair] = [one]
            runs.append(latest[pair])
    return runs


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


def to_html(subjects: Sequence[Subject], contexts: list[int], batch: int, title: str) -> str:
    """A page that needs no network: the curves as exact points, hover, switches for log axes and for single curves, and a table."""
    import os

    lines = [corners(subject, contexts[0], contexts[-1], batch) for subject in subjects]
    points = [
        {"name": subject.name, "x": xs, "y": list(subject.values(xs, batch)), "note": subject.curve.formula}
        for subject, xs in zip(subjects, lines, strict=True)
    ]
    crossed = [
        {
            "x": one.context,
            "y": one.cheaper.values([one.context], batch)[0],
            "names": [one.cheaper.name, one.dearer.name],
        }
        for one in find_crossings(subjects, batch, contexts[0], contexts[-1])
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


def corners(subject: Subject, low: int, high: int, batch: int, log: bool = False, finest: int = 1000) -> list[int]:
    """Contexts between which a curve is straight: its ends, kinks and the sides of its steps.

    Of steps closer to each other than 1/finest of the axis, which no figure shows, some are left out. log: the axis is
    logarithmic. Contexts that an engine refuses or does not take as they stand are left out.
    """
    from .lines import Lines

    low = max(low, subject.curve.first_context(batch))
    if low > high:
        return []
    curve = Lines(subject.curve.weights(batch), 0, batch, 0)
    place = (lambda context: math.log(max(context, 1))) if log else float
    width = max(place(high) - place(low), 1e-9) / finest
    ends = sorted({kink for kink in curve.kinks if low <= kink < high})
    found = [low]
    waiting = list(zip((*(end + 1 for end in reversed(ends)), low), (high, *reversed(ends)), strict=True))
    while waiting:
        first, last = waiting.pop()
        _, under, above = curve.over(first, last)
        if under == above or place(last) - place(first) < width:
            found += (first, last)
        else:
            middle = (first + last) // 2
            waiting += ((middle + 1, last), (first, middle))
    points = [(context, subject.curve.bytes(context, batch)) for context in dict.fromkeys(found)]
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
