"""Does it fit: weights, sequence state and what the engine sets aside, on each GPU, and how many requests that leaves room for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .base import BadConfig, NotDescribed, show, whole
from .checkpoint import Weights
from .checkpoint.parts import parts
from .curve import MemoryCurve
from .engines import module
from .engines.allowances import Allowance
from .model import Model, load
from .plan import (
    MOST_SEQUENCES,
    UNLIMITED,
    Plan,
    Stage,
    context_limit,
    longest,
    requests,
    smallest_pool,
    without_splits,
)
from .sizes import length_is_assumed, trained_context
from .units import dtype_bytes, show_bytes
from .views.stages import own_drafts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .engines.allowances import Measured
    from .gpus import Gpu
    from .lengths import Lengths
    from .steady import Steady
    from .terms import Pool

SCHEMA = 1
DEFAULT_CONTEXT = 8192
LEAST_MEMORY, MOST_MEMORY = 2**26, 2**50
STORED = (".safetensors", ".safetensors.index.json", ".gguf")
# Engines that load floating weights in the dtype that they run in, and how files call the floating dtypes.
CASTS = ("transformers", "vllm", "sglang")
FLOATS = ("F64", "F32", "BF16", "F16")
# Parts that MLX-LM's modules drop.
BESIDE = ("vision", "audio", "draft")
# Quantised checkpoints whose config does not say so (a file beside it may) are told by their names' own words.
QUANTISED = re.compile(
    r"(?i)(?:^|[-_./ ])(?:nvfp4|mxfp4|fp4|fp8|int4|int8|awq|gptq|w4a16|w8a8|w4a8|[248]-?bit|bnb|q[2-8](?:_\w+)?)(?:$|[-_./ ])"
)
# Weights that differ by so much from those that a log says were loaded are probably of another model or split.
APART = 0.05


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
    starts_with: the longest max_model_len that vLLM starts with, where its own does not fit. extras: how much of the fullest GPU's
    state is there for drafting ahead, and for prefixes that may be used again. pool: what the engine makes of the room that is
    left for state, where it makes a pool. steady: what it runs at once when it is kept full of requests of so many tokens of
    prompt and output, if they were given. weights: where they are from; total_weights: their bytes on all GPUs together, none twice.
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
    starts_with: int | None
    weights: str
    total_weights: int
    extras: tuple[tuple[str, int], ...] = ()
    pool: Pool | None = None
    steady: Steady | None = None
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
            elif name == "steady":
                found[name] = value and value.as_dict()
            elif name == "extras":
                found[name] = dict(value)
            elif name == "fewest":
                found[name] = value and dict(zip(("gpus", "tp", "pp"), value, strict=True))
            elif name not in ("curves", "rooms"):
                found[name] = list(value) if isinstance(value, tuple) else value
        return found


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
    prompt: Lengths | None = None,
    output: Lengths | None = None,
    wired_limit_mb: int | None = None,
    **options: Any,
) -> Fit:
    """Whether a model fits `gpus` GPUs with `batch` requests of `context` tokens, and what else it leaves room for.

    gpu: a name of `memcurve gpus`, or gpu_memory: bytes of one. tp, pp: ranks that share a layer, and pipeline stages; without
    them the first split of so many GPUs that fits, or that the engine takes. context: by default 8,192 tokens, or the model's longest.
    weights: a checkpoint (path or hub id); without it an estimate by the config. log: the text of a start-up log, which
    replaces what is assumed of activations and the like; reserve: bytes that do. speculative: tokens drafted by the model's own
    draft layers; prefix_caching: whether prefixes are kept for reuse. prompt, output: tokens of a request, for how many run at
    once when the engine is kept full (MemoryCurve.steady_requests). wired_limit_mb: what a Mac's iogpu.wired_limit_mb is set to (MiB
    that Metal may have); without it macOS's own share. options: the engine's own.
    BadConfig for what can't be, Refused where the engine refuses, NotDescribed where the weights can't be reckoned.
    """
    subject = model if isinstance(model, Model) else load(model)
    module(engine)
    for name in ("n_ctx", "n_seq_max"):
        if name in options:
            raise BadConfig(f"{name}: {show(options[name])}; here it follows from context and batch: expected those")
    given, tp, pp = without_splits(
        engine, {**switches(subject, engine, speculative, prefix_caching), **options}, tp, pp
    )
    card, given = device(gpu, gpu_memory, engine, given)
    card = wired(card, wired_limit_mb)
    held = loaded(weights_of(subject, model, weights, dtype, engine), subject, engine, dtype)
    if engine == "mlx" and dtype is None:
        dtype = embedded_in(held)
    batch, trained = whole("batch", batch, 1), trained_context(subject)
    measured = read_log(log, reserve)
    plan = Plan(
        subject, engine, dtype, card.memory_bytes, held, given, measured=measured,
        reserve=None if reserve is None else whole("reserve", reserve), driver_bytes=card.driver_bytes,
    )  # fmt: skip
    length = DEFAULT_CONTEXT if context is None else whole("context", context, 1)
    if context is None and trained is not None:
        length = min(length, trained)
    split, stages = plan.choose(gpus, tp, pp, length, batch)
    setting = context_limit(stages)
    limit = None if setting is None else setting[1]
    if context is None and limit is not None and limit < length:
        length = limit
    count, bound, tight = requests(stages, length)
    if setting is not None and length > setting[1]:
        count, bound = 0, setting[0]
    most = longest(stages, batch, limit)
    starts = starts_with(stages, limit)
    # More sequences than the engine takes are shown by the most that it does.
    shown = min(batch, MOST_SEQUENCES.get(engine, (UNLIMITED, ""))[0])
    each = tuple(held_by(stage, number, length, shown) for number, stage in enumerate(stages))
    fullest = min(range(len(each)), key=lambda number: each[number].free_bytes)
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
        per_gpu=each[fullest],
        max_context=most,
        max_requests=count,
        bound_by=bound,
        stages=each,
        fewest=fewest(plan, split, count >= batch, length, batch, limit),
        starts_with=starts,
        weights=held.source + (" (estimated from the config)" if held.estimated else ""),
        total_weights=held.bytes,
        extras=plan.extras(split, fullest, length, shown) if count else (),
        pool=smallest_pool(stages, starts),
        steady=kept_full(stages, tight, prompt, output),
        notes=(
            *held.notes, *notes_of(stages, split, plan, measured, most, trained, starts), *stages[0].curve.notes,
        ),
        curves=tuple(stage.curve for stage in stages),
        rooms=tuple(stages),
    )  # fmt: skip


def held_by(stage: Stage, number: int, context: int, batch: int) -> PerGpu:
    allowances = stage.set_aside(context, batch)
    state, reserve = stage.state(context, batch), sum(one.bytes for one in allowances)
    return PerGpu(
        stage=number,
        weights_bytes=stage.weights,
        state_bytes=state,
        reserve_bytes=reserve,
        free_bytes=stage.total - stage.weights - reserve - state,
        total_bytes=stage.total,
        allowances=allowances,
    )


def fewest(
    plan: Plan, split: tuple[int, int], fits: bool, context: int, batch: int, limit: int | None
) -> tuple[int, int, int] | None:
    """The fewest GPUs that do it, never more than a split that was just shown to."""
    if limit is not None and context > limit:
        return None
    found = plan.fewest(context, batch)
    shown = (split[0] * split[1], *split)
    return shown if fits and (found is None or found[0] > shown[0]) else found


def starts_with(stages: list[Stage], limit: int | None) -> int | None:
    """The longest max_model_len that vLLM starts with, one request of which must fit; None where its own does."""
    if limit is None or stages[0].curve.engine != "vllm":
        return None
    fits = longest(stages, 1, limit) or 0
    return fits if 0 < fits < limit else None


def kept_full(stages: list[Stage], number: int, prompt: Lengths | None, output: Lengths | None) -> Steady | None:
    """What runs at once when the engine is kept full."""
    if prompt is None and output is None:
        return None
    if prompt is None or output is None:
        raise BadConfig("prompt and output: one without the other; expected the tokens of both")
    if len(stages) > 1:
        raise NotDescribed("prompt: how the scheduler fills pipeline stages is not described; expected pp=1")
    stage = stages[number]
    curve, setting = stage.curve, context_limit(stages)
    if curve.allocator is not None and setting is not None:
        # As the engine is started: with the longest request that fits.
        most = longest(stages, 1, setting[1])
        curve = curve.replace(allocator=curve.allocator.limited(most)) if most else curve
    return curve.steady_requests(max(stage.room(1, 1), 0), prompt=prompt, output=output)


# -- what is said beside --------------------------------------------------------------------------------------------------


def notes_of(
    stages: list[Stage], split: tuple[int, int], plan: Plan, measured: Measured | None, most: int | None, trained: int | None,
    starts: int | None,
) -> list[str]:  # fmt: skip
    """What an answer stands on, and what might be otherwise."""
    found = []
    if starts is not None:
        found.append(
            f"vLLM starts only with max_model_len of {starts:,} or less here: its own longest request does not fit"
        )
    found += [one.why for one in stages[0].set_aside(1, 1) if one.warns]
    if trained is not None and (most is None or most > trained):
        found.append(f"the model's config says {trained:,} tokens; a longer context fits, and may not answer well")
    if split[0] > 1 and plan.shards.unknown:
        found.append(
            f"{show_bytes(plan.shards.unknown)} of weights have names that don't say how they divide: taken to be whole on each rank"
        )
    setting = context_limit(stages)
    if setting is not None and not plan.own.get(setting[0]) and length_is_assumed(plan.model):
        found.append(
            f"{setting[0]} {setting[1]:,} is the engine's own assumption: the config says no longest sequence; give {setting[0]}"
        )
    pool = stages[0].curve.allocator if plan.engine == "sglang" else None
    if pool is not None and getattr(pool, "states", None) is not None and "mamba_radix_cache_strategy" in plan.own:
        found.append(
            f"mamba_radix_cache_strategy {plan.own['mamba_radix_cache_strategy']}, as SGLang's server has it by itself"
        )
    if measured is not None and measured.weights is not None:
        here = max(stage.weights for stage in stages)
        if abs(here - measured.weights.low) > APART * here:
            found.append(
                f"the log says {measured.weights.text} of weights, here {show_bytes(here)} are reckoned: another model, dtype or split?"
            )
    return found


def read_log(text: str | None, reserve: int | None) -> Measured | None:
    if text is None:
        return None
    if reserve is not None:
        raise BadConfig("log and reserve: both say what is set aside; expected one of them")
    if not isinstance(text, str):
        raise BadConfig(f"log: {show(text)}; expected the text of a start-up log")
    from .startup import read_startup

    return read_startup(text)


# -- weights, GPU, options ------------------------------------------------------------------------------------------------


def weights_of(model: Model, source: object, given: Weights | str | None, dtype: str | None, engine: str) -> Weights:
    """The weights as given, or those in the model's own folder or GGUF file; else an estimate by its config."""
    from .checkpoint.sources import weights

    if isinstance(given, Weights):
        return given
    if given is not None:
        return weights(given)
    if isinstance(source, (str, os.PathLike)) and os.path.exists(source):
        path = os.fspath(source)
        names = os.listdir(path) if os.path.isdir(path) else [path]
        if any(name.endswith(STORED) for name in names):
            return weights(path)
        if "hf_quant_config.json" in names:
            raise NotDescribed(
                f"{path}: hf_quant_config.json says that the weights are quantised; give the checkpoint: --weights F"
            )
    return estimated(model, dtype, engine)


def estimated(model: Model, dtype: str | None, engine: str) -> Weights:
    """By the config: as its quantisation says, or in the dtype that the engine runs in. NotDescribed where that would be a guess."""
    from .catalog import UNSAID, fidelity, find
    from .checkpoint.estimate import estimate
    from .checkpoint.quantised import quantisation, stored

    how = quantisation(model)
    if how is None:
        if model.name in UNSAID:
            raise NotDescribed(
                f"{model.name}: published quantised, which this part of its config does not say; give the checkpoint: --weights F"
            )
        word = QUANTISED.search(model.name)
        if word is not None:
            raise NotDescribed(
                f"{model.name}: its name says {word[0].strip('-_./ ')}, its config no quantization_config; give the checkpoint: --weights F"
            )
        found = estimate(model, model.runs_in(engine, dtype) if engine in CASTS else model.dtype or dtype)
    else:
        # What is not quantised is in the config's dtype, or in bf16 as published ones are.
        found = stored(estimate(model, model.dtype or "bfloat16"), how)
    notes = found.notes
    if (
        how is None
        and find(model.name) is not None
        and fidelity(model.name) in ("trimmed", "quoted", "printed", "retyped")
    ):
        notes = (
            *notes,
            "the catalogue's config of this model is not a whole copy: were its weights quantised, it would not say so",
        )
    if engine == "llamacpp":
        notes = (*notes, "a quantised GGUF file has fewer bytes: give yours by --weights FILE")
    return found.replace(notes=notes)


def loaded(weights: Weights, model: Model, engine: str, dtype: str | None) -> Weights:
    """The weights as an engine holds them: floating ones of a checkpoint without quantised ones in the dtype that it runs in.

    MLX-LM keeps them as stored, without what its modules have no part for (each one's sanitize).
    """
    if engine == "mlx" and not weights.estimated:
        return of_text(weights)
    if engine not in CASTS or weights.estimated or not weights.tensors:
        return weights
    if any(tensor.dtype not in FLOATS for tensor in weights.tensors):
        return weights
    name = model.runs_in(engine, dtype)
    size = dtype_bytes(name)
    cast = tuple(tensor.replace(bytes=tensor.elements * size) for tensor in weights.tensors)
    if sum(tensor.bytes for tensor in cast) == weights.bytes:
        return weights
    return weights.replace(
        tensors=cast, notes=(*weights.notes, f"stored otherwise, loaded in {name} as the engine runs")
    )


def of_text(weights: Weights) -> Weights:
    """What MLX-LM loads of a checkpoint. NotDescribed for dtypes that it turns into others."""
    packed = {tensor.name for tensor in weights.tensors if tensor.numbers is not None}
    for tensor in weights.tensors:
        if tensor.dtype not in FLOATS and tensor.name not in packed:
            raise NotDescribed(
                f"{show(tensor.name)}: stored as {tensor.dtype}; what MLX-LM makes of it is not reckoned: expected floats, or weights "
                "that mlx_lm.convert quantised"
            )
    named = parts(tensor.name for tensor in weights.tensors)
    kept = tuple(tensor for tensor, part in zip(weights.tensors, named, strict=True) if part not in BESIDE)
    left = weights.bytes - sum(tensor.bytes for tensor in kept)
    if not left:
        return weights
    return weights.replace(
        tensors=kept, notes=(*weights.notes, f"{show_bytes(left)} of {', '.join(BESIDE)} not loaded by MLX-LM")
    )


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
            found |= {"n_rs_seq": speculative, **({"mtp_context": True} if layers else {})}
        else:
            raise BadConfig(
                f"speculative: {speculative}; {model.name} under {engine} has no draft layers that its config names: expected the "
                "engine's own options, such as num_speculative_tokens and speculative_method"
            )
    return found


def wired(card: Gpu, limit: int | None) -> Gpu:
    """A Mac whose iogpu.wired_limit_mb is set; 0 is macOS's own share, as the sysctl has it."""
    if not limit:
        return card
    if card.unified_bytes is None or card.vendor != "Apple":
        raise BadConfig(f"wired_limit_mb: {show(limit)}; expected a Mac of memcurve gpus beside it, here {card.name}")
    if whole("wired_limit_mb", limit) * 2**20 > card.unified_bytes:
        raise BadConfig(
            f"wired_limit_mb: {limit:,}; expected at most the {card.unified_bytes >> 20:,} MiB of {card.name}"
        )
    return card.replace(name=f"{card.name}, iogpu.wired_limit_mb={limit}", memory_bytes=limit * 2**20)


def embedded_in(weights: Weights) -> str | None:
    """The dtype that MLX-LM runs a checkpoint in: its embedding's, or that of its scales; None for an estimate."""
    if weights.estimated:
        return None
    named = zip(weights.tensors, parts(tensor.name for tensor in weights.tensors), strict=True)
    found = {tensor.dtype for tensor, part in named if part == "embedding" and tensor.dtype in FLOATS}
    return {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(found.pop()) if len(found) == 1 else None


def device(gpu: str | None, memory: int | None, engine: str, options: Mapping[str, Any]) -> tuple[Gpu, dict[str, Any]]:
    """One GPU, and the engine's options, with what follows from its kind."""
    from .gpus import Gpu
    from .gpus import gpu as find

    given = dict(options)
    if engine == "sglang":
        given.setdefault("mamba_radix_cache_strategy", "auto")  # as its server does
    if memory is not None and not LEAST_MEMORY <= whole("gpu_memory", memory, 1) <= MOST_MEMORY:
        raise BadConfig(f"gpu_memory: {memory:,} bytes; expected the bytes of one GPU, such as 24GiB")
    if gpu is None:
        if memory is None:
            raise BadConfig(
                "gpu: missing; expected a name, such as H100-80G (see: memcurve gpus), or gpu_memory, such as 80GiB"
            )
        return Gpu(
            name=show_bytes(memory), vendor="", memory_bytes=memory, memory_from="given", reported_by="", source=""
        ), given
    found = find(gpu)
    if memory is not None:
        found = found.replace(memory_bytes=memory, driver_bytes=None)
    if engine == "vllm" and "gpu" not in given:
        from .engines.vllm import alike

        given["gpu"] = alike(found.name, found.capability, found.memory_bytes)
    return found, given
