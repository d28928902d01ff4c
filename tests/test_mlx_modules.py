"""What MLX-LM 0.32.2's modules make of configs: bytes of one token by arithmetic, notes on what they ignore, refusals.

A KVCache has 256 rows from its first token on; the kinds and sizes of every module are recorded in tests/truth/mlx.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import memcurve
from memcurve import BadConfig, NotDescribed, Refused, load
from memcurve.layers import parts
from memcurve.views.mlx import INNER, REMAPPED, entry, modules
from memcurve.views.mlx_attention import HEADS_WITHOUT_KV, OWN_NAMES
from memcurve.views.mlx_models import BATCHES, CASTS, PROMPTS, QUANTISES, READERS, STATES, reader_of

SMALL = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 64,
    "vocab_size": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    "attention_bias": False,
}  # fmt: skip
WORDS = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
LLAMA, QWEN2 = {**SMALL, "model_type": "llama"}, {**SMALL, "model_type": "qwen2"}
# A row of one layer: 2 heads of 32, keys and values, bf16
ROW = 2 * 32 * 2 * 2
MUSE = {
    **SMALL, "head_dim": 32, "post_norm_eps": 1e-8, "rope_parameters": {"rope_theta": 1e4}, "layer_rope_theta": [1e4, 1e4, 0],
    "layer_types": WORDS, "sliding_window": 40, "final_logit_softcapping": 20.0, "output_multiplier": 0.2, "num_local_experts": 4,
    "num_experts_per_tok": 2, "moe_hidden_size": 64, "moe_intermediate_size": 32, "model_type": "muse_spark_text",
}  # fmt: skip


def first(config: dict[str, Any]) -> int:
    """Bytes of one token in bf16."""
    return load(config).curve("mlx", "bf16").bytes(1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA, 4 * 256 * ROW),
        # 8 heads without the key, heads of head_dim
        ({key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}, 4 * 4 * 256 * ROW),
        ({**LLAMA, "head_dim": 64}, 4 * 2 * 256 * ROW),
        # a window counts where layer_types says so, and has as many rows as it
        ({**LLAMA, "sliding_window": 40}, 4 * 256 * ROW),
        ({**LLAMA, "sliding_window": 40, "layer_types": WORDS}, (3 * 40 + 256) * ROW),
        # qwen2.py reads neither head_dim nor windows
        ({**QWEN2, "head_dim": 64, "sliding_window": 40, "layer_types": WORDS}, 4 * 256 * ROW),
        # pixtral.py has no make_cache, so that windows of its Llama are masks only
        ({"model_type": "pixtral", "text_config": {**LLAMA, "sliding_window": 40, "layer_types": WORDS}}, 4 * 256 * ROW),
        # heads of DeepSeek-V2 are expanded before they are cached: 8 of 24 + 8, and of 16
        (
            {**SMALL, "model_type": "deepseek_v2", "rope_scaling": {"factor": 1}, "kv_lora_rank": 64, "qk_rope_head_dim": 8, "qk_nope_head_dim": 24, "v_head_dim": 16, "head_dim": 32},
            4 * 256 * 8 * (32 + 16) * 2,
        ),
        # pixtral.py puts 32 heads where the section has none, and llama.py as many for keys and values
        ({"model_type": "pixtral", "text_config": {**{k: v for k, v in LLAMA.items() if "heads" not in k}, "hidden_size": 1024}}, 4 * 256 * 32 * 32 * 2 * 2),
        # layers and windows in the pairs of layer_rope_theta and layer_types alone
        ({"model_type": "muse_spark", "text_config": MUSE}, (2 * 40 + 256) * ROW),
    ],
)  # fmt: skip
def test_bytes_of_the_first_token(config: dict[str, Any], expected: int) -> None:
    assert first(config) == expected


def test_dtypes_that_meet_in_float32() -> None:
    # muse_spark.py feeds its attention bfloat16 whatever its weights are
    muse = load({"model_type": "muse_spark", "text_config": MUSE})
    assert (
        muse.curve("mlx", "fp16").bytes(1)
        == muse.curve("mlx", "fp32").bytes(1)
        == 2 * muse.curve("mlx", "bf16").bytes(1)
    )
    # an embedding packed by Hadamard rotations gives float16: 3 layers of 3 columns of 2·2·32 + 2·32 channels and 2 matrices of
    # 32 × 32 in fp32, and a full one
    delta = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
    }
    packed = {
        "model_type": "prism_hadamard_qwen35", "schema_version": 1, "tensor_namespace": "mlx-lm-text",
        "quantization": {"bits": 2, "group_size": 128, "mode": "affine"}, "modules": [{"path": "model.embed_tokens", "embedding": True}],
        "text_config": {**SMALL, **delta, "model_type": "qwen3_5_text"},
    }  # fmt: skip
    for dtype, size in (("fp16", 2), ("bf16", 4)):
        expected = 3 * (3 * 192 * size + 2 * 32 * 32 * 4) + 256 * 2 * 32 * 2 * size
        assert load(packed).curve("mlx", dtype).bytes(1) == expected
    with pytest.raises(Refused, match="packed module manifest"):
        first({**packed, "modules": []})


def test_what_a_module_ignores_is_said() -> None:
    note = "MLX-LM's qwen2.py does not read head_dim, layer_types, sliding_window"
    config = {**QWEN2, "head_dim": 64, "sliding_window": 40, "layer_types": WORDS}
    assert note in load(config).curve("mlx", "bf16").notes
    assert not load(QWEN2).curve("mlx", "bf16").notes
    run = "MLX-LM runs mistral in its module llama"
    assert run in load({**LLAMA, "model_type": "mistral"}).curve("mlx", "bf16").notes


def test_a_type_runs_in_the_module_that_its_architecture_or_its_name_is_mapped_to() -> None:
    ring = {
        **SMALL,
        "model_type": "bailing_hybrid",
        "head_dim": 32,
        "layer_group_size": 2,
        "kv_lora_rank": 64,
        "qk_rope_head_dim": 8,
    }
    # two latents of 64 and 8; V3 has delta layers of 3 columns of 3·8·32 and 8 matrices of 32 × 32 in fp32
    v3 = {**ring, "architectures": ["BailingMoeV3ForCausalLM"], "short_conv_kernel_size": 4}
    assert first(v3) == 2 * 256 * (64 + 8) * 2 + 2 * (3 * 3 * 8 * 32 * 2 + 8 * 32 * 32 * 4)
    assert {REMAPPED["phi-msft"], REMAPPED["llava"]} == {"phixtral", "mistral3"}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({**SMALL, "model_type": "arcee"}, NotDescribed, r"engine mlx: MLX-LM 0.32.2 has no module for model type 'arcee'"),
        (
            {**SMALL, "model_type": "qwen3", "head_dim": 32, "rope_theta": None},
            Refused,
            "rope_theta is missing from the model config.",
        ),
        (
            {key: value for key, value in QWEN2.items() if key not in ("num_key_value_heads", "vocab_size")},
            Refused,
            r"MLX-LM's qwen2.py needs vocab_size, num_key_value_heads, which the config lacks .*missing 2 required",
        ),
        ({**LLAMA, "sliding_window": 40, "layer_types": ["sliding_attention"] * 4}, Refused, "layer_types: llama.py looks for 'full_attention'"),
        ({**LLAMA, "rope_scaling": {"type": "su"}}, Refused, "Unsupported RoPE type 'su'"),
        ({**LLAMA, "rope_scaling": {"type": "yarn"}}, Refused, "rope_scaling: without factor"),
        ({**LLAMA, "num_key_value_heads": 3}, BadConfig, "num_key_value_heads: 3; expected a divisor of num_attention_heads, 8"),
        ({**LLAMA, "model_file": "own.py"}, Refused, "the config names a module of its own"),
        ({**SMALL, "model_type": "mistral3", "text_config": 3}, BadConfig, "text_config: 3"),
        (
            {**SMALL, "model_type": "minicpm3", "kv_lora_rank": 64, "q_lora_rank": 48, "qk_rope_head_dim": 8, "qk_nope_head_dim": 24, "dim_model_base": 64, "scale_depth": 1, "scale_emb": 1},
            Refused,
            "rope_scaling: None; MLX-LM's minicpm3.py needs an object",
        ),
    ],
)  # fmt: skip
def test_what_stops_a_module_is_refused(config: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        first(config)


MIXTRAL = {**SMALL, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
GEMMA3 = {**SMALL, "model_type": "gemma3_text", "head_dim": 32, "sliding_window": 40, "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**LLAMA, "head_dim": 33}, r"^\[rope\] dims must be even but got 33 \(MLX-LM's llama.py\)"),
        (
            {**SMALL, "model_type": "minimax", "rotary_dim": 48, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64, "scoring_func": "sigmoid", "head_dim": None, "use_qk_norm": False},
            r"dims must not exceed the input's last dimension \(32\) but got 48",
        ),
        ({**MIXTRAL, "num_local_experts": 1}, r"^num_experts_per_tok: 2; more than the experts that .* num_local_experts = 1"),
        ({**MIXTRAL, "num_experts_per_tok": None}, "num_experts_per_tok: null, which stops MLX-LM's mixtral.py"),
        ({**LLAMA, "rope_theta": None}, "rope_theta: null, which stops MLX-LM's llama.py"),
        ({**SMALL, "model_type": "nanochat", "hidden_size": 260}, "hidden_size: 260; MLX-LM's nanochat.py needs that of its heads, 8 × 32"),
        ({**GEMMA3, "sliding_window_pattern": 6}, "takes a mask from entry 5 of its 4 caches, where no layer of attention is"),
    ],
)  # fmt: skip
def test_sizes_that_a_forward_fails_on_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        first(config)


def test_blocks_without_an_empty_cache_run_in_a_batch() -> None:
    none, linear = ({"no_op": True}, {"no_op": False, "replace_with_linear": True})
    blocks = [{"attention": one} for one in ({"n_heads_in_group": 4}, none, {"n_heads_in_group": 4}, linear)]
    for run, config in ((True, blocks[:3]), (False, blocks)):
        sizes = {**SMALL, "num_hidden_layers": len(config), "block_configs": config}
        curve = load({**sizes, "model_type": "nemotron-nas"}).curve("mlx", "bf16", schedule="batch_generator")
        assert curve.bytes(9) == 2 * 256 * ROW
        if run:
            assert curve.bytes(9, 3) == 3 * 2 * 256 * ROW
        else:
            with pytest.raises(Refused, match="where lengths differ"):
                curve.bytes(9, 3)


def test_every_module_has_one_reader_and_its_keys() -> None:
    read = [module for names in READERS.values() for module in names.split()]
    assert len(read) == len(set(read))
    built = {INNER.get(module, module).removesuffix(".text") for module in modules()} | {"ministral3", "mistral4"}
    assert built <= set(read)
    assert set(REMAPPED.values()) <= set(modules())
    for name, names in READERS.items():
        assert {reader_of(module).__name__ for module in names.split()} == {name.split(".")[1]}
    assert set(OWN_NAMES) == set(READERS["mlx_attention.own_names"].split())
    for table in (BATCHES, CASTS, PROMPTS, QUANTISES, STATES, HEADS_WITHOUT_KV):
        assert set(table) <= set(read)


def test_keys_of_modules_are_complete() -> None:
    text = (Path(memcurve.__file__).parent / "views" / "mlx_args.json").read_text()
    for name, line in json.loads(text).items():
        assert line == entry(name)
        taken = f"{line['required']} {line['optional']}".split()
        assert len(taken) == len(set(taken))
        assert set(line.get("numbers", "").split()) <= set(taken)
        assert set(line["defaults"]) <= set(line["optional"].split())


def test_a_loop_has_caches_of_its_own() -> None:
    loop = load({**SMALL, "model_type": "iquestloopcoder", "head_dim": 32})
    assert [part.kind for part in parts(loop.layers[0])] == ["full attention", "sliding attention"]
    # the first loop's caches of 256 rows, and the second's of the last 64 tokens
    assert loop.curve("mlx", "bf16").bytes(1) == 4 * (256 + 64) * ROW
