"""The loop of vllm_kernel over a growing trace: its state as lists, or as arrays for the functions that Numba compiled."""

from __future__ import annotations

from ..base import BadConfig, MissingExtraError, Refused
from . import vllm_kernel as plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from .vllm_blocks import Serving

REASONS = ("max_num_seqs", "max_num_batched_tokens", "blocks")
# Before it pays to load Numba: so many seconds in plain Python, looked at after so many steps.
PLAIN_SECONDS, PLAIN_STEPS = 1.5, 500
MOST_TIME = 2**62
# Rows of results and of the series at a time
ROOM = 2**16


class Kernel:
    """One run. blocks: for use; block: tokens of one; span: blocks of a hash. compiled: whether the functions are compiled; None: where
    Numba is installed, once the run is long enough."""

    def __init__(
        self, serving: Serving, blocks: int, block: int, span: int, step_ns: int, prefill_tokens: int, interval_ns: int | None,
        compiled: bool | None,
    ) -> None:  # fmt: skip
        self.block = block
        self.compiled = has_numba() if compiled is None else compiled
        self.functions: ModuleType = plain
        self.seconds = 0.0
        # Places that a row of these has to have, for all that was fed.
        self.widths = {"table": 1, "hashes": 1}
        self.start(serving, blocks, span, step_ns, prefill_tokens, interval_ns)
        if compiled:
            self.compile()

    def start(
        self, serving: Serving, blocks: int, span: int, step_ns: int, prefill_tokens: int, interval_ns: int | None
    ) -> None:
        np, k = numpy(), plain
        most, budget = serving.max_num_seqs, serving.max_num_batched_tokens
        longest_step = budget * step_ns // prefill_tokens + step_ns
        if max(longest_step * blocks * self.block, budget * step_ns) >= MOST_TIME:
            raise BadConfig(
                f"step_ns: {step_ns:,}; expected less, for what {blocks:,} blocks hold times a step to fit 62 bits"
            )
        bits = 1 << (2 * blocks).bit_length()
        s = np.zeros(k.SIZE, np.int64)
        given = {
            k.BUDGET: budget, k.MOST: most, k.CHUNKED: serving.chunked, k.AHEAD: serving.ahead, k.CACHING: serving.prefix_caching,
            k.BLOCK: self.block, k.BLOCKS: blocks, k.SPAN: span, k.STEP_NS: step_ns, k.PREFILL_TOKENS: prefill_tokens,
            k.INTERVAL: -1 if interval_ns is None else interval_ns, k.WIDTH: 0, k.BITS: bits - 1,
            k.ROOM_ENDED: ROOM + most, k.ROOM_ROWS: ROOM, k.DOOR: k.NONE, k.FREE: blocks, k.SPARE: most + 1,
        }  # fmt: skip
        for place, value in given.items():
            s[place] = value
        chained = blocks + 1 if serving.prefix_caching else 1
        ring = np.arange(chained, dtype=np.int32)
        few, many = np.int32, np.int64
        self.state: dict[str, Any] = {
            "s": s, "q": np.zeros(k.Q, many), "qh": np.zeros(0, many), "f": np.zeros((most + 1) * k.F, many),
            "run": np.zeros(most + 1, many), "due": np.zeros(most + 1, many), "back": np.zeros(most + 1, many), "gone": np.zeros(most + 1, many),
            "spare": np.arange(most + 1, dtype=many), "marks": np.zeros(most + 1, many),
            "hashes": np.zeros(0, many), "table": np.zeros(0, few),
            "nxt": np.roll(ring, -1), "prv": np.roll(ring, 1), "ref": np.zeros(chained, few),
            "key": np.full(chained, k.NONE, many), "first": np.full(bits if serving.prefix_caching else 1, k.NONE, few),
            "chain": np.full(chained, k.NONE, few), "before": np.full(chained, k.NONE, few),
            "ended": np.zeros((ROOM + most) * k.E, many), "rows": np.zeros((ROOM + 1) * k.R, many),
            "blocks_time": np.zeros(blocks + 1, many), "running_time": np.zeros(most + 1, many),
        }  # fmt: skip
        # Plain Python is faster over lists; a table of rows is sparse then.
        self.state = {name: {} if name in ("table", "hashes") else one.tolist() for name, one in self.state.items()}
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

    def go(self, final: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """All steps that what was fed decides: rows of requests that ended, and of the series."""
        from time import perf_counter

        k, state = plain, self.state
        s = state["s"]
        s[k.FINAL] = int(final)
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
                return numpy().concatenate(requests), numpy().concatenate(series)
            if stop == k.STUCK:
                raise self.stuck()

    def stuck(self) -> Refused:
        k, s, f = plain, self.state["s"], self.state["f"]
        slot = self.state["back"][s[k.BACK] - 1] if s[k.BACK] else s[k.DOOR]
        return Refused(
            f"vllm: request {int(f[slot * k.F + k.NUMBER]):,}, of {int(f[slot * k.F + k.PREFILL]):,} tokens, is never scheduled, for "
            f"{REASONS[s[k.KEPT] - 1]}"
        )

    def counts(self) -> dict[str, Any]:
        """Sums so far, by the names of Totals."""
        k, s = plain, [int(one) for one in self.state["s"]]
        waiting, back = s[k.ARRIVED] - s[k.TAKEN], s[k.BACK] + s[k.GONE]
        return {
            "now_ns": s[k.NOW], "arrived": s[k.FINISHED] + s[k.RUNNING] + back + waiting, "waiting": waiting, "preempted": back,
            "running": s[k.RUNNING], "finished": s[k.FINISHED], "preemptions": s[k.PREEMPTIONS], "steps": s[k.STEP],
            "computed": s[k.COMPUTED], "hits": s[k.HITS], "blocks": s[k.BLOCKS], "peak_running": s[k.PEAK_RUNNING],
            "peak_waiting": s[k.PEAK_WAITING], "peak_blocks": s[k.PEAK_BLOCKS], "peak_tokens": s[k.PEAK_TOKENS],
            "blocks_ns": numpy().array(self.state["blocks_time"]), "running_ns": numpy().array(self.state["running_time"]),
            "token_ns": s[k.AREA_HIGH] * k.CARRY + s[k.AREA_LOW],
            "kept_out_ns": {name: s[k.KEPT_FOR + 1 + index] for index, name in enumerate(REASONS)},
        }  # fmt: skip


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
