"""memcurve completion: a script by which a shell completes commands, options, engines, dtypes, GPUs and models of the catalogue.

The script is static: shtab makes it of the commands' own parsers, and no key press starts a Python.
"""

from __future__ import annotations

import argparse

from ..base import MissingExtraError
from .shared import SEED_DTYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHELLS = ("bash", "zsh", "fish")
# How each shell offers a few words and beside them files; bash quotes and descends where the function's name says file.
PREAMBLES = {
    "bash": '_memcurve_{name}_or_file() {{ compgen -W "{words}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "_memcurve_{name}_or_file() {{ local -a words=({words}); _alternative 'words:{name}:compadd -a words' 'files:file:_files'; }}",
    "fish": "function _memcurve_{name}_or_file; printf '%s\\n' {words}; __fish_complete_path (commandline -ct); end",
}
PATTERNS = {"bash": "_memcurve_{name}_or_file", "zsh": "_memcurve_{name}_or_file", "fish": "(_memcurve_{name}_or_file)"}
MODELS = ("model", "models", "subjects", "weights", "source")
FILES = ("output", "log")
SIDE_BY_SIDE = ("plot", "cross", "estimate")  # commands that take --engine all


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=SHELLS, help="whose script to print; docs/integrations.md says where to put it"
    )


def run(arguments: argparse.Namespace) -> None:
    try:
        import shtab
    except ImportError:
        raise MissingExtraError("memcurve completion needs shtab: pip install 'memcurve[completion]'") from None
    script = shtab.complete(everything(shtab.FILE, shtab.DIRECTORY), arguments.shell)
    if arguments.shell == "zsh":
        # shtab 1.13 offers words for the first of several arguments only: (*) where zsh says *.
        script = script.replace('\n  "(*)::', '\n  "*:').replace('\n  "(*):', '\n  "*:')
    print(script)


def everything(file: Any, folder: Any) -> argparse.ArgumentParser:
    """All commands as one parser, whose actions say what to offer for them. file, folder: what shtab has for those."""
    from ..verify import ENGINES
    from . import COMMANDS, module

    whole = argparse.ArgumentParser(prog="memcurve", allow_abbrev=False)
    whole.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = whole.add_subparsers()
    few = words()
    for command, (text, _) in COMMANDS.items():
        parser = commands.add_parser(command, help=text, description=text, allow_abbrev=False)
        module(command).build(parser)
        for action in parser._actions:
            name = "gpu" if (command, action.dest) == ("gpus", "name") else action.dest
            if name in MODELS:
                action.complete = few["model"]  # type: ignore[attr-defined]
            elif name == "folder":
                action.complete = folder  # type: ignore[attr-defined]
            elif command == "verify" and name == "engine":
                action.choices = list(ENGINES)
            elif action.choices is None and name in few:
                action.choices = [*few[name], *(["all"] if name == "engine" and command in SIDE_BY_SIDE else ())]
            elif action.choices is None and name in FILES:
                action.complete = file  # type: ignore[attr-defined]
    return whole


def words() -> dict[str, Any]:
    """What there is to choose from, by the arguments' names."""
    from .. import catalog, families, gpus
    from ..compare import FORMATS
    from ..engines import NAMES
    from ..units import BYTES
    from .models import KIND_WORDS

    return {
        "engine": list(NAMES),
        "dtype": [*SEED_DTYPES.split(", "), *(name for name in BYTES if name != "int64")],
        "gpu": [one.name.replace(" ", "-") for one in gpus.table()],
        "kind": list(KIND_WORDS),
        "type": list(families.model_types()),
        "format": list(FORMATS),
        "model": offered("model", list(catalog.names())),
    }


def offered(name: str, words: list[str]) -> dict[str, Any]:
    """Words and files, as shtab takes what a parser's argument completes to."""
    found: dict[str, Any] = {shell: pattern.format(name=name) for shell, pattern in PATTERNS.items()}
    shown = " ".join(words)
    return {**found, "preamble": {shell: text.format(name=name, words=shown) for shell, text in PREAMBLES.items()}}
