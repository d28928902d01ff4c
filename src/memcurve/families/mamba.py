"""Mamba and Mamba-2, alone and in hybrids."""

from __future__ import annotations

from ..layers import FullAttention, Mamba, Mamba2, Parallel
from .reading import OLD_WORDS, gqa, read_layers, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def mamba(config: Config) -> tuple[Layer, ...]:
    """Mamba only: intermediate_size where the config gives it (Falcon-Mamba-7B: 8,192 beside expand 16), else expand · hidden_size."""
    given = config.given("intermediate_size")
    inner = config.count("intermediate_size") if given else config.product("expand", "hidden_size")
    layer = Mamba(intermediate=inner, state_size=config.count("state_size"), conv_kernel=config.count("conv_kernel"))
    return (layer,) * config.layers


def mamba2(config: Config) -> tuple[Layer, ...]:
    """Mamba-2 only."""
    layer = Mamba2(
        heads=config.count("num_heads"),
        head_dim=config.count("head_dim"),
        state_size=config.count("state_size"),
        groups=config.count("n_groups"),
        intermediate=config.product("expand", "hidden_size"),
        conv_kernel=config.count("conv_kernel"),
    )
    return (layer,) * config.layers


def mamba_ssm(config: Config) -> tuple[Layer, ...]:
    """The form of state-spaces/mamba (mamba_ssm/models/config_mamba.py): ssm_cfg.layer says which Mamba, and may set its sizes."""
    width, section = config.count("d_model"), config.section("ssm_cfg")
    if section is None:
        config.bad("ssm_cfg", None, "an object")
    if config.counts("attn_layer_idx"):
        config.bad(
            "attn_layer_idx",
            config.get("attn_layer_idx"),
            "no attention layers; a hybrid of this form is not described",
        )
    inner = section.count("expand", 2) * width
    kind = section.word("layer", "Mamba1")
    kernel = section.count("d_conv", 4)
    layer: Layer
    if kind == "Mamba1":
        layer = Mamba(intermediate=inner, state_size=section.count("d_state", 16), conv_kernel=kernel)
    elif kind == "Mamba2":
        size = section.count("headdim", 64)
        layer = Mamba2(
            heads=config.checked("expand * d_model // headdim", inner // size),
            head_dim=size,
            state_size=section.count("d_state", 128),
            groups=section.count("ngroups", 1),
            intermediate=inner,
            conv_kernel=kernel,
        )
    else:
        section.bad("layer", kind, '"Mamba1" or "Mamba2"')
    return (layer,) * config.count("n_layer", most=10_000)


def jamba(config: Config) -> tuple[Layer, ...]:
    """One attention layer per attn_layer_period, at attn_layer_offset; Mamba elsewhere."""
    period, offset = config.count("attn_layer_period"), config.count("attn_layer_offset", least=0)
    words = ["full_attention" if i % period == offset else "linear_attention" for i in range(config.layers)]
    layer = Mamba(
        intermediate=config.product("mamba_expand", "hidden_size"),
        state_size=config.count("mamba_d_state"),
        conv_kernel=config.count("mamba_d_conv"),
    )
    return read_layers(config, words, linear_attention=lambda _: layer)


def mamba2_of(config: Config, inner: int) -> Mamba2:
    """Mamba-2 as Bamba, Falcon-H1 and Granite 4 name its sizes; mamba_d_head "auto" is inner // heads."""
    heads = config.count("mamba_n_heads")
    head_dim = inner // heads if config.get("mamba_d_head") in ("auto", None) else config.count("mamba_d_head")
    return Mamba2(
        heads=heads,
        head_dim=config.checked("mamba_d_head", head_dim),
        state_size=config.count("mamba_d_state"),
        groups=config.count("mamba_n_groups"),
        intermediate=inner,
        conv_kernel=config.count("mamba_d_conv"),
    )


def bamba(config: Config) -> tuple[Layer, ...]:
    """Attention at attn_layer_indices, Mamba-2 elsewhere."""
    attention = set(config.counts("attn_layer_indices") or ())
    words = ["full_attention" if index in attention else "linear_attention" for index in range(config.layers)]
    layer = mamba2_of(config, config.product("mamba_expand", "hidden_size"))
    return read_layers(config, words, linear_attention=lambda _: layer)


def granite_hybrid(config: Config) -> tuple[Layer, ...]:
    """layer_types names each layer; all Mamba-2 without it."""
    words = words_of(config, lambda count: ["linear_attention"] * count)
    return read_layers(
        config, words, linear_attention=lambda layer: mamba2_of(layer, layer.product("mamba_expand", "hidden_size"))
    )


def falcon_h1(config: Config) -> tuple[Layer, ...]:
    """Every layer runs attention and Mamba-2 side by side."""
    inner = (
        config.product("mamba_expand", "hidden_size")
        if config.get("mamba_d_ssm") is None
        else config.count("mamba_d_ssm")
    )
    layer = Parallel(parts=(FullAttention(**gqa(config)), mamba2_of(config, inner)))
    return (layer,) * config.layers


# Letters of hybrid_override_pattern (configuration_nemotron_h.py, _pattern_to_list).
NEMOTRON_LETTERS = {"M": "linear_attention", "*": "full_attention", "E": "moe", "-": "mlp"}


def nemotron_h(config: Config) -> tuple[Layer, ...]:
    """layers_block_type, or hybrid_override_pattern: M Mamba-2, * attention, E experts, - MLP. Its length is the layer count."""
    words = config.words("layers_block_type")
    if words is None:
        pattern = config.word("hybrid_override_pattern", "ME*-")
        for letter in pattern[:10_000]:
            if letter not in NEMOTRON_LETTERS:
                config.bad("hybrid_override_pattern", letter, "only the letters M, *, E and -")
        words = [NEMOTRON_LETTERS[letter] for letter in pattern[:10_000]]
    heads, head_dim = config.count("mamba_num_heads"), config.count("mamba_head_dim")
    layer = Mamba2(
        heads=heads,
        head_dim=head_dim,
        state_size=config.count("ssm_state_size"),
        groups=_first(config, "mamba_n_groups", "n_groups"),
        intermediate=config.product("mamba_num_heads", "mamba_head_dim"),
        conv_kernel=_first(config, "mamba_d_conv", "conv_kernel"),
    )
    words = [OLD_WORDS.get(word, word) for word in words]
    return read_layers(config, words, linear_attention=lambda _: layer)


def _first(config: Config, *keys: str) -> int:
    return config.count(next((key for key in keys if config.given(key)), keys[-1]))


def zamba(config: Config) -> tuple[Layer, ...]:
    """Mamba in several heads; hybrid layers add shared attention over twice the width, each with keys and values of its own."""
    period, offset = config.count("attn_layer_period"), config.count("attn_layer_offset", least=0)

    def computed(count: int) -> list[str]:
        rest = ["hybrid" if i % period == offset else "linear_attention" for i in range(max(count - 3, 0))]
        return [*["linear_attention", "linear_attention", "hybrid"][:count], *rest]

    inner = config.product("mamba_expand", "hidden_size")
    layer = Mamba(
        intermediate=inner, state_size=config.count("mamba_d_state"), conv_kernel=config.count("mamba_d_conv")
    )
    return _zamba(config, words_of(config, computed), layer)


def zamba2(config: Config) -> tuple[Layer, ...]:
    """Mamba-2; hybrid layers add shared attention over twice the width."""

    def computed(count: int) -> list[str]:
        m, h = ["linear_attention"], ["hybrid"]
        return m + (m * 5 + h) * 7 + m * 4 + h + m * 3 + h + m * 2

    inner = config.product("mamba_expand", "hidden_size")
    heads = config.count("n_mamba_heads")
    layer = Mamba2(
        heads=heads,
        head_dim=config.checked("mamba_expand * hidden_size // n_mamba_heads", inner // heads),
        state_size=config.count("mamba_d_state"),
        groups=config.count("mamba_ngroups"),
        intermediate=inner,
        conv_kernel=config.count("mamba_d_conv"),
    )
    return _zamba(config, words_of(config, computed), layer)


def _zamba(config: Config, words: list[str], layer: Layer) -> tuple[Layer, ...]:
    # Zamba2's class computes its own unless the file says otherwise.
    own = config.model_type != "zamba2" or config.given("attention_head_dim")
    size = config.optional("attention_head_dim") if own else None
    size = size or config.checked("2 * hidden_size // num_attention_heads", 2 * config.hidden // config.heads)
    attention = FullAttention(kv_heads=config.kv_heads, head_dim=size, v_head_dim=size)
    hybrid = Parallel(parts=(attention, layer))
    return read_layers(config, words, linear_attention=lambda _: layer, hybrid=lambda _: hybrid)
