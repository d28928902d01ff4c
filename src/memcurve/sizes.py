"""The sizes of a model that an engine's memory beside weights and state depends on, read of its config or GGUF file."""

from __future__ import annotations

from .base import NotDescribed
from .config import Config
from .engines.allowances import Sizes
from .layers import (
    RWKV,
    RWKV4,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    parts,
)
from .units import dtype_bytes
from .views import view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .gguf import Metadata
    from .layers import Layer
    from .model import Model

# Keys by which configs say their longest sequence.
LENGTHS = (
    "max_position_embeddings", "model_max_length", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx",
    "max_source_positions", "max_target_positions", "max_seq_length", "max_context_length", "original_max_position_embeddings",
)  # fmt: skip
# Keys that hold a size, in the order they are looked for; a list is one per layer, and the largest counts.
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
VOCABULARY = ("vocab_size", "padded_vocab_size", "n_vocab")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
INTERMEDIATE = (
    "intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff", "ff_intermediate_size",
    "block_ff_dim", "d_intermediate",
)  # fmt: skip
EXPERTS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "top_k_experts",
    "moe_k",
    "moe_top_k",
    "experts_per_token",
)
EXPERT_WIDTH = ("moe_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")

# SGLang 0.5.23, configs/model_config.py: multimodal_model_archs, less mm_disabled_models, which take text by default; a
# tail ForConditionalGeneration is left out.
MULTIMODAL = """
CLIPModel Cohere2Vision Cosmos3Edge DeepseekVL2ForCausalLM Ernie4_5_VLMoe MiniMaxM3Sparse Gemma3n Gemma4
EmbeddingGemma2Model Gemma4Unified DiffusionGemmaForBlockDiffusion Glm4v Glm4vMoe Glm5Next GlmOcr GlmAsr GlmImage
Grok1VForCausalLM Grok1AForCausalLM LlavaLlamaForCausalLM LlavaMistralForCausalLM LlavaQwenForCausalLM Llava
LlavaVidForCausalLM Lfm2Vl LightOnOCR MiMoV2ASRForCausalLM MiniCPMO MiniCPMV Mistral3 MultiModalityCausalLM Mllama MossVL
NemotronH_Nano_VL_V2 NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Omni_Reasoning_V3 MuseGlimmer MuseSpark Pixtral Qwen2Audio
Qwen2VL Qwen2_5_VL Qwen3VL Qwen3VLMoe Qwen3_5 Qwen3_5Moe Qwen4Exp InternS2Preview InternS2Mobius Qwen3ASR Qwen3OmniMoe
KimiVL LocateAnything InternVLChatModel InternS1 InternS1Pro Phi4MMForCausalLM Voxtral Whisper POINTSV15ChatModel
DotsVLMForCausalLM Dots3NoteForCausalLM DotsOCRForCausalLM Sarashina2VisionForCausalLM NVILA NVILALite
DeepseekOCRForCausalLM UnlimitedOCRForCausalLM JetVLM PaddleOCRVL MiDashengLMModel StepVL Step3p7 KimiK25 BailingMMNative
BailingMM2Native BailingMoeV3VL
""".split()
# multimodal_breakable_cuda_graph_supported_model_archs
GRAPHED = """
MiniMaxM3Sparse Cohere2Vision Glm5Next InternS2Mobius PaddleOCRVL Qwen3_5 Qwen3_5Moe Qwen4Exp MuseGlimmer MuseSpark KimiK3
KimiK25
""".split()
TAIL = "ForConditionalGeneration"
BUCKETS = "relative_attention_num_buckets"
RECURRENT = (GatedDeltaNet, KimiDeltaAttention, LightningAttention, Mamba, Mamba2, RWKV, RWKV4)


def sizes_of(
    model: Model, engine: str, options: Mapping[str, Any] | None = None, vocabulary: int | None = None
) -> Sizes:
    """The sizes of a model as `engine` runs it with these options of its own.

    vocabulary: where neither a config nor a GGUF file's metadata says it (the rows of the embedding). NotDescribed for a pattern,
    which has no such sizes; BadConfig for a config without them.
    """
    if model.config is None:
        raise NotDescribed(f"{model.name}: a pattern of layers has no weights; expected a config.json or a GGUF file")
    seen = view(engine, model.layers, model.dtype, model.config)
    if not isinstance(model.config, Config):
        return _of_gguf(model, model.config, vocabulary)
    config = model.config
    hidden = largest(config, HIDDEN, least=1)
    heads = largest(config, HEADS, 1)
    experts = largest(config, EXPERTS, 0)
    intermediate = largest(config, INTERMEDIATE, 4 * hidden)
    pieces = [part for layer in seen.layers for part in parts(layer)]
    latent = sum(isinstance(part, LatentAttention) for part in pieces)
    head = sum(config.count(key, 0, least=0) for key in ("qk_nope_head_dim", "v_head_dim")) if latent else 0
    names = [name.removesuffix(TAIL) for name in config.architectures[:1]]
    multimodal = bool(names) and names[0] in MULTIMODAL
    tokens, sequences = _batch(seen.facts, options or {}) if engine == "vllm" else (0, 0)
    return Sizes(
        hidden=hidden,
        vocabulary=largest(config, VOCABULARY, vocabulary or None, least=1),
        layers=max(1, len(seen.layers)),
        heads=heads,
        intermediate=intermediate,
        experts=experts,
        expert_width=largest(config, EXPERT_WIDTH, intermediate) if experts else 0,
        latent_layers=latent,
        latent_rank=config.count("kv_lora_rank", 0, least=0) if latent else 0,
        latent_heads=heads * head,
        recurrent=any(isinstance(part, RECURRENT) for part in pieces),
        lightning=lightning(pieces),
        biased=config.count(BUCKETS, 0, least=0) > 0,
        element=dtype_bytes(seen.dtype) if seen.dtype in ("float16", "bfloat16", "float32") else 2,
        quantised=any(isinstance(level.get("quantization_config"), dict) for level in (config.root, config.data)),
        multimodal=multimodal,
        vision=_vision(config.root.get("vision_config"), multimodal),
        # disable_breakable_cudagraph_if_incompatible (arg_groups/cuda_graph_hook.py)
        graphs_prefill=not (
            (multimodal and names[0] not in GRAPHED)
            or model.model_type == "deepseek_v4"
            or any(isinstance(part, KimiDeltaAttention) for part in pieces)
        ),
        tokens=tokens,
        sequences=sequences,
    )


def largest(config: Config, keys: tuple[str, ...], default: int | None = None, least: int = 0) -> int:
    """The first of these keys that the config has, the largest where it is one per layer."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and value:
            return max(config.counts(key) or [])
        if value is not None:
            return config.count(key, least=least)
    if default is None:
        config.bad(keys[0], None, "a size")
    return default


def _batch(facts: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[int, int]:
    from .engines.vllm import batch_of, gpu_of, model_length

    length = model_length(
        options.get("max_model_len"), facts.get("longest"), facts.get("longest_key"), facts.get("assumed")
    )
    return batch_of(
        gpu_of(options.get("gpu", "H100")),
        length,
        options.get("max_num_batched_tokens"),
        options.get("max_num_seqs"),
        facts.get("chunked", True),
    )


def _vision(section: Any, multimodal: bool) -> tuple[int, int] | None:
    """The picture encoder's layers and width; ViT-L/14's where its section does not say them, as SGLang takes it."""
    if not isinstance(section, dict):
        return (24, 1024) if multimodal else None
    layers, width = section.get("num_hidden_layers"), section.get("hidden_size")
    return (
        layers if isinstance(layers, int) and 0 < layers < 10_000 else 24,
        width if isinstance(width, int) and 0 < width < 2**20 else 1024,
    )


def _of_gguf(model: Model, metadata: Metadata, vocabulary: int | None) -> Sizes:
    """By the keys below the architecture (gguf-py/gguf/constants.py, Keys.LLM)."""
    width = metadata.count("embedding_length", least=1)
    experts = metadata.count("expert_used_count", 0)
    own = metadata.get("vocab_size")
    words = metadata.checked("vocab_size", vocabulary if own is None else own, least=1)
    layers = metadata.count("block_count", least=1)
    fed = max(metadata.counts("feed_forward_length", layers, [4 * width]))
    pieces = [part for layer in model.layers for part in parts(layer)]
    latent = sum(isinstance(part, LatentAttention) for part in pieces)
    heads = max(metadata.counts("attention.head_count", layers, [1]))
    head = metadata.count("attention.key_length_mla", 0) + metadata.count("attention.value_length_mla", 0)
    return Sizes(
        hidden=width,
        vocabulary=words,
        layers=layers,
        heads=heads,
        latent_layers=latent,
        latent_rank=metadata.count("attention.kv_lora_rank", 0) if latent else 0,
        latent_heads=heads * head,
        recurrent=any(isinstance(part, RECURRENT) for part in pieces),
        lightning=lightning(pieces),
        biased=metadata.count("attention.relative_buckets_count", 0) > 0,
        intermediate=fed,
        experts=experts,
        expert_width=metadata.count("expert_feed_forward_length", fed) if experts else 0,
    )


def lightning(pieces: Sequence[Layer]) -> int:
    """Numbers that the heads of lightning attention have of a token."""
    return max((one.heads * one.head_dim for one in pieces if isinstance(one, LightningAttention)), default=0)


def length_is_assumed(model: Model) -> bool:
    """Whether the config says no longest sequence, so that an engine takes its class's."""
    return isinstance(model.config, Config) and not any(model.config.given(key) for key in LENGTHS)


def trained_context(model: Model) -> int | None:
    """Tokens of the longest sequence by the model's own words; None where it says none."""
    config = model.config
    if config is None:
        return None
    if not isinstance(config, Config):
        return config.count("context_length", 0) or None
    value = config.get("max_position_embeddings")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
