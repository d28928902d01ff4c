"""What of a checkpoint each GPU holds: tensors divided over tensor-parallel ranks, layers over pipeline stages.

How a tensor is divided follows from its part of the model and the last words of its name, as vLLM 0.33.0 and SGLang 0.5.23
divide it (layers/linear.py, ColumnParallelLinear, RowParallelLinear and QKVParallelLinear; vocab_parallel_embedding.py;
layers/mamba/; fused_moe/layer.py; beneath vllm/model_executor/ and sglang/srt/):

    column  the outputs, and so a bias        row     the inputs; a bias is on every rank
    kv      key-value heads; where there are more ranks than heads, each head is on several
    qkv     queries, keys and values in one tensor
    ssm     Mamba-2's z, x, B, C and dt in one tensor; groups of B and C that do not divide are copied
    expert  the inner size of every expert    vocab   rows, padded to a multiple of 64
    whole   on every rank: norms, routers, projections into latents, indexers
"""

from __future__ import annotations

import re

from ..base import Record, Refused
from ..layers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    Mamba2,
    SlidingAttention,
    parts,
)
from .parts import parts as parts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..layers import Layer
    from . import Weights

VOCAB_PADDING = 64  # DEFAULT_VOCAB_PADDING_SIZE

# By the words of a name in a layer; the first pattern that is found decides. A tensor without one is taken to be whole, and counted.
SPLITS = tuple(
    (re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)"), split)
    for pattern, split in (
        (r"indexer|compressor|q_a_proj|kv_a_proj_with_mqa|kv_proj|f_a_proj|g_a_proj|wq_a|wkv_a\w*", "whole"),
        (r"(?:mixer|mamba)\.norm", "column"),
        (r"\w*norm\w*|ln_\w+|gate|router|shared_expert_gate", "whole"),
        (r"k_proj|v_proj|attention\.(?:wk|wv)", "kv"),
        (r"qkv_proj|query_key_value|Wqkv|c_attn|W_pack|wqkv", "qkv"),
        (r"(?:mixer|mamba)\.(?:in_proj|conv1d)", "ssm"),
        (
            r"q_proj|q_b_proj|kv_b_proj|attention\.wq|wq_b|wkv_b|gate_proj|up_proj|gate_up_proj|gate_up_proj_adapter_list|w1|w3|c_fc|fc1|fc_in|dense_h_to_4h|linear_fc1|"
            r"input_linear|in_proj\w*|f_b_proj|g_b_proj|g_proj|b_proj|conv1d|conv|qkv|linear_x|linear_y|dt_proj|"
            r"A_log|D|dt_bias|sinks|o_a_proj|[qkv]_conv1d|merger\.mlp\.0",
            "column",
        ),
        (
            r"o_proj|attention\.wo|out_proj|down_proj|w2|c_proj|fc2|fc_out|dense|dense_4h_to_h|linear_fc2|output_linear|proj|"
            r"linear_out|x_proj|o_b_proj|merger\.mlp\.2",
            "row",
        ),
    )
)
POSITIONS = re.compile(r"(?:^|\.)(?:wpe|\w*position\w*|token_types?\w*)(?:\.|$)")
DOWN = re.compile(r"(?:^|\.)(?:down_proj|w2)(?:\.|$)")
DOWN_BIAS = re.compile(r"(?:down_proj|w2)(?:_bias|\.bias)$")
BY_PART = {"embedding": "vocab", "head": "vocab", "norm": "whole", "router": "whole", "experts": "expert"}
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|blk)\.(\d+)\.")
# What is in no layer: these have a place of their own, the rest is on the first stage.
PLACES = {"embedding": "embedding", "head": "head", "norm": "norm", "draft": "last"}


class Heads(Record):
    """What says how the fused tensors of a layer divide: key-value heads, and the B and C of Mamba-2 (groups of state_size)"""

    kv_heads: int = 0
    head_dim: int = 0
    groups: int = 0
    state_size: int = 0


def heads_of(layer: Layer) -> Heads:
    found = Heads()
    for part in parts(layer):
        if isinstance(part, FullAttention | SlidingAttention | ChunkedAttention | CrossAttention):
            found = found.replace(kv_heads=part.kv_heads, head_dim=part.head_dim)
        elif isinstance(part, Mamba2):
            found = found.replace(groups=part.groups, state_size=part.state_size)
    return found


def split_of(part: str, name: str) -> str:
    if part == "experts":
        return "whole" if DOWN_BIAS.search(name) else "expert"
    if part == "embedding" and POSITIONS.search(name):
        return "whole"
    return BY_PART.get(part) or next((split for pattern, split in SPLITS if pattern.search(name)), "unknown")


def share(split: str, rows: int, flat: bool, heads: Heads, tp: int) -> tuple[int, int]:
    """What the fullest of `tp` ranks holds of a tensor with so many rows, as a fraction; flat: it has one dimension."""
    if split == "vocab" and rows:
        return -(-rows // VOCAB_PADDING) * VOCAB_PADDING // tp, rows
    if split in ("whole", "unknown", "vocab") or tp == 1 or (split == "row" and flat):
        return 1, 1
    if split == "kv" and heads.kv_heads:
        return max(1, heads.kv_heads // tp), heads.kv_heads
    if split == "qkv" and rows and heads.kv_heads and rows % heads.head_dim == 0:
        queries = rows // heads.head_dim - 2 * heads.kv_heads
        return queries // tp + 2 * max(1, heads.kv_heads // tp), queries + 2 * heads.kv_heads
    if split == "ssm" and heads.groups and rows:
        # extra_groups_for_head_shards (layers/mamba/mamba_mixer2.py): as many more groups as make them divide.
        groups = heads.groups // tp if heads.groups % tp == 0 else 1
        copied = 2 * heads.groups * heads.state_size
        return (rows - copied) // tp + 2 * groups * heads.state_size, rows
    return 1, tp


class Shards:
    """The tensors of a model, summed by what decides where they go.

    everywhere: parts ("embedding", "head", "norm") that the engine's class puts on every stage. drafts: whether draft layers are
    loaded. host_embedding: the embedding stays in the host's memory, but where it is the head as well (llama.cpp,
    src/llama-model.cpp, load_tensors: dev_input is the CPU). block: rows and columns of a block that shares a scale, where weights are
    quantised in such.

    vocabulary: rows of the embedding, None without one. unknown: bytes of matrices whose names say nothing of how they divide.
    """

    def __init__(
        self,
        weights: Weights,
        layers: Sequence[Layer],
        everywhere: Sequence[str] = (),
        drafts: bool = False,
        host_embedding: bool = False,
        block: tuple[int, int] | None = None,
    ) -> None:
        names = [tensor.name for tensor in weights.tensors]
        found = parts_of(names)
        self.everywhere, self.tied, self.host = everywhere, "head" not in found, host_embedding
        heads = [heads_of(layer) for layer in layers]
        compresses = any(isinstance(part, CompressedAttention) for layer in layers for part in parts(layer))
        plain = heads[0] if heads else Heads()
        self.sums: dict[tuple[int | str, str, int, bool, Heads], int] = {}
        self.vocabulary: int | None = None
        self.unknown = 0
        self.block, self.divided = block, set[tuple[int, bool, int]]()
        for tensor, part in zip(weights.tensors, found, strict=True):
            if part == "draft" and not drafts:
                continue
            place: int | str = PLACES.get(part, "first")
            own = plain
            number = None if part in ("vision", "audio", "draft") else LAYER.search(tensor.name)
            if number is not None:
                place = int(number[1])
                own = heads[place] if place < len(heads) else plain
            elif "hc_head" in tensor.name:
                place = "every"
            split = split_of(part, tensor.name)
            if compresses and tensor.name.endswith("sinks"):
                split = "whole"  # DeepSeek-V4's (vllm/models/deepseek_v4/)
            if split == "vocab" and part == "embedding":
                self.vocabulary = max(self.vocabulary or 0, tensor.shape[0])
            if split == "unknown" and len(tensor.shape) > 1:
                self.unknown += tensor.bytes
            if (
                tensor.dtype.startswith("F8")
                and len(tensor.shape) > 1
                and split in ("column", "kv", "qkv", "row", "expert")
            ):
                inputs = split == "row" or (split == "expert" and DOWN.search(tensor.name) is not None)
                halves = 2 if "gate_up" in tensor.name else 1
                size = tensor.shape[-1] if inputs else tensor.shape[-2] // halves
                self.divided.add((size, inputs, own.kv_heads if split == "kv" else 0))
            rows = tensor.shape[0] if tensor.shape else 1
            fused = split in ("kv", "qkv", "ssm")
            key = (
                place, split, rows if split in ("vocab", "qkv", "ssm") else 0, len(tensor.shape) < 2,
                own if fused else Heads(),
            )  # fmt: skip
            self.sums[key] = self.sums.get(key, 0) + tensor.bytes

    def held(self, tp: int, ends: Sequence[int]) -> list[int]:
        """Bytes of weights on the fullest tensor rank of each pipeline stage. ends: the first layer after each stage."""
        self.check_blocks(tp)
        found = [0] * len(ends)
        last = len(ends) - 1
        for (place, split, rows, flat, heads), size in self.sums.items():
            of, over = share(split, rows, flat, heads, tp)
            mine = -(-size * of // over)
            if isinstance(place, int):
                stages = [next((stage for stage, end in enumerate(ends) if place < end), last)]
            elif place == "every" or place in self.everywhere:
                stages = list(range(len(ends)))
            elif place == "embedding":
                stages = sorted({0, last}) if self.tied else [0]
                if self.host:
                    stages = [last] if self.tied else []
            else:
                stages = [0 if place == "first" else last]
            for stage in stages:
                found[stage] += mine
        return found

    def check_blocks(self, tp: int) -> None:
        """Refused where a rank's share of a matrix is no multiple of the blocks that share a scale, in the engines' words.

        vLLM: quantization/utils/fp8_utils.py, validate_fp8_block_shape and its _moe; SGLang: quantization/fp8.py, the same.
        """
        if self.block is None or tp == 1:
            return
        for size, inputs, kv_heads in self.divided:
            each = self.block[1 if inputs else 0]
            mine = size * max(1, kv_heads // tp) // kv_heads if kv_heads else size // tp
            if mine % each:
                word = "input_size_per_partition" if inputs else "output_partition_size"
                raise Refused(
                    f"Weight {word} = {mine} is not divisible by weight quantization block_{'k' if inputs else 'n'} = {each}."
                )
