"""The JSON that commands print under --json, and that the web API answers: one set of names and numbers, made here.

`fit` and `compare` make theirs beside their records (Fit.to_dict, Row.to_dict), figures in `export` and `heat`.
"""

from __future__ import annotations

from .base import BadConfig, MemcurveError, Refused, show
from .engines import HOW, NAMES, SHARED_CONTEXT, module
from .layers import CrossAttention, parts
from .terms import SCHEMA, expr_data, filled_data
from .units import show_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .crossed import Crossing
    from .curve import MemoryCurve, Order
    from .export import Subject
    from .fits import Fitting
    from .gpus import Gpu
    from .model import Model


def encoder_of(model: Model, asked: int | None) -> int:
    """Positions of the encoder: as asked, or the model's own. BadConfig for a model that keeps nothing of an encoder."""
    if asked is None:
        return model.encoder_context
    if asked and not any(isinstance(part, CrossAttention) for layer in model.layers for part in parts(layer)):
        raise BadConfig(f"encoder_context: {asked}; {model.name} keeps nothing of an encoder: expected 0")
    return asked


def growing(rows: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of the terms of a breakdown that still grow."""
    return sum(row["bytes"] for row in rows if row["grows"])


def estimate_data(
    model: Model, curve: MemoryCurve, contexts: Sequence[int], batch: int, encoder: int, memory: int | None = None
) -> dict[str, object]:
    """Bytes at contexts. With one of them, `context` and `bytes` also stand at the top; `pool` with memory."""
    pool = None if memory is None else curve.pool(memory)
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
                "peak_bytes": total if curve.course is None else curve.peak(context, batch),
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
    if len(contexts) == 1:
        found |= {"context": contexts[0], "bytes": estimates[0]["bytes"]}
    return found if pool is None else found | {"pool": pool.to_dict()}


def engines_data(
    model: Model,
    contexts: Sequence[int],
    batch: int,
    dtype: str | None,
    encoder: int | None,
    options: Mapping[str, Any],
) -> dict[str, object]:
    """One model under every engine: bytes at each context, None where an engine has no answer, and `how` they differ from the
    paper's count at the last. An option goes to the engines that have it. BadConfig for one that none has.
    """
    known = {name: module(name).OPTIONS for name in NAMES}
    for key in options:
        if not any(key in own for own in known.values()):
            raise BadConfig(f"{key}: {show(options[key])}; not an option of any engine")
    rows: list[dict[str, Any]] = []
    paper: dict[str, int] = {}
    for name in NAMES:
        row: dict[str, Any] = {"engine": name, "bytes": None, "how": HOW[name]}
        try:
            curve = model.curve(name, dtype, **{key: value for key, value in options.items() if key in known[name]})
            positions = encoder_of(model, encoder)
            share = max(batch, 1) if name in SHARED_CONTEXT else 1
            row["bytes"] = [curve.bytes(context * share, batch, positions) for context in contexts]
            kinds = _by_kind(curve.breakdown(contexts[-1] * share, batch, positions))
            if name == "logical":
                paper = kinds
            elif paper:
                row["how"] = _difference(kinds, paper, HOW[name])
            if share > 1:
                row["how"] += f"; n_ctx is {share:,} times the context"
        except MemcurveError as error:
            row["how"] = str(error)
        rows.append(row)
    return {"schema": SCHEMA, "model": model.name, "batch": batch, "contexts": list(contexts), "engines": rows}


def _by_kind(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["kind"]] = found.get(row["kind"], 0) + row["bytes"]
    return found


def _difference(kinds: Mapping[str, int], paper: Mapping[str, int], how: str) -> str:
    """What an engine keeps more or less of than the paper's count, the most first, and how it counts."""
    gaps = {kind: kinds.get(kind, 0) - paper.get(kind, 0) for kind in {*kinds, *paper}}
    most = sorted((kind for kind in gaps if gaps[kind]), key=lambda kind: (-abs(gaps[kind]), kind))
    if not most:
        return f"the same here; {how}"
    words = [f"{kind} {'+' if gaps[kind] > 0 else '−'}{show_bytes(abs(gaps[kind]))}" for kind in most[:2]]
    return f"{', '.join(words)}; {how}"


def fitting_data(model: Model, found: Fitting, engine: str, context: int, batch: int, memory: int) -> dict[str, object]:
    """The dtypes of the cache that were tried in so much memory, and the widest that fits."""
    tried = [
        {"name": one.name, "options": dict(one.options), "bytes": one.bytes, "fits": one.fits, "why": one.why}
        for one in found.tried
    ]
    asked = {"engine": engine, "context": context, "batch": batch, "memory": memory}
    widest = None if found.widest is None else found.widest.name
    return {"schema": SCHEMA, "model": model.name, **asked, "widest": widest, "tried": tried}


def curve_data(
    model: Model, curve: MemoryCurve, batch: int, encoder: int, context: int | None = None, memory: int | None = None
) -> dict[str, object]:
    """What it takes to draw and to explain one curve: encoder's positions put in, its shape at a batch, bounds, and its data.

    explanation: lines, with formulas or in numbers at a context. filled: as `terms.filled_data`. room: what an engine with pools makes of memory.
    """
    fixed = curve.at_encoder(encoder) if encoder else curve
    return {
        "schema": SCHEMA,
        "model": model.name,
        "model_type": model.model_type,
        "structure": model.structure,
        "engine": curve.engine,
        "dtype": curve.dtype,
        "batch": batch,
        "encoder_context": encoder,
        "formula": curve.formula,
        "breakpoints": list(fixed.breakpoints),
        "cap": fixed.cap,
        "period": fixed.period_at(batch),
        "notes": list(curve.notes),
        "first_context": fixed.first_context(batch),
        "kinks": list(fixed.kinks(batch)),
        "explanation": curve.explain(context, batch, encoder).splitlines(),
        "shared_context": curve.engine in SHARED_CONTEXT,
        "bounds": bounds_data(curve),
        "pools": curve.allocator is not None,
        "room": None if memory is None or curve.allocator is None else room_data(curve, memory),
        "filled": filled_data(curve.allocator),
        "curve": fixed.to_dict(),
    }


def bounds_data(curve: MemoryCurve) -> dict[str, dict[str, object]]:
    """The engine's own bounds of "context" and "batch": the setting's name, and the most it allows."""
    from .heat import bounds

    return {axis: {"name": name, "most": most} for axis, (name, most) in bounds(curve).items()}


def room_data(curve: MemoryCurve, memory: int) -> dict[str, object]:
    """What an engine makes of so many bytes: its pool, or why it is refused; and what requests share out, as an expression."""
    assert curve.allocator is not None
    found: dict[str, object] = {"memory": memory, "pool": None, "refused": None, "shares": []}
    try:
        found["pool"] = curve.pool(memory).to_dict()
        shares = curve.allocator.shares(memory)
    except Refused as error:
        return found | {"refused": str(error)}
    each = [{"name": name, "units": units, "each": expr_data(slots)} for name, units, slots in shares]
    return found | {"shares": each}


def bytes_of(subject: Subject, one: Crossing, batch: int) -> int:
    return subject.curve.bytes(one.context, batch)


def cross_data(
    subjects: Sequence[Subject], pairs: Sequence[tuple[Subject, Subject, Order, list[Crossing]]], batch: int
) -> dict[str, object]:
    """Which of two is cheaper where. cheaper_first: before the pair's first crossing; null where both are equal throughout."""
    crossings = sorted((one for *_, crossed in pairs for one in crossed), key=lambda one: one.context)
    return {
        "schema": SCHEMA,
        "batch": batch,
        "subjects": [
            {"name": subject.name, "engine": subject.curve.engine, "dtype": subject.curve.dtype} for subject in subjects
        ],
        "pairs": [
            {
                "subjects": [a.name, b.name],
                "cheaper_first": None if order.first == 0 else (a if order.first < 0 else b).name,
                "equal_somewhere": order.ties,
                "crossings": len(crossed),
                "period": order.period,
            }
            for a, b, order, crossed in pairs
        ],
        "crossings": [
            {
                "context": one.context,
                "cheaper": one.cheaper.name,
                "dearer": one.dearer.name,
                "bytes": bytes_of(one.cheaper, one, batch),
                "dearer_bytes": bytes_of(one.dearer, one, batch),
            }
            for one in crossings
        ],
    }


def model_data(name: str, model: Model, source: str) -> dict[str, object]:
    """A model of the catalogue. kinds: of its layers' parts; dtype: the config's own; source: how true to the published file."""
    kinds = dict.fromkeys(part.kind for layer in model.layers for part in parts(layer))
    return {
        "name": name,
        "type": model.model_type,
        "structure": model.structure,
        "kinds": list(kinds),
        "dtype": model.dtype,
        "source": source,
    }


def models_data(text: str = "", model_type: str | None = None, kind: str = "") -> dict[str, object]:
    """The catalogue: names that hold a text, of a model type, with a kind of layer."""
    from . import catalog
    from .model import describe

    rows = []
    for name in catalog.names():
        if text.lower() not in name.lower():
            continue
        row = model_data(name, describe(catalog.find(name) or {}, name), catalog.fidelity(name))
        if model_type in (None, row["type"]) and (not kind or kind in row["kinds"]):  # type: ignore[operator]
            rows.append(row)
    return {"schema": SCHEMA, "models": rows}


def gpus_data(found: Sequence[Gpu]) -> dict[str, object]:
    """Accelerators as the table has them."""
    return {"schema": SCHEMA, "gpus": [one.as_dict() for one in found]}
