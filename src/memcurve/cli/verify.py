"""memcurve verify: asks an engine itself, and compares; Transformers by running small models, the others by their planning code."""

from __future__ import annotations

import os
import sys

from ..base import BadConfig, MissingExtraError, clean
from .shared import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from ..verify import Outcome

NAMES = {"transformers": "Transformers", "vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp", "mlx": "MLX-LM"}


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="model types, config.json files or folders, or catalogue names"
    )
    parser.add_argument(
        "--engine",
        default="transformers",
        metavar="ENGINE",
        help="who is asked: transformers, vllm, sglang, llamacpp (then also GGUF files), mlx (default: transformers)",
    )
    parser.add_argument(
        "--source",
        metavar="DIR",
        help="vllm, sglang: the folder of its unpacked wheel (default: the installed package)",
    )
    parser.add_argument(
        "--all", action="store_true", help="every model type that generates; of other engines, the whole catalogue"
    )
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of them, drawn by --seed")
    parser.add_argument("--seed", default="0", help="any text; the same text draws the same sample (default: 0)")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="transformers: run the code that a folder holds beside its config.json (default: off)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a case differs or a named subject can't be run."""
    check(arguments)
    recorder = module(arguments.engine)
    every = names(arguments.engine, recorder)
    subjects = drawn(arguments, every)
    rows = []
    for row in progress(outcomes(arguments, recorder, subjects, every), subjects):
        rows.append(row)
        if not arguments.json:
            print(line(row), flush=True)
    version = recorder.installed()
    if arguments.json:
        show_json(arguments.engine, recorder, version, rows)
    else:
        summary(arguments.engine, recorder, version, rows)
    differs = any(row.equal != row.cases for row in rows)
    return int(differs or any(not row.cases for row in rows[: len(arguments.subjects)]))


def check(arguments: argparse.Namespace) -> None:
    from ..base import nearest, show
    from ..verify import ENGINES

    engine = arguments.engine
    if engine not in ENGINES:
        hint = nearest(engine, ENGINES, 1)
        raise BadConfig(
            f"engine: {show(engine)}; expected {', '.join(ENGINES)}" + (f" (nearest: {hint})" if hint else "")
        )
    if arguments.source is not None and engine not in ("vllm", "sglang"):
        raise BadConfig(f"source: {show(arguments.source)}; expected with --engine vllm or sglang only")
    if arguments.trust_remote_code and engine != "transformers":
        raise BadConfig("trust-remote-code: expected with --engine transformers only; the others run no model code")


def module(engine: str) -> Any:
    """The engine's module of memcurve.verify."""
    try:
        return __import__(f"memcurve.verify.{engine}", fromlist=["PINNED"])
    except ImportError as error:
        raise MissingExtraError(
            f"verify needs torch and transformers ({error.name or error}): pip install 'memcurve[verify]'"
        ) from None


def names(engine: str, recorder: Any) -> list[str]:
    """What --all stands for."""
    if engine == "transformers":
        recorder.quiet()
        found: list[str] = recorder.generative_types()
        return found
    from .. import catalog

    return catalog.names()


def drawn(arguments: argparse.Namespace, every: list[str]) -> list[str]:
    subjects = list(arguments.subjects)
    if arguments.all:
        subjects += every
    if arguments.sample:
        import random

        subjects += sorted(random.Random(arguments.seed).sample(every, min(arguments.sample, len(every))))
    if not subjects:
        raise BadConfig("subjects: none; expected model types or config.json files, or --sample N, or --all")
    return subjects


def outcomes(arguments: argparse.Namespace, recorder: Any, subjects: list[str], every: list[str]) -> Iterator[Outcome]:
    if arguments.engine != "transformers":
        yield from recorder.compare(subjects, arguments.source)
        return
    from ..verify import read_config

    for subject in subjects:
        if subject in every:
            yield recorder.check_type(subject)
        elif arguments.trust_remote_code and os.path.isdir(subject):
            yield recorder.check_remote(subject)
        else:
            yield recorder.check_config(subject, read_config(subject))


def progress(rows: Iterator[Outcome], subjects: list[str]) -> Iterator[Outcome]:
    """The rows as they come; on a terminal a line on stderr says which subject is being asked."""
    for index, subject in enumerate(subjects, 1):
        if sys.stderr.isatty():
            print(f"\r[{index}/{len(subjects)}] {clean(subject)[:60]:<60}", end="", file=sys.stderr, flush=True)
        row = next(rows)
        if sys.stderr.isatty():
            print("\r", end="", file=sys.stderr)
        yield row


def line(row: Outcome) -> str:
    state = "equal" if row.cases and row.equal == row.cases else "differs" if row.cases else ""
    by_tensor = "" if row.tensors is None else f" {row.tensors:>5} by tensor"
    words = " ".join(filter(None, (state, clean(row.difference))))
    return f"{clean(row.name):<36} {row.cases:>5} cases {row.equal:>5} equal{by_tensor}  {words}".rstrip()


def show_json(engine: str, recorder: Any, version: str, rows: list[Outcome]) -> None:
    import json

    found: dict[str, Any] = {"schema": SCHEMA, engine: version, "rows": [row._asdict() for row in rows]}
    if engine != "transformers":
        found["stubbed"] = recorder.STUBBED
    print(json.dumps(found))


def summary(engine: str, recorder: Any, version: str, rows: list[Outcome]) -> None:
    cases, equal = sum(row.cases for row in rows), sum(row.equal for row in rows)
    unrun, name = sum(not row.cases for row in rows), NAMES[engine]
    print(f"{equal:,} of {cases:,} cases equal; {unrun} of {len(rows)} subjects not run; {name} {version}")
    if engine != "transformers":
        print(recorder.STUBBED)
    if version != recorder.PINNED:
        print(f"note: memcurve describes {name} {recorder.PINNED}")
