"""What a start-up log says of a GPU's memory: `read_startup(text)` gives the figures that a budget can stand on.

Lines of vLLM 0.6 to 0.33 (worker.py, v1/worker/gpu_worker.py, gpu_model_runner.py), SGLang (model_runner.py: "Load weight",
"Capture … graph end", ServerArgs) and llama.cpp (llama-context.cpp, llama-model.cpp). Where ranks or devices say different
numbers the fullest GPU counts. A figure keeps its rounding.
"""

from __future__ import annotations

import re

from .base import BadConfig, Record
from .engines.allowances import Measured
from .logs import MAX_LOG, Rounded, rounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NUMBER = r"(-?\d{1,9}(?:[.,]\d{1,6})?)"


class Line(Record):
    """A figure of a log: the field of Measured, words that its line holds, what follows them, and which of several counts.

    until: words after which no more count: a draft model is loaded like the first.
    """

    field: str
    mark: str
    pattern: re.Pattern[str]
    fullest: Callable[..., Rounded] = max
    unit: str = "GiB"
    until: str = ""


def line(field: str, mark: str, pattern: str, fullest: Callable[..., Rounded] = max, **more: str) -> Line:
    return Line(field=field, mark=mark, pattern=re.compile(pattern), fullest=fullest, **more)


# Later lines of the table fill a field only where earlier ones found nothing.
LINES = {
    "vllm": (
        line("total", "Free memory on device", rf" \([\d.]{{1,9}}/{NUMBER} GiB\) on startup", min),
        line("total", "total_memory=", rf"{NUMBER}GiB", min),
        line("total", "total_gpu_memory (", rf"{NUMBER}GiB\)", min),
        line("requested", "Desired GPU memory utilization is (", rf"[\d.]{{1,12}}, {NUMBER} GiB\)", min),
        line("requested", "worker requested memory:", rf" {NUMBER}GiB", min),
        line("requested", "x gpu_memory_utilization (", rf"[\d.]{{1,12}}\) = {NUMBER}GiB", min),
        line("weights", "Model loading took", rf" {NUMBER} GiB"),
        line("weights", "model weights take", rf" {NUMBER}GiB"),
        line("weights", "Loading model weights took", rf" {NUMBER} GB"),
        line("consumed", "Actual usage is", rf" {NUMBER} GiB for consumed memory"),
        line("activations", "torch peak memory increase:", rf" {NUMBER}GiB"),
        line("activations", "PyTorch activation peak memory takes", rf" {NUMBER}GiB"),
        line("graphs", "Estimated CUDA graph memory:", rf" {NUMBER} GiB total"),
        line("graphs", "Graph capturing finished in", rf" \d{{1,9}} secs?, took {NUMBER} GiB"),
        line("pool", "Available KV cache memory:", rf" {NUMBER} GiB", min),
        line("pool", "reserved for KV Cache is", rf" {NUMBER}GiB", min),
    ),
    "sglang": (
        line("before", "Load weight begin. avail mem=", rf"{NUMBER} GB", min, until="Load weight end"),
        line("weights", "Load weight end.", rf".{{0,300}}?mem usage={NUMBER} GB"),
        line("graphs", "graph end", rf".{{0,100}}?mem usage={NUMBER} GB"),
    ),
    "llamacpp": (
        line("compute", "compute buffer size", rf" *= *{NUMBER} MiB", unit="MiB"),
        line("weights", "model buffer size", rf" *= *{NUMBER} MiB", unit="MiB"),
        line("weights", "CUDA0 buffer size", rf" *= *{NUMBER} MiB", unit="MiB"),
    ),
}  # fmt: skip
SHARE = re.compile(r"['\"]?\s{0,3}[=:]?\s{0,3}\(?(0?\.\d{1,12}|1(?:\.0{1,12})?)")
UTILIZATION = ("gpu_memory_utilization", "gpu-memory-utilization", "Desired GPU memory utilization is (")
# Memory of the machine, not of a GPU
HOST = re.compile(r"(?:_Host|CPU\w{0,20})\s*$")


def read_startup(text: str) -> Measured:
    """The figures of a pasted log of vLLM, SGLang or llama.cpp. BadConfig where it holds none that is known."""
    if len(text) > MAX_LOG:
        raise BadConfig(f"log: {len(text):,} characters; expected the log of a start, of at most {MAX_LOG:,}")
    # Colours of a terminal are no part of a line.
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for engine, lines in LINES.items():
        found: dict[str, Rounded] = {}
        for one in lines:
            sizes = list(figures(text, one))
            if sizes and one.field not in found:
                found[one.field] = one.fullest(sizes, key=lambda size: (size.low, size.high))
        if found:
            return Measured(
                engine=engine,
                **found,
                utilization=share_of(text, UTILIZATION) if engine == "vllm" else None,
                fraction=share_of(text, ("mem_fraction_static",)) if engine == "sglang" else None,
                counted="CUDA graph memory profiling is enabled" in text,
            )
    raise BadConfig(
        'log: no figure of memory; expected a start-up log of vLLM ("Model loading took …"), SGLang '
        '("Load weight begin. avail mem=…") or llama.cpp ("compute buffer size = …")'
    )


def figures(text: str, one: Line) -> Iterator[Rounded]:
    """Every figure of one kind; of llama.cpp's those of a GPU, and only without any those of the machine."""
    host: list[Rounded] = []
    device = False
    end = text.find(one.until) if one.until else -1
    for at in places(text, one.mark):
        if 0 <= end < at:
            return
        match = one.pattern.match(text, at + len(one.mark), at + len(one.mark) + 500)
        if match is None or match[1].startswith("-"):
            continue
        size = rounded(match[1], one.unit)
        if one.unit == "MiB" and HOST.search(text, max(0, at - 40), at):
            host.append(size)
            continue
        device = True
        yield size
    if not device:
        yield from host


def share_of(text: str, marks: tuple[str, ...]) -> float | None:
    """The share that a log says first after one of these words."""
    for mark in marks:
        for at in places(text, mark):
            start = at + len(mark)
            match = SHARE.match(text, start, start + 40)
            if match and float(match[1]) > 0:
                return float(match[1])
    return None


def places(text: str, mark: str) -> Iterator[int]:
    at = text.find(mark)
    while at >= 0:
        yield at
        at = text.find(mark, at + len(mark))
