"""JSON Schemas (2020-12) of every answer: of the commands' --json, of the web API and of tools.

SHAPES holds records by name; ANSWERS says which of them an answer is. `answer_schema` gives one that stands alone.
"""

from __future__ import annotations

from ..base import BadConfig, nearest, show
from .build import DEFS
from .build import ref as ref
from .records import RECORDS
from .replays import REPLAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .build import Shape

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SHAPES: dict[str, Shape] = {**RECORDS, **REPLAYS}
# Answers by the command or the path they are of; "fits" is estimate --fits, "types" models --types.
ANSWERS: dict[str, tuple[str, ...]] = {
    "estimate": ("Estimate", "EveryEngine"), "fits": ("Fitting",), "curve": ("CurveAnswer",), "cross": ("Cross",), "fit": ("Fit",),
    "compare": ("Compare",), "models": ("Models",), "types": ("Types",), "gpus": ("Gpus",), "engines": ("Engines",),
    "gguf": ("Gguf",), "weights": ("Weights",), "check-log": ("CheckLog",), "verify": ("Verify",), "sweep": ("Sweep",),
    "replay": ("Replay", "Smallest"),
}  # fmt: skip


def answer_schema(name: str) -> Shape:
    """The schema of an answer, with all that it refers to in $defs. BadConfig for an answer that there is not."""
    if name not in ANSWERS:
        hint = nearest(name, list(ANSWERS), 1)
        expected = f"expected one of {', '.join(ANSWERS)}" + (f" (nearest: {hint})" if hint else "")
        raise BadConfig(f"answer: {show(name)}; {expected}")
    found = top(ANSWERS[name])
    return {"$schema": DIALECT, **found, "$defs": {each: SHAPES[each] for each in sorted(reached(found))}}


def top(names: tuple[str, ...]) -> Shape:
    """The record itself, or one of several."""
    return SHAPES[names[0]] if len(names) == 1 else {"type": "object", "anyOf": [ref(name) for name in names]}


def reached(shape: object) -> set[str]:
    """The names of all records that a schema refers to, directly or through others."""
    found: set[str] = set()
    waiting = list(refs(shape))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += refs(SHAPES[name])
    return found


def refs(shape: object) -> Iterator[str]:
    if isinstance(shape, dict):
        if "$ref" in shape:
            yield shape["$ref"].removeprefix(DEFS)
        for value in shape.values():
            yield from refs(value)
    elif isinstance(shape, list):
        for value in shape:
            yield from refs(value)


def elsewhere(shape: Any, place: str) -> Any:
    """The same with its records at another place, such as #/components/schemas/."""
    if isinstance(shape, dict):
        return {
            key: place + value.removeprefix(DEFS) if key == "$ref" else elsewhere(value, place)
            for key, value in shape.items()
        }
    return [elsewhere(value, place) for value in shape] if isinstance(shape, list) else shape
