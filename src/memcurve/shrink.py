"""Small configs that keep a structure: of a model type's class, or of a given config.json. Needs transformers.

Sizes differ pairwise where the classes allow it, so that formulas can be told apart.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

from transformers import PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .base import BadConfig, show

TEXT_KEYS = ("decoder", "generator", "text_config", "thinker_config", "language_config", "llm_config", "decoder_config")
# Key (a whole-name pattern) -> small value, for integer keys of any config, nested ones included. The first match counts.
SMALL: tuple[tuple[str, int], ...] = (
    (r".*vocab(_size)?(_per_layer_input|_base)?", 128),
    (r"kv_lora_rank", 28),
    (r"(q|o)_lora_rank", 20),
    (r"qk_nope_head_dim", 12),
    (r"qk_rope_head_dim", 8),
    (r"v_head_dim", 18),
    (r"index_head_dim", 16),
    (r"index_n_heads", 3),
    (r"index_topk|index_topk_blocks", 4),
    (r"index_block_size|index_kpool", 4),
    (r"linear_(num_heads|num_key_heads)", 3),
    (r"linear_num_value_heads", 6),
    (r"linear_key_head_dim", 10),
    (r"linear_value_head_dim", 14),
    (r"linear_head_dim", 14),
    (r"linear_conv_kernel_dim|short_conv_kernel_size|conv_kernel|mamba_d_conv|conv1d_width|conv_L_cache", 5),
    (r"mamba_(n|num)_heads|n_mamba_heads", 8),
    (r"mamba_(d_head|head_dim)", 16),
    (r"mamba_d_ssm", 128),
    (r"(ssm_)?state_size|mamba_d_state", 12),
    (r"n_groups|mamba_n_?groups", 2),
    (r"(mamba_)?chunk_size", 16),
    (r"mamba_dt_rank|time_step_rank", 6),
    (r"attention_chunk_size", 16),
    (r"sliding_window(_size)?|attention_window_size|local_attention(_window_len)?|keep_window_size", 24),
    (r"(swa_)?head_dim|cross_head_dim", 24),
    (r"global_head_dim", 40),
    (r"d_kv|kv_channels|dim_head|attention_head_size", 24),
    (r".*(num_key_value|kv)_heads", 2),
    (r"(num_)?(decoder_|encoder_|cross_|swa_|speech_encoder_|t2u_\w+coder_)?(num_)?(attention_)?heads|n_heads?", 4),
    (r"(num_)?(decoder_|encoder_)?(num_)?(hidden_)?layers?|n_layers?|speech_encoder_layers|t2u_\w+coder_layers", 3),
    (r"num_sparse_\w+_layers|depth", 2),
    (r"moe_intermediate_size|\w*ffn_hidden_size|(shared_)?expert\w*_dim|\w*experts?_intermediate_size", 32),
    (r"\w*intermediate_size(_mlp)?|d_ff|d_inner|dff|dim_ff|(\w+_)?ffn_dim|mlp_dim|feed_forward_size", 48),
    (r"hidden_size_per_layer_input", 6),
    (r"(\w+_)?hidden_size(_global)?|d_model|n_embd|emb_dim|embed_dim|embedding_size|hidden_dim|\w+_proj_dims?", 64),
    (r"(moe_)?(num|n)_(local_|routed_)?experts", 4),
    (r"num_experts_per_tok|top_k_experts|moe_(topk|k)|zero_expert_num", 2),
    (r"n_group|topk_group|n_shared_experts|moe_num_shared_experts|first_k_dense_replace", 1),
    (r"max_source_positions", 50),
)


def small(key: str, value: Any) -> Any:
    """A small stand-in for an integer default, or None where the class's own value should stay."""
    if re.search(r"_token_(id|index)$|_token$", key):
        return 100 + sum(map(ord, key)) % 27 if isinstance(value, int) and value >= 100 else None
    found: int | None = next((int(new) for pattern, new in SMALL if re.fullmatch(pattern, key)), None)
    return found


def config_class(spec: Any) -> Any:
    return spec.config_class if issubclass(spec.config_class, PreTrainedConfig) else CONFIG_MAPPING[spec.model_type]


def shrink(cls: Any, init: dict[str, Any] | None = None) -> dict[str, Any]:
    """The keyword arguments, in the class's own names, of a small config."""
    fields = cls.default_config_fields() | (init or {})
    keys: dict[str, Any] = {"model_type": cls.model_type}
    if fields.get("is_decoder") is False and not fields.get("is_encoder_decoder"):
        keys["is_decoder"] = True  # the BERT-like: without it they keep no state
    for key, value in fields.items():
        if key in cls.sub_configs_defaults:
            spec = cls.sub_configs_defaults[key]
            if not spec.optional:
                keys[key] = shrink(config_class(spec), spec.init_kwargs)
        elif isinstance(value, int) and not isinstance(value, bool):
            new = small(key, value)
            if new is not None:
                keys[key] = new
            elif init and key in init:
                keys[key] = value
        elif value is None and key in ("head_dim", "num_key_value_heads") and "qk_rope_head_dim" not in fields:
            keys[key] = small(key, value)
        elif init and key in init:
            keys[key] = value
    if "qk_rope_head_dim" in fields:
        keys.pop("head_dim", None)
        if "num_key_value_heads" in keys:
            keys["num_key_value_heads"] = keys["num_attention_heads"]
    try:
        default = cls(**(init or {}))
        layers = enough_layers(default)
        for key in ("num_hidden_layers", cls.attribute_map.get("num_hidden_layers", "")):
            if key in keys and layers:
                keys[key] = layers
        sections(default, keys)
    except Exception as error:  # noqa: BLE001 - the class's own complaint comes when the model is built
        keys.setdefault("_note", repr(error))
        keys.pop("_note")
    return keys


def enough_layers(config: Any) -> int | None:
    """How many layers it takes until every kind of layer of the class's defaults has occurred."""
    try:
        kinds, _ = get_layer_types_and_kwargs(config)
    except Exception:  # noqa: BLE001
        return None
    if not kinds:
        return None
    return int(max(3, min(len(kinds), 1 + max(kinds.index(kind) for kind in set(kinds)) + (len(set(kinds)) > 1))))


def sections(config: Any, keys: dict[str, Any]) -> None:
    """Rotary sections that add up to the shrunken head's rotary half."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or "mrope_section" not in rope:
        return
    size = keys.get("head_dim") or keys.get("hidden_size", 64) // keys.get("num_attention_heads", 4)
    half = int(size * (rope.get("partial_rotary_factor") or 1.0)) // 2
    keys["rope_parameters"] = dict(rope) | {"mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}


def text_section(cls: Any, keys: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The decoder's own config class and its keyword arguments (the innermost nested ones)."""
    for key in TEXT_KEYS:
        if isinstance(keys.get(key), dict) and key in cls.sub_configs_defaults:
            return text_section(config_class(cls.sub_configs_defaults[key]), keys[key])
    return cls, keys


def merge(keys: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """keys with changes put in; None leaves a key out, "=None" stands for a null."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(keys.get(key), dict):
            merge(keys[key], value)
        elif value is None:
            keys.pop(key, None)
        else:
            keys[key] = None if value == "=None" else copy.deepcopy(value)
    return keys


LATENT_SWA = {
    f"swa_{k}": v
    for k, v in {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 20,
        "kv_lora_rank": 30,
        "head_dim": 22,
        "qk_nope_head_dim": 12,
        "v_head_dim": 14,
    }.items()
}
DOTS3 = {"head_dim": 20, "sliding_window": 24} | LATENT_SWA
QWEN4 = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 32,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "hc_lowrank": 8,
    "ngram_vocab_size_base": 500,
    "make_ngram_vocab_size_divisible_by": 8,
    "heads_per_ngram": 2,
    "split_ngram_parts": 4,
}
TWO_BLOCKS = ["linear_attention", "hybrid", "linear_attention", "hybrid"]
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
# What the general rule gets wrong, by type; None leaves a key out.
OVERRIDES: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "bailing_hybrid": {"head_dim": 16},
    "bamba": {"num_hidden_layers": 5, "attn_layer_indices": [1, 3], "mamba_d_head": 16},
    "blt": {
        "num_hidden_layers": 3,
        "encoder_config": {"num_hidden_layers": 2},
        "decoder_config": {"num_hidden_layers": 3},
    },
    "codegen": {"rotary_dim": 8},
    "csm": {"codec_config": None},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 500000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "cohere_compass": {"text_config": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "diffusion_gemma": {"text_config": {"moe_intermediate_size": 32, "num_experts": 4, "top_k_experts": 2}},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "glm46v": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}},
    "glm4v_moe": {
        "text_config": {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]}}
    },
    "glm_ocr": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}},
    "glm5_next": {"text_config": {"num_key_value_heads": 4, "qk_rope_head_dim": 0, "index_topk": 16, "index_kpool": 8}},
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]], "window_size": 24},
    "granite4_vision": {"deepstack_layer_map": [[-1, 0]], "downsample_rate": "4/8"},
    "helium": {"head_dim": 16, "num_key_value_heads": 4},
    "hunyuan_v1_moe": {"head_dim": 24, "num_experts": 1, "moe_topk": 1},
    "hunyuan_vl": {"text_config": {"head_dim": 24, "rope_parameters": ROPE | {"mrope_section": [3, 3, 3, 3]}}},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 24},
    "molmo2": {"adapter_config": {"vision_feature_layer": [2, 1]}},
    "muse_spark": {"audio_config": {"num_hidden_layers": None}},
    "qwen2_5_omni_thinker": {
        "text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}},
        "vision_start_token_id": 101,
    },
    "qwen2_5_vl": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}},
    "qwen2_vl": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds": False,
        "num_hidden_layers": 2,
        "attention_head_size": 16,
        "lsh_attn_chunk_length": 16,
        "local_attn_chunk_length": 16,
        "num_buckets": 4,
    },
    "xlstm": {
        "hidden_size": 512,
        "embedding_dim": 512,
        "num_blocks": 3,
        "mode": "inference",
        "return_last_states": True,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 9},
    "nemotron": {"num_key_value_heads": 2},
    "paddleocr_vl": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [4, 4, 4]}}},
    "pix2struct": {"text_config": {"d_kv": 16}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse", "sparse"], "num_experts_per_tok": 2}},
    "dots3_note": {
        "text_config": DOTS3,
        "vision_config": {"adapter_in_dim": 64, "adapter_out_dim": 64, "num_hidden_layers": None},
        "audio_config": {"adapter_input_size": 64, "adapter_out_dim": 64},
    },
    "dots3_note_text": DOTS3,
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [3, 3, 2]}}},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "glm4v": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}},
    "glmga": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}},
    "gptj": {"rotary_dim": 8},
    "gradium_phonon_tts": {"flow_head_config": {"condition_dim": 64}},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "mamba"], "num_hidden_layers": 4},
    "hunyuan_v1_dense": {"head_dim": 24},
    "kyutai_speech_to_text": {"codec_config": None},
    "longcat_flash": {"head_dim": 8},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "qwen2_5_omni": {"thinker_config": {"text_config": {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}}},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "pocket_tts": {"flow_head_config": {"condition_dim": 64}},
    "recurrent_gemma": {"num_hidden_layers": 4, "lru_width": 72, "num_key_value_heads": 1},
    "step3p7": {
        "text_config": {"sliding_window": 24, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
    },
    "zamba2": {"layers_block_type": TWO_BLOCKS, "num_hidden_layers": 4},
    "zaya": {"num_experts_per_tok": 1},
}


def base_keys(model_type: str) -> dict[str, Any]:
    """The keyword arguments of a small config of a type. BadConfig for a type that Transformers lacks."""
    if model_type not in CONFIG_MAPPING:
        raise BadConfig(f"model_type: {show(model_type)}; expected one that Transformers has")
    return merge(shrink(CONFIG_MAPPING[model_type]), OVERRIDES.get(model_type, {}))


def keys_like(data: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a small config with the structure of a given config.json.

    Sizes are those of `base_keys`; flags, words, lists per layer (cut to the first layers in which every kind occurs), missing
    windows and the way heads share keys are the config's own.
    """
    model_type = data.get("model_type")
    if not isinstance(model_type, str):
        raise BadConfig(f"model_type: {show(model_type)}; expected the model type of a config.json")
    keys = base_keys(model_type)
    cls, text = text_section(CONFIG_MAPPING[model_type], keys)
    own: Any = data
    while isinstance(own, dict) and cls.model_type != own.get("model_type"):
        inner = next((own[key] for key in TEXT_KEYS if isinstance(own.get(key), dict)), None)
        if inner is None:
            break
        own = inner
    layers = own.get("num_hidden_layers", own.get("n_layer", 0))
    whole = cls(
        **{key: value for key, value in copy.deepcopy(own).items() if key not in ("model_type", "quantization_config")}
    )
    count = max(enough_layers(whole) or 3, 3)
    name = cls.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    if name in text:
        text[name] = count
    fields = {field.name for field in dataclasses.fields(cls)}
    for key, value in own.items():
        if key.endswith("_token_id") or key in (
            "model_type",
            "dtype",
            "torch_dtype",
            "rope_parameters",
            "rope_scaling",
            "quantization_config",
        ):
            continue
        if isinstance(value, list) and len(value) == layers:
            text[key] = value[:count]
        elif isinstance(value, (bool, str)) and key in fields:
            text[key] = value
        elif value is None and key in fields and key in text:
            text[key] = None
        elif key == "num_key_value_heads" and key in text and "qk_rope_head_dim" not in fields:
            heads = own.get("num_attention_heads", value)
            text[key] = text["num_attention_heads"] if value == heads else 1 if value == 1 else 2
        elif isinstance(value, int) and key in fields and key not in text and small(key, value) is not None:
            text[key] = small(key, value)
    return keys
