"""Rows of a buffer that grows by whole steps of 256, and is cut to its tokens before it does: MLX-LM's KVCache.

KVCache.update_and_fetch (mlx_lm/models/cache.py, 0.32.2): before a piece of n tokens at offset o that the R rows do not
hold, R = (o if o % 256 else R) + 256·⌈n / 256⌉. A prompt comes in pieces of one size, what is left over of it, and its
last token alone (generate_step in mlx_lm/generate.py). Where pieces and steps do not divide, the cuts drift through the
256 offsets and come round; what follows is that cycle, so that any length is answered at once.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STEP = 256


def steps(tokens: int) -> int:
    """Rows of the whole steps that hold so many tokens."""
    return -(-tokens // STEP) * STEP


class Growth:
    """Where a buffer that is filled in pieces of one size grows: offsets, and the rows before and after.

    From offset `start` on all repeats every `period` tokens.
    """

    def __init__(self, piece: int) -> None:
        self.piece = piece
        self.offsets: list[int] = []
        self.before: list[int] = []
        self.base: list[int] = []
        seen: dict[tuple[int, int], int] = {}
        offset, held = 0, 0
        while (state := (offset % STEP, held - offset)) not in seen:
            seen[state] = offset
            base = offset if offset % STEP else held
            self.offsets.append(offset)
            self.before.append(held)
            self.base.append(base)
            held = base + steps(piece)
            offset += (held - offset) // piece * piece
        self.start = seen[state]
        self.period = offset - self.start

    def pieces(self, tokens: int) -> int:
        """Rows once so many tokens came in pieces."""
        rounds = max(tokens - self.start, 0) // self.period
        tokens -= rounds * self.period
        at = bisect_right(self.offsets, tokens) - 1
        held, last = self.before[at], min(tokens - self.offsets[at], self.piece)
        if self.offsets[at] + last > held:
            held = self.base[at] + steps(last)
        return rounds * self.period + held

    def rows(self, tokens: int) -> int:
        """Rows once so many tokens came: all but one in pieces, then one."""
        held = self.pieces(max(tokens - 1, 0))
        return held + STEP if tokens > held else held

    def many(self, tokens: Any) -> Any:
        """The same for an array."""
        import numpy as np

        # Pieces of 2^55 tokens take the cycle beyond int64; what is asked of it may still fit.
        kind = object if self.start + self.period + 2 * (self.piece + STEP) > np.iinfo(np.int64).max else tokens.dtype
        offsets, before, base = (np.array(found, kind) for found in (self.offsets, self.before, self.base))
        filled = np.maximum(tokens.astype(kind) - 1, 0)
        skipped = np.maximum(filled - self.start, 0) // self.period * self.period
        filled = filled - skipped
        at = np.searchsorted(offsets, filled, "right") - 1
        last = np.minimum(filled - offsets[at], self.piece)
        held = skipped + np.where(offsets[at] + last > before[at], base[at] + steps(last), before[at])
        return np.where(tokens > held, held + STEP, held).astype(tokens.dtype)


@lru_cache(64)
def growth(piece: int) -> Growth:
    return Growth(piece)


def rows(tokens: Any, piece: int) -> Any:
    """Rows of a buffer that holds so many tokens, an integer or an array of them; the prompt came in pieces of `piece`."""
    return growth(piece).many(tokens) if hasattr(tokens, "ndim") else growth(piece).rows(tokens)
