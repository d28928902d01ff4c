"""Start-up logs of serving engines, read and compared with what memcurve computes for the same model.

A log rounds: 6.51 GiB is anything from 6.505 to 6.515. So each figure is compared within the rounding of all that it
is computed from. A log also states options (`settings`), which hold from their line on unless the caller gives others.
Sources of the lines: vLLM 0.33.0 v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py and config/vllm.py; SGLang 0.5.23
srt/mem_cache/memory_pool.py and entrypoints/engine.py; llama.cpp 0c1e57098 src/llama-kv-cache.cpp,
llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp and llama-context.cpp.
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
    from .engines.sglang_pools import SGLangAllocator
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
    lines = _lines(text)
    compare = {"vllm": _vllm, "sglang": _sglang, "llamacpp": _llamacpp}[name]
    asked = dict(options or {})
    found = sorted(compare(lines, model, dict(asked)), key=lambda one: one.line)
    if not found:
        raise BadConfig(f"log: no figure of {name} that can be compared")
    return [
        one if one.agrees else explained(one, name, lambda more: compare(lines, model, {**asked, **more}))
        for one in found
    ]


def _lines(text: str) -> list[str]:
    """Colours and carriage returns of a terminal are no part of a line."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "\n").split("\n")


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


class Setting(Record):
    """An option that a log states. line: the number of the line that does."""

    line: int
    option: str
    value: int | bool | str


# Names of options in vLLM's and SGLang's lines, by the option; the lines that hold them.
STATED: dict[str, tuple[re.Pattern[str], dict[str, str]]] = {
    "vllm": (
        re.compile(r"non-default args: |LLM engine \(v[^)]*\) with config: |Chunked prefill is enabled with "),
        {
            "max_seq_len": "max_model_len",
            **{
                name: name
                for name in (
                    "tensor_parallel_size", "pipeline_parallel_size", "decode_context_parallel_size", "kv_cache_dtype",
                    "max_model_len", "block_size", "enable_prefix_caching", "mamba_cache_dtype", "mamba_ssm_cache_dtype",
                    "mamba_cache_mode", "max_num_batched_tokens", "max_num_seqs", "async_scheduling",
                )
            },
        },
    ),
    "sglang": (
        re.compile(r"server_args="),
        {
            name: name
            for name in (
                "tp_size", "pp_size", "dp_size", "attn_dp_size", "attn_cp_size", "enable_dp_attention", "page_size",
                "kv_cache_dtype", "mamba_ssm_dtype", "disable_hybrid_swa_memory", "dsa_prefill_backend", "dsa_decode_backend",
            )
        },
    ),
}  # fmt: skip
VALUE = re.compile(r"\b'?([a-z_]{4,40})'?(?:=|: )('[\w.-]{1,40}'|[\w.-]{1,40})(?=[,)}.]|\s|$)")
MOST_STATED = 2**16  # characters of a line that are read for options


def stated(engine: str, line: str) -> dict[str, int | bool | str]:
    """The options that a line of vLLM or SGLang states; none that is None, or a number below one."""
    lines, names = STATED[engine]
    found: dict[str, int | bool | str] = {}
    if (start := lines.search(line)) is None:
        return found
    for name, text in VALUE.findall(line[start.start() : start.start() + MOST_STATED]):
        word = text.strip("'")
        if name not in names or word == "None":
            continue
        if word in ("True", "False"):
            found[names[name]] = word == "True"
        elif re.fullmatch(r"[1-9]\d{0,11}", word):
            found[names[name]] = int(word)
        elif not re.fullmatch(r"-?\d+", word):
            found[names[name]] = word
    return found


def settings(text: str, engine: str | None = None) -> list[Setting]:
    """The options that a log states, each value of each once, by the first line that does."""
    name, lines = engine or engine_of(text), _lines(text)
    found: list[Setting] = []
    if name == "llamacpp":
        for start, some in _contexts(lines):
            context = Context(some, start)
            found += context.settings
    else:
        for number, line in enumerate(lines, 1):
            found += [Setting(line=number, option=key, value=value) for key, value in stated(name, line).items()]
    first: dict[tuple[str, object], Setting] = {}
    for one in found:
        first.setdefault((one.option, one.value), one)
    return list(first.values())


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
    asked = dict(options)
    for number, line in enumerate(lines, 1):
        if more := stated("vllm", line):
            if memory is not None and tokens:  # the log goes on with another start
                yield from _capacity(model.curve("vllm", **options), memory, tokens, times)
                memory = tokens = times = None
            options = {**options, **more, **asked}
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


STAGE = re.compile(r"\bPP(\d{1,4})\b")


def _sglang(lines: Sequence[str], model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    asked = dict(options)
    seen: set[str] = set()
    used: set[tuple[int, str]] = set()
    allocator: Any = None
    for number, line in enumerate(lines, 1):
        if more := stated("sglang", line):
            options, allocator = {**options, **more, **asked}, None
            seen, used = set(), set()
        kv, slots, stage = KV.search(line), STATES.search(line), STAGE.search(line)
        found = kv or slots
        if found is None or (key := f"{stage and stage[1]} {found[0]}") in seen:
            continue
        seen.add(key)  # each rank of a stage writes the same
        if allocator is None:
            allocator = model.curve("sglang", **options).allocator
        own = _stage(allocator, int(stage[1]) if stage else None, model)
        yield from _tokens(number, found, own, used) if kv else _slots(number, found, own)


def _stage(allocator: Any, stage: int | None, model: Model) -> SGLangAllocator:
    """The sizing of the pipeline stage that wrote a line."""
    from .engines.sglang_pools import SGLangAllocator
    from .engines.sglang_stages import StagedAllocator

    if isinstance(allocator, StagedAllocator):
        allocator = allocator.stages[allocator.bound if stage is None else min(stage, len(allocator.stages) - 1)]
    if not isinstance(allocator, SGLangAllocator):
        raise NotDescribed(f"log: {model.name} has pools of its own kind in SGLang, whose lines are not read")
    return allocator


def _tokens(
    number: int, found: re.Match[str], allocator: SGLangAllocator, used: set[tuple[int, str]]
) -> Iterator[Finding]:
    """Keys and values of one pool, each by itself; a latent's pool, which has one size, with its index keys or without.

    used: pools that a line was found for.
    """
    tokens, why = int(found[1]), "tokens and a page of padding, all layers of the pool"
    pools = [one for one in allocator.pools if one.per == "token" and (id(allocator), one.name) not in used]
    if found[4]:
        logged = rounded(found[4], "GB")
        sizes = {pool.name: size for pool in allocator.pools if (size := pool.bytes(tokens, allocator.page))}
        hit = next((size for size in (*sizes.values(), sum(sizes.values())) if logged.holds(size)), None)
        yield Finding(
            line=number, figure=f"KV cache of {tokens:,} tokens", logged=logged.text,
            computed=show_bytes(hit) if hit else " or ".join(f"{show_bytes(size)} ({name})" for name, size in sizes.items()),
            agrees=hit is not None, why=why,
        )  # fmt: skip
        return
    logged_key, logged_value = rounded(found[2], "GB"), rounded(found[3], "GB")
    rows = tokens + allocator.page
    halves = [(pool.name, rows * pool.key_bytes, rows * (pool.token_bytes - pool.key_bytes)) for pool in pools] or [
        ("", 0, 0)
    ]
    # The line does not say whose it is: the pool whose keys and values both fit, else whose keys do.
    name, keys, values = min(halves, key=lambda half: (not logged_key.holds(half[1]), not logged_value.holds(half[2])))
    if logged_key.holds(keys) and logged_value.holds(values):
        used.add((id(allocator), name))
    for word, logged, size in (("K", logged_key, keys), ("V", logged_value, values)):
        yield Finding(
            line=number, figure=f"{word} of {tokens:,} tokens ({name})", logged=logged.text, computed=show_bytes(size),
            agrees=logged.holds(size), why=why,
        )  # fmt: skip


def _slots(number: int, found: re.Match[str], allocator: SGLangAllocator) -> Iterator[Finding]:
    """Convolutions and matrices, each by itself. What verifying drafts takes is logged apart."""
    slots, states = int(found[1]), allocator.states
    each = (0, 0) if states is None else (states.conv_bytes, states.recurrent_bytes)
    for word, text, size in zip(("conv_state", "ssm_state"), found.groups()[1:], each, strict=True):
        logged = rounded(text, "GB")
        yield Finding(
            line=number, figure=f"{word} of {slots:,} slots", logged=logged.text, computed=show_bytes((slots + 1) * size),
            agrees=logged.holds((slots + 1) * size), why="slots and one of padding",
        )  # fmt: skip


# -- llama.cpp --------------------------------------------------------------------------------------------------------

SETTING = re.compile(
    r"\b(?:(n_seq_max|n_ctx|n_batch|n_ubatch|n_rs_seq)\s+= (\d{1,12})|(flash_attn|kv_unified)\s+= (\w{1,12}))\s*$"
)
NO_FLASH = re.compile(r"[Ff]lash [Aa]ttention(?: was auto,| not supported,) set to disabled")
CACHE = re.compile(
    r"size\s*=\s*[\d.,]+ MiB\s*(?:\(\s*(\d{1,12}) cells,\s*(\d{1,6}) layers?(?:,\s*(\d{1,6})(?:/(\d{1,6}))? seqs)?(?:\s*(\d{1,6}) rs_seq)?\))?"
)
PART = re.compile(r"\b([KVRSP]) \((\w+)\):\s*(\d{1,9}(?:[.,]\d{1,6})?) MiB")
NAMES = {"K": "key", "V": "value", "R": "conv_state", "S": "recurrent_state", "P": "ple_state"}


class Line(Record):
    """A line about one cache: its cells and layers (0: not said), and the size of each tensor."""

    number: int
    cells: int
    layers: int
    sizes: tuple[tuple[str, Rounded], ...]


class Context:
    """What the lines of one context say: caches, and options as `settings`."""

    def __init__(self, lines: Sequence[str], before: int) -> None:
        self.caches: list[Line] = []
        self.settings: list[Setting] = []
        self.cells, self.streams = 0, 1
        self.late = False
        known: set[str] = set()

        def state(option: str, value: int | bool | str) -> None:
            if option not in known:
                known.add(option)
                self.settings.append(Setting(line=number + before, option=option, value=value))

        for number, line in enumerate(lines, 1):
            if found := SETTING.search(line):
                if found[1]:
                    state(found[1], int(found[2]))
                elif found[3] == "kv_unified":
                    state("kv_unified", found[4] == "true")
                elif found[4] in ("0", "disabled", "1", "enabled"):
                    state("flash_attn", found[4] in ("1", "enabled"))
            if "using full-size SWA cache" in line:
                state("swa_full", True)
            if NO_FLASH.search(line):
                # Caches are made before flash_attn auto is resolved (llama_context::llama_context), and keep their layout.
                if self.caches:
                    self.late = True
                else:
                    state("flash_attn", False)
            found = CACHE.search(line)
            if found is None or not PART.search(line):
                continue
            if found[1] and re.search(r"\bK \(", line):
                self.cells = max(self.cells, int(found[1]))
                self.streams = int(found[4] or 1)
                state("n_seq_max", int(found[3] or 1))
                if int(found[3] or 1) > 1:
                    state("kv_unified", self.streams == 1)
            if found[5]:
                state("n_rs_seq", int(found[5]))
            for letter, kind, _ in PART.findall(line):
                if letter in "KV":
                    state(f"type_{letter.lower()}", kind)
            sizes = tuple((letter, rounded(size, "MiB")) for letter, _, size in PART.findall(line))
            self.caches.append(
                Line(number=number + before, cells=int(found[1] or 0), layers=int(found[2] or 0), sizes=sizes)
            )


def _contexts(lines: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """The lines of each context: a log may hold several, and each says its n_seq_max first."""
    starts = [
        number for number, line in enumerate(lines) if (found := SETTING.search(line)) and found[1] == "n_seq_max"
    ]
    for start, end in pairwise([0, *starts[1:], len(lines)]):
        yield start, lines[start:end]


def _llamacpp(lines: Sequence[str], model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    for start, some in _contexts(lines):
        context = Context(some, start)
        if context.caches:
            yield from _context(context, model, dict(options))


def _context(context: Context, model: Model, options: dict[str, Any]) -> Iterator[Finding]:
    given: dict[str, Any] = {**{one.option: one.value for one in context.settings}, **options}
    sequences = int(given.pop("n_seq_max", 1))
    length = int(given.pop("n_ctx", context.cells * context.streams or 1))
    rows = model.curve("llamacpp", **given).breakdown(length, sequences)
    why = f"n_ctx {length:,}, n_seq_max {sequences}"
    if context.late:
        why += ", flash attention disabled after the cache was made"
    left = _caches(rows)
    for line in context.caches:
        letters = {letter for letter, _ in line.sizes}
        if letters & set("KV"):
            own = _nearest(line, left)
        else:
            own = {letter: sum(row["bytes"] for row in rows if row["tensors"] == [NAMES[letter]]) for letter in letters}
        for letter, logged in line.sizes:
            size = own.get(letter, 0)
            yield Finding(
                line=line.number, figure=f"{letter} ({NAMES[letter]})", logged=logged.text, computed=show_bytes(size),
                agrees=logged.holds(size), why=why,
            )  # fmt: skip
    last = context.caches[-1].number
    for cache in left:
        if cache["K"] and any(dict(line.sizes).keys() & set("KV") for line in context.caches):
            yield Finding(
                line=last, figure=f"a cache of {cache['cells']:,} cells", logged="no line",
                computed=show_bytes(cache["K"] + cache["V"]), agrees=False, why=why,
            )  # fmt: skip


def _caches(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, int]]:
    """K and V, cells and layers of each cache of llama.cpp: what slides, index keys and the others are caches of their own."""
    found: dict[tuple[str, int], dict[str, int]] = {}
    for row in rows:
        letter = {"key": "K", "value": "V"}.get(row["tensors"][0])
        if letter is None:
            continue
        sort = row["kind"] if row["kind"] in ("sliding attention", "chunked attention", "sparse indexer") else ""
        cache = found.setdefault((sort, row["slots"]), {"K": 0, "V": 0, "cells": row["slots"], "layers": 0})
        cache[letter] += row["bytes"]
        cache["layers"] += row["layers"] if letter == "K" else 0
    order = ("", "sliding attention", "chunked attention", "sparse indexer")  # as llama.cpp makes them
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), -key[1]))]


def _nearest(line: Line, left: list[dict[str, int]]) -> dict[str, int]:
    """The cache that a line is about, taken out of those left: of as many layers and cells, in llama.cpp's order."""
    if not left or line.layers == 0 < line.cells:
        return {}
    own = min(left, key=lambda cache: (cache["layers"] != line.layers, cache["cells"] != line.cells))
    left.remove(own)
    return own
