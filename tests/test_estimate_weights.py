"""Weights reckoned from a config: equal to what Transformers' classes make, and to published totals; and what can't be reckoned."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from memcurve.base import BadConfig, NotDescribed
from memcurve.checkpoint import Weights
from memcurve.checkpoint.estimate import estimate
from memcurve.model import load
from memcurve.patterns import pattern

TRUTH = Path(__file__).parent / "truth" / "weights.jsonl"
# Total parameters, each with where it is published.
TOTALS = {
    # model.safetensors.index.json of the repositories, total_size in bfloat16: 16,060,522,496 and 93,405,585,408 bytes
    "meta-llama/Llama-3.1-8B-Instruct": 16_060_522_496 // 2,
    "mistralai/Mixtral-8x7B-v0.1": 93_405_585_408 // 2,
    # likewise: 61,064,245,248 bytes
    "Qwen/Qwen3-30B-A3B": 61_064_245_248 // 2,
}
# Parameters beside the embedding: Gemma (arXiv:2403.08295), table 2; Gemma 2 (arXiv:2408.00118), table 2.
BESIDE_EMBEDDING = {
    "mlc/gemma_2b": 1_981_884_416,
    "google/gemma-7b": 7_751_248_896,
    "maxtext/gemma2_2b": 2_024_517_888,
    "google/gemma-2-9b": 8_324_201_984,
    "maxtext/gemma2_27b": 26_047_480_320,
}
# In billions with two digits, as the model card (arXiv:2508.10925), table 1, has them.
ROUNDED = {"openai/gpt-oss-20b": "20.91", "openai/gpt-oss-120b": "116.83"}


def reckoned(config: Any) -> Weights:
    return estimate(load(config), "bf16")


def digest(weights: Weights) -> str:
    """As verify/weights.py has it: of the lines "name shape", sorted."""
    lines = sorted(f"{tensor.name} {'×'.join(map(str, tensor.shape))}" for tensor in weights.tensors)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_every_name_and_shape_is_as_transformers_makes_it() -> None:
    lines = [json.loads(line) for line in TRUTH.read_text().splitlines()]
    different = []
    for line in lines:
        weights = reckoned(line["config"])
        found = [weights.parameters, len(weights.tensors), digest(weights)]
        if found != [line["parameters"], line["tensors"], line["shapes"]]:
            different.append((line["config"], line["parameters"], weights.parameters))
    assert different == []
    assert len(lines) > 500


@pytest.mark.parametrize("name", TOTALS)
def test_published_totals(name: str) -> None:
    weights = reckoned(name)
    assert weights.parameters == TOTALS[name]
    assert weights.bytes == 2 * TOTALS[name]
    assert weights.estimated
    assert weights.by_dtype == {"BF16": weights.bytes}


@pytest.mark.parametrize("name", BESIDE_EMBEDDING)
def test_published_parameters_beside_the_embedding(name: str) -> None:
    weights = reckoned(name)
    embedding = sum(tensor.elements for tensor in weights.tensors if "embed_tokens" in tensor.name)
    assert weights.parameters - embedding == BESIDE_EMBEDDING[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_published_billions(name: str) -> None:
    assert f"{reckoned(name).parameters / 1e9:.2f}" == ROUNDED[name]


def test_deepseek_v3_but_for_buffers_and_the_layer_for_multi_token_prediction() -> None:
    weights = reckoned("deepseek-ai/DeepSeek-V3")
    # 671,026,419,200 with the biases of 58 layers' 256 experts, which the class keeps as buffers
    assert weights.parameters == 671_026_419_200 - 58 * 256
    assert any("num_nextn_predict_layers 1" in note for note in weights.notes)


def test_names_and_shapes_of_a_small_llama() -> None:
    config = {
        "model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    tensors = estimate(load(config), "fp32").tensors
    # heads of 8 / 4 = 2 numbers: 8 for queries, 4 for keys and values; the head is the embedding
    assert {tensor.name: (tensor.shape, tensor.dtype, tensor.bytes) for tensor in tensors} == {
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


def test_a_section_that_is_not_in_the_config_is_left_out_and_said() -> None:
    weights = reckoned({"model_type": "gemma3", "text_config": {"num_hidden_layers": 2}})
    assert not any("vision" in tensor.name or "projector" in tensor.name for tensor in weights.tensors)
    assert any(note.startswith("vision_config: missing") for note in weights.notes)


def test_sizes_that_the_config_lacks_are_said() -> None:
    notes = reckoned({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 2}).notes
    assert any(
        "not in the config" in note and "vocab_size 32000" in note and "hidden_size" not in note for note in notes
    )


def test_the_dtype_is_the_configs_own() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "dtype": "float16"}
    assert set(estimate(load(config)).by_dtype) == {"F16"}
    del config["dtype"]
    with pytest.raises(BadConfig, match="dtype: missing"):
        estimate(load(config))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "xverse", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}, "xverse"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}, "dtype": "bfloat16"}, "quantization_config"),
        ({"model_type": "reformer", "dtype": "bfloat16"}, "axial_pos_embds True"),
        ({"model_type": "llama", "per_layer_config": {"0": {"head_dim": 8}}, "dtype": "bfloat16"}, "per_layer_config"),
        ({"model_type": "llava", "text_config": {"model_type": "qwen2"}, "dtype": "bfloat16"}, "text_config.model_type"),
    ],
)  # fmt: skip
def test_what_the_config_does_not_determine_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(NotDescribed, match=words) as caught:
        estimate(load(config))
    assert "--weights" in str(caught.value)


def test_a_pattern_has_no_weights() -> None:
    with pytest.raises(NotDescribed, match="--weights"):
        estimate(pattern("3gdn:1mha"), "bf16")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"vocab_size": "many"}, "vocab_size: 'many'"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"intermediate_size": None}, "intermediate_size: missing"),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 1, "num_attention_heads": 1}, "expected"),
    ],
)
def test_unusable_sizes_are_named(keys: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        reckoned({"model_type": "llama", **keys})
