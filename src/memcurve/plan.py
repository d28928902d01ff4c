"""Does it fit: weights, sequence state and what the engine sets aside, on each GPU, and how many requests that leaves room for."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .base import BadConfig, MemcurveError, NotDescribed, Refused, show, whole
from .checkpoint import Weights
from .checkpoint.shard import Shards
from .curve import MemoryCurve
from .engines import RANKS_OPTION, SHARED_CONTEXT
from .engines.allowances import Allowance, Measured
from .engines.budget import budget
from .engines.ranks import stage_ends
from .gpus import Gpu, gpu as find_gpu
from .model import Model, load
from .sizes import sizes_of
from .units import parse_bytes

SCHEMA = 1
# How far the fewest GPUs are looked for, and the most ranks that share a layer there: those of a node.
MOST_GPUS, MOST_RANKS = 64, 8
# LLAMA_MAX_SEQ, src/llama-cparams.h of llama.cpp; the others' limits are options of the engine.
MOST_SEQUENCES = {"llamacpp": (256, "n_seq_max")}
UNLIMITED = 2**31


@dataclass(frozen=True, kw_only=True)
class PerGpu:
    """What one GPU holds, in bytes: weights + state + reserve + free = total. free is negative by what is lacking.

    stage: which pipeline stage it is of. state: of `batch` requests of `context` tokens. reserve: what the engine sets
    aside, unfolded in allowances.
    """

    stage: int
    weights_bytes: int
    state_bytes: int
    reserve_bytes: int
    free_bytes: int
    total_bytes: int
    allowances: tuple[Allowance, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether a model with its state fits GPUs, and how much of it.

    per_gpu: the fullest GPU; stages: one of each pipeline stage. max_context: the longest context that `batch` requests
    can each have, None without an end, 0 if none; max_requests: how many of `context` tokens run at once; bound_by: what
    keeps one more out (weights, tokens, state slots, max_num_seqs …). fewest: (GPUs, tp, pp) of this kind that do it.
    """

    fits: bool
    model: str
    engine: str
    gpu: str
    gpus: int
    tp: int
    pp: int
    context: int
    batch: int
    per_gpu: PerGpu
    max_context: int | None
    max_requests: int
    bound_by: str
    stages: tuple[PerGpu, ...]
    fewest: tuple[int, int, int] | None
    weights: str
    notes: tuple[str, ...] = ()
    curves: tuple[MemoryCurve, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without the curves."""
        found: dict[str, Any] = {"schema": SCHEMA}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == "per_gpu":
                found[name] = _gpu_data(value)
            elif name == "stages":
                found[name] = [_gpu_data(stage) for stage in value]
            elif name == "fewest":
                found[name] = value and dict(zip(("gpus", "tp", "pp"), value, strict=True))
            elif name != "curves":
                found[name] = list(value) if isinstance(value, tuple) else value
        return found


def _gpu_data(gpu: PerGpu) -> dict[str, Any]:
    data = asdict(gpu)
    return {**data, "allowances": [allowance.as_dict() for allowance in gpu.allowances]}


class Stage:
    """One GPU of a pipeline stage: its share of the state as a curve, and the room that weights and reserve leave for it."""

    def __init__(self, curve: MemoryCurve, weights: int, total: int, allowances: tuple[Allowance, ...]) -> None:
        self.curve, self.weights, self.total, self.allowances = curve, weights, total, allowances
        self.reserve = sum(allowance.bytes for allowance in allowances)

    @cached_property
    def room(self) -> int:
        return self.total - self.weights - self.reserve

    def state(self, context: int, batch: int) -> int:
        """Bytes of so many requests; llama.cpp's context is one that all sequences share out."""
        if self.curve.engine in SHARED_CONTEXT:
            return self.curve.bytes(context * batch, batch)
        return self.curve.bytes(context, batch)

    def requests(self, context: int) -> tuple[int, str]:
        """How many requests of so many tokens there is room for, and what keeps one more out."""
        if self.room <= 0:
            return 0, "weights"
        if self.curve.allocator is not None:
            try:
                return self.curve.allocator.concurrency(self.room, context)
            except Refused as error:
                return 0, "state slots" if "state cache" in str(error) else "tokens"
        most, limit = MOST_SEQUENCES.get(self.curve.engine, (UNLIMITED, "batch"))
        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._holds(context, middle) else (low, middle)
        if low == most:
            return low, limit
        return low, "tokens" if any(term.grows for term in self.curve.terms) else "state slots"

    def _holds(self, context: int, batch: int) -> bool:
        try:
            return self.state(context, batch) <= self.room
        except (Refused, OverflowError):
            return False


class Plan:
    """A model on GPUs of one kind: what does not change between one split and another."""

    def __init__(
        self, model: Model, engine: str, dtype: str | None, gpu: str, total: int, shards: Shards,
        options: dict[str, Any], own: dict[str, Any], log: Measured | None, reserve: int | None,
    ) -> None:  # fmt: skip
        self.model, self.engine, self.dtype, self.gpu, self.total = model, engine, dtype, gpu, total
        self.shards, self.options, self.own, self.log, self.reserve = shards, options, own, log, reserve

    def stages(self, tp: int, pp: int) -> list[Stage]:
        """A GPU of each pipeline stage. Refused where the engine does not split the model so."""
        ranks = RANKS_OPTION.get(self.engine)
        if tp > 1 and ranks is None:
            raise NotDescribed(
                f"tp: {tp}; engine {self.engine} divides by layers here: expected tp=1 and pp as many as there are GPUs"
            )
        options = {**self.options, ranks: tp} if ranks else self.options
        curves = self.model.stages(self.engine, self.dtype, count=pp, **options)
        ends = stage_ends(self.engine, len(self.model.layers), pp)
        if self.reserve is None:
            allowances = budget(
                self.engine, self.total, sizes=sizes_of(self.model, curves[0]), tp=tp, pp=pp,
                options={**options, **self.own}, log=self.log,
            )  # fmt: skip
        else:
            allowances = (Allowance(name="reserve", bytes=self.reserve, why="as given"),)
        weights = self.shards.held(tp, ends)
        return [Stage(curve, size, self.total, allowances) for curve, size in zip(curves, weights, strict=True)]


def requests(stages: list[Stage], context: int) -> tuple[int, str, int]:
    """How many requests of so many tokens run on all stages at once, what keeps one more out, and on which stage."""
    found = [(*stage.requests(context), number) for number, stage in enumerate(stages)]
    return min(found, key=lambda one: one[0])


def longest(stages: list[Stage], batch: int, limit: int | None) -> int | None:
    """The longest context that so many requests can each have, up to the engine's limit; None without an end, 0 if none."""

    def holds(context: int) -> bool:
        return requests(stages, context)[0] >= batch

    if not holds(1):
        return 0
    low, high = 1, 2
    while high <= 2**40 and (limit is None or low < limit) and holds(high):
        low, high = high, high * 2
    if high > 2**40 and limit is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low if limit is None else min(low, limit)
