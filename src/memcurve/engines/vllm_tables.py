"""What a request holds of each group of vLLM's layers while it runs, and the queue of free blocks with what they still remember.

Rules of vLLM 0.33.0: the managers of vllm/v1/core/single_type_kv_cache_manager.py, and BlockPool (block_pool.py). A free block keeps its
hash until it is taken again, so that a request that was preempted finds part of its own tokens. The default
prefix_cache_retention_interval of 0 keeps, of windows and states, what a prompt's end needs, and of full attention everything.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .vllm_blocks import Spec

    Cell = list[int]
    # First block, and the one after the last
    Span = tuple[int, int]


class Tokens:
    """Blocks for every token (FullAttentionManager).

    A request's cell: [blocks of its table, how many of them in front are given back]. beats: (remainder, period) of the token
    counts at which the blocks of a request that decodes change. align: tokens that a hit is a multiple of.
    """

    def __init__(self, spec: Spec, lag: int, align: int) -> None:
        self.block = spec.block * spec.tokens
        self.align = align
        self.beats: tuple[tuple[int, int], ...] = ((0, self.block),)

    def skipped(self, processed: int) -> int:
        """Tokens that no later one looks at (get_num_skipped_tokens)."""
        return 0

    def cell(self, hit: int) -> Cell:
        """The table of a request that finds so many tokens cached."""
        return [hit // self.block, self.skipped(hit) // self.block]

    def spans(self, cell: Cell) -> list[Span]:
        """The blocks that a request holds."""
        return [(cell[1], cell[0])] if cell[0] > cell[1] else []

    def held(self, cell: Cell) -> int:
        return cell[0] - cell[1]

    def release(self, cell: Cell, processed: int) -> list[Span]:
        """Takes out what is out of sight once so many tokens are processed (remove_skipped_blocks)."""
        first = min(self.skipped(processed) // self.block, cell[0])
        if first <= cell[1]:
            return []
        freed = (cell[1], first)
        cell[1] = first
        return [freed]

    def whole(self, cell: Cell, start: int, tokens: int, stop: int) -> int:
        """Blocks that must be free, beside cached ones, to admit a prompt of so many tokens."""
        return max(-(-tokens // self.block) - cell[0], 0)

    def need(self, cell: Cell, start: int, end: int, stop: int) -> int:
        return max(-(-end // self.block) - cell[0], 0)

    def grow(self, cell: Cell, start: int, end: int, stop: int) -> None:
        cell[0] = max(cell[0], -(-end // self.block))

    def kept(self, cached: int, ends: Sequence[int]) -> list[Span]:
        """The blocks that a later request may find, of the first `cached` tokens; ends: tokens that a hit may end at."""
        return [(0, cached // self.align * self.align // self.block)]

    def found(self, most: int, cached: set[int]) -> int:
        """Tokens of the longest hit, up to `most` (find_longest_cache_hit)."""
        number = 0
        while number < most // self.block and number in cached:
            number += 1
        return number * self.block // self.align * self.align


class Window(Tokens):
    """SlidingWindowManager. Admission counts no more blocks than a request ever holds (max_admission_blocks_per_request)."""

    def __init__(self, spec: Spec, lag: int, align: int, longest: int) -> None:
        super().__init__(spec, lag, align)
        self.window = spec.window
        self.most = -(-min(spec.held, longest) // self.block) + 1
        self.tail = -(-(spec.window - 1) // self.block)
        self.beats += (((spec.window - 1 + lag) % self.block, self.block),)

    def skipped(self, processed: int) -> int:
        return max(0, processed - self.window + 1)

    def whole(self, cell: Cell, start: int, tokens: int, stop: int) -> int:
        return max(min(-(-tokens // self.block), self.most) - cell[0], 0)

    def kept(self, cached: int, ends: Sequence[int]) -> list[Span]:
        full = cached // self.align * self.align // self.block
        last = (end // self.align * self.align // self.block for end in ends)
        return [(max(0, one - self.tail), min(one, full)) for one in last]

    def found(self, most: int, cached: set[int]) -> int:
        row = 0
        for index in range(most // self.block - 1, -1, -1):
            if index not in cached or (row == 0 and (index + 1) * self.block % self.align):
                row = 0 if index not in cached else row
                continue
            row += 1
            if row >= self.tail:
                return (index + row) * self.block
        return row * self.block // self.align * self.align


class Chunk(Tokens):
    """ChunkedLocalAttentionManager."""

    def __init__(self, spec: Spec, lag: int, align: int, longest: int) -> None:
        super().__init__(spec, lag, align)
        self.window = spec.window
        self.most = -(-min(spec.held, longest) // self.block)
        self.beats += ((lag % spec.window, spec.window),)

    def skipped(self, processed: int) -> int:
        return processed // self.window * self.window

    def whole(self, cell: Cell, start: int, tokens: int, stop: int) -> int:
        return max(min(-(-tokens // self.block), self.most) - cell[0], 0)

    def found(self, most: int, cached: set[int]) -> int:
        number = most // self.window * self.window // self.block
        while number < most // self.block and number in cached:
            number += 1
        return number * self.block


class State(Tokens):
    """One state for the whole request (MambaManager without prefix caching)."""

    def __init__(self, spec: Spec, lag: int, align: int) -> None:
        super().__init__(spec, lag, align)
        self.beats = ()

    def whole(self, cell: Cell, start: int, tokens: int, stop: int) -> int:
        return 1 - cell[0]

    def need(self, cell: Cell, start: int, end: int, stop: int) -> int:
        return 1 - cell[0]

    def grow(self, cell: Cell, start: int, end: int, stop: int) -> None:
        cell[0] = 1


class AlignedState(Tokens):
    """A state at each end of a block, of which the last one or two are kept (MambaManager in mode "align").

    A request's cell: [blocks of its table, blocks in front that are looked through, the block of the state before or -1, then the
    blocks that hold a state].
    """

    def __init__(self, spec: Spec, lag: int, align: int, hashed: int) -> None:
        super().__init__(spec, lag, align)
        self.export = spec.export
        self.hashed = hashed
        self.beats += (((1 + lag) % self.block, self.block),)

    def cell(self, hit: int) -> Cell:
        blocks = hit // self.block
        return [blocks, 0, -1, blocks - 1] if blocks else [0, 0, -1]

    def spans(self, cell: Cell) -> list[Span]:
        return [(one, one + 1) for one in cell[3:]]

    def held(self, cell: Cell) -> int:
        return len(cell) - 3

    def release(self, cell: Cell, processed: int) -> list[Span]:
        gone: list[int] = []
        if processed > 1:
            first = min((processed - 1) // self.block, cell[0])
            if first > cell[1]:
                gone = [one for one in cell[3:] if cell[1] <= one < first][::-1]
                cell[1] = first
        if 0 <= cell[2] < -(-processed // self.block) - 1 and cell[2] in cell[3:] and cell[2] not in gone:
            gone.append(cell[2])
        if gone:
            cell[3:] = [one for one in cell[3:] if one not in gone]
        return [(one, one + 1) for one in gone]

    def exports(self, cell: Cell, start: int, end: int, stop: int) -> bool:
        """Whether the chunk hands out a state on its way (_needs_internal_checkpoint)."""
        place = (end - 1) // self.align * self.align
        index = -(-end // self.block) - 2
        return (
            self.export > 0
            and end >= stop
            and valid_export(start, end, place, self.hashed, self.block, self.export)
            and index >= 0
            and (index >= cell[0] or index not in cell[3:])
        )

    def whole(self, cell: Cell, start: int, tokens: int, stop: int) -> int:
        return self.need(cell, start, tokens, stop)

    def need(self, cell: Cell, start: int, end: int, stop: int) -> int:
        new = -(-end // self.block) - cell[0]
        return min(new, 1 + self.exports(cell, start, end, stop)) if new > 0 else new

    def grow(self, cell: Cell, start: int, end: int, stop: int) -> None:
        blocks, before = -(-end // self.block), cell[0]
        exports = self.exports(cell, start, end, stop)
        if blocks > before or exports:
            if before:
                cell[2] = before - 1
            cell += range(max(before, blocks - 1 - exports), blocks)
            cell[0] = max(blocks, before)

    def kept(self, cached: int, ends: Sequence[int]) -> list[Span]:
        full = cached // self.align * self.align // self.block
        last = (end // self.align * self.align // self.block for end in ends)
        return [(one - 1, min(one, full)) for one in last if one]

    def found(self, most: int, cached: set[int]) -> int:
        number = most // self.block
        while number and (number - 1 not in cached or number * self.block % self.align):
            number -= 1
        return number * self.block


def valid_export(start: int, end: int, place: int, hashed: int, block: int, export: int) -> bool:
    """Whether a chunk can hand out the state at `place` (is_mamba_prefill_checkpoint_valid, vllm/v1/kv_cache_interface.py)."""
    return (
        start % hashed == 0
        and -(-end // block) - 2 > (start - 1) // block
        and start + hashed <= place
        and start < place < end
        and (place - start) % export == 0
    )


class Free:
    """The queue of free blocks (BlockPool, FreeKVCacheBlockQueue): ones without a hash in front, then runs in the order they were freed.

    A run is [last block, how many, whether its owner may look for it], blocks counted down in a request's table: the last one
    of them is taken first.
    """

    def __init__(self, blocks: int) -> None:
        self.total = self.count = self.plain = blocks
        self.runs: deque[list[int]] = deque()

    def take(self, number: int) -> None:
        self.count -= number
        front = min(number, self.plain)
        self.plain -= front
        number -= front
        while number:
            run = self.runs[0]
            part = min(number, run[1])
            run[0] -= part
            run[1] -= part
            number -= part
            if not run[1]:
                self.runs.popleft()

    def give(self, number: int) -> None:
        """Blocks without a hash."""
        self.count += number
        self.plain += number

    def keep(self, span: Span, owned: bool) -> list[int] | None:
        """Blocks with a hash, to the end of the queue; the run, where somebody may look for it."""
        number = span[1] - span[0]
        self.count += number
        if not owned and self.runs and not self.runs[-1][2]:
            self.runs[-1][1] += number
            return None
        run = [span[1] - 1, number, int(owned)]
        self.runs.append(run)
        return run if owned else None

    def pull(self, runs: list[list[int]], span: Span) -> None:
        """Takes blocks that a request found out of its runs, wherever they stand; of one that stands twice, the first."""
        self.count -= span[1] - span[0]
        wanted = [span]
        while wanted:
            first, end = wanted.pop()
            if first >= end:
                continue
            run = next(run for run in runs if run[1] and first <= run[0] and run[0] - run[1] + 1 < end)
            low, high = max(first, run[0] - run[1] + 1), min(end, run[0] + 1)
            above, below = run[0] + 1 - high, low - (run[0] - run[1] + 1)
            if above and below:
                rest = [low - 1, below, run[2]]
                self.runs.insert(next(index for index, one in enumerate(self.runs) if one is run) + 1, rest)
                runs.append(rest)
            elif below:
                run[0] = low - 1
            run[1] = above or below
            wanted += [(first, low), (high, end)]


def cut(span: Span, kept: Iterable[Span]) -> tuple[list[Span], int]:
    """The parts of a span that are among the kept ones, last first, and how many blocks are not."""
    parts: list[Span] = []
    for low, high in kept:
        part = (max(span[0], low), min(span[1], high))
        if part[0] < part[1]:
            parts.append(part)
    parts = sorted(set(parts), reverse=True)
    merged: list[Span] = []
    for part in parts:
        if merged and part[1] > merged[-1][0]:
            merged[-1] = (min(part[0], merged[-1][0]), merged[-1][1])
        else:
            merged.append(part)
    return merged, span[1] - span[0] - sum(high - low for low, high in merged)
