"""What tensor parallelism does not divide: parts that every rank, or several, hold alike."""

from __future__ import annotations

from itertools import accumulate

from ..base import BadConfig, NotDescribed, Refused, show
from ..layers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Mamba2,
    SlidingAttention,
    SparseIndexer,
    parts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..layers import Layer


# As many GPUs as a plan has; a list of them is made.
MOST_STAGES = 1024


def stage_ends(engine: str, layers: int, stages: int) -> list[int]:
    """The first layer after each pipeline stage, or with llama.cpp after each GPU's layers.

    vLLM: what is left over goes to the stages before the last (vllm/distributed/utils.py, get_pp_indices). SGLang: to the last
    ones (sglang/srt/distributed/utils.py, the same name). llama.cpp: the output counts as one more layer, and equal GPUs
    take equal shares (src/llama-model.cpp, load_tensors). The others as Accelerate's balanced map: evenly, the first ones more.
    BadConfig for more than MOST_STAGES.
    """
    if stages > MOST_STAGES:
        name = {"vllm": "pipeline_parallel_size", "sglang": "pp_size"}.get(engine, "pp")
        raise BadConfig(f"{name}: {show(stages)}; expected at most {MOST_STAGES:,}")
    if engine == "mlx" and stages > 1:
        raise NotDescribed("engine mlx: how MLX-LM divides layers over machines is not described; expected one stage")
    if engine == "llamacpp":
        # upper_bound over the shares 1/n, 2/n, …: layer i is on the first GPU whose share is beyond i / (layers + 1).
        return [min(layers, -(-(layers + 1) * (stage + 1) // stages)) for stage in range(stages)]
    if stages > layers and engine == "sglang":
        raise Refused(f"assert num_hidden_layers >= pp_size, got {layers} and {stages}")
    if stages > layers and engine != "vllm":
        raise Refused(f"{layers} layers can't be divided into {stages} pipeline stages")
    sizes, rest = [layers // stages] * stages, layers % stages
    for back in range(rest):
        place = {"vllm": -2 - back, "sglang": -1 - back}.get(engine, back)
        sizes[place] += 1
    return list(accumulate(sizes))


def replicated(layers: Sequence[Layer], ranks: int) -> tuple[str, ...]:
    """A note that names the parts that `ranks` tensor-parallel ranks hold more than once; none where all is divided.

    Latents, their index keys and compressed entries have no heads to divide; of fewer key-value heads than ranks each is
    on several; the B and C groups of Mamba-2 that do not divide are copied.
    """
    found: list[str] = []
    for part in dict.fromkeys(part for layer in layers for part in parts(layer)):
        if isinstance(part, LatentAttention | SparseIndexer | CompressedAttention):
            found.append(f"{part.kind} whole on each")
        elif isinstance(part, FullAttention | SlidingAttention | ChunkedAttention | CrossAttention):
            if part.kv_heads < ranks:
                each = f"on {ranks // part.kv_heads} ranks" if ranks % part.kv_heads == 0 else "on some ranks"
                copies = each if part.kv_heads > 1 else "on each"
                found.append(
                    f"{part.kind} {part.kv_heads} key-value head{'' if part.kv_heads == 1 else 's, each'} {copies}"
                )
        elif isinstance(part, Mamba2) and part.groups % ranks:
            found.append(f"{part.kind} {part.groups} group{'' if part.groups == 1 else 's'} of B and C copied")
    if ranks == 1 or not found:
        return ()
    return (f"not divided by {ranks} ranks: {', '.join(dict.fromkeys(found))}",)
