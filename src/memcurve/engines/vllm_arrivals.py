"""vLLM's scheduler over requests that arrive with time, for any groups of layers: the loop of vllm_scheduler with a clock.

It looks at the steps at which something changes, and at requests that share nothing; what it comes to is what vllm_replay says.
"""

from __future__ import annotations

from collections import deque

from ..base import Refused
from ..terms import compile_expr
from .vllm_loop import REASONS, numpy
from .vllm_scheduler import Request, Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from .vllm_blocks import VllmAllocator


class Arrival(Request):
    """A request with what is told of it. Times in nanoseconds; -1 where it has not come to it."""

    __slots__ = ("admitted", "arrival", "ended", "known", "number", "output", "preempted")

    def __init__(self, number: int, arrival: int, prompt: int, output: int) -> None:
        super().__init__(prompt, output)
        self.number, self.arrival, self.output = number, arrival, output
        self.admitted = self.known = self.ended = -1
        self.preempted = 0

    def tokens(self, step: int) -> int:
        """Tokens with a place once the step's batch is made."""
        return self.done if self.first < 0 else self.prefill + min(step - self.first, self.left - 1)


class Arrivals(Scheduler):
    """One run; step_ns and prefill_tokens say how long a batch takes, interval_ns how far rows are apart (0: one each step)."""

    def __init__(
        self, allocator: VllmAllocator, blocks: int, step_ns: int, prefill_tokens: int, interval_ns: int | None
    ) -> None:
        super().__init__(allocator, blocks)
        self.step_ns, self.prefill_tokens, self.interval_ns = step_ns, prefill_tokens, interval_ns
        self.filled = [(size, compile_expr(slots)) for _, size, slots in allocator.filled()]
        self.known_fills: dict[int, int] = {}
        self.ahead: deque[Arrival] = deque()
        self.horizon = -1
        self.final = self.woken = False
        # Now, the end of the last batch, and the step until which nothing but decodes happens.
        self.now = self.busy = self.until = 0
        self.sampled = 0
        # Of the last batch; tokens of the requests that run.
        self.prefilled = self.decodes = self.tokens = 0
        self.stalled = 0
        self.marks: list[Arrival] = []
        self.gone: list[Arrival] = []
        self.ended_before = 0
        self.finished = self.computed = self.hits = self.token_ns = 0
        self.peaks = [0] * 4
        # The state since the last step: running, put back, blocks, tokens, preemptions, finished, bytes filled.
        self.state = [0] * 7
        self.blocks_ns = [0] * blocks
        self.running_ns = [0] * (self.most + 1)
        self.kept_ns: dict[str, int] = {}
        self.rows: list[list[int]] = []
        self.results: list[list[int]] = []
        self.back = 0

    # -- what the scheduler tells on its way -----------------------------------------------------------------------------

    def enter(self, request: Request, budget: int) -> str:
        assert isinstance(request, Arrival)
        why = super().enter(request, budget)
        if not why:
            self.hits += request.hit
            self.tokens += request.hit
            self.back -= request.admitted >= 0
            request.admitted = self.now if request.admitted < 0 else request.admitted
        return why

    def advance(self, request: Request, tokens: int) -> None:
        super().advance(request, tokens)
        assert isinstance(request, Arrival)
        self.prefilled += tokens
        if request.first >= 0 and request.known < 0:
            self.marks.append(request)

    def stall(self, request: Request) -> None:
        super().stall(request)
        self.stalled += 1

    def preempt(self, request: Request) -> None:
        assert isinstance(request, Arrival)
        self.tokens -= request.tokens(self.step - 1)
        super().preempt(request)
        request.preempted += 1
        if request.left:
            self.back += 1
        else:
            self.gone.append(request)

    def finish(self) -> bool:
        over = [one for one in self.ending if self.running.get(one.order) is one and one.end == self.step]
        self.tokens -= sum(one.tokens(self.step) for one in over if isinstance(one, Arrival))
        ended = super().finish()
        for request in (*self.gone, *over):
            assert isinstance(request, Arrival)
            request.ended = self.ended_before
            told = (request.admitted, request.known, request.ended, request.preempted)
            self.results.append([request.number, request.arrival, request.prompt, request.output, *told, 0])
        self.finished += len(self.gone) + len(over)
        self.gone = []
        return ended

    # -- a run ------------------------------------------------------------------------------------------------------------

    def extend(
        self,
        numbers: NDArray[Any],
        times: NDArray[Any],
        prompts: NDArray[Any],
        outputs: NDArray[Any],
        offsets: NDArray[Any],
        ids: NDArray[Any],
    ) -> None:
        """More requests. Hashes mean nothing here."""
        del offsets, ids
        every = (one.tolist() for one in (numbers, times, prompts, outputs))
        self.ahead.extend(Arrival(*one) for one in zip(*every, strict=True))
        if self.ahead:
            self.horizon = self.ahead[-1].arrival

    def go(self, final: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """All steps that what was fed decides: rows of requests that ended, and of the series."""
        self.final = final
        self.all_steps()
        if final and self.interval_ns is not None:
            self.row(self.now)
        results, rows = self.results, self.rows
        self.results, self.rows = [], []
        np = numpy()
        return np.array(results, np.int64).reshape(-1, 9), np.array(rows, np.int64).reshape(-1, 9)

    def all_steps(self) -> None:
        while self.final or self.horizon > self.now:
            while self.interval_ns and self.sampled < self.now:
                self.arrive(self.sampled)
                self.row(self.sampled)
                self.sampled += self.interval_ns
            self.arrive(self.now)
            if self.running or self.waiting:
                self.one_step()
                continue
            self.kept_out = ""
            self.tokens = 0
            self.hold(0)
            if not self.ahead:
                return
            self.lasts(self.ahead[0].arrival)

    def arrive(self, time: int) -> None:
        while self.ahead and self.ahead[0].arrival <= time:
            self.woken = self.woken or not self.waiting
            self.waiting.appendleft(self.ahead.popleft())

    def one_step(self) -> None:
        looks = self.step >= self.until or self.woken
        changed = False
        if looks:
            self.prefilled, self.stalled, self.woken = 0, 0, False
            self.marks = []
            self.kept_out = ""
            changed = self.schedule()
            if not self.running and self.waiting and not changed:
                prompt = self.waiting[-1].prefill
                raise Refused(f"vllm: a prompt of {prompt:,} tokens is never scheduled, for {self.kept_out}")
            self.decodes = self.decoding - self.stalled
        else:
            self.prefilled, self.decodes = 0, len(self.running)
        took = self.prefilled * self.step_ns // self.prefill_tokens + (self.step_ns if self.decodes else 0)
        self.computed += self.prefilled + self.decodes
        before = self.busy
        self.busy = max(self.now, before) + (max(took, 1) if self.prefilled or self.decodes else 0)
        for request in self.marks:
            request.known = self.busy
        self.marks = []
        after = max(self.now, before) if self.lag else self.busy
        self.tokens += self.prefilled + self.decodes
        self.hold(after)
        if self.interval_ns == 0:
            self.row(self.now)
        self.lasts(after)
        if looks:
            self.ended_before = before if self.lag else self.busy
            ended = self.finish()
            self.until = self.step + 1
            if not (self.prefills or ((changed or ended) and self.waiting)):
                self.until = self.next_event(self.until)
        self.step += 1

    def hold(self, after: int) -> None:
        """The state from now on."""
        used = self.free.total - self.free.count
        back = self.back + len(self.gone)
        filled = 0
        if self.interval_ns == 0 or (self.interval_ns and -(-self.now // self.interval_ns) * self.interval_ns < after):
            filled = self.filled_bytes()
        self.state = [len(self.running), back, used, self.tokens, self.preemptions, self.finished, filled]
        most = (len(self.running), len(self.waiting) + len(self.gone), used, self.tokens)
        self.peaks = [max(pair) for pair in zip(self.peaks, most, strict=True)]

    def filled_bytes(self) -> int:
        return sum(self.filled_by(one.tokens(self.step)) for one in self.running.values() if isinstance(one, Arrival))

    def filled_by(self, context: int) -> int:
        """Bytes that the tokens and states of one request fill; each context is worked out once."""
        found = self.known_fills.get(context)
        if found is None:
            found = sum(size * int(slots(context, 1, 0)) for size, slots in self.filled)
            self.known_fills[context] = found
        return found

    def lasts(self, time: int) -> None:
        """The state lasts until then, which is now."""
        span, self.now = time - self.now, time
        running, _, used, tokens, *_ = self.state
        self.blocks_ns[used] += span
        self.running_ns[running] += span
        self.token_ns += tokens * span
        if self.kept_out:
            self.kept_ns[self.kept_out] = self.kept_ns.get(self.kept_out, 0) + span

    def row(self, time: int) -> None:
        running, back, used, tokens, preemptions, finished, filled = self.state
        waiting = len(self.waiting) - self.back
        self.rows.append([time, running, waiting, back, used, tokens, preemptions, finished, filled])

    def counts(self) -> dict[str, Any]:
        """Sums so far, by the names of Totals."""
        waiting, back = len(self.waiting) - self.back, self.back + len(self.gone)
        running, most_waiting, blocks, tokens = self.peaks
        return {
            "now_ns": self.now, "arrived": self.finished + len(self.running) + back + waiting, "waiting": waiting, "preempted": back,
            "running": len(self.running), "finished": self.finished, "preemptions": self.preemptions, "steps": self.step,
            "computed": self.computed, "hits": self.hits, "blocks": self.free.total, "peak_running": running,
            "peak_waiting": most_waiting, "peak_blocks": blocks, "peak_tokens": tokens,
            "blocks_ns": numpy().array(self.blocks_ns), "running_ns": numpy().array(self.running_ns), "token_ns": self.token_ns,
            "kept_out_ns": {name: self.kept_ns.get(name, 0) for name in REASONS},
        }  # fmt: skip
