"""Models side by side: state per token, constant state, at three contexts, and what fits a GPU."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .base import BadConfig, MemcurveError, show
from .engines import module
from .fitting import device, fit
from .units import show_bytes, show_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .curve import MemoryCurve
    from .model import Model

SCHEMA = 1
CONTEXTS = (8192, 131072, 1048576)
REQUEST = 32768
FORMATS = ("text", "md", "csv", "json")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model. per_token: bytes that one more token takes at the longest contexts, a fraction where an engine keeps blocks;
    constant: bytes of what grows no more there, states and full windows; constant_from: the first context at which it is all
    there; bytes: at each of CONTEXTS, None beyond what the engine takes. From weights_bytes on None without a GPU; why: what
    stands against an answer.
    """

    model: str
    engine: str
    dtype: str
    per_token: Fraction
    constant: int
    constant_from: int
    bytes: tuple[int | None, ...]
    weights_bytes: int | None = None
    gpus: int | None = None
    max_context: int | None = None
    max_requests: int | None = None
    bound_by: str | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        data = {one.name: getattr(self, one.name) for one in fields(self)}
        per_token = int(self.per_token) if self.per_token.denominator == 1 else float(self.per_token)
        return {**data, "per_token": per_token, "bytes": dict(zip(map(str, CONTEXTS), self.bytes, strict=True))}


def row(
    model: Model, *, engine: str, dtype: str | None = None, gpu: str | None = None, gpu_memory: int | None = None,
    **options: Any,
) -> Row:  # fmt: skip
    """What one model keeps under an engine, and with a GPU what fits it: `options` go to `fit`."""
    planned = gpu is not None or gpu_memory is not None
    mine = {name: value for name, value in options.items() if name in module(engine).OPTIONS}
    curve = model.curve(engine, dtype, **(device(gpu, gpu_memory, engine, mine)[1] if planned else options))
    bounds = {} if curve.allocator is None else curve.allocator.bounds()
    most = bounds["context"][1] if "context" in bounds else None
    slope, constant, since = growth(curve, most)
    found = Row(
        model=model.name,
        engine=engine,
        dtype=curve.dtype,
        per_token=slope,
        constant=constant,
        constant_from=since,
        bytes=tuple(curve.bytes(context) if most is None or context <= most else None for context in CONTEXTS),
    )
    if not planned:
        return found
    try:
        plan = fit(model, gpu=gpu, gpu_memory=gpu_memory, engine=engine, dtype=dtype, context=REQUEST, **options)
    except MemcurveError as error:
        return Row(**{**vars(found), "why": str(error)})
    return Row(
        **{
            **vars(found),
            "weights_bytes": plan.total_weights,
            "gpus": plan.gpus,
            "max_context": plan.max_context,
            "max_requests": plan.max_requests,
            "bound_by": plan.bound_by,
        }
    )


def growth(curve: MemoryCurve, most: int | None) -> tuple[Fraction, int, int]:
    """Bytes per token over the last period of blocks, beyond every window or up to the most tokens that the engine takes; the
    bytes of what grows no more there; and the first context at which they are all there.
    """
    end = max((2**20, *curve.kinks())) + curve.period
    if most is not None:
        end = min(end, most)
    start = max(end - curve.period, 0)
    slope = Fraction(curve.bytes(end) - curve.bytes(start), end - start)
    full = [term for term in curve.terms if not term.grows_after(start)]
    constant = sum(term.bytes_at(start) for term in full)

    def held(context: int) -> int:
        return sum(term.bytes_at(context) for term in full)

    return slope, constant, bisect_left(range(start), constant, key=held)


COLUMNS = ("model", "per token", "states, windows", *(f"at {show_tokens(context)}" for context in CONTEXTS))
PLANNED = ("weights", "GPUs", "largest context", f"requests of {show_tokens(REQUEST)}")


def cells(found: Row, planned: bool) -> list[str]:
    per_token = (
        f"{float(found.per_token):,.0f} B" if found.per_token.denominator == 1 else f"{float(found.per_token):,.1f} B"
    )
    known = [
        found.model,
        per_token,
        show_bytes(found.constant) + (f" from {found.constant_from:,}" if found.constant_from > 1 else ""),
        *("–" if size is None else show_bytes(size) for size in found.bytes),
    ]
    if not planned:
        return known
    if found.weights_bytes is None:
        return [*known, *("?" * len(PLANNED))]
    end = "no end" if found.max_context is None else show_tokens(found.max_context)
    return [
        *known, show_bytes(found.weights_bytes), str(found.gpus), end, f"{found.max_requests:,} ({found.bound_by})",
    ]  # fmt: skip


def table(rows: Sequence[Row], form: str = "text") -> str:
    """The rows as text, Markdown, CSV (exact bytes) or JSON."""
    if form not in FORMATS:
        raise BadConfig(f"format: {show(form)}; expected one of {', '.join(FORMATS)}")
    if form == "json":
        import json

        return json.dumps(to_data(rows))
    if form == "csv":
        return to_csv(rows)
    planned = any(found.weights_bytes is not None or found.why for found in rows)
    lines = [[*COLUMNS, *(PLANNED if planned else ())], *(cells(found, planned) for found in rows)]
    if form == "md":
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        ruled = [escaped[0], ["---", *["---:"] * (len(lines[0]) - 1)], *escaped[1:]]
        return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    beyond = ["–: more than the engine takes of one request"] * any(None in found.bytes for found in rows)
    return "\n".join([*shown, *beyond, *(f"{found.model}: {found.why}" for found in rows if found.why)])


def to_data(rows: Sequence[Row]) -> dict[str, object]:
    return {"schema": SCHEMA, "models": [found.to_dict() for found in rows]}


def to_csv(rows: Sequence[Row]) -> str:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    flat = [{**{key: value for key, value in found.to_dict().items() if key != "bytes"},
             **{f"bytes_at_{context}": size for context, size in zip(CONTEXTS, found.bytes, strict=True)}} for found in rows]  # fmt: skip
    writer.writerow(flat[0])
    writer.writerows(line.values() for line in flat)
    return stream.getvalue().rstrip("\n")
