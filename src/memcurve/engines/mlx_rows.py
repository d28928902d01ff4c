"""Rows of MLX-LM's caches (mlx_lm/models/cache.py, 0.32.2) by how the tokens come (mlx_lm/generate.py), as expressions.

`generate_step` and `BatchGenerator` feed the first P - 1 tokens of a prompt in pieces of prefill_step_size, then its last
token, then one token at a time; a single `forward` feeds all P at once. A context of no more than the prompt is all prompt.
"""

from __future__ import annotations

from math import lcm

from ..base import Record
from ..buffers import STEP, growth, steps
from ..terms import INT64_MAX, Course, compile_expr, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..terms import Expr

MOST_TURNS = 4096  # tokens looked through for the most that groups hold, which repeats after far fewer
WHOLE_STEPS: Expr = ("mul", STEP, ("ceil", "context", STEP))
SOME: Expr = ("min", "context", 1)  # 1 once there is a token


def reached(context: int) -> Expr:
    """1 from so many tokens on, 0 before."""
    return SOME if context <= 1 else ("min", ("past", "context", context - 1), 1)


def before(context: int) -> Expr:
    """0 from so many tokens on, 1 before."""
    return ("mod", ("add", 1, reached(context)), 2)


def at(expr: Expr, context: int) -> int:
    return int(compile_expr(expr)(context, 1, 0))


def then(first: Expr, last: int, rows: int) -> Expr:
    """`first` up to the context `last`, `rows` after it."""
    held = put(first, "context", ("min", "context", last))
    more = rows - at(first, last)
    if more < 0:
        return ("add", ("mul", held, before(last + 1)), ("mul", rows, reached(last + 1)))
    return ("add", held, ("mul", more, reached(last + 1))) if more else held


class Feed(Record):
    """How tokens come. piece: tokens of a prompt per forward, None for all at once; prompt: how many it has, None for all."""

    piece: int | None
    prompt: int | None

    @property
    def prompt_rows(self) -> Expr:
        """KVCache: rows of a context that is all prompt. Pieces that steps of 256 divide, or that divide them, leave whole steps."""
        piece = self.piece
        if piece is None or piece % STEP == 0 or STEP % piece == 0:
            return WHOLE_STEPS
        return ("rows", "context", piece)

    @property
    def grown(self) -> Expr:
        """KVCache.update_and_fetch."""
        found = self.prompt_rows
        return found if found == WHOLE_STEPS else self.after(found)

    def after(self, prompt_rows: Expr) -> Expr:
        """Rows that grow by 256 whenever a single token finds them full."""
        if self.prompt is None:
            return prompt_rows
        full = at(prompt_rows, self.prompt)
        held = put(prompt_rows, "context", ("min", "context", self.prompt))
        return ("add", held, ("mul", STEP, ("ceil", ("past", "context", full), STEP)))

    def rotating(self, window: int) -> Expr:
        """RotatingKVCache. Several tokens are put behind the last window - 1, a single one cuts or grows the rows to the window."""
        piece = self.piece
        if piece is not None and window <= STEP:
            return ("mul", window, SOME)
        if piece == 1 or (piece is None and self.prompt == 1):
            return ("min", window, WHOLE_STEPS)
        if piece is None:
            # A first forward of several tokens keeps exactly those (_update_concat); one alone makes room (_update_in_place).
            alone = min(STEP, window) - 1
            exact: Expr = ("add", "context", ("mul", alone, ("mod", ("min", "context", 2), 2))) if alone else "context"
            if self.prompt is None:
                return exact
            return then(exact, self.prompt, window) if self.prompt > window else ("min", window, self.after(exact))
        if piece >= window:
            # Room for 256 beyond the tokens before the last; two single tokens share it.
            late = ("add", ("past", "context", 2), reached(3))
            return ("min", window, self.after(("add", ("mul", STEP, SOME), late)))
        # Room for 256 beyond the tokens before the last, or before the last two where a piece was left with one.
        pair: Expr = ("ceil", ("mod", ("add", "context", piece - 2), piece), piece)
        room: Expr = ("mul", ("add", STEP - 1, pair), SOME)
        return ("min", window, self.after(("add", ("past", "context", 1), room)))

    def chunked(self, chunk: int) -> Expr:
        """ChunkedKVCache: a forward that finds more than a chunk cuts to it first (maybe_trim_front), then grows as KVCache."""
        if self.piece is None and (self.prompt is None or self.prompt > chunk):
            return WHOLE_STEPS if self.prompt is None else then(WHOLE_STEPS, self.prompt, chunk + STEP)
        return then(self.grown, chunk + 1, chunk + STEP)

    # -- on the way to a context ------------------------------------------------------------------------------

    def prompt_of(self, context: int) -> int:
        return context if self.prompt is None else min(context, self.prompt)

    def ends(self, context: int, turns: tuple[int, ...], period: int = 0) -> Iterator[int]:
        """Tokens after pieces of the prompt, of which some are more than all the others: the first, the last two, those around
        each turn, where a window is full or quantising begins, and those of the last period of what rises and falls."""
        if self.piece is None:
            return
        last = self.prompt_of(context) - 1
        whole = last // self.piece
        near = {index for turn in turns for index in range(turn // self.piece - 1, turn // self.piece + 4)}
        near |= set(range(whole - period // self.piece, whole))
        yield from (index * self.piece for index in sorted({1, whole - 1, whole, *near}) if 1 <= index <= whole)
        if last % self.piece:
            yield last

    def grown_at(self, tokens: int) -> int:
        """KVCache: rows after pieces of so many tokens in all, no single one behind them."""
        assert self.piece is not None
        return steps(tokens) if self.prompt_rows == WHOLE_STEPS else growth(self.piece).pieces(tokens)

    def rotating_at(self, tokens: int, window: int) -> int:
        """RotatingKVCache, after the same."""
        piece, most = self.piece or INT64_MAX, window - 1
        if piece == 1:
            return min(window, steps(tokens))
        left = tokens % piece or piece
        done = tokens - left
        if left > 1:
            return min(done, most) + left
        held = min(done - piece, most) + piece if done else 0
        return window if held > window else min(held + STEP, window)

    def chunked_at(self, tokens: int, chunk: int) -> int:
        assert self.piece is not None
        left = tokens % self.piece or self.piece
        return self.grown_at(tokens) if tokens - left <= chunk else chunk + steps(left)


class Cache(Record):
    """A cache class: "grown" (KVCache), "rotating" (size: its window), "chunked" (size: its
    chunk), or another, whose rows follow from the context alone.
    """

    form: str
    size: int = 0
    rows: Expr = 1

    def slots(self, feed: Feed) -> Expr:
        if self.form == "grown":
            return feed.grown
        if self.form == "rotating":
            return feed.rotating(self.size)
        return feed.chunked(self.size) if self.form == "chunked" else self.rows

    @property
    def period(self) -> int:
        """Tokens after which what waits for a full group has none again; 1 where rows never fall with a token."""
        rows = self.rows
        return rows[2] if isinstance(rows, tuple) and rows[0] == "mod" and isinstance(rows[2], int) else 1

    def held_at(self, feed: Feed, tokens: int) -> int:
        """Rows after pieces of a prompt."""
        if self.form == "grown":
            return feed.grown_at(tokens)
        if self.form == "rotating":
            return feed.rotating_at(tokens, self.size)
        return feed.chunked_at(tokens, self.size) if self.form == "chunked" else at(self.rows, tokens)


class Moments(Course):
    """The moments at which MLX-LM's caches hold most.

    held: per cache the bytes of a row of all layers that have it, and of a quantised one or None; start: tokens at which
    those are quantised, None if never. Between a forward and the next both copies live (maybe_quantize_kv_cache).
    """

    feed: Feed
    held: tuple[tuple[Cache, int, int | None], ...]
    start: int | None

    def peak(self, context: int, batch: int) -> int:
        if context == 0 or batch == 0:
            return 0
        feed, prompt = self.feed, self.feed.prompt_of(context)
        sizes = tuple(cache.size for cache, _, _ in self.held if cache.form in ("rotating", "chunked"))
        period = min(lcm(*(cache.period for cache, _, _ in self.held)), MOST_TURNS)
        ends = list(feed.ends(context, (*sizes, *(() if self.start is None else (self.start - 1,))), period))
        turns = {prompt, min(prompt + 1, context), context}
        turns |= {turn for size in sizes for turn in (size, size + 1) if prompt < turn < context}
        turns |= set(range(max(prompt, context - period) + 1, context))
        if self.start is not None and prompt < self.start < context:
            turns.add(self.start)
        quantised = [tokens for tokens in (*ends, *sorted(turns)) if self.start is not None and tokens >= self.start]
        moment = min(quantised, default=None)
        pieces = [(tokens, [cache.held_at(feed, tokens) for cache, _, _ in self.held]) for tokens in ends]
        slots = [compile_expr(cache.slots(feed)) for cache, _, _ in self.held]
        singles = [(tokens, [int(rows(tokens, 1, 0)) for rows in slots]) for tokens in sorted(turns)]
        return batch * max(self.bytes_at(tokens, rows, tokens == moment) for tokens, rows in (*pieces, *singles))

    def bytes_at(self, tokens: int, rows: list[int], quantising: bool) -> int:
        """Bytes of one sequence."""
        total = 0
        for (_, plain, quantised), held in zip(self.held, rows, strict=True):
            if quantised is None or self.start is None or tokens < self.start:
                total += plain * held
            else:
                total += (quantised + plain * quantising) * held
        return total
