"""What vLLM 0.33.0 sets aside of a GPU's memory beside weights and sequence state.

Files cited are of vLLM 0.33.0, beneath vllm/. The pool is requested − consumed − transient peak − CUDA graphs
(v1/worker/gpu_worker.py, determine_available_memory), requested being ⌈total × gpu_memory_utilization⌉
(v1/worker/utils.py, request_memory). What is counted begins after the distributed environment is up (init_device): the
CUDA context and NCCL's first buffers lie in the part that stays free.

The peak is measured by vLLM in a run of max_num_batched_tokens tokens and max_num_seqs samples (profile_run), so the
formulas here are the tensors that live at once in it, and their constants are from recorded start-ups.

gpu_memory_utilization: vLLM's share of the GPU; 0.92 by default.
kv_cache_memory_bytes: bytes of the pool on each rank, instead of what is left.
enforce_eager: no CUDA graphs.
max_cudagraph_capture_size: the largest batch that is captured.
estimate_cudagraphs: the pool is sized with room for graphs (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS); True by default.
language_model_only: the picture encoder is not loaded.
"""

from __future__ import annotations

from math import ceil

from ..base import whole
from ..units import show_bytes
from .allowances import CONTEXT, Allowance, MiB, flag, lacks, share
from .vllm import gpu_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .allowances import Measured, Sizes

OPTIONS = (
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "enforce_eager",
    "max_cudagraph_capture_size",
    "estimate_cudagraphs",  # VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS (envs.py): on
    "language_model_only",
)
UTILIZATION = 0.92  # config/cache.py
# The context before vLLM looks: 0.51 GiB on an H100.
# Workspaces of FlashInfer and cuBLAS and indices, which live at the peak; and what a picture encoder's run adds to it.
WORKSPACE, PICTURES = 256 * MiB, 512 * MiB
ROWS = 64 * 1024  # latents
# Outside PyTorch: kernels loaded during the run; with several ranks NCCL's channels and all-reduce buffers, whose symmetric
# memory (distributed/device_communicators/symm_mem.py) only capabilities 9 and 10 have.
KERNELS, CHANNELS, SYMMETRIC = 448 * MiB, 512 * MiB, 2304 * MiB
# config/vllm.py, _set_cudagraph_sizes: the largest size captured, on capability 10 and on others
LARGEST_10, LARGEST = 1024, 512
GRAPH_BASE, GRAPH_LAYER = 256 * MiB, 192 * 1024


def given_pool(options: Mapping[str, Any]) -> int | None:
    """The pool of each rank where an option gives it (kv_cache_memory_bytes skips the sizing)."""
    size = options.get("kv_cache_memory_bytes")
    return None if size is None else whole("kv_cache_memory_bytes", size, 1)


def allowances(
    total: int, sizes: Sizes, tp: int, pp: int, options: Mapping[str, Any], log: Measured | None
) -> tuple[Allowance, ...]:
    use = share("gpu_memory_utilization", options.get("gpu_memory_utilization"), UTILIZATION)
    given = given_pool(options) is not None
    graphed = not flag(options, "enforce_eager")
    # Where the pool is given its size does not answer to the graphs, but they take their memory all the same.
    counted = graphed and (given or flag(options, "estimate_cudagraphs", True))
    if log is not None:
        parts = measured(log, total, use, graphed, counted)
    else:
        parts = assumed(sizes, tp, pp, counted, options)
    if given:
        return Allowance(name="CUDA context", bytes=CONTEXT, why="assumed: driver and runtime of one process"), *parts
    return left_free(total, use), *parts


def assumed(sizes: Sizes, tp: int, pp: int, counted: bool, options: Mapping[str, Any]) -> list[Allowance]:
    capability = gpu_of(options.get("gpu", "H100")).capability[0]
    parts = [activations(sizes, tp, flag(options, "language_model_only")), non_torch(tp, capability)]
    if sizes.quantised and sizes.latent_layers:
        parts.append(
            Allowance(
                name="MLA's copies of kv_b_proj",
                bytes=sizes.absorbed(tp),
                why=f"W_UK_T and W_UV dequantised in {sizes.latent_layers} layers, beside the quantised weight",
            )
        )
    if counted:
        parts.append(graphs(sizes, pp, capability, options))
    return parts


def left_free(total: int, use: float) -> Allowance:
    """request_memory: ⌈total × gpu_memory_utilization⌉ is vLLM's, in the same arithmetic."""
    left = total - ceil(total * use)
    tight = (
        f"; less than the {show_bytes(CONTEXT)} that a CUDA context is assumed to take, so vLLM may refuse to start"
        if left < CONTEXT
        else "; the CUDA context lies in it"
    )
    return Allowance(
        name="left free",
        bytes=left,
        why=f"gpu_memory_utilization {use:g} of {show_bytes(total)}{tight}",
        exact=True,
        warns=left < CONTEXT,
    )


def activations(sizes: Sizes, tp: int, text_only: bool) -> Allowance:
    """The peak of profile_run, of a model pass or of sampling, and MoE workspaces, which stay (v1/worker/workspace.py).

    A pass holds the residual, the normed input and the feed-forward's halves, or a prefill's latents, expanded as for the
    longest context (mla_attention.py, determine_chunked_prefill_workspace_size); sampling holds logits in the model's dtype
    and in fp32, probabilities and noise (v1/sample/sampler.py, ops/topk_topp_sampler.py, forward_native).
    """
    tokens, e = sizes.tokens, sizes.element
    samples = min(sizes.sequences, tokens)
    fed, expanded = tokens * 3 * -(-sizes.intermediate // tp), ROWS * (sizes.latent_heads // tp)
    model = e * (4 * tokens * sizes.hidden + max(fed, expanded))
    sampling = samples * sizes.vocabulary * (e + 12) + tokens * sizes.hidden * e
    experts = moe_workspace(sizes, tp)
    most = (
        f"{samples:,} samples of {sizes.vocabulary:,} logits in {e + 12} B"
        if sampling >= model
        else f"{ROWS:,} latents expanded to {sizes.latent_heads // tp:,} numbers, {tokens:,} tokens"
        if expanded > fed
        else f"{tokens:,} tokens through {sizes.intermediate:,} units in {tp} rank{'s' * (tp > 1)}"
    )
    pictures = 0 if sizes.vision is None or text_only else PICTURES
    seen = f", {show_bytes(pictures)} for the picture encoder" if pictures else ""
    routed = f", {sizes.experts} experts a token ({show_bytes(experts)})" if experts else ""
    return Allowance(
        name="activations",
        bytes=max(model, sampling) + experts + pictures + WORKSPACE,
        why=f"assumed: {most}{routed}{seen}, {show_bytes(WORKSPACE)} of workspaces",
    )


def moe_workspace(sizes: Sizes, tp: int) -> int:
    """workspace1 and workspace2 of the Triton experts (fused_moe/experts/triton_moe.py, workspace_shapes)."""
    width = -(-sizes.expert_width // tp)
    return sizes.tokens * sizes.experts * (max(width, sizes.hidden) + max(2 * width, sizes.hidden)) * sizes.element


def non_torch(tp: int, capability: int) -> Allowance:
    if tp == 1:
        size, why = KERNELS, "kernels loaded"
    elif capability in (9, 10):
        size, why = SYMMETRIC, "NCCL channels and symmetric memory for all-reduce"
    else:
        size, why = CHANNELS, "kernels loaded and NCCL channels"
    return Allowance(name="outside PyTorch", bytes=size, why=f"assumed: {why}, after vLLM's first look at the GPU")


def graphs(sizes: Sizes, pp: int, capability: int, options: Mapping[str, Any]) -> Allowance:
    """profile_cudagraph_memory (gpu_model_runner.py): the first graph's pool, and so much for each further one.

    The first graph of a recurrence is captured with max_num_batched_tokens tokens of history, whose states vLLM counts too.
    Across nodes of experts vLLM's own estimate has been ten times what the graphs took; that is not foreseen here.
    """
    default = LARGEST_10 if capability == 10 else LARGEST
    largest = whole("max_cudagraph_capture_size", options.get("max_cudagraph_capture_size", default), 1)
    count = captured(min(largest, 2 * sizes.sequences, sizes.tokens))
    count += captured(min(largest, sizes.sequences, sizes.tokens))
    layers = -(-sizes.layers // pp)
    states = sizes.tokens * 6 * sizes.hidden * sizes.element if sizes.recurrent else 0
    more = f", {show_bytes(states)} of states" if states else ""
    return Allowance(
        name="CUDA graphs",
        bytes=GRAPH_BASE + count * layers * GRAPH_LAYER + states,
        why=f"assumed: {count} graphs of {layers} layers at {show_bytes(GRAPH_LAYER)}, {show_bytes(GRAPH_BASE)} of pool{more}",
    )


def captured(largest: int) -> int:
    """How many sizes up to `largest` are captured: 1, 2, 4, then steps of 8 below 256 and of 16 from there."""
    small = (1, 2, 4, *range(8, 256, 8))
    return len([size for size in small if size <= largest]) + len(range(256, largest + 1, 16))


def measured(log: Measured, total: int, use: float, graphed: bool, counted: bool) -> list[Allowance]:
    """Everything between the weights and the pool, from a log of the same model on the same kind of GPU."""
    if log.weights is None or log.pool is None:
        raise lacks(log, '"Model loading took"', '"Available KV cache memory"')
    if log.requested is not None:
        requested, said = log.requested.high, log.requested.text
    else:
        whole_of = total if log.total is None else log.total.high
        requested = ceil(whole_of * (log.utilization or use))
        said = f"{log.utilization or use:g} of {show_bytes(whole_of)}"
    beside = max(0, requested - log.weights.low - log.pool.low)
    why = f"measured: {said} − {log.weights.text} of weights − {log.pool.text} of pool"
    parts = []
    if log.graphs is not None and log.counted and not counted:
        beside = max(0, beside - log.graphs.low)
        why += f" − {log.graphs.text} of graphs"
    parts.append(Allowance(name="beside weights", bytes=beside, why=why))
    if graphed and counted and not log.counted:
        if log.graphs is None:
            raise lacks(log, '"Graph capturing finished"')
        parts.append(Allowance(name="CUDA graphs", bytes=log.graphs.high, why=f"measured: {log.graphs.text}"))
    return parts
