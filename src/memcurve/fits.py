"""What fits in an amount of memory: how many sequences, and in which dtype of the cache."""

from __future__ import annotations

from .base import BadConfig, MemcurveError, Record, show, whole
from .engines import module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .curve import MemoryCurve
    from .model import Model


def most_batch(curve: MemoryCurve, memory: int, context: int) -> tuple[int | None, str]:
    """The most sequences of so many tokens in so much memory, and what keeps one more out; None where any number fits.

    Of an engine with a pool, as many as the pool runs at once, with the blocks, slots and settings that bound them; Refused
    where it would not start with so little.
    """
    if curve.allocator is not None:
        curve.allocator.pool(memory)
        return curve.allocator.most_requests(memory, context)
    try:
        return curve.max_batch(memory, context), "memory"
    except BadConfig:
        return 0, "memory"


class Choice(Record):
    """One dtype of the cache. name: the options that ask the engine for it, or the dtype it has without any.

    bytes: of the sequences asked for, None where the engine refuses it. why: what keeps it from fitting; empty where it fits.
    """

    name: str
    options: tuple[tuple[str, str], ...]
    bytes: int | None
    why: str

    @property
    def fits(self) -> bool:
        return not self.why


class Fitting(Record):
    """The dtypes tried, widest first, and the widest that fits, if any does."""

    tried: tuple[Choice, ...]
    widest: Choice | None


def fitting_dtypes(
    model: Model,
    memory: int,
    context: int,
    batch: int = 1,
    engine: str = "logical",
    dtype: str | None = None,
    encoder_context: int | None = None,
    **options: Any,
) -> Fitting:
    """Which of an engine's cache dtypes hold `batch` sequences of `context` tokens in `memory` bytes.

    First as the dtype and the options say, then each narrower one that the engine has (CACHE_DTYPES of its module) and that
    takes fewer bytes than those before. encoder_context None: the model's own. BadConfig where an option already sets the
    cache's dtype.
    """
    memory, context, batch = whole("memory", memory), whole("context", context), whole("batch", batch)
    narrower = module(engine).CACHE_DTYPES
    for key in options:
        if any(key in one for one in narrower):
            raise BadConfig(
                f"{key}: {show(options[key])}; the dtypes of the cache are what is tried: expected no {key}"
            )
    encoder = model.encoder_context if encoder_context is None else encoder_context
    tried: list[Choice] = []
    least: int | None = None
    for asked in ({}, *narrower):
        name = ", ".join(f"{key}={value}" for key, value in asked.items())
        try:
            curve = model.curve(engine, **{"dtype": dtype, **options, **asked})
            size = curve.bytes(context, batch, encoder)
        except MemcurveError as error:
            if not asked:
                raise
            tried.append(Choice(name=name, options=tuple(asked.items()), bytes=None, why=str(error)))
            continue
        if least is not None and size >= least:
            continue
        least = size
        why = lacking(curve, size, memory, context, batch)
        tried.append(Choice(name=name or curve.dtype, options=tuple(asked.items()), bytes=size, why=why))
    return Fitting(tried=tuple(tried), widest=next((one for one in tried if one.fits), None))


def lacking(curve: MemoryCurve, size: int, memory: int, context: int, batch: int) -> str:
    """What keeps the sequences from fitting; nothing where they do."""
    if curve.allocator is None:
        return "" if size <= memory else f"{size - memory:,} B too many"
    try:
        most, why = most_batch(curve, memory, context)
    except MemcurveError as error:
        return str(error)
    return "" if most is None or most >= batch else f"{most:,} at once, by {why}"
