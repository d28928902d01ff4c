"""What SGLang 0.5.23 sets aside of a GPU's memory beside weights and sequence state.

Files cited are of SGLang 0.5.23, beneath sglang/srt/. The pools get what is free after the weights less
(1 − mem_fraction_static) of what was free before them (mem_cache/kv_cache_configurator.py, _profile_available_bytes);
activations and graphs come of that slack. mem_fraction_static, where it is not given, follows from the GPU's memory in MiB
and the server arguments (arg_groups/memory_hook.py, handle_gpu_memory_settings), as on a CUDA device with the default
backends: full graphs for decoding, breakable ones for prefill, and no sizing after capture
(SGLANG_ENABLE_POST_CAPTURE_KV_SIZING is off).
"""

from __future__ import annotations

from ..base import BadConfig, Record, Refused, show, whole
from ..units import show_bytes
from .allowances import Allowance, GiB, MiB, flag, lacks, share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .allowances import Measured, Sizes

OPTIONS = (
    "mem_fraction_static",
    "chunked_prefill_size",
    "max_prefill_tokens",
    "max_total_tokens",
    "cuda_graph_max_bs_decode",
    "cuda_graph_max_bs_prefill",
    "disable_cuda_graph",
    "disable_decode_cuda_graph",
    "disable_prefill_cuda_graph",
    "mm_feature_transport",
)
# Driver and runtime, before the weights; with several ranks NCCL and the all-reduce buffers too, which are large on the
# GPUs of servers.
CONTEXT, CHANNELS, COLLECTIVES, SERVER = 800 * MiB, 256 * MiB, 2304 * MiB, 60 * GiB
# environ.py: SGLANG_VLM_CACHE_SIZE_MB, SGLANG_MM_FEATURE_CACHE_MB
PICTURES, FEATURES = 100 * MiB, 1024 * MiB


class Class(Record):
    """GPUs below so many MiB, and what handle_gpu_memory_settings gives them: max_bs for less than 4 ranks and for more."""

    below: float
    chunk: int
    few: int
    many: int


CLASSES = (
    Class(below=20 * 1024, chunk=2048, few=8, many=8),
    Class(below=35 * 1024, chunk=4096, few=48, many=160),
    Class(below=60 * 1024, chunk=4096, few=32, many=160),
    Class(below=90 * 1024, chunk=8192, few=256, many=512),
    Class(below=160 * 1024, chunk=8192, few=256, many=512),
    Class(below=float("inf"), chunk=16384, few=512, many=512),
)


def allowances(
    total: int, sizes: Sizes, tp: int, pp: int, options: Mapping[str, Any], log: Measured | None,
    reported: int,
) -> tuple[Allowance, ...]:
    before = runtime(total, tp, pp, log)
    given = options.get("mem_fraction_static")
    fraction, why = (share("mem_fraction_static", given, 1), "given") if given is not None else (0.0, "")
    if given is None and log is not None and log.fraction is not None:
        fraction, why = log.fraction, "in the log"
    elif given is None:
        fraction, why = mem_fraction_static(reported / MiB, sizes, tp, pp, options)
    if not 0 < fraction <= 1:
        raise Refused(f"mem_fraction_static would be {fraction:g} ({why}): SGLang keeps more than the GPU has")
    free = total - before.bytes
    parts = [
        before,
        Allowance(
            name="slack for activations and graphs",
            bytes=round(free * (1 - fraction)),
            why=f"(1 − mem_fraction_static {fraction:g}, {why}) of {show_bytes(free)} free before the weights",
            # A config may call its picture encoder's sizes otherwise than SGLang reads them.
            exact=given is not None or not sizes.multimodal,
        ),
    ]
    if sizes.latent_layers:
        parts.append(
            Allowance(
                name="MLA's copies of kv_b_proj",
                bytes=sizes.absorbed(tp),
                why=f"w_kc and w_vc in {sizes.latent_layers} layers, beside the weight (deepseek_weight_loader.py)",
            )
        )
    if sizes.multimodal:
        reserved = PICTURES + FEATURES * (options.get("mm_feature_transport") in ("cuda_ipc", "cuda_vmm"))
        parts.append(Allowance(name="picture embeddings", bytes=reserved, why="mm_runtime_reservation_gb", exact=True))
    return tuple(parts)


def runtime(total: int, tp: int, pp: int, log: Measured | None) -> Allowance:
    """What is gone before the weights load."""
    if log is not None:
        if log.before is None:
            raise lacks(log, '"Load weight begin. avail mem"')
        taken = max(0, total - log.before.low)
        return Allowance(
            name="runtime",
            bytes=taken,
            why=f"measured: {log.before.text} free of {show_bytes(total)} before the weights",
        )
    between = 0 if tp * pp == 1 else COLLECTIVES if total > SERVER else CHANNELS
    more = f", {show_bytes(between)} of NCCL and all-reduce buffers" if between else ""
    return Allowance(
        name="runtime", bytes=CONTEXT + between, why=f"assumed: {show_bytes(CONTEXT)} of CUDA context{more}"
    )


def mem_fraction_static(memory: float, sizes: Sizes, tp: int, pp: int, options: Mapping[str, Any]) -> tuple[float, str]:
    """handle_gpu_memory_settings for `memory` MiB (nvidia-smi's memory.total), and what it is made of."""
    kind = next(one for one in CLASSES if memory < one.below)
    chunk = number(options, "chunked_prefill_size", kind.chunk)
    asked = options.get("max_running_requests")
    most = number(options, "cuda_graph_max_bs_decode", kind.few if tp < 4 else kind.many)
    if asked is not None and options.get("cuda_graph_max_bs_decode") is None:
        most = min(most, whole("max_running_requests", asked, 1))
    tokens = max(chunk if chunk > 0 else number(options, "max_prefill_tokens", 16384), 2048)
    graphs = graph_reserve(chunk, most, sizes, pp, options)
    reserved = 512 + tokens * 1.5 + tp * pp / 8 * 1024 + graphs
    if memory > 60 * 1024:
        reserved = max(reserved, 10 * 1024)
    fraction = round((memory - reserved) / memory, 3)
    why = f"{reserved:,.0f} MiB for {tokens:,} prefill tokens, {most} decodes, {tp * pp} rank{'s' * (tp * pp > 1)}"
    if sizes.multimodal and sizes.vision is not None:
        fraction *= picture_factor(*sizes.vision)
        why += ", less for the picture encoder"
    return fraction, why


def graph_reserve(chunk: int, most: int, sizes: Sizes, pp: int, options: Mapping[str, Any]) -> float:
    """reserve_for_graph_mb, in MiB."""
    none = flag(options, "disable_cuda_graph")
    reserved = 0.0
    if not none and not flag(options, "disable_decode_cuda_graph"):
        reserved += most * 2
    if flag(options, "enable_dp_attention"):
        groups = number(options, "attn_dp_size", number(options, "dp_size", 1))
        reserved += most * groups * (4.5 if most > 300 else 3)
    # apply_cuda_graph_compatibility: none in pipeline stages, nor for classes that lack them.
    if none or flag(options, "disable_prefill_cuda_graph") or pp > 1 or not sizes.graphs_prefill:
        return reserved
    if sizes.latent_layers:
        return reserved + 1.5 * 1024
    largest = number(options, "cuda_graph_max_bs_prefill", chunk)
    if options.get("cuda_graph_max_bs_prefill") is None and options.get("max_total_tokens") is not None:
        largest = min(largest, whole("max_total_tokens", options["max_total_tokens"], 1))
    return reserved + 8 * prefill_graphs(largest)


def prefill_graphs(largest: int) -> int:
    """generate_prefill_cuda_graph_batch_sizes (cuda_graph_hook.py), counted."""
    steps = ((4, 33, 4), (48, 257, 16), (288, 513, 32), (576, 1025, 64), (1280, 4097, 256), (4608, largest + 1, 512))
    return sum(len(range(start, min(stop, largest + 1), step)) for start, stop, step in steps)


def picture_factor(layers: int, width: int) -> float:
    """adjust_mem_fraction_for_vlm: 0.95, and a tenth less for each ViT-L/14 that the encoder is larger."""
    ratio = layers * width**2 / (24 * 1024**2)
    return 0.95 * max(0.8, min(1.05, 1.0 - 0.1 * (ratio - 1.0)))


def number(options: Mapping[str, Any], name: str, default: int) -> int:
    """An option as a whole number; -1 is SGLang's word for none."""
    value = options.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and value != -1) or value > 2**31:
        raise BadConfig(f"{name}: {show(value)}; expected an integer of 1 or more, or -1")
    return value
