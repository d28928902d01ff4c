"""The fewest GPUs, or the least memory, with which requests wait no longer than a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base import BadConfig, NotDescribed, Record, Refused, show
from ..engines.vllm_blocks import VllmAllocator
from ..terms import SCHEMA
from .replaying import Setting, rates_of, run, setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from .replaying import Replay
    from .service import Service

MOST_GPUS = 8
# Of the memories below the least that was found, so many are tried as well: waiting need not fall with memory.
CHECKED = 6
MOST_BLOCKS = 2**32
PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9")


class Tried(Record):
    """One memory, or one number of GPUs: what the percentile waited, None where the engine does not run so. why: that, or what kept
    requests out the longest."""

    gpus: int
    memory_bytes: int | None
    waited_ns: int | None
    why: str = ""


class Found(Record):
    """The least that keeps `percentile` of the requests from waiting longer than limit_ns. gpus: 0 where memory was looked for. tried:
    in order. monotone: whether no smaller one that was tried does it."""

    percentile: str
    limit_ns: int
    gpus: int
    memory_bytes: int
    waited_ns: int
    tried: tuple[Tried, ...]
    monotone: bool
    replay: Replay

    def to_dict(self) -> dict[str, Any]:
        found = self.as_dict()
        return {
            "schema": SCHEMA,
            **found,
            "tried": [one.as_dict() for one in self.tried],
            "replay": self.replay.to_dict(),
        }


def smallest(
    trace: str,
    model: Any,
    *,
    max_queue_ns: int,
    percentile: str = "p99",
    engine: str = "vllm",
    dtype: str | None = None,
    gpu: str | None = None,
    gpu_memory: int | None = None,
    weights: str | None = None,
    prefix_sharing: bool = True,
    prefill_rate: float | None = None,
    decode_rate: float | None = None,
    fit_rates: bool = False,
    columns: str | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Found:
    """With gpu or gpu_memory the fewest GPUs that share every layer, else the least memory for state, to a thousandth.

    The trace is read for each that is tried; the rates stay the same however many GPUs there are. Refused where none does it.
    """
    if percentile not in PERCENTILES:
        raise BadConfig(f"percentile: {show(percentile)}; expected one of {', '.join(PERCENTILES)}")
    if trace == "-":
        raise BadConfig("trace: a stream is read once; expected a file")
    rates = rates_of(trace, prefill_rate, decode_rate, fit_rates, columns, strict)
    given = {
        "capped": True,
        "prefix_sharing": prefix_sharing,
        "columns": columns,
        "strict": strict,
        "progress": progress,
    }
    search = Search(trace, rates, max_queue_ns, percentile, given)
    if gpu is None and gpu_memory is None:
        return search.memory(
            setting(
                model,
                engine,
                dtype,
                None,
                dict.fromkeys(("gpu", "gpu_memory", "gpus", "tp")) | {"weights": weights},
                options,
            )
        )
    return search.gpus(
        lambda tp: setting(
            model, engine, dtype, None, {"gpu": gpu, "gpu_memory": gpu_memory, "gpus": tp, "tp": tp, "weights": weights}, options
        )
    )  # fmt: skip


class Search:
    """Runs that were tried."""

    def __init__(self, trace: str, rates: Service, limit: int, percentile: str, given: dict[str, Any]) -> None:
        self.trace, self.rates, self.limit, self.percentile, self.given = trace, rates, limit, percentile, given
        self.tried: list[Tried] = []
        self.turned_down: int | None = None
        self.cut = 0

    def waits(self, one: Setting) -> tuple[int, Replay]:
        found = run(self.trace, [one], self.rates, **self.given)
        queue = found.runs[0].queue
        assert queue is not None
        waited = queue.waited[self.percentile]
        reason = max(queue.kept_out, key=lambda name: queue.kept_out[name]) if any(queue.kept_out.values()) else ""
        self.tried.append(Tried(gpus=one.gpus, memory_bytes=one.memory, waited_ns=waited, why=reason))
        return waited, found

    def found(self, one: Setting, waited: int, replay: Replay, monotone: bool) -> Found:
        assert one.memory is not None
        return Found(
            percentile=self.percentile, limit_ns=self.limit, gpus=one.gpus, memory_bytes=one.memory, waited_ns=waited,
            tried=tuple(self.tried), monotone=monotone, replay=replay,
        )  # fmt: skip

    def gpus(self, on: Callable[[int], Setting]) -> Found:
        """From one GPU up, so that the first that does it is the fewest."""
        why = ""
        for count in range(1, MOST_GPUS + 1):
            try:
                one = on(count)
            except (Refused, BadConfig) as error:
                why = str(error)
                self.tried.append(Tried(gpus=count, memory_bytes=None, waited_ns=None, why=why))
                continue
            if self.turned_down is None:
                self.demand(one)
            if (answer := self.does(one)) is not None:
                return self.found(one, *answer, True)
        raise Refused(f"max_queue: up to {MOST_GPUS} GPUs don't keep it: {self.told() or why}")

    def told(self) -> str:
        """The last one that ran, and what kept requests out."""
        ran = [one for one in self.tried if one.waited_ns is not None]
        if not ran:
            return ""
        last = ran[-1]
        return f"{self.percentile} of the waits is {(last.waited_ns or 0) / 1e9:,.2f} s with {memory_of(last)}, mostly for {last.why}"

    def memory(self, one: Setting) -> Found:
        """By halves, in blocks; then some smaller ones, since more memory need not mean less waiting."""
        allocator = one.curve.allocator
        if not isinstance(allocator, VllmAllocator):
            raise NotDescribed(
                f"max_queue: how engine {one.curve.engine} schedules requests over time is not described"
            )
        block = max(allocator.block_bytes)
        most = self.demand(one) // block + 2
        while True:
            waited, replay = self.waits(one.replace(memory=most * block))
            queue = replay.runs[0].queue
            assert queue is not None
            if waited <= self.limit:
                break
            if not queue.kept_out["blocks"] or most > MOST_BLOCKS:
                raise Refused(f"max_queue: no memory keeps it: {self.told()}; expected faster rates, or fewer requests")
            most *= 2
        best = (most, waited, replay)
        low, high = allocator.blocks(1), most
        while high - low > max(1, high // 1000):
            middle = (low + high) // 2
            answer = self.does(one.replace(memory=middle * block))
            if answer is None:
                low = middle
            else:
                high, best = middle, (middle, *answer)
        monotone = True
        for part in range(1, CHECKED + 1):
            blocks = best[0] * part // (CHECKED + 1)
            if blocks > allocator.blocks(1) and (answer := self.does(one.replace(memory=blocks * block))) is not None:
                monotone, best = False, (blocks, *answer)
                break
        blocks, waited, replay = best
        return self.found(one.replace(memory=blocks * block), waited, replay, monotone)

    def does(self, one: Setting) -> tuple[int, Replay] | None:
        """The wait and the run, where it is short enough."""
        try:
            waited, replay = self.waits(one)
        except Refused as error:
            self.tried.append(Tried(gpus=one.gpus, memory_bytes=one.memory, waited_ns=None, why=str(error)))
            return None
        # Requests that became too long for the engine are no way to keep a queue short.
        if waited > self.limit or self.shorter(replay):
            return None
        return waited, replay

    def shorter(self, replay: Replay) -> bool:
        """Whether the engine takes fewer requests, or ends more of them early, than the model would."""
        own = replay.runs[0]
        return own.turned_down > (self.turned_down or 0) or own.cut > self.cut

    def demand(self, one: Setting) -> int:
        """Bytes with which all requests fit at once."""
        found = run(self.trace, [one.replace(memory=None)], self.rates, **{**self.given, "capped": False}).runs[0]
        self.turned_down, self.cut = found.turned_down, found.cut
        return found.peak_bytes


def memory_of(one: Tried) -> str:
    from ..units import show_bytes

    size = "" if one.memory_bytes is None else show_bytes(one.memory_bytes)
    return f"{one.gpus} GPUs, {size} for state on each" if one.gpus else size
