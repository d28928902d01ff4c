"""Published configs by hub name, each a file beside this one; sources.tsv says where each was found."""

from __future__ import annotations

import json
import os

from ..config import Abridged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = os.path.dirname(__file__)


def find(name: str) -> dict[str, Any] | None:
    """The config of this name, or None. Case decides only between names that differ in nothing else."""
    file = name.replace("/", "__") + ".json"
    if "__" not in file or os.sep in file:
        return None
    path = os.path.join(FOLDER, file)
    if not os.path.exists(path):
        lower = {entry.lower(): entry for entry in os.listdir(FOLDER)}
        if file.lower() not in lower:
            return None
        path = os.path.join(FOLDER, lower[file.lower()])
    with open(path, encoding="utf-8") as stream:
        found: dict[str, Any] = json.load(stream)
    return found if _sources()[os.path.basename(path)] == "byte copy" else Abridged(found)


def names() -> list[str]:
    """All names, sorted without regard to case."""
    stems = (entry[:-5] for entry in os.listdir(FOLDER) if entry.endswith(".json"))
    return sorted((stem.replace("__", "/", 1) for stem in stems), key=str.lower)


def fidelity(name: str) -> str:
    """How true to the published file this config is: "byte copy", or what it is instead ("preset", "retyped", "trimmed", "quoted", "printed")."""
    text = _sources()[name.replace("/", "__") + ".json"]
    return "preset" if "preset" in text else text if text == "byte copy" else text.split()[0].strip(",")


def _sources() -> dict[str, str]:
    with open(os.path.join(FOLDER, "sources.tsv"), encoding="utf-8") as stream:
        rows = (line.rstrip("\n").split("\t") for line in stream)
        return {row[0]: row[4] for row in rows}


# Published with quantised weights, which the part of their config that is here does not say.
UNSAID = ("MiniMaxAI/MiniMax-M2", "MiniMaxAI/MiniMax-M2.5", "moonshotai/Kimi-K2-Thinking")
