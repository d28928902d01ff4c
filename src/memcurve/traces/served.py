"""Requests that wait for memory: vLLM's scheduler over a trace, in a pool of blocks."""

from __future__ import annotations

from ..base import NotDescribed, Refused, TooLarge
from ..engines.vllm_blocks import VllmAllocator
from ..engines.vllm_loop import single
from ..engines.vllm_replay import Replayer
from .bins import Counted
from .compiled import np
from .run import SHARES, Queue, Run, Series, shares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from ..curve import MemoryCurve
    from ..engines.vllm_replay import Part
    from .reading import Chunk
    from .service import Service

INSTEAD = "without a queue (uncapped) demand is shown against the capacity"
# Rows of the series before they join in pairs; the intervals that one run may have.
ROWS, MOST_INTERVALS = 4096, 50_000_000
# Hashes of prefixes that are remembered, for what an unlimited cache would find.
MOST_HASHES = 20_000_000


class Rows:
    """Rows of a series, joined in pairs when there are too many: the most of some columns, the mean of others, the last of counts."""

    MEANS = ("blocks_mean", "filled_bytes_mean", "running_mean")
    LASTS = ("preemptions", "finished")

    def __init__(self) -> None:
        self.parts: list[dict[str, NDArray[Any]]] = []
        self.count, self.each = 0, 1
        self.rest: dict[str, NDArray[Any]] | None = None

    def add(self, series: dict[str, NDArray[Any]]) -> None:
        """Rows as the replayer gives them."""
        columns = {name: np.asarray(one, float) for name, one in series.items() if name != "time_ns"}
        for name in ("blocks", "filled_bytes", "running"):
            columns[f"{name}_mean"] = columns[name]
        joined = self._grouped(columns)
        if joined is not None:
            self.parts.append(joined)
            self.count += len(joined["blocks"])
        while self.count > ROWS:
            self._halve()

    def _grouped(self, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | None:
        """Whole groups of `each` rows; the others are kept for the next time."""
        if self.rest is not None:
            columns = {name: np.concatenate((self.rest[name], one)) for name, one in columns.items()}
        whole = len(columns["blocks"]) // self.each * self.each
        self.rest = {name: one[whole:] for name, one in columns.items()}
        return self._joined({name: one[:whole] for name, one in columns.items()}, self.each) if whole else None

    def _joined(self, columns: dict[str, NDArray[Any]], each: int) -> dict[str, NDArray[Any]]:
        found = {}
        for name, one in columns.items():
            table = one.reshape(-1, each)
            found[name] = table.mean(1) if name in self.MEANS else table[:, -1] if name in self.LASTS else table.max(1)
        return found

    def _halve(self) -> None:
        every = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        even = self.count // 2 * 2
        whole = self._joined({name: one[:even] for name, one in every.items()}, 2)
        odd = {name: one[even:] for name, one in every.items()}
        if self.count > even and self.rest is not None:
            # One bin is left over: it stands for all its rows.
            self.rest = {name: np.concatenate((np.repeat(odd[name], self.each), self.rest[name])) for name in self.rest}
        self.each *= 2
        self.parts, self.count = [whole], even // 2

    def table(self) -> dict[str, NDArray[Any]]:
        parts = list(self.parts)
        if self.rest is not None and len(self.rest["blocks"]):
            parts.append(self._joined(self.rest, len(self.rest["blocks"])))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Arrivals:
    """Requests and tokens that arrive, in bins of an interval, which join in pairs when there are too many."""

    def __init__(self, interval: int) -> None:
        self.width, self.sums = interval, np.zeros((2, 2 * ROWS), np.int64)

    def add(self, times: NDArray[np.int64], tokens: NDArray[np.int64]) -> None:
        most = self.sums.shape[1]
        while int(times[-1]) // self.width >= most:
            pairs = self.sums.reshape(2, -1, 2).sum(2)
            self.sums[:, : most // 2], self.sums[:, most // 2 :] = pairs, 0
            self.width *= 2
        at = times // self.width
        np.add.at(self.sums[0], at, 1)
        np.add.at(self.sums[1], at, tokens)

    def bins(self, width: int, count: int) -> NDArray[np.int64]:
        """The same in so many bins of a width that is as many times theirs as a power of two says; what is behind them in the last."""
        found = np.zeros((2, count), np.int64)
        at = np.minimum(np.arange(self.sums.shape[1]) * self.width // width, count - 1)
        for row in (0, 1):
            np.add.at(found[row], at, self.sums[row])
        return found


class Served:
    """One model's replay under a memory. memory: bytes for state on each GPU; hashes: tokens that one hash stands for, 0 to share nothing."""

    def __init__(
        self,
        curve: MemoryCurve,
        service: Service,
        memory: int,
        *,
        hashes: int = 0,
        gpus: int = 0,
        gpu: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.curve, self.service, self.gpus, self.gpu = curve, service, gpus, gpu
        self.notes = list(notes)
        allocator = curve.allocator
        if not isinstance(allocator, VllmAllocator):
            raise NotDescribed(
                f"replay: how engine {curve.engine} schedules requests over time is not described; {INSTEAD}"
            )
        self.allocator = allocator = self._starting(allocator, memory)
        pool = allocator.pool(memory)
        self.blocks, self.block_bytes = pool.num_blocks, pool.bytes_per_block
        self.capacity = (self.blocks - 1) * self.block_bytes
        self.row = single(allocator)
        self.hashes = hashes if allocator.serving is not None and allocator.serving.prefix_caching else 0
        self.replayer: Replayer | None = None
        self._replayer(None)  # refused here, if at all
        self.waited, self.first = Counted(), Counted()
        self.rows = Rows()
        self.origin: int | None = None
        self.interval = 0
        self.preempted = self.needed = self.cut = 0
        self.turned_down = self.reusable = 0
        self.seen: NDArray[np.int64] | None = np.zeros(0, np.int64) if self.hashes else None

    def _starting(self, allocator: VllmAllocator, memory: int) -> VllmAllocator:
        """As the engine is started: with a longest request that fits."""
        fits = allocator.longest_context(memory)
        if fits >= allocator.largest:
            return allocator
        if fits < 1:
            raise Refused(f"memory: {memory:,} bytes; not one token fits")
        self.notes.append(
            f"vLLM starts only with max_model_len of {fits:,} or less here: its own longest request does not fit"
        )
        return allocator.limited(fits)

    def _replayer(self, interval: int | None) -> Replayer:
        try:
            return Replayer(
                self.allocator, self.blocks, step_ns=self.service.step_ns, prefill_tokens=self.service.prefill_tokens,
                hash_tokens=self.hashes or None, interval_ns=interval,
            )  # fmt: skip
        except NotDescribed as error:
            raise NotDescribed(f"{error}; {INSTEAD}") from None

    def feed(self, chunk: Chunk) -> None:
        if self.origin is None or self.replayer is None:
            self.origin = int(chunk.time[0])
            span = int(chunk.time[-1]) - self.origin
            self.interval = max(self.service.step_ns, -(-span // (ROWS // 2)))
            self.replayer = self._replayer(self.interval)
            self.arrived = Arrivals(self.interval)
        times = chunk.time - self.origin
        if int(times[-1]) // self.interval > MOST_INTERVALS:
            raise TooLarge(
                f"the trace is {int(times[-1]) / 1e9:,.0f} s long, of which {self.interval / 1e9:,.3f} s are looked at; "
                "expected fewer: is the unit of its time as meant?"
            )
        self.arrived.add(times, chunk.prompt + chunk.output)
        self._need(chunk)
        hashes = None
        if self.hashes and chunk.hashes is not None and chunk.ends is not None:
            hashes = (np.concatenate(([0], chunk.ends)), chunk.hashes)
            self._reuse(chunk)
        self._took(self.replayer.feed(times, chunk.prompt, chunk.output, hashes=hashes))

    def _need(self, chunk: Chunk) -> None:
        """Tokens to compute, were no request preempted and nothing cached."""
        longest = self.allocator.largest
        fits = chunk.prompt < longest
        left = longest - chunk.prompt
        self.turned_down += int((~fits).sum())
        self.cut += int((fits & (chunk.output > left)).sum())
        self.needed += int((chunk.prompt + np.minimum(chunk.output, left) - 1)[fits].sum())

    def _reuse(self, chunk: Chunk) -> None:
        """Tokens of prompts that came before, were the cache without a limit."""
        if self.seen is None or chunk.hashes is None or chunk.ends is None:
            return
        counts = np.diff(chunk.ends, prepend=0)
        fits = chunk.prompt < self.allocator.largest
        ids, prompts, counts = chunk.hashes[np.repeat(fits, counts)], chunk.prompt[fits], counts[fits]
        if not len(ids):
            return
        owner = np.repeat(np.arange(len(counts)), counts)
        distinct, first, back = np.unique(ids, return_index=True, return_inverse=True)
        # What was seen stays in order, so that it is looked up and joined without sorting it all.
        at = np.searchsorted(self.seen, distinct)
        before = np.append(self.seen, -1)[at] == distinct
        known = before[back] | (owner[first][back] < owner)
        # Of each request those in front of the first that is new
        place = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = np.full(len(counts), MOST_HASHES)
        np.minimum.at(new, owner[~known], place[~known])
        self.reusable += int(np.minimum(np.minimum(new, counts) * self.hashes, prompts - 1).sum())
        self.seen = np.insert(self.seen, at[~before], distinct[~before])
        if len(self.seen) > MOST_HASHES:
            self.seen = None

    def _took(self, part: Part) -> None:
        rows = part.requests
        if len(rows["arrival_ns"]):
            self.waited.add(rows["admitted_ns"] - rows["arrival_ns"])
            self.first.add(rows["first_token_ns"] - rows["arrival_ns"])
            self.preempted += int((rows["preemptions"] > 0).sum())
        if len(part.series["time_ns"]):
            self.rows.add(part.series)

    def finish(self) -> Run:
        assert self.replayer is not None
        self._took(self.replayer.finish())
        totals, curve, size = self.replayer.totals(), self.curve, self.block_bytes
        time = int(totals.blocks_ns.sum()) or 1
        held = float((totals.blocks_ns * np.arange(len(totals.blocks_ns))).sum()) / time
        dropped = totals.computed + totals.hits - self.needed
        table = self.rows.table()
        most = int(np.argmax(table["blocks"])) if len(table["blocks"]) else 0
        width = self.interval * self.rows.each
        return Run(
            name=curve.name, engine=curve.engine, dtype=curve.dtype, gpu=self.gpu, gpus=self.gpus, capped=True,
            capacity_bytes=self.capacity, peak_bytes=totals.peak_blocks * size, peak_ns=most * width,
            mean_bytes=round(held * size), percentiles=by_time(totals.blocks_ns, size), peak_running=totals.peak_running,
            mean_running=float((totals.running_ns * np.arange(len(totals.running_ns))).sum()) / time,
            duration_ns=totals.now_ns, busy=1 - int(totals.running_ns[0]) / time,
            filled=self._filled(totals.token_ns, held * time, table),
            over=None, over_bytes=None, moved_bytes=None, turned_down=totals.turned_down, cut=self.cut,
            series=self._series(table, width),
            queue=Queue(
                waited=shares(self.waited.percentiles(*SHARES)), waited_most=self.waited.most, waiting_most=totals.peak_waiting,
                first_token=shares(self.first.percentiles(*SHARES)), finished=totals.finished, preempted=self.preempted,
                preemptions=totals.preemptions, kept_out=totals.kept_out_ns, computed_tokens=totals.computed,
                hit_tokens=totals.hits, reusable_tokens=self.reusable if self.seen is not None and self.hashes else None,
                dropped_tokens=dropped, offload_bytes=totals.moved_bytes,
            ),
            notes=tuple(dict.fromkeys((*self.notes, *curve.notes))),
        )  # fmt: skip

    def _filled(self, tokens: int, blocks: float, table: dict[str, NDArray[Any]]) -> float | None:
        """The share of the bytes of blocks in use that is filled: over all time, or where layers differ over the rows of the series."""
        if self.row:
            return tokens * self.row / (blocks * self.block_bytes) if blocks else None
        held = float(table["blocks_mean"].sum()) * self.block_bytes
        return float(table["filled_bytes_mean"].sum()) / held if held else None

    def _series(self, table: dict[str, NDArray[Any]], width: int) -> Series:
        size = self.block_bytes
        whole = {
            "bytes_mean": table["blocks_mean"] * size, "bytes_max": table["blocks"] * size,
            "filled_mean": table["filled_bytes_mean"], "running_max": table["running"],
            "waiting_max": table["waiting"] + table["preempted"], "preemptions": table["preemptions"], "finished": table["finished"],
        }  # fmt: skip
        arrived, arrived_tokens = self.arrived.bins(width, max(len(table["blocks"]), 1))
        columns = {name: np.rint(one).astype(np.int64) for name, one in whole.items()}
        return Series(
            width_ns=width,
            columns={
                "time_ns": np.arange(len(table["blocks"])) * width,
                "running_mean": table["running_mean"],
                **columns,
                "arrived": arrived,
                "arrived_tokens": arrived_tokens,
            },
        )


def by_time(nanoseconds: NDArray[Any], size: int) -> dict[str, int]:
    """Percentiles over time of what is counted in units of so many bytes."""
    sums = np.cumsum(nanoseconds)
    total = int(sums[-1])
    return shares(
        [
            int(np.searchsorted(sums, max(1, -(-total * round(share * 1000) // 100_000)))) * size if total else 0
            for share in SHARES
        ]
    )
