"""Gated DeltaNet and Kimi Delta Attention, and their hybrids with softmax or latent attention."""

from __future__ import annotations

from ..layers import FullAttention, GatedDeltaNet, KimiDeltaAttention, Parallel, ShortConv, SparseIndexer
from .latent import indexer_types, mla
from .reading import every, gqa, read_layers, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def gated_delta(config: Config) -> GatedDeltaNet:
    return GatedDeltaNet(
        key_heads=config.count("linear_num_key_heads"),
        value_heads=config.count("linear_num_value_heads"),
        key_dim=config.count("linear_key_head_dim"),
        value_dim=config.count("linear_value_head_dim"),
        conv_kernel=config.count("linear_conv_kernel_dim"),
    )


def gated_delta_hybrid(config: Config) -> tuple[Layer, ...]:
    """Every full_attention_interval-th (4) layer is full attention, the rest Gated DeltaNet."""
    pattern = every(config.count("full_attention_interval", 4), common="linear_attention")
    return read_layers(config, words_of(config, pattern), linear_attention=gated_delta)


def olmo_hybrid(config: Config) -> tuple[Layer, ...]:
    """Three Gated DeltaNet layers, then full attention; at least the last layer is full. Head sizes follow the hidden size."""
    heads = config.heads
    key_heads = config.count("linear_num_key_heads", heads)
    key_dim = config.optional("linear_key_head_dim")
    if key_dim is None:
        key_dim = config.checked("0.75 * hidden_size / linear_num_key_heads", int(0.75 * config.hidden / key_heads))
    layer = GatedDeltaNet(
        key_heads=key_heads,
        value_heads=config.count("linear_num_value_heads", heads),
        key_dim=key_dim,
        value_dim=config.count("linear_value_head_dim", 2 * key_dim),
        conv_kernel=config.count("linear_conv_kernel_dim"),
    )

    def computed(count: int) -> list[str]:
        words = every(4, common="linear_attention")(count)
        return words if "full_attention" in words else [*words[:-1], "full_attention"]

    return read_layers(config, words_of(config, computed), linear_attention=lambda _: layer)


def qwen4_exp(config: Config) -> tuple[Layer, ...]:
    """Gated DeltaNet and indexed attention; layers in ple_layer_ids (from 1) also keep an n-gram convolution and its token ids."""
    pattern = every(config.count("full_attention_interval", 4), "indexed_attention", "linear_attention")
    words = ["indexed_attention" if word == "full_attention" else word for word in words_of(config, pattern)]
    ngram_layers = set(config.counts("ple_layer_ids", least=1) or ())
    words = ["ngram" if index + 1 in ngram_layers else word for index, word in enumerate(words)]

    def ngram(layer: Config) -> Layer:
        size = layer.count("ngram_size", least=2)
        channels = layer.product("hc_count", "hidden_size")
        columns = (layer.count("ple_conv_kernel_size", least=2) - 1) * size
        convolution = ShortConv(channels=channels, conv_kernel=columns, columns=columns)
        tokens = ShortConv(channels=1, conv_kernel=size, columns=size - 1, dtype="int64")
        return Parallel(parts=(gated_delta(layer), convolution, tokens))

    def indexed(layer: Config, position_dims: int = 0) -> Layer:
        index = layer.optional("indexer_head_dim")
        attention = FullAttention(**gqa(layer))
        if index is None:
            return attention
        return Parallel(parts=(attention, SparseIndexer(head_dim=index, position_dims=position_dims)))

    # All indexers share the positions, which the first of them keeps (forward of Qwen4ExpTextModel).
    if "indexed_attention" in words:
        words[words.index("indexed_attention")] = "first_indexed"
    return read_layers(
        config,
        words,
        linear_attention=gated_delta,
        indexed_attention=indexed,
        first_indexed=lambda layer: indexed(layer, 3),
        ngram=ngram,
    )


def kimi_delta(config: Config) -> KimiDeltaAttention:
    """Sizes from linear_attn_config, as checkpoints have it, else from the class's own keys."""
    section = config.section("linear_attn_config")

    def size(inner: str, outer: str) -> int:
        given = section.optional(inner) if section else None
        return config.count(outer) if given is None else given

    return KimiDeltaAttention(
        heads=size("num_heads", "linear_num_heads"),
        head_dim=size("head_dim", "linear_head_dim"),
        conv_kernel=size("short_conv_kernel_size", "linear_conv_kernel_dim"),
    )


def kimi_linear(config: Config) -> tuple[Layer, ...]:
    """Kimi Delta Attention and latent attention; the checkpoint lists both kinds of layers, counted from 1."""
    section = config.section("linear_attn_config")

    def computed(count: int) -> list[str]:
        full = section.counts("full_attn_layers", least=1) if section else None
        delta = section.counts("kda_layers", least=1) if section else None
        if full is None or delta is None:
            return ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(count)]
        words = [""] * count
        for numbers, word in ((full, "full_attention"), (delta, "linear_attention")):
            for number in numbers:
                if number <= count:
                    words[number - 1] = word
        if "" in words:
            config.bad(
                "linear_attn_config",
                section.data if section else None,
                f"full_attn_layers and kda_layers that name all {count} layers",
            )
        return words

    return read_layers(config, words_of(config, computed), full_attention=mla, linear_attention=kimi_delta)


def glm5_next(config: Config) -> tuple[Layer, ...]:
    """Three Kimi Delta layers, then latent attention with an indexer that keeps keys, gates and a validity channel."""
    pattern = every(4, "indexed_attention", "linear_attention")
    words = ["indexed_attention" if word == "full_attention" else word for word in words_of(config, pattern)]
    kinds = indexer_types(config)
    words = ["shared" if w == "indexed_attention" and k == "shared" else w for w, k in zip(words, kinds, strict=True)]

    def indexed(layer: Config) -> Layer:
        # packed_states = key, gate, one channel (modeling_glm5_next.py, Glm5NextTextIndexer.forward).
        return Parallel(parts=(mla(layer), SparseIndexer(head_dim=2 * layer.count("index_head_dim") + 1)))

    return read_layers(config, words, indexed_attention=indexed, shared=mla, linear_attention=kimi_delta)
