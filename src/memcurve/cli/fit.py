"""memcurve fit: does a model fit these GPUs, how long a context, how many requests, and what binds."""

from __future__ import annotations

from ..base import BadConfig, TooMuch, clean, show
from ..engines import IN_PIECES
from ..units import parse_bytes, parse_count, show_bytes, show_count, show_tokens
from .estimate import pool_lines
from .shared import add_options, count, engine_options, flag, read_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..fitting import Fit, PerGpu
    from ..steady import Steady

# What a bar is drawn with, in the order of a GPU's parts.
FILLS = (("weights", "█"), ("state", "▓"), ("set aside", "▒"), ("free", "·"))
WIDTH = 60
# What fit takes by itself, and no engine's option.
TAKEN = frozenset(
    "model gpu gpu_memory gpus engine dtype tp pp context batch weights log reserve speculative prefix_caching prompt output label wired_limit_mb".split()
)


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="a catalogue name, a config.json, a folder with a checkpoint, a .gguf file, or a hub id"
    )
    parser.add_argument("--gpu", help="what kind of GPU, such as H100-80G or RTX-4090 (see: memcurve gpus)")
    flag(parser, "gpu_memory", help="bytes of one GPU instead, such as 79.6GiB")
    flag(
        parser, "wired_limit_mb", type=int, metavar="MiB",
        help="what sysctl iogpu.wired_limit_mb of a Mac is set to (default: macOS's own share)",
    )  # fmt: skip
    parser.add_argument("--gpus", type=count, help="how many (default: 1, or tp × pp)")
    parser.add_argument(
        "--tp", type=count, help="GPUs that share every layer (default: as many as the model divides by)"
    )
    parser.add_argument("--pp", type=count, help="pipeline stages; with llamacpp GPUs that share the layers out")
    parser.add_argument(
        "--engine", default="vllm", help="vllm, sglang, llamacpp, mlx, transformers or logical (default: vllm)"
    )
    parser.add_argument("--dtype", help="of the model (default: the config's own)")
    parser.add_argument(
        "--context",
        type=count,
        help="tokens of each request; k and M are 1024-based (default: 8k, or the model's longest)",
    )
    flag(parser, "batch", type=count, default=1, help="requests at once (default: 1)")
    parser.add_argument(
        "--weights",
        metavar="F",
        help="the checkpoint: a file, a folder or a hub id (default: an estimate from the config)",
    )
    parser.add_argument("--log", metavar="FILE", help="a start-up log of this engine, which replaces what is assumed")
    parser.add_argument(
        "--reserve", help="what the engine sets aside on each GPU, such as 6GiB, instead of its own rule"
    )
    lengths = "tokens, lognormal(median,sigma), or a CSV file with the columns prompt and output"
    flag(parser, "prompt_tokens", help=f"with --output_tokens: how many run at once when kept full: {lengths}")
    flag(parser, "output_tokens", help="the same of outputs")
    parser.add_argument(
        "--speculative", type=count, metavar="N", help="N tokens ahead, drafted by the model's own draft layers (MTP)"
    )
    flag(parser, "prefix_caching", choices=("on", "off"), help="keep prefixes for reuse (default: the engine's own)")
    add_options(
        parser, "such as gpu_memory_utilization=0.95 (vllm), mem_fraction_static=0.85 (sglang), type_k=q8_0 (llamacpp)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: fits, per_gpu, max_context, max_requests, bound_by …"
    )
    flag(parser, "exit_code", action="store_true", help="exit code 4, after the answer, where it does not fit")
    parser.add_argument("--explain", action="store_true", help="unfold every number")
    parser.add_argument("-o", "--output", help="write a figure: .png, .svg or .pdf")


def run(arguments: argparse.Namespace) -> None:
    from ..fitting import fit

    own = engine_options(arguments.option)
    for key in TAKEN.intersection(own):
        raise BadConfig(f"option {key}={show(own[key])}: expected --{key} {own[key]}")
    found = fit(
        arguments.model,
        gpu=arguments.gpu,
        gpu_memory=arguments.gpu_memory and parse_bytes(arguments.gpu_memory, "gpu_memory"),
        gpus=arguments.gpus,
        engine=arguments.engine,
        dtype=arguments.dtype,
        tp=arguments.tp,
        pp=arguments.pp,
        context=arguments.context,
        batch=arguments.batch,
        weights=arguments.weights,
        log=arguments.log and read_log(arguments.log),
        reserve=arguments.reserve and parse_bytes(arguments.reserve, "reserve"),
        speculative=arguments.speculative,
        prefix_caching=None if arguments.prefix_caching is None else arguments.prefix_caching == "on",
        prompt=tokens(arguments.prompt_tokens),
        output=tokens(arguments.output_tokens),
        wired_limit_mb=arguments.wired_limit_mb,
        **own,
    )
    if arguments.output:
        check_ending(arguments.output)
        from ..bars import draw
        from .plot import save

        save(draw(found), arguments.output)
    if arguments.json:
        import json

        print(json.dumps(found.to_dict()))
    else:
        print("\n".join(clean(line) for line in lines(found, arguments.explain)))
    if arguments.exit_code and not found.fits:
        raise TooMuch(misfit(found))


def check_ending(output: str) -> None:
    if not output.lower().endswith((".png", ".svg", ".pdf")):
        raise BadConfig(f"output {show(output)}: expected a name that ends in one of .png, .svg, .pdf")


def tokens(text: str | None) -> int | str | None:
    return parse_count(text, "tokens") if text and text[:1].isdigit() else text


def verdict(fit: Fit) -> str:
    if not fit.fits:
        return "does not fit"
    return "fits" if fit.starts_with is None else f"fits, started with max_model_len={fit.starts_with} or less"


def misfit(fit: Fit) -> str:
    """What does not fit, and what would."""
    longest = f"{show_count(fit.max_context, 'token')}" if fit.max_context else "none"
    return (
        f"{fit.model}: {asked(fit)} {'does' if fit.batch == 1 else 'do'} not fit {split(fit)} of {fit.gpu}; largest context at "
        f"batch {fit.batch:,}: {longest}; requests of {show_count(fit.context, 'token')} at once: {fit.max_requests:,}, bound by {fit.bound_by}"
    )


def asked(fit: Fit) -> str:
    return f"{show_count(fit.batch, 'request')} of {show_count(fit.context, 'token')}"


def split(fit: Fit) -> str:
    gpus = "one GPU" if fit.gpus == 1 else f"{fit.gpus} GPUs" + (f", tp {fit.tp}" if fit.tp > 1 else "")
    return gpus + (f", pp {fit.pp}" if fit.pp > 1 else "")


def lines(fit: Fit, explain: bool) -> list[str]:
    found = [
        f"{fit.model} · {fit.engine} · {split(fit)} of {fit.gpu}",
        f"{verdict(fit)}: {asked(fit)}",
        "",
    ]
    for gpu, many in alike(fit):
        found += [*bar(gpu, fit, many), *figures(gpu)]
        if parts_of(gpu) == parts_of(fit.per_gpu):
            found += [f"      of the state, for {name}: {size:,} B ({show_bytes(size)})" for name, size in fit.extras]
        if explain:
            found += [f"      {part.name} {part.bytes:,} B: {part.why}" for part in gpu.allowances]
    end = "without an end" if fit.max_context is None else f"{show_count(fit.max_context, 'token')}"
    if fit.max_context and show_tokens(fit.max_context)[-1] in "kM":
        end += f" ({show_tokens(fit.max_context)})"
    found += [
        "",
        f"largest context at batch {fit.batch:,}: {end}",
        f"requests of {show_count(fit.context, 'token')} at once: {fit.max_requests:,}, bound by {fit.bound_by}",
    ]
    if fit.steady is not None:
        found += steady_lines(fit.steady)
    if fit.pool is not None:
        found += pool_lines(fit.pool)
    if fit.fewest:
        gpus, tp, pp = fit.fewest
        found.append(f"fewest GPUs that do it: {gpus}" + (f" (tp {tp}, pp {pp})" if gpus > 1 else ""))
    elif fit.engine not in IN_PIECES:  # which are described on one machine alone
        most = fit.curves[0].allocator and fit.curves[0].allocator.bounds().get("context")
        why = (
            f"more than {most[0]} {show_count(most[1], 'token')}" if most and fit.context > most[1] else "none up to 64"
        )
        found.append(f"fewest GPUs that do it: {why}")
    found.append(f"weights: {fit.weights}")
    found += [f"note: {note}" for note in fit.notes]
    if explain:
        for number, curve in enumerate(fit.curves):
            found += ["", f"state of one request on stage {number + 1}:" if fit.pp > 1 else "state of one request:"]
            found += curve.explain(fit.context).splitlines()[1:]
    return found


def steady_lines(steady: Steady) -> list[str]:
    found = [
        f"kept full: {steady.mean:,.1f} run at once on average, {steady.running:,} at most, bound by {steady.bound_by}; "
        f"{show_count(steady.preemptions, 'preemption')} over {steady.requests:,} requests"
    ]
    if steady.pessimistic is not None:
        found.append(
            f"  (what the engine logs, {steady.pessimistic:,.2f}, is of requests of {show_count(steady.longest, 'token')}, the longest it takes)"
        )
    if steady.turned_down:
        found.append(f"  {steady.turned_down:,} requests are too long for it")
    return found


def parts_of(gpu: PerGpu) -> tuple[int, int, int, int]:
    return gpu.weights_bytes, gpu.state_bytes, gpu.reserve_bytes, gpu.free_bytes


def alike(fit: Fit) -> list[tuple[PerGpu, int]]:
    """Stages that hold the same, one for all that follow each other, and how many."""
    found: list[tuple[PerGpu, int]] = []
    for gpu in fit.stages:
        if found and parts_of(found[-1][0]) == parts_of(gpu):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((gpu, 1))
    return found


def bar(gpu: PerGpu, fit: Fit, many: int) -> list[str]:
    """One GPU as a bar of its parts; what does not fit runs over its end."""
    edges, filled = [0], 0
    for size in parts_of(gpu)[:3]:
        filled += size
        edges.append(min(round(filled * WIDTH / gpu.total_bytes), 2 * WIDTH))
    text = "".join(fill * (high - low) for (_, fill), low, high in zip(FILLS, edges, edges[1:], strict=False))
    shown = text + "·" * (WIDTH - len(text)) + "|" if len(text) <= WIDTH else f"{text[:WIDTH]}|{text[WIDTH:]}"
    each = fit.gpus // fit.pp
    stages = f"stage {gpu.stage + 1}" if many == 1 else f"stages {gpu.stage + 1} to {gpu.stage + many}"
    who = f"{stages}, " if fit.pp > 1 else ""
    return [f"  {who}{f'each of {each} GPUs' if each > 1 else 'GPU'}", f"  [{shown}"]


def figures(gpu: PerGpu) -> list[str]:
    rows = []
    for (name, fill), size in zip(FILLS, parts_of(gpu), strict=True):
        word = "lacking" if name == "free" and size < 0 else name
        rows.append(f"    {fill} {word:<10} {abs(size):>19,} B  {show_bytes(abs(size)):>11}")
    return [*rows, f"      {'total':<10} {gpu.total_bytes:>19,} B  {show_bytes(gpu.total_bytes):>11}"]
