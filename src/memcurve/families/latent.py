"""Multi-head latent attention, plain and with a sparse indexer."""

from __future__ import annotations

from ..layers import FullAttention, LatentAttention, NoState, Parallel, ShortConv, SparseIndexer
from .reading import gqa, read_layers, rope_layers, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def mla(config: Config, window: int | None = None) -> LatentAttention:
    """The compressed latent and the shared rotary key of one layer."""
    rope = config.count("qk_rope_head_dim", least=0)
    return LatentAttention(kv_lora_rank=config.count("kv_lora_rank"), rope_head_dim=rope, window=window)


def latent(config: Config) -> tuple[Layer, ...]:
    """Every layer keeps the compressed latent, not expanded keys and values.

    Without query parts of either sort it is plain attention under the same name (DeepSeek-VL2-Tiny; vLLM 0.33.0,
    deepseek_v2.py, use_mha).
    """
    plain = config.get("qk_nope_head_dim") == 0 and config.get("qk_rope_head_dim") == 0
    return read_layers(
        config, words_of(config), full_attention=_heads if plain else mla, sliding_attention=_sliding_mla
    )


def _heads(layer: Config) -> Layer:
    size = layer.ratio("hidden_size", "num_attention_heads")
    return FullAttention(kv_heads=layer.kv_heads, head_dim=size, v_head_dim=size)


def _sliding_mla(layer: Config) -> Layer:
    return mla(layer, layer.count("sliding_window"))


def longcat_flash(config: Config) -> tuple[Layer, ...]:
    """Two attentions per layer, each with its own latent; n-gram embeddings keep the last token ids (longcat_flash_ngram.py of
    mlx-lm 0.32.2)."""
    layers = (mla(config),) * (2 * config.count("num_layers", most=5000))
    if config.model_type == "longcat_flash":
        return layers
    return (ShortConv(channels=1, conv_kernel=config.count("emb_neighbor_num", 4, least=2), dtype="int64"), *layers)


def indexed(layer: Config) -> Layer:
    return Parallel(parts=(mla(layer), SparseIndexer(head_dim=layer.count("index_head_dim"))))


def sparse_latent(config: Config) -> tuple[Layer, ...]:
    """Latent attention whose every layer keeps index keys."""
    words = words_of(config, lambda count: ["indexed_attention"] * count)
    return read_layers(config, words, full_attention=mla, indexed_attention=indexed)


def indexer_types(config: Config, default: list[str] | None = None) -> list[str]:
    """Which layers have an indexer of their own ("full") and which use the one before ("shared").

    indexer_types as given; else index_topk_pattern such as "FSSF"; else every index_topk_freq-th (1) from
    index_skip_topk_offset (2) on. Source: transformers 5.23.0 configuration_glm_moe_dsa.py.
    """
    count = config.layers
    kinds = config.words("indexer_types")
    if kinds is None and default is not None:
        kinds = default
    if kinds is None:
        pattern = config.get("index_topk_pattern")
        if isinstance(pattern, str):
            kinds = [{"F": "full", "S": "shared"}.get(letter, letter) for letter in pattern]
        elif pattern is not None:
            kinds = config.words("index_topk_pattern")
    if kinds is None:
        nth = max(config.count("index_topk_freq", 1, least=0), 1)
        offset = config.count("index_skip_topk_offset", 2, least=0)
        kinds = ["full" if max(index - offset + 1, 0) % nth == 0 else "shared" for index in range(count)]
    if len(kinds) < count or not set(kinds) <= {"full", "shared"}:
        config.bad("indexer_types", f"{len(kinds)} entries", f'{count} times "full" or "shared"')
    return kinds[:count]


def shared_indexer(config: Config) -> tuple[Layer, ...]:
    """As sparse_latent, but some layers take over the indexer of the layer before."""
    default = None
    if config.model_type == "hy_v4":
        default = ["full" if index == 0 or (index - 1) % 4 == 0 else "shared" for index in range(config.layers)]
    words = words_of(config, lambda count: ["indexed_attention"] * count)
    kinds = indexer_types(config, default)
    words = [
        "shared_indexer" if w == "indexed_attention" and k == "shared" else w for w, k in zip(words, kinds, strict=True)
    ]
    return read_layers(config, words, full_attention=mla, indexed_attention=indexed, shared_indexer=mla)


def mistral_large4(config: Config) -> tuple[Layer, ...]:
    """As shared_indexer; kv_source_layers names the layer whose latent each layer reads, and every fourth has no rotary key."""
    words = words_of(config, lambda count: ["indexed_attention"] * count)
    sources = config.counts("kv_source_layers") or list(range(config.layers))
    if len(sources) != config.layers:
        config.bad("kv_source_layers", f"{len(sources)} entries", f"one per layer, num_hidden_layers = {config.layers}")
    kinds = indexer_types(config)
    rotary = rope_layers(config, 4)

    def read(index: int, word: str) -> Layer:
        own = (
            mla(config)
            if rotary[index]
            else LatentAttention(kv_lora_rank=config.count("kv_lora_rank"), rope_head_dim=0)
        )
        parts: list[Layer] = [] if sources[index] != index else [own]
        if word == "indexed_attention" and kinds[index] == "full":
            parts.append(SparseIndexer(head_dim=config.count("index_head_dim")))
        if not parts:
            return NoState(why="reads another layer's latent")
        return parts[0] if len(parts) == 1 else Parallel(parts=tuple(parts))

    return tuple(read(index, word) for index, word in enumerate(words))


def dots3_note(config: Config) -> tuple[Layer, ...]:
    """Indexed latent layers and sliding latent layers with sizes of their own (swa_…)."""
    slides = config.flag("use_sliding_window", True)
    sparse = config.get("use_dsa")
    if sparse is None and config.per_layer is None:
        sparse = True
    own = "full_attention" if sparse is False else "indexed_attention"

    def computed(count: int) -> list[str]:
        return [own if not slides or i < 2 or i % 4 == 1 else "sliding_attention" for i in range(count)]

    words = words_of(config, computed)
    if sparse is not None:
        words = [own if word in ("full_attention", "indexed_attention") else word for word in words]
    window = config.count("sliding_window", config.optional("sliding_window_size") or 512)

    def sparse_layer(layer: Config) -> Layer:
        # The index keys stay in the fp32 of their norm (modeling_dots3_note.py, Dots3NoteIndexer).
        return Parallel(parts=(mla(layer), SparseIndexer(head_dim=layer.count("index_head_dim"), dtype="float32")))

    def sliding(layer: Config) -> Layer:
        if config.per_layer is not None:
            return mla(layer, window)
        rope = layer.optional("swa_qk_rope_head_dim", least=0)
        if rope is None:
            head = layer.count("swa_head_dim", 256) - layer.count("swa_qk_nope_head_dim", 192)
            rope = layer.checked("swa_head_dim - swa_qk_nope_head_dim", head, least=0)
        return LatentAttention(
            kv_lora_rank=layer.count("swa_kv_lora_rank", 1024),
            rope_head_dim=rope,
            window=window,
        )

    return read_layers(config, words, full_attention=mla, indexed_attention=sparse_layer, sliding_attention=sliding)


def minimax_m3(config: Config) -> tuple[Layer, ...]:
    """Grouped-query attention; sparse layers keep index keys of one head."""
    section = config.section("sparse_attention_config")
    dim = section.optional("sparse_index_dim") if section else None

    def sparse(layer: Config) -> Layer:
        return Parallel(
            parts=(FullAttention(**gqa(layer)), SparseIndexer(head_dim=dim or layer.count("index_head_dim")))
        )

    def computed(count: int) -> list[str]:
        pattern = section.counts("sparse_attention_freq") if section else None
        return (
            ["full_attention"] * count
            if pattern is None
            else ["minimax_m3_sparse" if on else "full_attention" for on in pattern]
        )

    return read_layers(config, words_of(config, computed), minimax_m3_sparse=sparse)
