"""What stops a module of mlx_lm/models/ (MLX-LM 0.32.2) before there is a cache: its ModelArgs.__post_init__, and the rotary
positions that it builds (rope_utils.py, initialize_rope). Keys that only its weights or experts need are looked at for nulls
alone.
"""

from __future__ import annotations

from ..base import Refused, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..config import Config

# Names for the number of experts, and keys that count where there are some.
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
OF_EXPERTS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_intermediate_size",
    "n_group",
    "routed_scaling_factor",
    "topk_method",
)
# Keys that must hold an object, and what must be in it.
OBJECTS = {
    "deepseek_v2": ("rope_scaling", ("factor",)),
    "glm_moe_dsa": ("rope_parameters", ("rope_theta",)),
    "hunyuan": ("rope_scaling", ("alpha", "factor", "type")),
    "minicpm3": ("rope_scaling", ()),
    "ministral3": ("rope_parameters", ("llama_4_scaling_beta", "original_max_position_embeddings", "rope_theta")),
    "mistral4": ("rope_parameters", ("llama_4_scaling_beta", "original_max_position_embeddings")),
    "muse_spark": ("rope_parameters", ("rope_theta",)),
}
# The same where the key is given: what must be in it, and the types that the module knows.
GIVEN: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "hunyuan_v1_dense": (("alpha", "factor", "type"), "type", ()),
    "internlm2": (("factor", "type"), "type", ("linear", "dynamic")),
    "internlm3": (("factor", "rope_type"), "rope_type", ("linear", "dynamic")),
    "nemotron": (("factor",), "type", ("linear",)),
    "nemotron-nas": (("factor", "rope_type"), "rope_type", ()),
    "phi3": (("long_factor", "type"), "type", ()),
    "qwen2_moe": (("factor", "type"), "type", ("linear",)),
}
# Modules that hand rope_scaling, or rope_parameters, to initialize_rope as it is.
SCALED = frozenset(
    "afmoe apertus bailing_hybrid bailing_moe bailing_moe_linear bailing_moe_v3 bitnet deepseek_v3 deepseek_v32 dots1 exaone "
    "exaone4 exaone_moe falcon_h1 gemma3_text glm4_moe_lite gpt_oss granite granitemoe internlm2 internlm3 iquestloopcoder kimi_vl "
    "llama llama4 longcat_flash longcat_flash_ngram mimo minicpm nanbeige nemotron-nas olmo2 olmo3 olmoe qwen2 qwen3 qwen3_next seed_oss "
    "smollm3 telechat3 youtu_llm".split()
)
PARAMETERS = frozenset(("glm_moe_dsa", "minimax_m3_vl", "ministral3", "mistral4"))
# rope_utils.py, initialize_rope: what each type takes from the object.
TYPES: dict[str, tuple[str, ...]] = {
    "default": (), "linear": ("factor",), "dynamic": ("factor",), "llama3": ("factor",), "yarn": ("factor",), "deepseek_yarn": ("factor",),
    "telechat3-yarn": ("factor",), "longrope": ("original_max_position_embeddings", "short_factor", "long_factor"), "proportional": (),
    "mrope": (),
}  # fmt: skip


def check(args: Config, numbers: Sequence[str]) -> None:
    """Refused where the module's ModelArgs, or its rotary positions, raise on these keys. numbers: of which a null stops it."""
    module = args.model_type
    if module in OBJECTS:
        key, needed = OBJECTS[module]
        value = args.get(key)
        if not isinstance(value, dict) or any(one not in value for one in needed):
            raise Refused(
                f"{args.path}{key}: {_said(value, needed)}; MLX-LM's {module}.py needs an object"
                + (f" with {', '.join(needed)}" if needed else "")
            )
    if module in GIVEN and args.get("rope_scaling"):
        _given(args, *GIVEN[module])
    if module in SCALED or module in PARAMETERS:
        key = "rope_scaling" if module in SCALED else "rope_parameters"
        _scaling(args, key, args.get(key))
    sparse = any(args.own(key) for key in EXPERTS)
    for key in numbers:
        if args.own(key) is None and (key in args.data or key in args.defaults) and (sparse or key not in OF_EXPERTS):
            raise Refused(f"{args.path}{key}: null, which stops MLX-LM's {module}.py; expected a value")
    if module in POST_INIT:
        POST_INIT[module](args)


def _said(value: object, needed: tuple[str, ...]) -> str:
    return f"without {', '.join(one for one in needed if one not in value)}" if isinstance(value, dict) else show(value)


def _given(args: Config, needed: tuple[str, ...], word: str, types: tuple[str, ...]) -> None:
    value = args.get("rope_scaling")
    if not isinstance(value, dict) or any(one not in value for one in needed):
        raise Refused(
            f"rope_scaling must contain keys {{{', '.join(needed)}}} ({args.path}rope_scaling: {_said(value, needed)})"
        )
    found = value.get(word) or value.get("rope_type")
    if types and found not in types:
        raise Refused(f"rope_scaling '{word}' currently only supports {', '.join(types)}, got {show(found)}")


def _scaling(args: Config, key: str, value: Mapping[str, Any] | None) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        args.bad(key, value, "an object")
    kind = value.get("type") or value.get("rope_type", "default")
    if kind not in TYPES:
        raise Refused(f"Unsupported RoPE type {show(kind)} ({args.path}{key})")
    missing = [one for one in TYPES[kind] if one not in value]
    if missing:
        raise Refused(f"{args.path}{key}: without {', '.join(missing)}, which MLX-LM needs for type {show(kind)}")
    if kind == "mrope" and len(value.get("mrope_section", ())) != 3:
        raise Refused(f"MRoPE currently only supports 3 sections, got {len(value.get('mrope_section', ()))}.")


def _qwen3(args: Config) -> None:
    nested = args.get("rope_parameters") or {}
    if args.get("rope_theta") is None and nested.get("rope_theta") is None:
        raise Refused("rope_theta is missing from the model config.")
    if nested and args.get("rope_scaling") is None:
        _scaling(args, "rope_parameters", nested)


def _smollm3(args: Config) -> None:
    given = args.items("no_rope_layers")
    if given is not None and len(given) != args.layers:
        raise Refused(f"`no_rope_layers` length mismatch: {len(given)} for num_hidden_layers = {args.layers}")


def _lfm2(args: Config) -> None:
    if args.get("block_ff_dim") is None and args.get("intermediate_size") is None:
        raise Refused("Config must specify either 'block_ff_dim' or 'intermediate_size'")


def _kimi_k3(args: Config) -> None:
    for key, only in (("hidden_act", "situ"), ("moe_router_activation_func", "sigmoid")):
        if args.get(key) != only:
            raise Refused(f"{args.path}{key}: {show(args.get(key))}; MLX-LM's kimi_k3.py supports {only} alone")
    if not args.get("mla_use_nope"):
        raise Refused("Only NoPE MLA is supported (mla_use_nope=True)")
    for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"):
        args.count(key, least=0)


def _mellum(args: Config) -> None:
    given = args.get("rope_parameters") or {}
    for word in args.words("layer_types") or ():
        if not isinstance(given, dict) or word not in given:
            raise Refused(
                f"{args.path}rope_parameters: without {show(word)}, a word of layer_types (KeyError in mellum.py)"
            )


def _spark2_5(args: Config) -> None:
    words = args.words("layer_types") or ["sliding_attention"] * 3 + ["full_attention"]
    given = args.get("rope_parameters")
    if args.get("layer_types") is not None and len(words) != args.layers:
        raise Refused(f"layer_types length must match num_hidden_layers: {len(words)} != {args.layers}")
    if unknown := sorted(set(words) - {"sliding_attention", "full_attention"}):
        raise Refused(f"Unsupported layer types: {unknown}")
    missing = sorted(set(words[: args.layers]) - set(given if isinstance(given, dict) else ()))
    if missing:
        raise Refused(f"Missing RoPE parameters for layer types: {missing}")
    for key, only in (("hidden_act", "gelu"), ("gate_attn_act_mode", "sigmoid"), ("headwise_attn_output_gate", True)):
        if args.get(key) != only:
            raise Refused(f"{args.path}{key}: {show(args.get(key))}; Spark2_5 requires {only}")


def _nemotron_h(args: Config) -> None:
    words = args.get("hybrid_override_pattern") or args.get("layers_block_type") or args.get("layer_types") or ()
    for key in ("n_routed_experts", "moe_intermediate_size", "num_experts_per_tok", "n_group", "routed_scaling_factor"):
        if ("E" in words or "moe" in words) and args.get(key) is None:
            raise Refused(f"{args.path}{key}: null, or missing, which MLX-LM's nemotron_h.py needs for its experts")


def _plamo2(args: Config) -> None:
    # The decoder takes its mask from the cache of this layer.
    if args.count("mamba_step", least=2) // 2 >= args.layers:
        raise Refused(
            f"{args.path}mamba_step: {args.count('mamba_step')}; half of it must be less than num_hidden_layers"
        )


def _bailing_hybrid(args: Config) -> None:
    size = args.count("head_dim") if args.get("head_dim") else args.ratio("hidden_size", "num_attention_heads")
    dims = int(size * args.number("partial_rotary_factor"))
    if dims <= 0 or dims > size or dims % 2:
        raise Refused(f"Invalid rotary dimension {dims} with head_dim={size}")


POST_INIT = {
    "bailing_hybrid": _bailing_hybrid,
    "kimi_k3": _kimi_k3,
    "lfm2": _lfm2,
    "mellum": _mellum,
    "nemotron_h": _nemotron_h,
    "plamo2": _plamo2,
    "qwen3": _qwen3,
    "smollm3": _smollm3,
    "spark2_5": _spark2_5,
}
