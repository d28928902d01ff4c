"""How many requests run at once when an engine is kept full, by its own scheduler."""

from __future__ import annotations

from itertools import islice

from .base import BadConfig, NotDescribed, Record, Refused, whole
from .lengths import lengths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .curve import MemoryCurve
    from .engines.vllm_blocks import VllmAllocator
    from .lengths import Lengths

# Without a number of requests, so many wait as ran at once in a first run, times this; a test shows that more change nothing.
GENERATIONS = 8
# The most requests of one run, and the first guess.
MOST_REQUESTS, FIRST_REQUESTS = 1_000_000, 64
# A distribution is drawn at least so often.
LEAST_DRAWN = 1000


class Steady(Record):
    """What an engine that is kept full runs at once.

    running: the most requests at once, from the first step to the last. mean: requests at once on average over the steps between the
    first end of a request and the last admission; running itself where nothing waited any more. preemptions: how often a request was
    put back, over the whole run. requests: how many waited at the start; turned_down: more, too long for the engine. steps: of the
    scheduler. used: per resource the most that was in use, and how much there is. bound_by: what kept the next request out, at most steps: blocks,
    tokens, state slots, or the option that limits; "requests" where all ran at once. pessimistic: what the engine itself
    reckons with, requests of `longest` tokens.
    """

    engine: str
    running: int
    mean: float
    preemptions: int
    requests: int
    turned_down: int
    steps: int
    used: tuple[tuple[str, int, int], ...]
    bound_by: str
    pessimistic: float | None
    longest: int | None


def steady_requests(
    curve: MemoryCurve, memory_bytes: int, prompt: Lengths, output: Lengths, requests: int | None
) -> Steady:
    """By the engine of the curve. NotDescribed where its scheduler is not."""
    memory_bytes = whole("memory_bytes", memory_bytes)
    if curve.allocator is None:
        raise NotDescribed(
            f"steady_requests: this curve of engine {curve.engine} "
            + (
                "was read from data"
                if curve.engine in ("vllm", "sglang")
                else "has no scheduler: requests are held from their first token to their last; max_batch says how many fit"
            )
        )
    if requests is not None:
        requests = whole("requests", requests, 1)
        if requests > MOST_REQUESTS:
            raise BadConfig(f"requests: {requests:,}; expected at most {MOST_REQUESTS:,}")
    if curve.engine == "vllm":
        return _vllm(curve, memory_bytes, prompt, output, requests)
    raise NotDescribed(f"steady_requests: the scheduler of engine {curve.engine} is not described")


class Queue:
    """The requests that wait: pairs of prompt and output, as long as the engine takes them."""

    def __init__(self, prompt: Lengths, output: Lengths, longest: int, fixed: int | None) -> None:
        self.given = prompt, output
        self.longest = longest
        prompts, outputs = (lengths(name, one) for name, one in (("prompt", prompt), ("output", output)))
        self.least = fixed or max(
            FIRST_REQUESTS, *(LEAST_DRAWN if one[1] is None else one[1] for one in (prompts, outputs))
        )
        self.turned_down = 0

    def take(self, number: int) -> list[tuple[int, int]]:
        """So many requests, less those that are too long; an output goes no further than the longest request."""
        prompts, outputs = (lengths(name, one)[0] for name, one in zip(("prompt", "output"), self.given, strict=True))
        every = list(islice(zip(prompts, outputs, strict=False), number))
        found = [(one, min(more, self.longest - one)) for one, more in every if one < self.longest]
        self.turned_down = len(every) - len(found)
        if not found:
            raise Refused(f"prompt: {every[0][0]:,} tokens; the engine takes fewer than {self.longest:,}")
        return found


def _vllm(curve: MemoryCurve, memory: int, prompt: Lengths, output: Lengths, requests: int | None) -> Steady:
    from .engines.vllm_scheduler import Request, Scheduler

    allocator: VllmAllocator = curve.allocator  # type: ignore[assignment]
    pool = allocator.pool(memory)
    queue = Queue(prompt, output, allocator.largest, requests)
    number = queue.least
    while True:
        waiting = queue.take(number)
        run = Scheduler(allocator, pool.num_blocks).run(Request(*one) for one in waiting)
        enough = GENERATIONS * run.peak
        if requests is not None or number >= min(enough, MOST_REQUESTS):
            break
        number = min(max(enough, 2 * number), MOST_REQUESTS)
    return Steady(
        engine="vllm",
        running=run.peak,
        mean=run.full_area / run.full_steps if run.full_steps else float(run.peak),
        preemptions=run.preemptions,
        requests=len(waiting),
        turned_down=queue.turned_down,
        steps=run.steps,
        used=(("blocks", run.blocks, pool.num_blocks - 1),),
        bound_by="requests" if run.peak == len(waiting) else max(run.bound, key=lambda one: run.bound[one]),
        pessimistic=pool.max_concurrency,
        longest=allocator.largest,
    )
