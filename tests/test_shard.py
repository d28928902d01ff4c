"""What each GPU holds of a model's weights, against vLLM's own classes (truth/vllm_weights.jsonl), and by hand."""

from __future__ import annotations

from typing import Any

import pytest
from replay import lines

from memcurve import NotDescribed, load
from memcurve.checkpoint import Tensor, Weights
from memcurve.checkpoint.estimate import estimate
from memcurve.checkpoint.quantised import quantisation, stored
from memcurve.checkpoint.shard import Shards
from memcurve.engines.ranks import stage_ends
from memcurve.layers import FullAttention
from memcurve.views.stages import on_every_stage


def test_every_rank_holds_what_vllms_class_makes(count: Any) -> None:
    wrong, number = [], 0
    for entry in lines("vllm_weights.jsonl"):
        model = load(entry["catalogue"])
        shards = Shards(estimate(model, "bf16"), model.layers, on_every_stage("vllm", model.model_type))
        for tp, pp, ranks in entry["cases"]:
            number += len(ranks)
            found = shards.held(tp, stage_ends("vllm", len(model.layers), pp))
            if found != ranks:
                wrong.append(f"{model.name} tp {tp} pp {pp}: {found}, vLLM {ranks}")
    count(f"weights of {number} ranks as vLLM's classes make them, {len(wrong)} otherwise")
    assert not wrong
    assert number >= 200


def tensor(name: str, *shape: int) -> Tensor:
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(name=name, dtype="BF16", shape=shape, bytes=2 * elements)


LAYER = "model.layers.0."
# Of 8 ranks; 4 key-value heads of 16, 16 query heads: each key-value head is on two ranks.
SPLITS = [
    (tensor("model.embed_tokens.weight", 1000, 64), 2 * 64 * 1024 // 8),  # 1,000 rows are padded to 1,024
    (tensor(f"{LAYER}self_attn.q_proj.weight", 256, 64), 2 * 256 * 64 // 8),
    (tensor(f"{LAYER}self_attn.k_proj.weight", 64, 64), 2 * 16 * 64),
    (tensor(f"{LAYER}self_attn.qkv_proj.weight", 384, 64), 2 * (32 + 16 + 16) * 64),
    (tensor(f"{LAYER}self_attn.o_proj.weight", 64, 256), 2 * 64 * 32),
    (tensor(f"{LAYER}self_attn.o_proj.bias", 64), 2 * 64),
    (tensor(f"{LAYER}self_attn.q_proj.bias", 256), 2 * 32),
    (tensor(f"{LAYER}self_attn.q_norm.weight", 16), 2 * 16),
    (tensor(f"{LAYER}self_attn.kv_a_proj_with_mqa.weight", 96, 64), 2 * 96 * 64),
    (tensor(f"{LAYER}mlp.gate.weight", 8, 64), 2 * 8 * 64),
    (tensor(f"{LAYER}mlp.experts.3.down_proj.weight", 64, 128), 2 * 64 * 16),
    (tensor(f"{LAYER}mlp.experts.gate_up_proj", 8, 64, 128), 2 * 8 * 64 * 16),
    (tensor(f"{LAYER}input_layernorm.weight", 64), 2 * 64),
]


@pytest.mark.parametrize(("one", "held"), SPLITS, ids=[one.name for one, _ in SPLITS])
def test_a_tensor_on_eight_ranks(one: Tensor, held: int) -> None:
    layer = FullAttention(kv_heads=4, head_dim=16, v_head_dim=16)
    assert Shards(Weights(source="made", tensors=(one,)), (layer,)).held(8, [1]) == [held]


def test_a_tied_embedding_is_on_both_ends_and_on_llamacpps_last_gpu() -> None:
    tensors = (tensor("model.embed_tokens.weight", 64, 8), tensor("model.norm.weight", 8))
    layers = (FullAttention(kv_heads=1, head_dim=8, v_head_dim=8),) * 2
    weights = Weights(source="made", tensors=tensors)
    assert Shards(weights, layers).held(1, [1, 2]) == [1024, 1024 + 16]
    assert Shards(weights, layers, host_embedding=True).held(1, [1, 2]) == [0, 1024 + 16]
    untied = weights.replace(tensors=(*tensors, tensor("lm_head.weight", 64, 8)))
    assert Shards(untied, layers).held(1, [1, 2]) == [1024, 1024 + 16]
    assert Shards(untied, layers, host_embedding=True).held(1, [1, 2]) == [0, 1024 + 16]
    assert Shards(untied, layers, ("embedding", "head")).held(1, [1, 2]) == [2048, 2048 + 16]


def test_draft_layers_are_loaded_when_they_draft() -> None:
    tensors = (tensor("model.layers.0.mlp.up_proj.weight", 8, 8), tensor("mtp.layers.0.mlp.up_proj.weight", 8, 8))
    layers = (FullAttention(kv_heads=1, head_dim=8, v_head_dim=8),)
    weights = Weights(source="made", tensors=tensors)
    assert Shards(weights, layers).held(1, [1]) == [128]
    assert Shards(weights, layers, drafts=True).held(1, [1]) == [256]


def test_quantised_weights_are_as_large_as_published() -> None:
    """gpt-oss: total_size of the published index. DeepSeek-V3: the F8_E4M3 numbers that the hub counts in its files, 680,571,043,840, less
    those of the draft layer: 256 + 1 experts of 3 × 7,168 × 2,048, and attention 1,536 × 7,168 + 24,576 × 1,536 + 576 × 7,168 +
    32,768 × 512 + 7,168 × 16,384."""
    for name, size in (("openai/gpt-oss-120b", 65_248_815_744), ("openai/gpt-oss-20b", 13_761_264_768)):
        model = load(name)
        assert stored(estimate(model, "bf16"), quantisation(model)).bytes == size
    attention = 1536 * 7168 + 24576 * 1536 + 576 * 7168 + 32768 * 512 + 7168 * 16384
    draft = 257 * 3 * 7168 * 2048 + attention
    model = load("deepseek-ai/DeepSeek-V3")
    assert stored(estimate(model, "bf16"), quantisation(model)).by_dtype["F8_E4M3"] == 680_571_043_840 - draft


def test_modules_that_are_left_as_they_are_and_methods_that_are_not_reckoned() -> None:
    names = ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate.weight", "lm_head.weight")
    weights = Weights(source="made", tensors=tuple(tensor(name, 256, 128) for name in names))
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    # 256 × 128 in 8 bits with 2 × 1 scales, twice as much in bf16
    assert stored(weights, fp8).bytes == 32768 + 8 + 2 * 65536
    assert stored(weights, {**fp8, "modules_to_not_convert": ["model.layers.*.mlp.up_proj"]}).bytes == 3 * 65536
    assert stored(weights, {**fp8, "modules_to_not_convert": ["up"]}).bytes == 32768 + 8 + 2 * 65536
    assert stored(weights, None) is weights
    with pytest.raises(NotDescribed, match="quant_method: 'awq'; what it stores is not reckoned"):
        stored(weights, {"quant_method": "awq", "bits": 4})
