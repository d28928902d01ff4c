"""Decoders that also attend over an encoder's output or over image features."""

from __future__ import annotations

from ..layers import CrossAttention, FullAttention, Parallel
from .reading import every, gqa, gqa_split, mha, read_layers, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer
    from .reading import Sizes


def with_cross(layers: tuple[Layer, ...], sizes: Sizes) -> tuple[Layer, ...]:
    """Each layer beside cross-attention."""
    cross = CrossAttention(**sizes)
    return tuple(Parallel(parts=(own, cross)) for own in layers)


def cross_decoder(config: Config) -> tuple[Layer, ...]:
    """Multi-head self-attention as in every_head, each layer beside cross-attention. Musicgen Melody has the encoder's
    states before its tokens instead: as many keys and values, in the same layers."""
    return with_cross(read_layers(config, words_of(config), mha), mha(config))


def t5gemma2(config: Config) -> tuple[Layer, ...]:
    """Every sliding_window_pattern-th (6) layer is full; attention over the encoder is merged in, its keys kept apart."""
    return with_cross(
        read_layers(config, words_of(config, every(config.count("sliding_window_pattern", 6)))), gqa(config)
    )


def moonshine(config: Config) -> tuple[Layer, ...]:
    """Grouped-query self- and cross-attention, with the encoder's heads: its layers are built first and write their numbers
    into the shared config (MoonshineAttention.__init__, modeling_moonshine.py)."""
    heads = config.count("encoder_num_attention_heads")
    config = config.overlaid({"num_attention_heads": heads, "num_key_value_heads": heads})
    return grouped(config)


def grouped(config: Config) -> tuple[Layer, ...]:
    """Grouped-query self- and cross-attention of the same sizes."""
    return with_cross((FullAttention(**gqa(config)),) * config.layers, gqa(config))


def _with_cross(count: int, heads: int, size: int) -> tuple[Layer, ...]:
    own = FullAttention(kv_heads=heads, head_dim=size, v_head_dim=size)
    cross = CrossAttention(kv_heads=heads, head_dim=size, v_head_dim=size)
    return (Parallel(parts=(own, cross)),) * count


def bart(config: Config) -> tuple[Layer, ...]:
    """decoder_layers layers, each with self- and cross-attention over decoder_attention_heads heads."""
    heads, size = config.count("decoder_attention_heads"), config.ratio("hidden_size", "decoder_attention_heads")
    return _with_cross(config.count("decoder_layers", most=10_000), heads, size)


def t5(config: Config) -> tuple[Layer, ...]:
    """num_decoder_layers layers (num_layers where absent), heads of d_kv, whatever d_model is."""
    # The class takes num_layers over before it reads num_layers' other name, num_hidden_layers.
    count = config.count("num_decoder_layers", config.own("num_layers"), most=10_000)
    return _with_cross(count, config.count("num_heads"), config.count("d_kv"))


def t5gemma(config: Config) -> tuple[Layer, ...]:
    """Sliding and full self-attention in turn, each beside cross-attention."""
    return with_cross(read_layers(config, words_of(config, every(2))), gqa(config))


def grouped_cross(config: Config) -> tuple[Layer, ...]:
    """Grouped-query self-attention beside cross-attention (cross_… sizes where the class has them)."""
    own = FullAttention(**gqa(config))
    size = config.count("cross_head_dim", config.head_dim)
    cross = CrossAttention(
        kv_heads=config.count("cross_num_key_value_heads", config.kv_heads), head_dim=size, v_head_dim=size
    )
    return (Parallel(parts=(own, cross)),) * config.layers


def prophetnet(config: Config) -> tuple[Layer, ...]:
    """num_decoder_layers layers of num_decoder_attention_heads heads; the n-gram streams read the same keys."""
    heads, size = (
        config.count("num_decoder_attention_heads"),
        config.ratio("hidden_size", "num_decoder_attention_heads"),
    )
    return _with_cross(config.count("num_decoder_layers", most=10_000), heads, size)


def mllama(config: Config) -> tuple[Layer, ...]:
    """Self-attention, and in cross_attention_layers instead attention over the image's tokens (encoder_context)."""
    cross = set(config.counts("cross_attention_layers") or [3, 8, 13, 18, 23, 28, 33, 38])
    own, other = FullAttention(**gqa(config)), CrossAttention(**gqa(config))
    return tuple(other if index in cross else own for index in range(config.layers))


def blt(config: Config) -> tuple[Layer, ...]:
    """Bytes in, bytes out: the local encoder's and the local decoder's layers keep one entry per byte; the global transformer
    between them reads all patches again and keeps none, nor does its cross-attention (modeling_blt.py, BltModel.forward).

    Both caches follow the config's own sliding_window and layer count, not local_attention_window_len.
    """
    found: list[Layer] = []
    for key in ("encoder_config", "decoder_config"):
        part = config.part(key, f"blt_local_{key.removesuffix('_config')}")
        count = config.count("num_hidden_layers", part.layers, least=part.layers)
        words = words_of(config.overlaid({"num_hidden_layers": count}))[: part.layers]
        found += read_layers(part.overlaid({"sliding_window": config.get("sliding_window")}), words, gqa_split)
    return tuple(found)
