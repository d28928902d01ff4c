"""Attention over compressed entries (DeepSeek-V4)."""

from __future__ import annotations

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
