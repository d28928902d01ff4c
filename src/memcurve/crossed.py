"""Where subjects of a figure cross: one by one, and together where stairs swap places step by step."""

from __future__ import annotations

from itertools import combinations
from math import lcm

from .base import BadConfig, Record
from .curve import order
from .units import show_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .curve import MemoryCurve, Order
    from .export import Subject

SHORT = 12  # crossings of a run that are marked one by one


class Crossing(Record):
    """From this context on, `cheaper` takes fewer bytes than `dearer`; before it the other way round, or as many."""

    context: int
    cheaper: Subject
    dearer: Subject


def compare(
    a: Subject, b: Subject, batch: int, until: int | None = None, steps: int | None = None
) -> tuple[Order, list[Crossing]]:
    """How two subjects compare, over all contexts or up to one, in at most so many steps."""
    whole = lcm(a.share.denominator, b.share.denominator)
    left, right = (_times(subject.curve, int(subject.share * whole)) for subject in (a, b))
    found = order(left, right, batch, until=until, steps=steps)
    pair = (b, a) if found.first < 0 else (a, b)
    crossed = [
        Crossing(context=context, cheaper=pair[index % 2], dearer=pair[1 - index % 2])
        for index, context in enumerate(found.crossings)
    ]
    return found, crossed


def compare_all(
    subjects: Sequence[Subject], batch: int, until: int | None = None, steps: int | None = None
) -> list[tuple[Subject, Subject, Order, list[Crossing]]]:
    """How all pairs compare, each in at most so many steps. BadConfig for fewer than two subjects."""
    if len(subjects) < 2:
        raise BadConfig(f"subjects: {len(subjects)}; expected two or more, or one with --engine all")
    return [(a, b, *compare(a, b, batch, until, steps)) for a, b in combinations(subjects, 2)]


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


class Place(Record):
    """A point of the figure where runs of crossings begin: context, bytes, and the runs, each of one pair."""

    context: int
    value: float
    runs: tuple[tuple[Crossing, ...], ...]


def find_places(crossings: Sequence[Crossing], batch: int) -> list[Place]:
    """The runs of crossings, those that begin at one point together, by context."""
    found: dict[tuple[int, float], list[tuple[Crossing, ...]]] = {}
    for run in in_runs(crossings, batch):
        (value,) = run[0].cheaper.values([run[0].context], batch)
        found.setdefault((run[0].context, value), []).append(tuple(run))
    return [Place(context=context, value=value, runs=tuple(runs)) for (context, value), runs in found.items()]


def rings(places: Sequence[Place], batch: int) -> dict[tuple[int, float], Crossing]:
    """The points to mark: every crossing of a short run, the first and the last of a long one."""
    runs = [run if len(run) <= SHORT else (run[0], run[-1]) for place in places for run in place.runs]
    return {(one.context, one.cheaper.values([one.context], batch)[0]): one for run in runs for one in run}


def in_words(run: Sequence[Crossing]) -> str:
    """What a run comes to: from where on which of the two takes less."""
    last, many = run[-1], "" if len(run) == 1 else f", after {len(run)} crossings from {run[0].context:,} on,"
    return f"from {show_count(last.context, 'token')} on{many} {last.cheaper.name} takes less than {last.dearer.name}"


def span(run: Sequence[Crossing]) -> str:
    """A run's contexts: 61,441, or the first and the last with how many there are."""
    first, last = run[0].context, run[-1].context
    return f"{first:,}" if first == last else f"{first:,} to {last:,} ({len(run)}×)"
