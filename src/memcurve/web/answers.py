"""Requests answered: a subject made a Model without a path or an address, and the functions of the library asked."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from .. import compare, fit, gguf, schema
from ..base import BadConfig, BadFile, NotDescribed, TooLarge, nearest, show
from ..checkpoint import Tensor, Weights
from ..checkpoint.estimate import estimate
from ..checkpoint.ggml import part
from ..config import parse
from ..crossed import compare_all
from ..engines import NAMES
from ..export import by_sequence, make_subjects
from ..files import MemoryFile
from ..model import Model, catalogued, describe, describe_gguf
from ..pages import fit_data
from ..patterns import is_pattern, pattern
from ..terms import SCHEMA
from . import forms
from .models import FORMS
from .wrong import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..curve import MemoryCurve
    from .models import CompareRequest, CrossRequest, Curve, CurveRequest, EstimateRequest, FitRequest, Subject

HEADER = "gguf"  # what errors call a header that was sent
# Bounds of a request's time and of an answer's size; published models have up to some hundreds of layers.
MAX_LAYERS, MAX_ROWS, MAX_STEPS, MAX_CROSSINGS = 1024, 16384, 300_000, 10_000


def model_of(asked: Subject) -> Model:
    """The model that a request means. BadConfig where it names none or several, and for one of too many layers."""
    model = _model_of(asked)
    if len(model.layers) > MAX_LAYERS:
        raise BadConfig(f"layers: {len(model.layers):,} of them; expected at most {MAX_LAYERS:,} here")
    return model


def _model_of(asked: Subject) -> Model:
    given = [name for name in ("model", "config", "gguf") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise BadConfig(f"subject: {' and '.join(given) or 'nothing'} given; expected one of model, config and gguf")
    if asked.sizes is not None and (asked.model is None or not is_pattern(asked.model)):
        raise BadConfig("sizes: given; expected them beside a pattern such as 3gdn:1mha")
    if asked.model is not None:
        if "/" not in asked.model and is_pattern(asked.model):
            sizes = {} if asked.sizes is None else asked.sizes.model_dump(exclude_none=True)
            return pattern(asked.model, dtype="bf16", **sizes)
        return catalogued(asked.model)
    if asked.config is not None:
        config = parse(asked.config, "config") if isinstance(asked.config, str) else asked.config
        if "general.architecture" in config:
            raise BadConfig("config: metadata of a GGUF file; expected its header as gguf")
        own = config.get("_name_or_path") or config.get("model_type") or "model"
        return describe(config, asked.name or str(own)[:200])
    return described(gguf.read_header(header_of(asked), HEADER), asked.name)


def header_of(asked: Subject) -> bytes:
    try:
        return base64.b64decode(asked.gguf or "", validate=True)
    except (binascii.Error, ValueError):
        raise BadFile(f"{HEADER}: not base64; expected the first bytes of a GGUF file in base64") from None


def described(metadata: gguf.Metadata, name: str | None) -> Model:
    own = metadata.data.get("general.name")
    return describe_gguf(metadata, name or (own if isinstance(own, str) and own else metadata.architecture)[:200])


def options_of(asked: Subject, engine: str, fits: bool = False) -> dict[str, Any]:
    """A request's options, by the names that the engine has: nothing else is handed on as a keyword."""
    known = sorted(forms.names(engine, fits))
    for name, value in asked.options.items():
        if name not in known:
            hint = nearest(name, known, 1)
            raise BadConfig(
                f"options.{name}: not an option of engine {engine}, which has {', '.join(known)}"
                + (f" (nearest: {hint})" if hint else "")
            )
        if fits and (wanted := forms.unlike(engine, name, value)):
            raise BadConfig(f"options.{name}: {show(value)}; expected {wanted}")
    return dict(asked.options)


def curve_of(asked: Curve, model: Model) -> MemoryCurve:
    return model.curve(asked.engine, asked.dtype, **options_of(asked, asked.engine))


def estimated(asked: EstimateRequest) -> dict[str, object]:
    model = model_of(asked)
    if asked.engine == "all":
        if asked.memory is not None:
            raise BadConfig("memory: a pool is of one engine; expected engine vllm or sglang beside it")
        return schema.engines_data(
            model, asked.contexts, asked.batch, asked.dtype, asked.encoder_context, dict(asked.options)
        )
    curve, encoder = curve_of(asked, model), schema.encoder_of(model, asked.encoder_context)
    if len(asked.contexts) * len(curve.terms) > MAX_ROWS:
        most = max(1, MAX_ROWS // len(curve.terms))
        raise BadConfig(f"contexts: {len(asked.contexts)} of {len(curve.terms):,} terms each; expected at most {most}")
    return schema.estimate_data(model, curve, asked.contexts, asked.batch, encoder, asked.memory)


def curved(asked: CurveRequest) -> dict[str, object]:
    model = model_of(asked)
    curve, encoder = curve_of(asked, model), schema.encoder_of(model, asked.encoder_context)
    return schema.curve_data(model, curve, asked.batch, encoder, asked.context, asked.memory)


def crossed(asked: CrossRequest) -> dict[str, object]:
    curves = []
    for one in asked.subjects:
        model = model_of(one)
        curve = curve_of(one, model)
        if encoder := schema.encoder_of(model, one.encoder_context):
            curve = curve.at_encoder(encoder)
        curves.append(curve if one.label is None else curve.replace(name=one.label))
    subjects = make_subjects(by_sequence(curves, asked.batch)[0])
    pairs = compare_all(subjects, asked.batch, asked.max_ctx, 2 * MAX_STEPS // (len(subjects) * (len(subjects) - 1)))
    if (many := sum(len(crossings) for *_, crossings in pairs)) > MAX_CROSSINGS:
        raise TooLarge(f"crossings: {many:,}; expected at most {MAX_CROSSINGS:,}: a smaller max_ctx has fewer")
    return schema.cross_data(subjects, pairs, asked.batch)


def check_engine(engine: str) -> None:
    if engine not in NAMES:
        hint = nearest(engine, NAMES, 1)
        raise BadConfig(
            f"engine: {show(engine)}; expected one of {', '.join(NAMES)}" + (f" (nearest: {hint})" if hint else "")
        )


def compared(asked: CompareRequest) -> dict[str, object]:
    planned = asked.gpu is not None or asked.gpu_memory is not None
    engine = asked.engine or ("vllm" if planned else "logical")
    check_engine(engine)
    device: dict[str, Any] = {"gpu": asked.gpu, "gpu_memory": asked.gpu_memory}
    if asked.gpus is not None:
        if not planned:
            raise BadConfig(f"gpus: {asked.gpus}; expected gpu or gpu_memory beside it")
        device["gpus"] = asked.gpus
    rows = []
    for one in asked.subjects:
        options = options_of(one, engine, fits=planned)
        rows.append(compare.row(model_of(one), engine=engine, dtype=one.dtype, **device, **options))
    return compare.to_data(rows)


def fitted(asked: FitRequest) -> dict[str, object]:
    check_engine(asked.engine)
    model = model_of(asked)
    plain = asked.model_dump(
        include={
            "gpu",
            "gpu_memory",
            "gpus",
            "tp",
            "pp",
            "context",
            "batch",
            "reserve",
            "speculative",
            "wired_limit_mb",
            "prefix_caching",
        }
    )
    options = options_of(asked, asked.engine, fits=True)
    weights = weights_of(asked, model)
    found = fit(model, engine=asked.engine, dtype=asked.dtype, weights=weights, **plain, **options)
    return fit_data(found) if asked.rooms else found.to_dict()


def weights_of(asked: FitRequest, model: Model) -> Weights | None:
    """The weights that a request gives: bytes in all, or the tensors that a GGUF header lists. None: by the config."""
    if asked.weights_bytes is not None:
        return spread(model, asked.weights_bytes, asked.dtype)
    if asked.gguf is not None:
        held = listed(header_of(asked), model.name)
        if held is None:
            raise NotDescribed(f"{model.name}: its header does not list all weights; expected weights_bytes")
        return held
    return None


def listed(header: bytes, name: str) -> Weights | None:
    """The tensors that a GGUF header lists; None where it lists none or is of a part of a split file, and for a type not known."""
    try:
        data, tensors = part(MemoryFile(HEADER, header))
    except BadFile:
        return None
    count = data.get("split.count")
    if not tensors or (isinstance(count, int) and count > 1):
        return None
    return Weights(source=name, tensors=tuple(tensors))


def spread(model: Model, size: int, dtype: str | None) -> Weights:
    """So many bytes of weights, over tensors as the config's are; in one tensor where it says none."""
    note = f"weights of {size:,} B as given"
    try:
        like = estimate(model, dtype or "bf16").tensors
    except (NotDescribed, BadConfig):
        whole = Tensor(name="", dtype="", shape=(), bytes=size)
        return Weights(
            source="given", tensors=(whole,), notes=(f"{note}, all of them on every GPU: how they divide is not known",)
        )
    total = sum(tensor.bytes for tensor in like)
    shares = [tensor.replace(dtype="", bytes=tensor.bytes * size // total) for tensor in like]
    rest = size - sum(tensor.bytes for tensor in shares)
    widest = max(range(len(shares)), key=lambda index: shares[index].bytes)
    shares[widest] = shares[widest].replace(bytes=shares[widest].bytes + rest)
    return Weights(source="given", tensors=tuple(shares), notes=(f"{note}, divided among tensors as the config's are",))


def shortened(header: bytes) -> dict[str, object]:
    """A GGUF header made short enough to send with every request, and what it is of."""
    metadata = gguf.read_header(header, HEADER)
    model = described(metadata, None)
    short = base64.b64encode(gguf.shortened(header, HEADER)).decode()
    weights = listed(header, model.name)
    return {
        "schema": SCHEMA,
        "model": model.name,
        "model_type": model.model_type,
        "structure": model.structure,
        "gguf": short,
        "weights_bytes": None if weights is None else weights.bytes,
    }


# What each of FORMS is answered by, and a GGUF header.
ANSWERED: dict[str, Callable[[Any], dict[str, object]]] = {
    "estimate": estimated, "curve": curved, "cross": crossed, "fit": fitted, "compare": compared,
    "gguf": shortened,
}  # fmt: skip


def answer_to(name: str, body: object) -> dict[str, object]:
    """The answer to a request of one of FORMS, as a tool or a script has it. BadConfig says what is wrong with it."""
    return ANSWERED[name](read(FORMS[name], body))
