"""vLLM's scheduler in integers: which requests run at each step, and what blocks they hold.

Rules of vLLM 0.33.0. Steps: Scheduler.schedule and AsyncScheduler (vllm/v1/core/sched), in the order of
EngineCore.step_with_batch_queue (vllm/v1/engine/core.py). Blocks: KVCacheManager.allocate_slots (vllm/v1/core/kv_cache_manager.py) and
the managers of single_type_kv_cache_manager.py. First come, first served; the default watermark of none; a request is admitted
where its whole prompt fits (scheduler_reserve_full_isl).

A request that decodes gains one token a step, and its blocks change at token counts that are known beforehand: only those
steps are looked at, beside the ones with a prefill under way or a request to admit.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import gcd, lcm

from ..base import NotDescribed, Record, Refused
from .vllm_tables import AlignedState, Chunk, Free, State, Tokens, Window, cut, valid_export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .vllm_blocks import Serving, Spec, VllmAllocator
    from .vllm_tables import Cell, Span


class Request:
    """One request. prompt: tokens asked with; prefill: tokens to compute before the next output (more after a preemption);
    left: outputs to come after that. done: tokens computed. flying: tokens of its last chunk, scheduled at step `last`.
    first: the step that finished the prefill; -1 before. hit: tokens found cached when it was let in. junction: tokens that some layers found cached and others not.
    runs: per kind of table and group, the free blocks that remember something of it."""

    __slots__ = (
        "cells", "done", "end", "first", "flying", "hit", "junction", "last", "left", "order", "prefill", "prompt", "runs", "turn"
    )  # fmt: skip

    def __init__(self, prompt: int, output: int) -> None:
        self.prompt = self.prefill = prompt
        self.left = output
        self.turn = self.junction = self.hit = 0
        self.order = -1
        self.runs: dict[tuple[int, int], list[list[int]]] = {}
        self.reset()

    @property
    def stop(self) -> int:
        """The token that its prefill ends at."""
        return max(self.prompt, self.prefill - 1)

    def reset(self) -> None:
        self.done = self.flying = 0
        self.last = self.first = self.end = -1
        self.cells: list[Cell] = []


class Run(Record):
    """What a run of the scheduler came to.

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


class Scheduler:
    """The scheduler over one pool of blocks. run() takes requests in the order of their arrival, all there at the start."""

    def __init__(self, allocator: VllmAllocator, blocks: int) -> None:
        serving = allocator.serving
        if serving is None:
            raise NotDescribed("the curve of vllm says nothing of its scheduler")
        if serving.unknown is not None:
            raise NotDescribed(f"vllm: {serving.unknown}")
        self.budget, self.most = serving.max_num_batched_tokens, serving.max_num_seqs
        self.chunked = serving.chunked
        self.lag = 1 if serving.ahead else 0
        self.longest = allocator.largest
        self.free = Free(blocks - 1)
        self.caching = serving.prefix_caching
        specs = [group.members[0][0] for group in allocator.groups]
        self.kinds = self.kinds_of(specs, serving)
        states = [spec for spec in specs if spec.cache == "state"]
        self.aligned = bool(states) and serving.prefix_caching
        self.block = min((spec.block for spec in specs), default=1)
        self.exports = states[0].export if states and all(spec.export for spec in states) else 0
        # The first to come stands last.
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Request] = {}
        self.prefills: dict[int, Request] = {}
        self.events: list[tuple[int, int, int]] = []
        self.beats = tuple({beat for kind, _ in self.kinds for beat in kind.beats})
        self.fresh: list[Request] = []
        self.ending: list[Request] = []
        self.step = self.orders = self.decoding = self.preemptions = 0
        self.kept_out = ""
        # The next order where the last one preempted ran alone.
        self.alone = -1

    def kinds_of(self, specs: list[Spec], serving: Serving) -> list[tuple[Tokens, int]]:
        """The groups by what they hold, each with how many there are."""
        sizes = [spec.block * spec.tokens for spec in specs]
        self.align = lcm(*sizes) if sizes else 1
        self.hashed = gcd(*sizes) if len(sizes) > 1 and serving.prefix_caching else self.align
        found: dict[tuple[object, ...], list[object]] = {}
        for spec in specs:
            key = (spec.cache, spec.block, spec.tokens, spec.held, spec.window, spec.export)
            if key not in found:
                found[key] = [self.kind_of(spec, serving), 0]
            found[key][1] += 1  # type: ignore[operator]
        return [(kind, number) for kind, number in found.values()]  # type: ignore[misc]

    def kind_of(self, spec: Spec, serving: Serving) -> Tokens:
        if spec.cache == "sliding":
            return Window(spec, self.lag, self.align, self.longest)
        if spec.cache == "chunked":
            return Chunk(spec, self.lag, self.align, self.longest)
        if spec.cache == "state":
            if not serving.prefix_caching:
                return State(spec, self.lag, self.align)
            if spec.block > self.hashed:
                raise NotDescribed(
                    f"vllm: states at every {spec.block} tokens beside hashes of {self.hashed}: how hits within a block are copied "
                    "is not described"
                )
            return AlignedState(spec, self.lag, self.align, self.hashed)
        return Tokens(spec, self.lag, self.align)

    # -- a run --------------------------------------------------------------------------------------------------------

    def run(self, requests: Iterable[Request]) -> Run:
        """All requests to their end."""
        self.waiting.extendleft(requests)
        peak = used = area = full_area = full_steps = 0
        bound: dict[bool, dict[str, int]] = {False: {}, True: {}}
        full = False
        while self.running or self.waiting:
            changed = self.schedule()
            count = len(self.running)
            if not count and self.waiting and not changed:
                prompt = self.waiting[-1].prefill
                raise Refused(f"vllm: a prompt of {prompt:,} tokens is never scheduled, for {self.kept_out}")
            peak, used = max(peak, count), max(used, self.free.total - self.free.count)
            ended = self.finish()
            after = self.step + 1
            if not (self.prefills or ((changed or ended) and self.waiting)):
                after = self.next_event(after)
            steps = after - self.step
            taken = count + (steps - 1) * len(self.running)
            area += taken
            full = full or ended
            if self.waiting:
                bound[full][self.kept_out] = bound[full].get(self.kept_out, 0) + steps
                if full:
                    full_area += taken
                    full_steps += steps
            self.step = after
        return Run(
            peak=peak,
            preemptions=self.preemptions,
            steps=self.step,
            blocks=used,
            area=area,
            full_area=full_area,
            full_steps=full_steps,
            bound=bound[True] or bound[False],
        )

    def next_event(self, least: int) -> int:
        while self.events:
            step, order, turn = self.events[0]
            request = self.running.get(order)
            if request is not None and request.turn == turn:
                return max(step, least)
            heappop(self.events)
        return least

    def schedule(self) -> bool:
        """One step; whether anything but one more token of each request happened."""
        step, preempted = self.step, self.preemptions
        self.decoding += len(self.fresh)
        self.fresh = []
        due: dict[int, Request] = {}
        while self.events and self.events[0][0] <= step:
            _, order, turn = heappop(self.events)
            request = self.running.get(order)
            if request is not None and request.turn == turn:
                due[order] = request
        self.ending = [request for request in due.values() if request.end == step]
        if self.lag:
            self.decoding -= len(self.ending)
        # From the first prefill on the order decides who gets what is left of the batch; before it one token each.
        first = next(iter(self.prefills), self.orders)
        tail: list[Request] = []
        for order in reversed(self.running):
            if order < first:
                break
            tail.append(self.running[order])
        budget = self.budget - self.decoding + sum(one.first >= 0 and not self.over(one) for one in tail)
        if all(self.decode(one) for order, one in due.items() if order < first and order in self.running):
            budget = self.in_order(tail[::-1], due, budget)
        if self.preemptions == preempted:
            self.admit(budget)
        else:
            self.kept_out = "blocks"
        return bool(due) or bool(tail)

    def in_order(self, tail: list[Request], due: dict[int, Request], budget: int) -> int:
        """The running requests from the first prefill on; the tokens that are left of the batch."""
        for request in tail:
            if request.order not in self.running:
                break
            if request.first < 0:
                tokens = self.split(request, min(request.prefill - request.done, budget))
                if budget and tokens:
                    if not self.chunk(request, tokens):
                        break
                    budget -= tokens
            elif not self.over(request):
                if not budget:
                    self.stall(request)
                    continue
                if request.order in due and not self.decode(request):
                    break
                budget -= 1
        return budget

    def over(self, request: Request) -> bool:
        """Whether its last token is under way, and the step schedules it no more."""
        return self.lag > 0 and request.end == self.step

    def admit(self, budget: int) -> None:
        """Takes waiting requests in, while the first of them fits."""
        while self.waiting:
            if len(self.running) >= self.most:
                self.kept_out = "max_num_seqs"
            elif budget <= 0:
                self.kept_out = "max_num_batched_tokens"
            else:
                request = self.waiting[-1]
                self.kept_out = self.enter(request, budget)
                if not self.kept_out:
                    budget -= request.flying
                    continue
            return

    def enter(self, request: Request, budget: int) -> str:
        """Admits a request with its first chunk; or why not."""
        hit = self.lookup(request) if request.runs else 0
        tokens = request.prefill - hit
        request.done = request.hit = hit
        if tokens > budget and not self.chunked:
            return "max_num_batched_tokens"
        tokens = self.split(request, min(tokens, budget))
        if not tokens:
            return "max_num_batched_tokens"
        request.cells = [kind.cell(hit) for kind, _ in self.kinds]
        found = sum(kind.held(cell) * number for kind, number, cell in self.tables(request))
        total, stop = min(request.prefill, self.longest), request.stop
        whole = sum(kind.whole(cell, hit, total, stop) * number for kind, number, cell in self.tables(request))
        if max(whole, self.needed(request, tokens)) + found > self.free.count:
            return "blocks"
        self.waiting.pop()
        request.order = self.orders
        self.orders += 1
        self.running[request.order] = self.prefills[request.order] = request
        for index, (kind, number, cell) in enumerate(self.tables(request)):
            for span in kind.spans(cell):
                for group in range(number):
                    self.free.pull(request.runs[index, group], span)
        self.free.take(self.needed(request, tokens))
        for kind, _, cell in self.tables(request):
            kind.grow(cell, hit, hit + tokens, stop)
        self.advance(request, tokens)
        return ""

    def lookup(self, request: Request) -> int:
        """Tokens of a preempted request that are still cached (HybridKVCacheCoordinator.find_longest_cache_hit)."""
        cached: list[set[int]] = []
        for index, (_, number) in enumerate(self.kinds):
            groups = [self.remembered(request, index, group) for group in range(number)]
            cached.append(set.intersection(*groups))
        order = sorted(range(len(self.kinds)), key=lambda index: type(self.kinds[index][0]) is not Tokens)
        hit, longest = request.prefill - 1, 0
        while True:
            before = hit
            for index in order:
                hit = self.kinds[index][0].found(hit, cached[index])
                longest = max(longest, hit)
            if hit >= before or (len(order) == 2 and type(self.kinds[order[0]][0]) is Tokens):
                break
        request.junction = longest if longest > hit else 0
        return hit

    def remembered(self, request: Request, index: int, group: int) -> set[int]:
        found: set[int] = set()
        for last, number, _ in request.runs.get((index, group), ()):
            found.update(range(last - number + 1, last + 1))
        return found

    def split(self, request: Request, tokens: int) -> int:
        """A chunk cut to where a state must be kept (_mamba_block_aligned_split)."""
        if not self.aligned:
            return tokens
        start, total, block, stop = request.done, request.prefill, self.block, request.stop
        if start >= stop:
            return tokens
        end = start + tokens
        last = (total - 1) // block * block
        place = (stop - 1) // self.align * self.align
        inside = self.exports > 0 and end >= stop and valid_export(start, end, place, self.hashed, block, self.exports)
        if inside:
            last = 0
        if end < stop:
            cut = end // block * block
            if cut > start or block <= self.budget:
                end = cut
        # Where other layers found more cached than the states did, a state is kept for the next one.
        junction = start + (request.junction - start) // block * block if start < request.junction < end else 0
        stops = (0 if inside or start % block == 0 else (start // block + 1) * block, last, junction)
        end = min((one for one in stops if start < one < end), default=end)
        return max(end - start, 0)

    # -- blocks of a request --------------------------------------------------------------------------------------------

    def tables(self, request: Request) -> Iterator[tuple[Tokens, int, Cell]]:
        for (kind, number), cell in zip(self.kinds, request.cells, strict=True):
            yield kind, number, cell

    def needed(self, request: Request, tokens: int) -> int:
        start, end, stop = request.done, request.done + tokens, request.stop
        return sum(kind.need(cell, start, end, stop) * number for kind, number, cell in self.tables(request))

    def give(self, request: Request, index: int, spans: list[Span], owned: bool) -> None:
        """Blocks of a request to the queue, each group's last block first; the ones with a hash can be found again."""
        kind, number = self.kinds[index]
        if not self.caching:
            self.free.give(sum(end - first for first, end in spans) * number)
            return
        kept = kind.kept(self.cached(request, not owned), (request.prompt - 1, request.junction, request.hit))
        for group in range(number):
            for span in spans:
                parts, plain = cut(span, kept)
                self.free.give(plain)
                for part in parts:
                    run = self.free.keep(part, owned)
                    if run is not None:
                        request.runs.setdefault((index, group), []).append(run)

    def cached(self, request: Request, over: bool) -> int:
        """Tokens whose blocks have hashes: processed ones, and all of a prefill; over: the last token came, and all are."""
        if over:
            return request.prefill + request.left - 1
        if request.first < 0:
            return request.done
        return request.prefill + max(self.step - request.first - 1 - self.lag, 0)

    def allocate(self, request: Request, tokens: int, flying: int) -> bool:
        """Blocks for the next tokens of a running request, preempting the last ones; False if it had to go itself."""
        done, free, cells = request.done, self.free, request.cells
        processed, end, stop = max(0, done - flying), done + tokens, request.stop
        while True:
            wanted = 0
            for index, (kind, number) in enumerate(self.kinds):
                spans = kind.release(cells[index], processed)
                if spans:
                    self.give(request, index, spans, owned=True)
                wanted += kind.need(cells[index], done, end, stop) * number
            if wanted <= free.count:
                for index, (kind, _) in enumerate(self.kinds):
                    kind.grow(cells[index], done, end, stop)
                free.take(wanted)
                return True
            victim = self.running[next(reversed(self.running))]
            self.preempt(victim)
            if victim is request:
                return False

    def preempt(self, request: Request) -> None:
        """Back to the front of the queue; what is under way is still delivered (_preempt_request)."""
        if len(self.running) == 1 and request.order == self.alone:
            raise Refused(f"vllm: a request of {request.prompt:,} tokens alone does not fit, and is preempted for ever")
        self.alone = self.orders if len(self.running) == 1 else -1
        self.drop(request, owned=True)
        self.preemptions += 1
        if request.first >= 0:
            if not self.over(request):
                self.decoding -= 1
            given = self.step - request.first
            request.prefill += given
            request.left -= given
        request.reset()
        if request.left:
            self.waiting.append(request)

    def drop(self, request: Request, owned: bool) -> None:
        for index, (kind, _, cell) in enumerate(self.tables(request)):
            self.give(request, index, kind.spans(cell)[::-1], owned)
        del self.running[request.order]
        self.prefills.pop(request.order, None)
        request.turn += 1

    # -- tokens of a request --------------------------------------------------------------------------------------------

    def chunk(self, request: Request, tokens: int) -> bool:
        """A further chunk of a prefill."""
        if not self.allocate(request, tokens, request.flying if self.lag and request.last == self.step - 1 else 0):
            return False
        self.advance(request, tokens)
        return True

    def advance(self, request: Request, tokens: int) -> None:
        request.done += tokens
        request.flying, request.last = tokens, self.step
        if request.done < request.prefill:
            return
        del self.prefills[request.order]
        request.first = self.step
        request.end = self.step + request.left - 1 + self.lag
        if request.end > self.step:
            self.fresh.append(request)
            heappush(self.events, (self.step + 1, request.order, request.turn))
        else:
            self.ending.append(request)

    def decode(self, request: Request) -> bool:
        """A step of decoding at which blocks may change; the next such step is noted. False if it was preempted itself."""
        if self.over(request):
            return True
        request.done = request.prefill + self.step - request.first - 1
        if request.last < self.step - 1 or not self.lag:
            flying = self.lag if request.last != -2 else 0
        else:
            flying = request.flying
        request.last = 0
        if not self.allocate(request, 1, flying):
            return False
        done = request.done
        after = (
            1
            if done < request.prefill + 1
            else min(((rest - done - 1) % period + 1 for rest, period in self.beats), default=request.end)
        )
        heappush(self.events, (min(self.step + after, request.end), request.order, request.turn))
        return True

    def stall(self, request: Request) -> None:
        """A step that has no token left for a request that decodes."""
        request.first += 1
        request.end += 1
        request.turn += 1
        request.last = -2
        heappush(self.events, (self.step + 1, request.order, request.turn))

    def finish(self) -> bool:
        """Requests whose last token came; whether there were any."""
        ended = False
        for request in self.ending:
            if self.running.get(request.order) is request and request.end == self.step:
                if not self.lag and request.first < self.step:
                    self.decoding -= 1
                self.drop(request, owned=False)
                ended = True
        self.ending = []
        return ended
