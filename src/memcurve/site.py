"""The page with its answers as files, for a server of files alone: every model of the catalogue under every engine.

Answers are those of default options, for the devices below and COUNTS of them; for any other a page shows the command line.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import __version__, catalog
from .base import MemcurveError, NotDescribed
from .engines import HOW, RANKS_OPTION, SHARED_CONTEXT
from .fitting import DEFAULT_CONTEXT, device, weights_of
from .gpus import gpu
from .layers import parts
from .model import describe
from .pages import room_data, rooms_data
from .plan import Plan
from .terms import filled_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .checkpoint import Weights
    from .curve import MemoryCurve
    from .model import Model

SCHEMA = 2
TWO_BYTES = ("bfloat16", "float16")
STATIC = Path(__file__).parent / "web" / "static"
COUNTS = (1, 2, 4, 8)
DEVICES = (
    "H100 80GB", "H200", "B200", "B300", "A100 80GB", "A100 40GB", "A10G", "L40S", "L4",
    "RTX 6000 Ada", "RTX PRO 6000 Blackwell", "RTX 3090", "RTX 4090", "RTX 5090", "MI300X",
    "MI355X", "M4 Max 128GB", "M3 Ultra 512GB",
)  # fmt: skip


class Curves(Plan):
    """A plan that keeps its curves from one kind of GPU to the next, by what of the GPU they depend on."""

    known: dict[str, tuple[MemoryCurve, ...]]

    def curves(self, tp: int, pp: int) -> tuple[MemoryCurve, ...]:
        key = f"{self.own} {tp} {pp}"
        if key not in self.known:
            self.known[key] = super().curves(tp, pp)
        return self.known[key]


def pack(data: Any) -> dict[str, Any]:
    """Lists, objects and texts that recur, written once: "$3" stands for shared[3], which refers to earlier ones alone.

    A text that begins with a $ has another in front. source.js unpacks.
    """
    numbers: dict[str, int] = {}
    nodes: list[Any] = []  # with the numbers of what is in them, which come first
    uses: list[int] = []

    def number(value: Any) -> int:
        node: Any = value
        inside: list[int] = []
        if isinstance(value, dict):
            inside = [number(one) for one in value.values()]
            node = dict(zip(value, inside, strict=True))
        elif isinstance(value, (list, tuple)):
            inside = node = [number(one) for one in value]
        key = repr(node)
        if key not in numbers:
            numbers[key] = len(nodes)
            nodes.append(node)
            uses.append(0)
            for one in inside:
                uses[one] += 1
        return numbers[key]

    number(data)
    shared: list[Any] = []
    written: list[Any] = []
    for node, used in zip(nodes, uses, strict=True):
        value: Any = node
        if isinstance(node, dict):
            value = {key: written[place] for key, place in node.items()}
        elif isinstance(node, list):
            value = [written[place] for place in node]
        elif isinstance(node, str) and node.startswith("$"):
            value = f"${node}"
        here = f"${len(shared)}"
        size = len(dump(value)) if isinstance(value, (dict, list, str)) else 0
        if used * size > size + 1 + used * (len(here) + 2):
            shared.append(value)
            value = here
        written.append(value)
    return {"shared": shared, "data": written[-1]}


def model_data(name: str, devices: Sequence[str] = DEVICES, counts: Iterable[int] = COUNTS) -> dict[str, Any]:
    """A model of the catalogue under every engine.

    engines: by name an error, or the model's own curve (of a config without a dtype that of bf16, with what is missing),
    alike: dtypes under
    which the curve is the same (see `alike`), and by count of GPUs an error, or weights of each stage and a cell per
    device: an error, or [form, set aside, shares' numbers …]. A form has all of `rooms_data` but these.
    """
    model = describe(catalog.find(name) or {}, name)
    engines: dict[str, Any] = {}
    for engine in HOW:
        dtype, missing = None, {}
        try:
            try:
                curve = model.curve(engine)
            except MemcurveError as error:
                if model.dtype is not None:
                    raise
                dtype, missing = "bfloat16", {"dtype": "bfloat16", "missing": str(error)}
                curve = model.curve(engine, dtype)
        except MemcurveError as error:
            engines[engine] = {"error": str(error)}
            continue
        weights = reckoned(model, dtype, engine)
        if model.encoder_context:
            curve = curve.at_encoder(model.encoder_context)
        engines[engine] = {
            "curve": curve.to_dict(),
            "filled": filled_data(curve.allocator),
            "alike": alike(model, engine, dtype, devices[0]),
            **missing,
        }
        if (option := RANKS_OPTION.get(engine)) is not None:
            engines[engine]["ranks"] = {str(count): rank(model, engine, dtype, {option: count}) for count in counts}
        if isinstance(weights, str):
            engines[engine]["no_fit"] = weights
        else:
            engines[engine]["fits"] = fits_data(model, engine, dtype, weights, devices, counts)
    return {
        "schema": SCHEMA, "name": name, "structure": model.structure, "dtype": model.dtype,
        "engines": engines,
    }  # fmt: skip


def reckoned(model: Model, dtype: str | None, engine: str) -> Weights | str:
    """The weights by the config, or why it does not tell them."""
    try:
        return weights_of(model, model.name, None, dtype, engine)
    except MemcurveError as error:
        return str(error)


def alike(model: Model, engine: str, dtype: str | None, card: str) -> dict[str, tuple[str, bool]]:
    """The dtypes that give the same curve as the one that is held: what the engine calls them, and whether a GPU's plan is
    the same too."""
    own, _, plan = seen(model, engine, dtype, card)
    found = {}
    for name in {*TWO_BYTES, model.dtype or dtype or TWO_BYTES[0]}:
        try:
            curve, called, other = seen(model, engine, name, card)
        except MemcurveError:
            continue
        if curve == own:
            found[name] = called, plan == other
    return dict(sorted(found.items()))


def seen(model: Model, engine: str, dtype: str | None, card: str) -> tuple[object, str, object]:
    """A curve without its dtype, that dtype, and the weights with what one GPU has beside them, or why there are none."""
    curve, weights = model.curve(engine, dtype), reckoned(model, dtype, engine)
    data = curve.to_dict() | {"dtype": None}
    if isinstance(weights, str):
        return data, curve.dtype, weights
    sizes = [(tensor.name, tensor.bytes) for tensor in weights.tensors]
    try:
        one, options = device(card, None, engine, {})
        plan = Plan(model, engine, dtype, one.memory_bytes, weights, options, driver_bytes=one.driver_bytes)
        room = room_data(plan.stages(1, 1)[0], DEFAULT_CONTEXT, 1)
    except MemcurveError as error:
        return data, curve.dtype, str(error)
    return data, curve.dtype, (sizes, {key: value for key, value in room.items() if key != "curve"})


def rank(model: Model, engine: str, dtype: str | None, options: dict[str, Any]) -> dict[str, object] | str:
    """The state on one of several ranks, or why there is none."""
    try:
        curve = model.curve(engine, dtype, **options)
        return {"curve": curve.to_dict(), "filled": filled_data(curve.allocator)}
    except MemcurveError as error:
        return str(error)


def fits_data(
    model: Model, engine: str, dtype: str | None, weights: Weights, devices: Sequence[str], counts: Iterable[int]
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {}
    plans: list[Curves | str] = []
    base: Curves | None = None
    for name in devices:
        try:
            card, options = device(name, None, engine, {})
            if base is None:
                base = Curves(model, engine, dtype, card.memory_bytes, weights, options, driver_bytes=card.driver_bytes)
                base.known = {}
            plans.append(base.on(card, options))
        except MemcurveError as error:
            plans.append(str(error))
    for count in counts:
        tp, pp = (count, 1) if engine in RANKS_OPTION else (1, count)
        cells: list[Any] = []
        held: list[int] = []
        for plan in plans:
            try:
                data = plan if isinstance(plan, str) else rooms_data(plan.stages(tp, pp), DEFAULT_CONTEXT, 1)
            except MemcurveError as error:
                data = str(error)
            if isinstance(data, str):
                cells.append(data)
                continue
            held = [room["weights"] for room in data["rooms"]]
            cells.append(cell(data))
        errors = {one for one in cells if isinstance(one, str)}
        found[str(count)] = (
            {"error": errors.pop()}
            if len(errors) == 1 and all(isinstance(one, str) for one in cells)
            else {"tp": tp, "pp": pp, "weights": held, "cells": cells}
        )
    return found


def cell(data: dict[str, Any]) -> list[Any]:
    """One device of a count: its form, what all stages set aside alike, and the shares' amounts in order."""
    rooms, amounts = [], []
    for room in data["rooms"]:
        shares = room["shares"]
        if isinstance(shares, list):
            amounts += [have for _, have, _ in shares]
            shares = [[name, slots] for name, _, slots in shares]
        kept = {key: room[key] for key in ("buffers", "filled", "most", "shared_context", "curve")}
        rooms.append({**kept, "shares": shares})
    return [{"limit": data["limit"], "rooms": rooms}, data["rooms"][0]["reserve"], *amounts]


def site_data(devices: Sequence[str] = DEVICES) -> dict[str, Any]:
    """What the page asks of a server at its start: engines, devices, and the models that are described."""
    models = []
    for name in catalog.names():
        try:
            model = describe(catalog.find(name) or {}, name)
        except NotDescribed:
            continue
        kinds = sorted({part.kind for layer in model.layers for part in parts(layer)})
        models.append({
            "name": name, "type": model.model_type, "structure": model.structure, "kinds": kinds, "dtype": model.dtype,
            "source": catalog.fidelity(name),
        })  # fmt: skip
    return {
        "schema": SCHEMA,
        "version": __version__,
        "engines": [{"name": name, "how": how, "shared_context": name in SHARED_CONTEXT} for name, how in HOW.items()],
        "gpus": [gpu(name).as_dict() for name in devices],
        "counts": COUNTS,
        "models": models,
    }


def write_site(folder: Path, devices: Sequence[str] = DEVICES) -> int:
    """Writes the page and its files into a folder; the bytes of all. OSError where it can't be written."""
    site = site_data(devices)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    total = 0

    def write(path: Path, data: bytes) -> None:
        nonlocal total
        path.write_bytes(data)
        total += len(data)

    for path in sorted(STATIC.iterdir()):
        if path.suffix in (".html", ".js", ".css", ".svg"):
            data = path.read_bytes()
            write(
                folder / path.name,
                data.replace(b'data-source="api"', b'data-source="files"') if path.suffix == ".html" else data,
            )
    write(folder / "data" / "site.json", dump(site))
    for name in (one["name"] for one in site["models"]):
        write(folder / "data" / f"{name.replace('/', '__')}.json", dump(pack(model_data(name, devices))))
    return total


def dump(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
