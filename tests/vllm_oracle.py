"""vLLM 0.33.0's scheduler over one group of full attention, said as plainly as can be: every token of every request, blocks as objects,
what a block holds as the tuple of all tokens up to its end. Quadratic, and for small runs only."""

from __future__ import annotations

from typing import NamedTuple


class Asked(NamedTuple):
    arrival: int
    prompt: list[int]
    output: int


class Rules(NamedTuple):
    """Of the pool and the scheduler; block: tokens of one."""

    blocks: int
    block: int
    budget: int
    most: int
    caching: bool
    ahead: bool
    step_ns: int
    prefill_tokens: int


class Block:
    holds: tuple[int, ...] | None = None
    users = 0


class Request:
    def __init__(self, number: int, asked: Asked) -> None:
        self.number, self.asked = number, asked
        self.tokens = list(asked.prompt)
        self.computed = self.placeholders = self.in_flight = self.stale = self.cached = 0
        self.decoding = False
        self.table: list[Block] = []
        self.admitted = self.first = self.end = -1
        self.preemptions = self.hit = 0

    @property
    def outputs(self) -> int:
        return len(self.tokens) - len(self.asked.prompt)


class Oracle:
    """run() gives a row per step [time, running, waiting, blocks in use, tokens in them, preemptions, finished], and the requests."""

    def __init__(self, rules: Rules, asked: list[Asked]) -> None:
        self.rules = rules
        self.requests = [Request(number, one) for number, one in enumerate(asked)]
        self.free = [Block() for _ in range(rules.blocks)]
        self.known: dict[tuple[int, ...], list[Block]] = {}
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.preemptions = self.finished = 0

    # -- blocks -----------------------------------------------------------------------------------------------------------

    def take(self, number: int) -> list[Block]:
        taken, self.free = self.free[:number], self.free[number:]
        for block in taken:
            if block.holds is not None:
                self.known[block.holds].remove(block)
                block.holds = None
            block.users = 1
        return taken

    def release(self, request: Request) -> None:
        gone = []
        for block in reversed(request.table):
            block.users -= 1
            if not block.users:
                gone.append(block)
        self.free = (
            [one for one in gone if one.holds is None] + self.free + [one for one in gone if one.holds is not None]
        )
        request.table, request.cached = [], 0

    def cache(self, request: Request, tokens: int) -> None:
        if not self.rules.caching:
            return
        for index in range(request.cached, min(tokens, len(request.tokens)) // self.rules.block):
            holds = tuple(request.tokens[: (index + 1) * self.rules.block])
            request.table[index].holds = holds
            self.known.setdefault(holds, []).append(request.table[index])
            request.cached = index + 1

    def lookup(self, request: Request) -> list[Block]:
        found: list[Block] = []
        size = self.rules.block
        while self.rules.caching and (len(found) + 1) * size <= len(request.tokens) - 1:
            blocks = self.known.get(tuple(request.tokens[: (len(found) + 1) * size]))
            if not blocks:
                break
            found.append(blocks[0])
        return found

    # -- a step -----------------------------------------------------------------------------------------------------------

    def schedule(self) -> dict[Request, int]:
        """Tokens of each request in the batch."""
        size, budget = self.rules.block, self.rules.budget
        batch: dict[Request, int] = {}
        preempted = False
        index = 0
        while index < len(self.running) and budget:
            request = self.running[index]
            total = len(request.asked.prompt) + request.asked.output
            if request.placeholders and request.computed + 2 - request.placeholders >= total:
                index += 1
                continue
            tokens = min(len(request.tokens) + request.placeholders - request.computed, budget)
            need = -(-(request.computed + tokens) // size) - len(request.table)
            while need > len(self.free) and request in self.running:
                self.preempt(self.running.pop())
                preempted = True
            if request not in self.running:
                break
            request.table += self.take(max(need, 0))
            self.cache(request, request.computed + tokens)
            batch[request] = tokens
            budget -= tokens
            index += 1
        while not preempted and self.waiting and budget and len(self.running) < self.rules.most:
            request = self.waiting[0]
            found = self.lookup(request)
            hit = len(found) * size
            tokens = min(len(request.tokens) - hit, budget)
            asleep = [block for block in found if not block.users]
            if -(-len(request.tokens) // size) - len(found) + len(asleep) > len(self.free):
                break
            for block in found:
                block.users += 1
            self.free = [block for block in self.free if block not in asleep]
            request.table = found + self.take(-(-(hit + tokens) // size) - len(found))
            request.cached = len(found)
            self.cache(request, hit + tokens)
            request.computed = hit
            if request.admitted < 0:
                request.admitted, request.hit = self.now, hit
            self.running.append(self.waiting.pop(0))
            batch[request] = tokens
            budget -= tokens
        for request, tokens in batch.items():
            request.computed += tokens
            request.in_flight += tokens
        return batch

    def preempt(self, request: Request) -> None:
        self.release(request)
        request.stale = request.in_flight
        request.computed = request.placeholders = 0
        request.decoding = False
        request.preemptions += 1
        self.preemptions += 1
        self.waiting.insert(0, request)

    def update(self, batch: dict[Request, int], gives: set[Request]) -> None:
        """The batch is done."""
        for request, tokens in batch.items():
            request.in_flight -= tokens
            stale = request.stale > 0
            request.stale -= tokens if stale else 0
            if request not in gives:
                continue
            request.tokens.append(-1 - request.number)
            held = request.placeholders > 0
            if not stale:
                request.placeholders -= held
            if request.first < 0:
                request.first = self.now
            if held and not stale:
                self.cache(request, request.computed - request.in_flight)
            if request.outputs == request.asked.output:
                request.end = self.now
                self.finished += 1
                (self.waiting if stale else self.running).remove(request)
                self.release(request)

    # -- a run ------------------------------------------------------------------------------------------------------------

    def run(self) -> list[list[int]]:
        self.now = busy = 0
        ahead = list(self.requests)
        rows = []
        queue: list[tuple[dict[Request, int], set[Request], int]] = []
        while ahead or self.waiting or self.running or queue:
            if not (self.waiting or self.running or queue):
                self.now = max(self.now, ahead[0].asked.arrival)
            while ahead and ahead[0].asked.arrival <= self.now:
                self.waiting.append(ahead.pop(0))
            if self.waiting or self.running:
                batch = self.schedule()
                prefills = sum(tokens for request, tokens in batch.items() if not request.decoding)
                decodes = any(request.decoding for request in batch)
                took = prefills * self.rules.step_ns // self.rules.prefill_tokens + decodes * self.rules.step_ns
                busy = max(busy, self.now) + (max(took, 1) if batch else 0)
                gives = {one for one in batch if one.computed >= len(one.tokens) + one.placeholders}
                for request in gives:
                    request.decoding = True
                    request.placeholders += self.rules.ahead
                used = self.rules.blocks - len(self.free)
                spare = sum(len(one.table) * self.rules.block - one.computed for one in self.running)
                tokens_held = used * self.rules.block - spare
                rows.append(
                    [self.now, len(self.running), len(self.waiting), used, tokens_held, self.preemptions, self.finished]
                )
                queue.append((batch, gives, busy))
                if self.rules.ahead and len(queue) == 1:
                    continue
            batch, gives, over = queue.pop(0)
            self.now = max(self.now, over)
            self.update(batch, gives)
        return rows
