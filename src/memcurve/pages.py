"""What the pages need of an answer, so that they can move a context or a batch and compute every byte themselves."""

from __future__ import annotations

from .base import NotDescribed
from .engines import SHARED_CONTEXT
from .engines.budget import ACTIVATIONS
from .engines.budget_llamacpp import BUFFER
from .plan import MOST_SEQUENCES, UNLIMITED, context_limit
from .terms import expr_data, filled_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .fitting import Fit
    from .plan import Stage


def fit_data(fit: Fit) -> dict[str, Any]:
    """Fit.to_dict() with what it follows from: rooms, one GPU of each pipeline stage, and limit, the longest context."""
    return fit.to_dict() | rooms_data(fit.rooms, fit.context, fit.batch)


def rooms_data(stages: Sequence[Stage], context: int, batch: int) -> dict[str, Any]:
    """One GPU of each stage, and the longest context. NotDescribed where caches hold more on the way, which is no expression."""
    curve = stages[0].curve
    if curve.course is not None:
        raise NotDescribed(
            f"engine {curve.engine}: the page does not plan caches that hold more on the way; memcurve fit --engine {curve.engine} does"
        )
    return {"limit": context_limit(list(stages)), "rooms": [room_data(stage, context, batch) for stage in stages]}


def room_data(stage: Stage, context: int, batch: int) -> dict[str, Any]:
    """One GPU: weights, set aside and room for state in bytes, the curve of the state, and what requests of a pool share.

    shares: [what, how much, slots that a request takes], or the word for what the engine lacks to start; none without a
    pool, where as many sequences fit as the curve says, up to most. buffers: sizes of which the largest is set aside too.
    filled: as `terms.filled_data`.
    """
    curve, allocator = stage.curve, stage.curve.allocator
    batch = min(batch, MOST_SEQUENCES.get(curve.engine, (UNLIMITED, ""))[0])
    allowances = stage.set_aside(context, batch)
    shares: object = None
    if allocator is not None:
        found = stage.shares()
        shares = found if isinstance(found, str) else [[name, have, expr_data(slots)] for name, have, slots in found]
    buffers = stage.buffers or ()
    fixed = [one for one in allowances if not buffers or one.name not in (BUFFER, ACTIVATIONS)]
    return {
        "weights": stage.weights,
        "reserve": sum(one.bytes for one in fixed),
        "buffers": [expr_data(size) for size, _ in buffers],
        "total": stage.total,
        "room": stage.room(context, batch),
        "curve": curve.to_dict(),
        "shares": shares,
        "filled": filled_data(allocator),
        "most": MOST_SEQUENCES.get(curve.engine, (UNLIMITED, "batch")),
        "shared_context": curve.engine in SHARED_CONTEXT,
        "allowances": [one.as_dict() for one in allowances],
    }
