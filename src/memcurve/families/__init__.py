"""Structures of models: one function per structure, and the table of the model types that have it.

A hybrid lives under its rarest part. A model type is a word in one line of the table; the module of a structure is
imported when a config asks for it, since a cold command reads one.
"""

from __future__ import annotations

from ..base import NotDescribed, nearest, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Config
    from ..layers import Layer

# module.function: the model types that it reads
STRUCTURES = {
    "attention.attention": """
        apertus arcee aria_text bitnet cohere diffllama doge ernie4_5 ernie4_5_moe ernie4_5_vl_moe_text evolla
        flex_olmo gemma glm glm4 glm4_moe glm4v_moe_text glm4v_text glm_ocr_text gpt_neox_japanese granite
        granite4_vision_text granite_docling_text granitemoe granitemoeshared helium higgs_audio_v2 hunyuan_v1_dense
        hunyuan_v1_moe hunyuan_vl_text hy_v3 hyperclovax internlm3 iquestcoder jais2 kyutai_speech_to_text llama
        minimax_m2 ministral ministral3 mistral mixtral molmo2_text moshi nanochat nemotron olmo olmo2 olmoe paddleocr_vl_text
        phi phi3 phi4_multimodal phimoe qwen3_omni_moe_text qwen3_vl_text qwen3_vl_moe_text seed_oss solar_open
        stablelm starcoder2 csm emu3_text_model chameleon cosmos3_edge_text gradium_phonon_tts
        pocket_tts voxtral_realtime_text
        """,
    "attention.split_heads": "deepseek_ocr2_text",
    "attention.jetmoe": "jetmoe",
    "attention.every_head": """
        bert bert-generation big_bird biogpt bloom camembert codegen ctrl data2vec-text electra ernie git gpt-sw3 gpt2 gpt_neo gpt_neox gptj megatron-bert mpt opt persimmon rembert semantic coarse_acoustics roberta roberta-prelayernorm
        roc_bert roformer xglm xlm-roberta xlm-roberta-xl xmod idefics kosmos_2_text_model
        kosmos_2_5_text_model
        """,
    "attention.xlnet": "xlnet",
    "attention.cpmant": "cpmant",
    "attention.reference_sliding": "unlimited_ocr_text",
    "attention.every_second": "gemma2 vaultgemma gpt_oss",
    "attention.full_by_default": "laguna mellum cohere_compass_text",
    "attention.every_fourth": "olmo3",
    "attention.every_fifth": "kolibri1",
    "attention.afmoe": "afmoe",
    "attention.beam": "beam",
    "attention.cohere2": "cohere2",
    "attention.reformer": "reformer",
    "attention.cohere2_moe": "cohere2_moe",
    "attention.first_of_four": "cwm granite_swa granitemoe_swa",
    "attention.last_of_four": "muse_glimmer_text muse_spark_text",
    "attention.flint": "flint",
    "attention.modernbert_decoder": "modernbert-decoder",
    "attention.gemma3": "gemma3_text",
    "attention.gemma3n": "gemma3n_text",
    "attention.gemma4": "gemma4_text gemma4_unified_text diffusion_gemma_text",
    "attention.qwen2": "qwen2 qwen2_5_omni_text qwen2_5_vl_text qwen2_vl_text qwen3 mimo",
    "attention.dots1": "dots1",
    "attention.qwen2_moe": "qwen2_moe",
    "attention.qwen3_moe": "qwen3_moe",
    "attention.smollm3": "smollm3",
    "attention.llama4": "llama4_text",
    "attention.exaone4": "exaone4 exaone_moe",
    "attention.mimo_v2_flash": "mimo_v2_flash",
    "attention.step3p5": "step3p5",
    "attention.dbrx": "dbrx",
    "attention.falcon": "falcon",
    "attention.gpt_bigcode": "gpt_bigcode",
    "attention.hrm_text": "hrm_text",
    "latent.latent": "deepseek_v2 deepseek_v3 joyai_llm_flash kimi_k2 minicpm3 glm4_moe_lite youtu youtu_llm axk1 mistral4",
    "latent.longcat_flash": "longcat_flash longcat_flash_ngram",
    "latent.sparse_latent": "deepseek_v32 axk2",
    "latent.shared_indexer": "glm_moe_dsa hy_v4",
    "latent.mistral_large4": "mistral_large4_text",
    "latent.dots3_note": "dots3_note_text",
    "latent.minimax_m3": "minimax_m3_vl_text",
    "deltanet.gated_delta_hybrid": "qwen3_next qwen3_5_text qwen3_5_moe_text",
    "deltanet.olmo_hybrid": "olmo_hybrid",
    "deltanet.qwen4_exp": "qwen4_exp_text",
    "deltanet.kimi_linear": "kimi_linear kimi_k3",
    "deltanet.glm5_next": "glm5_next_text",
    "mamba.mamba": "mamba falcon_mamba",
    "mamba.mamba2": "mamba2",
    "mamba.mamba_ssm": "mamba_ssm",
    "mamba.jamba": "jamba",
    "mamba.bamba": "bamba",
    "mamba.granite_hybrid": "granitemoehybrid",
    "mamba.falcon_h1": "falcon_h1",
    "mamba.nemotron_h": "nemotron_h",
    "mamba.zamba": "zamba",
    "mamba.zamba2": "zamba2",
    "recurrent.minimax": "minimax",
    "recurrent.minimax_text_01": "minimax_text_01 minimax_m1",
    "recurrent.bailing_hybrid": "bailing_hybrid bailing_moe_v3",
    "recurrent.lfm2": "lfm2 lfm2_moe",
    "recurrent.lfm3": "lfm3",
    "recurrent.inkling": "inkling_text inkling2_text",
    "recurrent.rwkv4": "rwkv",
    "recurrent.rwkv": "rwkv5 rwkv6 rwkv7",
    "recurrent.recurrent_gemma": "recurrent_gemma",
    "recurrent.xlstm": "xlstm",
    "recurrent.zaya": "zaya",
    "compressed.deepseek_v4": "deepseek_v4 deepseek_ref",
    "compressed.deepseek_v41": "deepseek_v41 deepseek_v41_text",
    "encoder_decoder.cross_decoder": "blip_text_model musicgen_decoder musicgen_melody_decoder pix2struct_text_model trocr",
    "encoder_decoder.t5gemma2": "t5gemma2_decoder",
    "encoder_decoder.moonshine": "moonshine",
    "encoder_decoder.grouped": "moonshine_streaming",
    "encoder_decoder.bart": """
        bart bigbird_pegasus blenderbot blenderbot-small fsmt led m2m_100 marian mbart mvp nllb-moe pegasus pegasus_x
        plbart seamless_m4t seamless_m4t_v2 speech_to_text speecht5 whisper pp_formulanet_text
        """,
    "encoder_decoder.t5": "t5 mt5 umt5 longt5 switch_transformers udop pop2piano",
    "encoder_decoder.t5gemma": "t5_gemma_module",
    "encoder_decoder.grouped_cross": "canary_decoder cohere_asr dia_decoder",
    "encoder_decoder.prophetnet": "prophetnet",
    "encoder_decoder.blt": "blt",
    "encoder_decoder.mllama": "mllama_text_model",
    "hub.hub_attention": """
        aquila baichuan deepseek internlm internlm2 minicpm Motif motif nanbeige orion phi3small solar telechat3 xverse yi
        """,
    "hub.qwen": "qwen",
    "hub.chatglm": "chatglm",
    "hub.phi_msft": "phi-msft",
    "hub.nemotron_nas": "nemotron-nas",
    "hub.baichuan_m1": "baichuan_m1",
    "hub.hunyuan": "hunyuan",
    "hub.plamo": "plamo",
    "hub.plamo2": "plamo2",
    "hub.plamo3": "plamo3",
    "hub.bailing_moe": "bailing_moe bailing_moe_v2",
    "hub.bailing_moe_linear": "bailing_moe_linear bailing_moe_linear_v2",
    "hub.phi4flash": "phi4flash",
    "hub.step3_text": "step3_text",
    "hub.exaone": "exaone",
    "hub.openelm": "openelm",
    "hub.gated_deltanet": "gated_deltanet",
    "mlx_only.klear": "Klear",
    "mlx_only.afm7": "afm7",
    "mlx_only.gear": "gear",
    "mlx_only.iquestloopcoder": "iquestloopcoder",
    "mlx_only.lille": "lille-130m",
    "mlx_only.phixtral": "phixtral",
    "mlx_only.spark2_5": "spark2_5",
    "mlx_only.talkie": "talkie",
}

# Encoders whose output always has as many positions as this key says.
FIXED_ENCODER = {"whisper": "max_source_positions"}

# Encoders that run as decoders with is_decoder: their classes keep nothing without it (use_cache in modeling_bert.py).
ENCODERS = frozenset(
    "bert bert-generation camembert data2vec-text electra ernie megatron-bert rembert roberta roberta-prelayernorm "
    "roc_bert roformer xlm-roberta xlm-roberta-xl xmod".split()
)

# What the code of types that Transformers lacks assumes for keys that a config leaves out: of deepseek, kimi_k2 and qwen the
# configuration_*.py beside their weights, of the others ModelArgs in mlx_lm/models/ (mlx-lm 0.32.2).
ASSUMED: dict[str, dict[str, int]] = {
    "deepseek": {"hidden_size": 4096, "num_hidden_layers": 30, "num_attention_heads": 32},
    "joyai_llm_flash": {"num_hidden_layers": 30, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
    "kimi_k2": {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
    "plamo": {"n_shared_head": 8},
    "plamo2": {
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 4, "hidden_size_per_head": 128, "mamba_d_state": 64,
        "mamba_d_conv": 4, "mamba_num_heads": 64, "attention_window_size": 2048,
    },
    "plamo3": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "window_size": 2048,
        "sliding_window_pattern": 8,
    },
    "qwen": {"num_hidden_layers": 32, "num_attention_heads": 32, "kv_channels": 128},
    "talkie": {"num_hidden_layers": 40, "num_attention_heads": 40, "head_dim": 128},
    "phi-msft": {"num_layers": 32, "num_heads": 32, "model_dim": 2560},
    "phixtral": {"num_layers": 32, "num_heads": 32, "model_dim": 2560},
    "youtu_llm": {"num_hidden_layers": 32, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
}  # fmt: skip

# Model types that generate in Transformers and that have no answer: why.
REFUSED = {
    "bark": "its models run one after the other; expected one of them, its semantic_config or coarse_acoustics_config",
    "fastspeech2_conformer": "it speaks without generating token by token: it keeps no state",
    "fastspeech2_conformer_with_hifigan": "it speaks without generating token by token: it keeps no state",
    "gemma4_assistant": "it drafts from the cache of the model it assists and keeps none",
    "gemma4_unified_assistant": "it drafts from the cache of the model it assists and keeps none",
    "openai-gpt": "Transformers keeps no cache for it: every step reads the whole context again",
    "vits": "it speaks without generating token by token: it keeps no state",
    "xlm": "Transformers keeps no cache for it: every step reads the whole context again",
}


def structure_of(model_type: str) -> str | None:
    """module.function of the structure that reads this type, or None."""
    for name, types in STRUCTURES.items():
        if model_type in types and model_type in types.split():
            return name
    return None


def model_types() -> tuple[str, ...]:
    """The model types that are described, sorted."""
    return tuple(sorted(word for types in STRUCTURES.values() for word in types.split()))


def describe(config: Config) -> tuple[Layer, ...]:
    """The layers of a config's decoder. NotDescribed for a model type that no structure claims."""
    name = structure_of(config.model_type)
    if name is None:
        raise not_described(config.model_type)
    if not config.has_class:
        config.defaults = ASSUMED.get(config.model_type, {})
    module, function = name.split(".")
    read: Callable[[Config], tuple[Layer, ...]] = getattr(
        __import__(f"{__name__}.{module}", fromlist=[function]), function
    )
    return read(config)


def not_described(model_type: str) -> NotDescribed:
    """The error for a model type without a structure: why it is refused, or the nearest that is described."""
    if model_type in REFUSED:
        return NotDescribed(f"model type {show(model_type)} has no answer: {REFUSED[model_type]}")
    hint = nearest(model_type, model_types())
    return NotDescribed(f"model type {show(model_type)} is not described" + (f"; nearest: {hint}" if hint else ""))


# Without one of these a config's bytes are those of the class, which may be a model of another size.
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads")


def notes(config: Config) -> list[str]:
    """What a config that has been read leaves open, and how it was taken."""
    found = []
    missing = [f"{key} {config.assumed[key]}" for key in SIZES if key in config.assumed]
    if missing:
        found.append(f"not in the config, so as the class of {config.model_type} has it: {', '.join(missing)}")
    if config.path.startswith("vlm_config."):
        found.append("this holds the prefix; while actions are denoised their chunk_size + 1 tokens stand behind it")
    if config.model_type == "blt" and config.get("num_hidden_layers") is None:
        found.append("Transformers 5.23.0 makes no cache for it unless the config states num_hidden_layers")
    if config.model_type in ENCODERS and not config.flag("is_decoder"):
        found.append("is_decoder is false: an encoder keeps nothing between calls; this is what it keeps as a decoder")
    return found


def verified() -> dict[str, int]:
    """Recorded cases that each model type replays exactly (docs/report.py writes the file)."""
    import json
    from os.path import dirname, join

    with open(join(dirname(dirname(__file__)), "verified.json"), encoding="utf-8") as file:
        found: dict[str, int] = json.load(file)
    return found
