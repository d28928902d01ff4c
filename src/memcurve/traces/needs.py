"""A curve as what a sweep adds up: bytes at a context, and the contexts at which one more token takes more.

Every term of a curve is, between its breakpoints, a straight line or a staircase (terms.py): what one more token adds
repeats with the term's period. So a request that grows token by token is a handful of rises, each at every so many tokens.
"""

from __future__ import annotations

from itertools import pairwise
from math import gcd

from ..base import NotDescribed, Record
from ..curve import MemoryCurve
from ..engines import SHARED_CONTEXT
from ..terms import compile_expr, kinks_of, period_of, put, uses
from .compiled import np
from .formats import MOST_TOKENS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..terms import Expr

    Ints = NDArray[np.int64]
    Weights = dict[Expr, int]

ENDLESS = 2**40
# More rises of one period than this are no staircase that a memory has.
MOST_RISES = 4096


class Needs(Record):
    """weights: bytes of a slot by its expression, of one request; base: what is held before the first. rises: rows of (first context,
    end, index of the period, remainder, bytes): one more token after a context from first to end with that remainder takes so many more.
    unit: bytes that every number is a multiple of."""

    weights: tuple[tuple[Expr, int], ...]
    base: int
    rises: Ints
    periods: Ints
    unit: int

    def at(self, context: Ints) -> Ints:
        """Bytes of one request at contexts, without the base."""
        total = np.zeros(context.shape, np.int64)
        for slots, weight in self.weights:
            total = total + weight * np.asarray(compile_expr(slots, np.minimum)(context, 1, 0))
        return total


def needs_of(curve: MemoryCurve, encoder: int = 0) -> Needs:
    """What one request of a curve holds. NotDescribed where requests don't hold bytes of their own."""
    if curve.engine in SHARED_CONTEXT:
        raise NotDescribed(
            f"replay: engine {curve.engine} allocates its whole context at the start, whatever is asked of it; "
            "memcurve fit says what that is"
        )
    weights: Weights = {}
    base = 0
    for term in curve.terms:
        slots = put(term.slots, "encoder", encoder)
        size = term.layers * term.slot_bytes
        if uses(slots, "batch") or (term.shared and uses(slots, "context")):
            raise NotDescribed(
                f"replay: {term.kind} of engine {curve.engine} depends on the whole batch, so that no request has bytes of its own"
            )
        if term.shared:
            base += size * int(compile_expr(slots)(0, 1, 0))
        else:
            weights[slots] = weights.get(slots, 0) + size
    return needs(weights, base)


def filled_of(curve: MemoryCurve) -> Needs | None:
    """What requests really fill of their reservations, where the engine's allocator tells."""
    rows = curve.allocator and curve.allocator.filled()
    if not rows:
        return None
    weights: Weights = {}
    for _, size, slots in rows:
        weights[slots] = weights.get(slots, 0) + size
    return needs(weights, 0)


def needs(weights: Weights, base: int) -> Needs:
    found: dict[tuple[int, int, int, int], int] = {}
    for slots, weight in weights.items():
        period = period_of(slots, 1)
        for first, end, rest, rise in rises_of(slots, period):
            key = (first, end, period, rest)
            found[key] = found.get(key, 0) + rise * weight
    periods = sorted({key[2] for key in found})
    rows = [
        (first, end, periods.index(period), rest, rise) for (first, end, period, rest), rise in found.items() if rise
    ]
    if len(rows) > MOST_RISES:
        raise NotDescribed(f"replay: a staircase of {len(rows):,} rises; expected at most {MOST_RISES:,}")
    unit = gcd(base, *(row[4] for row in rows), *(constant(slots) * weight for slots, weight in weights.items()))
    return Needs(
        weights=tuple(weights.items()),
        base=base,
        rises=np.array(rows, np.int64).reshape(-1, 5),
        periods=np.array(periods or [1], np.int64),
        unit=unit or 1,
    )


def constant(slots: Expr) -> int:
    """Slots of one token, from which the rises go up."""
    return int(compile_expr(slots)(1, 1, 0))


def rises_of(slots: Expr, period: int) -> Sequence[tuple[int, int, int, int]]:
    """(first context, end, remainder, slots) of every rise, between the kinks of an expression."""
    if not uses(slots, "context"):
        return []
    kinks = sorted(kink for kink in kinks_of(slots, 1, 0) if kink < MOST_TOKENS * 2)
    value = compile_expr(slots)
    found = []
    # At a kink itself the rise is neither side's.
    edges = sorted({0, *(edge for kink in kinks for edge in (max(kink - period, 0), kink + period)), ENDLESS})
    for first, end in pairwise(edges):
        if end - first <= 2 * period:
            contexts = range(first, end)
            found += [
                (context, context + 1, context % period, rise)
                for context in contexts
                if (rise := int(value(context + 1, 1, 0) - value(context, 1, 0)))
            ]
            continue
        for context in range(first, first + period):
            if rise := int(value(context + 1, 1, 0) - value(context, 1, 0)):
                found.append((first, end, context % period, rise))
    return found
