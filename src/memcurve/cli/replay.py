"""memcurve replay: a trace of requests through an engine's memory rules."""

from __future__ import annotations

import os
import sys

from ..base import BadConfig, MemcurveError, clean, show
from ..units import parse_bytes, show_bytes, show_count
from .fit import TAKEN
from .shared import add_options, count, engine_options, flag, subject_model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from ..traces.replaying import Replay
    from ..traces.run import Queue, Run
    from ..traces.search import Found

FIGURES = (".png", ".svg", ".pdf")
SERIES = (".parquet", ".csv")
UNITS = {"ms": 10**6, "us": 10**3, "ns": 1, "min": 60 * 10**9, "h": 3600 * 10**9, "s": 10**9}


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trace",
        help="Azure LLM inference CSV, BurstGPT CSV, Mooncake JSONL, or a CSV with named columns; plain, .gz or .zst; - for standard input",
    )
    flag(
        parser, "model", action="append", required=True, metavar="M",
        help="what estimate takes, or a pattern; several are overlaid; @engine=…,dtype=…,label=… after it for that one",
    )  # fmt: skip
    parser.add_argument("--engine", default="vllm", help="vllm, sglang, transformers or logical (default: vllm)")
    parser.add_argument("--dtype", help="of the model (default: the config's own)")
    memory = parser.add_argument_group("memory for state (default: without a limit)")
    memory.add_argument("--gpu", help="what this kind of GPU leaves beside weights, as fit has it, such as H100-80G")
    flag(memory, "gpu_memory", help="bytes of one GPU instead, such as 79.6GiB")
    memory.add_argument("--gpus", type=count, help="GPUs that share every layer (default: 1)")
    memory.add_argument("--tp", type=count, help="the same, by fit's name")
    memory.add_argument(
        "--weights", metavar="F", help="the checkpoint, as fit has it (default: an estimate from the config)"
    )
    memory.add_argument("--memory", help="bytes for state instead, such as 60GiB")
    memory.add_argument(
        "--uncapped", action="store_true", help="demand without a queue; the memory is a line that it may pass"
    )
    flag(
        memory, "prefix_sharing", choices=("on", "off"), default="on",
        help="prompts share blocks of the same hashes, where the trace has them (default: on)",
    )  # fmt: skip
    flag(
        memory,
        "max_queue",
        metavar="TIME",
        help="look for the fewest GPUs, or the least memory, that keep waits below, such as 1s or 200ms",
    )
    flag(
        memory,
        "queue_percentile",
        default="p99",
        metavar="P",
        help="of the waits: p50, p90, p95, p99 or p99.9 (default: p99)",
    )
    time = parser.add_argument_group("time, which is assumed: an engine's steps are of one length")
    flag(time, "prefill_rate", type=float, metavar="TOKENS/S", help="tokens of prompts per second (default: 20000)")
    flag(
        time,
        "decode_rate",
        type=float,
        metavar="TOKENS/S",
        help="tokens per second of one request that decodes (default: 40)",
    )
    flag(time, "fit_rates", action="store_true", help="fit both to how long requests took, where the trace says so")
    parser.add_argument(
        "--columns", help="time=NAME,prompt=NAME,output=NAME,unit=s (or ms, us, ns), where the names are others"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first line that is no request or goes back in time"
    )
    add_options(
        parser,
        "for all models, such as max_model_len=32k (k and M are 1024-based) or gpu_memory_utilization=0.95 (vllm)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: counts, service, and of each model peak, percentiles, queue …"
    )
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        help="write a figure (.png, .svg, .pdf) or the series (.parquet, .csv); may be repeated",
    )
    parser.add_argument("--title", help="of the figure")


def run(arguments: argparse.Namespace) -> int:
    for output in arguments.output:
        if not output.lower().endswith((*FIGURES, *SERIES)):
            raise BadConfig(
                f"output {show(output)}: expected a name that ends in one of {', '.join((*FIGURES, *SERIES))}"
            )
    options = engine_options(arguments.option)
    for key in TAKEN.intersection(options):
        raise BadConfig(
            f"option {key}={show(options[key])}: not an engine's; expected --{key} where this command has it"
        )
    given = {
        "engine": arguments.engine, "dtype": arguments.dtype, "gpu": arguments.gpu,
        "gpu_memory": arguments.gpu_memory and parse_bytes(arguments.gpu_memory, "gpu_memory"),
        "weights": arguments.weights, "prefix_sharing": arguments.prefix_sharing == "on", "prefill_rate": arguments.prefill_rate,
        "decode_rate": arguments.decode_rate, "fit_rates": arguments.fit_rates, "columns": arguments.columns,
        "strict": arguments.strict, "progress": progress() if sys.stderr.isatty() else None,
    }  # fmt: skip
    found: Found | None = None
    if arguments.max_queue is not None:
        found = searched(arguments, given, options)
        result = found.replay
    else:
        result = replayed(arguments, given, options)
    if arguments.json:
        import json

        print(json.dumps(result.to_dict() if found is None else found.to_dict()))
    else:
        print("\n".join(clean(line) for line in lines(result, found)))
    return written(result, arguments)


def replayed(arguments: argparse.Namespace, given: dict[str, Any], options: dict[str, Any]) -> Replay:
    from ..traces.replaying import replay_models

    models = [subject(text, given, options) for text in arguments.model]
    memory = arguments.memory and parse_bytes(arguments.memory, "memory")
    return replay_models(
        arguments.trace, models, gpus=arguments.gpus, tp=arguments.tp, memory=memory, capped=False if arguments.uncapped else None,
        **{name: value for name, value in given.items() if name not in ("engine", "dtype")},
    )  # fmt: skip


def subject(
    text: str, given: dict[str, Any], options: dict[str, Any]
) -> tuple[Any, str | None, str, str | None, dict[str, Any]]:
    """MODEL or MODEL@engine=E,dtype=D,label=L,…: the model, its label, engine, dtype and the engine's options."""
    name, at, tail = text.partition("@")
    pairs = tail.split(",") if at and "=" in tail else []
    own = engine_options(pairs)
    label, engine, dtype = (
        own.pop("label", None),
        str(own.pop("engine", given["engine"])),
        own.pop("dtype", given["dtype"]),
    )
    source = name if pairs else text
    # A path stays one, so that the weights beside a config are found.
    return source if os.path.exists(source) else subject_model(source, {}), label, engine, dtype, {**options, **own}


def searched(arguments: argparse.Namespace, given: dict[str, Any], options: dict[str, Any]) -> Found:
    from ..traces.search import smallest

    for name in ("gpus", "tp", "memory", "uncapped"):
        if getattr(arguments, name):
            raise BadConfig(f"{name}: beside max_queue, which looks for it; expected one of both")
    if len(arguments.model) > 1:
        raise BadConfig(f"model: {len(arguments.model)} of them; expected one with --max_queue")
    model, _, engine, dtype, own = subject(arguments.model[0], given, options)
    return smallest(
        arguments.trace, model, max_queue_ns=duration(arguments.max_queue), percentile=arguments.queue_percentile,
        **{**given, "engine": engine, "dtype": dtype}, **own,
    )  # fmt: skip


def duration(text: str) -> int:
    """Nanoseconds of 1s, 200ms, 2min."""
    from fractions import Fraction

    word = text.strip().lower()
    for unit, factor in UNITS.items():
        digits = word.removesuffix(unit)
        whole, _, rest = digits.partition(".")
        if word.endswith(unit) and digits.isascii() and (whole + rest).isdigit() and len(digits) < 16:
            return int(Fraction(digits) * factor)
    raise BadConfig(f"max_queue: {show(text)}; expected a time such as 1s, 200ms or 2min")


def written(result: Replay, arguments: argparse.Namespace) -> int:
    """The files. What could be written stays, and the first that could not is told at the end."""
    failed: MemcurveError | None = None
    for output in arguments.output:
        try:
            if output.lower().endswith(SERIES):
                from ..traces.writing import write

                rows = write(result, output)
                print(f"wrote {output}: {rows:,} rows", file=sys.stderr if arguments.json else sys.stdout)
                continue
            from ..traces.drawing import draw
            from .plot import save

            save(draw(result, arguments.title), output)
            print(f"wrote {output}", file=sys.stderr if arguments.json else sys.stdout)
        except MemcurveError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return 0


def progress() -> Callable[[int, int], None]:
    """A line on a terminal that says how much of the file was read, from the second second on, and what takes long before that."""
    import logging
    from time import monotonic

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("\r\x1b[K%(message)s"))
    logger = logging.getLogger("memcurve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    start = shown = monotonic()

    def tell(done: int, size: int) -> None:
        nonlocal shown
        now = monotonic()
        if now - start > 1 and now - shown > 0.2:
            shown = now
            part = f"{100 * done / size:3.0f} % of {show_bytes(size)}" if size else show_bytes(done)
            sys.stderr.write(
                f"\r{part}, {done / (now - start) / 2**20:,.0f} MiB/s\x1b[K" if done < size or not size else "\r\x1b[K"
            )
            sys.stderr.flush()

    return tell


# -- the table ------------------------------------------------------------------------------------------------------------


def lines(replay: Replay, found: Found | None) -> list[str]:
    counts = replay.counts
    head = [
        f"{replay.trace.rpartition('/')[2]} · {replay.format} · {counts['requests']:,} requests over {span(replay.span_ns)}: "
        f"{replay.prompt_tokens:,} prompt and {replay.output_tokens:,} output tokens",
        f"assumed: {replay.assumption}",
    ]
    if found is not None:
        head += ["", *search_lines(found)]
    if len(replay.runs) == 1:
        head += ["", *run_lines(replay.runs[0])]
    else:
        head += ["", *table(replay.runs)]
    notes = list(replay.notes)
    for run in replay.runs:
        notes += [note if len(replay.runs) == 1 else f"{run.name}: {note}" for note in (*told(run), *run.notes)]
    return head + [f"note: {note}" for note in dict.fromkeys(notes)]


def search_lines(found: Found) -> list[str]:
    limit, waited = span(found.limit_ns), span(found.waited_ns)
    what = (
        f"fewest GPUs: {found.gpus}"
        if found.gpus
        else f"least memory: {found.memory_bytes:,} B ({show_bytes(found.memory_bytes)})"
    )
    rows = [
        f"{what}, with which {found.percentile} of the waits is {waited}, of {limit} allowed ({len(found.tried)} tried)"
    ]
    if found.gpus:
        for one in found.tried:
            what = f"{span(one.waited_ns)}, mostly for {one.why}" if one.waited_ns is not None else one.why
            rows.append(f"  {one.gpus} GPU{'' if one.gpus == 1 else 's'}: {what}")
    if not found.monotone:
        rows.append("  more memory did not always mean less waiting: a smaller one may do it too")
    return rows


def run_lines(run: Run) -> list[str]:
    where = (
        f" · {run.gpus} GPUs of {run.gpu}, bytes of each"
        if run.gpus > 1
        else f" · one GPU of {run.gpu}"
        if run.gpus
        else ""
    )
    rows = [f"{run.name} · {run.engine} · {run.dtype}{where}"]
    if run.capacity_bytes is not None:
        rows.append(f"  {'capacity':<14} {size(run.capacity_bytes)}")
    rows.append(
        f"  {'peak':<14} {size(run.peak_bytes)}   after {span(run.peak_ns)}, at most {run.peak_running:,} requests at once"
    )
    rows += [f"  {name:<14} {size(value)}" for name, value in run.percentiles.items()]
    part = "" if run.utilisation is None else f"   {run.utilisation:.1%} of the capacity"
    rows.append(
        f"  {'mean':<14} {size(run.mean_bytes)}{part}; {run.mean_running:,.2f} requests; busy {run.busy:.1%} of the time"
    )
    if run.filled is not None:
        rows.append(f"  filled: {run.filled:.1%} of the bytes held; the rest is padding, and what is reserved ahead")
    if run.over is not None and run.capacity_bytes is not None:
        rows.append(
            f"  over the capacity: {run.over:.2%} of the time, by at most {show_bytes(run.over_bytes or 0)}"
            + (
                f"; kept elsewhere, {show_bytes(run.moved_bytes)} would move out, and in again"
                if run.moved_bytes
                else ""
            )
        )
    return rows + (queue_lines(run.queue) if run.queue else [])


def queue_lines(queue: Queue) -> list[str]:
    waits = " · ".join(f"{name} {span(value)}" for name, value in queue.waited.items())
    first = " · ".join(f"{name} {span(value)}" for name, value in queue.first_token.items())
    out = {name: value for name, value in queue.kept_out.items() if value}
    rows = [
        f"  waits: {waits} · most {span(queue.waited_most)}; at most {queue.waiting_most:,} wait",
        f"  first token after: {first}",
    ]
    if out:
        rows.append(
            "  kept out: "
            + ", ".join(f"{span(value)} for {name}" for name, value in sorted(out.items(), key=lambda one: -one[1]))
        )
    rows.append(
        f"  preempted: {show_count(queue.preempted, 'request')}, {show_count(queue.preemptions, 'time')}"
        + (f", with {queue.dropped_tokens:,} tokens" if queue.preemptions else "")
        + (
            f"; offloaded instead, {show_bytes(queue.offload_bytes)} would move out, and in again"
            if queue.offload_bytes
            else ""
        )
    )
    if queue.reusable_tokens is not None:
        rows.append(
            f"  prefixes: {queue.hit_tokens:,} tokens found cached, {queue.computed_tokens:,} computed; a cache without a limit would find {queue.reusable_tokens:,}"
        )
    return rows


def table(runs: tuple[Run, ...]) -> list[str]:
    """Models in columns of the same numbers."""
    capped = any(run.capped for run in runs)
    titles = ["model", "peak", "p99", "mean", "filled"] + (
        ["capacity"] if any(run.capacity_bytes for run in runs) else []
    )
    titles += ["over it"] if any(run.over is not None for run in runs) else []
    titles += ["p99 of waits", "preempted"] if capped else []
    rows = [titles]
    for run in runs:
        row = [run.name, *map(show_bytes, (run.peak_bytes, run.percentiles["p99"], run.mean_bytes))]
        row.append("–" if run.filled is None else f"{run.filled:.0%}")
        if "capacity" in titles:
            row.append("–" if run.capacity_bytes is None else show_bytes(run.capacity_bytes))
        if "over it" in titles:
            row.append("–" if run.over is None else f"{run.over:.2%}")
        if capped:
            row += ["–", "–"] if run.queue is None else [span(run.queue.waited["p99"]), f"{run.queue.preempted:,}"]
        rows.append(row)
    wide = [max(len(row[index]) for row in rows) for index in range(len(titles))]
    return [
        "  ".join(cell.ljust(wide[0]) if index == 0 else cell.rjust(wide[index]) for index, cell in enumerate(row))
        for row in rows
    ]


def told(run: Run) -> list[str]:
    found = []
    if run.turned_down:
        found.append(f"turned down {show_count(run.turned_down, 'request')}, too long for the engine")
    if run.cut:
        found.append(f"{run.cut:,} outputs end early, at the engine's longest request")
    return found


def size(count: int) -> str:
    return f"{count:>19,} B  {show_bytes(count):>11}"


def span(nanoseconds: int) -> str:
    """A time for people."""
    seconds = nanoseconds / 1e9
    if seconds < 1:
        return f"{1e3 * seconds:,.0f} ms"
    if seconds < 120:
        return f"{seconds:,.2f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
