"""replay(): a trace of requests through an engine's memory rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, NotDescribed, Record, show, whole
from ..curve import MemoryCurve
from ..fitting import fit
from ..model import Model, load
from ..plan import requests as room_for
from ..terms import SCHEMA
from .demand import Demand
from .reading import Trace
from .run import Run
from .served import Served
from .service import Elapsed, Service, service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .run import Consumer

# Of requests for which a GPU must have room; a replay finds out what it really does.
SHORTEST = 1


class Replay(Record):
    """What a trace came to. trace: its path; format; counts: lines, and what of them was no request; service: the model of time;
    span_ns: from the first arrival to the last; runs: one for each model."""

    trace: str
    format: str
    counts: dict[str, Any]
    first_time_ns: int
    span_ns: int
    prompt_tokens: int
    output_tokens: int
    service: Service
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    @property
    def assumption(self) -> str:
        """Where time comes from, in words."""
        return self.service.said(any(run.capped for run in self.runs))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without the series."""
        found: dict[str, Any] = {"schema": SCHEMA, **self.as_dict()}
        return {
            **found,
            "service": {**self.service.to_dict(), "assumption": self.assumption},
            "runs": [run.to_dict() for run in self.runs],
            "notes": list(self.notes),
        }


class Setting(Record):
    """One model as it is replayed. memory: bytes for its state on each GPU, None without a limit; gpus: of one replica (0: not said)."""

    curve: MemoryCurve
    encoder: int
    memory: int | None
    gpus: int
    gpu: str
    notes: tuple[str, ...] = ()


def replay(
    trace: str | os.PathLike[str],
    models: Any,
    *,
    engine: str = "vllm",
    dtype: str | None = None,
    gpu: str | None = None,
    gpu_memory: int | None = None,
    gpus: int | None = None,
    tp: int | None = None,
    memory: int | None = None,
    weights: str | None = None,
    capped: bool | None = None,
    prefix_sharing: bool = True,
    prefill_rate: float | None = None,
    decode_rate: float | None = None,
    fit_rates: bool = False,
    columns: str | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Replay:
    """Replays a trace for one model or several, in one pass.

    trace: a file (formats.py), plain, .gz or .zst. models: what memcurve.load takes, a Model, or a MemoryCurve. gpu, gpu_memory, gpus,
    tp, weights: as memcurve.fit has them, from which comes the memory for state; or memory: its bytes on each GPU. capped: whether requests
    wait for memory, by the engine's scheduler (by default where there is a memory); else the memory is a line that demand may pass.
    prefix_sharing: whether prompts with the same hashes share, where the trace has hashes and requests wait. prefill_rate, decode_rate:
    tokens per second of one request; fit_rates: fitted to how long requests took, where the trace says so. columns, strict: as
    Trace has them. options: the engine's own. progress: called with bytes read and bytes of the file.

    BadFile for what is no trace; NotDescribed where requests have no bytes of their own, or the scheduler is not described.
    """
    given = list(models) if isinstance(models, (list, tuple)) else [models]
    if not given:
        raise BadConfig("models: none; expected one or more")
    return replay_models(
        os.fspath(trace), [(one, None, engine, dtype, options) for one in given], gpu=gpu, gpu_memory=gpu_memory, gpus=gpus, tp=tp,
        weights=weights, memory=memory, capped=capped, prefix_sharing=prefix_sharing, prefill_rate=prefill_rate, decode_rate=decode_rate,
        fit_rates=fit_rates, columns=columns, strict=strict, progress=progress,
    )  # fmt: skip


def replay_models(
    path: str,
    models: Sequence[tuple[Any, str | None, str, str | None, dict[str, Any]]],
    *,
    gpu: str | None,
    gpu_memory: int | None,
    gpus: int | None,
    tp: int | None,
    memory: int | None,
    weights: str | None,
    prefill_rate: float | None,
    decode_rate: float | None,
    fit_rates: bool,
    **given: Any,
) -> Replay:
    """The same for models of which each has a label, an engine, a dtype and options of its own."""
    if weights is not None and len(models) > 1:
        raise BadConfig(f"weights: {show(weights)}; of one model, and {len(models)} are given")
    known = {"gpu": gpu, "gpu_memory": gpu_memory, "gpus": gpus, "tp": tp, "weights": weights}
    settings = [
        named(setting(one, engine, dtype, memory, known, options), label)
        for one, label, engine, dtype, options in models
    ]
    rates = rates_of(path, prefill_rate, decode_rate, fit_rates, given["columns"], given["strict"])
    return run(path, settings, rates, **given)


def named(one: Setting, label: str | None) -> Setting:
    return one if label is None else one.replace(curve=one.curve.replace(name=label))


def rates_of(
    path: str, prefill: float | None, decode: float | None, fits: bool, columns: str | None, strict: bool
) -> Service:
    if fits and (prefill or decode):
        raise BadConfig("fit_rates: beside prefill_rate or decode_rate; expected one of both")
    return fitted(path, columns, strict) if fits else service(prefill, decode)


def run(
    path: str,
    settings: Sequence[Setting],
    rates: Service,
    *,
    capped: bool | None = None,
    prefix_sharing: bool = True,
    columns: str | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """One pass over a trace for models whose memory is known."""
    with Trace(path, columns, strict=strict) as source:
        hashes = source.columns.hashes if prefix_sharing else 0
        consumers = [consumer(one, rates, capped, hashes) for one in settings]
        prompts = outputs = 0
        for chunk in source.chunks():
            prompts, outputs = prompts + int(chunk.prompt.sum()), outputs + int(chunk.output.sum())
            for one in consumers:
                one.feed(chunk)
            if progress is not None:
                progress(source.stream.taken, source.stream.size)
    counts = source.counts
    return Replay(
        trace=path, format=source.columns.name, counts=counts.to_dict(), first_time_ns=counts.first_time,
        span_ns=counts.last_time - counts.first_time, prompt_tokens=prompts, output_tokens=outputs, service=rates,
        runs=tuple(one.finish() for one in consumers), notes=notes_of(source),
    )  # fmt: skip


def consumer(one: Setting, rates: Service, capped: bool | None, hashes: int) -> Consumer:
    if capped and one.memory is None:
        raise BadConfig("capped: no memory is given; expected gpu, gpu_memory or memory beside it")
    if one.memory is None or capped is False:
        return Demand(
            one.curve, rates, encoder=one.encoder, capacity=one.memory, gpus=one.gpus, gpu=one.gpu, notes=one.notes
        )
    return Served(one.curve, rates, one.memory, hashes=hashes, gpus=one.gpus, gpu=one.gpu, notes=one.notes)


def fitted(path: str, columns: str | None, strict: bool) -> Service:
    """The rates of a first pass over a trace that says how long its requests took."""
    if path == "-":
        raise BadConfig("fit_rates: a stream is read once; expected a file")
    found = Elapsed()
    with Trace(path, columns, strict=strict, elapsed=found.add) as source:
        if source.columns.elapsed is None:
            raise BadConfig(
                f"fit_rates: {path} does not say how long requests took; expected a column such as Elapsed time, named by columns=elapsed=NAME"
            )
        for _ in source.chunks():
            pass
    return found.service()


def setting(
    given: Any, engine: str, dtype: str | None, memory: int | None, known: dict[str, Any], options: dict[str, Any]
) -> Setting:
    """A model with the memory that it has for state: given, or what a plan on GPUs leaves."""
    planned = known["gpu"] is not None or known["gpu_memory"] is not None
    if memory is not None:
        memory = whole("memory", memory, 1)
        if planned:
            raise BadConfig("memory: beside gpu; expected one of both")
    for name in ("gpus", "tp", "weights"):
        if known[name] is not None and not planned:
            raise BadConfig(f"{name}: {show(known[name])}; expected gpu or gpu_memory beside it")
    if isinstance(given, MemoryCurve):
        if planned:
            raise BadConfig(f"models: the curve of {given.name}; on GPUs expected a model, whose weights take room too")
        return Setting(curve=given, encoder=0, memory=memory, gpus=0, gpu="")
    model = given if isinstance(given, Model) else load(given)
    if not planned:
        curve = model.curve(engine, dtype, **options)
        return Setting(curve=curve, encoder=model.encoder_context, memory=memory, gpus=0, gpu="")
    found = fit(given, engine=engine, dtype=dtype, context=SHORTEST, **known, **options)
    if found.pp > 1:
        raise NotDescribed(
            f"gpus: {found.gpus} make {found.pp} pipeline stages; how a scheduler fills them is not described: expected tp={found.gpus}"
        )
    stage = found.rooms[room_for(list(found.rooms), SHORTEST)[2]]
    room = stage.room(1, 1)
    if room <= 0 or not found.fits:
        raise BadConfig(
            f"gpus: {found.gpus} of {found.gpu} have no room for state beside the weights of {found.model}"
            + (f"; the fewest that do: {found.fewest[0]}" if found.fewest else "")
        )
    return Setting(
        curve=stage.curve, encoder=model.encoder_context, memory=room, gpus=found.gpus, gpu=found.gpu, notes=found.notes
    )


def notes_of(source: Trace) -> tuple[str, ...]:
    """What was read otherwise than it stands."""
    counts, found = source.counts, []
    if counts.broken:
        told = "; ".join(f"line {line:,}: {why}" for line, why in counts.told)
        more = "" if counts.broken <= len(counts.told) else f"; and {counts.broken - len(counts.told):,} more"
        found.append(f"{counts.broken:,} lines are no requests and were left out ({told}{more})")
    if counts.failed:
        found.append(f"{counts.failed:,} requests without an output, which failed, were left out")
    if counts.backwards:
        found.append(
            f"time goes back in {counts.backwards:,} lines, first in line {counts.first_backwards:,}; requests were put in order"
            + (
                f", but for {counts.late:,} more than a window late, which arrive with the one before"
                if counts.late
                else ""
            )
        )
    if counts.ended:
        found.append(f"the file is not whole: {counts.ended}; what was complete was replayed")
    return tuple(found)
