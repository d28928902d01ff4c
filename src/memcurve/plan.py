"""A model on GPUs of one kind under one engine: what each holds for a split, how many requests that leaves room for, and the search."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Self

from .base import BadConfig, MemcurveError, NotDescribed, Refused, show, whole
from .checkpoint.quantised import block_of, quantisation
from .checkpoint.shard import Shards
from .engines import IN_PIECES, RANKS_OPTION, SHARED_CONTEXT, STAGES_OPTION, budget_llamacpp, module
from .engines.allowances import Allowance
from .engines.budget import activations, budget, given_pool
from .engines.ranks import stage_ends
from .sizes import sizes_of
from .terms import INT64_MAX, compile_expr, scarcest
from .views.stages import UNCHECKED_BLOCKS, on_every_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .checkpoint import Weights
    from .curve import MemoryCurve
    from .engines.allowances import Measured
    from .gpus import Gpu
    from .model import Model
    from .terms import Expr, Pool, Share

# GPU counts where the fewest are looked for: beyond two nodes whole ones. A node's GPUs are the most that share a layer there.
COUNTS = (*range(1, 17), *range(24, 65, 8))
MOST_RANKS, MOST_GPUS = 8, 1024
# Options that make an engine load the model's own draft layers.
DRAFTS = ("draft_layers", "speculative_algorithm", "mtp_context")
# Options under which attention's weights are divided over other ranks than the rest.
OTHERWISE = ("enable_dp_attention", "dp_size", "attn_dp_size", "attn_cp_size")
UNLIMITED = 2**31
# LLAMA_MAX_SEQ, src/llama-cparams.h of llama.cpp; vLLM's and SGLang's limits are options of theirs.
MOST_SEQUENCES = {"llamacpp": (256, "n_seq_max")}

# What turns drafting and the reuse of prefixes off, by the engine's own options.
DRAFTING: dict[str, dict[str, Any]] = {
    "vllm": {"num_speculative_tokens": 0, "speculative_method": None, "draft_layers": 0},
    "sglang": {"speculative_algorithm": None, "speculative_num_draft_tokens": None},
    "llamacpp": {"n_rs_seq": 0, "mtp_context": None},
}
REUSE: dict[str, dict[str, Any]] = {"vllm": {"enable_prefix_caching": False}, "sglang": {"disable_radix_cache": True}}


class Stage:
    """One GPU of a pipeline stage: its share of the state as a curve, its weights, and what the engine sets aside there.

    set_aside: allowances for so many requests of so many tokens (llama.cpp's compute buffer follows from them: buffers, of which
    the largest counts). pool: bytes for sequence state where an option gives them.
    """

    def __init__(
        self,
        curve: MemoryCurve,
        weights: int,
        total: int,
        set_aside: Callable[[int, int], tuple[Allowance, ...]],
        pool: int | None = None,
        buffers: Sequence[tuple[Expr, str]] | None = None,
    ) -> None:
        self.buffers = buffers
        self.curve, self.weights, self.total, self.set_aside, self.given = curve, weights, total, set_aside, pool

    def room(self, context: int, batch: int) -> int:
        """Bytes for sequence state: an option's, if they are there, or what is left."""
        left = self.total - self.weights - sum(one.bytes for one in self.set_aside(context, batch))
        if self.given is None:
            return left
        return self.given if self.given <= left else 0

    def state(self, context: int, batch: int) -> int:
        """Bytes of so many requests; llama.cpp's context is one that all sequences share out."""
        if self.curve.engine in SHARED_CONTEXT:
            return self.curve.bytes(context * batch, batch)
        return self.curve.bytes(context, batch)

    def requests(self, context: int) -> tuple[int, str]:
        """How many requests of so many tokens there is room for, and what keeps one more out."""
        room = self.room(context, 1)
        if room <= 0:
            return 0, "weights" if self.weights >= self.total or self.given is None else "kv_cache_memory_bytes"
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
            return self.curve.allocator.shares(self.room(1, 1))
        except Refused as error:
            return "state slots" if "state cache" in str(error) else "tokens"

    def _holds(self, context: int, batch: int) -> bool:
        try:
            return self.state(context, batch) <= self.room(context, batch)
        except (Refused, OverflowError):
            return False


class Plan:
    """What does not change from one split to another. weights: as the engine loads them; measured: what a start-up log said."""

    def __init__(
        self,
        model: Model,
        engine: str,
        dtype: str | None,
        total: int,
        weights: Weights,
        options: Mapping[str, Any],
        *,
        measured: Measured | None = None,
        reserve: int | None = None,
        driver_bytes: int | None = None,
    ) -> None:
        known = module(engine).OPTIONS
        self.model, self.engine, self.dtype, self.total = model, engine, dtype, total
        self.own = {name: value for name, value in options.items() if name in known}
        self.beside = {name: value for name, value in options.items() if name not in known}
        for name in OTHERWISE:
            value = self.own.get(name)
            if value is True or value not in (None, False, 1):
                raise NotDescribed(
                    f"{name}: {show(value)}; how weights are divided then is not described: expected it unset"
                )
        self.measured, self.reserve, self.driver_bytes = measured, reserve, driver_bytes
        drafts = any(self.own.get(name) for name in DRAFTS)
        if drafts and weights.estimated:
            raise NotDescribed(
                f"{next(name for name in DRAFTS if self.own.get(name))}: the weights of draft layers are not in an estimate by the config; "
                "give the checkpoint: --weights F"
            )
        checked = engine in RANKS_OPTION and (engine, model.model_type) not in UNCHECKED_BLOCKS
        self.shards = Shards(
            weights,
            model.layers,
            on_every_stage(engine, model.model_type),
            drafts=drafts,
            host_embedding=engine == "llamacpp",
            block=block_of(quantisation(model)) if checked else None,
        )
        self.sizes = None if reserve is not None else sizes_of(model, engine, self.own, self.shards.vocabulary)

    def on(self, card: Gpu, options: Mapping[str, Any]) -> Self:
        """The same plan on GPUs of another kind, and with the engine's options that follow from it."""
        other = self.changed(options)
        other.total, other.driver_bytes = card.memory_bytes, card.driver_bytes
        other.sizes = self.sizes and sizes_of(self.model, self.engine, other.own, self.shards.vocabulary)
        return other

    def changed(self, options: Mapping[str, Any]) -> Self:
        """The same plan with some of the engine's options changed; None stands for the engine's default."""
        other = copy(self)
        other.own = {name: value for name, value in {**self.own, **options}.items() if value is not None}
        return other

    def stages(self, tp: int, pp: int) -> list[Stage]:
        """A GPU of each pipeline stage. Refused where the engine does not split the model so."""
        ranks = RANKS_OPTION.get(self.engine)
        if tp > 1 and ranks is None:
            raise NotDescribed(
                f"tp: {tp}; engine {self.engine} is described with layers divided over GPUs: expected tp=1 and pp={tp}"
            )
        options = self._options(tp)
        curves = self.curves(tp, pp)
        weights = self.shards.held(tp, stage_ends(self.engine, len(self.model.layers), pp))
        set_aside = self.set_aside(tp, pp, options, curves[0])
        pool = given_pool(self.engine, self.beside)
        found = self.buffers(options, curves[0])
        return [
            Stage(curve, size, self.total, set_aside, pool, found) for curve, size in zip(curves, weights, strict=True)
        ]

    def curves(self, tp: int, pp: int) -> tuple[MemoryCurve, ...]:
        """The state of each pipeline stage. llama.cpp drafts in a context of its own, beside the target's on the last GPU."""
        options = dict(self._options(tp))
        drafts = self.engine in SHARED_CONTEXT and options.pop("mtp_context", False)
        found = self.model.stages(self.engine, self.dtype, count=pp, **options)
        if not drafts:
            return found
        own = self.model.curve(self.engine, self.dtype, **options, mtp_context=True)
        return (*found[:-1], found[-1].replace(terms=(*found[-1].terms, *own.terms)))

    def _options(self, tp: int) -> dict[str, Any]:
        ranks = RANKS_OPTION.get(self.engine)
        return self.own if ranks is None or tp == 1 else {**self.own, ranks: tp}

    def set_aside(
        self, tp: int, pp: int, options: Mapping[str, Any], curve: MemoryCurve
    ) -> Callable[[int, int], tuple[Allowance, ...]]:
        """What the engine sets aside on a GPU, as a function of context and requests."""
        sizes, given = self.sizes, {**options, **self.beside}
        if sizes is None:
            given_one = (Allowance(name="reserve", bytes=self.reserve or 0, why="as given"),)
            if self.engine in IN_PIECES:
                return lambda context, batch: (*given_one, *passing(curve, context, batch))
            return lambda context, batch: given_one

        def reckon(context: int, batch: int) -> tuple[Allowance, ...]:
            shape: dict[str, int] = {}
            if self.engine in SHARED_CONTEXT:
                shape = {"n_ctx": max(1, context * batch), "n_seq_max": batch}
            elif self.engine in IN_PIECES:
                shape = {"tokens": max(1, batch * compile_expr(at_once(options))(context, batch, 0))}
            return budget(
                self.engine, self.total, sizes=sizes, tp=tp, pp=pp, options={**shape, **given}, log=self.measured,
                driver_bytes=self.driver_bytes,
            )  # fmt: skip

        if self.engine in SHARED_CONTEXT:
            return reckon
        if self.engine in IN_PIECES:
            return lambda context, batch: (*reckon(context, batch), *passing(curve, context, batch))
        fixed = reckon(1, 1)
        return lambda context, batch: fixed

    def buffers(self, options: Mapping[str, Any], curve: MemoryCurve) -> list[tuple[Expr, str]] | None:
        """What follows from context and batch, as expressions: llama.cpp's compute buffer, MLX-LM's activations. None where it is
        measured, given, or of another engine."""
        if self.sizes is None or self.measured is not None:
            return None
        if self.engine in IN_PIECES and curve.course is None:
            each, once = activations(self.sizes)
            return [(("add", ("mul", ("mul", at_once(options), "batch"), each), once), "tokens at once")]
        if self.engine not in SHARED_CONTEXT:
            return None
        given = {**options, **self.beside}
        cells: Expr = ("mul", "context", "batch") if given.get("kv_unified") else "context"
        return budget_llamacpp.buffers(
            self.sizes, given, given.get("n_ctx", cells), given.get("n_outputs_max", "batch")
        )

    def splits(self, gpus: int) -> Iterator[tuple[int, int]]:
        """(tp, pp) for so many GPUs, as people would try them: as many ranks to a layer as a node has, then stages."""
        if self.engine not in RANKS_OPTION:
            yield 1, gpus
            return
        for tp in range(min(gpus, MOST_RANKS), 0, -1):
            if gpus % tp == 0:
                yield tp, gpus // tp

    def fewest(self, context: int, batch: int) -> tuple[int, int, int] | None:
        """(GPUs, tp, pp): the fewest of COUNTS that run so many requests of so many tokens; None where none does."""
        for gpus in COUNTS:
            for tp, pp in self.splits(gpus):
                try:
                    if requests(self.stages(tp, pp), context)[0] >= batch:
                        return gpus, tp, pp
                except (Refused, NotDescribed):
                    continue
        return None

    def choose(
        self, gpus: int | None, tp: int | None, pp: int | None, context: int, batch: int
    ) -> tuple[tuple[int, int], list[Stage]]:
        """The split as asked; of several the first that fits, else the first that the engine takes."""
        many = check_split(gpus, tp, pp)
        if tp is not None or pp is not None:
            ranks = tp or many // (pp or 1)
            return (ranks, many // ranks), self.stages(ranks, many // ranks)
        first: tuple[tuple[int, int], list[Stage]] | None = None
        refused: MemcurveError | None = None
        for split in self.splits(many):
            try:
                found = self.stages(*split)
            except (Refused, NotDescribed) as error:
                refused = refused or error
                continue
            first = first or (split, found)
            if requests(found, context)[0] >= batch:
                return split, found
        if first is None:
            assert refused is not None
            raise refused
        return first

    def extras(self, split: tuple[int, int], number: int, context: int, batch: int) -> tuple[tuple[str, int], ...]:
        """Bytes of a stage's state that drafting and the reuse of prefixes add: the state with them less the state without."""
        found = []
        state = self.stages(*split)[number].state(context, batch)
        for name, off in (("drafting", DRAFTING), ("prefix caching", REUSE)):
            without = off.get(self.engine)
            if without is None:
                continue
            less = state - self.changed(without).stages(*split)[number].state(context, batch)
            if less > 0:
                found.append((name, less))
        return tuple(found)


def at_once(options: Mapping[str, Any]) -> Expr:
    """Tokens of a sequence that MLX-LM feeds at once: a piece of the prompt, or all of it in one forward."""
    return (
        "context"
        if options.get("schedule") == "forward"
        else ("min", "context", options.get("prefill_step_size", 2048))
    )


def passing(curve: MemoryCurve, context: int, batch: int) -> tuple[Allowance, ...]:
    """What caches hold on the way to a context beyond what they hold there."""
    more = curve.peak(context, batch) - curve.bytes(context, batch)
    if not more:
        return ()
    return (
        Allowance(
            name="caches on the way", bytes=more, why=f"their most until {context:,} tokens are in them", exact=True
        ),
    )


def check_split(gpus: int | None, tp: int | None, pp: int | None) -> int:
    """How many GPUs are asked for. BadConfig where the numbers contradict each other."""
    for name, value in (("gpus", gpus), ("tp", tp), ("pp", pp)):
        if value is not None and whole(name, value, 1) > MOST_GPUS:
            raise BadConfig(f"{name}: {value:,}; expected at most {MOST_GPUS:,}")
    asked = (tp or 1) * (pp or 1)
    many = asked if gpus is None else gpus
    if many % asked or (tp is not None and pp is not None and many != asked):
        product = " × ".join(f"{name} {value}" for name, value in (("tp", tp), ("pp", pp)) if value is not None)
        raise BadConfig(
            f"gpus: {many}; expected {'a multiple of ' if tp is None or pp is None else ''}{product} = {asked}"
        )
    if many > MOST_GPUS:
        raise BadConfig(f"gpus: {many:,}; expected at most {MOST_GPUS:,}")
    return many


def without_splits(
    engine: str, options: Mapping[str, Any], tp: int | None, pp: int | None
) -> tuple[dict[str, Any], int | None, int | None]:
    """The options without the engine's own names of tp and pp, which say the same. BadConfig where both say different things."""
    found = dict(options)
    sizes = {"tp": tp, "pp": pp}
    for short, name in (("tp", RANKS_OPTION.get(engine)), ("pp", STAGES_OPTION.get(engine))):
        if name in found:
            value = whole(str(name), found.pop(str(name)), 1)
            if sizes[short] not in (None, value):
                raise BadConfig(f"{name}: {value}; expected {short} = {sizes[short]}, as it is given too")
            sizes[short] = value
    return found, sizes["tp"], sizes["pp"]


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


def smallest_pool(stages: list[Stage], most: int | None) -> Pool | None:
    """What the engine makes of the room on the stage with the least: all stages have as many blocks, or tokens, as that one.

    most: the longest request that the engine is started with, where its own is too long to start.
    """
    found = []
    for stage in stages:
        allocator = stage.curve.allocator
        if allocator is None or stage.room(1, 1) <= 0:
            return None
        try:
            found.append((allocator if most is None else allocator.limited(most)).pool(stage.room(1, 1)))
        except Refused:
            return None
    return min(found, key=lambda pool: pool.units)
