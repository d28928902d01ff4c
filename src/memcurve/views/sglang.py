"""What SGLang 0.5.23 makes of a model: which layers slide, sizes that it gives to all layers alike, and facts of its classes.

Sources, under sglang/srt: configs/model_config.py (ModelConfig), configs/hybrid_arch.py and the config classes of
hybrids, models/ (the architectures that its registry has). SGLang chooses by the name of the architecture, so the same
layers under another name are sized otherwise: Gemma-3 slides in no pool, Gemma-4 does.
"""

from __future__ import annotations

from ..base import NotDescribed, Refused, nearest, show
from ..config import class_defaults
from ..layers import (
    ChunkedAttention,
    CompressedAttention,
    FullAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
    SparseIndexer,
    parts,
)  # fmt: skip
from . import View
from .sglang_classes import (
    ARCHITECTURES,
    DRAFTS,
    EXTRA_BUFFER,
    OWN_SLIDING_SIZES,
    READS_STATE_DTYPE,
    REFUSES,
    SLIDING,
    SLIDING_IF_ANY,
    SPARSE,
    STAGED,
    STATE_CACHE,
    STATEFUL,
    STATES_BY_ALL,
    WHOLE_HEADS,
    WHOLE_WINDOW,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..config import Config
    from ..layers import Layer

    Heads = FullAttention | SlidingAttention | ChunkedAttention

# What SGLang's own config classes assume for it, where that is not what Transformers' do
LENGTHS = {
    "afmoe": 131072, "bailing_hybrid": 32768, "beam": 1048576, "deepseek_v32": 4096, "exaone": 2048,
    "glm5_next_text": 1013760, "granitemoehybrid": 131072, "kimi_k2": 4096, "kimi_linear": 4096, "nanbeige": 4096,
    "nemotron_h": 4096, "zaya": 32768,
}  # fmt: skip
NESTED = frozenset({"gemma3_text", "gemma3n_text", "gemma4_text"})
DRAFT_LAYERS = {"deepseek_v32": 1, "glm5_next_text": 1, "hy_v4": 1, "kimi_k2": 1, "longcat_flash": 1}
# Which keys say the longest context, the first one that is there (CONTEXT_LENGTH_KEYS)
CONTEXT_KEYS = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length", "max_position_embeddings")
# Types whose class states index_topk itself; for the others an indexer runs where the config has the key
TOPK_BY_CLASS = frozenset({"glm_moe_dsa", "hy_v4"})
# Their indexers run in pages of 64 tokens; compressed ones of Qwen4-Exp in pages of 64, MiniMax-M3's of 128
PAGES = {
    "DeepseekV4ForCausalLM": 256,
    "Qwen4ExpForConditionalGeneration": 64,
    "MiniMaxM3SparseForCausalLM": 128,
    "MiniMaxM3SparseForConditionalGeneration": 128,
}
STATES = (GatedDeltaNet, KimiDeltaAttention, Mamba, Mamba2, LightningAttention, ShortConv)


def view(layers: tuple[Layer, ...], dtype: str | None, config: Config | None) -> View:
    """The layers as SGLang sizes them, the dtype that it runs in, and facts for its sizing under `model`."""
    if config is None:
        return View(layers=layers, dtype=dtype)
    arch = architecture(config)
    if config.data is config.root and isinstance(config.root.get("text_config"), dict):
        raise NotDescribed(
            f"engine sglang: {config.model_type} with a text_config, which SGLang reads instead; expected none"
        )
    facts: dict[str, Any] = {
        "context_length": context_length(config),
        "attention_heads": config.optional("num_attention_heads") if _first(layers, *HEADS, LatentAttention) else None,
        "fp8_cache": _fp8_cache(config),
        "draft_layers": _draft_layers(config),
        "extra_buffer": arch in EXTRA_BUFFER,
        "state_cache": _state_cache(arch, layers),
        "architecture": arch,
        "asserts": True,
        "whole_heads": arch in WHOLE_HEADS,
        "kv_heads": tuple({part.kv_heads for layer in layers for part in parts(layer) if isinstance(part, HEADS)}),
        "staged": arch in STAGED,
        "states_by_all": arch in STATES_BY_ALL,
        "refuses": REFUSES.get(arch, {}),
        "drafts": DRAFTS.get(arch, (3, 1, 4)),
    }
    if arch in PAGES:
        facts["page_size"] = PAGES[arch]
    if arch in READS_STATE_DTYPE:
        facts["state_dtype"] = config.word("mamba_ssm_dtype", "float32")
    own = OWN.get(arch)
    if _first(layers, CompressedAttention) is not None:
        seen = layers
    elif own is not None:
        seen = own(layers, config, facts)
    elif arch in STATEFUL and _first(layers, *STATES) is not None:
        seen = _stateful(layers)
    elif arch in SLIDING:
        seen = _sliding(arch, layers, config, facts)
    else:
        seen = _alike(layers, config)
    if arch in SPARSE and (config.given("index_topk") or config.model_type in TOPK_BY_CLASS):
        seen = _indexed(seen, config, facts)
    elif arch in SPARSE:
        seen = tuple(_without(layer, SparseIndexer) for layer in seen)
    return View(layers=seen, dtype=_dtype(dtype, config), facts={"model": facts})


def architecture(config: Config) -> str:
    """The architecture by which SGLang chooses a class: the config's own, else the one of its type's class.

    NotDescribed where the registry lacks it.
    """
    names = config.architectures
    if not names:
        outer = config.root.get("model_type")
        own: list[str] = (class_defaults(outer) or {}).get("arch", []) if isinstance(outer, str) else []
        names = [name for name in own if name in ARCHITECTURES] or own or [f"the class of {config.model_type}"]
    name = names[0]
    if name in ARCHITECTURES:
        return name
    hint = nearest(name, sorted(ARCHITECTURES))
    raise NotDescribed(
        f"architecture {show(name)} is not in SGLang's registry; its fallback to Transformers is not described"
        + (f"; nearest: {hint}" if hint else "")
    )


def context_length(config: Config) -> int | None:
    """get_context_length: the first key that is there, longer by the factor of a rope scaling that states no original length.

    Without any, what the class assumes; None for a type without a class.
    """
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    factor: float = 1
    # Classes that rotate by the kind of layer nest their scaling, and it is not seen.
    if isinstance(scaling, dict) and config.model_type not in NESTED and scaling.get("rope_type") != "llama3":
        known = scaling.get("factor")
        if isinstance(known, (int, float)) and "original_max_position_embeddings" not in scaling:
            factor = known
            if not 0 < factor <= 2**20:
                config.bad("rope_scaling.factor", factor, "a number from 0 to 1048576")
    keys = (*CONTEXT_KEYS, "n_positions")
    own = next((key for key in keys if config.given(key)), None)
    if own is None and config.model_type in LENGTHS:
        return int(factor * LENGTHS[config.model_type])
    own = own or next((key for key in keys if config.get(key) is not None), None)
    if own is None:
        return 2048 if config.has_class else None
    return config.checked(f"{own} * rope_scaling.factor", int(factor * config.count(own)))


def _state_cache(arch: str, layers: tuple[Layer, ...]) -> bool:
    """uses_mamba_radix_cache (_mamba_radix_cache_resolution)."""
    if arch == "GraniteMoeHybridForCausalLM":
        return _first(layers, *STATES) is not None
    return arch in STATE_CACHE


def _dtype(dtype: str | None, config: Config) -> str:
    """_get_and_verify_dtype: float32, also where nothing is said, is run in float16, Gemma's in bfloat16."""
    quantised = config.root.get("quantization_config")
    if isinstance(quantised, dict) and quantised.get("quant_method") == "mxfp4":
        return "bfloat16"
    if dtype in (None, "float32"):
        return "bfloat16" if config.model_type.startswith("gemma") else "float16"
    return dtype


def _fp8_cache(config: Config) -> bool:
    """Whether kv_cache_dtype "auto" means fp8: ModelOpt's configs state the algorithm (modelopt_quant.py)."""
    quantised = config.root.get("quantization_config")
    if not isinstance(quantised, dict) or not str(quantised.get("quant_method", "")).startswith("modelopt"):
        return False
    scheme = quantised.get("kv_cache_scheme")
    if isinstance(scheme, dict):
        return scheme.get("type") == "float" and scheme.get("num_bits") == 8
    return str(quantised.get("kv_cache_quant_algo", "")).upper() == "FP8"


def _draft_layers(config: Config) -> int:
    """num_nextn_predict_layers: layers of the checkpoint that draft."""
    value = config.get("num_nextn_predict_layers")
    if value is None:
        value = DRAFT_LAYERS.get(config.model_type)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


# -- layers -------------------------------------------------------------------------------------------------------

HEADS = (FullAttention, SlidingAttention, ChunkedAttention)


def _first(layers: tuple[Layer, ...], *kinds: type) -> Any:
    return next((part for layer in layers for part in parts(layer) if isinstance(part, kinds)), None)


def _join(found: list[Layer]) -> Layer:
    return found[0] if len(found) == 1 else Parallel(parts=tuple(found)) if found else NoState()


def _without(layer: Layer, kind: type) -> Layer:
    return _join([part for part in parts(layer) if not isinstance(part, kind)])


def _as_full(part: Heads) -> FullAttention:
    return FullAttention(kv_heads=part.kv_heads, head_dim=part.head_dim, v_head_dim=part.v_head_dim)


def _alike(layers: tuple[Layer, ...], config: Config) -> tuple[Layer, ...]:
    """Every layer of the model keeps keys and values of one size, or a latent, whatever its own code keeps.

    Windows are not pooled apart, and layers that read another one's keys have rows all the same.
    """
    latent = _first(layers, LatentAttention)
    heads = _first(layers, FullAttention) or _first(layers, *HEADS)
    if latent is None and heads is None:
        raise NotDescribed(
            f"engine sglang: no attention in {config.model_type}, and no states that SGLang has slots for"
        )
    one: Layer = latent.replace(window=None) if latent is not None else _as_full(heads)
    index = [[part for part in parts(layer) if isinstance(part, SparseIndexer)] for layer in layers]
    return tuple(_join([one, *found]) for found in index)


def _sliding(arch: str, layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Full and sliding layers, each kind of one size; layer_types says it too of layers that keep nothing of their own."""
    words = config.words("layer_types")
    narrow = _first(layers, SlidingAttention, ChunkedAttention)
    if narrow is None:
        if arch in SLIDING_IF_ANY:
            return _alike(layers, config)
        raise Refused("Hybrid SWA model must have at least one SWA layer")
    full = _as_full(_first(layers, FullAttention) or narrow)
    if arch not in OWN_SLIDING_SIZES:
        facts["stored_as_full"] = full
    facts["full"] = full
    facts["window"] = _window(config) if arch in WHOLE_WINDOW else narrow.window - 1
    if words is not None:
        slides = [word in ("sliding_attention", "chunked_attention") for word in words[: len(layers)]]
    else:
        slides = [_first((layer,), SlidingAttention, ChunkedAttention) is not None for layer in layers]
    facts["draft_sliding"] = sum(slides)
    return tuple(narrow if one else full for one in slides)


def _window(config: Config) -> int | None:
    """ModelConfig._get_sliding_window_size, else the chunk (resolve_sliding_window_size)."""
    for key in ("sliding_window_size", "sliding_window", "window_size", "attention_chunk_size"):
        if config.get(key) is not None:
            return config.count(key)
    return None


def _stateful(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Attention of one size and states, layer by layer; nothing in layers that have neither."""
    latent, heads = _first(layers, LatentAttention), _first(layers, *HEADS)

    def see(part: Layer) -> Layer:
        return latent if isinstance(part, LatentAttention) else _as_full(heads) if isinstance(part, HEADS) else part

    return tuple(_join([see(part) for part in parts(layer) if not isinstance(part, NoState)]) for layer in layers)


def _indexed(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Latents with index keys, except in layers that take over the choice of the one before (dsa_layer_skips_topk).

    Types whose class says which layers choose are read so already.
    """
    size = config.count("index_head_dim", 128)
    if size != 128:
        raise Refused(f"assert index_head_dim == 128 (DSATokenToKVPool), got {size}")
    facts["index_group"] = config.count("index_kpool", 1)
    facts["index_tail"] = config.flag("index_kpool_compress")
    facts["page_size"] = 64 * facts["index_group"]
    facts["sparse"] = True
    facts["sinks"] = config.flag("learnable_sink")

    def see(index: int, layer: Layer) -> Layer:
        found = _without(layer, SparseIndexer)
        if config.model_type in TOPK_BY_CLASS:
            own = found != layer
        else:
            own = _first((found,), LatentAttention) is not None and not _skips(index, config)
        return _join([*parts(found), SparseIndexer(head_dim=size)]) if own else found

    return tuple(see(index, layer) for index, layer in enumerate(layers))


def _skips(index: int, config: Config) -> bool:
    kinds = config.words("indexer_types")
    if kinds is not None:
        return index < len(kinds) and kinds[index] == "shared"
    every = config.count("cli_factor", 1)
    if every > 1:
        return index % every != 0
    pattern = config.get("index_topk_pattern")
    if pattern is not None:
        return index < len(pattern) and pattern[index] == "S"
    offset = config.count("index_skip_topk_offset", 2)
    return max(index - offset + 1, 0) % config.count("index_topk_freq", 1) != 0


# -- structures of their own ----------------------------------------------------------------------------------------


def _whisper(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Rows for encoder layers and twice for decoder layers: layer ids run over all of them."""
    one = _alike(layers, config)[0]
    return (one,) * (config.count("encoder_layers") + 2 * config.count("decoder_layers"))


def _lfm2(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    if _first(layers, ShortConv) is None:
        raise Refused("mamba2_cache_params is None: SGLang 0.5.23 does not start without a convolution layer")
    return _stateful(layers)


def _zaya(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Attention in the layers that zaya_layers calls "a", else in every second one; hidden states are whole on each rank."""
    heads = _first(layers, *HEADS)
    words = config.items("zaya_layers")
    count = len(words) if words else config.layers
    mixer = ShortConv(
        channels=(config.heads + config.kv_heads) * config.head_dim,
        conv_kernel=(columns := config.count("cca_time0", 2) + config.count("cca_time1", 2) - 2) + 1,
        columns=columns,
    )
    before = ShortConv(channels=config.hidden, conv_kernel=2, columns=1)
    facts["conv_heads"] = ((before, 1),)
    own = Parallel(parts=(_as_full(heads), mixer, before))
    kept = [word == "a" for word in words] if words else [index % 2 == 0 for index in range(count)]
    return tuple(own if one else NoState() for one in kept)


def _bailing(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Kimi Delta Attention where short_conv_kernel_size is there, else lightning attention; no rotary key under use_mla_nope."""
    seen = _stateful(layers)
    if not config.given("short_conv_kernel_size"):
        size = config.count("head_dim", config.hidden // config.heads)
        linear = LightningAttention(heads=config.heads, head_dim=size, v_head_dim=size)
        seen = tuple(linear if isinstance(layer, KimiDeltaAttention) else layer for layer in seen)
    if config.flag("use_mla_nope"):
        seen = tuple(layer.replace(rope_head_dim=0) if isinstance(layer, LatentAttention) else layer for layer in seen)
    return seen


def _inkling(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Sliding and full attention, and in every layer convolutions over keys and values of both kinds and two streams."""
    local = set(config.counts("local_layer_ids") or ())
    if not local:
        raise Refused("Hybrid SWA model must have at least one SWA layer")
    full = _as_full(_first(layers, FullAttention))
    narrow = _first(layers, SlidingAttention)
    kernel = config.count("sconv_kernel_size", 4)
    heads = {size: size.kv_heads for size in (full, narrow)}
    convolutions = {
        ShortConv(channels=size.kv_heads * size.head_dim, conv_kernel=kernel): count for size, count in heads.items()
    }
    stream = ShortConv(channels=config.hidden, conv_kernel=kernel)
    if stream in convolutions or len(convolutions) < 2:
        raise NotDescribed("engine sglang: an Inkling whose keys are as wide as another kind's or as its stream")
    facts["conv_heads"] = (*convolutions.items(), (stream, 1))
    facts["full"], facts["window"] = full, narrow.window - 1
    facts["undescribed_drafts"] = True
    facts["swa_full_tokens_ratio"] = facts["mamba_full_memory_ratio"] = 0.1
    beside = tuple(conv for conv in (*convolutions, stream) for _ in range(2))
    return tuple(Parallel(parts=(narrow if i in local else full, *beside)) for i in range(len(layers)))


def _qwen4(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Index keys are pooled by the compression ratio; the n-gram's token ids are kept once, and neither is split."""
    seen, ids = [], _first(layers, ShortConv)
    if config.get("indexer_n_heads") is not None:
        facts["index_ratio"] = config.count("indexer_compress_ratio")
    else:
        facts["page_size"] = 1
        layers = tuple(_without(layer, SparseIndexer) for layer in layers)
    if ids is not None:
        found = [part for layer in layers for part in parts(layer) if isinstance(part, ShortConv)]
        facts["beside"] = tuple(dict.fromkeys(found))
    once = False
    for layer in _stateful(layers):
        kept = [p for p in parts(layer) if not (once and isinstance(p, ShortConv) and p.dtype == "int64")]
        once = once or any(isinstance(p, ShortConv) and p.dtype == "int64" for p in kept)
        seen.append(_join(kept))
    return tuple(seen)


def _minimax_m3(layers: tuple[Layer, ...], config: Config, facts: dict[str, Any]) -> tuple[Layer, ...]:
    """Index keys in sparse layers, and index values where sparse_disable_index_value does not spare them."""
    section = config.section("sparse_attention_config")
    spared = (section.counts("sparse_disable_index_value") if section else None) or []

    def see(index: int, layer: Layer) -> Layer:
        if not any(isinstance(part, SparseIndexer) for part in parts(layer)):
            return layer
        keys_only = index < len(spared) and spared[index] != 0
        return _join(
            [
                p.replace(head_dim=p.head_dim * (1 if keys_only else 2)) if isinstance(p, SparseIndexer) else p
                for p in parts(layer)
            ]
        )

    return tuple(see(index, layer) for index, layer in enumerate(_alike(layers, config)))


OWN: Mapping[str, Callable[[tuple[Layer, ...], Config, dict[str, Any]], tuple[Layer, ...]]] = {
    "WhisperForConditionalGeneration": _whisper,
    "Lfm2ForCausalLM": _lfm2,
    "Lfm2MoeForCausalLM": _lfm2,
    "Lfm2VlForConditionalGeneration": _lfm2,
    "ZayaForCausalLM": _zaya,
    "BailingMoeV2_5ForCausalLM": _bailing,
    "BailingMoeV3ForCausalLM": _bailing,
    "BailingMoeV3VLForConditionalGeneration": _bailing,
    "InklingForConditionalGeneration": _inkling,
    "Qwen4ExpForConditionalGeneration": _qwen4,
    "MiniMaxM3SparseForCausalLM": _minimax_m3,
    "MiniMaxM3SparseForConditionalGeneration": _minimax_m3,
}
