"""Weights reckoned from a config: known totals, and what can't be reckoned."""

from __future__ import annotations

import pytest

from memcurve.base import BadConfig, NotDescribed
from memcurve.checkpoint.estimate import estimate
from memcurve.model import load
from memcurve.patterns import pattern

# Published totals, each with where it is stated.
TOTALS = {
    # model.safetensors.index.json of the repository: total_size 16,060,522,496 bytes in bfloat16
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
}


@pytest.mark.parametrize("name", TOTALS)
def test_published_totals(name: str) -> None:
    weights = estimate(load(name), "bf16")
    assert weights.parameters == TOTALS[name]
    assert weights.bytes == 2 * TOTALS[name]
    assert weights.estimated
    assert weights.by_dtype == {"BF16": weights.bytes}


def test_names_and_shapes_are_those_of_the_class() -> None:
    config = {
        "model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    found = {
        tensor.name: (tensor.shape, tensor.dtype, tensor.bytes) for tensor in estimate(load(config), "fp32").tensors
    }
    # heads of 8 / 4 = 2 numbers: 4 for queries, 2 for keys and values; the head is the embedding
    assert found == {
        "model.embed_tokens.weight": ((10, 8), "F32", 320),
        "model.layers.0.self_attn.q_proj.weight": ((8, 8), "F32", 256),
        "model.layers.0.self_attn.k_proj.weight": ((4, 8), "F32", 128),
        "model.layers.0.self_attn.v_proj.weight": ((4, 8), "F32", 128),
        "model.layers.0.self_attn.o_proj.weight": ((8, 8), "F32", 256),
        "model.layers.0.mlp.gate_proj.weight": ((12, 8), "F32", 384),
        "model.layers.0.mlp.up_proj.weight": ((12, 8), "F32", 384),
        "model.layers.0.mlp.down_proj.weight": ((8, 12), "F32", 384),
        "model.layers.0.input_layernorm.weight": ((8,), "F32", 32),
        "model.layers.0.post_attention_layernorm.weight": ((8,), "F32", 32),
        "model.norm.weight": ((8,), "F32", 32),
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "xverse", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}, "xverse"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "fp8"}, "dtype": "bfloat16"},
            "quantization_config",
        ),
    ],
)
def test_what_the_config_does_not_determine_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(NotDescribed, match=words) as caught:
        estimate(load(config))
    assert "--weights" in str(caught.value)


def test_a_pattern_has_no_weights() -> None:
    with pytest.raises(NotDescribed, match="--weights"):
        estimate(pattern("3gdn:1mha"), "bf16")


def test_unusable_sizes_are_named() -> None:
    with pytest.raises(BadConfig, match="vocab_size"):
        estimate(load({"model_type": "llama", "vocab_size": "many"}), "bf16")
