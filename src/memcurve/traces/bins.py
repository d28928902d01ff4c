"""What is kept of a run without end in bounded memory: a series of bins, which join in pairs as time goes on, and counts of values.

A value below EXACT units is counted as itself; a larger one with the others of its 2 ** -13, of which the largest stands for all.
"""

from __future__ import annotations

from .compiled import compiled, np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

BINS = 4096
EXACT_BITS = 14
EXACT = 1 << EXACT_BITS
HALF = EXACT // 2
BUCKETS = EXACT + HALF * (63 - EXACT_BITS)
FAR = 2**63 - 1


@compiled
def bucket(value: int) -> int:
    """Which count is of a value of 0 or more."""
    if value < EXACT:
        return value
    shift = 0
    high = value
    if high >= EXACT << 32:
        high >>= 32
        shift += 32
    if high >= EXACT << 16:
        high >>= 16
        shift += 16
    while high >= EXACT:
        high >>= 1
        shift += 1
    return EXACT + (shift - 1) * HALF + (high - HALF)


def largest(index: int) -> int:
    """The largest value that a count is of."""
    if index < EXACT:
        return index
    shift, low = divmod(index - EXACT, HALF)
    return int((low + HALF + 1) << (shift + 1)) - 1


@compiled
def count_values(values: Ints, unit: int, counts: Ints) -> None:
    for value in values:
        counts[bucket(value // unit)] += 1


class Counted:
    """How often which value was, of multiples of a unit."""

    def __init__(self, unit: int = 1) -> None:
        self.unit, self.counts, self.most = unit, np.zeros(BUCKETS, np.int64), 0

    def add(self, values: Ints) -> None:
        """Values of 0 or more."""
        if len(values):
            self.most = max(self.most, int(values.max()))
            count_values(values, self.unit, self.counts)

    def percentiles(self, *shares: float) -> list[int]:
        """The smallest values that so many percent are not above; 0 where nothing was counted. Exact below EXACT units, else by at most
        2 ** -13 of themselves too large, and never above the largest."""
        sums = np.cumsum(self.counts)
        total = int(sums[-1])
        if not total:
            return [0 for _ in shares]
        found = []
        for share in shares:
            index = int(np.searchsorted(sums, max(1, -(-total * round(share * 1000) // 100_000))))
            value = largest(index) * self.unit
            found.append(min(value, self.most) if self.most else value)
        return found


# Columns of a bin of the series: those of integers, and those of sums.
LEAST, MOST, RUNNING, ARRIVED = 0, 1, 2, 3
SUM, SUM_RUNNING, TOKENS = 0, 1, 2


@compiled
def clear(whole: Ints, sums: Floats, first: int) -> None:
    for index in range(first, whole.shape[0]):
        whole[index, LEAST] = FAR
        whole[index, MOST] = 0
        whole[index, RUNNING] = 0
        whole[index, ARRIVED] = 0
        for column in range(3):
            sums[index, column] = 0.0


@compiled
def halve(whole: Ints, sums: Floats) -> None:
    """Every two bins become one, of the first half; the second begins anew."""
    half = whole.shape[0] // 2
    for index in range(half):
        a, b = 2 * index, 2 * index + 1
        whole[index, LEAST] = min(whole[a, LEAST], whole[b, LEAST])
        whole[index, MOST] = max(whole[a, MOST], whole[b, MOST])
        whole[index, RUNNING] = max(whole[a, RUNNING], whole[b, RUNNING])
        whole[index, ARRIVED] = whole[a, ARRIVED] + whole[b, ARRIVED]
        for column in range(3):
            sums[index, column] = sums[a, column] + sums[b, column]
    clear(whole, sums, half)
