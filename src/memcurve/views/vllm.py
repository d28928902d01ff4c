"""What vLLM 0.33.0's model classes make of a model: vllm/model_executor/models/registry.py and the classes it names.

A model type runs in vLLM if its class stands in the registry, or if Transformers has a class of it that vLLM can drive
(model_executor/models/transformers/). Which layers slide or keep anything is read off the class where it differs from the
model's own code.
"""

from __future__ import annotations

from ..base import NotDescribed
from ..layers import FullAttention, SlidingAttention, parts
from . import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..config import Config
    from ..layers import Layer

# Keys that may hold the longest sequence, the smallest of them counts (transformers_utils/model_arch_config_convertor.py,
# derive_max_model_len_and_key).
LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
# Keys of key-value heads, the first that is there counts (CONFIG_FIELD_ALIASES).
KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
# RoPE scalings that leave the longest sequence as the config says it (config/model.py, _get_and_verify_max_len).
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope")
# _FLOAT16_NOT_SUPPORTED_MODELS (config/model.py).
NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")


def view(layers: tuple[Layer, ...], dtype: str | None, config: Config | None) -> View:
    if config is None:
        return View(layers=layers, dtype=dtype)
    name = config.model_type
    if name in LACKS:
        raise NotDescribed(f"model type {name!r}: vLLM 0.33.0 has no class for it ({LACKS[name]})")
    longest, key = longest_of(config)
    seen = SEES[name](layers, config) if name in SEES else layers
    facts: dict[str, Any] = {
        "longest": longest,
        "longest_key": key,
        "heads": number(config, "num_attention_heads") or 0,
        "head_dim": head_dim(config),
        "kv_heads": kv_heads(config),
        "state_dtype": state_dtype(config),
        "pipeline": name not in NO_PIPELINE,
    }
    return View(layers=seen, dtype=run_dtype(name, dtype), facts=facts)


def run_dtype(name: str, dtype: str | None) -> str:
    """dtype="auto" (_resolve_auto_dtype): float32, or none, runs in bfloat16, and so does float16 where that is not stable."""
    if dtype is None or dtype == "float32" or (dtype == "float16" and name in NO_FLOAT16):
        return "bfloat16"
    return dtype


def number(config: Config, key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def head_dim(config: Config) -> int:
    """get_head_size of the config: head_dim, or hidden_size over the heads."""
    for key in ("head_dim", "hidden_size_per_head"):
        if number(config, key):
            return number(config, key) or 0
    hidden, heads = number(config, "hidden_size"), number(config, "num_attention_heads")
    return hidden // heads if hidden and heads else 0


def kv_heads(config: Config) -> int:
    for key in KV_HEADS:
        if number(config, key) is not None:
            return number(config, key) or 0
    return number(config, "num_attention_heads") or 0


def longest_of(config: Config) -> tuple[int | None, str | None]:
    """The longest max_model_len, and the key that says it; None where the config has none (_get_and_verify_max_len)."""
    found: list[tuple[int, str]] = []
    for key in LENGTHS:
        value = config.own(key) if key != "max_position_embeddings" else config.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((int(value), key))
    if not found:
        return None, None
    longest, name = min(found, key=lambda pair: pair[0])
    model_max = config.own("model_max_length")
    if isinstance(model_max, int) and model_max:
        longest, name = model_max, "model_max_length"
    ropes = list(rope_parameters(config))
    if ropes and "gemma3" not in config.model_type:
        factor: float = 1.0
        for rope in ropes:
            if rope_type(rope) not in SCALED_ALREADY:
                factor = rope.get("factor", factor) or 1.0
        longest = int(longest * factor)
    if any(rope_type(rope) == "longrope" for rope in ropes):
        original = number(config, "original_max_position_embeddings")
        longest = original or longest
    return longest, name


def rope_parameters(config: Config) -> list[Mapping[str, Any]]:
    """The rotary parameters, one for all layers or one per type of layer."""
    value = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(value, dict):
        return []
    inner = [entry for entry in value.values() if isinstance(entry, dict)]
    return inner or [value]


def rope_type(rope: Mapping[str, Any]) -> str:
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    return "longrope" if kind == "su" else kind


def state_dtype(config: Config) -> str | None:
    """The dtype of recurrent states that a model's config or class says (model_executor/models/config.py)."""
    name = config.model_type
    if name == "nemotron_h":
        return str(config.get("mamba_ssm_cache_dtype") or "float32")
    if name in ("qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text"):
        value = config.get("mamba_ssm_dtype")
        return None if value is None else str(value)
    return None


# -- classes that see other layers than the model's own code ------------------------------------------------------------


def even_layers_slide(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """gpt_oss.py: every second layer slides, from the first on, whatever layer_types says."""
    window = config.count("sliding_window")
    return tuple(slid(layer, window) if index % 2 == 0 else full(layer) for index, layer in enumerate(layers))


def slid(layer: Layer, window: int) -> Layer:
    assert isinstance(layer, (FullAttention, SlidingAttention))
    return SlidingAttention(
        kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim, window=window
    )


def full(layer: Layer) -> Layer:
    assert isinstance(layer, (FullAttention, SlidingAttention))
    return FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim)


SEES = {"gpt_oss": even_layers_slide}
LACKS: dict[str, str] = {}
# Classes without pipeline stages (SupportsPP).
NO_PIPELINE = frozenset({"mamba2", "zamba2", "gemma3n_text", "hrm_text", "whisper"})
