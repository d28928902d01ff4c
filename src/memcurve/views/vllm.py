"""What vLLM 0.33.0's model classes make of a model: vllm/model_executor/models/registry.py and the classes it names.

A model type runs in vLLM if its class stands in the registry, or if Transformers has a class of it that vLLM can drive
(model_executor/models/transformers/). Which layers slide or keep anything is read off the class where it differs from the
model's own code.
"""

from __future__ import annotations

from ..base import NotDescribed, Refused, nearest, show
from ..config import in_transformers
from ..layers import (
    CompressedAttention,
    CrossAttention,
    FullAttention,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
    parts,
)
from ..units import dtype_name
from . import View
from .vllm_models import (
    ARCHITECTURES,
    CLASS_LENGTHS,
    DEFAULT_MODULES,
    DRIVEN_WHOLE,
    ENCODER_DECODER,
    FIXED_MODULES,
    GEMMA_4,
    GONE,
    HYBRID,
    LACKS,
    MODULES,
    NO_PIPELINE,
    NO_PIPELINE_TYPES,
    RUNS,
    SINKS,
    TOO_NEW,
)
from .vllm_weights import shards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
# original_max_position_embeddings of Transformers' classes that have one.
ORIGINAL_LENGTHS = {"phi3": 4096, "phi4_multimodal": 4096}
# Of Qwen3-VL's class for images.
DEEPSTACK = [8, 16, 24]
# _FLOAT16_NOT_SUPPORTED_MODELS (config/model.py).
NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")


def view(layers: tuple[Layer, ...], dtype: str | None, config: Config | None) -> View:
    if config is None:
        return View(layers=layers, dtype=dtype)
    name = config.model_type
    if name not in RUNS:
        raise not_described(name)
    check_class(config.architectures)
    longest, key, usual = longest_of(config)
    facts: dict[str, Any] = {
        "longest": longest,
        "longest_key": key,
        # _get_and_verify_max_len: 2,048 where neither the config nor its class says any.
        "assumed": usual or 2048,
        "heads": number(config, "num_attention_heads") or 0,
        "head_dim": widest(layers) if name in GEMMA_4 else head_dim(config),
        "kv_heads": kv_heads(config),
        "state_dtype": state_dtype(config),
        "pipeline": pipelined(config),
        "chunked": name not in ENCODER_DECODER,
        # olmo_gdn_linear_attn.py has no checkpoints.
        "exports": name != "olmo_hybrid",
        "hybrid": name in HYBRID or None,
        "quantised": quantised(config),
        "sinks": name in SINKS,
        # gpt_oss.py and models/inkling divide their heads.
        "replicates": name not in ("gpt_oss", "inkling_text"),
        "windowed": name == "inkling_text",
        "numbered": len(layers),
        "wide_pages": not (capped(config) or both_directions(config)),
        "shards": shards(config),
        "modules": modules(config),
        "first_stage": first_stage(config),
        # falcon.py passes its layers no cache_config.
        "unquantised": name == "falcon",
        "fixed_states": name == "kimi_linear" and not full_rank_gates(config),
        "default_on_10": "fp8_e4m3" if name == "glm_moe_dsa" else None,
        "no_float16": name if name in NO_FLOAT16 else None,
    }
    return View(layers=SEES.get(name, as_they_are)(layers, config), dtype=run_dtype(name, dtype), facts=facts)


def not_described(name: str) -> NotDescribed:
    why = next(
        (why for types, why in LACKS.items() if name in types.split()),
        "no class of vLLM 0.33.0 that is described runs it",
    )
    hint = nearest(name, sorted(RUNS))
    return NotDescribed(f"model type {show(name)} in vLLM: {why}" + (f"; nearest: {hint}" if hint else ""))


def check_class(names: Sequence[str]) -> None:
    """resolve_model_cls (model_executor/models/registry.py): a class of vLLM's by any of the architectures, or one of Transformers' by
    the first. A config that names none is taken for one of its model type's."""
    if not names or any(name in ARCHITECTURES for name in names):
        return
    first = names[0]
    if not first.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) or (
        in_transformers(first) and first not in TOO_NEW
    ):
        return
    for name in names:
        if name in GONE:
            raise Refused(
                f"Model architecture {name} was supported in vLLM until v{GONE[name]}, and is not supported anymore. Please use an "
                "older version of vLLM if you want to use this model architecture."
            )
    raise Refused(f"Model architectures {show(', '.join(names))} are not supported for now.")


def pipelined(config: Config) -> bool:
    """Whether its class runs in pipeline stages: vLLM's by what it supports, Transformers' where its layers are found."""
    if not config.architectures:
        return config.model_type not in NO_PIPELINE_TYPES | DRIVEN_WHOLE
    own = next((name for name in config.architectures if name in ARCHITECTURES), None)
    return config.model_type not in DRIVEN_WHOLE if own is None else own not in NO_PIPELINE


def modules(config: Config) -> int | None:
    """Modules of multi-token prediction (hf_config_override, config/speculative.py); 0 where the class has none, None where the
    config says no number."""
    root, names = config.root, config.architectures
    name = next(
        (name for name in (*names[:1], str(root.get("model_type")), config.model_type) if name in MODULES), None
    )
    if name is None or (name == config.model_type and root is not config.data):
        return config.optional("num_mtp_layers", least=0) or 0
    if name in FIXED_MODULES:
        return FIXED_MODULES[name]
    count = config.optional(MODULES[name], least=0)
    if name.startswith("nemotron_h"):
        return count or 0
    return DEFAULT_MODULES.get(name) if count is None else count


def run_dtype(name: str, dtype: str | None) -> str:
    """dtype="auto" (_resolve_auto_dtype): float32, or none, runs in bfloat16, and so does float16 where that is not stable."""
    if dtype is None or dtype == "float32" or (dtype == "float16" and name in NO_FLOAT16):
        return "bfloat16"
    return dtype


def number(config: Config, key: str) -> int | None:
    value = config.get(key)
    return config.checked(key, value, least=0) if isinstance(value, int) and not isinstance(value, bool) else None


def head_dim(config: Config) -> int:
    """get_head_size of the config: head_dim, or hidden_size over the heads; Zamba2's attention is twice as wide."""
    if config.model_type == "zamba2":
        return number(config, "attention_head_dim") or 2 * config.hidden // config.heads
    for key in ("head_dim", "hidden_size_per_head"):
        if number(config, key):
            return number(config, key) or 0
    hidden, heads = number(config, "hidden_size"), number(config, "num_attention_heads")
    return hidden // heads if hidden and heads else 0


def widest(layers: Sequence[Layer]) -> int:
    return max(part.head_dim for layer in layers for part in parts(layer) if isinstance(part, FullAttention))


def kv_heads(config: Config) -> int:
    for key in KV_HEADS:
        if number(config, key) is not None:
            return number(config, key) or 0
    return number(config, "num_attention_heads") or 0


def longest_of(config: Config) -> tuple[int | None, str | None, int | None]:
    """The longest max_model_len, the key that says it, and the one that is taken where none is asked for; None where neither the
    config nor its class has one (_get_and_verify_max_len)."""
    given = [(config.count(key), key) for key in LENGTHS if config.given(key)]
    if not given:
        known = CLASS_LENGTHS.get(config.model_type)
        own = "its class's max_position_embeddings"
        given = (
            [(known, own)] if known else [(config.count(key), key) for key in LENGTHS if config.get(key) is not None]
        )
    if not given:
        return None, None, None
    longest, name = min(given, key=lambda pair: pair[0])
    stated = config.optional("model_max_length", least=0)
    if stated and (config.given("model_max_length") or config.model_type not in CLASS_LENGTHS):
        longest, name = stated, "model_max_length"
    ropes = list(rope_parameters(config))
    if ropes and "gemma3" not in config.model_type:
        factor: float = 1.0
        for rope in ropes:
            if rope_type(rope) not in SCALED_ALREADY:
                factor = rope.get("factor", factor) or 1.0
                if not isinstance(factor, (int, float)) or not 0 < factor < 2**20:
                    config.bad("rope_scaling.factor", factor, "a number from 0 to 1048576")
        longest = int(longest * factor)
    usual = longest
    if any(rope_type(rope) == "longrope" for rope in ropes):
        # Only who asks gets more than the model was trained on at first.
        stated = number(config, "original_max_position_embeddings")
        usual = stated or ORIGINAL_LENGTHS.get(config.model_type, longest)
    above = config.root.get("model_max_length")
    if isinstance(above, int) and above > longest:
        longest, name = above, "model_max_length"
    return longest, name, usual


def rope_parameters(config: Config) -> Sequence[Mapping[str, Any]]:
    """The rotary parameters, one for all layers or one per type of layer."""
    value = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(value, dict):
        return []
    inner = [entry for entry in value.values() if isinstance(entry, dict)]
    return inner or [value]


def rope_type(rope: Mapping[str, Any]) -> str:
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    return "longrope" if kind == "su" else kind


def capped(config: Config) -> bool:
    """Whether attention's logits are capped; Gemma 2's class caps them unless told otherwise."""
    cap = config.data.get("attn_logit_softcapping", 50.0 if config.model_type in ("gemma2", "vaultgemma") else None)
    return bool(cap)


def both_directions(config: Config) -> bool:
    """Whether the tokens of an image see each other (transformers_utils/model_arch_config_convertor.py, is_mm_prefix_lm)."""
    if config.model_type in GEMMA_4:
        return config.root is not config.data and config.get("use_bidirectional_attention") == "vision"
    return bool(config.root.get("is_mm_prefix_lm", config.root.get("model_type") in ("gemma3", "molmo2", "paligemma")))


def first_stage(config: Config) -> int:
    """Layers that the first pipeline stage needs: one per level of the images' features (qwen3_vl.py, qwen3_vl_moe.py)."""
    if config.root.get("model_type") not in ("qwen3_vl", "qwen3_vl_moe"):
        return 0
    vision = config.root.get("vision_config")
    levels = vision.get("deepstack_visual_indexes", DEEPSTACK) if isinstance(vision, dict) else DEEPSTACK
    return len(levels) if isinstance(levels, list) else 0


def full_rank_gates(config: Config) -> bool:
    """Whether it is Kimi K3, whose own layers look at the option for their states (models/kimi_k3/nvidia/model.py)."""
    section = config.get("linear_attn_config")
    return isinstance(section, dict) and section.get("use_full_rank_gate") is True


def state_dtype(config: Config) -> str | None:
    """The dtype of recurrent states that a model's config or class says (model_executor/models/config.py)."""
    name = config.model_type
    if name == "nemotron_h":
        return dtype_name(config.get("mamba_ssm_cache_dtype") or "float32", "mamba_ssm_cache_dtype")
    if name in ("qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text"):
        value = config.get("mamba_ssm_dtype")
        return None if value is None else dtype_name(value, "mamba_ssm_dtype")
    return None


def quantised(config: Config) -> str | None:
    """The kv_cache_dtype that a checkpoint's quantisation says (utils/torch_utils.py, get_kv_cache_quant_algo_string; Attention.__init__)."""
    value = config.root.get("quantization_config")
    if not isinstance(value, dict):
        return None
    method = str(value.get("quant_method", ""))
    nested = value.get("quantization")
    inner: Mapping[str, Any] = nested if isinstance(nested, dict) else value
    if method.startswith("modelopt"):
        scheme = next(
            (
                level[key]
                for key in ("kv_cache_scheme", "kv_cache_quant_algo")
                for level in (inner, value)
                if level.get(key)
            ),
            None,
        )
        if isinstance(scheme, dict):
            eight = scheme.get("dynamic") is False and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
            return (
                "fp8_e4m3"
                if eight
                else "nvfp4"
                if (scheme.get("num_bits"), scheme.get("type")) == (4, "float")
                else None
            )
        return {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}.get(str(scheme).lower())
    return "fp8" if method == "compressed-tensors" and value.get("kv_cache_scheme") else None


# -- classes that see other layers than the model's own code ------------------------------------------------------------


def as_they_are(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    return layers


def even_layers_slide(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """gpt_oss.py: every second layer slides, from the first on, whatever layer_types says."""
    window = config.count("sliding_window")
    return tuple(slid(layer, window) if index % 2 == 0 else full(layer) for index, layer in enumerate(layers))


def one_token_more(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """commandr.py and cohere2_moe.py: the window reaches sliding_window tokens back, and holds the token itself beside them."""
    return tuple(
        layer.replace(window=layer.window + 1) if isinstance(layer, SlidingAttention) else layer for layer in layers
    )


def one_token_less(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """mimo_v2.py: the config's window as it stands, the token itself among it."""
    return tuple(
        layer.replace(window=layer.window - 1) if isinstance(layer, SlidingAttention) else layer for layer in layers
    )


def all_or_none_slide(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """Classes that never look at layer_types: all layers slide if all do, else none (engine/arg_utils.py, create_engine_config)."""
    if all(isinstance(layer, SlidingAttention) for layer in layers):
        return layers
    return tuple(full(layer) if isinstance(layer, SlidingAttention) else layer for layer in layers)


def split_heads(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """qwen2.py and qwen2_moe.py: heads are hidden_size over their number, whatever head_dim says; qwen2.py lets all layers slide or none."""
    kinds = {type(layer) for layer in layers}
    if len(kinds) > 1 and config.model_type == "qwen2":
        raise Refused(
            "Sliding window for some but all layers is not supported. This model uses sliding window but `max_window_layers` "
            f"= {config.get('max_window_layers')} is less than `num_hidden_layers` = {len(layers)}."
        )
    size = config.hidden // config.heads
    return tuple(sized(layer, size) for layer in all_or_none_slide(layers, config))


def divided_heads(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """granitemoe.py: heads are hidden_size over their number, whatever head_dim says."""
    return tuple(sized(layer, config.hidden // config.heads) for layer in layers)


def config_heads(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """model_executor/models/transformers/base.py: attention has the heads and the head_dim that the config says."""
    size = head_dim(config)
    return tuple(sized(layer, size) for layer in layers)


def expanded(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """minicpm3.py: the latent is expanded to keys of every head before it is kept, and values are padded to their size."""
    size = config.count("qk_nope_head_dim") + config.count("qk_rope_head_dim")
    kept = FullAttention(kv_heads=config.heads, head_dim=size, v_head_dim=size)
    return tuple(kept if isinstance(layer, LatentAttention) else layer for layer in layers)


def without_indexers(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """The Transformers backend attends to every latent, and keeps no index keys (model_executor/models/transformers/base.py)."""
    return tuple(next(part for part in parts(layer) if isinstance(part, LatentAttention)) for layer in layers)


def attention_alone(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """The Transformers backend gives a cache to attention alone (model_executor/models/transformers/base.py)."""

    def kept(layer: Layer) -> Layer:
        return next((part for part in parts(layer) if isinstance(part, FullAttention)), NoState())

    return tuple(kept(layer) for layer in layers)


def every_head(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """zamba2.py: keys and values of every head, whatever num_key_value_heads says."""

    def seen(layer: Layer) -> Layer:
        if isinstance(layer, Parallel):
            return layer.replace(parts=tuple(seen(part) for part in layer.parts))
        return layer.replace(kv_heads=config.heads) if isinstance(layer, FullAttention) else layer

    return tuple(seen(layer) for layer in layers)


def windows_of_entries(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """models/deepseek_v4: a layer that only slides keeps the same entries as the others, and compresses none."""
    return tuple(
        CompressedAttention(head_dim=layer.head_dim, window=layer.window, ratio=0)
        if isinstance(layer, SlidingAttention)
        else layer
        for layer in layers
    )


def inkling(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """models/inkling: layers of local_layer_ids slide, no others; the four convolutions of a layer are one window, as wide per
    key-value head as a power of two holds them."""
    local = set(config.counts("local_layer_ids") or ())
    window, kernel = (config.count(key) for key in ("sliding_window", "conv_kernel_size"))

    def seen(index: int) -> Layer:
        prefix = "swa_" if index in local else ""
        heads = config.count(
            f"{prefix}num_key_value_heads" if config.given(f"{prefix}num_key_value_heads") else "num_key_value_heads"
        )
        size = config.count(f"{prefix}head_dim" if config.given(f"{prefix}head_dim") else "head_dim")
        attention = FullAttention(kv_heads=heads, head_dim=size, v_head_dim=size)
        width = 1 << (2 * size + 2 * (config.hidden // heads) - 1).bit_length()
        convolutions = ShortConv(channels=heads * width, conv_kernel=kernel)
        return Parallel(parts=(slid(attention, window) if prefix else attention, convolutions))

    return tuple(seen(index) for index in range(len(layers)))


def bailing_hybrid(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """bailing_moe_linear.py (BailingMoeV2_5ForCausalLM): lightning attention; bailing_moe_v3.py (BailingMoeV3ForCausalLM):
    Kimi Delta Attention. The last of each layer_group_size layers is latent, and in the latter an incomplete last group."""
    classes = config.architectures
    group = config.count("layer_group_size")
    whole = len(layers) // group * group
    latent = LatentAttention(kv_lora_rank=config.count("kv_lora_rank"), rope_head_dim=config.count("qk_rope_head_dim"))
    # Transformers' config class calls the rotary size head_dim, and that is what vLLM's classes read.
    size = config.count("qk_rope_head_dim")
    if "BailingMoeV2_5ForCausalLM" in classes:
        lightning = LightningAttention(heads=config.heads, head_dim=size, v_head_dim=size)
        return tuple(latent if (index + 1) % group == 0 else lightning for index in range(len(layers)))
    if "BailingMoeV3ForCausalLM" in classes:
        delta = next(layer for layer in layers if isinstance(layer, KimiDeltaAttention)).replace(head_dim=size)
        return tuple(latent if (index + 1) % group == 0 or index >= whole else delta for index in range(len(layers)))
    raise NotDescribed(
        f"model type 'bailing_hybrid' in vLLM: architectures {show(', '.join(classes))}; its classes are BailingMoeV2_5ForCausalLM and "
        "BailingMoeV3ForCausalLM, and Transformers' own can't be driven"
    )


def stated_size(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """mamba.py: channels are intermediate_size, where the config says it."""
    if not config.given("intermediate_size"):
        return layers
    inner = config.count("intermediate_size")
    return tuple(layer.replace(intermediate=inner) if isinstance(layer, Mamba) else layer for layer in layers)


def all_attend(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """The Transformers backend takes layers over an image for ones over the text (model_executor/models/transformers/base.py)."""
    return tuple(
        FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim)
        if isinstance(layer, CrossAttention)
        else layer
        for layer in layers
    )


def padded_latents(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """models/dots3_note: latents without a window take rows as wide as those with one."""
    width = max(
        (layer.kv_lora_rank + layer.rope_head_dim for layer in layers if isinstance(layer, LatentAttention)), default=0
    )

    def seen(layer: Layer) -> Layer:
        if isinstance(layer, Parallel):
            return layer.replace(parts=tuple(map(seen, layer.parts)))
        if isinstance(layer, LatentAttention):
            return layer.replace(kv_lora_rank=max(width - layer.rope_head_dim, layer.kv_lora_rank))
        return layer

    return tuple(map(seen, layers))


def halves(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """cosmos3_edge.py: a layer is two of the class, attention and the one behind it that keeps nothing."""
    return tuple(half for layer in layers for half in (layer, NoState()))


def held_in_full(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """unlimited_ocr.py: a window over what is generated is reserved for as if it were none (RSWASpec)."""
    return tuple(full(layer) if isinstance(layer, SlidingAttention) else layer for layer in layers)


def slid(layer: Layer, window: int) -> Layer:
    assert isinstance(layer, (FullAttention, SlidingAttention))
    return SlidingAttention(
        kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim, window=window
    )


def full(layer: Layer) -> Layer:
    assert isinstance(layer, (FullAttention, SlidingAttention))
    return FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim)


def sized(layer: Layer, size: int) -> Layer:
    """An attention layer with heads of another size."""
    if isinstance(layer, (FullAttention, SlidingAttention)) and size:
        return layer.replace(head_dim=size, v_head_dim=size)
    return layer


SEES: dict[str, Callable[[tuple[Layer, ...], Config], tuple[Layer, ...]]] = {
    "gpt_oss": even_layers_slide,
    "cohere2": one_token_more,
    "cohere2_moe": one_token_more,
    "mimo_v2_flash": one_token_less,
    "qwen2": split_heads,
    "qwen2_moe": split_heads,
    "qwen3_moe": all_or_none_slide,
    "biogpt": config_heads,
    "gpt_neox": config_heads,
    "granitemoe": divided_heads,
    "granitemoe_swa": divided_heads,
    "granitemoeshared": divided_heads,
    "minicpm3": expanded,
    "zaya": attention_alone,
    "zamba2": every_head,
    "deepseek_v4": windows_of_entries,
    "axk2": without_indexers,
    "unlimited_ocr_text": held_in_full,
    "inkling_text": inkling,
    "bailing_hybrid": bailing_hybrid,
    "mamba": stated_size,
    "cosmos3_edge_text": halves,
    "dots3_note_text": padded_latents,
    "mllama_text_model": all_attend,
    "falcon_mamba": stated_size,
}
