"""A run of vllm_scheduler over requests as they come: its tables as Python objects, or as arrays for the functions that Numba compiled."""

from __future__ import annotations

from math import gcd, lcm

from ..base import BadConfig, MissingExtraError, NotDescribed, Record, Refused, TooLarge
from ..terms import compile_expr
from . import vllm_scheduler
from .vllm_scheduler import (
    CARRY,
    ENDED,
    FOREVER,
    HASHES,
    LATE,
    MORE,
    MOST_TIME,
    OVER,
    PAUSED,
    QUEUE,
    ROWS,
    STUCK,
    row_of,
)
from .vllm_tables import (
    ALIGNED,
    CHUNK,
    NEVER,
    STATE,
    STATES,
    TOKENS,
    WINDOW,
    Cell,
    Kind,
    Link,
    Piece,
    Request,
    Run,
    Tables,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from numpy.typing import NDArray

    from ..terms import Function
    from .vllm_blocks import Serving, Spec, VllmAllocator

REASONS = ("max_num_seqs", "max_num_batched_tokens", "blocks")
# Before it pays to load Numba's code, or to make it: so many seconds in plain Python, looked at after so many steps.
PLAIN_SECONDS, COMPILE_SECONDS, PLAIN_STEPS = 1.5, 20.0, 500
COMPILING = "compiling the scheduler, which takes about half a minute and is kept for the next time"
# Requests at once with which it surely does, where the code is there and where it is to be made
MANY, LONG = 2**12, 2**16
# Rows of results and of the series at a time; steps that a look at a request is at most ahead
ROOM, WHEEL = 2**16, 1024
# Room for links to pieces at first
LINKS = 2**12
INTS = (
    "kind_of", "block_bytes", "states", "heads", "buckets", "hashes", "back", "gone", "slots", "marks", "ending", "due", "wheel",
    "scratch", "ended", "rows", "by_blocks", "by_running", "kept_for", "bound",
)  # fmt: skip
FORMS = {"full": TOKENS, "latent": TOKENS, "sliding": WINDOW, "chunked": CHUNK}


class Made(Record):
    """What a run came to whose requests all wait at the start.

    peak: the most requests at once. preemptions, steps: counted to the end. blocks: the most blocks in use at once. area: requests
    summed over steps; full_area, full_steps: the same from the first request that ends to the last that is admitted.
    bound: per reason, at how many of these steps a waiting request was kept out by it (at all steps, where there are none).
    """

    peak: int
    preemptions: int
    steps: int
    blocks: int
    area: int
    full_area: int
    full_steps: int
    bound: dict[str, int]


def run_of(allocator: VllmAllocator, blocks: int, requests: Iterable[tuple[int, int]]) -> Made:
    """Prompts and outputs, all there at the start, to their end. blocks: of the pool, as VllmPool.num_blocks counts them."""
    loop = Loop(allocator, blocks)
    queue: Any = [value for number, (prompt, output) in enumerate(requests) for value in (number, 0, prompt, output, 0)]
    loop.tables = loop.tables._replace(queue=queue + [0] * QUEUE)
    run, bound = loop.run, loop.tables.bound
    run.fed = len(queue) // QUEUE
    loop.go(True)
    told = [{name: bound[4 * full + 1 + at] for at, name in enumerate(REASONS)} for full in (1, 0)]
    return Made(
        peak=run.peak_running, preemptions=run.preemptions, steps=run.step, blocks=run.peak_blocks, area=run.area,
        full_area=run.full_area, full_steps=run.full_steps,
        bound={name: count for name, count in (told[0] if any(told[0].values()) else told[1]).items() if count},
    )  # fmt: skip


class Loop:
    """One run. blocks: of the pool, one of which stays empty; fill: bytes that so many tokens of a request fill, wanted in the series.
    compiled: whether the functions are compiled; None: where Numba is installed, once the run is long enough."""

    def __init__(
        self, allocator: VllmAllocator, blocks: int, *, step_ns: int = 1, prefill_tokens: int = 1, interval_ns: int | None = None,
        hash_tokens: int = 0, compiled: bool | None = False,
    ) -> None:  # fmt: skip
        serving = serving_of(allocator)
        self.compiled = has_numba() if compiled is None else compiled
        self.serve: Callable[[Tables, int], tuple[int, Tables]] = plainly
        self.seconds = 0.0
        self.run = run = Run()
        self.tables = Tables(
            run=Rows(Run), kinds=Rows(Kind), requests=Rows(Request), cells=Rows(Cell), pieces=Rows(Piece), links=Rows(Link),
            fills=Fills([(size, compile_expr(slots)) for _, size, slots in allocator.filled()]),
            queue=Zeros(), ids=Zeros(), **{name: Zeros() for name in INTS},
        )._replace(queue=[0] * QUEUE, ids=[])  # type: ignore[arg-type]  # fmt: skip
        self.tables.run[0] = run
        self.fill = [(size, slots) for _, size, slots in allocator.filled()]
        self.wide = {"hashes": 0, "fills": 1}
        self.arrays = False
        self.last_row: Callable[[Tables, int], None] = row_of
        run.budget, run.most = serving.max_num_batched_tokens, serving.max_num_seqs
        run.chunked, run.ahead, run.caching = int(serving.chunked), int(serving.ahead), int(serving.prefix_caching)
        run.blocks = run.free = run.plain = blocks - 1
        run.longest, run.hash_tokens, run.last_alone, run.wheel = allocator.largest, hash_tokens, NEVER, WHEEL
        run.step_ns, run.prefill_tokens = step_ns, prefill_tokens
        run.interval = NEVER if interval_ns is None else interval_ns
        run.room_ended, run.room_rows = ROOM + run.most, ROOM
        self.kinds(allocator, serving)
        run.hash_width, run.room_links = WIDE, WIDE
        run.bits = (1 << (2 * run.blocks).bit_length()) - 1
        for slot in range(run.most + 1):
            self.tables.slots[slot] = slot + 1
        run.slots = run.most + 1
        if run.budget * step_ns >= MOST_TIME:
            raise BadConfig(
                f"step_ns: {step_ns:,}; expected less, for a batch of {run.budget:,} tokens to take less than 146 years"
            )
        if compiled:
            self.compile()

    def kinds(self, allocator: VllmAllocator, serving: Serving) -> None:
        """The groups by what they hold."""
        run, tables = self.run, self.tables
        specs = [group.members[0][0] for group in allocator.groups]
        sizes = [spec.block * spec.tokens for spec in specs]
        states = [spec for spec in specs if spec.cache == "state"]
        run.groups, run.align = len(specs), lcm(*sizes) if sizes else 1
        run.hashed = gcd(*sizes) if len(sizes) > 1 and serving.prefix_caching else run.align
        run.aligned = int(bool(states) and serving.prefix_caching)
        run.block = min((spec.block for spec in specs), default=1)
        run.exports = states[0].export if states and all(spec.export for spec in states) else 0
        run.row = single(allocator)
        run.single = int(run.row > 0)
        found: dict[tuple[object, ...], int] = {}
        rank = allocator.block_bytes.index(max(allocator.block_bytes)) if allocator.groups else 0
        for at, (spec, group) in enumerate(zip(specs, allocator.groups, strict=True)):
            key = (spec.cache, spec.block, spec.tokens, spec.held, spec.window, spec.export)
            if key not in found:
                found[key] = len(found)
                tables.kinds[found[key]] = kind_of(spec, serving, run)
            tables.kind_of[at] = found[key]
            tables.kinds[found[key]].groups += 1
            tables.block_bytes[at] = sum(
                one.row * count[rank] * int(compile_expr(one.filled)(one.block * one.tokens, 1, 0))
                if not one.window
                else one.row * count[rank] * one.block
                for one, count in group.members
            )
        run.kinds = len(found)

    # -- requests ---------------------------------------------------------------------------------------------------------

    def extend(
        self,
        numbers: NDArray[Any],
        times: NDArray[Any],
        prompts: NDArray[Any],
        outputs: NDArray[Any],
        offsets: NDArray[Any],
        ids: NDArray[Any],
    ) -> None:
        """The queue: what still waits of it, and more requests behind, with the hashes of their prompts from offset to offset."""
        np, run, tables = numpy(), self.run, self.tables
        taken, fed = int(run.taken), int(run.fed)
        old = np.array(tables.queue[taken * QUEUE : fed * QUEUE], np.int64).reshape(-1, QUEUE)  # type: ignore[index]
        start, end = int(tables.queue[taken * QUEUE + HASHES]), int(tables.queue[fed * QUEUE + HASHES])
        waiting = np.array(tables.ids[start:end], np.int64)  # type: ignore[index]
        old[:, HASHES] -= start
        new = np.column_stack((numbers, times, prompts, outputs, offsets[:-1] + len(waiting))).astype(np.int64)
        close = np.array([[0] * HASHES + [len(waiting) + len(ids)]], np.int64)
        if self.compiled and not self.arrays and self.pays(len(new)):
            self.compile()
            run, tables = self.run, self.tables
        run.arrived -= taken
        run.taken, run.fed = 0, fed - taken + len(new)
        queue: Any = np.concatenate((old, new, close)).ravel()
        every: Any = np.concatenate((waiting, ids))
        if not self.arrays:
            queue, every = queue.tolist(), every.tolist()
        self.tables = tables._replace(queue=queue, ids=every)
        if len(new):
            hashes = np.diff(offsets)
            self.wide["hashes"] = max(self.wide["hashes"], int(hashes.max()))
            self.wide["fills"] = max(self.wide["fills"], int((prompts + outputs).max()) + 1)
        if self.arrays:
            self.widen()

    def widen(self) -> None:
        """Longer rows of arrays, where they have to be."""
        np, run, tables = numpy(), self.run, self.tables
        old, width = int(run.hash_width), self.wide["hashes"]
        if width > old:
            array: Any = tables.hashes
            wide = np.zeros((run.most + 2, width), np.int64)
            wide[:, :old] = array[: len(wide) * old].reshape(len(wide), old)
            tables, run.hash_width = tables._replace(hashes=wide.ravel()), width
        if self.wide["fills"] > len(tables.fills):
            tables = tables._replace(fills=self.all_fills(2 * self.wide["fills"]))
        self.tables = tables

    def all_fills(self, contexts: int) -> Any:
        np = numpy()
        tokens = np.arange(contexts, dtype=np.int64)
        total = np.zeros(contexts, np.int64)
        for size, slots in self.fill:
            total += size * np.asarray(compile_expr(slots, np.minimum)(tokens, 1, 0), np.int64)
        return total

    # -- a run ------------------------------------------------------------------------------------------------------------

    def go(self, final: bool) -> tuple[list[Any], list[Any]]:
        """All steps that what was fed decides: numbers of requests that ended, ENDED each, and of the series, ROWS each."""
        from time import perf_counter

        requests: list[Any] = []
        series: list[Any] = []
        self.run.final = int(final)
        while True:
            quick = not self.arrays and self.compiled
            start = perf_counter() if quick else 0.0
            stop, self.tables = self.serve(self.tables, PLAIN_STEPS if quick else MOST_TIME)
            if quick:
                self.seconds += perf_counter() - start
                if stop in (PAUSED, MORE) and self.pays():
                    self.compile()
            run = self.run
            if stop == OVER and run.interval >= 0:
                self.last_row(self.tables, int(run.now))
            if stop != PAUSED:
                for name, count, found in (("ended", run.ended * ENDED, requests), ("rows", run.rows * ROWS, series)):
                    table: Any = getattr(self.tables, name)
                    found.append(table[:count].copy() if self.arrays else [table[at] for at in range(count)])
                run.ended = run.rows = 0
            if stop in (MORE, OVER):
                return requests, series
            if stop == LATE:
                raise TooLarge(
                    f"vllm: after {int(run.finished):,} requests the others would go on for more than 146 years; expected faster rates"
                )
            if stop in (STUCK, FOREVER):
                raise self.refused(stop == FOREVER)

    def pays(self, requests: int = 0) -> bool:
        """Whether compiling takes no longer than what has gone by, or is to come: half a minute, unless the code is there from another
        process."""
        if self.seconds > COMPILE_SECONDS or requests >= LONG:
            return True
        if self.seconds <= PLAIN_SECONDS and requests < MANY:
            return False
        from . import vllm_compiled

        return vllm_compiled.kept()

    def refused(self, forever: bool) -> Refused:
        run, tables = self.run, self.tables
        one: Any = tables.requests[int(tables.back[int(run.back) - 1] if run.back else run.door)]
        names = ("number", "prefill", "prompt")
        number, prefill, prompt = (int(one[name] if self.arrays else getattr(one, name)) for name in names)
        if forever:
            return Refused(
                f"vllm: request {number:,}, of a prompt of {prompt:,} tokens, does not fit alone, and is preempted for ever"
            )
        return Refused(
            f"vllm: request {number:,}, of {prefill:,} tokens, is never scheduled, for {REASONS[int(run.kept) - 1]}"
        )

    def counts(self) -> dict[str, Any]:
        """Sums so far, by the names of Totals."""
        run, tables = self.run, self.tables
        waiting, back = run.arrived - run.taken, run.back + run.gone
        plain = {
            "now_ns": run.now, "arrived": run.finished + run.running + back + waiting, "waiting": waiting, "preempted": back,
            "running": run.running, "finished": run.finished, "preemptions": run.preemptions, "steps": run.step, "computed": run.computed,
            "hits": run.hits, "blocks": run.blocks, "peak_running": run.peak_running, "peak_waiting": run.peak_waiting,
            "peak_blocks": run.peak_blocks, "peak_tokens": run.peak_tokens, "moved_bytes": run.moved,
        }  # fmt: skip
        times = {
            name: numpy().array([table[at] for at in range(count)], numpy().int64)
            for name, table, count in (
                ("blocks_ns", tables.by_blocks, run.blocks + 1), ("running_ns", tables.by_running, run.most + 1)
            )
        }  # fmt: skip
        return {
            **{name: int(value) for name, value in plain.items()},
            **times,
            "token_ns": int(run.area_high) * CARRY + int(run.area_low),
            "kept_out_ns": {name: int(tables.kept_for[1 + index]) for index, name in enumerate(REASONS)},
        }

    # -- compiled ---------------------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """Places of each table as an array."""
        run = self.run
        slots, groups, kinds = run.most + 2, run.groups, run.kinds
        pieces = run.blocks + 4 if run.caching else 1
        return {
            "run": 1, "kinds": kinds, "kind_of": groups, "block_bytes": groups, "requests": slots, "cells": slots * kinds,
            "states": slots * kinds * STATES, "heads": slots * groups, "pieces": pieces, "links": max(LINKS, run.made_links + 1),
            "buckets": run.bits + 1 if run.caching else 1, "hashes": slots * self.wide["hashes"], "back": slots, "gone": slots,
            "slots": slots, "marks": slots, "ending": slots, "due": slots, "wheel": WHEEL, "scratch": STATES + 1,
            "ended": (run.room_ended + slots) * ENDED, "rows": (run.room_rows + 1) * ROWS, "by_blocks": run.blocks + 1,
            "by_running": slots, "kept_for": 4, "bound": 8,
        }  # fmt: skip

    def compile(self) -> None:
        """Turns to arrays and the compiled functions, in the middle of a run."""
        from . import vllm_compiled

        if not vllm_compiled.kept():
            import logging

            logging.getLogger("memcurve").info(COMPILING)
        np, tables = numpy(), self.tables
        self.serve, self.last_row = vllm_compiled.serve, vllm_compiled.row_of
        made: dict[str, Any] = {}
        for name, size in self.sizes().items():
            old: Any = getattr(tables, name)
            if isinstance(old, Rows):
                fields = fields_of(old.kind)
                made[name] = np.zeros(size, [(field, np.int64) for field in fields])
                for at, one in old.items():
                    made[name][at] = tuple(getattr(one, field) for field in fields)
                continue
            made[name] = np.zeros(max(size, 1), np.int64)
            for at, value in old.items():
                if name == "hashes":
                    at = at // WIDE * self.wide["hashes"] + at % WIDE
                made[name][at] = value
        for name in ("queue", "ids"):
            made[name] = np.array(getattr(tables, name), np.int64)
        made["fills"] = self.all_fills(max(self.wide["fills"], 1))
        self.tables = Tables(**made)
        self.arrays, self.run = True, made["run"].view(np.recarray)[0]
        self.run.hash_width, self.run.room_links = self.wide["hashes"], len(made["links"])


# Rows of a table while it is sparse
WIDE = 2**32


def plainly(tables: Tables, steps: int) -> tuple[int, Tables]:
    return vllm_scheduler.serve(tables, steps), tables


class Rows(dict):  # type: ignore[type-arg]
    """Objects of a kind by place, made when they are looked at."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __missing__(self, place: int) -> Any:
        made = self[place] = self.kind()
        return made


class Zeros(dict[int, int]):
    def __missing__(self, place: int) -> int:
        return 0


class Fills(dict[int, int]):
    """Bytes that so many tokens of a request fill, worked out once each."""

    def __init__(self, fill: list[tuple[int, Function]]) -> None:
        self.fill = fill

    def __missing__(self, tokens: int) -> int:
        found = self[tokens] = sum(size * int(slots(tokens, 1, 0)) for size, slots in self.fill)
        return found


def fields_of(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def serving_of(allocator: VllmAllocator) -> Serving:
    serving = allocator.serving
    if serving is None:
        raise NotDescribed("the curve of vllm says nothing of its scheduler")
    if serving.unknown is not None:
        raise NotDescribed(f"vllm: {serving.unknown}")
    return serving


def kind_of(spec: Spec, serving: Serving, run: Run) -> Kind:
    """What the functions go by of a kind of layers."""
    kind = Kind()
    size = kind.size = spec.block * spec.tokens
    kind.window, kind.export, kind.period = spec.window, spec.export, size
    if spec.cache == "state":
        kind.window = 0
        kind.form, kind.tail = ALIGNED, 1
        kind.rest2, kind.period2 = (1 + run.ahead) % size, size
        if not serving.prefix_caching:
            kind.form, kind.period, kind.period2 = STATE, 0, 0
        elif spec.block > run.hashed:
            raise NotDescribed(
                f"vllm: states at every {spec.block} tokens beside hashes of {run.hashed}: how hits within a block are copied "
                "is not described"
            )
        return kind
    kind.form = FORMS.get(spec.cache, TOKENS)
    held = -(-min(spec.held, run.longest) // size)
    if kind.form == WINDOW:
        # One block more, since the window may start in the middle of one
        kind.most, kind.tail = held + 1, -(-(spec.window - 1) // size)
        kind.rest2, kind.period2 = (spec.window - 1 + run.ahead) % size, size
    elif kind.form == CHUNK:
        kind.most, kind.rest2, kind.period2 = held, run.ahead % spec.window, spec.window
    else:
        kind.window = 0
    return kind


def single(allocator: VllmAllocator) -> int:
    """Bytes of a token, where all layers keep every token in blocks of one group; else 0."""
    filled = allocator.filled()
    whole = all(compile_expr(slots)(tokens, 1, 0) == tokens for _, _, slots in filled for tokens in (1, 2, 3, 10**9))
    specs = [group.members[0][0] for group in allocator.groups]
    if len(specs) != 1 or specs[0].cache not in ("full", "latent") or specs[0].tokens != 1 or not whole:
        return 0
    return sum(size for _, size, _ in filled)


def numpy() -> Any:
    try:
        import numpy as np
    except ImportError:
        raise MissingExtraError("replays need numpy: pip install 'memcurve[replay]'") from None
    return np


def has_numba() -> bool:
    from importlib.util import find_spec

    return find_spec("numba") is not None
