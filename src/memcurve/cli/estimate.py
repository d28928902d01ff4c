"""memcurve estimate: exact bytes at a context, unfolded."""

from __future__ import annotations

from ..base import BadConfig, MemcurveError, show
from ..layers import CrossAttention, parts
from ..units import parse_bytes, parse_counts, show_bytes, show_tokens
from .shared import ENCODER_HELP, SCHEMA, add_engine, clean, count, engine_options, flag, subject_model

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
    parser.add_argument("--explain", action="store_true", help="print the formula of every term as well")


def run(arguments: argparse.Namespace) -> None:
    contexts = parse_counts(arguments.context)
    model = subject_model(arguments.model, {})
    options = engine_options(arguments.option)
    for key in ("engine", "dtype", "label"):
        if key in options:
            raise BadConfig(f"option {key}={show(options[key])}: expected --{key} {options[key]}")
    if arguments.fits:
        return show_fits(arguments, model, contexts, options)
    if arguments.engine == "all":
        return side_by_side(arguments, model, contexts)
    curve = model.curve(arguments.engine, arguments.dtype, **options)
    batch, encoder = arguments.batch, encoder_of(arguments, model, curve)
    for context in contexts:
        curve.bytes(context, batch, encoder)
    pool = None if arguments.memory is None else curve.pool(parse_bytes(arguments.memory, "memory"))
    if arguments.json:
        import json

        found = estimate_data(model, curve, contexts, batch, encoder)
        print(json.dumps(found if pool is None else found | {"pool": pool.as_dict()}))
        return None
    print(f"{clean(model.name)} · {model.structure}")
    print(
        f"engine {curve.engine} · {curve.dtype} · batch {batch:,}"
        + (f" · encoder context {encoder:,}" if encoder else "")
    )
    if len(contexts) == 1:
        total = curve.bytes(contexts[0], batch, encoder)
        print(f"{total:,} bytes ({show_bytes(total)}) at {contexts[0]:,} tokens")
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
            print(f"  requests of {contexts[0]:,} tokens at once: {limits[0]:,}, by {limits[1]}")
    return None


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

        tried = [
            {"name": one.name, "options": dict(one.options), "bytes": one.bytes, "fits": one.fits, "why": one.why}
            for one in found.tried
        ]
        asked = {"engine": arguments.engine, "context": contexts[0], "batch": batch, "memory": memory}
        widest = None if found.widest is None else found.widest.name
        print(json.dumps({"schema": SCHEMA, "model": model.name, **asked, "widest": widest, "tried": tried}))
        return
    print(f"{clean(model.name)} · {model.structure}")
    shared = " shared out" if arguments.engine in SHARED_CONTEXT and batch > 1 else ""
    print(
        f"engine {arguments.engine} · batch {batch:,} · {contexts[0]:,} tokens{shared} · {memory:,} B ({show_bytes(memory)}); "
        "cache dtypes, widest first"
    )
    width = max(len(one.name) for one in found.tried)
    for one in found.tried:
        size = "—" if one.bytes is None else f"{one.bytes:,} B ({show_bytes(one.bytes)})"
        print(f"  {one.name:<{width}}  {size:>32}  {'fits' if one.fits else clean(one.why)}")
    print("none fits" if found.widest is None else f"widest that fits: {found.widest.name}")


def by_kind(rows: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["kind"]] = found.get(row["kind"], 0) + row["bytes"]
    return found


def difference(kinds: dict[str, int], paper: dict[str, int], how: str) -> str:
    """What an engine keeps more or less of than the paper's count, the most first, and how it counts."""
    gaps = {kind: kinds.get(kind, 0) - paper.get(kind, 0) for kind in {*kinds, *paper}}
    most = sorted((kind for kind in gaps if gaps[kind]), key=lambda kind: (-abs(gaps[kind]), kind))
    if not most:
        return f"the same here; {how}"
    return (
        ", ".join(f"{kind} {'+' if gaps[kind] > 0 else '−'}{show_bytes(abs(gaps[kind]))}" for kind in most[:2])
        + f"; {how}"
    )


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


def encoder_of(arguments: argparse.Namespace, model: Model, curve: MemoryCurve) -> int:
    """Positions of the encoder: as asked, or the model's own."""
    encoder: int | None = arguments.encoder_context
    if encoder is None:
        return model.encoder_context
    crosses = any(isinstance(part, CrossAttention) for layer in model.layers for part in parts(layer))
    if encoder and not crosses:
        raise BadConfig(f"encoder_context: {encoder}; {model.name} keeps nothing of an encoder: expected 0")
    return encoder


def side_by_side(arguments: argparse.Namespace, model: Model, contexts: list[int]) -> None:
    """One table over all engines: bytes at each context, and what makes them differ from the paper's count."""
    from ..engines import HOW, NAMES, SHARED_CONTEXT, module

    if arguments.memory is not None:
        raise BadConfig("memory: a pool is of one engine; expected --engine vllm or sglang beside it")
    options, batch = engine_options(arguments.option), arguments.batch
    known = {name: module(name).OPTIONS for name in NAMES}
    for key in options:
        if not any(key in own for own in known.values()):
            raise BadConfig(f"{key}: {show(options[key])}; not an option of any engine")
    rows: list[dict[str, Any]] = []
    paper: dict[str, int] = {}
    for name in NAMES:
        row: dict[str, Any] = {"engine": name, "bytes": None, "how": HOW[name]}
        try:
            curve = model.curve(name, arguments.dtype, **{k: v for k, v in options.items() if k in known[name]})
            encoder = encoder_of(arguments, model, curve)
            share = max(batch, 1) if name in SHARED_CONTEXT else 1
            row["bytes"] = [curve.bytes(context * share, batch, encoder) for context in contexts]
            kinds = by_kind(curve.breakdown(contexts[-1] * share, batch, encoder))
            if name == "logical":
                paper = kinds
            elif paper:
                row["how"] = difference(kinds, paper, HOW[name])
            if share > 1:
                row["how"] += f"; n_ctx is {share:,} times the context"
        except MemcurveError as error:
            row["how"] = str(error)
        rows.append(row)
    if arguments.json:
        import json

        found = {"schema": SCHEMA, "model": model.name, "batch": batch, "contexts": contexts, "engines": rows}
        print(json.dumps(found))
        return
    print(f"{clean(model.name)} · {model.structure} · batch {batch:,}")
    print(f"differences from the paper's count at {contexts[-1]:,} tokens")
    for key in options:
        print(f"{key}: an option of {', '.join(name for name in NAMES if key in known[name])} only")
    print(f"{'engine':<14}" + "".join(f"{show_tokens(context):>22}" for context in contexts) + "  how")
    for row in rows:
        sizes = row["bytes"] or ["—"] * len(contexts)
        print(
            f"{row['engine']:<14}"
            + "".join(f"{size:>22,}" if isinstance(size, int) else f"{size:>22}" for size in sizes)
            + f"  {clean(row['how'])}"
        )


def growing(rows: list[dict[str, Any]]) -> int:
    return sum(row["bytes"] for row in rows if row["grows"])


def estimate_data(model: Model, curve: MemoryCurve, contexts: list[int], batch: int, encoder: int) -> dict[str, object]:
    """Schema 1. With one context, `context` and `bytes` also stand at the top."""
    estimates = []
    for context in contexts:
        rows = curve.breakdown(context, batch, encoder)
        total = curve.bytes(context, batch, encoder)
        grows = growing(rows)
        estimates.append(
            {
                "context": context,
                "bytes": total,
                "growing_bytes": grows,
                "constant_bytes": total - grows,
                "breakdown": rows,
            }
        )
    found: dict[str, object] = {
        "schema": SCHEMA,
        "model": model.name,
        "model_type": model.model_type,
        "structure": model.structure,
        "engine": curve.engine,
        "dtype": curve.dtype,
        "batch": batch,
        "encoder_context": encoder,
        "formula": curve.formula,
        "breakpoints": list(curve.breakpoints),
        "notes": list(curve.notes),
        "estimates": estimates,
    }
    return found | ({"context": contexts[0], "bytes": estimates[0]["bytes"]} if len(contexts) == 1 else {})
