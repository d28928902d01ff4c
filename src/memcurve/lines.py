"""Exact searches along a sum of terms: where its sign changes, and where it is last at most zero.

Over a range of contexts a sum lies between two parallel straight lines. They follow from its expressions (a quotient
is its own line, less what rounding takes), and they meet where nothing rounds, at the latest at a single context. Where
the lines tell the sign of a whole range, no context in it is looked at; else the range is halved. So a search costs
as many steps as there are places where the answer hangs on single tokens, however long the periods are.
"""

from __future__ import annotations

from math import lcm

from .base import TooLarge
from .buffers import rows
from .terms import compile_expr, kinks_of, period_of, spare, uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from .terms import Expr

    # slope, low, high: scale · value is from slope·T + low to slope·T + high over a range; last None: without end.
    Line: TypeAlias = tuple[int, int, int]
    Over: TypeAlias = Callable[[int, int | None], Line]

MAX_STEPS = 1_000_000  # some seconds


class Endless(Exception):
    """No line holds an expression that grows by a factor that changes again and again."""


class Lines:
    """constant + the sum of weight · slots by context, at one batch and encoder's context; weights may be negative."""

    def __init__(self, weights: Mapping[Expr, int], constant: int, batch: int, encoder: int) -> None:
        self.period = lcm(*(period_of(slots, batch) for slots in weights))
        self.constant = constant * self.period
        self.kinks = {kink for slots in weights for kink in kinks_of(slots, batch, encoder)}
        self.parts = [
            (weight, line_of(slots, self.period, batch, encoder)) for slots, weight in weights.items() if weight
        ]

    def over(self, first: int, last: int | None) -> Line:
        """slope, low, high over contexts from first to last, all times `period`."""
        slope, low, high = 0, self.constant, self.constant
        for weight, over in self.parts:
            steep, under, above = over(first, last)
            slope += weight * steep
            low += weight * (under if weight > 0 else above)
            high += weight * (above if weight > 0 else under)
        return slope, low, high

    def settles(self, first: int) -> tuple[int, Line]:
        """A context from which on one line tells all: its sign is that of the slope, or of a sum that repeats."""
        start = max(first, *self.kinks) if self.kinks else first
        context = start
        for _ in range(24):
            try:
                slope, low, high = self.over(context, None)
            except Endless:
                pass
            else:
                if slope > 0:
                    return max(context, -low // slope + 1), (slope, low, high)
                if slope < 0:
                    return max(context, high // -slope + 1), (slope, low, high)
                if low > 0 or high < 0 or low == high:
                    return context, (slope, low, high)
            context += (context - start) + self.period
        slope, low, high = self.over(context, None)
        return start, (slope, low, high)


def line_of(expr: Expr, scale: int, batch: int, encoder: int) -> Over:
    """The lines around an expression. scale: a multiple of its period, so that every slope is a whole number."""
    if not uses(expr, "context"):
        size = scale * int(compile_expr(expr)(0, batch, encoder))
        return lambda first, last: (0, size, size)
    if not isinstance(expr, tuple):
        return lambda first, last: (scale, 0, 0)
    op, a = expr[0], line_of(expr[1], scale, batch, encoder)
    if op in ("add", "mul", "min"):
        b = line_of(expr[2], scale, batch, encoder)
        if op == "add":
            return lambda first, last: tuple(x + y for x, y in zip(a(first, last), b(first, last), strict=True))  # type: ignore[return-value]
        both = _product if op == "mul" else _least
        return lambda first, last: both(a(first, last), b(first, last), first, last, scale)
    by = int(compile_expr(expr[2])(0, batch or 1, encoder))
    if op == "past":
        return lambda first, last: _past(a(first, last), by * scale, first, last)
    if op == "rows":
        return lambda first, last: _rows(a(first, last), by, first, last, scale)
    up = scale * (by - 1) if op == "ceil" else 0

    def quotient(first: int, last: int | None) -> Line:
        slope, low, high = a(first, last)
        return _quotient((slope, low + up, high + up), by, first, last, scale)

    def rest(first: int, last: int | None) -> Line:
        slope, low, high = a(first, last)
        steep, under, above = _quotient((slope, low, high), by, first, last, scale)
        return (slope - by * steep, low - by * under, high - by * under) if under == above else (0, 0, scale * (by - 1))

    return rest if op == "mod" else quotient


def _quotient(line: Line, by: int, first: int, last: int | None, scale: int) -> Line:
    slope, low, high = line
    if last is not None or slope == 0:
        least, most = -(-(slope * first + low) // scale), (slope * (last or 0) + high) // scale
        if least // by == most // by:
            return 0, least // by * scale, least // by * scale
    if low == high and slope % (scale * by) == 0:
        each = low // scale // by * scale
        return slope // by, each, each
    return slope // by, (low - scale * (by - 1)) // by, -(-high // by)


def _product(a: Line, b: Line, first: int, last: int | None, scale: int) -> Line:
    for one, other in ((a, b), (b, a)):
        if one[0] == 0 and one[1] == one[2]:
            times = one[1] // scale
            return other[0] * times, other[1] * times, other[2] * times
    if last is None:
        raise Endless
    least, most = 1, 1
    for slope, low, high in (a, b):
        least, most = least * max(0, -(-(slope * first + low) // scale)), most * ((slope * last + high) // scale)
    return 0, least * scale, most * scale


def _least(a: Line, b: Line, first: int, last: int | None, scale: int) -> Line:
    for one, other in ((a, b), (b, a)):
        if one[0] * first + one[2] <= other[0] * first + other[1] and (
            one[0] <= other[0] if last is None else one[0] * last + one[2] <= other[0] * last + other[1]
        ):
            return one
    flat, steep = sorted((a, b))
    return flat[0], min(flat[1], (steep[0] - flat[0]) * first + steep[1]), flat[2]


def _past(line: Line, by: int, first: int, last: int | None) -> Line:
    """max(value - by, 0)."""
    slope, low, high = line
    if slope * first + low >= by:
        return slope, low - by, high - by
    if last is not None and slope * last + high <= by:
        return 0, 0, 0
    return slope, low - by, max(high - by, -slope * first)


def _rows(line: Line, piece: int, first: int, last: int | None, scale: int) -> Line:
    slope, low, high = line
    if last is not None or slope == 0:
        tokens, most = -(-(slope * first + low) // scale), (slope * (last or 0) + high) // scale
        if tokens == most:
            held = scale * int(rows(tokens, piece))
            return 0, held, held
    return slope, low, high + scale * spare(piece)


def _ranges(
    lines: Lines, first: int, last: int, backwards: bool = False, most: int = MAX_STEPS
) -> Iterator[tuple[int, int, Line, list[bool]]]:
    """Ranges from first to last in order, with their lines. The list's flag is set by who asks for halves of this one."""
    waiting, steps = [(first, last)] if first <= last else [], 0
    while waiting:
        low, high = waiting.pop()
        steps += 1
        if steps > most:
            raise TooLarge(
                f"staircases that come close more than {most // 2:,} times between {first:,} and {last:,} tokens; "
                "expected a smaller last context (until=, --max_ctx)"
            )
        halve = [False]
        yield low, high, lines.over(low, high), halve
        if halve[0]:
            middle = (low + high) // 2
            halves = [(middle + 1, high), (low, middle)]
            waiting += reversed(halves) if backwards else halves


def sign_changes(lines: Lines, first: int, last: int, most: int = MAX_STEPS) -> tuple[list[int], int]:
    """The first context of each new sign from first to last, zero being none, and the sign at the start; TooLarge for more
    than so many steps."""
    found: list[int] = []
    start = sign = 0

    def see(context: int, value: int) -> None:
        nonlocal sign, start
        new = (value > 0) - (value < 0)
        if new and new != sign:
            if sign:
                found.append(context)
            start, sign = start or new, new

    for low, high, (slope, under, above), halve in _ranges(lines, first, last, most=most):
        least = min(slope * low, slope * high) + under
        most = max(slope * low, slope * high) + above
        if (least >= 0 and sign > 0) or (most <= 0 and sign < 0) or least == most == 0:
            continue
        if least > 0 or most < 0:
            see(low, least if least > 0 else most)
        elif under == above:
            see(low, slope * low + under)
            turn = (-under // slope if slope > 0 else under // -slope) + 1
            if low < turn <= high:
                see(turn, slope)
        else:
            halve[0] = True
    return found, start


def last_at_most(lines: Lines, first: int, last: int) -> int | None:
    """The last context from first to last at which the sum is zero or less."""
    for low, high, (slope, under, above), halve in _ranges(lines, first, last, backwards=True):
        least = min(slope * low, slope * high) + under
        most = max(slope * low, slope * high) + above
        if most <= 0:
            return high
        if least > 0:
            continue
        if under == above:
            # It rises to above zero, or falls to zero or less.
            return high if slope < 0 else -under // slope
        halve[0] = True
    return None
