"""Model types whose code is only on the hub: logical bytes in bf16 from arithmetic shown beside each.

Sizes are those of the model named, as its config.json has them, or small ones where none is named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import memcurve
from memcurve import BadConfig, NotDescribed, catalog, load
from memcurve.families import model_types
from memcurve.layers import NoState

T = 10_000
GQA = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2}
GQA_BYTES = 3 * 2 * 32 * 2 * 2 * T

CASES: list[tuple[dict[str, Any], int]] = [
    *[
        ({"model_type": name, **GQA}, GQA_BYTES)
        for name in (
            "aquila deepseek internlm internlm2 minicpm Motif motif nanbeige orion phi3small solar telechat3 xverse yi "
            "bailing_moe bailing_moe_v2"
        ).split()
    ],
    ({"model_type": "baichuan", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8}, 4 * GQA_BYTES),
    ({"model_type": "mimo", **GQA, "sliding_window": 100, "use_sliding_window": False}, GQA_BYTES),
    # the latent 16 and a rotary key of 8
    (
        {"model_type": "kimi_k2", "num_hidden_layers": 3, "kv_lora_rank": 16, "qk_rope_head_dim": 8},
        3 * (16 + 8) * 2 * T,
    ),
    ({"model_type": "qwen", "num_hidden_layers": 3, "num_attention_heads": 8, "kv_channels": 32}, 4 * GQA_BYTES),
    # two groups share keys and values, 28 layers in ChatGLM2-6B
    (
        {"model_type": "chatglm", "num_layers": 28, "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": True, "multi_query_group_num": 2},
        28 * 2 * 128 * 2 * 2 * T,
    ),
    ({"model_type": "phi-msft", "n_embd": 2560, "n_head": 32, "n_layer": 32, "n_head_kv": None}, 32 * 2560 * 2 * 2 * T),
    # Baichuan-M1-14B: 20 full layers of 2 heads of 5120 / 20, 20 sliding ones of 8 heads of 5120 / 40 over 8,192;
    # each keeps one key and value before the convolution
    (
        {"model_type": "baichuan_m1", "num_hidden_layers": 40, "hidden_size": 5120, "num_attention_heads": 20, "num_key_value_heads": 2, "num_swa_attention_heads": 40, "num_swa_key_value_heads": 8, "sliding_window": 8192, "sliding_window_layers": list(range(1, 40, 2)), "conv_window": 2},
        20 * 2 * 256 * 2 * 2 * (T + 1) + 20 * 8 * 128 * 2 * 2 * (8192 + 1),
    ),
    # Hunyuan-Large: 64 layers, every second reads the one before
    (
        {"model_type": "hunyuan", "hidden_size": 6400, "num_hidden_layers": 64, "num_attention_heads": 80, "num_key_value_heads": 8, "use_cla": True, "cla_share_factor": 2},
        32 * 8 * 80 * 2 * 2 * T,
    ),
    ({"model_type": "plamo", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8, "n_shared_head": 4}, GQA_BYTES),
    # PLaMo-2 1B: every odd layer of 16 slides over 2,048 (1 head of 128), the even ones are Mamba-2 with 32 heads
    # of 128 × 64 in fp32 and 3 columns of 4,096
    (
        {"model_type": "plamo2", "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 1, "hidden_size_per_head": 128, "attention_window_size": 2048, "mamba_d_state": 64, "mamba_d_conv": 4, "mamba_num_heads": 32, "mamba_step": 2, "mamba_enabled": True},
        8 * 128 * 2 * 2 * 2048 + 8 * (32 * 128 * 64 * 4 + 3 * 4096 * 2),
    ),
    # every eighth of 16 layers is full, 14 slide over 2,048: 4 heads of 128
    (
        {"model_type": "plamo3", "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "window_size": 2048, "sliding_window_pattern": 8},
        4 * 128 * 2 * 2 * (2 * T + 14 * 2048),
    ),
    # Ring-mini-linear-2.0: the last of each five of 20 layers is softmax (4 heads of 128), 16 keep 16 × 128 × 128 in fp32
    *[
        (
            {"model_type": name, "hidden_size": 2048, "num_hidden_layers": 20, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "layer_group_size": 5},
            4 * 4 * 128 * 2 * 2 * T + 16 * 16 * 128 * 128 * 4,
        )
        for name in ("bailing_moe_linear", "bailing_moe_linear_v2")
    ],
    # Phi-4-mini-flash: of 32 layers 9 Mamba (5,120 channels: 16 states in fp32, 3 columns), 8 sliding over 512 and
    # 1 full (20 heads of 64); 14 keep nothing
    (
        {"model_type": "phi4flash", "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 40, "num_key_value_heads": 20, "sliding_window": 512, "mb_per_layer": 2, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2},
        9 * 5120 * (16 * 4 + 3 * 2) + 20 * 64 * 2 * 2 * (8 * 512 + T),
    ),
    ({"model_type": "step3_text", "num_hidden_layers": 61, "num_attention_heads": 64, "num_attention_groups": 1, "head_dim": 256}, 61 * 256 * 2 * 2 * T),
    ({"model_type": "exaone", "hidden_size": 256, "num_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2}, GQA_BYTES),
    ({"model_type": "openelm", "num_transformer_layers": 3, "head_dim": 64, "num_kv_heads": [3, 3, 4]}, 10 * 64 * 2 * 2 * T),
    # two delta layers of 6 heads of 256 × 512 in fp32 and 3 columns of 2·6·256 + 6·512, one softmax layer
    (
        {"model_type": "gated_deltanet", "hidden_size": 2048, "num_hidden_layers": 3, "num_heads": 6, "head_dim": 256, "expand_v": 2, "conv_size": 4, "attn": {"layers": [1], "num_heads": 16, "num_kv_heads": 4, "window_size": None}},
        2 * (6 * 256 * 512 * 4 + 3 * 6144 * 2) + 4 * 128 * 2 * 2 * T,
    ),
    *[
        # RWKV: 4 matrices of 64 × 64 in fp32, two tokens of 256
        ({"model_type": name, "hidden_size": 256, "num_hidden_layers": 3, "head_size": 64}, 3 * (4 * 64 * 64 * 4 + 2 * 256 * 2))
        for name in ("rwkv5", "rwkv6", "rwkv7")
    ],
    # a softmax layer of 2 heads of 32, one with 8 × 32 × 32 in fp32
    *[
        ({"model_type": name, **GQA, "num_hidden_layers": 2, "attn_type_list": [0, 1]}, GQA_BYTES // 3 + 8 * 32 * 32 * 4)
        for name in ("minimax_text_01", "minimax_m1")
    ],
    # Mamba-1 in state-spaces' own form: 2·64 channels, 16 states in fp32, 3 columns
    ({"model_type": "mamba_ssm", "d_model": 64, "n_layer": 2, "ssm_cfg": {}}, 2 * 128 * (16 * 4 + 3 * 2)),
    # 80 blocks, one without attention, one where 8 heads share
    (
        {"model_type": "nemotron-nas", "hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 16, "block_configs": [{"attention": {"no_op": True}}, {"attention": {"n_heads_in_group": 8}}]},
        2 * 32 * 2 * 2 * T,
    ),
    # the rest has its public code in mlx-lm alone; head_dim says nothing in Klear.py
    ({"model_type": "Klear", **GQA, "head_dim": 64}, GQA_BYTES),
    # 4 layers of 2 heads of 256 / 8, of which the last reads the third's
    ({"model_type": "afm7", "hidden_dim": 256, "num_layers": 4, "num_kv_reuse_layers": 1, "num_heads": 8, "num_kv_heads": 2}, GQA_BYTES),
    ({"model_type": "lille-130m", "n_embd": 256, "n_layer": 3, "n_head": 8, "n_kv_heads": 2}, GQA_BYTES),
    ({"model_type": "phixtral", "model_dim": 256, "num_layers": 3, "num_heads": 8}, 4 * GQA_BYTES),
    # 8 heads of 64
    ({"model_type": "talkie", **GQA, "head_dim": 64}, 3 * 8 * 64 * 2 * 2 * T),
    # each of three layers keeps all tokens, and the last 64 of its second run
    ({"model_type": "iquestloopcoder", **GQA}, GQA_BYTES + 3 * 2 * 32 * 2 * 2 * 64),
    # three layers slide over 100, the fourth is full: 2 heads of 32
    ({"model_type": "spark2_5", **GQA, "num_hidden_layers": 4, "sliding_window": 100}, 2 * 32 * 2 * 2 * (3 * 100 + T)),
    # one full layer, one that slides over 100, and 2 columns of the keys and values of one that mixes
    (
        {"model_type": "gear", **GQA, "head_dim": 32, "sliding_window": 100, "conv_L_cache": 3, "layer_types": ["conv_mixer", "sliding_attention", "full_attention"]},
        2 * 32 * 2 * 2 * (2 + 100 + T),
    ),
    # the latent 16 and a rotary key of 8
    *[
        ({"model_type": name, "num_hidden_layers": 3, "kv_lora_rank": 16, "qk_rope_head_dim": 8}, 3 * (16 + 8) * 2 * T)
        for name in ("joyai_llm_flash", "youtu_llm")
    ],
    # one latent layer, two of 4 matrices of 32 × 32 in fp32 and 3 columns of 3·4·32
    (
        {"model_type": "kimi_k3", "num_hidden_layers": 3, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "linear_attn_config": {"full_attn_layers": [3], "kda_layers": [1, 2], "head_dim": 32, "num_heads": 4, "short_conv_kernel_size": 4}},
        24 * 2 * T + 2 * (4 * 32 * 32 * 4 + 3 * 3 * 4 * 32 * 2),
    ),
    # one latent layer, and one of 4 matrices of 32 × 32 in fp32 and 3 columns of 3·4·32
    (
        {"model_type": "bailing_moe_v3", "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32, "layer_group_size": 2, "short_conv_kernel_size": 4, "kv_lora_rank": 16, "qk_rope_head_dim": 8},
        24 * 2 * T + 4 * 32 * 32 * 4 + 3 * 3 * 4 * 32 * 2,
    ),
    # two latents in each of three layers, and the last 4 token ids as int64
    ({"model_type": "longcat_flash_ngram", "num_layers": 3, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "emb_neighbor_num": 5}, 2 * 3 * 24 * 2 * T + 4 * 8),
    # four windows of 128 rows of 64; the second layer also an entry per 4 tokens with an index key of 32, the last one per 2
    *[
        (
            {"model_type": name, "num_hidden_layers": 4, "head_dim": 64, "sliding_window": 128, "compress_ratios": [0, 4, 4, 2], "kv_source_layer_ids": [1, 3], "index_source_layer_ids": [1, 2], "index_head_dim": 32},
            4 * 128 * 64 * 2 + T // 4 * (64 + 32) * 2 + T // 2 * 64 * 2,
        )
        for name in ("deepseek_v41", "deepseek_v41_text")
    ],
    # one heavily compressed layer: 128 of the window, ⌊T / 128⌋ entries of 64
    ({"model_type": "deepseek_ref", "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64, "sliding_window": 128, "compress_ratios": [128]}, 64 * 2 * (128 + T // 128)),
]  # fmt: skip


PLAMO2 = {"model_type": "plamo2", "num_attention_heads": 16, "num_key_value_heads": 2, "hidden_size_per_head": 32, "attention_window_size": 100, "mamba_d_state": 8, "mamba_d_conv": 3, "mamba_num_heads": 6}  # fmt: skip
# 6 heads of 32 × 8 in fp32 and 2 columns of 192; 2 heads of 32 over 100 tokens
PLAMO2_MAMBA, PLAMO2_SLIDING = 6 * 32 * 8 * 4 + 2 * 192 * 2, 2 * 32 * 2 * 2 * 100
FLASH = {"model_type": "phi4flash", "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 100}  # fmt: skip
# 3 Mamba, 2 sliding over 100, 1 full, each of 2 heads of 16
FLASH_KV = 2 * 16 * 2 * 2 * (2 * 100 + T)
RWKV = {"model_type": "rwkv7", "hidden_size": 256, "num_hidden_layers": 1}
GDN = {"model_type": "gated_deltanet", "hidden_size": 2048, "num_hidden_layers": 2}
SSM = {"model_type": "mamba_ssm", "d_model": 64, "n_layer": 2}
NAS = {"model_type": "nemotron-nas", "hidden_size": 512, "num_hidden_layers": 1, "num_attention_heads": 16}
BAICHUAN_M1 = {"model_type": "baichuan_m1", "num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 100, "sliding_window_layers": [1], "conv_window": 2}  # fmt: skip

# The same structures with keys left out or set otherwise.
VARIANTS: list[tuple[dict[str, Any], int]] = [
    # every layer is attention without Mamba; the last is sliding, layer 1 full
    ({**PLAMO2, "num_hidden_layers": 3, "mamba_enabled": False, "full_attention_idx": [1]}, 2 * PLAMO2_SLIDING + 2 * 32 * 2 * 2 * T),
    # index mod 4 = 2 is attention; of two layers or fewer only the last
    ({**PLAMO2, "num_hidden_layers": 7, "mamba_step": 4}, 5 * PLAMO2_MAMBA + 2 * PLAMO2_SLIDING),
    ({**PLAMO2, "num_hidden_layers": 2, "mamba_step": 4}, PLAMO2_MAMBA + PLAMO2_SLIDING),
    ({**PLAMO2, "num_hidden_layers": 3, "mamba_step": 4}, 2 * PLAMO2_MAMBA + PLAMO2_SLIDING),
    ({**PLAMO2, "num_hidden_layers": 4}, 2 * PLAMO2_MAMBA + 2 * PLAMO2_SLIDING),
    ({"model_type": "plamo3", **GQA, "head_dim": 32, "sliding_window": 100, "window_size": 5, "sliding_window_pattern": 3}, 2 * 32 * 2 * 2 * (T + 200)),
    # 128 channels of 16 states and 3 columns by default
    (FLASH, 3 * 128 * (16 * 4 + 3 * 2) + FLASH_KV),
    ({**FLASH, "mamba_expand": 3, "mamba_d_state": 5, "mamba_d_conv": 2}, 3 * 192 * (5 * 4 + 2) + FLASH_KV),
    ({**FLASH, "sliding_window": [None, 100, None, 100]}, 3 * 128 * (16 * 4 + 3 * 2) + FLASH_KV),
    # as many matrices as fit the attention's width
    ({**RWKV, "attention_hidden_size": 128, "head_size": 32}, 4 * 32 * 32 * 4 + 2 * 256 * 2),
    ({**RWKV, "head_dim": 32}, 8 * 32 * 32 * 4 + 2 * 256 * 2),
    ({**RWKV, "num_heads": 2}, 2 * 128 * 128 * 4 + 2 * 256 * 2),
    ({**RWKV, "num_heads": 7, "head_size": 64}, 4 * 64 * 64 * 4 + 2 * 256 * 2),
    # 6 heads of 256 × 512 and 3 columns of 2·6·256 + 6·512 by default
    (GDN, 2 * (6 * 256 * 512 * 4 + 3 * 6144 * 2)),
    ({**GDN, "num_heads": 4, "num_v_heads": 8, "head_dim": 32, "expand_v": 1.5, "conv_size": 3}, 2 * (8 * 32 * 48 * 4 + 2 * (2 * 4 * 32 + 8 * 48) * 2)),
    ({**GDN, "use_short_conv": False}, 2 * 6 * 256 * 512 * 4),
    # 32 heads of 64 by default, over a window
    ({**GDN, "attn": {"layers": [0, 1], "window_size": 100}}, 2 * 32 * 64 * 2 * 2 * 100),
    ({**GDN, "attn": {"layers": [0, 1], "num_heads": 16, "num_kv_heads": 2}}, 2 * 2 * 128 * 2 * 2 * T),
    ({**SSM, "ssm_cfg": {"layer": "Mamba1", "expand": 3, "d_state": 8, "d_conv": 2}}, 2 * 192 * (8 * 4 + 2)),
    # 2 heads of 64 × 128 and 3 columns of 128 + 2·128 by default
    ({**SSM, "ssm_cfg": {"layer": "Mamba2"}}, 2 * (128 * 128 * 4 + 3 * (128 + 256) * 2)),
    ({**SSM, "ssm_cfg": {"layer": "Mamba2", "headdim": 32, "d_state": 16, "ngroups": 2, "expand": 4, "d_conv": 3}}, 2 * (256 * 16 * 4 + 2 * (256 + 64) * 2)),
    # a window on one block, and one without attention
    ({**NAS, "block_configs": [{"attention": {"n_heads_in_group": 4, "window_length": 100}}]}, 4 * 32 * 2 * 2 * 100),
    ({**NAS, "block_configs": [{"attention": {"n_heads_in_group": 4, "replace_with_linear": True}}]}, 0),
    # sliding layers with the heads of the others
    (BAICHUAN_M1, 2 * 32 * 2 * 2 * (T + 1 + 100 + 1)),
    # all but the last whole group is softmax
    ({"model_type": "bailing_moe_linear", **GQA, "num_hidden_layers": 5, "layer_group_size": 3}, 3 * 2 * 32 * 2 * 2 * T + 2 * 8 * 32 * 32 * 4),
    ({"model_type": "baichuan", "hidden_size": 256, "num_hidden_layers": 3, "num_heads": 8}, 4 * GQA_BYTES),
    # no sharing without use_cla
    ({"model_type": "hunyuan", **GQA, "use_cla": False, "cla_share_factor": 2}, GQA_BYTES),
    ({"model_type": "chatglm", "num_layers": 2, "num_attention_heads": 4, "kv_channels": 32, "multi_query_group_num": 2}, 2 * 4 * 32 * 2 * 2 * T),
    ({"model_type": "phi-msft", "n_embd": 256, "n_head": 8, "n_layer": 3, "n_head_kv": 2}, GQA_BYTES),
    # DeepSeek-VL2-Tiny: 12 layers of 10 heads of 1280 / 10, plain attention under the name of a latent one
    (
        {"model_type": "deepseek_vl_v2", "language_config": {"model_type": "deepseek_v2", "hidden_size": 1280, "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 10, "kv_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0}},
        12 * 10 * 128 * 2 * 2 * T,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), VARIANTS)
def test_logical_bytes_of_variants(config: dict[str, Any], expected: int) -> None:
    assert load(config).curve(dtype="bf16").bytes(T) == expected


KINDS = {
    "F": "full attention",
    "S": "sliding attention",
    "M": "mamba",
    "2": "mamba2",
    "L": "lightning attention",
    "-": "no state",
}


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        # index mod 4 = 2 is attention; of few layers only the last
        ({**PLAMO2, "num_hidden_layers": 7, "mamba_step": 4}, "22S222S"),
        ({**PLAMO2, "num_hidden_layers": 4, "mamba_step": 9}, "222S"),
        ({**PLAMO2, "num_hidden_layers": 5, "mamba_step": 9}, "2222S"),
        ({**PLAMO2, "num_hidden_layers": 8, "mamba_step": 5}, "22S2222S"),
        # the last of each three, and what is left of the last group
        ({"model_type": "bailing_moe_linear", **GQA, "num_hidden_layers": 8, "layer_group_size": 3}, "LLFLLFFF"),
        (FLASH, "MSMSMF--"),
        ({"model_type": "hunyuan", **GQA, "use_cla": True, "cla_share_factor": 2}, "F-F"),
    ],
)
def test_which_layers_are_what(config: dict[str, Any], kinds: str) -> None:
    assert [layer.kind for layer in load(config).layers] == [KINDS[letter] for letter in kinds]


def test_transformers_bytes_of_a_key_before_its_convolution() -> None:
    # W - 1 tokens of the window; one key and value before the convolution in each of the two layers
    assert load(BAICHUAN_M1).curve("transformers", "bf16").bytes(T) == 2 * 32 * 2 * 2 * (T + 1 + 99 + 1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**FLASH, "num_hidden_layers": 6}, "mb_per_layer: 2; expected 2, with num_hidden_layers a multiple of 4"),
    ({**FLASH, "mb_per_layer": 3}, "mb_per_layer: 3; expected 2"),
    ({**FLASH, "sliding_window": [None]}, "sliding_window: missing"),
    ({**FLASH, "mamba_expand": 2**30}, r"mamba_expand \* hidden_size: "),
    ({**PLAMO2, "num_hidden_layers": 2, "mamba_num_heads": 2**30}, r"mamba_num_heads \* hidden_size_per_head: "),
    ({**PLAMO2, "num_hidden_layers": 2, "mamba_step": 1}, "mamba_step: 1; expected an integer from 2"),
    ({**RWKV}, "num_heads: missing"),
    ({**RWKV, "num_heads": 512}, "hidden_size // num_heads: 0; expected an integer from 1"),
    ({**RWKV, "head_size": 512}, "hidden_size // head_size: 0; expected an integer from 1"),
    ({**GDN, "expand_v": 0.001}, r"head_dim \* expand_v: 0; expected an integer from 1"),
    ({**GDN, "attn": {"layers": [0], "num_heads": 4096}}, "hidden_size // attn.num_heads: 0; expected an integer from 1"),
    ({**SSM, "ssm_cfg": {"layer": "Mamba3"}}, "ssm_cfg.layer: 'Mamba3'; expected \"Mamba1\" or \"Mamba2\""),
    ({**SSM, "ssm_cfg": {}, "attn_layer_idx": [1]}, "attn_layer_idx: a list; expected no attention layers"),
    ({**SSM, "ssm_cfg": {"layer": "Mamba2", "headdim": 512}}, r"expand \* d_model // headdim: 0; expected an integer from 1"),
    ({**SSM, "ssm_cfg": {}, "n_layer": 10_001}, "n_layer: 10001; expected an integer from 1 to 10000"),
    (SSM, "ssm_cfg: missing; expected an object"),
    (NAS, "block_configs: missing; expected one per layer, num_hidden_layers = 1"),
    ({**NAS, "hidden_size": 8, "block_configs": [{"attention": {"n_heads_in_group": 4}}]}, "hidden_size // num_attention_heads: 0; expected an integer from 1"),
    ({**NAS, "block_configs": [{"attention": 3}]}, r"block_configs\[0\].block.attention: 3; expected an object"),
    ({"model_type": "exaone", **GQA, "num_layers": 10_001}, "num_layers: 10001; expected an integer from 1 to 10000"),
    ({"model_type": "chatglm", **GQA, "kv_channels": 32, "num_layers": 10_001}, "num_layers: 10001; expected an integer from 1 to 10000"),
    ({"model_type": "phi-msft", "n_embd": 256, "n_head": 8, "n_layer": 10_001}, "n_layer: 10001; expected an integer from 1 to 10000"),
    ({"model_type": "openelm", "num_transformer_layers": 10_001, "head_dim": 64, "num_kv_heads": [1]}, "num_transformer_layers: 10001; expected an integer from 1 to 10000"),
    ({"model_type": "openelm", "num_transformer_layers": 1, "head_dim": 64, "num_kv_heads": [0]}, r"num_kv_heads\[0\]: 0; expected an integer from 1"),
    ({**NAS, "block_configs": [{}, {}]}, "block_configs: '2 entries'; expected one per layer"),
    ({**NAS, "block_configs": [{}]}, r"block_configs\[0\].attention: missing; expected an object"),
    ({**NAS, "block_configs": [{"attention": {"n_heads_in_group": 32}}]}, "n_heads_in_group: 0; expected an integer from 1"),
    ({**BAICHUAN_M1, "conv_window": 3}, "conv_window: 3; expected 2"),
    ({**BAICHUAN_M1, "num_swa_attention_heads": 512}, "hidden_size // num_swa_attention_heads: 0; expected an integer from 1"),
    ({"model_type": "openelm", "num_transformer_layers": 3, "head_dim": 64, "num_kv_heads": [3, 3]}, "num_kv_heads: a list; expected one per layer, num_transformer_layers = 3"),
    ({"model_type": "phi-msft", "n_embd": 4, "n_head": 8, "n_layer": 3}, "n_embd // n_head: 0; expected an integer from 1"),
    ({"model_type": "plamo", **GQA, "n_shared_head": 16}, "num_attention_heads // n_shared_head: 0; expected an integer from 1"),
    ({"model_type": "plamo", **GQA, "hidden_size": 4, "n_shared_head": 4}, "hidden_size // num_attention_heads: 0; expected an integer from 1"),
    ({"model_type": "minimax_text_01", **GQA, "attn_type_list": [0, 1]}, r"attn_type_list: a list; expected 3 times 0 \(lightning\) or 1 \(softmax\)"),
    ({"model_type": "minimax_text_01", **GQA, "attn_type_list": [0, 1, 2]}, "attn_type_list: a list; expected 3 times"),
    ({"model_type": "minimax_text_01", **GQA}, "attn_type_list: missing; expected 3 times"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_sizes_that_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=f"^{message}"):
        load(config)


@pytest.mark.parametrize(("config", "expected"), CASES, ids=[str(config["model_type"]) for config, _ in CASES])
def test_logical_bytes(config: dict[str, Any], expected: int) -> None:
    assert load(config).curve(dtype="bf16").bytes(T) == expected


def test_every_hub_only_type_has_a_case() -> None:
    defaults = json.loads((Path(memcurve.__file__).parent / "defaults.json").read_text())
    assert {name for name in model_types() if name not in defaults} == {config["model_type"] for config, _ in CASES}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "trocr", "d_model": 64, "decoder_layers": 3, "decoder_attention_heads": 4},
        {"model_type": "musicgen_melody_decoder", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
    ],
)
def test_decoders_that_attend_over_an_encoder_when_there_is_one(config: dict[str, Any]) -> None:
    # 3 layers of 4 heads of 16, keys and values; 5 tokens beside 7 positions: recorded in Transformers as 9,216
    curve = load(config).curve("transformers", dtype="bf16")
    assert curve.bytes(5, 1, 7) == 3 * 4 * 16 * 2 * 2 * (5 + 7) == 9216
    assert curve.bytes(5) == 3 * 4 * 16 * 2 * 2 * 5


@pytest.mark.parametrize("key", ["kv_lora_rank", "layer_types", "num_noise_heads"])
def test_keys_of_another_structure_are_refused(key: str) -> None:
    with pytest.raises(NotDescribed, match=f"with {key} is not described"):
        load({"model_type": "Motif", **GQA, key: 4})
    with pytest.raises(NotDescribed, match="with a sliding_window is not described"):
        load({"model_type": "minicpm", **GQA, "sliding_window": 4})


def test_published_hub_only_configs_in_the_catalogue() -> None:
    # 49 of Llama-Nemotron-Super's 80 blocks attend; 8 heads share a key
    nas = load("nvidia/Llama-3_3-Nemotron-Super-49B-v1")
    assert nas.curve(dtype="bf16").bytes(T) == 49 * 8 * 128 * 2 * 2 * T
    # Kimi-K3: 24 latent layers, 69 of 96 matrices of 128 × 128 and 3 columns of 3·96·128
    k3 = load("moonshotai/Kimi-K3")
    assert k3.curve(dtype="bf16").bytes(T) == 24 * 576 * 2 * T + 69 * (96 * 128 * 128 * 4 + 3 * 3 * 96 * 128 * 2)
    # Baichuan-M1-14B: 40,960 B a token in 20 full layers, 20 windows of 8,192, a key and value in each of the 40
    m1 = load("baichuan-inc/Baichuan-M1-14B-Instruct").curve(dtype="bf16")
    assert m1.bytes(131_072) == 40_960 * 131_072 + 20 * 8 * 128 * 2 * 2 * 8192 + 122_880
    assert len(catalog.names()) > 200


def test_layers_without_state_say_why() -> None:
    reads, gates = "reads another layer's keys and values", "gates another layer's memory"
    for config, why in (
        (FLASH, {reads, gates}),
        ({"model_type": "hunyuan", **GQA, "use_cla": True, "cla_share_factor": 2}, {reads}),
        ({**NAS, "block_configs": [{"attention": {"no_op": True}}]}, {"no attention in this block"}),
    ):
        assert {layer.why for layer in load(config).layers if isinstance(layer, NoState)} == why


def test_prediction_layers_after_the_last_are_cut_off() -> None:
    # One word per layer, then the prediction layers' (step3p5): three layers are left, of which two slide
    config = {"model_type": "step3p5", **GQA, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_nextn_predict_layers": 1, "sliding_window": 9}  # fmt: skip
    assert [layer.kind for layer in load(config).layers] == ["sliding attention", "full attention", "sliding attention"]
    with pytest.raises(BadConfig, match=r"^layer_types: '4 entries'; expected one per layer"):
        load({**config, "num_nextn_predict_layers": 2})
