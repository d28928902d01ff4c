"""Does it fit: weights, sequence state and what the engine sets aside, on each GPU, and how many requests that leaves room for."""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from .base import BadConfig, MemcurveError, NotDescribed, Refused, whole
from .checkpoint import Weights
from .checkpoint.shard import Shards
from .curve import MemoryCurve
from .engines import RANKS_OPTION, SHARED_CONTEXT, module
from .engines.allowances import Allowance, Measured
from .engines.budget import budget, given_pool
from .engines.ranks import stage_ends
from .model import Model, load
from .sizes import sizes_of
from .terms import INT64_MAX, scarcest
from .units import show_bytes
from .views.stages import on_every_stage, own_drafts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .gpus import Gpu
    from .terms import Pool, Share

SCHEMA = 1
# Where the fewest GPUs are looked for: within a node, then whole nodes. The most ranks that share a layer there: a node's.
COUNTS = (*range(1, 9), *range(16, 65, 8))
MOST_RANKS = 8
# Options that make an engine load the model's own draft layers.
DRAFTS = ("draft_layers", "speculative_algorithm", "mtp_context")
# LLAMA_MAX_SEQ, src/llama-cparams.h of llama.cpp; the others' limits are options of the engine.
STORED = (".safetensors", ".safetensors.index.json", ".gguf")
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

    def to_dict(self) -> dict[str, Any]:
        data = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**data, "allowances": [allowance.as_dict() for allowance in self.allowances]}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether a model with its state fits GPUs, and how much of it.

    per_gpu: the fullest GPU; stages: one of each pipeline stage. max_context: the longest context that `batch` requests
    can each have, None without an end, 0 if none; max_requests: how many of `context` tokens run at once; bound_by: what
    keeps one more out (weights, tokens, state slots, max_num_seqs …). fewest: (GPUs, tp, pp) of this kind that do it.
    extras: how much of the fullest GPU's state is there for drafting ahead, and for prefixes that may be used again.
    pool: what the engine makes of the room that is left for state there, where it makes a pool.
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
    total_weights: int
    extras: tuple[tuple[str, int], ...] = ()
    pool: Pool | None = None
    notes: tuple[str, ...] = ()
    curves: tuple[MemoryCurve, ...] = field(default=(), repr=False)
    rooms: tuple[Stage, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without the curves."""
        found: dict[str, Any] = {"schema": SCHEMA}
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if name == "per_gpu":
                found[name] = value.to_dict()
            elif name == "stages":
                found[name] = [stage.to_dict() for stage in value]
            elif name == "pool":
                found[name] = value and value.to_dict()
            elif name == "extras":
                found[name] = dict(value)
            elif name == "fewest":
                found[name] = value and dict(zip(("gpus", "tp", "pp"), value, strict=True))
            elif name not in ("curves", "rooms"):
                found[name] = list(value) if isinstance(value, tuple) else value
        return found


class Stage:
    """One GPU of a pipeline stage: its share of the state as a curve, and the room that weights and reserve leave for it."""

    def __init__(
        self, curve: MemoryCurve, weights: int, total: int, allowances: tuple[Allowance, ...], pool: int | None
    ) -> None:
        self.curve, self.weights, self.total, self.allowances = curve, weights, total, allowances
        self.reserve = sum(allowance.bytes for allowance in allowances)
        left = total - weights - self.reserve
        # Bytes for sequence state: an option's, or what is left.
        self.room = left if pool is None else min(left, pool)

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
            shares = self.shares()
            return (0, shares) if isinstance(shares, str) else scarcest(shares, context) or (INT64_MAX, "nothing")
        most, limit = MOST_SEQUENCES.get(self.curve.engine, (UNLIMITED, "batch"))
        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._holds(context, middle) else (low, middle)
        if low == most:
            return low, limit
        return low, "tokens" if any(term.grows for term in self.curve.terms) else "state slots"

    def shares(self) -> Sequence[Share] | str:
        """What requests share in the engine's pool, or in a word what it lacks to start."""
        assert self.curve.allocator is not None
        try:
            return self.curve.allocator.shares(self.room)
        except Refused as error:
            return "state slots" if "state cache" in str(error) else "tokens"

    def pool(self) -> Pool | None:
        """What the engine makes of the room, where it makes a pool and starts with so little."""
        if self.curve.allocator is None or self.room <= 0:
            return None
        try:
            return self.curve.allocator.pool(self.room)
        except (Refused, BadConfig):
            return None

    def _holds(self, context: int, batch: int) -> bool:
        try:
            return self.state(context, batch) <= self.room
        except (Refused, OverflowError):
            return False


class Plan:
    """A model on GPUs of one kind under one engine: what does not change from one split to another."""

    def __init__(
        self, model: Model, engine: str, dtype: str | None, total: int, weights: Weights, options: Mapping[str, Any],
        log: Measured | None = None, reserve: int | None = None, driver_bytes: int | None = None,
    ) -> None:  # fmt: skip
        known = module(engine).OPTIONS
        self.model, self.engine, self.dtype, self.total = model, engine, dtype, total
        self.own = {name: value for name, value in options.items() if name in known}
        self.beside = {name: value for name, value in options.items() if name not in known}
        self.log, self.reserve, self.driver_bytes = log, reserve, driver_bytes
        self.vocabulary = next(
            (tensor.shape[0] for tensor in weights.tensors if "embed" in tensor.name and tensor.shape), None
        )
        self.sizes = None if reserve is not None else sizes_of(model, engine, self.own, self.vocabulary)
        drafts = any(self.own.get(name) for name in DRAFTS)
        self.shards = Shards(
            weights, model.layers, on_every_stage(engine, model.model_type), drafts, engine == "llamacpp"
        )

    def changed(self, options: Mapping[str, Any]) -> Self:
        """The same plan with some of the engine's options changed; None stands for the engine's default."""
        other = copy(self)
        other.own = {name: value for name, value in {**self.own, **options}.items() if value is not None}
        return other

    def on(self, card: Gpu, options: Mapping[str, Any]) -> Self:
        """The same plan on GPUs of another kind, and with the engine's options that follow from it."""
        other = self.changed(options)
        other.total, other.driver_bytes = card.memory_bytes, card.driver_bytes
        other.sizes = self.sizes and sizes_of(self.model, self.engine, other.own, self.vocabulary)
        return other

    def _options(self, tp: int) -> dict[str, Any]:
        ranks = RANKS_OPTION.get(self.engine)
        return self.own if ranks is None or tp == 1 else {**self.own, ranks: tp}

    def curves(self, tp: int, pp: int) -> tuple[MemoryCurve, ...]:
        """The state of each pipeline stage."""
        return self.model.stages(self.engine, self.dtype, count=pp, **self._options(tp))

    def stages(self, tp: int, pp: int) -> list[Stage]:
        """A GPU of each pipeline stage. Refused where the engine does not split the model so."""
        ranks = RANKS_OPTION.get(self.engine)
        if tp > 1 and ranks is None:
            raise NotDescribed(
                f"tp: {tp}; engine {self.engine} is described with layers divided over GPUs: expected tp=1 and pp={tp}"
            )
        options = self._options(tp)
        curves = self.curves(tp, pp)
        if self.sizes is None:
            allowances: tuple[Allowance, ...] = (Allowance(name="reserve", bytes=self.reserve or 0, why="as given"),)
        else:
            allowances = budget(
                self.engine,
                self.total,
                sizes=self.sizes,
                tp=tp,
                pp=pp,
                options={**options, **self.beside},
                log=self.log,
                driver_bytes=self.driver_bytes,
            )
        pool = given_pool(self.engine, self.beside)
        weights = self.shards.held(tp, stage_ends(self.engine, len(self.model.layers), pp))
        return [Stage(curve, size, self.total, allowances, pool) for curve, size in zip(curves, weights, strict=True)]

    def splits(self, gpus: int) -> Iterator[tuple[int, int]]:
        """(tp, pp) for so many GPUs, as people would try them: as many ranks to a layer as a node has, then stages."""
        if self.engine not in RANKS_OPTION:
            yield 1, gpus
            return
        for tp in range(min(gpus, MOST_RANKS), 0, -1):
            if gpus % tp == 0:
                yield tp, gpus // tp


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


def context_limit(stages: list[Stage]) -> tuple[str, int] | None:
    """The engine's setting that bounds a request, and the longest that it allows."""
    allocator = stages[0].curve.allocator
    return None if allocator is None else allocator.bounds().get("context")


def held_by(stages: list[Stage], number: int, context: int, batch: int) -> PerGpu:
    stage = stages[number]
    state = stage.state(context, batch)
    return PerGpu(
        stage=number,
        weights_bytes=stage.weights,
        state_bytes=state,
        reserve_bytes=stage.reserve,
        free_bytes=stage.total - stage.weights - stage.reserve - state,
        total_bytes=stage.total,
        allowances=stage.allowances,
    )


# What turns drafting and the reuse of prefixes off, by the engine's own options.
DRAFTING: dict[str, dict[str, Any]] = {
    "vllm": {"num_speculative_tokens": 0, "speculative_method": None, "draft_layers": 0},
    "sglang": {"speculative_algorithm": None, "speculative_num_draft_tokens": None},
    "llamacpp": {"n_rs_seq": 0},
}
REUSE: dict[str, dict[str, Any]] = {"vllm": {"enable_prefix_caching": False}, "sglang": {"disable_radix_cache": True}}


def extras(plan: Plan, split: tuple[int, int], number: int, context: int, batch: int) -> tuple[tuple[str, int], ...]:
    """Bytes of state that drafting and the reuse of prefixes add: the state with them less the state without."""
    found = []
    state = plan.stages(*split)[number].state(context, batch)
    for name, off in (("drafting", DRAFTING), ("prefix caching", REUSE)):
        without = off.get(plan.engine)
        if without is None:
            continue
        less = state - plan.changed(without).stages(*split)[number].state(context, batch)
        if less > 0:
            found.append((name, less))
    return tuple(found)


def choose(
    plan: Plan, gpus: int | None, tp: int | None, pp: int | None, context: int | None, batch: int
) -> tuple[tuple[int, int], list[Stage]]:
    """The split as asked; of several the first that fits, else the first that the engine takes."""
    for name, value in (("gpus", gpus), ("tp", tp), ("pp", pp)):
        if value is not None:
            whole(name, value, 1)
    if tp is not None or pp is not None:
        many = gpus or (tp or 1) * (pp or 1)
        ranks = tp or many // (pp or 1)
        stages = pp or many // ranks
        if ranks * stages != many:
            raise BadConfig(f"gpus: {many}; expected tp × pp = {ranks} × {stages} = {ranks * stages} of them")
        return (ranks, stages), plan.stages(ranks, stages)
    taken: list[tuple[tuple[int, int], list[Stage]]] = []
    refused: MemcurveError | None = None
    for split in plan.splits(gpus or 1):
        try:
            found = plan.stages(*split)
        except (Refused, NotDescribed) as error:
            refused = refused or error
            continue
        taken.append((split, found))
        if requests(found, context or 1)[0] >= batch:
            return taken[-1]
    if not taken:
        assert refused is not None
        raise refused
    return taken[0]


def fewest(plan: Plan, context: int, batch: int) -> tuple[int, int, int] | None:
    """(GPUs, tp, pp): the fewest that run so many requests of so many tokens, beyond 8 in whole nodes; None where 64 do not."""
    for gpus in COUNTS:
        for tp, pp in plan.splits(gpus):
            try:
                if requests(plan.stages(tp, pp), context)[0] >= batch:
                    return gpus, tp, pp
            except (Refused, NotDescribed):
                continue
    return None


def startup_notes(stages: list[Stage], limit: int | None) -> list[str]:
    """Whether vLLM starts at all with its longest request, which one must fit."""
    if limit is None or stages[0].curve.engine != "vllm":
        return []
    fits = longest(stages, 1, limit) or 0
    if not 0 < fits < limit:
        return []
    return [
        f"vLLM starts only with max_model_len of {fits:,} or less here: one request of its {limit:,} tokens does not fit"
    ]


def switches(model: Model, engine: str, speculative: int | None, prefix_caching: bool | None) -> dict[str, Any]:
    """The engine's own options for speculation by the model's draft layers, so many tokens ahead, and for reuse of prefixes."""
    found: dict[str, Any] = {}
    if prefix_caching is not None:
        if engine == "vllm":
            found["enable_prefix_caching"] = prefix_caching
        elif engine == "sglang":
            found["disable_radix_cache"] = not prefix_caching
        else:
            raise BadConfig(
                f"prefix_caching: {prefix_caching}; engine {engine} keeps nothing for it: expected vllm or sglang"
            )
    if speculative:
        layers = own_drafts(model.config)
        if engine == "vllm" and layers:
            found |= {"num_speculative_tokens": speculative, "speculative_method": "mtp", "draft_layers": layers}
        elif engine == "sglang" and layers:
            # Of a chain of drafts, the target verifies one token more than were drafted.
            found |= {"speculative_algorithm": "NEXTN", "speculative_num_draft_tokens": speculative + 1}
        elif engine == "llamacpp":
            found |= {"n_rs_seq": speculative}
        else:
            raise BadConfig(
                f"speculative: {speculative}; {model.name} under {engine} has no draft layers that its config names: expected the "
                "engine's own options, such as num_speculative_tokens and speculative_method"
            )
    return found


def device(gpu: str | None, memory: int | None, engine: str, options: Mapping[str, Any]) -> tuple[Gpu, dict[str, Any]]:
    """One GPU, and the engine's options, with what follows from its kind."""
    from .gpus import Gpu
    from .gpus import gpu as find

    given = dict(options)
    if engine == "sglang":
        given.setdefault("mamba_radix_cache_strategy", "auto")  # as its server does
    if gpu is None:
        if memory is None:
            raise BadConfig(
                "gpu: missing; expected a name, such as H100-80G (see: memcurve gpus), or gpu_memory, such as 80GiB"
            )
        size = whole("gpu_memory", memory, 1)
        return Gpu(
            name=show_bytes(size), vendor="", memory_bytes=size, memory_from="given", reported_by="", source=""
        ), given
    found = find(gpu)
    if memory is not None:
        found = found.replace(memory_bytes=whole("gpu_memory", memory, 1), driver_bytes=None)
    if engine == "vllm" and "gpu" not in given:
        from .engines.vllm import alike

        given["gpu"] = alike(found.name, found.capability, found.memory_bytes)
    return found, given


def weights_of(
    model: Model, source: object, given: Weights | str | None, dtype: str | None
) -> tuple[Weights, tuple[str, ...]]:
    """The weights as given, or those in the model's own folder or GGUF file; else an estimate by its config."""
    from .checkpoint.sources import weights

    if isinstance(given, Weights):
        return given, ()
    if given is not None:
        return weights(given), ()
    if isinstance(source, (str, os.PathLike)) and os.path.exists(source):
        path = os.fspath(source)
        if path.endswith(".gguf") or (os.path.isdir(path) and any(name.endswith(STORED) for name in os.listdir(path))):
            return weights(path), ()
    from .checkpoint.estimate import estimate

    return estimate(model, dtype), ()


def fit(
    model: Model | str | os.PathLike[str] | dict[str, Any],
    *,
    gpu: str | None = None,
    gpu_memory: int | None = None,
    gpus: int | None = None,
    engine: str = "vllm",
    dtype: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    context: int | None = None,
    batch: int = 1,
    weights: Weights | str | None = None,
    log: str | None = None,
    reserve: int | None = None,
    speculative: int | None = None,
    prefix_caching: bool | None = None,
    **options: Any,
) -> Fit:
    """Whether a model fits `gpus` GPUs with `batch` requests of `context` tokens, and what else it leaves room for.

    gpu: a name of `memcurve gpus`, or gpu_memory: bytes of one. tp, pp: ranks that share a layer, and pipeline stages; without
    them the first split of so many GPUs that fits, or that the engine takes. context: by default 8,192 tokens, or the model's longest.
    weights: a checkpoint (path or hub id); without it an estimate by the config. log: the text of a start-up log, which
    replaces what is assumed of activations and the like; reserve: bytes that do. speculative: tokens drafted by the model's own
    draft layers; prefix_caching: whether prefixes are kept for reuse. options: the engine's own.
    BadConfig for what can't be, Refused where the engine refuses, NotDescribed where the weights can't be reckoned.
    """
    subject = model if isinstance(model, Model) else load(model)
    own = switches(subject, engine, speculative, prefix_caching)
    card, given = device(gpu, gpu_memory, engine, {**own, **options})
    held, notes = weights_of(subject, model, weights, dtype)
    batch = whole("batch", batch, 1)
    measured = None
    if log is not None:
        from .startup import read_startup

        measured = read_startup(log)
    plan = Plan(
        subject, engine, dtype, card.memory_bytes, held, given, measured,
        None if reserve is None else whole("reserve", reserve), card.driver_bytes,
    )  # fmt: skip
    split, stages = choose(plan, gpus, tp, pp, context, batch)
    setting = context_limit(stages)
    limit = None if setting is None else setting[1]
    length = min(8192, limit or 8192) if context is None else whole("context", context, 1)
    count, bound, tight = requests(stages, length)
    if setting is not None and length > setting[1]:
        count, bound = 0, setting[0]
    return Fit(
        fits=count >= batch,
        model=subject.name,
        engine=engine,
        gpu=card.name,
        gpus=split[0] * split[1],
        tp=split[0],
        pp=split[1],
        context=length,
        batch=batch,
        per_gpu=held_by(stages, tight, length, batch),
        max_context=longest(stages, batch, limit),
        max_requests=count,
        bound_by=bound,
        stages=tuple(held_by(stages, number, length, batch) for number in range(len(stages))),
        fewest=fewest(plan, length, batch) if limit is None or length <= limit else None,
        total_weights=held.bytes,
        weights=held.source + (" (estimated from the config)" if held.estimated else ""),
        pool=stages[tight].pool(),
        extras=extras(plan, split, tight, length, batch),
        notes=(*notes, *held.notes, *startup_notes(stages, limit), *stages[0].curve.notes),
        curves=tuple(stage.curve for stage in stages),
        rooms=tuple(stages),
    )
