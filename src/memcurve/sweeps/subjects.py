"""Subjects of a sweep: where each is read from, once, and the model that it is with sizes of one's own."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, MemcurveError, nearest, show
from ..model import decoder, describe, load_gguf, named_config, read_path
from ..patterns import SIZES, is_pattern, pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Model


def find_source(text: str) -> dict[str, Any]:
    """What a subject is read from, as plain data that any machine can make the model of.

    A pattern, or a config with the model's name; of a GGUF file its path and what stands there now.
    """
    if "\0" in text:
        raise BadConfig(f"subjects: {show(text)}; expected a path, a catalogue name, a hub id or a pattern")
    if "/" not in text and not os.path.lexists(text) and is_pattern(re.sub(r"{\w*}", "1", text)):
        return {"pattern": text}
    if text.endswith((".json", ".gguf")) or os.path.lexists(text):
        from ..gguf import is_gguf

        if is_gguf(text):
            state = os.stat(text)
            return {"gguf": os.path.abspath(text), "bytes": state.st_size, "changed": state.st_mtime_ns}
        config, name = read_path(text)
    else:
        config, name = named_config(text)
    return {"config": config, "name": name}


def knows(source: Mapping[str, Any], size: str, hints: list[str]) -> bool:
    """Whether a subject has a size of this name; where not, the names that it has are added to `hints`."""
    if "pattern" in source:
        hints += SIZES
        return size in SIZES or f"{{{size}}}" in source["pattern"]
    if "gguf" in source:
        return False
    try:
        config, _ = decoder(source["config"])
    except MemcurveError:
        return True  # its rows say what is wrong with it
    hints += [*config.data, *config.defaults]
    return config.has(size)


def make_model(source: Mapping[str, Any], sizes: Mapping[str, Any]) -> Model:
    """The model of a subject with these sizes. BadConfig where it has no such size, or not such a value."""
    if "pattern" in source:
        text, rest = source["pattern"], dict(sizes)
        for name in re.findall(r"{(\w*)}", text):
            value = rest.pop(name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise BadConfig(f"{name}: {show(value)}; expected an integer of 0 or more")
            text = text.replace(f"{{{name}}}", str(value))
        for name in rest:
            if name not in SIZES:
                raise BadConfig(f"{name}: not a size of patterns, which have {', '.join(SIZES)}")
        if text != source["pattern"]:
            # A part of which a size says that there are none is left out: of {n}gdn:1mha without any the rest is 1mha.
            text = ":".join(part for part in text.split(":") if not re.match(r"\s*0+\s*[a-z]", part))
        return pattern(text, dtype="bf16", **rest)
    if "gguf" in source:
        if sizes:
            raise BadConfig(f"{next(iter(sizes))}: a GGUF file's sizes are its own; expected a config or a pattern")
        return load_gguf(source["gguf"])
    return describe(with_sizes(source["config"], sizes) if sizes else source["config"], source["name"])


def with_sizes(data: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some of its decoder's keys changed, under the names that the file has for them."""
    config, _ = decoder(data)
    changed: dict[str, Any] = dict(data)
    section = changed
    for key in config.path.split(".")[:-1]:
        inner = section.get(key)
        if not isinstance(inner, dict):
            raise BadConfig(
                f"{next(iter(sizes))}: the config leaves out {key}, where it belongs; expected it written out"
            )
        section[key] = section = dict(inner)
    for name, value in sizes.items():
        if not config.has(name):
            known = [*config.data, *config.defaults]
            hint = nearest(name, known, 1)
            raise BadConfig(
                f"{name}: not a key of this config ({config.model_type})" + (f"; nearest: {hint}" if hint else "")
            )
        section[next((own for own in config.names(name) if own in section), name)] = value
    again, _ = decoder(changed)
    for name, value in sizes.items():
        if again.get(name) != value:
            raise BadConfig(f"{name}: {show(value)} has no effect on this config ({config.model_type})")
    return changed
