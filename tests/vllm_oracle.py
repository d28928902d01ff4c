"""vLLM 0.33.0's scheduler and its blocks, said as plainly as can be: every token of every request, blocks as objects, what a block
holds as (group, tuple of all tokens up to its end). Quadratic, and for small runs only.

From vllm/v1/core: sched/scheduler.py, kv_cache_manager.py, kv_cache_coordinator.py, single_type_kv_cache_manager.py, block_pool.py.
Groups keep all tokens, a window, a chunk, or a state; cached prefixes are kept with prefix_cache_retention_interval 0. Left out:
drafts, connectors, hits inside a block, states handed out within a chunk, decode context parallelism.
"""

from __future__ import annotations

from math import lcm
from typing import NamedTuple


class Asked(NamedTuple):
    arrival: int
    prompt: list[int]
    output: int


class Group(NamedTuple):
    """Layers with one block table. kind: "full", "window", "chunk" or "state". block: tokens of one. span: tokens of a window, or of
    a chunk of whole blocks. most: blocks that an admission counts at most, 0 for any number."""

    kind: str
    block: int
    span: int = 0
    most: int = 0

    def unneeded(self, computed: int) -> int:
        """Tokens at the start that no further token needs (get_num_skipped_tokens)."""
        if self.kind == "window":
            return max(0, computed - self.span + 1)
        if self.kind == "chunk":
            return computed // self.span * self.span
        return max(0, computed - 1) if self.kind == "state" else 0

    def tail(self, end: int) -> int:
        """The first of the blocks before `end` (a block's number) that going on from there needs: of all kinds but a chunk."""
        return max(0, end - {"full": end, "window": ceil(self.span - 1, self.block), "state": 1}[self.kind])


class Rules(NamedTuple):
    """Of the pool and the scheduler; block: tokens of one, where no groups are given, for one group that keeps all tokens."""

    blocks: int
    block: int
    budget: int
    most: int
    caching: bool
    ahead: bool
    step_ns: int
    prefill_tokens: int
    groups: tuple[Group, ...] = ()


class Block:
    holds: Holds | None = None
    users = 0


Holds = tuple[int, tuple[int, ...]]
# None: a block that is no longer there, or never was (null_block).
Table = list[Block | None]


def ceil(tokens: int, block: int) -> int:
    return -(-tokens // block)


class Request:
    def __init__(self, number: int, asked: Asked, groups: int) -> None:
        self.number, self.asked, self.groups = number, asked, groups
        self.tokens = list(asked.prompt)
        self.computed = self.placeholders = self.in_flight = self.stale = self.junction = 0
        self.decoding = False
        self.admitted = self.first = self.end = -1
        self.preemptions = self.hit = 0
        self.clear()

    def clear(self) -> None:
        """Nothing held. cached: blocks of each table that have been through the cache."""
        self.tables: list[Table] = [[] for _ in range(self.groups)]
        self.cached = [0] * self.groups

    @property
    def outputs(self) -> int:
        return len(self.tokens) - len(self.asked.prompt)


class Oracle:
    """run() gives a row per step [time, running, waiting, blocks in use, tokens, preemptions, finished], and the requests. Tokens are
    those in the blocks where one group keeps all tokens, otherwise those computed of the requests that run."""

    def __init__(self, rules: Rules, asked: list[Asked]) -> None:
        self.rules = rules
        self.groups = rules.groups or (Group("full", rules.block),)
        # scheduler_block_size; requests are found and kept in steps of it.
        self.align = lcm(*(group.block for group in self.groups))
        self.requests = [Request(number, one, len(self.groups)) for number, one in enumerate(asked)]
        self.free = [Block() for _ in range(rules.blocks)]
        self.known: dict[Holds, list[Block]] = {}
        # What states hold since this step only (cached_blocks_this_step).
        self.fresh: set[Holds | None] = set()
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

    def give_back(self, blocks: Table) -> None:
        gone = []
        for block in blocks:
            if block:
                block.users -= 1
                if not block.users:
                    gone.append(block)
        self.free = (
            [one for one in gone if one.holds is None] + self.free + [one for one in gone if one.holds is not None]
        )

    def release(self, request: Request) -> None:
        for table in request.tables:
            self.give_back(table[::-1])
        request.clear()

    def drop(self, request: Request, done: int) -> None:
        """What the `done` tokens that are computed for certain leave behind (remove_skipped_blocks). Without drafts, last_state_block_idx
        of a state is among it."""
        for group, table in zip(self.groups, request.tables, strict=True):
            passed = min(group.unneeded(done) // group.block, len(table))
            self.give_back(table[:passed][::-1])
            table[:passed] = [None] * passed

    def cache(self, request: Request, tokens: int) -> None:
        if not self.rules.caching:
            return
        tokens = min(tokens, len(request.tokens)) // self.align * self.align
        # Where a later request goes on: of the same prompt, and of one that has less in common with it.
        ends = [end // self.align * self.align for end in (len(request.asked.prompt) - 1, request.junction)]
        for number, (group, table) in enumerate(zip(self.groups, request.tables, strict=True)):
            every = group.kind in ("full", "chunk")
            for index in range(request.cached[number], tokens // group.block):
                block = table[index]
                kept = every or any(group.tail(end // group.block) <= index < end // group.block for end in ends)
                if block and kept:
                    block.holds = (number, tuple(request.tokens[: (index + 1) * group.block]))
                    self.known.setdefault(block.holds, []).append(block)
                    if group.kind == "state":
                        self.fresh.add(block.holds)
                request.cached[number] = index + 1

    # -- prefixes ---------------------------------------------------------------------------------------------------------

    def longest(self, group: Group, request: Request, most: int) -> tuple[int, dict[int, Table]]:
        """Tokens of the longest prefix, of at most `most`, that all groups like this one can go on from, and their tables for it."""
        members = [number for number, one in enumerate(self.groups) if one == group]
        rows: list[Table] = []
        for index in range(most // group.block):
            keys = [(number, tuple(request.tokens[: (index + 1) * group.block])) for number in members]
            rows.append([self.known[key][0] for key in keys if self.known.get(key)])
        length = most // self.align * self.align
        while True:
            end = length // group.block
            # What a chunk needs is asked for `most` alone, and then cut short.
            first = most // group.span * group.span // group.block if group.kind == "chunk" else group.tail(end)
            if all(len(row) == len(members) for row in rows[first:end]):
                # With none before the first; of no tokens at all, nothing is needed.
                table = [[None] * len(members)] * first + rows[first:end]
                return length, {number: [row[at] for row in table] for at, number in enumerate(members)}
            length -= self.align

    def lookup(self, request: Request) -> tuple[int, list[Table]]:
        """Tokens found and the table of each group; request.junction is how far one kind of group has more (find_longest_cache_hit)."""
        found: list[Table] = [[] for _ in self.groups]
        if not self.rules.caching:
            return 0, found
        kinds = sorted(dict.fromkeys(self.groups), key=lambda group: group.kind != "full")
        hit, most, furthest = -1, len(request.tokens) - 1, 0
        while hit != most:
            hit = most
            for kind in kinds:
                most, tables = self.longest(kind, request, most)
                for number, table in tables.items():
                    found[number] = table
                furthest = max(furthest, most)
        request.junction = furthest if furthest > hit else 0
        return hit, found

    # -- slots ------------------------------------------------------------------------------------------------------------

    def need(self, request: Request, tokens: int, hit: int, found: list[Table], whole: bool = False) -> int:
        """Blocks to take for `tokens` in all, with those found that nobody uses (get_num_blocks_to_allocate)."""
        total = 0
        for group, table, more in zip(self.groups, request.tables, found, strict=True):
            blocks, skipped = ceil(tokens, group.block), 0
            if self.aligned(group):
                if more and more[-1] and more[-1].holds in self.fresh:
                    return len(self.free) + 1
                # One is written; those that a long chunk passes over are never there.
                total += min(blocks - len(table) - len(more), 1)
            else:
                skipped = group.unneeded(request.computed + hit) // group.block
                if whole and group.most:
                    blocks = min(blocks, group.most)
                total += max(0, blocks - max(skipped, len(table) + len(more)))
            total += sum(block is not None and not block.users for block in more[skipped:])
        return total

    def aligned(self, group: Group) -> bool:
        """Whether a group's states are kept at the end of blocks (mamba_cache_mode "align")."""
        return group.kind == "state" and self.rules.caching

    def allocate(self, request: Request, tokens: int, hit: int, found: list[Table], admits: bool = False) -> bool:
        """Whether there is room for `tokens` more, after `hit` that were found (allocate_slots)."""
        if admits and self.need(request, len(request.tokens), hit, found, whole=True) > len(self.free):
            return False
        computed = request.computed + hit
        self.drop(request, max(0, computed - request.in_flight))
        if self.need(request, computed + tokens, hit, found) > len(self.free):
            return False
        for index, (group, more) in enumerate(zip(self.groups, found, strict=True)):
            skipped = group.unneeded(hit) // group.block
            for block in more[skipped:]:
                if block:
                    self.free = [one for one in self.free if one is not block]
                    block.users += 1
            if hit:
                request.tables[index] += [None] * skipped + more[skipped:]
                request.cached[index] = len(request.tables[index])
        for group, table in zip(self.groups, request.tables, strict=True):
            new = max(0, ceil(computed + tokens, group.block) - len(table))
            passed = new - 1 if new and self.aligned(group) else 0
            table += [None] * passed
            table += self.take(new - passed)
        self.cache(request, computed + tokens)
        return True

    # -- a step -----------------------------------------------------------------------------------------------------------

    def split(self, request: Request, hit: int, tokens: int) -> int:
        """Tokens of a chunk that ends where states can be kept (_mamba_block_aligned_split)."""
        start, size = request.computed + hit, self.align
        end, prefill_end = start + tokens, max(len(request.asked.prompt), len(request.tokens) - 1)
        if not any(self.aligned(group) for group in self.groups) or start >= prefill_end:
            return tokens
        if end < prefill_end and (end // size * size > start or size <= self.rules.budget):
            end = end // size * size
        stops = [(len(request.tokens) - 1) // size * size]
        if start % size:
            stops.append((start // size + 1) * size)
        if start < request.junction < end:
            stops.append(start + (request.junction - start) // size * size)
        return max(0, min([end] + [one for one in stops if start < one < end]) - start)

    def schedule(self) -> dict[Request, int]:
        """Tokens of each request in the batch."""
        budget = self.rules.budget
        nothing: list[Table] = [[] for _ in self.groups]
        batch: dict[Request, int] = {}
        self.fresh = set()
        preempted = False
        index = 0
        while index < len(self.running) and budget:
            request = self.running[index]
            total = len(request.asked.prompt) + request.asked.output
            tokens = min(len(request.tokens) + request.placeholders - request.computed, budget)
            tokens = self.split(request, 0, tokens)
            if not tokens or (request.placeholders and request.computed + 2 - request.placeholders >= total):
                index += 1
                continue
            while request in self.running and not self.allocate(request, tokens, 0, nothing):
                self.preempt(self.running.pop())
                preempted = True
            if request not in self.running:
                break
            batch[request] = tokens
            budget -= tokens
            index += 1
        while not preempted and self.waiting and budget and len(self.running) < self.rules.most:
            request = self.waiting[0]
            hit, found = self.lookup(request)
            tokens = self.split(request, hit, min(len(request.tokens) - hit, budget))
            if not tokens or not self.allocate(request, tokens, hit, found, admits=True):
                break
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
                held = sum(one.computed for one in self.running)
                if not self.rules.groups:
                    # One of a shared block once: all in the blocks, but for what is left of each request's last.
                    room = sum(len(one.tables[0]) for one in self.running)
                    held += (used - room) * self.rules.block
                rows.append(
                    [self.now, len(self.running), len(self.waiting), used, held, self.preemptions, self.finished]
                )
                queue.append((batch, gives, busy))
                if self.rules.ahead and len(queue) == 1:
                    continue
            batch, gives, over = queue.pop(0)
            self.now = max(self.now, over)
            self.update(batch, gives)
        return rows
