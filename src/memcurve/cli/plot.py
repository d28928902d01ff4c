"""memcurve plot: memory against context, for any architectures."""

from __future__ import annotations

import os
import sys

from ..base import BadConfig, MemcurveError, clean, show
from ..engines import NAMES
from ..units import parse_bytes
from .shared import ENCODER_HELP, add_engine, count, engine_options, flag, subject_model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ..curve import MemoryCurve
    from ..export import Subject


FORMATS = ("pdf", "svg", "png", "html", "csv", "json")
MAP_FORMATS = ("pdf", "svg", "png", "csv", "json")


def build(parser: argparse.ArgumentParser) -> None:
    from ..patterns import SIZES

    parser.add_argument(
        "subjects",
        nargs="*",
        metavar="SUBJECT",
        help="what `estimate` takes, or a pattern; @engine=…,dtype=…,label=… after it for that one. None: the three curves of the seed's figure",
    )
    parser.add_argument(
        "-o",
        "--output",
        help="file to write; its ending says how: pdf, svg, png, html, csv or json (default: deltanet_memory_plot.pdf, or memcurve.pdf with subjects)",
    )
    sizes = parser.add_argument_group("sizes of the seed's figure and of patterns")
    for name, (default, text) in SIZES.items():
        flag(sizes, name, type=count, help=text if default is None else f"{text} (default: {default})")
    flag(parser, "batch", type=count, default=1, help="sequences (default: 1)")
    flag(parser, "encoder_context", type=count, help=ENCODER_HELP)
    flag(parser, "min_ctx", type=count, default=128, help="smallest context (default: 128)")
    flag(
        parser, "max_ctx", type=count, default=131_072, help="largest context; k and M are 1024-based (default: 131072)"
    )
    parser.add_argument(
        "--step", type=count, default=100, help="tokens between the rows of csv and json (default: 100)"
    )
    parser.add_argument(
        "--gpu", action="append", default=[], help="draws a line at the memory of this GPU; may be given again"
    )
    parser.add_argument(
        "--memory",
        help="draws a line at so many bytes, such as 60GiB; in a map the edge of what fits, as the engine's pool would hold it",
    )
    parser.add_argument("--log", default="", choices=("", "x", "y", "xy"), help="logarithmic axes: x, y or xy")
    maps = parser.add_argument_group("map of context and batch, of one subject: pdf, svg, png, csv or json")
    maps.add_argument(
        "--heatmap", action="store_true", help="bytes as colours, both axes logarithmic, with the engine's own bounds"
    )
    flag(maps, "max_batch", type=count, default=256, help="largest batch of the map (default: 256)")
    parser.add_argument("--title", help="title instead of engine, dtype and batch")
    add_engine(parser, "bf16 for the seed's figure and patterns, else the config's own")


def run(arguments: argparse.Namespace) -> None:
    from ..export import check_range, default_title, sample, to_csv, to_html, to_json
    from ..patterns import SIZES, is_pattern

    if arguments.heatmap:
        return run_map(arguments)
    lines = memory_lines(arguments)
    seed = not arguments.subjects
    output = arguments.output or ("deltanet_memory_plot.pdf" if seed else "memcurve.pdf")
    ending = os.path.splitext(output)[1].removeprefix(".").lower()
    if ending not in FORMATS:
        raise BadConfig(f"output {show(output)}: expected a name that ends in one of .{', .'.join(FORMATS)}")
    if lines and ending in ("csv", "json"):
        raise BadConfig(f"output {show(output)}: {ending} has no lines at memory; expected pdf, svg, png or html")
    check_range(arguments.min_ctx, arguments.max_ctx)
    contexts = [arguments.min_ctx, arguments.max_ctx]
    if seed or ending in ("csv", "json"):
        contexts = sample(arguments.min_ctx, arguments.max_ctx, arguments.step)
    sizes = {name: value for name in SIZES if (value := getattr(arguments, name)) is not None}
    if seed:
        from .. import seed as seeds

        own = {name: sizes.pop(name, SIZES[name][0]) for name in ("emb_dim", "n_heads", "n_layers")}
        if sizes:
            raise BadConfig(
                f"{next(iter(sizes))}: the seed's figure has none; expected subjects that are patterns beside it"
            )
        if arguments.engine != "logical" or arguments.option:
            raise BadConfig(
                "engine: the seed's figure has none; expected subjects, such as 3gdn:1mha, beside --engine and --option"
            )
        subjects = seeds.subjects(**own, dtype=arguments.dtype or "bf16")
    else:
        subjects = all_subjects(arguments, sizes)
        if sizes and not any(is_pattern(parted(text)[0]) for text in arguments.subjects):
            raise BadConfig(
                f"{next(iter(sizes))}: sizes are for patterns; expected one such as 3gdn:1mha among the subjects"
            )
        kinks = {kink for subject in subjects for kink in subject.curve.kinks(arguments.batch)}
        contexts = sorted(
            {*contexts, arguments.max_ctx, *(kink for kink in kinks if contexts[0] <= kink <= arguments.max_ctx)}
        )
    title = arguments.title or default_title(subjects, arguments.batch)
    if ending in ("json", "csv", "html"):
        text = (
            to_html(subjects, contexts, arguments.batch, title, arguments.log, lines)
            if ending == "html"
            else (to_json if ending == "json" else to_csv)(subjects, contexts, arguments.batch)
        )
        write(output, text)
    else:
        from ..figures import hurry, plot, plot_seed

        hurry()
        if seed and not arguments.log and not arguments.title and not lines:
            figure = plot_seed(subjects, contexts, arguments.batch)
        else:
            figure = plot(
                subjects,
                min_ctx=contexts[0],
                max_ctx=contexts[-1],
                batch=arguments.batch,
                log=arguments.log,
                title=title,
                memory=lines,
            )
        save(figure, output)
    print(f"wrote {output}")
    return None


def memory_lines(arguments: argparse.Namespace) -> dict[str, int]:
    """The amounts of memory to draw, by name."""
    from ..gpus import gpu

    cards = [gpu(name) for name in arguments.gpu]
    own = {} if arguments.memory is None else {"memory": parse_bytes(arguments.memory)}
    return {card.name: card.memory_bytes for card in cards} | own


def run_map(arguments: argparse.Namespace) -> None:
    """--heatmap: one subject over context and batch."""
    from ..export import check_range
    from ..heat import heatmap, map_csv, map_json, scale
    from ..patterns import SIZES

    output = arguments.output or "memcurve.pdf"
    ending = os.path.splitext(output)[1].removeprefix(".").lower()
    if ending not in MAP_FORMATS:
        raise BadConfig(f"output {show(output)}: expected a name that ends in one of .{', .'.join(MAP_FORMATS)}")
    for name, given in (("batch", arguments.batch != 1), ("log", arguments.log)):
        if given:
            raise BadConfig(f"{name}: a map has its own; expected --max_batch and no --log")
    if arguments.gpu:
        raise BadConfig(f"gpu: {show(arguments.gpu[0])}; expected --memory, what a GPU leaves for the state, in a map")
    if len(arguments.subjects) != 1:
        raise BadConfig(f"subjects: {len(arguments.subjects)}; expected one with --heatmap")
    check_range(arguments.min_ctx, arguments.max_ctx)
    sizes = {name: value for name in SIZES if (value := getattr(arguments, name)) is not None}
    curves = subject_curves(arguments.subjects[0], arguments, sizes)
    if len(curves) != 1:
        raise BadConfig("engine: 'all'; expected one engine with --heatmap")
    memory = None if arguments.memory is None else parse_bytes(arguments.memory)
    if ending in ("json", "csv"):
        contexts, batches = scale(arguments.min_ctx, arguments.max_ctx), scale(1, arguments.max_batch)
        text = (
            map_csv(curves[0], contexts, batches) if ending == "csv" else map_json(curves[0], contexts, batches, memory)
        )
        write(output, text)
    else:
        from ..figures import hurry

        hurry()
        sides = {"min_ctx": arguments.min_ctx, "max_ctx": arguments.max_ctx, "max_batch": arguments.max_batch}
        save(heatmap(curves[0], memory=memory, title=arguments.title, **sides), output)
    print(f"wrote {output}")


def save(figure: Any, output: str) -> None:
    """Writes the figure, or nothing; the same figure gives the same bytes: no date, no random ids."""
    import io
    import os

    import matplotlib

    kind, image = output.rpartition(".")[2].lower(), io.BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    matplotlib.rcParams["svg.hashsalt"] = "memcurve"
    figure.savefig(image, format=kind, dpi=160, metadata=dates.get(kind))
    try:
        with open(output, "wb") as file:
            try:
                file.write(image.getvalue())
                file.flush()
            except OSError:
                if os.path.isfile(output):
                    os.unlink(output)
                raise
    except OSError as error:
        raise BadConfig(f"{output}: {error.strerror or error}; expected a place that can be written") from None


def write(output: str, text: str) -> None:
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadConfig(f"{output}: {error.strerror or error}; expected a place that can be written") from None


def all_subjects(arguments: argparse.Namespace, sizes: dict[str, Any]) -> list[Subject]:
    """The subjects of a command line, named apart. Beside other engines, one whose context all sequences share out is drawn
    by the context of each."""
    from ..export import by_sequence, make_subjects

    curves = [curve for text in arguments.subjects for curve in subject_curves(text, arguments, sizes)]
    curves, sharing = by_sequence(curves, arguments.batch)
    for engine in sharing:
        print(f"{engine}: n_ctx is {arguments.batch:,} times the context", file=sys.stderr)
    return make_subjects(curves)


def parted(text: str) -> tuple[str, str]:
    """A subject and the pairs after its @: the first @ that a word and = follow, since files may have one in their names."""
    name = ""
    for piece in text.split("@"):
        rest = text[len(name) + 1 :]
        if name and piece.partition("=")[0].isidentifier() and "=" in piece:
            return name, rest
        name += ("@" if name else "") + piece
    return text, ""


def subject_curves(text: str, arguments: argparse.Namespace, sizes: dict[str, Any]) -> list[MemoryCurve]:
    """SUBJECT, or SUBJECT@engine=E,dtype=D,label=L,…: the rest of the pairs are the engine's options. engine=all: each
    engine that has the model, and a line on stderr for each that has not."""
    name, tail = parted(text)
    pairs = tail.split(",") if tail else []
    own = engine_options(pairs)
    model = subject_model(name if pairs else text, sizes)
    label = own.pop("label", None)
    engine, dtype = str(own.pop("engine", arguments.engine)), own.pop("dtype", arguments.dtype)
    options = {**engine_options(arguments.option), **own}
    encoder = model.encoder_context if arguments.encoder_context is None else arguments.encoder_context
    found = []
    engines = NAMES if engine == "all" else (engine,)
    for one in engines:
        try:
            curve = model.curve(one, dtype, **options)
        except MemcurveError as error:
            if engine != "all":
                raise
            print(f"left out: {one}: {clean(str(error))}", file=sys.stderr)
            continue
        if encoder:
            curve = curve.at_encoder(encoder)
        found.append(curve if label is None else curve.replace(name=label))
    return found
