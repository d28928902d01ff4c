"""What is wrong with a request, in memcurve's one line: where, what stands there, what was expected, and the nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from ..base import BadConfig, nearest, show
from ..units import parse_bytes, parse_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What was expected, by pydantic's kind of error; the words in braces are its figures.
KINDS = {
    "bool_type": "true or false", "int_type": "an integer", "float_type": "a number", "string_type": "a text",
    "list_type": "a list", "dict_type": "an object", "model_type": "an object", "model_attributes_type": "an object",
}  # fmt: skip
EXPECTED = {
    **KINDS, "missing": "a value", "finite_number": "a finite number", "greater_than_equal": "{ge:,} or more",
    "less_than_equal": "at most {le:,}", "string_too_long": "at most {max_length:,} characters",
    "too_long": "at most {max_length:,} of them", "too_short": "at least {min_length:,} of them",
    "string_unicode": "a text of Unicode characters",
}  # fmt: skip


def read(form: type[BaseModel], body: object) -> BaseModel:
    """A request as its form has it. BadConfig names the first thing that is wrong."""
    try:
        return form.model_validate(body)
    except ValidationError as error:
        raise BadConfig(first_of(form, error.errors(include_url=False), body)) from None


def first_of(form: type[BaseModel] | None, errors: Sequence[Mapping[str, Any]], body: object) -> str:
    """The first thing that is wrong, by pydantic's errors; of a value of several kinds what each expects."""
    path, value = placed(errors[0], body)
    here = [one for one in errors if placed(one, body)[0] == path]
    # Where a value is of one of the kinds, what is wrong with it is said, not the other kinds.
    own = [one for one in here if one["type"] not in KINDS] or here
    where = "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in path).lstrip(".")[:200] or "body"
    kind = own[0]["type"]
    if kind == "extra_forbidden":
        known = sorted(fields(form, path[:-1]))
        hint = nearest(str(path[-1]), known, 1)
        return f"{where}: not a field; expected one of {', '.join(known)}" + (f" (nearest: {hint})" if hint else "")
    words = list(dict.fromkeys(EXPECTED.get(one["type"], one["msg"]).format(**one.get("ctx", {})) for one in own))
    if kind == "missing":
        return f"{where}: missing; expected {words[0]}"
    if len(path) > 1 and own[0]["loc"][-1] == "[key]":
        return f"{where}: expected a name of {words[0]}"
    found = f"{len(value)}" if kind in ("too_long", "too_short") and isinstance(value, list) else show(value)
    expected = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return f"{where}: {found}; expected {expected}{meant(value, kind)}"


def placed(error: Mapping[str, Any], body: object) -> tuple[list[str | int], object]:
    """Where an error is, as the body has it: without pydantic's names of the kinds that a value may be of."""
    path: list[str | int] = []
    for word in error["loc"]:
        held = range(len(body)) if isinstance(body, list) else body if isinstance(body, dict) else ()
        if word not in held:
            return (path, body) if error["type"] != "missing" else ([*path, word], None)
        body = body[word]  # type: ignore[index]
        path.append(word)
    return path, body


def meant(value: object, kind: str) -> str:
    """The number that a count in words, such as 128k or 60GiB, stands for."""
    if kind == "int_type" and isinstance(value, str) and len(value) <= 20:
        for parse in (parse_count, parse_bytes):
            try:
                return f" (nearest: {parse(value)})"
            except BadConfig:
                continue
    return ""


def fields(form: type[BaseModel] | None, path: Sequence[str | int]) -> set[str]:
    """The fields of the form, or of the one inside it, that a path leads to."""
    for word in path:
        if form is None or isinstance(word, int):
            continue
        form = inner(form.model_fields[word].annotation) if word in form.model_fields else None
    return set() if form is None else set(form.model_fields)


def inner(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := inner(one)) is not None), None)
