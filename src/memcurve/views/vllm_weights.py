"""Sizes of weights that vLLM 0.33.0's model classes divide among tensor-parallel ranks, where a rest is refused.

ColumnParallelLinear, RowParallelLinear and FusedMoE of model_executor/layers/ assert that each rank gets a whole share; the
vocabulary is padded to a multiple of 64 first (vocab_parallel_embedding.py). Heads, states and key-value heads are the
engine's. A size that neither the config nor its class says is not checked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import Config

VOCABULARY_PADDING = 64
# Types whose layers all have these sizes, by key.
PLAIN = {
    name: keys
    for keys, names in {
        ("intermediate_size",): """
            apertus arcee aria_text axk1 cohere cohere2 cohere2_moe cohere_compass_text cosmos3_edge_text cwm doge ernie4_5 exaone exaone4
            falcon_h1 flex_olmo gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4v_text
            glm_ocr_text gpt_neox granite granite_swa granitemoe granitemoe_swa granitemoeshared helium higgs_audio_v2 hrm_text
            hyperclovax internlm2 internlm3 iquestcoder jais2 jamba llama llama4_text mimo minicpm minicpm3 minimax_m2 minimax_m3_vl_text
            ministral ministral3 mistral mixtral muse_glimmer_text nanochat nemotron paddleocr_vl_text phi4_multimodal olmo olmo2 olmo3 olmo_hybrid olmoe orion phi phi3 phimoe plamo3 qwen2 qwen2_5_omni_text
            qwen2_5_vl_text qwen2_vl_text qwen3 qwen3_5_text qwen3_vl_text seed_oss smollm3 solar stablelm starcoder2 telechat3 vaultgemma voxtral_realtime_text youtu
            """,
        ("intermediate_size", "shared_intermediate_size"): "granitemoehybrid",
        ("moe_intermediate_size",): "inkling_text muse_spark_text",
        ("moe_intermediate_size", "shared_expert_intermediate_size"): "kolibri1",
        ("ffn_hidden_size",): "chatglm",
        ("ffn_dim",): "opt",
        ("n_inner",): "gpt2 gpt-sw3 gptj",
    }.items()
    for name in names.split()
}
# Types with experts of moe_intermediate_size, and dense layers of intermediate_size where DENSE says that there are any.
MIXED = frozenset(
    """
    afmoe axk2 bailing_hybrid bailing_moe bailing_moe_v2 deepseek deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots1 ernie4_5_moe
    exaone_moe glm4_moe glm4_moe_lite glm4v_moe_text glm_moe_dsa kimi_k2 kimi_linear laguna lfm2_moe mimo_v2_flash qwen2_moe qwen3_5_moe_text
    qwen3_moe qwen3_next qwen3_omni_moe_text qwen3_vl_moe_text solar_open
    """.split()
)
# Keys of which a number above 0 says that the first layers are dense.
DENSE = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
# Types whose class makes the first layer dense where the config does not say.
FIRST_DENSE = frozenset("deepseek_v3 deepseek_v32 ernie4_5_moe exaone_moe kimi_linear laguna".split())
EXPERTS = ("n_routed_experts", "num_experts", "moe_num_experts", "num_local_experts")


def shards(config: Config) -> dict[str, int]:
    """The sizes by key, as the ranks divide them."""
    found = dict(widths(config))
    key = "padded_vocab_size" if config.model_type == "chatglm" else "vocab_size"
    vocabulary = size_of(config, key)
    if vocabulary:
        found[f"{key}, padded to a multiple of {VOCABULARY_PADDING}"] = (
            -(-vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
        )
    return found


def widths(config: Config) -> Iterator[tuple[str, int]]:
    keys: tuple[str, ...] = PLAIN.get(config.model_type, ())
    if config.model_type in MIXED:
        counts = [config.get(key) for key in EXPERTS if config.has(key)]
        experts = any(counts) or not counts
        keys = ("moe_intermediate_size", "shared_expert_intermediate_size") if experts else ()
        if not experts or has_dense_layers(config):
            keys = (*keys, "intermediate_size")
    if config.model_type == "nemotron_h":
        pattern = config.get("hybrid_override_pattern")
        if isinstance(pattern, str):
            keys = ("intermediate_size",) * ("-" in pattern) + ("moe_intermediate_size",) * ("E" in pattern)
    if config.model_type == "mimo_v2_flash":
        keys = (*keys, "swa_num_attention_heads")
    for key in keys:
        value = config.get(key)
        for number, size in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(size, int) and size > 0:
                yield (f"{key}[{number}]" if isinstance(value, list) else key), size


def has_dense_layers(config: Config) -> bool:
    """Whether some layers have no experts, as far as the config says."""
    step, only, kinds = (config.get(key) for key in ("decoder_sparse_step", "mlp_only_layers", "mlp_layer_types"))
    frequency = config.get("moe_layer_freq")
    first = [size for key in DENSE if (size := size_of(config, key)) is not None]
    return (
        (any(size > 0 for size in first) if first else config.model_type in FIRST_DENSE)
        or bool(only)
        or (isinstance(step, int) and step > 1)
        or (isinstance(kinds, list) and "dense" in kinds)
        or (isinstance(frequency, list) and 0 in frequency)
    )


def size_of(config: Config, key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
