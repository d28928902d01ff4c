"""Asks an engine itself and compares: one module per engine, which alone imports it.

`transformers` runs small models; `vllm`, `sglang` and `llamacpp` run the engine's own planning code on a CPU. Each offers
compare(subjects, source), the version that memcurve describes (PINNED) and what is stubbed (STUBBED), and records tests/truth
anew in a checkout: `python -m memcurve.verify.sglang --help`, `python -m memcurve.verify.vllm_recorder --help`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..base import BadConfig, show

ENGINES = ("transformers", "vllm", "sglang", "llamacpp", "mlx")


class Outcome(NamedTuple):
    """What a comparison found. difference: the first, or why the model could not be run; "" if all are equal.

    tensors: cases that are equal tensor by tensor; None where the engine is asked for totals.
    """

    name: str
    cases: int
    equal: int
    tensors: int | None
    difference: str


def unrun(name: str, error: Exception, why: str = "can't be run") -> Outcome:
    """A subject without a case: the engine's class, or memcurve, turns it down."""
    return Outcome(name, 0, 0, None, f"{why}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")


def read_config(subject: str) -> dict[str, Any]:
    """The config of a model type (its class's defaults), a catalogue name, or the path of a config.json or its folder."""
    import os

    from .. import catalog
    from ..config import class_defaults
    from ..families import structure_of
    from ..model import read_path

    if structure_of(subject) or class_defaults(subject):
        return {"model_type": subject}
    found = None if os.path.exists(subject) else catalog.find(subject)
    return read_path(subject)[0] if found is None else found


def find_source(engine: str, source: str | None) -> str | None:
    """The folder of an unpacked wheel. BadConfig for one that does not hold the engine."""
    import os

    if source is not None and not os.path.isdir(os.path.join(source, engine)):
        raise BadConfig(f"source: {show(source)}; expected a folder that holds {engine}, as its wheel unpacks")
    return source and os.path.abspath(source)
