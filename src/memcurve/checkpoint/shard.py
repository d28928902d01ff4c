"""What of a checkpoint each GPU holds: tensors split over tensor-parallel ranks, layers over pipeline stages.

How a tensor is split follows from the last module in its name, as vLLM 0.33.0 and SGLang 0.5.23 split it
(layers/linear.py, ColumnParallelLinear and RowParallelLinear; layers/vocab_parallel_embedding.py; layers/mamba/), both
under vllm/model_executor/ and sglang/srt/:

    column  the outputs are divided            row     the inputs are divided, a bias is on every rank
    kv      key-value heads are divided; where there are more ranks than heads, each head is on several
    qkv     queries, keys and values in one tensor
    ssm     Mamba-2's x, z, B, C and dt in one tensor; groups of B and C that do not divide are copied
    expert  each expert's inner size is divided vocab   rows, padded to a multiple of 64
    whole   on every rank: norms, routers, latent projections, indexers
"""

from __future__ import annotations

import re

from ..base import Record
from ..layers import (
    ChunkedAttention,
    CrossAttention,
    FullAttention,
    Mamba2,
    SlidingAttention,
    parts,
)
from . import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..layers import Layer

VOCAB_PADDING = 64  # DEFAULT_VOCAB_PADDING_SIZE

# The first pattern that is found in a name decides.
SPLITS = tuple(
    (re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)"), split)
    for pattern, split in (
        (r"experts(?:\.\d+)?\.(?:down_proj|w2)_?bias|experts\.\d+\.(?:down_proj|w2)\.bias", "whole"),
        (r"experts", "expert"),
        (r"indexer|compressor|wk|weights_proj", "whole"),
        (r"\w*norm\w*|ln_\w+|\w*_ln", "whole"),
        (r"embed_tokens|wte|word_embeddings|embed_in|embeddings|lm_head|embed_out|tok_embeddings|output", "vocab"),
        (r"k_proj|v_proj", "kv"),
        (r"qkv_proj|query_key_value|Wqkv|c_attn|W_pack|wqkv", "qkv"),
        (r"(?:mixer|mamba)\.(?:in_proj|conv1d)", "ssm"),
        (r"q_a_proj|kv_a_proj_with_mqa|kv_proj|f_a_proj|g_a_proj|gate|router|shared_expert_gate", "whole"),
        (
            r"q_proj|q_b_proj|kv_b_proj|gate_proj|up_proj|gate_up_proj|w1|w3|c_fc|fc1|fc_in|dense_h_to_4h|linear_fc1|"
            r"input_linear|in_proj\w*|f_b_proj|g_b_proj|g_proj|b_proj|conv1d|conv|qkv|linear_x|linear_y|dt_proj|"
            r"A_log|D|dt_bias|sinks|o_a_proj|\w_conv1d",
            "column",
        ),
        (
            r"o_proj|out_proj|down_proj|w2|c_proj|fc2|fc_out|dense|dense_4h_to_h|linear_fc2|output_linear|proj|"
            r"linear_out|x_proj|o_b_proj",
            "row",
        ),
    )
)
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


class Sizes(Record):
    """Of one layer, what says how its fused tensors divide: key-value heads, and Mamba-2's (groups · state size, heads)."""

    kv_heads: int
    head_dim: int
    groups: int
    state: int
    heads: int
    intermediate: int


def sizes_of(layer: Layer) -> Sizes:
    kv_heads = head_dim = groups = state = heads = intermediate = 0
    for part in parts(layer):
        if isinstance(part, FullAttention | SlidingAttention | ChunkedAttention | CrossAttention):
            kv_heads, head_dim = part.kv_heads, part.head_dim
        elif isinstance(part, Mamba2):
            groups, state, heads, intermediate = part.groups, part.state_size, part.heads, part.intermediate
    return Sizes(
        kv_heads=kv_heads, head_dim=head_dim, groups=groups, state=state, heads=heads, intermediate=intermediate
    )


def split_of(name: str) -> str:
    return next((split for pattern, split in SPLITS if pattern.search(name)), "whole")


def rows_kept(tensor: Tensor, split: str, sizes: Sizes, tp: int) -> tuple[int, int]:
    """The share of a tensor that the fullest rank holds, as a fraction (of, over)."""
    rows = tensor.shape[0] if tensor.shape else 1
    if split == "vocab":
        return -(-rows // VOCAB_PADDING) * VOCAB_PADDING // tp, rows
    if split == "whole" or tp == 1 or (split == "row" and len(tensor.shape) < 2):
        return 1, 1
    if split == "kv" and sizes.kv_heads:
        return max(1, sizes.kv_heads // tp), sizes.kv_heads
    if split == "qkv" and sizes.kv_heads and rows % sizes.head_dim == 0:
        queries = rows // sizes.head_dim - 2 * sizes.kv_heads
        return queries // tp + 2 * max(1, sizes.kv_heads // tp), queries + 2 * sizes.kv_heads
    if split == "ssm" and sizes.groups:
        groups = max(1, sizes.groups // tp) if sizes.groups % tp == 0 else 1 if tp % sizes.groups == 0 else sizes.groups
        copied = 2 * sizes.groups * sizes.state
        return (rows - copied) // tp + 2 * groups * sizes.state, rows
    return 1, tp


def held(tensors: Iterable[Tensor], layers: Sequence[Layer], tp: int, stages: Sequence[int]) -> list[int]:
    """Bytes of weights on the fullest tensor rank of each pipeline stage.

    stages: the first layer after each stage. What stands before the layers is on the first, what stands after them on
    the last; an embedding that is tied to the head is on both.
    """
    sizes = [sizes_of(layer) for layer in layers]
    found = [0] * len(stages)
    plain = sizes_of(layers[0]) if layers else Sizes(kv_heads=0, head_dim=0, groups=0, state=0, heads=0, intermediate=0)
    for tensor in tensors:
        layer = LAYER.search(tensor.name)
        index = int(layer[1]) if layer else None
        mine = sizes[index] if index is not None and index < len(sizes) else plain
        of, over = rows_kept(tensor, split_of(tensor.name), mine, tp)
        size = -(-tensor.bytes * of // over)
        if index is not None:
            stage = next((number for number, end in enumerate(stages) if index < end), len(stages) - 1)
            found[stage] += size
        else:
            found[0 if split_of(tensor.name) == "vocab" and "head" not in tensor.name else -1] += size
    return found
