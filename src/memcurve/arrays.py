"""Curves over arrays of contexts and batches: the same terms as for integers, and where there is no answer, why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .terms import DIVISIONS, INT64_MAX, compile_expr, spare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .curve import MemoryCurve
    from .terms import Expr, Limits

    Array = NDArray[Any]
    # Where there is no answer, and why.
    Reasons = list[tuple[NDArray[np.bool_], str]]

TOO_MANY = f"more than {INT64_MAX:,} bytes, which int64 does not hold"


def evaluate(curve: MemoryCurve, contexts: Array, batches: Array, encoder: int = 0) -> tuple[Array, Reasons]:
    """Bytes (int64) of every context with every batch that it broadcasts to, and the points without any.

    contexts, batches: int64, 0 or more. Where a reason holds, the bytes mean nothing; the first reason of a point counts.
    """
    shape = np.broadcast_shapes(contexts.shape, batches.shape)
    if 0 in shape:
        return np.zeros(shape, np.int64), []
    reasons: Reasons = []
    if curve.limits is not None:
        contexts, batches, reasons = admit(curve.limits, contexts, batches)
    for one in curve.refusals:
        where = within(contexts, one.context, one.last_context) & within(batches, one.batch, one.last_batch)
        reasons.append((where, one.why))
    wide = bound(curve, contexts, batches, encoder) > INT64_MAX
    held, many = (contexts.astype(object), batches.astype(object)) if wide else (contexts, batches)
    constant, slope, rest = curve._plan(np.minimum)
    # Of one sequence first: where slots do not depend on the batch, a column of contexts is multiplied once.
    each = constant + slope * held
    together = None
    for weight, slots, shared in rest:
        size = weight * slots(held, many, encoder)
        if shared:
            together = size if together is None else together + size
        else:
            each = each + size
    total = each * many
    total = np.broadcast_to(total if together is None else total + together, shape)
    if wide:
        over = (total > INT64_MAX).astype(bool)
        reasons.append((over, TOO_MANY))
        total = np.where(over, 0, total).astype(np.int64)
    return total, [(np.broadcast_to(where, shape), why) for where, why in reasons]


def admit(limits: Limits, contexts: Array, batches: Array) -> tuple[Array, Array, Reasons]:
    """Limits.admit over arrays: the contexts and batches that the engine goes by, and those that it refuses."""
    reasons: Reasons = [(batches > limits.most_batch, limits.too_many)]
    if isinstance(limits.zero_context, str):
        reasons.append((contexts == 0, limits.zero_context))
    else:
        contexts = np.where(contexts == 0, limits.zero_context, contexts)
    one = np.maximum(batches, 1)
    step: Any = limits.step_tokens
    if limits.step_in_context:
        step = np.where(contexts == 0, step, np.minimum(contexts, step))
    return contexts, one, [*reasons, (one > step, limits.too_short)]


def within(numbers: Array, first: int, last: int | None) -> Array:
    return (numbers >= first) & (True if last is None else numbers <= last)


def bound(curve: MemoryCurve, contexts: Array, batches: Array, encoder: int) -> int:
    """No number that arises on the way to the bytes is larger."""
    context, batch, least = int(contexts.max()), max(int(batches.max()), 1), max(int(batches.min()), 1)
    found = total = 0
    for term in curve.terms:
        slots, part = largest(term.slots, context, batch, encoder, least)
        total += term.layers * term.slot_bytes * max(slots, 1) * batch
        found = max(found, part)
    return max(found, total, context)


def largest(expr: Expr, context: int, batch: int, encoder: int, least: int) -> tuple[int, int]:
    """The most that an expression comes to up to a context and from batch `least` to `batch`, and the most that a part of it does."""
    if not isinstance(expr, tuple):
        value = expr if isinstance(expr, int) else {"context": context, "batch": batch, "encoder": encoder}[expr]
        return value, value
    op, left, right = expr
    (a, most_a), (b, most_b) = (largest(side, context, batch, encoder, least) for side in (left, right))
    if op in DIVISIONS:
        # The divisor is a number, or one times the batch.
        by = int(compile_expr(right)(0, least, 0))
        value = a if op == "mod" else -(-a // by)
    elif op == "rows":
        value = a + spare(right)
    else:
        value = {"add": a + b, "mul": a * b, "min": min(a, b), "past": max(a - b, 0)}[op]
    return value, max(value, most_a, most_b)
