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

Time is an assumption: a batch takes step_ns for every prefill_tokens tokens of prompts in it, and step_ns more where any request
decodes, in whole nanoseconds. The scheduler itself takes none.

hashes: ids[offsets[i]:offsets[i + 1]] of request i, one for each hash_tokens tokens of its prompt, the last one for what is left. An
id stands for its tokens and all before them (as in Mooncake's traces). A prompt's blocks beyond its hashes, and all outputs, are taken to
be like no other's. Where the engine keeps no prefixes (enable_prefix_caching=False) they mean nothing.
"""

from __future__ import annotations

from ..base import BadConfig, MissingExtraError, NotDescribed, Record, Refused, whole
from . import vllm_kernel as plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from .vllm_blocks import Serving, VllmAllocator

REQUESTS = (
    "number", "arrival_ns", "prompt", "output", "admitted_ns", "first_token_ns", "end_ns", "preemptions", "hit_tokens"
)  # fmt: skip
SERIES = ("time_ns", "running", "waiting", "preempted", "blocks", "tokens", "preemptions", "finished")
REASONS = ("max_num_seqs", "max_num_batched_tokens", "blocks")
# Without numba, or before it pays to load it: so many seconds in plain Python, looked at after so many steps.
PLAIN_SECONDS, PLAIN_STEPS = 1.5, 500
MOST_TIME = 2**62
ROOM = 2**16


class Part(Record):
    """What became known since the last call: columns by name, of equal lengths."""

    requests: dict[str, NDArray[Any]]
    series: dict[str, NDArray[Any]]


class Totals(Record):
    """What a run came to so far.

    turned_down: requests as long as the longest one or longer. steps: of the scheduler. computed: tokens, again after a preemption;
    hits: tokens found cached instead. peak_*: the most at once after any step; tokens: that blocks in use hold, one of a shared block
    once. *_ns: by blocks in use and by requests running, how long; token_ns: tokens held, times how long. kept_out_ns: how long the first
    that waits was kept out, by reason. blocks: of the pool, for use.
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
    blocks_ns: NDArray[Any]
    running_ns: NDArray[Any]
    token_ns: int
    kept_out_ns: dict[str, int]


class Replayer:
    """One run. blocks: of the pool, as VllmPool.num_blocks counts them. compiled: whether Numba compiles the loop; by default where it
    is installed and the run is long enough to gain from it. The results are the same.

    NotDescribed: a model whose layers do not all keep every token in blocks alike, or whose scheduling is not described.
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
        serving, self.block = serving_of(allocator)
        self.longest = allocator.largest
        self.compiled = has_numba() if compiled is None else compiled
        self.eager = compiled is not None
        self.functions: ModuleType = plain
        self.turned_down = self.fed = 0
        self.last = -MOST_TIME
        self.seconds = 0.0
        self.ended = False
        # Places that a row of these has to have, for all that was fed.
        self.widths = {"table": 1, "hashes": 1}
        span = 1
        self.hash_tokens = hash_tokens
        if hash_tokens is not None:
            if whole("hash_tokens", hash_tokens, 1) % self.block:
                raise BadConfig(f"hash_tokens: {hash_tokens:,}; expected a multiple of the {self.block:,} tokens of a block")
            span = hash_tokens // self.block
        self.start(serving, whole("blocks", blocks, 2) - 1, span, step_ns, prefill_tokens, interval_ns)
        if self.eager and compiled:
            self.compile()

    def start(
        self, serving: Serving, blocks: int, span: int, step_ns: int, prefill_tokens: int, interval_ns: int | None
    ) -> None:
        np, k = numpy(), plain
        most, budget = serving.max_num_seqs, serving.max_num_batched_tokens
        step_ns, prefill_tokens = whole("step_ns", step_ns, 1), whole("prefill_tokens", prefill_tokens, 1)
        longest_step = budget * step_ns // prefill_tokens + step_ns
        if max(longest_step * blocks * self.block, budget * step_ns) >= MOST_TIME:
            raise BadConfig(f"step_ns: {step_ns:,}; expected less, for what {blocks:,} blocks hold times a step to fit 62 bits")
        bits = 1 << (2 * blocks).bit_length()
        s = np.zeros(k.SIZE, np.int64)
        given = {
            k.BUDGET: budget, k.MOST: most, k.CHUNKED: serving.chunked, k.AHEAD: serving.ahead, k.CACHING: serving.prefix_caching,
            k.BLOCK: self.block, k.BLOCKS: blocks, k.SPAN: span, k.STEP_NS: step_ns, k.PREFILL_TOKENS: prefill_tokens,
            k.INTERVAL: -1 if interval_ns is None else whole("interval_ns", interval_ns), k.WIDTH: 0, k.BITS: bits - 1,
            k.ROOM_ENDED: ROOM + most, k.ROOM_ROWS: ROOM, k.DOOR: k.NONE, k.FREE: blocks, k.SPARE: most + 1,
        }  # fmt: skip
        for place, value in given.items():
            s[place] = value
        chained = blocks + 1 if serving.prefix_caching else 1
        ring = np.arange(chained, dtype=np.int32)
        few, many = np.int32, np.int64
        self.state: dict[str, Any] = {
            "s": s, "q": np.zeros(k.Q, many), "qh": np.zeros(0, many), "f": np.zeros((most + 1) * k.F, many),
            "run": np.zeros(most + 1, many), "back": np.zeros(most + 1, many), "gone": np.zeros(most + 1, many),
            "spare": np.arange(most + 1, dtype=many), "marks": np.zeros(most + 1, many),
            "hashes": np.zeros(0, many), "table": np.zeros(0, few),
            "nxt": np.roll(ring, -1), "prv": np.roll(ring, 1), "ref": np.zeros(chained, few),
            "key": np.full(chained, k.NONE, many), "first": np.full(bits if serving.prefix_caching else 1, k.NONE, few),
            "chain": np.full(chained, k.NONE, few), "before": np.full(chained, k.NONE, few),
            "ended": np.zeros((ROOM + most) * k.E, many), "rows": np.zeros((ROOM + 1) * k.R, many),
            "blocks_time": np.zeros(blocks + 1, many), "running_time": np.zeros(most + 1, many),
        }  # fmt: skip
        # Plain Python is faster over lists; a table of rows is sparse then.
        self.state = {
            name: {} if name in ("table", "hashes") else one.tolist() for name, one in self.state.items()
        }
        self.state["s"][k.WIDTH] = self.state["s"][k.HASHES] = 2**32

    def compile(self) -> None:
        """Turns to arrays and the compiled functions, in the middle of a run."""
        np, k, state = numpy(), plain, self.state
        few = ("table", "nxt", "prv", "ref", "first", "chain", "before")
        rows = len(state["spare"])
        for name, place in (("table", k.WIDTH), ("hashes", k.HASHES)):
            sparse, wide, width = state[name], state["s"][place], self.widths[name]
            dense = np.zeros(rows * width, np.int32 if name in few else np.int64)
            for at, value in sparse.items():
                dense[at // wide * width + at % wide] = value
            state[name], state["s"][place] = dense, width
        for name, one in state.items():
            state[name] = np.asarray(one, np.int32 if name in few else np.int64)
        self.functions = compiled_kernel()

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
        self.extend(numbers[kept], times[kept], prompts[kept], outputs[kept], offsets, ids)
        return self.advance()

    def hashes_of(self, hashes: tuple[ArrayLike, ArrayLike] | None, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        np = numpy()
        if hashes is None:
            return np.zeros(count + 1, np.int64), np.zeros(0, np.int64)
        if self.hash_tokens is None:
            raise BadConfig("hashes: given without hash_tokens, the tokens that one stands for")
        offsets, ids = (np.asarray(one, np.int64) for one in hashes)
        span = self.hash_tokens // self.block
        if len(offsets) != count + 1 or (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > len(ids):
            raise BadConfig(f"hashes: offsets of {len(offsets) - 1:,} requests; expected {count:,}, within {len(ids):,} ids")
        ids = ids[offsets[0] : offsets[-1]]
        if len(ids) and (ids.min() < 0 or ids.max() >= MOST_TIME // span):
            raise BadConfig(f"hashes: an id out of range; expected 0 to {MOST_TIME // span - 1:,}")
        return offsets - offsets[0], ids

    def check(self, times: NDArray[Any], prompts: NDArray[Any], outputs: NDArray[Any]) -> None:
        if not (len(times) == len(prompts) == len(outputs)):
            raise BadConfig(f"feed: {len(times):,} arrivals, {len(prompts):,} prompts, {len(outputs):,} outputs; expected as many")
        for name, values in (("prompt", prompts), ("output", outputs)):
            if len(values) and values.min() < 1:
                raise BadConfig(f"{name}: {int(values.min()):,} tokens; expected 1 or more")
        if len(times):
            if times.min() < 0 or times.max() >= MOST_TIME:
                raise BadConfig("arrival_ns: out of range; expected 0 or more, below 2^62")
            back = (numpy().diff(times, prepend=max(self.last, 0) if self.last >= 0 else times[0]) < 0).nonzero()[0]
            if len(back):
                raise BadConfig(f"arrival_ns: request {self.fed + int(back[0]):,} comes before the one before it; expected order of time")
            self.last = int(times[-1])

    def extend(
        self,
        numbers: NDArray[Any],
        times: NDArray[Any],
        prompts: NDArray[Any],
        outputs: NDArray[Any],
        offsets: NDArray[Any],
        ids: NDArray[Any],
    ) -> None:
        """The queue: what still waits of it, and the new ones behind."""
        np, k, state = numpy(), plain, self.state
        s, q = state["s"], state["q"]
        taken, fed = int(s[k.TAKEN]), int(s[k.FED])
        old = np.asarray(q[taken * k.Q : fed * k.Q], np.int64).reshape(-1, k.Q)
        start, end = int(q[taken * k.Q + k.Q_HASHES]), int(q[fed * k.Q + k.Q_HASHES])
        waiting = np.asarray(state["qh"][start:end], np.int64)
        old[:, k.Q_HASHES] -= start
        new = np.column_stack((numbers, times, prompts, outputs, offsets[:-1] + len(waiting))).astype(np.int64)
        close = np.array([[0, 0, 0, 0, len(waiting) + len(ids)]], np.int64)
        state["q"] = np.concatenate((old, new, close)).ravel()
        state["qh"] = np.concatenate((waiting, ids))
        s[k.ARRIVED] -= taken
        s[k.TAKEN] = 0
        s[k.FED] = fed - taken + len(new)
        if len(new):
            self.widths["table"] = max(self.widths["table"], -(-int((prompts + outputs).max()) // self.block))
            self.widths["hashes"] = max(self.widths["hashes"], int(np.diff(offsets).max()))
        if self.functions is plain:
            state["q"], state["qh"] = state["q"].tolist(), state["qh"].tolist()
        else:
            self.widen("table", k.WIDTH)
            self.widen("hashes", k.HASHES)

    def widen(self, name: str, place: int) -> None:
        """Longer rows of a table, where they have to be."""
        old, width = int(self.state["s"][place]), self.widths[name]
        if width > old:
            rows, array = len(self.state["spare"]), self.state[name]
            wide = numpy().zeros((rows, width), array.dtype)
            wide[:, :old] = array.reshape(rows, old)
            self.state[name], self.state["s"][place] = wide.ravel(), width

    # -- what comes back --------------------------------------------------------------------------------------------------

    def finish(self) -> Part:
        """All requests to their end."""
        self.ended = True
        self.state["s"][plain.FINAL] = 1
        return self.advance()

    def advance(self) -> Part:
        from time import perf_counter

        k, state = plain, self.state
        s = state["s"]
        requests: list[Any] = []
        series: list[Any] = []
        while True:
            quick = self.functions is plain and self.compiled
            start = perf_counter() if quick else 0.0
            stop = self.functions.serve(*state.values(), PLAIN_STEPS if quick else 2**62)
            if quick:
                self.seconds += perf_counter() - start
                if self.seconds > PLAIN_SECONDS and stop in (k.PAUSED, k.MORE):
                    self.compile()
                    state = self.state
                    s = state["s"]
            if stop == k.OVER and s[k.INTERVAL] >= 0:
                k.row(s, state["rows"], int(s[k.NOW]))
            if stop != k.PAUSED:
                requests.append(numpy().array(state["ended"][: s[k.ENDED] * k.E], numpy().int64).reshape(-1, k.E))
                series.append(numpy().array(state["rows"][: s[k.ROWS] * k.R], numpy().int64).reshape(-1, k.R))
                s[k.ENDED] = s[k.ROWS] = 0
            if stop in (k.MORE, k.OVER):
                return Part(requests=columns(REQUESTS, requests), series=columns(SERIES, series))
            if stop == k.STUCK:
                raise self.stuck()

    def stuck(self) -> Refused:
        k, s, f = plain, self.state["s"], self.state["f"]
        slot = self.state["back"][s[k.BACK] - 1] if s[k.BACK] else s[k.DOOR]
        return Refused(
            f"vllm: request {int(f[slot * k.F + k.NUMBER]):,}, of {int(f[slot * k.F + k.PREFILL]):,} tokens, is never scheduled, for "
            f"{REASONS[s[k.KEPT] - 1]}"
        )

    def totals(self) -> Totals:
        k, s = plain, [int(one) for one in self.state["s"]]
        return Totals(
            now_ns=s[k.NOW],
            fed=self.fed,
            turned_down=self.turned_down,
            arrived=s[k.FINISHED] + s[k.RUNNING] + s[k.BACK] + s[k.GONE] + s[k.ARRIVED] - s[k.TAKEN],
            waiting=s[k.ARRIVED] - s[k.TAKEN],
            preempted=s[k.BACK] + s[k.GONE],
            running=s[k.RUNNING],
            finished=s[k.FINISHED],
            preemptions=s[k.PREEMPTIONS],
            steps=s[k.STEP],
            computed=s[k.COMPUTED],
            hits=s[k.HITS],
            blocks=s[k.BLOCKS],
            peak_running=s[k.PEAK_RUNNING],
            peak_waiting=s[k.PEAK_WAITING],
            peak_blocks=s[k.PEAK_BLOCKS],
            peak_tokens=s[k.PEAK_TOKENS],
            blocks_ns=numpy().array(self.state["blocks_time"]),
            running_ns=numpy().array(self.state["running_time"]),
            token_ns=s[k.AREA_HIGH] * k.CARRY + s[k.AREA_LOW],
            kept_out_ns={name: s[k.KEPT_FOR + 1 + index] for index, name in enumerate(REASONS)},
        )


def columns(names: tuple[str, ...], parts: list[Any]) -> dict[str, Any]:
    rows = numpy().concatenate(parts)
    return {name: rows[:, index] for index, name in enumerate(names)}


def serving_of(allocator: VllmAllocator) -> tuple[Serving, int]:
    """What the scheduler goes by, and the tokens of a block."""
    serving = allocator.serving
    if serving is None:
        raise NotDescribed("the curve of vllm says nothing of its scheduler")
    if serving.unknown is not None:
        raise NotDescribed(f"vllm: {serving.unknown}")
    specs = [group.members[0][0] for group in allocator.groups]
    if len(specs) != 1 or specs[0].cache not in ("full", "latent"):
        kinds = ", ".join(dict.fromkeys(spec.cache for spec in specs)) or "none"
        raise NotDescribed(
            f"vllm: a replay of {len(specs)} groups of blocks ({kinds}); described is one, of layers that keep every token"
        )
    return serving, specs[0].block * specs[0].tokens


def numpy() -> Any:
    try:
        import numpy as np
    except ImportError:
        raise MissingExtraError("replays need numpy: pip install 'memcurve[replay]'") from None
    return np


def has_numba() -> bool:
    from importlib.util import find_spec

    return find_spec("numba") is not None


KERNELS: list[ModuleType] = []


def compiled_kernel() -> ModuleType:
    """The module of the functions once more, each of them compiled when it is first called and kept beside the source (or in the user's
    cache) for the next process."""
    if not KERNELS:
        import sys
        from importlib.util import module_from_spec, spec_from_file_location

        try:
            from numba import njit
        except ImportError:
            raise MissingExtraError("a compiled replay needs numba: pip install 'memcurve[replay]'") from None
        name = f"{plain.__name__}_compiled"
        spec = spec_from_file_location(name, plain.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
        for word, one in list(vars(module).items()):
            if callable(one) and getattr(one, "__module__", "") == name:
                try:
                    setattr(module, word, njit(cache=True)(one))
                except RuntimeError:  # no folder can be written to
                    setattr(module, word, njit(one))
        KERNELS.append(module)
    return KERNELS[0]
