"""Rows of a CSV file as arrays, compiled: the plain spellings only; any other line is marked, and read again with care.

Plain are unsigned integers, seconds with a fraction, dates as YYYY-MM-DD hh:mm:ss[.fraction][Z or ±hh:mm], and no quotes.
"""

from __future__ import annotations

from .compiled import compiled, np
from .formats import MOST_TOKENS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Ints = NDArray[np.int64]

GOOD, LOOK, BLANK = 0, 1, 2
SKIP, TIME, PROMPT, OUTPUT, ELAPSED = 0, 1, 2, 3, 4
NEWLINE, RETURN, QUOTE, POINT, DASH, COLON, ZERO, NINE = 10, 13, 34, 46, 45, 58, 48, 57
BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], np.int64)
LENGTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
BAD = -(2**63)
WHOLE = 2**62 // 10**9


@compiled
def two(data: Bytes, at: int) -> int:
    """Two digits; -1 where they are none."""
    high, low = int(data[at]) - ZERO, int(data[at + 1]) - ZERO
    if high < 0 or high > 9 or low < 0 or low > 9:
        return -1
    return high * 10 + low


@compiled
def days(data: Bytes, at: int) -> int:
    """Days since 1970 of YYYY-MM-DD; BAD where it is none, or before 1900 or after 2099."""
    century, rest, month, day = two(data, at), two(data, at + 2), two(data, at + 5), two(data, at + 8)
    if century < 19 or century > 20 or rest < 0 or month < 1 or month > 12 or day < 1:
        return BAD
    if data[at + 4] != DASH or data[at + 7] != DASH:
        return BAD
    year = century * 100 + rest
    leap = year % 4 == 0 and year != 1900
    if day > LENGTHS[month - 1] + (1 if leap and month == 2 else 0):
        return BAD
    # Leap days before this year, and its own.
    leaps = (year - 1) // 4 - (year - 1) // 100 + (year - 1) // 400 - 477
    return (year - 1970) * 365 + leaps + int(BEFORE[month - 1]) + (1 if leap and month > 2 else 0) + day - 1


@compiled
def fraction(data: Bytes, at: int, unit: int) -> tuple[int, int]:
    """The digits from `at` on as part of so many nanoseconds, and where they end."""
    value, scale = 0, unit
    while ZERO <= data[at] <= NINE:
        scale = scale // 10
        value += (int(data[at]) - ZERO) * scale
        at += 1
    return value, at


@compiled
def time_at(data: Bytes, at: int, stop: int, unit: int) -> tuple[int, int]:
    """Nanoseconds of the field at `at`, and where it ends; BAD where it is not plain."""
    if at + 19 <= stop and data[at + 4] == DASH and data[at + 13] == COLON:
        day = days(data, at)
        hour, minute, second = two(data, at + 11), two(data, at + 14), two(data, at + 17)
        apart = data[at + 10] == 32 or data[at + 10] == 84
        if day == BAD or not apart or data[at + 16] != COLON:
            return BAD, at
        if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
            return BAD, at
        value = ((day * 24 + hour) * 60 + minute) * 60 + second
        at += 19
        part = 0
        if data[at] == POINT:
            if not ZERO <= data[at + 1] <= NINE:
                return BAD, at
            part, at = fraction(data, at + 1, 1_000_000_000)
        if data[at] == 90:
            at += 1
        elif (data[at] == 43 or data[at] == DASH) and at + 6 <= stop and data[at + 3] == COLON:
            hours, minutes = two(data, at + 1), two(data, at + 4)
            if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
                return BAD, at
            shift = (hours * 60 + minutes) * 60
            value += shift if data[at] == DASH else -shift
            at += 6
        return value * 1_000_000_000 + part, at
    start, value = at, 0
    while ZERO <= data[at] <= NINE:
        if at - start > 17:
            return BAD, at
        value = value * 10 + int(data[at]) - ZERO
        at += 1
    if at == start or value > 4_000_000_000_000_000_000 // unit:
        return BAD, at
    part = 0
    if data[at] == POINT:
        if not ZERO <= data[at + 1] <= NINE:
            return BAD, at
        part, at = fraction(data, at + 1, unit)
    return value * unit + part, at


@compiled
def count_at(data: Bytes, at: int) -> tuple[int, int]:
    """The integer at `at`, and where it ends; -1 where it is not plain."""
    start, value = at, 0
    while ZERO <= data[at] <= NINE:
        if at - start > 9:
            return -1, at
        value = value * 10 + int(data[at]) - ZERO
        at += 1
    return (value if start < at and value <= MOST_TOKENS else -1), at


@compiled
def parse(
    data: Bytes, stop: int, delimiter: int, roles: Ints, unit: int, found: Ints, starts: Ints, status: NDArray[np.int8]
) -> int:
    """Lines up to `stop`, where the last one ends; how many. found: [5, lines], by role; starts: where each begins.

    Behind `stop` must lie one more byte, no digit.
    """
    at, row, width = 0, 0, len(roles)
    while at < stop:
        starts[row] = at
        state = GOOD
        if data[at] == NEWLINE or (data[at] == RETURN and data[at + 1] == NEWLINE):
            status[row] = BLANK
            at += 1 if data[at] == NEWLINE else 2
            row += 1
            continue
        field = 0
        while True:
            role = roles[field]
            value = 0
            if role == SKIP:
                while data[at] != delimiter and data[at] != NEWLINE and data[at] != QUOTE:
                    at += 1
            elif role == TIME:
                value, at = time_at(data, at, stop, unit)
                found[role, row] = value
            elif role == ELAPSED:
                value, at = time_at(data, at, stop, 1_000_000_000)
                found[role, row] = value
            else:
                value, at = count_at(data, at)
                found[role, row] = value
            if data[at] == RETURN and data[at + 1] == NEWLINE:
                at += 1
            end = data[at] == NEWLINE
            if value == BAD or value == -1 or (not end and data[at] != delimiter):
                state = LOOK
                break
            field += 1
            if end:
                break
            if field == width:
                state = LOOK
                break
            at += 1
        if field != width or found[PROMPT, row] < 1:
            state = LOOK
        while data[at] != NEWLINE:
            at += 1
        at += 1
        status[row] = state
        row += 1
    return row
