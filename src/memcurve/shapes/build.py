"""The words that schemas are written in."""

from __future__ import annotations

from ..terms import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Shape = dict[str, Any]

DEFS = "#/$defs/"


def whole(about: str, least: int | None = 0) -> Shape:
    bound = {} if least is None else {"minimum": least}
    return {"type": "integer", "description": about, **bound}


def text(about: str) -> Shape:
    return {"type": "string", "description": about}


def flag(about: str) -> Shape:
    return {"type": "boolean", "description": about}


def number(about: str) -> Shape:
    return {"type": "number", "description": about}


def ref(name: str) -> Shape:
    return {"$ref": DEFS + name}


def many(items: Shape, about: str = "") -> Shape:
    return {"type": "array", "items": items} | ({"description": about} if about else {})


def row(about: str, *items: Shape) -> Shape:
    """A list of so many entries, each of its own kind."""
    count = len(items)
    return {"type": "array", "prefixItems": list(items), "items": False, "minItems": count, "description": about}


def by_name(values: Shape, about: str) -> Shape:
    return {"type": "object", "additionalProperties": values, "description": about}


def one_of(about: str, *kinds: Shape) -> Shape:
    return {"description": about, "anyOf": list(kinds)}


def maybe(kind: Shape, about: str = "") -> Shape:
    """A value of a kind, or null; about says what null means."""
    if "type" in kind:
        more = "; ".join(filter(None, (kind.get("description"), about)))
        return {**kind, "type": [kind["type"], "null"], "description": more}
    return {"anyOf": [kind, {"type": "null"}]} | ({"description": about} if about else {})


def record(about: str, fields: Shape, optional: Shape | None = None) -> Shape:
    """An object of these fields and no others; optional ones may be missing."""
    return {
        "type": "object",
        "description": about,
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
        "additionalProperties": False,
    }


def answer(about: str, fields: Shape, optional: Shape | None = None) -> Shape:
    version = {"schema": {"const": SCHEMA, "description": "The version of these names."}}
    return record(about, {**version, **fields}, optional)
