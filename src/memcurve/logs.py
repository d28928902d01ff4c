"""Start-up logs of serving engines, read and compared with what memcurve computes for the same model.

A log rounds: 6.51 GiB is anything from 6.505 to 6.515. So each figure is compared within the rounding of all that it
is computed from. Sources of the lines: vLLM 0.33.0 v1/worker/gpu_worker.py and v1/core/kv_cache_utils.py; SGLang 0.5.23
srt/mem_cache/memory_pool.py; llama.cpp 0c1e57098 src/llama-kv-cache.cpp, llama-memory-recurrent.cpp, llama-context.cpp.
"""

from __future__ import annotations

import re
from itertools import pairwise

from .base import BadConfig, MemcurveError, NotDescribed, Record, Refused
from .units import show_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from .curve import MemoryCurve
    from .model import Model

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "GB": 2**30, "MB": 2**20}  # SGLang's GB is 1024³
MAX_LOG = 64 * 2**20
ENGINES = {
    "vllm": re.compile(
        r"KV cache size: [\d,]+ tokens|Available KV cache memory|KV cache is needed|attention block size to"
    ),
    "sglang": re.compile(r"KV Cache is allocated|KV Cache VA upper bound|Mamba Cache is allocated"),
    "llamacpp": re.compile(r"llama_kv_cache\w*: .*size =|llama_memory_recurrent: size =|KV self size"),
}


# Options that a server may have been started with, tried where a figure differs.
OTHERWISE: dict[str, tuple[dict[str, Any], ...]] = {
    "vllm": (
        *({"tensor_parallel_size": ranks} for ranks in (2, 4, 8)), {"kv_cache_dtype": "fp8"}, {"block_size": 64},
        {"enable_prefix_caching": False}, {"mamba_ssm_cache_dtype": "float32"}, {"disable_hybrid_kv_cache_manager": True},
        {"draft_layers": 1, "num_speculative_tokens": 1, "speculative_method": "mtp"},
        *({"max_num_batched_tokens": tokens} for tokens in (2048, 16384)), {"gpu": "A100"}, {"gpu": "B200"},
    ),
    "sglang": (*({"tp_size": ranks} for ranks in (2, 4, 8)), {"kv_cache_dtype": "fp8_e4m3"}, {"page_size": 64}),
    "llamacpp": (
        {"swa_full": True}, {"kv_unified": True}, {"kv_unified": False}, {"flash_attn": False}, {"n_ubatch": 2048},
    ),
}  # fmt: skip


class Finding(Record):
    """One figure of a log beside memcurve's. line: its number; agrees: within rounding; why: of what it follows."""

    line: int
    figure: str
    logged: str
    computed: str
    agrees: bool
    why: str


def engine_of(text: str) -> str:
    """Which engine wrote a log. BadConfig where no known line is in it."""
    for name, pattern in ENGINES.items():
        if pattern.search(text):
            return name
    raise BadConfig(
        'log: no line about the cache; expected a start-up log of vLLM ("GPU KV cache size: …"), '
        'SGLang ("KV Cache is allocated. …") or llama.cpp ("llama_kv_cache: size = …")'
    )


def check(
    text: str, model: Model, options: Mapping[str, Any] | None = None, engine: str | None = None
) -> list[Finding]:
    """Every figure of a log compared. options: the engine's own, as the server was started; what they leave out is read from the log."""
    name = engine or engine_of(text)
    if name not in ENGINES:
        raise BadConfig(f"engine: {name!r}; expected one of {', '.join(ENGINES)}")
    # Colours and carriage returns of a terminal are no part of a line.
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "\n").split("\n")
    compare = {"vllm": _vllm, "sglang": _sglang, "llamacpp": _llamacpp}[name]
    asked = dict(options or {})
    found = sorted(compare(lines, model, dict(asked)), key=lambda one: one.line)
    if not found:
        raise BadConfig(f"log: no figure of {name} that can be compared")
    return [
        one if one.agrees else explained(one, name, lambda more: compare(lines, model, {**asked, **more}))
        for one in found
    ]


def explained(one: Finding, engine: str, again: Callable[[dict[str, Any]], Iterator[Finding]]) -> Finding:
    """A figure that differs, with the options under which it would agree."""
    helped = []
    for more in OTHERWISE[engine]:
        try:
            others = list(again(more))
        except MemcurveError:  # an option that this model or engine refuses explains nothing
            continue
        if any(other.agrees and (other.line, other.figure) == (one.line, one.figure) for other in others):
            helped.append(", ".join(f"{key}={value}" for key, value in more.items()))
    tail = f"would agree with {' or '.join(helped)}" if helped else "no single option that was tried makes it agree"
    return one.replace(why=f"{one.why}; {tail}")


class Rounded(Record):
    """A size as a log prints it: everything from low up to high prints so."""

    text: str
    low: int
    high: int

    def holds(self, low: int, high: int | None = None) -> bool:
        """Whether a number, or anything between two, may print so."""
        return low <= self.high and (low if high is None else high) >= self.low


def rounded(number: str, unit: str) -> Rounded:
    """12.50 GiB, with as many digits as it has; a comma may be the decimal sign."""
    digits = number.replace(",", ".")
    step = 10.0 ** -len(digits.partition(".")[2]) * UNITS[unit]
    size = float(digits) * UNITS[unit]
    # Half a step either way, and a little for the binary fraction.
    return Rounded(text=f"{number} {unit}", low=int(size - step * 0.501), high=int(size + step * 0.501) + 1)


def joined(sizes: Sequence[Rounded]) -> Rounded:
    """The sum of several."""
    return Rounded(
        text=" + ".join(size.text for size in sizes), low=sum(s.low for s in sizes), high=sum(s.high for s in sizes)
    )


def span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# -- vLLM -------------------------------------------------------------------------------------------------------------

AVAILABLE = re.compile(r"Available KV cache memory: (-?\d{1,9}(?:\.\d{1,6})?) (GiB|MiB)")
TOKENS = re.compile(r"KV cache size: (\d[\d,]{0,19}) tokens")
CONCURRENCY = re.compile(r"Maximum concurrency for (\d[\d,]{0,19}) tokens per request: (\d{1,9}(?:\.\d{1,6})?)x")
NEEDED = re.compile(r"max seq len \((\d[\d,]{0,19})\).{0,40}?(\d{1,9}(?:\.\d{1,6})?) (GiB|MiB) KV cache is needed")
ATTENTION = ("full", "latent", "sliding", "chunked")
BLOCK = re.compile(r"attention block size to (\d{1,12}) tokens")


def _vllm(lines: Sequence[str], model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    memory: Rounded | None = None
    tokens = times = None
    for number, line in enumerate(lines, 1):
        if (found := AVAILABLE.search(line)) and float(found[1]) > 0:
            size = rounded(found[1], found[2])
            if memory is not None and tokens:  # the log goes on with another start
                yield from _capacity(model.curve("vllm", **options), memory, tokens, times)
                memory = tokens = times = None
            # Each rank logs its own; the smallest decides.
            memory = size if memory is None or size.low < memory.low else memory
        if found := NEEDED.search(line):
            length, needed = number_of(found[1]), rounded(found[2], found[3])
            held = model.curve("vllm", **{**options, "max_model_len": length}).bytes(length)
            yield Finding(
                line=number, figure=f"KV cache needed for {length:,} tokens", logged=needed.text, computed=show_bytes(held),
                agrees=needed.holds(held), why="what one request of max_model_len reserves",
            )  # fmt: skip
        if found := BLOCK.search(line):
            allocator: Any = model.curve("vllm", **options).allocator
            specs = [spec for group in allocator.groups for spec, _ in group.members]
            blocks = sorted({spec.block for spec in specs if spec.cache in ATTENTION})
            yield Finding(
                line=number, figure="attention block size", logged=found[1], computed=", ".join(map(str, blocks)),
                agrees=int(found[1]) in blocks, why="a page of attention holds at least one state",
            )  # fmt: skip
        if found := TOKENS.search(line):
            tokens = number, number_of(found[1])
        if found := CONCURRENCY.search(line):
            times = number, float(found[2])
            options = {**options, "max_model_len": number_of(found[1])}
    if memory is not None and (tokens or times):
        yield from _capacity(model.curve("vllm", **options), memory, tokens, times)


def _capacity(
    curve: MemoryCurve, memory: Rounded, tokens: tuple[int, int] | None, times: tuple[int, float] | None
) -> Iterator[Finding]:
    """The capacity in tokens and in requests that follows from the memory, within its rounding."""
    allocator: Any = curve.allocator
    why = f"follows from {memory.text} and max_model_len {allocator.largest:,}"
    try:
        low, high = pools_of(curve, memory)
    except Refused:
        line, logged = (tokens[0], f"{tokens[1]:,} tokens") if tokens else (times[0] if times else 0, "a start")
        yield Finding(line=line, figure="GPU KV cache size", logged=logged, computed="no start", agrees=False, why=why)
        return
    if tokens is not None:
        yield Finding(
            line=tokens[0], figure="GPU KV cache size", logged=f"{tokens[1]:,} tokens",
            computed=f"{span(low.capacity_tokens, high.capacity_tokens)} tokens",
            agrees=low.capacity_tokens <= tokens[1] <= high.capacity_tokens, why=why,
        )  # fmt: skip
    if times is not None:
        least, most = (round(pool.max_concurrency, 2) for pool in (low, high))
        yield Finding(
            line=times[0], figure="maximum concurrency", logged=f"{times[1]:.2f}x",
            computed=f"{least:.2f}x" + (f" to {most:.2f}x" if most > least else ""), agrees=least <= times[1] <= most, why=why,
        )  # fmt: skip


def number_of(text: str) -> int:
    return int(text.replace(",", ""))


def pools_of(curve: MemoryCurve, memory: Rounded) -> tuple[Any, Any]:
    """The pools at both ends of a rounded memory; of a memory that is just too small at its lower end, the upper twice."""
    high = curve.pool(memory.high)
    try:
        return curve.pool(memory.low), high
    except Refused:
        return high, high


# -- SGLang -----------------------------------------------------------------------------------------------------------

KV = re.compile(
    r"KV Cache (?:is allocated|VA upper bound)\..*?#tokens: (\d{1,12}), (?:K size: (\d{1,9}(?:\.\d{1,6})?) GB, V size: (\d{1,9}(?:\.\d{1,6})?) GB|KV size: (\d{1,9}(?:\.\d{1,6})?) GB)"
)
STATES = re.compile(
    r"Mamba Cache is allocated\. max_mamba_cache_size: (\d{1,12}), conv_state size: (\d{1,9}(?:\.\d{1,6})?)\s?GB, ssm_state size: (\d{1,9}(?:\.\d{1,6})?)\s?GB"
)


def _sglang(lines: Sequence[str], model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    from .engines.sglang_pools import SGLangAllocator

    allocator = model.curve("sglang", **options).allocator
    if not isinstance(allocator, SGLangAllocator):
        raise NotDescribed(f"log: {model.name} has pools of its own kind in SGLang, whose lines are not read")
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if (found := KV.search(line)) and found[0] not in seen:
            seen.add(found[0])
            tokens = int(found[1])
            logged = joined([rounded(size, "GB") for size in found.groups()[1:] if size])
            pools = allocator.pool_of(tokens=tokens, swa_tokens=tokens)
            sizes = {name: size for name, size in pools.items() if name != "per request"}
            hit = next((size for size in (*sizes.values(), sum(sizes.values())) if logged.holds(size)), None)
            yield Finding(
                line=number, figure=f"KV cache of {tokens:,} tokens", logged=logged.text,
                computed=show_bytes(hit) if hit else " or ".join(f"{show_bytes(size)} ({name})" for name, size in sizes.items()),
                agrees=hit is not None, why="tokens and a page of padding, all layers of the pool",
            )  # fmt: skip
        if (found := STATES.search(line)) and found[0] not in seen:
            seen.add(found[0])
            slots = int(found[1])
            logged = joined([rounded(size, "GB") for size in found.groups()[1:]])
            # What verifying drafts takes is logged apart.
            size = (slots + 1) * allocator.states.slot_bytes if allocator.states is not None else 0
            yield Finding(
                line=number, figure=f"state of {slots:,} slots", logged=logged.text, computed=show_bytes(size),
                agrees=logged.holds(size), why="slots and one of padding, convolutions and matrices",
            )  # fmt: skip


# -- llama.cpp --------------------------------------------------------------------------------------------------------

SETTING = re.compile(
    r"(?:(n_seq_max|n_ctx|n_batch|n_ubatch)\s+= (\d{1,12})|(flash_attn|kv_unified)\s+= (\w{1,12}))\s*$"
)
CACHE = re.compile(
    r"size\s*=\s*[\d.,]+ MiB\s*(?:\(\s*(\d{1,12}) cells,\s*\d+ layers?(?:,\s*(\d{1,6})(?:/(\d{1,6}))? seqs)?\))?"
)
PART = re.compile(r"\b([KVRSP]) \((\w+)\):\s*(\d{1,9}(?:[.,]\d{1,6})?) MiB")
NAMES = {"K": "key", "V": "value", "R": "conv_state", "S": "recurrent_state", "P": "ple_state"}


def _llamacpp(lines: Sequence[str], model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    """Context by context: a log may hold several, and each says its n_seq_max first."""
    starts = [
        number for number, line in enumerate(lines) if (found := SETTING.search(line)) and found[1] == "n_seq_max"
    ]
    bounds = [0, *starts[1:], len(lines)]
    for start, end in pairwise(bounds):
        yield from _context(lines[start:end], start, model, dict(options))


def _context(lines: Sequence[str], before: int, model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    parts: dict[str, list[Rounded]] = {}
    first: dict[str, int] = {}
    settings: dict[str, str] = {}
    cells, streams = 0, 1
    for number, line in enumerate(lines, 1):
        if found := SETTING.search(line):
            settings.setdefault(found[1] or found[3], found[2] or found[4])
        found = CACHE.search(line)
        if found is None or not PART.search(line):
            continue
        if found[1] and re.search(r"\bK \(", line):
            cells = max(cells, int(found[1]))
            settings.setdefault("n_seq_max", found[2] or "1")
            streams = int(found[3] or 1)
        for letter, kind, size in PART.findall(line):
            parts.setdefault(letter, []).append(rounded(size, "MiB"))
            first.setdefault(letter, number)
            if letter in "KV":
                options.setdefault(f"type_{letter.lower()}", kind)
    if not parts:
        return
    sequences = int(options.pop("n_seq_max", settings.get("n_seq_max", 1)))
    context = int(options.pop("n_ctx", settings.get("n_ctx", cells * streams or 1)))
    for key in ("n_batch", "n_ubatch"):
        if key in settings:
            options.setdefault(key, int(settings[key]))
    if "kv_unified" in settings or (sequences > 1 and cells):
        options.setdefault("kv_unified", settings.get("kv_unified", "true" if streams == 1 else "false") == "true")
    if settings.get("flash_attn") in ("0", "disabled"):
        options.setdefault("flash_attn", False)
    curve = model.curve("llamacpp", **options)
    held: dict[str, int] = {}
    for row in curve.breakdown(context, sequences):  # one tensor to a term
        held[row["tensors"][0]] = held.get(row["tensors"][0], 0) + row["bytes"]
    for letter, sizes in parts.items():
        logged, size = joined(sizes), held.get(NAMES[letter], 0)
        yield Finding(
            line=first[letter] + before, figure=f"{letter} ({NAMES[letter]})", logged=logged.text, computed=show_bytes(size),
            agrees=logged.holds(size), why=f"n_ctx {context:,}, n_seq_max {sequences}",
        )  # fmt: skip
