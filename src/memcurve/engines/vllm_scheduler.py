"""vLLM's scheduler in integers: which requests run at each step, and what blocks they hold.

Rules of vLLM 0.33.0. Steps: Scheduler.schedule and AsyncScheduler (vllm/v1/core/sched), in the order of
EngineCore.step_with_batch_queue (vllm/v1/engine/core.py). Blocks: KVCacheManager.allocate_slots (vllm/v1/core/kv_cache_manager.py) and
the managers of single_type_kv_cache_manager.py. First come, first served; the default watermark of none; a request is admitted
where its whole prompt fits (scheduler_reserve_full_isl).

A request that decodes gains one token a step, and its blocks change at token counts that are known beforehand: only those
steps are looked at, beside the ones with a prefill under way or a request to admit.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import gcd, lcm

from ..base import NotDescribed, Record, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .vllm_blocks import Serving, Spec, VllmAllocator

    Cell = list[int]


class Tokens:
    """Blocks for every token (FullAttentionManager), or for those that a window still sees.

    A request's cell: [blocks of its table, how many of them in front are given back]. beats: (remainder, period) of the token
    counts at which the blocks of a request that decodes change.
    """

    def __init__(self, spec: Spec, lag: int) -> None:
        self.block = spec.block * spec.tokens
        self.beats: tuple[tuple[int, int], ...] = ((0, self.block),)

    def skipped(self, processed: int) -> int:
        """Tokens that no later one looks at (get_num_skipped_tokens)."""
        return 0

    def cell(self) -> Cell:
        return [0, 0]

    def held(self, cell: Cell) -> int:
        return cell[0] - cell[1]

    def release(self, cell: Cell, processed: int) -> int:
        """Gives back the blocks that are out of sight once so many tokens are processed; how many (remove_skipped_blocks)."""
        first = min(self.skipped(processed) // self.block, cell[0])
        if first <= cell[1]:
            return 0
        freed = first - cell[1]
        cell[1] = first
        return freed

    def whole(self, tokens: int) -> int:
        """Blocks that must be free to admit a prompt of so many tokens."""
        return -(-tokens // self.block)

    def need(self, cell: Cell, start: int, end: int, stop: int) -> int:
        return max(-(-end // self.block) - cell[0], 0)

    def grow(self, cell: Cell, start: int, end: int, stop: int) -> None:
        cell[0] = max(cell[0], -(-end // self.block))


class Window(Tokens):
    """SlidingWindowManager. Admission counts no more blocks than a request ever holds (max_admission_blocks_per_request)."""

    def __init__(self, spec: Spec, lag: int, longest: int) -> None:
        super().__init__(spec, lag)
        self.window = spec.window
        self.most = -(-min(spec.held, longest) // self.block) + 1
        self.beats += (((spec.window - 1 + lag) % self.block, self.block),)

    def skipped(self, processed: int) -> int:
        return max(0, processed - self.window + 1)

    def whole(self, tokens: int) -> int:
        return min(super().whole(tokens), self.most)


class Chunk(Tokens):
    """ChunkedLocalAttentionManager."""

    def __init__(self, spec: Spec, lag: int, longest: int) -> None:
        super().__init__(spec, lag)
        self.window = spec.window
        self.most = -(-min(spec.held, longest) // self.block)
        self.beats += ((lag % spec.window, spec.window),)

    def skipped(self, processed: int) -> int:
        return processed // self.window * self.window

    def whole(self, tokens: int) -> int:
        return min(super().whole(tokens), self.most)


class State(Tokens):
    """One state for the whole request (MambaManager without prefix caching)."""

    def __init__(self, spec: Spec, lag: int) -> None:
        super().__init__(spec, lag)
        self.beats = ()

    def whole(self, tokens: int) -> int:
        return 1

    def need(self, cell: Cell, start: int, end: int, stop: int) -> int:
        return 1 - cell[0]

    def grow(self, cell: Cell, start: int, end: int, stop: int) -> None:
        cell[0] = 1


class AlignedState(Tokens):
    """A state at each end of a block, of which the last one or two are kept (MambaManager in mode "align").

    A request's cell: [blocks of its table, blocks in front that are looked through, the block of the state before or -1,
    whether it has run, then the blocks that hold a state].
    """

    def __init__(self, spec: Spec, lag: int, align: int, hashed: int) -> None:
        super().__init__(spec, lag)
        self.export = spec.export
        self.align = align
        self.hashed = hashed
        self.beats += (((1 + lag) % self.block, self.block),)

    def cell(self) -> Cell:
        return [0, 0, -1, 0]

    def held(self, cell: Cell) -> int:
        return len(cell) - 4

    def release(self, cell: Cell, processed: int) -> int:
        before = len(cell)
        if processed > 1:
            first = min((processed - 1) // self.block, cell[0])
            if first > cell[1]:
                cell[4:] = [one for one in cell[4:] if one >= first]
                cell[1] = first
        if 0 <= cell[2] < -(-processed // self.block) - 1 and cell[2] in cell[4:]:
            cell.pop(cell.index(cell[2], 4))
        return before - len(cell)

    def exports(self, cell: Cell, start: int, end: int, stop: int) -> bool:
        """Whether the chunk hands out a state on its way (_needs_internal_checkpoint)."""
        place = (end - 1) // self.align * self.align
        index = -(-end // self.block) - 2
        return (
            self.export > 0
            and end >= stop
            and valid_export(start, end, place, self.hashed, self.block, self.export)
            and index >= 0
            and (index >= cell[0] or index not in cell[4:])
        )

    def whole(self, tokens: int) -> int:
        return self.need(self.cell(), 0, tokens, 0)

    def need(self, cell: Cell, start: int, end: int, stop: int) -> int:
        return min(-(-end // self.block) - cell[0], 1 + self.exports(cell, start, end, stop))

    def grow(self, cell: Cell, start: int, end: int, stop: int) -> None:
        blocks, before = -(-end // self.block), cell[0]
        exports = self.exports(cell, start, end, stop)
        if blocks > before or exports:
            if before:
                cell[2] = before - 1
            first = max(before, blocks - 1 - exports)
            cell += range(first, blocks)
            cell[0] = max(blocks, before)
        cell[3] = 1


def valid_export(start: int, end: int, place: int, hashed: int, block: int, export: int) -> bool:
    """Whether a chunk can hand out the state at `place` (is_mamba_prefill_checkpoint_valid, vllm/v1/kv_cache_interface.py)."""
    return (
        start % hashed == 0
        and -(-end // block) - 2 > (start - 1) // block
        and start + hashed <= place
        and start < place < end
        and (place - start) % export == 0
    )


class Request:
    """One request. prompt: tokens asked with; prefill: tokens to compute before the next output (more after a preemption);
    left: outputs to come after that. done: tokens computed. flying: tokens of its last chunk, scheduled at step `last`.
    first: the step that finished the prefill; -1 before."""

    __slots__ = ("cells", "done", "end", "first", "flying", "last", "left", "order", "prefill", "prompt", "turn")

    def __init__(self, prompt: int, output: int) -> None:
        self.prompt = self.prefill = prompt
        self.left = output
        self.turn = 0
        self.order = -1
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
        self.free = self.total = blocks - 1
        specs = [group.members[0][0] for group in allocator.groups]
        self.kinds = self.kinds_of(specs, serving)
        states = [spec for spec in specs if spec.cache == "state"]
        self.aligned = bool(states) and serving.prefix_caching
        self.block = min((spec.block for spec in specs), default=1)
        self.exports = states[0].export if states and all(spec.export for spec in states) else 0
        self.waiting: list[Request] = []
        self.running: dict[int, Request] = {}
        self.prefills: dict[int, Request] = {}
        self.events: list[tuple[int, int, int]] = []
        self.beats = tuple({beat for kind, _ in self.kinds for beat in kind.beats})
        self.fresh: list[Request] = []
        self.ending: list[Request] = []
        self.step = self.orders = self.decoding = self.preemptions = 0
        self.kept_out = ""

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
            return Window(spec, self.lag, self.longest)
        if spec.cache == "chunked":
            return Chunk(spec, self.lag, self.longest)
        if spec.cache == "state":
            if not serving.prefix_caching:
                return State(spec, self.lag)
            if spec.block > self.hashed:
                raise NotDescribed(
                    f"vllm: states at every {spec.block} tokens beside hashes of {self.hashed}: how hits within a block are copied "
                    "is not described"
                )
            return AlignedState(spec, self.lag, self.align, self.hashed)
        return Tokens(spec, self.lag)

    # -- a run --------------------------------------------------------------------------------------------------------

    def run(self, requests: Iterable[Request]) -> Run:
        """All requests to their end."""
        self.waiting = list(requests)[::-1]
        peak = used = area = full_area = full_steps = 0
        bound: dict[bool, dict[str, int]] = {False: {}, True: {}}
        full = False
        while self.running or self.waiting:
            changed = self.schedule()
            count = len(self.running)
            peak, used = max(peak, count), max(used, self.total - self.free)
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
        tokens = request.prefill
        if tokens > budget and not self.chunked:
            return "max_num_batched_tokens"
        tokens = self.split(request, min(tokens, budget))
        if not tokens:
            return "max_num_batched_tokens"
        request.cells = [kind.cell() for kind, _ in self.kinds]
        whole = sum(kind.whole(min(request.prefill, self.longest)) * number for kind, number in self.kinds)
        if whole > self.free or self.needed(request, tokens) > self.free:
            return "blocks"
        self.waiting.pop()
        request.order = self.orders
        self.orders += 1
        self.running[request.order] = self.prefills[request.order] = request
        self.take(request, tokens)
        self.advance(request, tokens)
        return ""

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
        stops = (0 if inside or start % block == 0 else (start // block + 1) * block, last)
        end = min((one for one in stops if start < one < end), default=end)
        return max(end - start, 0)

    # -- blocks of a request --------------------------------------------------------------------------------------------

    def needed(self, request: Request, tokens: int) -> int:
        start, end, stop = request.done, request.done + tokens, request.stop
        return sum(
            kind.need(cell, start, end, stop) * number
            for (kind, number), cell in zip(self.kinds, request.cells, strict=True)
        )

    def take(self, request: Request, tokens: int) -> None:
        start, end, stop = request.done, request.done + tokens, request.stop
        for (kind, number), cell in zip(self.kinds, request.cells, strict=True):
            before = kind.held(cell)
            kind.grow(cell, start, end, stop)
            self.free -= (kind.held(cell) - before) * number

    def allocate(self, request: Request, tokens: int, flying: int) -> bool:
        """Blocks for the next tokens of a running request, preempting the last ones; False if it had to go itself."""
        processed = max(0, request.done - flying)
        while True:
            for (kind, number), cell in zip(self.kinds, request.cells, strict=True):
                self.free += kind.release(cell, processed) * number
            if self.needed(request, tokens) <= self.free:
                self.take(request, tokens)
                return True
            victim = self.running[next(reversed(self.running))]
            self.preempt(victim)
            if victim is request:
                return False

    def preempt(self, request: Request) -> None:
        """Back to the front of the queue; what is under way is still delivered (_preempt_request)."""
        if len(self.running) == 1 and request.first < 0 and request.done == 0:
            raise Refused("vllm: one request alone does not fit, and would be preempted for ever")
        self.drop(request)
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

    def drop(self, request: Request) -> None:
        for (kind, number), cell in zip(self.kinds, request.cells, strict=True):
            self.free += kind.held(cell) * number
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
                self.drop(request)
                ended = True
        self.ending = []
        return ended
