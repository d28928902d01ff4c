"""The modules of mlx_lm/models/ (MLX-LM 0.32.2) by the rule that reads their configs, and what sets single modules apart."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Config
    from ..layers import Layer

# module.function: the modules of mlx_lm/models/ that it reads
READERS = {
    "mlx_attention.split": """
        Klear apertus bailing_moe cohere deepseek granite granitemoe helium hunyuan internlm2 internlm3 mimo
        minicpm mixtral nanochat phi phi3 phi3small phimoe qwen2 qwen2_moe stablelm starcoder2
        """,
    "mlx_attention.asked": "bitnet dots1 ernie4_5 ernie4_5_moe glm hunyuan_v1_dense minimax nemotron olmo2 olmoe telechat3",
    "mlx_attention.stated": "gemma gemma2 glm4 glm4_moe llama4_text qwen3 qwen3_moe seed_oss solar_open",
    "mlx_attention.every_head": "gpt_neox qwen talkie",
    "mlx_attention.own_names": """
        afm7 dbrx exaone gpt2 gpt_bigcode gptj lille-130m olmo phixtral plamo
        """,
    "mlx_attention.openelm": "openelm",
    "mlx_attention.nemotron_nas": "nemotron-nas",
    "mlx_attention.nanbeige": "nanbeige",
    "mlx_attention.iquestloopcoder": "iquestloopcoder",
    "mlx_attention.llama": "llama ministral3 smollm3",
    "mlx_attention.afmoe": "afmoe",
    "mlx_attention.laguna": "laguna",
    "mlx_attention.exaone_moe": "exaone_moe spark2_5",
    "mlx_attention.muse_glimmer": "muse_glimmer",
    "mlx_attention.muse_spark": "muse_spark",
    "mlx_attention.gpt_oss": "gpt_oss",
    "mlx_attention.olmo3": "olmo3",
    "mlx_attention.mellum": "mellum",
    "mlx_attention.patterned": "cohere2 gemma3_text plamo3",
    "mlx_attention.exaone4": "exaone4",
    "mlx_attention.step3p5": "step3p5",
    "mlx_attention.mimo_v2_flash": "mimo_v2_flash",
    "mlx_attention.gemma3n": "gemma3n",
    "mlx_attention.gemma4_text": "gemma4_text",
    "mlx_attention.llama4": "llama4",
    "mlx_attention.baichuan_m1": "baichuan_m1",
    "mlx_states.latent": "deepseek_v3 glm4_moe_lite kimi_vl mistral4",
    "mlx_states.expanded": "deepseek_v2 minicpm3 youtu_llm",
    "mlx_states.indexed": "deepseek_v32 glm_moe_dsa",
    "mlx_states.minimax_m3_vl": "minimax_m3_vl",
    "mlx_states.longcat_flash": "longcat_flash longcat_flash_ngram",
    "mlx_states.deepseek_v41": "deepseek_v41",
    "mlx_states.qwen3_next": "qwen3_next qwen3_5",
    "mlx_states.olmo_hybrid": "olmo_hybrid",
    "mlx_states.kimi_linear": "kimi_linear kimi_k3",
    "mlx_states.bailing_hybrid": "bailing_hybrid",
    "mlx_states.bailing_moe_linear": "bailing_moe_linear",
    "mlx_states.bailing_moe_v3": "bailing_moe_v3",
    "mlx_states.mamba": "mamba",
    "mlx_states.mamba2": "mamba2",
    "mlx_states.jamba": "jamba",
    "mlx_states.falcon_h1": "falcon_h1",
    "mlx_states.granitemoehybrid": "granitemoehybrid",
    "mlx_states.nemotron_h": "nemotron_h",
    "mlx_states.plamo2": "plamo2",
    "mlx_states.lfm2": "lfm2 lfm2_moe",
    "mlx_states.gear": "gear",
    "mlx_states.recurrent_gemma": "recurrent_gemma",
    "mlx_states.rwkv7": "rwkv7",
}

# Dtypes of states that differ from engines.mlx.STATES; why a batch, or a quantised cache, fails in a module.
STATES: dict[str, dict[str, str]] = {"bailing_moe_linear": {"lightning attention": "model"}}
# muse_spark.py feeds its attention bfloat16, which meets float16 weights in float32.
CASTS = {"muse_spark": {"float16": "float32"}}
BATCHES = {
    "gpt_bigcode": "gpt_bigcode.py takes the offset of its positions as one number ([convert] Only length-1 arrays can be converted)",
    "gemma2": "gemma2.py does not broadcast the mask of a batch to its groups of heads ([broadcast_shapes])",
    "nemotron-nas": "nemotron-nas.py keeps an empty cache for a block without attention, which can't be shifted where lengths differ",
    "phi3small": "phi3small.py does not broadcast the mask of a batch to its groups of heads ([broadcast_shapes])",
}
# Attention written out in the module takes arrays, and gets the lists that a QuantizedKVCache returns.
_BY_HAND = "{} works on the keys and values itself, and a quantised cache gives lists of arrays"
# Of these, modules whose masks fit by chance where there are as many sequences as key-value heads.
GROUPED = ("gemma2", "phi3small")
QUANTISES = {
    module: _BY_HAND.format(f"{module}.py")
    for module in (
        "afm7 bailing_hybrid bailing_moe_v3 deepseek_v3 gemma2 glm4_moe_lite kimi_k3 kimi_linear kimi_vl mistral4 olmo phi "
        "phi3small phixtral plamo plamo2 stablelm"
    ).split()
}
# Modules that stop on a context of several tokens unless their mask is an array: why.
PROMPTS = {"olmo": 'olmo.py adds the mask to its scores, and the mask of several tokens is the word "causal"'}


def reader_of(module: str) -> Callable[[Config], tuple[Layer, ...]]:
    """The reader of a module of mlx_lm/models/."""
    file, function = next(name for name, modules in READERS.items() if module in modules.split()).split(".")
    read: Callable[[Config], tuple[Layer, ...]] = getattr(
        __import__(f"{__package__}.{file}", fromlist=[function]), function
    )
    return read
