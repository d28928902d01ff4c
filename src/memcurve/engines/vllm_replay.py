"""vLLM's scheduler over requests that arrive with time, in a pool of a given size.

    replayer = Replayer(allocator, blocks, step_ns=25_000_000, prefill_tokens=200, hash_tokens=512, interval_ns=10**9)
    for chunk in trace:                                # arrivals never go back, within a chunk and from one to the next
        part = replayer.feed(arrival_ns, prompt_tokens, output_tokens, hashes=(offsets, ids))
    part = replayer.finish()
    totals = replayer.totals()

feed() and finish() give a Part: what became known since the last call, as columns. `requests` has one row per request that ended, in the
order they ended; `series` one row per interval (interval_ns), or per step of the scheduler (interval_ns=0), or none (None), and a last
one at the end. Nothing is kept of a request that ended, so memory goes with those that run or wait. totals() says what the run came to so
far. REQUESTS and SERIES name the columns.

The scheduler is that of steady_requests (vllm_scheduler), compiled by Numba where it is installed and the run is long enough. Prompts
may share blocks of layers of all kinds.

Time is an assumption: a batch takes step_ns for every prefill_tokens tokens of prompts in it, and step_ns more where any request
decodes, in whole nanoseconds. The scheduler itself takes none.

hashes: ids[offsets[i]:offsets[i + 1]] of request i, one for each hash_tokens tokens of its prompt, the last one for what is left. An
id stands for its tokens and all before them (as in Mooncake's traces). A prompt's blocks beyond its hashes, and all outputs, are taken to
be like no other's. Where the engine keeps no prefixes (enable_prefix_caching=False) they mean nothing.
"""

from __future__ import annotations

from ..base import BadConfig, Record, whole
from .vllm_loop import Loop, numpy
from .vllm_scheduler import ENDED, MOST_TIME, ROWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from .vllm_blocks import VllmAllocator

REQUESTS = (
    "number", "arrival_ns", "prompt", "output", "admitted_ns", "first_token_ns", "end_ns", "preemptions", "hit_tokens"
)  # fmt: skip
SERIES = ("time_ns", "running", "waiting", "preempted", "blocks", "tokens", "preemptions", "finished", "filled_bytes")


class Part(Record):
    """What became known since the last call: columns by name, of equal lengths."""

    requests: dict[str, NDArray[Any]]
    series: dict[str, NDArray[Any]]


class Totals(Record):
    """What a run came to so far.

    turned_down: requests as long as the longest one or longer. steps: of the scheduler. computed: tokens, again after a preemption;
    hits: tokens found cached instead. peak_*: the most at once after any step; tokens: of the requests that run, one of a shared block
    once. *_ns: by blocks in use and by requests running, how long; token_ns: tokens held, times how long. kept_out_ns: how long the first
    that waits was kept out, by reason. blocks: of the pool, for use. moved_bytes: what preempted requests filled, summed when they are
    admitted again: what swapping them out would bring back.
    """

    now_ns: int
    fed: int
    turned_down: int
    arrived: int
    waiting: int
    preempted: int
    running: int
    finished: int
    preemptions: int
    steps: int
    computed: int
    hits: int
    blocks: int
    peak_running: int
    peak_waiting: int
    peak_blocks: int
    peak_tokens: int
    moved_bytes: int
    blocks_ns: NDArray[Any]
    running_ns: NDArray[Any]
    token_ns: int
    kept_out_ns: dict[str, int]


class Replayer:
    """One run. blocks: of the pool, as VllmPool.num_blocks counts them. compiled: whether the functions are compiled; by default where
    Numba is installed and the run is long enough to gain from it. The results are the same.

    NotDescribed: a model whose scheduling is not described, such as states at wider steps than the engine's hashes.
    """

    def __init__(
        self,
        allocator: VllmAllocator,
        blocks: int,
        *,
        step_ns: int,
        prefill_tokens: int,
        hash_tokens: int | None = None,
        interval_ns: int | None = None,
        compiled: bool | None = None,
    ) -> None:
        self.longest = allocator.largest
        self.turned_down = self.fed = self.last = 0
        self.ended = False
        blocks, step_ns = whole("blocks", blocks, 2), whole("step_ns", step_ns, 1)
        prefill_tokens = whole("prefill_tokens", prefill_tokens, 1)
        interval_ns = None if interval_ns is None else whole("interval_ns", interval_ns)
        self.hash_tokens = 0 if hash_tokens is None else whole("hash_tokens", hash_tokens, 1)
        self.loop = Loop(
            allocator, blocks, step_ns=step_ns, prefill_tokens=prefill_tokens, interval_ns=interval_ns,
            hash_tokens=self.hash_tokens, compiled=compiled,
        )  # fmt: skip
        self.most_id = MOST_TIME // max(self.loop.run.groups, 1) - 2

    # -- what is fed ------------------------------------------------------------------------------------------------------

    def feed(
        self,
        arrival_ns: ArrayLike,
        prompt: ArrayLike,
        output: ArrayLike,
        hashes: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Part:
        """More requests, in the order of their arrival; what is known up to the last one."""
        np = numpy()
        if self.ended:
            raise BadConfig("feed: after finish; expected a new Replayer")
        times, prompts, outputs = (np.asarray(one, np.int64) for one in (arrival_ns, prompt, output))
        offsets, ids = self.hashes_of(hashes, len(times))
        self.check(times, prompts, outputs)
        numbers = np.arange(self.fed, self.fed + len(times), dtype=np.int64)
        self.fed += len(times)
        kept = prompts < self.longest
        self.turned_down += int(len(times) - kept.sum())
        outputs = np.minimum(outputs, self.longest - prompts)
        if not kept.all() and len(ids):
            counts = np.diff(offsets)
            ids = ids[np.repeat(kept, counts)]
            offsets = np.concatenate(([0], np.cumsum(counts[kept])))
        elif not kept.all():
            offsets = offsets[: int(kept.sum()) + 1]
        self.loop.extend(numbers[kept], times[kept], prompts[kept], outputs[kept], offsets, ids)
        return self.part()

    def hashes_of(self, hashes: tuple[ArrayLike, ArrayLike] | None, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        np = numpy()
        if hashes is None:
            return np.zeros(count + 1, np.int64), np.zeros(0, np.int64)
        if not self.hash_tokens:
            raise BadConfig("hashes: given without hash_tokens, the tokens that one stands for")
        offsets, ids = (np.asarray(one, np.int64) for one in hashes)
        if len(offsets) != count + 1 or (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > len(ids):
            raise BadConfig(
                f"hashes: offsets of {len(offsets) - 1:,} requests; expected {count:,}, within {len(ids):,} ids"
            )
        ids = ids[offsets[0] : offsets[-1]]
        if len(ids) and (ids.min() < 0 or ids.max() > self.most_id):
            raise BadConfig(f"hashes: an id out of range; expected 0 to {self.most_id:,}")
        return offsets - offsets[0], ids

    def check(self, times: NDArray[Any], prompts: NDArray[Any], outputs: NDArray[Any]) -> None:
        if not (len(times) == len(prompts) == len(outputs)):
            raise BadConfig(
                f"feed: {len(times):,} arrivals, {len(prompts):,} prompts, {len(outputs):,} outputs; expected as many"
            )
        for name, values in (("prompt", prompts), ("output", outputs)):
            if len(values) and values.min() < 1:
                raise BadConfig(f"{name}: {int(values.min()):,} tokens; expected 1 or more")
        if len(times):
            if times.min() < 0 or times.max() >= MOST_TIME:
                raise BadConfig("arrival_ns: out of range; expected 0 or more, below 2^62")
            back = (numpy().diff(times, prepend=self.last) < 0).nonzero()[0]
            if len(back):
                raise BadConfig(
                    f"arrival_ns: request {self.fed + int(back[0]):,} comes before the one before it; expected order of time"
                )
            self.last = int(times[-1])

    # -- what comes back --------------------------------------------------------------------------------------------------

    def finish(self) -> Part:
        """All requests to their end."""
        self.ended = True
        return self.part()

    def part(self) -> Part:
        np = numpy()
        requests, series = (
            np.concatenate([np.asarray(one, np.int64) for one in parts]).reshape(-1, width)
            for parts, width in zip(self.loop.go(self.ended), (ENDED, ROWS), strict=True)
        )
        return Part(
            requests={name: requests[:, index] for index, name in enumerate(REQUESTS)},
            series={name: series[:, index] for index, name in enumerate(SERIES)},
        )

    def totals(self) -> Totals:
        return Totals(fed=self.fed, turned_down=self.turned_down, **self.loop.counts())
