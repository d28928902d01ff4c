"""Attention over compressed entries (DeepSeek-V4)."""

from __future__ import annotations

from ..base import NotDescribed
from ..config import MAX_LAYERS
from ..layers import CompressedAttention, SlidingAttention
from .reading import words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer

SPARSE, HEAVY = "compressed_sparse_attention", "heavily_compressed_attention"
# compress_ratios of published configs (configuration_deepseek_v4.py, _COMPRESS_RATIO_TO_LAYER_TYPE).
RATIO_WORDS = {0: "sliding_attention", 4: SPARSE, 128: HEAVY}


def deepseek_v4(config: Config) -> tuple[Layer, ...]:
    """A window of keys and values that all heads share in every layer, beside it sparse (ratio 4) or heavily (128)
    compressed entries; num_key_value_heads says nothing (DeepseekV4Attention has one head)."""
    count = config.layers
    words = config.words("layer_types")
    ratios = config.counts("compress_ratios")
    if words is None and ratios is not None:
        for ratio in ratios:
            if ratio not in RATIO_WORDS:
                config.bad("compress_ratios", ratio, "0, 4 or 128 per layer")
        words = [RATIO_WORDS[ratio] for ratio in ratios]
    if words is None:
        words = [HEAVY] * min(count, 2) + [SPARSE if index % 2 else HEAVY for index in range(max(count - 2, 0))]
    # Published lists go on with the prediction layers after the last.
    words = words_of(config.overlaid({"layer_types": words[:count]}))
    rates = config.section("compress_rates")

    def rate(word: str, legacy: str, default: int) -> int:
        if config.given(legacy):
            return config.count(legacy)
        return rates.count(word) if rates else default

    ratio_of = {SPARSE: rate(SPARSE, "compress_rate_csa", 4), HEAVY: rate(HEAVY, "compress_rate_hca", 128)}
    size, window = config.count("head_dim"), config.count("sliding_window")

    def read(word: str) -> Layer:
        if word == "sliding_attention":
            return SlidingAttention(kv_heads=1, head_dim=size, v_head_dim=size, window=window)
        if word not in ratio_of:
            config.bad("layer_types", word, f"sliding_attention, {SPARSE} or {HEAVY}")
        sparse = word == SPARSE
        return CompressedAttention(
            head_dim=size,
            window=window,
            ratio=ratio_of[word],
            overlap=sparse,
            index_head_dim=config.count("index_head_dim") if sparse else 0,
        )

    return tuple(read(word) for word in words)


def deepseek_v41(config: Config) -> tuple[Layer, ...]:
    """A window in each layer, compressed entries where kv_source_layer_ids says so, which the layers after it read; index
    keys where index_source_layer_ids names the same layer (deepseek_v41.py of mlx-lm 0.32.2). Keys are the values."""
    if config.get("engram_layer_ids"):
        raise NotDescribed("deepseek_v41 with engram_layer_ids is not described; without it, it is")
    ratios = config.counts("compress_ratios") or []
    sources, indexers = (set(config.counts(key) or ()) for key in ("kv_source_layer_ids", "index_source_layer_ids"))
    size, window = config.count("head_dim", 512), config.count("sliding_window", 128)
    sliding = SlidingAttention(kv_heads=1, head_dim=size, v_head_dim=0, window=window)

    def read(index: int) -> Layer:
        ratio = ratios[index] if index < len(ratios) and index in sources else 0
        if not ratio:
            return sliding
        index_dim = config.count("index_head_dim", 128) if index in indexers else 0
        return CompressedAttention(head_dim=size, window=window, ratio=ratio, index_head_dim=index_dim)

    return tuple(read(index) for index in range(config.count("num_hidden_layers", 40, most=MAX_LAYERS)))
