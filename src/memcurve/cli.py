"""The command line: each command is a function of the library with its words."""

from __future__ import annotations

import argparse
import os
import sys

from .base import BadConfig, MemcurveError, MissingExtraError, show
from .units import parse_count, parse_counts, show_bytes, show_tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from .curve import MemoryCurve
    from .model import Model

SCHEMA = 1
SEED_DTYPES = "fp32, bf16, fp16, fp8, int8"
ENCODER_HELP = (
    "positions of the encoder's output, or of the image, that cross-attention keeps (default: Whisper's 1500, else 0)"
)
FORMATS = ("pdf", "svg", "png", "html", "csv", "json")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples' lines. The width is asked for when help is printed: shutil costs a cold command a millisecond."""

    def __init__(self, prog: str) -> None:
        width = 80
        if "-h" in sys.argv or "--help" in sys.argv:
            import shutil

            width = min(shutil.get_terminal_size().columns, 110)
        super().__init__(prog, max_help_position=28, width=width)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadConfig(f"{message} (see: {self.prog} --help)")


def flag(parser: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """An option under its name with underscores and with hyphens."""
    names = [f"--{name}"] if "_" not in name else [f"--{name}", f"--{name.replace('_', '-')}"]
    parser.add_argument(*names, dest=name, **options)


def count(text: str) -> int:
    try:
        return parse_count(text)
    except BadConfig as error:
        raise argparse.ArgumentTypeError(str(error).partition(": ")[2]) from None


def add_engine(parser: argparse.ArgumentParser, default_dtype: str) -> None:
    parser.add_argument(
        "--engine",
        default="logical",
        help="whose memory: logical (the paper's count) or transformers (default: logical)",
    )
    parser.add_argument("--dtype", help=f"{SEED_DTYPES}, or a long name (default: {default_dtype})")
    parser.add_argument(
        "-O", "--option", action="append", default=[], metavar="KEY=VALUE",
        help="an engine's own option, such as state_dtype=bf16 (logical), cache=static or max_cache_len=4096 (transformers)",
    )  # fmt: skip


def engine_options(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs: counts as `--context` takes them, true, false, none, or words; engine, dtype and label are words."""
    found: dict[str, Any] = {}
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadConfig(f"option {show(pair)}: expected KEY=VALUE")
        if key in ("engine", "dtype", "label"):
            found[key] = value
        else:
            found[key] = parse_count(value, key) if value[:1].isdigit() else words.get(value.lower(), value)
    return found


# -- estimate -----------------------------------------------------------------------------------------------------


def build_estimate(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--explain", action="store_true", help="print the formula of every term as well")


def run_estimate(arguments: argparse.Namespace) -> None:
    contexts = parse_counts(arguments.context)
    model = subject_model(arguments.model, {})
    curve = model.curve(arguments.engine, arguments.dtype, **engine_options(arguments.option))
    batch, encoder = arguments.batch, arguments.encoder_context
    if encoder is None:
        encoder = model.encoder_context
    elif encoder and curve == curve.at_encoder(encoder):
        raise BadConfig(f"encoder_context: {encoder}; {model.name} keeps nothing of an encoder: expected 0")
    if arguments.json:
        import json

        print(json.dumps(estimate_data(model, curve, contexts, batch, encoder)))
        return
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


# -- models -------------------------------------------------------------------------------------------------------


def build_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filter", nargs="?", default="", help="only names that hold this text")
    parser.add_argument("--type", help="only this model type, such as qwen3_next")
    parser.add_argument(
        "--kind",
        help="only models with this kind of layer: full (or mha, gqa, mqa), swa, mla, gdn, kda, mamba, mamba2, lightning, conv, rwkv, or its long name",
    )
    parser.add_argument(
        "--types",
        action="store_true",
        help="list the model types that are described, and the structure that reads each",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


KIND_WORDS = {
    "gqa": "full attention", "mha": "full attention", "mqa": "full attention", "full": "full attention",
    "swa": "sliding attention", "sliding": "sliding attention", "chunked": "chunked attention", "mla": "latent attention",
    "dsa": "sparse indexer", "gdn": "gated delta", "kda": "kimi delta", "lightning": "lightning attention",
    "conv": "short convolution",
}  # fmt: skip


def run_models(arguments: argparse.Namespace) -> None:
    import json

    from . import catalog, families, layers
    from .engines import NAMES
    from .model import describe

    if arguments.types:
        from .config import class_defaults

        verified, word = families.verified(), arguments.filter.lower()
        types = [
            {
                "type": name,
                "structure": families.structure_of(name),
                "engines": list(NAMES),
                "cases": verified.get(name, 0),
                "source": "Transformers" if class_defaults(name) else "hub-only code",
            }
            for name in families.model_types()
            if word in name.lower()
        ]
        refused = [{"type": name, "why": why} for name, why in families.REFUSED.items() if word in name.lower()]
        if arguments.json:
            print(json.dumps({"schema": SCHEMA, "types": types, "refused": refused}))
            return
        print(f"{'type':<28} {'structure':<32} {'engines':<22} verified")
        for entry in types:
            cases = (
                f"{entry['cases']} recorded cases"
                if entry["cases"]
                else "derived by hand"
                if "hub" in str(entry["source"])
                else "not recorded"
            )
            print(f"{entry['type']:<28} {entry['structure']:<32} {', '.join(NAMES):<22} {cases}")
        for one in refused:
            print(f"{one['type']:<28} refused: {one['why']}")
        print(f"{len(types)} model types of decoders; composite types are read through them")
        return
    if arguments.type and not families.structure_of(arguments.type):
        raise families.not_described(arguments.type)
    wanted = KIND_WORDS.get((arguments.kind or "").lower(), (arguments.kind or "").lower())
    kinds = [kind for one in vars(layers).values() if isinstance(kind := getattr(one, "kind", None), str)]
    if wanted and wanted not in kinds:
        raise BadConfig(f"kind: {show(arguments.kind)}; expected one of {', '.join(KIND_WORDS)}, or {', '.join(kinds)}")
    rows = []
    for name in catalog.names():
        if arguments.filter.lower() not in name.lower():
            continue
        model = describe(catalog.find(name) or {}, name)
        own = {part.kind for layer in model.layers for part in layers.parts(layer)}
        if arguments.type in (None, model.model_type) and (not wanted or wanted in own):
            rows.append(
                {"name": name, "type": model.model_type, "structure": model.structure, "source": catalog.fidelity(name)}
            )
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "models": rows}))
        return
    for row in rows:
        label = "" if row["source"] == "byte copy" else f"  [{row['source']}]"
        print(f"{row['name']:<48} {row['type']:<18} {row['structure']}{label}")
    print(f"{len(rows)} of {len(catalog.names())} models")


# -- plot ---------------------------------------------------------------------------------------------------------


def build_plot(parser: argparse.ArgumentParser) -> None:
    from .patterns import SIZES

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
    parser.add_argument("--log", default="", choices=("", "x", "y", "xy"), help="logarithmic axes: x, y or xy")
    parser.add_argument("--title", help="title instead of engine, dtype and batch")
    add_engine(parser, "bf16 for the seed's figure and patterns, else the config's own")


def run_plot(arguments: argparse.Namespace) -> None:
    from .export import check_range, default_title, make_subjects, sample, to_csv, to_html, to_json
    from .patterns import SIZES, is_pattern

    seed = not arguments.subjects
    output = arguments.output or ("deltanet_memory_plot.pdf" if seed else "memcurve.pdf")
    ending = os.path.splitext(output)[1].removeprefix(".").lower()
    if ending not in FORMATS:
        raise BadConfig(f"output {show(output)}: expected a name that ends in one of .{', .'.join(FORMATS)}")
    check_range(arguments.min_ctx, arguments.max_ctx)
    contexts = [arguments.min_ctx, arguments.max_ctx]
    if seed or ending in ("csv", "json"):
        contexts = sample(arguments.min_ctx, arguments.max_ctx, arguments.step)
    sizes = {name: value for name in SIZES if (value := getattr(arguments, name)) is not None}
    if seed:
        from . import seed as seeds

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
        subjects = make_subjects([subject_curve(text, arguments, sizes) for text in arguments.subjects])
        if sizes and not any(is_pattern(text.partition("@")[0]) for text in arguments.subjects):
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
            to_html(subjects, contexts, arguments.batch, title)
            if ending == "html"
            else (to_json if ending == "json" else to_csv)(subjects, contexts, arguments.batch)
        )
        write(output, text)
    else:
        from .figures import hurry, plot, plot_seed

        hurry()
        if seed and not arguments.log and not arguments.title:
            figure = plot_seed(subjects, contexts, arguments.batch)
        else:
            figure = plot(
                subjects,
                min_ctx=contexts[0],
                max_ctx=contexts[-1],
                batch=arguments.batch,
                log=arguments.log,
                title=title,
            )
        save(figure, output)
    print(f"wrote {output}")


def save(figure: Any, output: str) -> None:
    """Writes the figure; the same figure gives the same bytes: no date, no random ids."""
    import matplotlib

    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    matplotlib.rcParams["svg.hashsalt"] = "memcurve"
    try:
        figure.savefig(output, dpi=160, metadata=dates.get(output.rpartition(".")[2].lower()))
    except OSError as error:
        raise BadConfig(f"{output}: {error.strerror or error}; expected a place that can be written") from None


def write(output: str, text: str) -> None:
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadConfig(f"{output}: {error.strerror or error}; expected a place that can be written") from None


def subject_model(text: str, sizes: dict[str, Any]) -> Model:
    from .model import load

    if "/" not in text and not os.path.exists(text):
        from .patterns import is_pattern, pattern

        if is_pattern(text):
            return pattern(text, dtype="bf16", **sizes)
    return load(text)


def subject_curve(text: str, arguments: argparse.Namespace, sizes: dict[str, Any]) -> MemoryCurve:
    """SUBJECT, or SUBJECT@engine=E,dtype=D,label=L,…: the rest of the pairs are the engine's options."""
    name, at, tail = text.partition("@")
    pairs = [f"{pair}" for pair in tail.split(",")] if at and "=" in tail else []
    own = engine_options(pairs)
    model = subject_model(name if pairs else text, sizes)
    label = own.pop("label", None)
    engine, dtype = str(own.pop("engine", arguments.engine)), own.pop("dtype", arguments.dtype)
    curve = model.curve(engine, dtype, **{**engine_options(arguments.option), **own})
    encoder = model.encoder_context if arguments.encoder_context is None else arguments.encoder_context
    if encoder:
        curve = curve.at_encoder(encoder)
    return curve if label is None else curve.replace(name=label)


# -- verify -------------------------------------------------------------------------------------------------------


def build_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="model types, config.json files or folders, or catalogue names"
    )
    parser.add_argument("--all", action="store_true", help="every model type that generates")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of them, drawn by --seed")
    parser.add_argument("--seed", default="0", help="any text; the same text draws the same sample (default: 0)")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code that a folder holds beside its config.json (default: off)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_verify(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a case differs or a named subject can't be run."""
    try:
        from . import verify
    except ImportError as error:
        raise MissingExtraError(
            f"verify needs torch and transformers ({error.name or error}): pip install 'memcurve[verify]'"
        ) from None
    verify.quiet()
    every = verify.generative_types()
    subjects = list(arguments.subjects)
    if arguments.all:
        subjects += every
    if arguments.sample:
        import random

        subjects += sorted(random.Random(arguments.seed).sample(every, min(arguments.sample, len(every))))
    if not subjects:
        raise BadConfig("subjects: none; expected model types or config.json files, or --sample N, or --all")
    rows = []
    for index, subject in enumerate(subjects, 1):
        if sys.stderr.isatty():
            print(f"\r[{index}/{len(subjects)}] {clean(subject)[:60]:<60}", end="", file=sys.stderr, flush=True)
        if subject in every:
            row = verify.check_type(subject)
        elif arguments.trust_remote_code and os.path.isdir(subject):
            row = verify.check_remote(subject)
        else:
            row = verify.check_config(subject, read_config(subject))
        rows.append(row)
        if not arguments.json:
            if sys.stderr.isatty():
                print("\r", end="", file=sys.stderr)
            state = "equal" if row.cases and row.equal == row.cases else "differs" if row.cases else ""
            print(
                f"{clean(row.name):<36} {row.cases:>5} cases {row.equal:>5} equal {row.tensors:>5} by tensor  {' '.join(filter(None, (state, clean(row.difference))))}",
                flush=True,
            )
    cases, equal = sum(row.cases for row in rows), sum(row.equal for row in rows)
    if arguments.json:
        import json

        print(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "transformers": verify.INSTALLED,
                    "rows": [row._asdict() for row in rows],
                }
            )
        )
    else:
        version = verify.INSTALLED
        print(
            f"{equal:,} of {cases:,} cases equal; {sum(not row.cases for row in rows)} of {len(rows)} subjects not run; Transformers {version}"
        )
        if version != verify.PINNED:
            print(f"note: memcurve describes Transformers {verify.PINNED}")
    unrun = any(not row.cases for row in rows[: len(arguments.subjects)])
    return int(equal != cases or unrun)


def read_config(subject: str) -> dict[str, Any]:
    from . import catalog
    from .model import read_path

    found = None if os.path.exists(subject) else catalog.find(subject)
    return read_path(subject)[0] if found is None else found


# -- main ---------------------------------------------------------------------------------------------------------

COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int | None], str, str]] = {
    "plot": (
        build_plot, run_plot, "draw memory against context, for any architectures",
        "memcurve plot\nmemcurve plot Qwen/Qwen3-Next-80B-A3B-Thinking ./config.json 3gdn:1mha -o curves.svg\n"
        "memcurve plot openai/gpt-oss-20b openai/gpt-oss-20b@engine=transformers -o engines.html --max_ctx 1M --log xy",
    ),
    "estimate": (
        build_estimate, run_estimate, "exact bytes at a context, unfolded to layers × slots × bytes per slot",
        "memcurve estimate Qwen/Qwen3-Next-80B-A3B-Thinking --context 131072 --engine transformers\n"
        "memcurve estimate ./config.json --context 4k,32k,128k --batch 8 --json",
    ),
    "models": (
        build_models, run_models, "the catalogue, and the model types described",
        "memcurve models --kind gdn\nmemcurve models --type gemma3_text\nmemcurve models --types",
    ),
    "verify": (
        build_verify, run_verify, "run small models in Transformers and compare their caches, tensor by tensor",
        "memcurve verify llama qwen3_next\nmemcurve verify ./config.json\nmemcurve verify --sample 12 --seed today",
    ),
}  # fmt: skip


def build(command: str) -> Parser:
    setup, _, text, examples = COMMANDS[command]
    shown = "\n".join(f"  {line}" for line in examples.splitlines())
    parser = Parser(
        prog=f"memcurve {command}", description=f"{text[0].upper()}{text[1:]}.", epilog=f"examples:\n{shown}",
        formatter_class=Formatter, allow_abbrev=False,
    )  # fmt: skip
    setup(parser)
    return parser


def overview() -> str:
    from . import __version__

    lines = [
        f"memcurve {__version__}: exactly how many bytes a language model's sequence state takes",
        "",
        "usage: memcurve COMMAND … (memcurve COMMAND --help says more)",
        "",
    ]
    lines += [f"  {name:<10} {text}" for name, (_, _, text, _) in COMMANDS.items()]
    return "\n".join([*lines, "", "exit codes: 2 bad input, 3 not described, 1 anything else"])


def run(words: Sequence[str]) -> int:
    """Runs a command; its exit code."""
    command = words[0] if words else ""
    if command in ("", "-h", "--help", "help"):
        print(overview())
    elif command in ("--version", "-V"):
        from . import __version__

        print(__version__)
    elif command in COMMANDS:
        return COMMANDS[command][1](build(command).parse_args(words[1:])) or 0
    else:
        raise BadConfig(f"command {show(command)}; expected one of {', '.join(COMMANDS)}")
    return 0


def clean(text: str) -> str:
    """A text from a config as a terminal may show it: no control characters."""
    return "".join(char if char.isprintable() else "�" for char in text)


def main() -> int:
    """Runs a command. 0, or the error's code after one line on stderr."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
        return code
    except MemcurveError as error:
        print(f"memcurve: {clean(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"memcurve: {clean(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, never a traceback
        print(
            f"memcurve: unexpected {type(error).__name__}: {clean(str(error))[:200]}; please report it", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
