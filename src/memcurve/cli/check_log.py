"""memcurve check-log: every figure of an engine's start-up log beside memcurve's."""

from __future__ import annotations

from ..base import clean
from .shared import SCHEMA, add_options, engine_options, read_log, subject_model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


MOST = 24  # options that are named


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="FILE", help="the log, as the server wrote it; - for standard input")
    parser.add_argument("--model", required=True, help="a catalogue name, a config.json, a .gguf file or a hub id")
    parser.add_argument("--engine", choices=("vllm", "sglang", "llamacpp"), help="who wrote it (default: by its lines)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_options(parser, "what the server was started with, such as tensor_parallel_size=2")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a figure differs."""
    from ..logs import check, settings

    text, given = read_log(arguments.log), engine_options(arguments.option)
    found = check(text, subject_model(arguments.model, {}), given, arguments.engine)
    stated = [one for one in settings(text, arguments.engine) if one.option not in given]
    differ = sum(not one.agrees for one in found)
    if arguments.json:
        import json

        figures, options = ([one.as_dict() for one in some] for some in (found, stated))
        print(json.dumps({"schema": SCHEMA, "figures": figures, "options": options, "differ": differ}))
        return int(differ > 0)
    if stated:
        words = [f"{one.option}={clean(str(one.value))} (line {one.line})" for one in stated[:MOST]]
        print(f"from the log: {', '.join(words)}{', …' if len(stated) > MOST else ''}")
    for one in found:
        print(
            f"line {one.line:<5} {'agrees ' if one.agrees else 'differs'}  {clean(one.figure)}: logged {clean(one.logged)}, "
            f"memcurve {clean(one.computed)} ({clean(one.why)})"
        )
    print(f"{len(found) - differ} of {len(found)} figures agree")
    return int(differ > 0)
