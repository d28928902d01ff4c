"""From a config.json to the metadata of the GGUF file that llama.cpp's converter makes of it (commit 0c1e57098).

Source: conversion/*.py, the set_gguf_parameters of the class that is registered for the architecture, and TextModel's in
conversion/base.py, which most others stand on. Only the keys that decide what caches hold.
"""

from __future__ import annotations

from ..base import NotDescribed, nearest
from ..families import describe
from ..gguf import Metadata
from ..layers import ShortConv, SlidingAttention, SparseIndexer, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..config import Config

    Keys = dict[str, Any]

# Model types of decoders by the architecture that the converter gives them, where that has another name.
TYPES = {
    "llama": "llama mistral mixtral internlm3 iquestcoder",
    "deci": "nemotron-nas",
    "chatglm": "chatglm glm",
    "glm4": "glm4 glm4v_text glm_ocr_text",
    "glm4moe": "glm4_moe glm4v_moe_text solar_open",
    "glm-dsa": "glm_moe_dsa",
    "glm5-next": "glm5_next_text",
    "command-r": "cohere",
    "cohere2moe": "cohere2_moe",
    "deepseek2": "deepseek_v2 deepseek_v3 kimi_k2 glm4_moe_lite youtu",
    "deepseek2-ocr": "deepseek_ocr2_text unlimited_ocr_text",
    "deepseek32": "deepseek_v32",
    "deepseek4": "deepseek_v4 deepseek_ref",
    "dots3note": "dots3_note_text",
    "ernie4_5-moe": "ernie4_5_moe",
    "paddleocr": "paddleocr_vl_text",
    "exaone-moe": "exaone_moe",
    "falcon-h1": "falcon_h1",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text gemma4_unified_text",
    "gpt2": "gpt2 gpt-sw3",
    "gptneox": "gpt_neox",
    "gpt-oss": "gpt_oss",
    "granite_swa": "granite_swa granitemoe_swa",
    "granitemoe": "granitemoe granitemoeshared",
    "granitehybrid": "granitemoehybrid bamba",
    "hunyuan-dense": "hunyuan_v1_dense",
    "hunyuan-moe": "hunyuan_v1_moe hunyuan",
    "hunyuan_vl": "hunyuan_vl_text",
    "kimi-linear": "kimi_linear",
    "lfm2moe": "lfm2_moe",
    "llama4": "llama4_text",
    "mamba": "mamba falcon_mamba mamba_ssm",
    "mimo2": "mimo_v2_flash",
    "minimax-01": "minimax_text_01 minimax_m1",
    "minimax-m2": "minimax_m2",
    "minimax-m3": "minimax_m3_vl_text",
    "mistral3": "ministral3",
    "muse-glimmer": "muse_glimmer_text",
    "olmo2": "olmo2 olmo3",
    "phi2": "phi phi-msft",
    "qwen2moe": "qwen2_moe",
    "qwen2vl": "qwen2_vl_text qwen2_5_vl_text qwen2_5_omni_text",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "qwen3vl": "qwen3_vl_text",
    "qwen3vlmoe": "qwen3_vl_moe_text qwen3_omni_moe_text",
    "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text",
    "qwen4exp": "qwen4_exp_text",
    "starcoder": "gpt_bigcode",
    "step35": "step3p5",
    "t5": "t5 mt5 umt5",
    "bailingmoe": "bailing_moe",
    "bailingmoe2": "bailing_moe_v2",
}
SAME = (
    "afmoe apertus arcee arctic baichuan bitnet bloom chameleon cohere2 dbrx deepseek dots1 ernie4_5 exaone exaone4 falcon"
    " gemma gemma2 granite hrm_text hy_v3 hy_v4 internlm2 jais2 jamba laguna lfm2 mamba2 mellum minicpm minicpm3 mistral4"
    " mpt nanbeige nemotron nemotron_h olmo olmoe openelm orion phi3 phimoe plamo plamo2 plamo3 qwen qwen2 qwen3 rwkv6 rwkv7"
    " seed_oss smollm3 stablelm starcoder2"
).split()
ARCHITECTURES = {word: arch for arch, words in TYPES.items() for word in words.split()} | {word: word for word in SAME}
# Names of one size, of which the converter takes the first that a config has (TextModel.set_gguf_parameters).
NAMES = {
    "context_length": "max_position_embeddings n_ctx n_positions max_length max_sequence_length model_max_length",
    "embedding_length": "hidden_size n_embd dim",
    "attention.head_count": "num_attention_heads n_head n_heads",
    "attention.head_count_kv": "num_key_value_heads n_kv_heads",
    "block_count": "n_layers num_hidden_layers n_layer num_layers",
}
# Classes that write no head_dim; the loader then divides embedding_length by head_count.
NO_HEAD_DIM = (
    "chatglm dbrx falcon gpt2 gptneox granite granitemoe granite_swa granitehybrid orion phi2 phi3 plamo stablelm starcoder"
    " bloom mpt minicpm3"
).split()
# Classes that append the draft layers (num_nextn_predict_layers) to the others.
DRAFTS = "glm4moe glm-dsa deepseek32 cohere2moe exaone-moe hy_v3 step35 bailingmoe2 glm5-next".split()
ENDLESS = 2**20  # what the converter writes for models without a limit


def metadata(config: Config) -> Metadata:
    """The metadata that the converter would write. NotDescribed for types that it lacks."""
    arch = ARCHITECTURES.get(config.model_type)
    if arch is None:
        hint = nearest(config.model_type, list(ARCHITECTURES))
        raise NotDescribed(
            f"engine llamacpp: llama.cpp's converter has no {config.model_type}"
            + (f" (nearest: {hint})" if hint else "")
        )
    if config.model_type == "kimi_linear" and config.given("attn_res_block_size"):
        arch = "kimi-k3"
    if config.model_type == "mamba_ssm" and (config.data.get("ssm_cfg") or {}).get("layer") == "Mamba2":
        arch = "mamba2"
    keys: Keys = {name: first(config, words) for name, words in NAMES.items()}
    if arch not in NO_HEAD_DIM:
        keys["attention.key_length"] = keys["attention.value_length"] = config.get("head_dim")
    if arch in DRAFTS or config.model_type in ("glm4_moe_lite", "glm_ocr_text"):
        add_drafts(config, keys, config.optional("num_nextn_predict_layers", least=0) or 0)
    if arch in RULES:
        arch = RULES[arch](config, keys) or arch
    # Where the file leaves it to its class, nothing is known of it: then no context may be 0.
    keys["context_length"] = keys["context_length"] or 0
    found = {f"{arch}.{key}": value for key, value in keys.items() if value is not None}
    return Metadata({"general.architecture": arch} | found)


def first(config: Config, names: str) -> Any:
    """The value under the first of the names that the config or its class has."""
    return next((config.get(name) for name in names.split() if config.has(name)), None)


def add_drafts(config: Config, keys: Keys, count: int) -> None:
    total = config.checked("num_hidden_layers", keys["block_count"]) + count
    keys["block_count"] = config.checked("num_hidden_layers + draft layers", total, most=10_000)
    keys["nextn_predict_layers"] = count or None


def slides(config: Config, keys: Keys) -> None:
    """The window, and which layers have one, by layer_types as given or as the class computes them."""
    keys["attention.sliding_window"] = config.get("sliding_window")
    keys["attention.sliding_window_pattern"] = sliding(config)


def sliding(config: Config) -> list[bool]:
    types = None if config.model_type.startswith("gemma4") else config.words("layer_types")
    if types is not None:
        return [kind == "sliding_attention" for kind in types]
    # Layers that share another's keys and values have a kind all the same.
    layers = describe(config.overlaid({"num_kv_shared_layers": 0}))
    return [isinstance(layer, SlidingAttention) for layer in layers]


def window(config: Config, keys: Keys) -> None:
    keys["attention.sliding_window"] = config.get("sliding_window")


def mla(config: Config, keys: Keys) -> None:
    """deepseek.py, DeepseekV2Model: one key-value head as wide as the latent and its rotary key."""
    rank, rope = config.optional("kv_lora_rank") or 512, config.count("qk_rope_head_dim", least=0)
    keys["attention.head_count_kv"] = 1
    keys["attention.kv_lora_rank"] = rank
    keys["attention.key_length"], keys["attention.value_length"] = rank + rope, rank
    keys["attention.key_length_mla"] = config.count("qk_nope_head_dim", least=0) + rope
    keys["attention.value_length_mla"] = config.get("v_head_dim")
    keys["rope.dimension_count"] = rope


def indexed(config: Config, keys: Keys) -> None:
    mla(config, keys)
    keys["attention.indexer.key_length"] = config.get("index_head_dim")
    keys["attention.indexer.top_k"] = config.get("index_topk")


def glm_dsa(config: Config, keys: Keys) -> None:
    indexed(config, keys)
    types = config.words("indexer_types")
    if types is not None:
        keys["attention.indexer.types"] = [kind == "full" for kind in types]


def hy_v4(config: Config, keys: Keys) -> None:
    mla(config, keys)
    full = [any(isinstance(part, SparseIndexer) for part in parts(layer)) for layer in describe(config)]
    if any(full):
        indexed(config, keys)
        keys["attention.indexer.types"] = full
        # That there are some is all that counts.
        keys["attention.indexer.top_k"] = 1


def dots3(config: Config, keys: Keys) -> None:
    indexed(config, keys)
    sliding = [kind == "sliding_attention" for kind in (config.words("layer_types") or [])][: config.layers]
    rank, rope = config.count("swa_kv_lora_rank"), config.count("swa_qk_rope_head_dim", least=0)
    keys["attention.head_count"] = [
        config.count("swa_num_attention_heads") if slid else config.heads for slid in sliding
    ]
    keys["attention.sliding_window"] = first(config, "sliding_window_size sliding_window")
    keys["attention.sliding_window_pattern"] = sliding
    keys["attention.kv_lora_rank_swa"] = rank
    keys["attention.key_length_swa"], keys["attention.value_length_swa"] = rank + rope, rank
    keys["attention.indexer.types"] = [not slid for slid in sliding]


def deepseek4(config: Config, keys: Keys) -> None:
    window(config, keys)
    keys["attention.indexer.key_length"] = config.get("index_head_dim")
    keys["attention.indexer.top_k"] = config.get("index_topk")
    keys["attention.compress_ratios"] = config.get("compress_ratios")


def deci(config: Config, keys: Keys) -> None:
    blocks = config.items("block_configs")
    if blocks is None:
        keys["attention.head_count_kv"] = config.get("num_key_value_heads_per_layer") or keys["attention.head_count_kv"]
        return
    heads, kv_heads = [], []
    for block in blocks:
        attention = block.get("attention", {}) if isinstance(block, dict) else {}
        group = attention.get("n_heads_in_group")
        kv_heads.append(config.heads // config.checked("n_heads_in_group", group) if group else 0)
        heads.append(config.heads if group or attention.get("replace_with_linear") is True else 0)
    keys["attention.head_count"], keys["attention.head_count_kv"] = heads, kv_heads
    keys["attention.key_length"] = keys["attention.value_length"] = config.hidden // config.heads


def chatglm(config: Config, keys: Keys) -> None:
    names = "multi_query_group_num num_key_value_heads n_head num_attention_heads"
    keys["attention.head_count_kv"] = first(config, names)
    keys["context_length"] = first(config, "seq_length hidden_size")


def cohere(config: Config, keys: Keys) -> None:
    keys["context_length"] = first(config, "model_max_length max_position_embeddings")


def dbrx(config: Config, keys: Keys) -> None:
    own = config.section("attn_config")
    keys["context_length"], keys["embedding_length"] = config.get("max_seq_len"), config.get("d_model")
    keys["attention.head_count_kv"] = own.get("kv_n_heads") if own else None


def falcon(config: Config, keys: Keys) -> None:
    keys["context_length"] = 2048
    # Where the config has one head for all, the converter would write num_attention_heads, which the weights do not have:
    # llama.cpp opens no such file, and those that there are say 1.
    one = config.flag("multi_query", True) and not config.flag("new_decoder_architecture")
    heads = config.get("num_kv_heads") or first(config, "n_head_kv")
    keys["attention.head_count_kv"] = 1 if one else heads or config.heads


def exaone4(config: Config, keys: Keys) -> None:
    if config.get("sliding_window") is None:
        return
    slides(config, keys)
    pattern, count = config.get("sliding_window_pattern"), config.layers
    if config.given("layer_types") or not pattern:
        return
    if isinstance(pattern, str):
        found = [pattern[layer % len(pattern)] == "L" for layer in range(count)]
    else:
        every = config.count("sliding_window_pattern")
        found = [(layer + 1) % every != 0 for layer in range(count)]
    keys["attention.sliding_window_pattern"] = found


def gemma3(config: Config, keys: Keys) -> None:
    # The pattern itself is not written: every sixth layer is dense, whatever the config says.
    if config.get("sliding_window_pattern") != 1:
        window(config, keys)
    for key, name, default in (
        ("attention.head_count", "num_attention_heads", 8),
        ("attention.head_count_kv", "num_key_value_heads", 4),
        ("attention.key_length", "head_dim", 256),
    ):
        keys[key] = config.get(name) if config.has(name) else default
    keys["attention.value_length"] = keys["attention.key_length"]


def gemma3n(config: Config, keys: Keys) -> None:
    gemma3(config, keys)
    slides(config, keys)


def gemma4(config: Config, keys: Keys) -> None:
    slides(config, keys)
    slid_layers = keys["attention.sliding_window_pattern"]
    keys["attention.shared_kv_layers"] = config.get("num_kv_shared_layers")

    def dense(name: str, key: str) -> Any:
        # Of the first full layer that overrides it, where the config has no key for full layers.
        overrides = (config.layer(layer) for layer, slid in enumerate(slid_layers) if not slid)
        own = (layer.get(key) for layer in overrides if config.per_layer and layer.data is not config.data)
        found = config.get(name)
        return next((value for value in own if value is not None), None) if found is None else found

    size, heads = dense("global_head_dim", "head_dim"), dense("num_global_key_value_heads", "num_key_value_heads")
    keys["attention.key_length"] = keys["attention.value_length"] = 512 if size is None else size
    keys["attention.key_length_swa"] = keys["attention.value_length_swa"] = config.get("head_dim")
    own = config.get("num_key_value_heads")
    if heads is not None and own is not None:
        keys["attention.head_count_kv"] = [own if slid else heads for slid in slid_layers]


def gpt2(config: Config, keys: Keys) -> None:
    keys["context_length"] = first(config, "n_ctx n_positions")


def granite_swa(config: Config, keys: Keys) -> None:
    slides(config, keys)
    if keys["attention.sliding_window"] is None:
        keys["attention.sliding_window"] = 128


def mamba_names(config: Config, names: str) -> Any:
    """As first, and under the same names after mamba_ (granite.py, GraniteHybridModel.find_hparam)."""
    return first(config, f"{names} {' '.join(f'mamba_{name}' for name in names.split())}")


def ssm(config: Config, keys: Keys, inner: int, ranks: Any) -> None:
    keys["ssm.conv_kernel"] = mamba_names(config, "conv_kernel d_conv")
    keys["ssm.state_size"] = mamba_names(config, "state_size d_state state_dim ssm_state_size")
    keys["ssm.group_count"] = mamba_names(config, "n_groups")
    keys["ssm.inner_size"], keys["ssm.time_step_rank"] = inner, ranks


def granite_hybrid(config: Config, keys: Keys) -> str | None:
    types, count = config.words("layer_types"), config.layers
    if types:
        attention = {layer for layer, kind in enumerate(types) if kind == "attention"}
    else:
        every, offset = config.optional("attn_layer_period"), config.get("attn_layer_offset")
        attention = set(config.counts("attn_layer_indices") or ())
        if not attention and every:
            attention = {layer for layer in range(count) if layer % every == offset}
    if len(attention & set(range(count))) == count:
        return "granitemoe" if first(config, "num_local_experts num_experts") else "granite"
    width = mamba_names(config, "expand num_heads") * first(config, "mamba_head_dim hidden_size d_model")
    ssm(config, keys, width, mamba_names(config, "n_heads num_heads"))
    heads = config.kv_heads
    keys["attention.head_count_kv"] = [heads if layer in attention else 0 for layer in range(count)]
    if config.model_type != "bamba":
        keys["context_length"] = ENDLESS
    return None


def nemotron_h(config: Config, keys: Keys) -> str | None:
    pattern = config.get("hybrid_override_pattern") or config.get("layers_block_type")
    if isinstance(pattern, str):
        kinds = list(pattern)
    else:
        letters = {"mamba": "M", "moe": "E", "mlp": "-", "attention": "*", "hybrid": "M"}
        kinds = [letters.get(str(kind), str(kind)) for kind in pattern or []]
    # By the layers there are, since Transformers gives every config of the type experts.
    moe = "E" in kinds
    keys["block_count"] = count = len(kinds)
    width = mamba_names(config, "num_heads") * first(config, "mamba_head_dim hidden_size d_model")
    ssm(config, keys, width, mamba_names(config, "n_heads num_heads"))
    keys["attention.head_count_kv"] = [config.kv_heads if kind == "*" else 0 for kind in kinds]
    size = first(config, "head_dim attention_head_dim")
    keys["attention.key_length"] = keys["attention.value_length"] = size
    # Layers of a network alone are told by its width.
    keys["feed_forward_length"] = [int(kind in "E-") for kind in kinds]
    keys["context_length"] = ENDLESS
    if moe and config.optional("num_nextn_predict_layers", least=0):
        keys["block_count"], keys["nextn_predict_layers"] = count + 1, 1
        keys["attention.head_count_kv"].append(config.kv_heads)
        keys["feed_forward_length"].append(1)
    return "nemotron_h_moe" if moe else None


def falcon_h1(config: Config, keys: Keys) -> None:
    ssm(config, keys, config.count("mamba_d_ssm"), None)
    keys["ssm.time_step_rank"] = config.count("mamba_d_ssm") // config.count("mamba_d_head")


def hrm(config: Config, keys: Keys) -> None:
    stack, high, low = (
        first(config, "num_layers_per_stack num_hidden_layers"),
        config.get("H_cycles"),
        config.get("L_cycles"),
    )
    keys["block_count"] = stack * high * (low + 1)


def hunyuan(config: Config, keys: Keys) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    if kind == "dynamic" and not (config.model_type == "hunyuan_vl_text" and "mrope_section" in rope):
        keys["context_length"] = 256 * 1024


def jamba(config: Config, keys: Keys) -> None:
    offset, every = config.count("attn_layer_offset", least=0), config.count("attn_layer_period")
    keys["attention.head_count_kv"] = [
        config.kv_heads if layer >= offset and (layer - offset) % every == 0 else 0 for layer in range(config.layers)
    ]
    keys["attention.key_length"] = keys["attention.value_length"] = None
    keys["ssm.inner_size"] = config.count("mamba_expand") * config.hidden
    keys["ssm.conv_kernel"], keys["ssm.state_size"] = config.get("mamba_d_conv") or 4, config.get("mamba_d_state") or 16


def kimi(config: Config, keys: Keys) -> None:
    mla(config, keys)
    linear = config.section("linear_attn_config")
    if linear is None:
        config.bad("linear_attn_config", None, "an object")
    full = set(linear.counts("full_attn_layers") or ())
    # Written by no one's name: head_dim, which the class of Transformers sets to the rotary part.
    keys["attention.value_length"] = config.get("head_dim") or config.get("qk_rope_head_dim")
    keys["attention.head_count_kv"] = [int(layer + 1 in full) for layer in range(config.layers)]
    keys["ssm.conv_kernel"], keys["kda.head_dim"] = linear.get("short_conv_kernel_size"), linear.get("head_dim")


def glm5(config: Config, keys: Keys) -> None:
    glm_dsa(config, keys)
    linear = config.section("linear_attn_config")
    if linear is None:
        config.bad("linear_attn_config", None, "an object")
    kinds = [int(kind != "linear_attention") for kind in config.words("layer_types") or []]
    keys["attention.head_count_kv"] = kinds + [1] * (keys["block_count"] - len(kinds))
    keys["ssm.conv_kernel"], keys["kda.head_dim"] = linear.get("short_conv_kernel_size"), linear.get("head_dim")
    keys["attention.indexer.kpool"] = config.get("index_kpool")


def laguna(config: Config, keys: Keys) -> None:
    keys["attention.head_count"] = config.counts("num_attention_heads_per_layer") or config.heads
    if config.optional("sliding_window", least=0):
        window(config, keys)


def lfm2(config: Config, keys: Keys) -> None:
    keys["attention.head_count_kv"] = [
        0 if isinstance(layer, ShortConv) else config.kv_heads for layer in describe(config)
    ]
    keys["shortconv.l_cache"] = config.get("conv_L_cache")


def mamba(config: Config, keys: Keys) -> None:
    hidden = first(config, "hidden_size d_model")
    keys.update({"embedding_length": hidden, "attention.head_count": 0, "context_length": ENDLESS})
    keys["ssm.conv_kernel"] = first(config, "conv_kernel d_conv") or 4
    keys["ssm.inner_size"] = first(config, "intermediate_size d_inner") or 2 * hidden
    keys["ssm.state_size"] = first(config, "state_size d_state") or 16


def mamba2(config: Config, keys: Keys) -> None:
    # The file as it stands, without class defaults (mamba.py, Mamba2Model.__init__); ssm_cfg is not read.
    def own(names: str, default: int | None = None) -> int:
        name = next((name for name in names.split() if config.data.get(name)), names.split()[0])
        return config.checked(name, config.data.get(name) or default)

    hidden = own("hidden_size d_model dim")
    inner = own("intermediate_size d_inner", own("expand", 2) * hidden)
    keys.update({"embedding_length": hidden, "attention.head_count": 0, "context_length": ENDLESS})
    keys["attention.key_length"] = keys["attention.value_length"] = keys["attention.head_count_kv"] = None
    keys["ssm.conv_kernel"] = own("conv_kernel d_conv", 4)
    keys["ssm.state_size"] = own("state_size d_state", 128)
    keys["ssm.group_count"] = own("n_groups", 1)
    keys["ssm.inner_size"], keys["ssm.time_step_rank"] = inner, inner // own("head_dim", 64)


def mellum(config: Config, keys: Keys) -> None:
    if config.flag("use_sliding_window", True) and config.get("sliding_window") is not None:
        slides(config, keys)


def mimo2(config: Config, keys: Keys) -> None:
    add_drafts(config, keys, 3)
    hybrid = [*(config.counts("hybrid_layer_pattern") or ()), 1, 1, 1]
    full, slid = config.get("num_key_value_heads"), config.get("swa_num_key_value_heads")
    keys["attention.head_count_kv"] = [slid if on == 1 else full for on in hybrid]
    # The class of Transformers counts the token itself on top of the window of the file.
    windows = [layer.window for layer in describe(config) if isinstance(layer, SlidingAttention)]
    keys["attention.sliding_window"] = windows[0] if windows else config.get("sliding_window")
    keys["attention.sliding_window_pattern"] = hybrid
    keys["attention.value_length"] = config.get("v_head_dim")


def minicpm3(config: Config, keys: Keys) -> None:
    rope = config.count("qk_rope_head_dim", least=0)
    keys["attention.key_length"] = config.count("qk_nope_head_dim", least=0) + rope


def minimax01(config: Config, keys: Keys) -> None:
    types = config.counts("attn_type_list")
    if types is not None:
        keys["attention.recurrent_layers"] = [int(kind == 0) for kind in types]


def minimax_m3(config: Config, keys: Keys) -> None:
    own = config.section("sparse_attention_config")
    keys["attention.indexer.key_length"] = own.get("sparse_index_dim") if own else None
    frequencies = config.counts("moe_layer_freq") or []
    keys["leading_dense_block_count"] = next((n for n, on in enumerate(frequencies) if on), len(frequencies))


def nanbeige(config: Config, keys: Keys) -> None:
    keys["num_loops"] = max(config.optional("num_loops", least=0) or 1, 1)


def olmo2(config: Config, keys: Keys) -> None:
    if not config.has("sliding_window"):
        return
    slides(config, keys)
    if config.model_type == "olmo2" and not config.given("layer_types"):
        keys["attention.sliding_window_pattern"] = [(layer + 1) % 4 != 0 for layer in range(config.layers)]


def openelm(config: Config, keys: Keys) -> None:
    keys["context_length"], keys["embedding_length"] = config.get("max_context_length"), config.get("model_dim")
    keys["attention.head_count"] = config.counts("num_query_heads")
    keys["attention.head_count_kv"] = config.counts("num_kv_heads")
    keys["block_count"] = config.get("num_transformer_layers") or keys["block_count"]


def one_head_each(config: Config, keys: Keys) -> None:
    keys["attention.head_count_kv"] = keys["attention.head_count"]


def bloom(config: Config, keys: Keys) -> None:
    one_head_each(config, keys)
    keys["context_length"] = first(config, "seq_length hidden_size")


def plamo(config: Config, keys: Keys) -> None:
    keys["context_length"], keys["attention.head_count_kv"] = 4096, 5


def plamo2(config: Config, keys: Keys) -> None:
    step, count, size = config.get("mamba_step") or 2, config.layers, config.get("hidden_size_per_head") or 128
    half = step // 2
    if config.flag("mamba_enabled", True):
        mixed = [layer != count - 1 if count <= half else layer % step != half for layer in range(count)]
        for name, key, default in (
            ("head_count", "num_attention_heads", 32),
            ("head_count_kv", "num_key_value_heads", 4),
        ):
            value = config.get(key) or default
            keys[f"attention.{name}"] = [0 if on else value for on in mixed]
    keys["attention.key_length"] = keys["attention.value_length"] = size
    ranks = config.get("mamba_num_heads") or 64
    keys["ssm.state_size"], keys["ssm.conv_kernel"] = config.get("mamba_d_state") or 64, config.get("mamba_d_conv") or 4
    keys["ssm.time_step_rank"], keys["ssm.inner_size"], keys["ssm.group_count"] = ranks, ranks * size, 0


def plamo3(config: Config, keys: Keys) -> None:
    keys["attention.sliding_window"] = first(config, "window_size sliding_window")
    if keys["attention.sliding_window"] is not None:
        keys["attention.sliding_window_pattern"] = config.get("sliding_window_pattern")


def qwen3next(config: Config, keys: Keys) -> None:
    keys["ssm.conv_kernel"] = config.get("linear_conv_kernel_dim")
    keys["ssm.state_size"] = config.get("linear_key_head_dim")
    keys["ssm.group_count"] = config.get("linear_num_key_heads")
    keys["ssm.time_step_rank"] = ranks = config.count("linear_num_value_heads")
    keys["ssm.inner_size"] = config.count("linear_value_head_dim") * ranks
    # Draft layers that only the weights tell of (Qwen3-Next) are not known here.
    drafts = config.optional("mtp_num_hidden_layers", least=0) or 0
    add_drafts(config, keys, 0 if config.model_type == "qwen4_exp_text" else drafts)
    types = config.words("layer_types")
    if types is not None:
        drafts = keys["block_count"] - len(types)
        keys["attention.recurrent_layers"] = [int(kind == "linear_attention") for kind in types] + [0] * drafts
    keys["full_attention_interval"] = config.get("full_attention_interval") or 4


def qwen4exp(config: Config, keys: Keys) -> None:
    qwen3next(config, keys)
    keys["attention.indexer.key_length"] = config.get("indexer_head_dim")
    layers = config.counts("ple_layer_ids")
    if layers:
        keys["ple.layers"] = [layer - 1 for layer in layers]
        keys["ple.ngram_size"], keys["ple.conv_kernel"] = config.get("ngram_size"), config.get("ple_conv_kernel_size")
    keys["hyper_connection.count"] = config.get("hc_count")


def rwkv(config: Config, keys: Keys) -> None:
    keys.update({"context_length": ENDLESS, "attention.head_count": 0, "attention.head_count_kv": None})
    keys["attention.key_length"] = keys["attention.value_length"] = None
    keys["wkv.head_size"] = first(config, "head_size head_dim")


def starcoder(config: Config, keys: Keys) -> None:
    keys["attention.head_count_kv"], keys["context_length"] = 1, config.get("n_positions")


def step35(config: Config, keys: Keys) -> None:
    other = config.section("attention_other_setting")
    types = (config.words("layer_types") or [])[: keys["block_count"]]
    sliding = [kind == "sliding_attention" for kind in types]
    sliding += [False] * (keys["block_count"] - len(sliding))
    groups = config.get("num_attention_groups")
    own = (other.get("num_attention_groups") if other else None) or groups
    own_heads = (other.get("num_attention_heads") if other else None) or config.heads
    keys["attention.head_count"] = [own_heads if slid else config.heads for slid in sliding]
    keys["attention.head_count_kv"] = [own if slid else groups for slid in sliding]
    keys["attention.sliding_window"], keys["attention.sliding_window_pattern"] = config.get("sliding_window"), sliding


def t5(config: Config, keys: Keys) -> None:
    keys["context_length"] = first(config, "n_positions") or 512
    keys["embedding_length"], keys["attention.head_count"] = config.get("d_model"), config.get("num_heads")
    keys["attention.head_count_kv"] = None
    keys["attention.key_length"] = keys["attention.value_length"] = config.get("d_kv")
    keys["decoder_block_count"] = config.get("num_decoder_layers")


def llama4(config: Config, keys: Keys) -> None:
    types = config.words("layer_types")
    if types is not None and all(kind == "full_attention" for kind in types):
        keys["attention.sliding_window"] = 0


RULES: dict[str, Callable[[Config, Keys], str | None]] = {
    "afmoe": window, "cohere2": window, "gemma2": window, "gpt-oss": window, "phi3": window,
    "cohere2moe": slides, "muse-glimmer": slides, "deepseek2": mla, "mistral4": mla, "deepseek32": indexed,
    "glm-dsa": glm_dsa, "glm5-next": glm5, "hy_v4": hy_v4, "dots3note": dots3, "deepseek4": deepseek4, "deci": deci,
    "chatglm": chatglm, "command-r": cohere, "dbrx": dbrx, "mpt": dbrx, "falcon": falcon, "exaone4": exaone4,
    "exaone-moe": exaone4, "gemma3": gemma3, "gemma3n": gemma3n, "gemma4": gemma4, "gpt2": gpt2,
    "granite_swa": granite_swa, "granitehybrid": granite_hybrid, "nemotron_h": nemotron_h, "falcon-h1": falcon_h1,
    "hrm_text": hrm, "hunyuan-moe": hunyuan, "hunyuan-dense": hunyuan, "hunyuan_vl": hunyuan, "jamba": jamba,
    "kimi-linear": kimi, "kimi-k3": kimi, "laguna": laguna, "lfm2": lfm2, "lfm2moe": lfm2, "mamba": mamba,
    "mamba2": mamba2, "mellum": mellum, "mimo2": mimo2, "minicpm3": minicpm3, "minimax-01": minimax01,
    "minimax-m3": minimax_m3, "nanbeige": nanbeige, "olmo2": olmo2, "openelm": openelm, "phi2": one_head_each,
    "bloom": bloom, "plamo": plamo, "plamo2": plamo2, "plamo3": plamo3, "qwen3next": qwen3next, "qwen35": qwen3next,
    "qwen35moe": qwen3next, "qwen4exp": qwen4exp, "rwkv6": rwkv, "rwkv7": rwkv, "starcoder": starcoder,
    "step35": step35, "t5": t5, "llama4": llama4,
}  # fmt: skip
