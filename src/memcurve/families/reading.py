"""How a config's words for its layers become layers."""

from __future__ import annotations

from ..base import NotDescribed, nearest, show
from ..layers import ChunkedAttention, FullAttention, NoState, SlidingAttention

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias, TypedDict

    from ..config import Config
    from ..layers import Layer

    Reader: TypeAlias = Callable[[Config], Layer]

    class Sizes(TypedDict):
        """What every kind of softmax attention is made of."""

        kv_heads: int
        head_dim: int
        v_head_dim: int


# Old words of published configs for the words of Transformers 5.23 (configuration_utils.py, _LEGACY_LAYER_TYPE_REMAP).
OLD_WORDS = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
    "qwen_sparse_attention": "indexed_attention",
}


def gqa(config: Config) -> Sizes:
    """Sizes of grouped-query attention: num_key_value_heads (heads where absent), head_dim (hidden // heads where absent)."""
    return {"kv_heads": config.kv_heads, "head_dim": config.head_dim, "v_head_dim": config.head_dim}


def mha(config: Config) -> Sizes:
    """Sizes of attention whose class has neither key: every head, hidden // heads."""
    size = config.ratio("hidden_size", "num_attention_heads")
    return {"kv_heads": config.heads, "head_dim": size, "v_head_dim": size}


def gqa_split(config: Config) -> Sizes:
    """As gqa, with head_dim always hidden // heads, whatever the config says."""
    return {**mha(config), "kv_heads": config.kv_heads}


def words_of(config: Config, computed: Callable[[int], list[str]] | None = None) -> list[str]:
    """One word per layer: `layer_types` as given, else as the class computes it, else what the windows say.

    Source: transformers 5.23.0 cache_utils.py, get_layer_types_and_kwargs.
    """
    count = config.layers
    words = config.words("layer_types")
    if words is None and computed is not None:
        words = computed(count)
    if words is None:
        words = []
        for index in range(count):
            layer = config.layer(index)
            sliding, chunked = layer.get("sliding_window"), layer.get("attention_chunk_size")
            words.append(
                "sliding_attention"
                if sliding is not None
                else "chunked_attention"
                if chunked is not None
                else "full_attention"
            )
    if len(words) != count:
        config.bad("layer_types", f"{len(words)} entries", f"one per layer, num_hidden_layers = {count}")
    return [OLD_WORDS.get(word, word) for word in words]


def read_layers(
    config: Config, words: list[str], sizes: Callable[[Config], Sizes] = gqa, **readers: Reader
) -> tuple[Layer, ...]:
    """One layer per word. `readers` are a structure's own; the attention words have one meaning for all."""

    def read(index: int, word: str) -> Layer:
        layer = config.layer(index)
        if word in readers:
            return readers[word](layer)
        if word == "full_attention":
            return FullAttention(**sizes(layer))
        if word == "sliding_attention":
            return SlidingAttention(**sizes(layer), window=layer.count("sliding_window"))
        if word == "chunked_attention":
            return ChunkedAttention(**sizes(layer), chunk=layer.count("attention_chunk_size"))
        if word in ("moe", "mlp"):
            return NoState(why=f"{word} layer")
        known = sorted({"full_attention", "sliding_attention", "chunked_attention", "moe", "mlp", *readers})
        hint = nearest(word, known, 1)
        raise NotDescribed(
            f"{config.path}layer_types[{index}]: {show(word)} is not described for {config.model_type}; "
            f"expected one of {', '.join(known)}" + (f" (nearest: {hint})" if hint else "")
        )

    # Equal layers are read once: most models repeat a few words, unless the config overrides single layers.
    if config.per_layer is None:
        found: dict[str, Layer] = {}
        for index, word in enumerate(words):
            if word not in found:
                found[word] = read(index, word)
        return tuple(found[word] for word in words)
    return tuple(read(index, word) for index, word in enumerate(words))


def every(nth: int, rare: str = "full_attention", common: str = "sliding_attention") -> Callable[[int], list[str]]:
    """Every nth layer is of the rare kind: common, …, common, rare, repeated."""
    return lambda count: [rare if (index + 1) % nth == 0 else common for index in range(count)]


def share_last(layers: tuple[Layer, ...], shared: int) -> tuple[Layer, ...]:
    """The last `shared` layers read the keys and values of earlier ones."""
    return (
        layers[: len(layers) - shared] + (NoState(why="reads another layer's keys and values"),) * shared
        if shared
        else layers
    )


def rope_layers(config: Config, interval: int | None = None) -> list[int]:
    """1 per layer with rotary positions: no_rope_layers as given, else by interval."""
    count = config.layers
    given = config.counts("no_rope_layers")
    if not given:
        nth = config.count("no_rope_layer_interval", interval)
        return [int((index + 1) % nth != 0) for index in range(count)]
    if len(given) < count:
        config.bad("no_rope_layers", f"{len(given)} entries", f"one per layer, num_hidden_layers = {count}")
    return given[:count]
