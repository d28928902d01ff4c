"""How many requests run at once when an engine is kept full, by its own scheduler."""

from __future__ import annotations

from .base import BadConfig, NotDescribed, Refused, whole
from .lengths import lengths
from .terms import Served

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lengths import Lengths
    from .terms import Allocator

# Without a number of requests, so many wait as ran at once in a first run, times this; a test shows that more change nothing.
GENERATIONS = 4
# The most requests of one run, and the first guess.
MOST_REQUESTS, FIRST_REQUESTS = 1_000_000, 64
# A distribution is drawn at least so often.
LEAST_DRAWN = 1000


class Steady(Served):
    """What an engine that is kept full runs at once. requests: how many waited at the start, all of them; turned_down: more, that are
    too long for the engine."""

    requests: int
    turned_down: int


def steady_requests(
    engine: str, allocator: Allocator | None, memory_bytes: int, prompt: Lengths, output: Lengths, requests: int | None
) -> Steady:
    """By the scheduler of the engine that the allocator is of. NotDescribed where it has none."""
    memory_bytes = whole("memory_bytes", memory_bytes)
    if allocator is None:
        why = (
            "was read from data"
            if engine in ("vllm", "sglang")
            else "has no scheduler: requests are held from their first token to their last, and max_batch says how many fit"
        )
        raise NotDescribed(f"steady_requests: this curve of engine {engine} {why}")
    if requests is not None and whole("requests", requests, 1) > MOST_REQUESTS:
        raise BadConfig(f"requests: {requests:,}; expected at most {MOST_REQUESTS:,}")
    longest = allocator.longest_request()
    number = requests or least(prompt, output)
    while True:
        waiting, turned_down = queue(prompt, output, number, longest)
        served = allocator.serve(memory_bytes, waiting)
        enough = min(GENERATIONS * served.running, MOST_REQUESTS)
        if requests is not None or number >= enough:
            return Steady(**served.as_dict(), requests=len(waiting), turned_down=turned_down)
        number = min(max(enough, 2 * number), MOST_REQUESTS)


def least(prompt: Lengths, output: Lengths) -> int:
    """Requests of a first run: every row of a file, and as many as tell of a distribution."""
    rows = [lengths(name, given)[1] for name, given in (("prompt", prompt), ("output", output))]
    return min(max(FIRST_REQUESTS, *(LEAST_DRAWN if number is None else number for number in rows)), MOST_REQUESTS)


def queue(prompt: Lengths, output: Lengths, number: int, longest: int) -> tuple[list[tuple[int, int]], int]:
    """So many requests, less those that are too long, and how many these are. An output stops at the longest request."""
    prompts, outputs = lengths("prompt", prompt)[0], lengths("output", output)[0]
    every = [(next(prompts), next(outputs)) for _ in range(number)]
    found = [(tokens, min(more, longest - tokens)) for tokens, more in every if tokens < longest]
    if not found:
        raise Refused(f"prompt: {every[0][0]:,} tokens; the engine takes fewer than {longest:,}")
    return found, len(every) - len(found)
