"""memcurve estimate: exact bytes at a context, unfolded."""

from __future__ import annotations

from ..base import BadConfig, TooMuch, clean, show
from ..schema import encoder_of, engines_data, estimate_data, fitting_data, growing
from ..units import parse_bytes, parse_counts, show_bytes, show_count, show_tokens
from .shared import ENCODER_HELP, add_engine, count, engine_options, flag, subject_model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ..curve import MemoryCurve
    from ..model import Model
    from ..terms import Pool


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="a catalogue name, a config.json or a folder with one, a hub id, or a pattern such as 3gdn:1mha"
    )
    parser.add_argument(
        "--context",
        default="4k,32k,128k",
        help="tokens held per sequence; several with commas; k, K and M are 1024-based (default: 4k,32k,128k)",
    )
    flag(parser, "batch", type=count, default=1, help="sequences (default: 1)")
    flag(parser, "encoder_context", type=count, help=ENCODER_HELP)
    add_engine(parser, "the config's own")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: schema, model, engine, dtype, batch, and per context bytes with their breakdown",
    )
    parser.add_argument(
        "--memory", help="what an engine's pool has, such as 60GiB: prints what the engine makes of it (vllm, sglang)"
    )
    parser.add_argument(
        "--fits",
        action="store_true",
        help="which of the engine's cache dtypes fit in --memory, widest first (one context)",
    )
    flag(parser, "at_most", metavar="SIZE", help="exit code 4, after the answer, where it is more, such as 40GiB")
    parser.add_argument("--explain", action="store_true", help="print the formula of every term as well")


def run(arguments: argparse.Namespace) -> None:
    contexts = parse_counts(arguments.context)
    model = subject_model(arguments.model, {})
    options = engine_options(arguments.option)
    for key in ("engine", "dtype", "label"):
        if key in options:
            raise BadConfig(f"option {key}={show(options[key])}: expected --{key} {options[key]}")
    if arguments.at_most is not None and (arguments.fits or arguments.engine == "all"):
        raise BadConfig("at_most: of one engine's bytes; expected neither --engine all nor --fits beside it")
    if arguments.fits:
        show_fits(arguments, model, contexts, options)
    elif arguments.engine == "all":
        side_by_side(arguments, model, contexts)
    else:
        of_one_engine(arguments, model, contexts, options)


def of_one_engine(arguments: argparse.Namespace, model: Model, contexts: list[int], options: dict[str, Any]) -> None:
    curve = model.curve(arguments.engine, arguments.dtype, **options)
    batch, encoder = arguments.batch, encoder_of(model, arguments.encoder_context)
    for context in contexts:
        curve.bytes(context, batch, encoder)
    memory = None if arguments.memory is None else parse_bytes(arguments.memory, "memory")
    most = None if arguments.at_most is None else parse_bytes(arguments.at_most, "at_most")
    pool = None if memory is None else curve.pool(memory)
    if arguments.json:
        import json

        print(json.dumps(estimate_data(model, curve, contexts, batch, encoder, memory)))
    else:
        show_estimate(arguments, model, curve, contexts, encoder, pool)
    if most is not None:
        check(curve, contexts, batch, encoder, most)


def check(curve: MemoryCurve, contexts: list[int], batch: int, encoder: int, most: int) -> None:
    """TooMuch where a context takes more than so many bytes: the most of them, and the context that would fit."""
    size, context = max((curve.bytes(context, batch, encoder), context) for context in contexts)
    if size <= most:
        return
    try:
        longest = curve.max_context(most, batch, encoder)
    except BadConfig:  # not even the smallest context fits
        longest = 0
    fits = f"the longest context that fits is {show_count(longest, 'token')}" if longest else "no context fits"
    raise TooMuch(
        f"{curve.name}: {size:,} B ({show_bytes(size)}) at {show_count(context, 'token')}, batch {batch:,}; expected at most {most:,} B "
        f"({show_bytes(most)}): {fits}"
    )


def show_estimate(
    arguments: argparse.Namespace,
    model: Model,
    curve: MemoryCurve,
    contexts: list[int],
    encoder: int,
    pool: Pool | None,
) -> None:
    batch = arguments.batch
    print(f"{clean(model.name)} · {model.structure}")
    print(
        f"engine {curve.engine} · {curve.dtype} · batch {batch:,}"
        + (f" · encoder context {encoder:,}" if encoder else "")
    )
    if len(contexts) == 1:
        total = curve.bytes(contexts[0], batch, encoder)
        print(f"{total:,} bytes ({show_bytes(total)}) at {show_count(contexts[0], 'token')}")
        print("\n".join(clean(line) for line in curve.explain(contexts[0], batch, encoder).splitlines()[1:]))
    else:
        print(f"{'context':>12}  {'bytes':>22}  {'':>11}  {'grows':>11}  {'constant':>11}")
        for context in contexts:
            rows = curve.breakdown(context, batch, encoder)
            grows = growing(rows)
            total = curve.bytes(context, batch, encoder)
            print(
                f"{show_tokens(context):>12}  {total:>22,}  {show_bytes(total):>11}  {show_bytes(grows):>11}  {show_bytes(total - grows):>11}"
            )
    if arguments.explain:
        print(
            f"bytes = {curve.formula}, T tokens, B sequences{', E encoder positions' if 'E ×' in curve.formula else ''}"
        )
        for term in curve.terms:
            print(f"  {term.explain()}")
    if arguments.explain and curve.breakpoints:
        print(f"grows at another rate after {', '.join(f'{point:,}' for point in curve.breakpoints)} tokens")
    if len(contexts) > 1:
        for note in curve.notes:
            print(f"note: {note}")
    if pool is not None:
        print("\n".join(pool_lines(pool)))
        if len(contexts) == 1 and (limits := pool.binding(contexts[0])):
            print(f"  requests of {show_count(contexts[0], 'token')} at once: {limits[0]:,}, by {limits[1]}")


def show_fits(arguments: argparse.Namespace, model: Model, contexts: list[int], options: dict[str, Any]) -> None:
    """--fits: the dtypes tried, what each takes, and the widest that fits."""
    from ..engines import SHARED_CONTEXT
    from ..fits import fitting_dtypes

    if arguments.memory is None:
        raise BadConfig("fits: in which memory? expected --memory, such as 60GiB, beside it")
    if len(contexts) != 1 or arguments.engine == "all":
        raise BadConfig("fits: of one context and one engine; expected --context 128k, and no --engine all")
    memory, batch = parse_bytes(arguments.memory, "memory"), arguments.batch
    sizes = {"dtype": arguments.dtype, "encoder_context": arguments.encoder_context}
    found = fitting_dtypes(model, memory, contexts[0], batch, arguments.engine, **sizes, **options)
    if arguments.json:
        import json

        print(json.dumps(fitting_data(model, found, arguments.engine, contexts[0], batch, memory)))
        return
    print(f"{clean(model.name)} · {model.structure}")
    shared = " shared out" if arguments.engine in SHARED_CONTEXT and batch > 1 else ""
    print(
        f"engine {arguments.engine} · batch {batch:,} · {show_count(contexts[0], 'token')}{shared} · {memory:,} B ({show_bytes(memory)}); "
        "cache dtypes, widest first"
    )
    width = max(len(one.name) for one in found.tried)
    for one in found.tried:
        size = "—" if one.bytes is None else f"{one.bytes:,} B ({show_bytes(one.bytes)})"
        print(f"  {one.name:<{width}}  {size:>32}  {'fits' if one.fits else clean(one.why)}")
    print("none fits" if found.widest is None else f"widest that fits: {found.widest.name}")


def pool_lines(pool: Pool) -> list[str]:
    """What an engine makes of memory, a line per count."""
    lines = [f"pool on each rank: {pool.pool_bytes:,} B ({show_bytes(pool.pool_bytes)})"]
    for key, value in pool.as_dict().items():
        word = key.replace("_", " ")
        if isinstance(value, tuple):
            lines += [f"  {word} {name}: {size:,} B" for name, size in value]
        elif key != "pool_bytes" and value is not None:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if isinstance(value, float) else value
            lines.append(f"  {word}: {shown}")
    return lines


def side_by_side(arguments: argparse.Namespace, model: Model, contexts: list[int]) -> None:
    """One table over all engines: bytes at each context, and what makes them differ from the paper's count."""
    from ..engines import NAMES, module

    if arguments.memory is not None:
        raise BadConfig("memory: a pool is of one engine; expected --engine vllm or sglang beside it")
    options, batch = engine_options(arguments.option), arguments.batch
    found = engines_data(model, contexts, batch, arguments.dtype, arguments.encoder_context, options)
    if arguments.json:
        import json

        print(json.dumps(found))
        return
    print(f"{clean(model.name)} · {model.structure} · batch {batch:,}")
    print(f"differences from the paper's count at {show_count(contexts[-1], 'token')}")
    for key in options:
        print(f"{key}: an option of {', '.join(name for name in NAMES if key in module(name).OPTIONS)} only")
    print(f"{'engine':<14}" + "".join(f"{show_tokens(context):>22}" for context in contexts) + "  how")
    rows: Any = found["engines"]
    for row in rows:
        sizes = row["bytes"] or ["—"] * len(contexts)
        print(
            f"{row['engine']:<14}"
            + "".join(f"{size:>22,}" if isinstance(size, int) else f"{size:>22}" for size in sizes)
            + f"  {clean(row['how'])}"
        )
