"""SGLang's scheduler in integers: which requests run at each batch, and how many tokens of the pool they hold.

Rules of SGLang 0.5.23, under sglang/srt: Scheduler.get_next_batch_to_run, _get_new_batch_prefill_raw and update_running_batch
(managers/scheduler.py), PrefillAdder (managers/schedule_policy.py), PrefillBudget (mem_cache/prefill_budget.py),
ScheduleBatch.retract_decode (managers/schedule_batch.py), NewTokenRatioTracker. With its defaults: first come, first served;
schedule_conservativeness 1.0; prefills before decodes, never in one batch.

A prompt is let in where it fits beside what the running requests are expected to take yet: their outputs to come (4,096 at most) times a
ratio that begins at 0.7 and falls with every decode to 0.098, and is set anew when requests are retracted. Requests end by their
length: no stop token is left out of account (ignore_eos is off). Prompts share nothing, so the radix cache only keeps what
is evicted when it is needed, and a retracted request is taken to compute its prompt again.
"""

from __future__ import annotations

from collections import deque

from ..base import Record, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# environ.py: SGLANG_INIT_NEW_TOKEN_RATIO, …_MIN_NEW_TOKEN_RATIO_FACTOR, …_NEW_TOKEN_RATIO_DECAY_STEPS, …_RETRACT_DECODE_STEPS,
# …_CLIP_MAX_NEW_TOKENS_ESTIMATION
FIRST_RATIO, LEAST_FACTOR, DECAY_STEPS, RETRACT_STEPS, CLIP = 0.7, 0.14, 600, 20, 4096
# max_prefill_tokens (arg_groups/fields/schedule.py)
MAX_PREFILL_TOKENS = 16384


class Request:
    """prompt, output: tokens asked. launched: outputs whose batch is under way or done, seen: whose results are in. fill: tokens to
    compute before the next output; held: tokens with a place in the pool."""

    __slots__ = ("fill", "held", "launched", "output", "prompt", "seen")

    def __init__(self, prompt: int, output: int) -> None:
        self.prompt, self.output = prompt, output
        self.launched = self.seen = self.held = 0
        self.fill = prompt


class Batch(Record):
    """A batch that was launched; part: the request of a prefill whose prompt goes on in the next."""

    prefill: bool
    requests: list[Request]
    part: Request | None = None


class Run(Record):
    """What a run came to. peak: the most requests at once that hold tokens; preemptions: retractions; steps: batches; tokens: the most
    in use, in whole pages. full_area, full_steps, bound: as in vllm_scheduler."""

    peak: int
    preemptions: int
    steps: int
    tokens: int
    full_area: int
    full_steps: int
    bound: dict[str, int]


class Scheduler:
    """One pool of `tokens` tokens in pages, at most `most` requests, prefills of `chunk` tokens. ahead: whether a batch is made while
    the one before runs (overlap schedule)."""

    def __init__(self, tokens: int, page: int, most: int, limited_by: str, chunk: int, ahead: bool) -> None:
        self.total = self.free = tokens
        self.page, self.most, self.limited_by, self.chunk, self.ahead = page, most, limited_by, chunk, ahead
        self.ratio = FIRST_RATIO
        self.least_ratio = FIRST_RATIO * LEAST_FACTOR
        self.decay = (FIRST_RATIO - self.least_ratio) / DECAY_STEPS
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.part: Request | None = None
        self.rows = self.retracted = 0
        self.full = False
        self.kept_out = ""

    def ceil(self, tokens: int) -> int:
        return -(-tokens // self.page) * self.page

    # -- a run --------------------------------------------------------------------------------------------------------

    def run(self, requests: Iterable[tuple[int, int]]) -> Run:
        """All requests to their end."""
        self.waiting.extend(Request(*one) for one in requests)
        peak = used = steps = full_area = full_steps = 0
        ended = False
        bound: dict[bool, dict[str, int]] = {False: {}, True: {}}
        before: Batch | None = None
        while self.waiting or self.running or self.part or before:
            self.join(before)
            batch = self.admit() or self.decode(before)
            if batch is None and before is None:
                raise Refused(
                    f"sglang: a prompt of {self.waiting[0].fill:,} tokens with {self.waiting[0].output:,} outputs never enters a "
                    f"pool of {self.total:,} tokens"
                )
            peak, used = max(peak, self.rows), max(used, self.total - self.free)
            steps += batch is not None
            if self.waiting:
                bound[ended][self.kept_out] = bound[ended].get(self.kept_out, 0) + 1
                if ended:
                    full_area += self.rows
                    full_steps += 1
            ended = self.results(before if self.ahead else batch) or ended
            before = batch
        return Run(
            peak=peak,
            preemptions=self.retracted,
            steps=steps,
            tokens=used,
            full_area=full_area,
            full_steps=full_steps,
            bound=bound[True] or bound[False],
        )

    def join(self, before: Batch | None) -> None:
        """The requests of a prefill decode from now on, but one that is cut; ended ones leave (get_next_batch_to_run)."""
        if before is not None and before.prefill:
            joined = [one for one in before.requests if one is not before.part and one.seen < one.output]
            # Where nothing ran, the new batch takes the place of the old one, which knew that it was full.
            self.full = self.full and len(joined) == len(before.requests) and bool(self.running)
            self.running += joined
        kept = [one for one in self.running if one.seen < one.output]
        self.full = self.full and len(kept) == len(self.running)
        self.running = kept

    def results(self, batch: Batch | None) -> bool:
        """Takes in the results of a batch and frees what ended; whether anything did (process_batch_result)."""
        over = False
        for request in batch.requests if batch else ():
            # One that is cut, or was retracted meanwhile, gets nothing.
            if request.held and request is not (batch and batch.part):
                request.seen += 1
                if request.seen == request.output:
                    self.release(request)
                    over = True
        return over

    def release(self, request: Request) -> None:
        self.free += self.ceil(request.held)
        request.held = 0
        self.rows -= 1

    def hold(self, request: Request, tokens: int) -> None:
        self.free -= self.ceil(request.held + tokens) - self.ceil(request.held)
        self.rows += not request.held
        request.held += tokens

    # -- prefills -------------------------------------------------------------------------------------------------------

    def admit(self) -> Batch | None:
        """The next prefill (_get_new_batch_prefill_raw, PrefillAdder); None where there is none."""
        if not self.running:
            self.full = False
        if self.part is None and (self.full or not self.waiting):
            return None
        if self.part is None and max(len(self.running), self.rows) >= self.most:
            self.full, self.kept_out = True, self.limited_by
            return None
        # What the running requests are expected to take yet, and the admitted ones will take.
        expected = sum(min(one.output - one.seen, CLIP) for one in self.running) * self.ratio
        taken = 0
        left, chunk = MAX_PREFILL_TOKENS, self.chunk
        batch: list[tuple[Request, int]] = []
        if self.part is not None:
            part = self.part
            rest = part.fill - part.held
            tokens = min(rest, chunk, max(int(self.free - expected), 0) or chunk)
            batch.append((part, tokens))
            whole = tokens == rest
            taken += self.ceil(tokens) + self.page
            expected += min(part.output, CLIP) if whole else 0
            left, chunk = left - self.ceil(tokens), chunk - self.ceil(tokens)
            self.part = None if whole else part
        while self.waiting:
            request = self.waiting[0]
            if min(left, chunk) <= 0 < self.free - taken - expected:
                self.kept_out = "chunked_prefill_size" if chunk <= 0 else "max_prefill_tokens"
                break
            if (
                len(batch) + len(self.running) >= self.most
                or self.rows + sum(not one.held for one, _ in batch) >= self.most
            ):
                self.full, self.kept_out = True, self.limited_by
                break
            wanted = request.fill + min(request.output - request.seen, CLIP) + self.page
            if wanted >= self.free - taken - expected:
                self.full, self.kept_out = bool(batch or self.running), "tokens"
                break
            tokens = request.fill
            if self.ceil(tokens) > chunk:
                tokens = chunk // self.page * self.page
                if not tokens:
                    self.kept_out = "chunked_prefill_size"
                    break
                self.part = request
            self.waiting.popleft()
            batch.append((request, tokens))
            taken += self.ceil(tokens) + self.page
            expected += 0 if request is self.part else min(request.output, CLIP)
            left, chunk = left - self.ceil(tokens), chunk - self.ceil(tokens)
            if self.free - taken - expected <= 0:
                # budget_state: no token left, which closes the batch for all.
                self.full, self.kept_out = True, "tokens"
                break
        if not batch:
            return None
        for request, tokens in batch:
            self.hold(request, tokens)
            request.launched += request is not self.part
        return Batch(prefill=True, requests=[one for one, _ in batch], part=self.part)

    # -- decodes --------------------------------------------------------------------------------------------------------

    def decode(self, before: Batch | None) -> Batch | None:
        """One more token for all that run, but those whose last is under way (update_running_batch)."""
        many = len(self.running)
        self.running = [one for one in self.running if one.launched < one.output]
        ending = many - len(self.running)
        if not self.running:
            self.full = False
            return None
        if not self.fits():
            if ending:
                self.full = False
                return None
            self.retract(before)
        else:
            self.ratio = max(self.ratio - self.decay, self.least_ratio)
        self.full = self.full and len(self.running) == many
        for request in self.running:
            self.hold(request, 1)
            request.launched += 1
        return Batch(prefill=False, requests=list(self.running))

    def fits(self) -> bool:
        return sum(one.held % self.page == 0 for one in self.running) * self.page <= self.free

    def retract(self, before: Batch | None) -> None:
        """Puts back the requests with the fewest outputs, of these the longest prompts, until the others fit (retract_decode)."""
        order = sorted(self.running, key=lambda one: (one.seen, -one.prompt), reverse=True)
        while len(order) > 1:
            request = order.pop()
            self.running.remove(request)
            self.release(request)
            # Its token that is under way is lost.
            request.launched = request.seen
            request.fill = request.prompt + request.seen
            self.waiting.append(request)
            self.retracted += 1
            if self.fits():
                break
        if not self.fits():
            raise Refused("sglang: Out of memory even after retracting all other requests in the decode batch.")
        seen, asked = sum(one.seen for one in order), sum(one.output for one in order)
        self.ratio = min(1.0, (seen + RETRACT_STEPS * len(order)) / (asked + 1))
