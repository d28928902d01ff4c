"""Other states of constant size: lightning attention, short convolutions, RWKV, RG-LRU, mLSTM, and their hybrids."""

from __future__ import annotations

from ..layers import (
    RGLRU,
    RWKV,
    RWKV4,
    FullAttention,
    KimiDeltaAttention,
    LightningAttention,
    MatrixLSTM,
    Parallel,
    ShortConv,
    SlidingAttention,
)  # fmt: skip
from .latent import mla
from .reading import every, gqa, mha, read_layers, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer
    from .reading import Sizes


def lightning(config: Config) -> LightningAttention:
    size = config.head_dim
    return LightningAttention(heads=config.heads, head_dim=size, v_head_dim=size)


def minimax(config: Config) -> tuple[Layer, ...]:
    """Lightning and softmax attention in turn without layer_types, the softmax first."""
    pattern = every(2, "linear_attention", "full_attention")
    return read_layers(config, words_of(config, pattern), linear_attention=lightning)


def minimax_text_01(config: Config) -> tuple[Layer, ...]:
    """attn_type_list: 0 lightning, 1 softmax (MiniMax-Text-01, modeling_minimax_text_01.py)."""
    kinds = config.counts("attn_type_list")
    if kinds is None or len(kinds) != config.layers or not set(kinds) <= {0, 1}:
        config.bad("attn_type_list", kinds, f"{config.layers} times 0 (lightning) or 1 (softmax)")
    words = ["full_attention" if kind else "linear_attention" for kind in kinds]
    return read_layers(config, words, linear_attention=lightning)


def bailing_hybrid(config: Config) -> tuple[Layer, ...]:
    """The last of each layer_group_size layers is latent attention, the rest Kimi Delta Attention, or lightning attention in
    Ling and Ring 2.5, whose code is on the hub (vLLM 0.33.0 models/bailing_moe_linear.py, BailingMoeV2_5ForCausalLM)."""
    pattern = every(config.count("layer_group_size"), common="linear_attention")
    if "BailingMoeV2_5ForCausalLM" in config.architectures:
        return read_layers(config, words_of(config, pattern), full_attention=mla, linear_attention=lightning)
    # A saved config's head_dim is the rotary one; it then names the others linear_….
    delta = KimiDeltaAttention(
        heads=config.count("linear_num_heads", config.heads),
        head_dim=config.count("linear_head_dim", config.optional("head_dim")),
        conv_kernel=config.count("linear_conv_kernel_dim", config.optional("short_conv_kernel_size")),
    )
    return read_layers(config, words_of(config, pattern), full_attention=mla, linear_attention=lambda _: delta)


def short_conv(config: Config) -> ShortConv:
    return ShortConv(channels=config.hidden, conv_kernel=config.count("conv_L_cache"))


def lfm2(config: Config) -> tuple[Layer, ...]:
    """Short convolutions and full attention; full_attn_idxs names the latter where layer_types is missing."""

    def computed(count: int) -> list[str]:
        full = config.counts("full_attn_idxs")
        return ["full_attention" if full is None or index in full else "conv" for index in range(count)]

    return read_layers(config, words_of(config, computed), mha_kv, conv=short_conv)


def mha_kv(config: Config) -> Sizes:
    return {**mha(config), "kv_heads": config.kv_heads} if config.get("head_dim") is None else gqa(config)


def lfm3(config: Config) -> tuple[Layer, ...]:
    """Short convolutions, sliding and full attention in groups of four."""

    def computed(count: int) -> list[str]:
        return [
            "full_attention" if i % 4 == 2 else "sliding_attention" if i % 4 == 0 and i else "conv"
            for i in range(count)
        ]

    return read_layers(config, words_of(config, computed), conv=short_conv)


def inkling(config: Config) -> tuple[Layer, ...]:
    """Attention with four short fp32 convolutions beside it: over keys, values, and both residual streams."""

    def computed(count: int) -> list[str]:
        local = config.counts("local_layer_ids")
        if local is None:
            return every(6, "hybrid", "hybrid_sliding")(count)
        return ["hybrid_sliding" if index in local else "hybrid" for index in range(count)]

    def beside(attention: FullAttention | SlidingAttention, layer: Config) -> Layer:
        kernel, width = layer.count("conv_kernel_size"), attention.kv_heads * attention.head_dim
        parts = [
            ShortConv(channels=size, conv_kernel=kernel, dtype="float32")
            for size in (width, width, layer.hidden, layer.hidden)
        ]
        return Parallel(parts=(attention, *parts))

    def sizes(layer: Config, prefix: str = "") -> Sizes:
        if not prefix or layer.get("swa_num_key_value_heads") is None:
            return gqa(layer)
        size = layer.count("swa_head_dim", layer.head_dim)
        return {"kv_heads": layer.count("swa_num_key_value_heads"), "head_dim": size, "v_head_dim": size}

    def sliding(layer: Config) -> Layer:
        return beside(SlidingAttention(**sizes(layer, "swa_"), window=layer.count("sliding_window")), layer)

    return read_layers(
        config,
        words_of(config, computed),
        hybrid=lambda layer: beside(FullAttention(**gqa(layer)), layer),
        hybrid_sliding=sliding,
    )


def rwkv4(config: Config) -> tuple[Layer, ...]:
    """RWKV-4."""
    hidden = config.hidden
    return (RWKV4(hidden=hidden, attention_hidden=config.count("attention_hidden_size", hidden)),) * config.layers


def rwkv(config: Config) -> tuple[Layer, ...]:
    """RWKV-5, -6 and -7: square states, as many as fit the attention width."""
    width = "attention_hidden_size" if config.given("attention_hidden_size") else "hidden_size"
    key = next((key for key in ("head_size", "head_dim") if config.given(key)), None)
    # num_heads decides only without a head size: published configs keep a stale one beside it.
    size = config.count(key) if key else config.ratio(width, "num_heads")
    heads = config.ratio(width, key) if key else config.count("num_heads")
    return (RWKV(hidden=config.hidden, heads=heads, head_dim=size),) * config.layers


def recurrent_gemma(config: Config) -> tuple[Layer, ...]:
    """block_types repeated: RG-LRU blocks and sliding attention."""
    blocks = config.words("block_types") or []
    known = {"recurrent": "linear_attention", "attention": "sliding_attention"}
    if not blocks or not set(blocks) <= set(known):
        config.bad("block_types", blocks, 'a list of "recurrent" and "attention"')
    words = [known[blocks[index % len(blocks)]] for index in range(config.layers)]
    unit = RGLRU(width=config.count("lru_width", config.hidden), conv_kernel=config.count("conv1d_width"))
    window = config.count("attention_window_size")

    def sliding(layer: Config) -> Layer:
        return SlidingAttention(**gqa(layer), window=window)

    return read_layers(config, words, linear_attention=lambda _: unit, sliding_attention=sliding)


def xlstm(config: Config) -> tuple[Layer, ...]:
    """mLSTM blocks; query, key and value widths are factors of the width, rounded up to 64."""
    heads = config.count("num_heads")

    def size(factor: str) -> int:
        whole = -(-int(config.hidden * config.number(factor)) // 64) * 64
        return config.checked(factor, whole // heads)

    return (MatrixLSTM(heads=heads, qk_dim=size("qk_dim_factor"), v_dim=size("v_dim_factor")),) * config.layers


def zaya(config: Config) -> tuple[Layer, ...]:
    """Attention behind two short convolutions over queries and keys; half of each value comes from the token before."""

    def beside(attention: FullAttention | SlidingAttention, layer: Config) -> Layer:
        size = layer.head_dim
        channels = layer.checked(
            "(num_attention_heads + num_key_value_heads) * head_dim", (layer.heads + layer.kv_heads) * size
        )
        columns = layer.count("cca_time0") + layer.count("cca_time1") - 2
        mixer = ShortConv(channels=channels, conv_kernel=columns, columns=columns)
        delayed = ShortConv(channels=layer.kv_heads * size // 2, conv_kernel=2, columns=1)
        return Parallel(parts=(attention, mixer, delayed))

    return read_layers(
        config,
        words_of(config, lambda count: ["hybrid"] * count),
        hybrid=lambda layer: beside(FullAttention(**gqa(layer)), layer),
        hybrid_sliding=lambda layer: beside(
            SlidingAttention(**gqa(layer), window=layer.count("sliding_window")), layer
        ),
    )
