"""Structures whose code lives only on the hub, beside their weights; the source of each is named.

Transformers has no class for them, so nothing is assumed but what that code assumes.
"""

from __future__ import annotations

from ..base import NotDescribed
from ..layers import (
    FullAttention,
    GatedDeltaNet,
    LightningAttention,
    Mamba,
    Mamba2,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
)
from .mlx_only import phixtral
from .reading import every, gqa, gqa_split, read_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


# Keys of later models under the same type names, whose structure is another one.
OTHER_STRUCTURE = ("kv_lora_rank", "layer_types", "num_noise_heads", "attention_chunk_size", "sliding_window_layers")


def hub_attention(config: Config) -> tuple[Layer, ...]:
    """Every layer full; head_dim where the config has it, else hidden // heads (modeling_internlm2.py and its kin).

    A config with keys of another structure is refused, not read past them.
    """
    for key in OTHER_STRUCTURE:
        if config.given(key):
            raise NotDescribed(
                f"{config.model_type} with {key} is not described; without it, it is grouped-query attention"
            )
    if config.get("sliding_window") is not None and config.flag("use_sliding_window", True):
        raise NotDescribed(
            f"{config.model_type} with a sliding_window is not described; with use_sliding_window false it is"
        )
    if config.model_type == "baichuan" and config.get("num_attention_heads") is None:
        config = config.overlaid({"num_attention_heads": config.get("num_heads")})
    return (FullAttention(**gqa(config)),) * config.layers


def qwen(config: Config) -> tuple[Layer, ...]:
    """Qwen-1 (modeling_qwen.py): every head keeps kv_channels."""
    size = config.count("kv_channels")
    return (FullAttention(kv_heads=config.heads, head_dim=size, v_head_dim=size),) * config.layers


def chatglm(config: Config) -> tuple[Layer, ...]:
    """ChatGLM2, ChatGLM3 and GLM-4 (modeling_chatglm.py): multi_query_group_num heads of kv_channels with multi_query_attention."""
    kv_heads = config.count("multi_query_group_num") if config.flag("multi_query_attention") else config.heads
    size = config.count("kv_channels")
    return (FullAttention(kv_heads=kv_heads, head_dim=size, v_head_dim=size),) * config.count("num_layers", most=10_000)


def phi_msft(config: Config) -> tuple[Layer, ...]:
    """Phi-1.5 and Phi-2 under their first keys (modeling_phi.py), or under those of mlx-lm's phixtral.py, where it is run."""
    if not config.given("n_head") and any(config.given(key) for key in ("num_heads", "model_dim", "num_local_experts")):
        return phixtral(config)
    heads = config.count("n_head")
    size = config.ratio("n_embd", "n_head")
    layer = FullAttention(kv_heads=config.count("n_head_kv", heads), head_dim=size, v_head_dim=size)
    return (layer,) * config.count("n_layer", most=10_000)


def nemotron_nas(config: Config) -> tuple[Layer, ...]:
    """block_configs says of each layer how many heads share a key, or that it has no attention (modeling_decilm.py)."""
    blocks = config.items("block_configs")
    if blocks is None or len(blocks) != config.layers:
        config.bad(
            "block_configs",
            None if blocks is None else f"{len(blocks)} entries",
            f"one per layer, num_hidden_layers = {config.layers}",
        )

    def read(index: int, block: object) -> Layer:
        section = config.overlaid({"block": block}, f"{config.path}block_configs[{index}].").section("block")
        part = section.section("attention") if section else None
        if part is None:
            config.bad(f"block_configs[{index}].attention", None, "an object")
        if part.flag("no_op") or part.flag("replace_with_linear"):
            return NoState(why="no attention in this block")
        size = config.ratio("hidden_size", "num_attention_heads")
        kv_heads = config.checked("n_heads_in_group", config.heads // part.count("n_heads_in_group"))
        window = part.optional("window_length")
        if window is None:
            return FullAttention(kv_heads=kv_heads, head_dim=size, v_head_dim=size)
        return SlidingAttention(kv_heads=kv_heads, head_dim=size, v_head_dim=size, window=window)

    return tuple(read(index, block) for index, block in enumerate(blocks))


def baichuan_m1(config: Config) -> tuple[Layer, ...]:
    """Full and sliding layers with heads of their own (sliding_window_layers); each keeps one key and value before its
    convolution over two tokens (modeling_baichuan.py of Baichuan-M1-14B)."""
    slides = set(config.counts("sliding_window_layers") or ())
    if config.count("conv_window") != 2:
        config.bad("conv_window", config.get("conv_window"), "2, as the code has it")

    def read(index: int) -> Layer:
        heads, kv_heads = "num_attention_heads", config.kv_heads
        if index in slides:
            heads = "num_swa_attention_heads" if config.given("num_swa_attention_heads") else heads
            kv_heads = config.count("num_swa_key_value_heads", kv_heads)
        size = config.ratio("hidden_size", heads)
        own: Layer = FullAttention(kv_heads=kv_heads, head_dim=size, v_head_dim=size)
        if index in slides:
            own = SlidingAttention(
                kv_heads=kv_heads, head_dim=size, v_head_dim=size, window=config.count("sliding_window")
            )
        return Parallel(parts=(own, ShortConv(channels=2 * kv_heads * size, conv_kernel=2, columns=1)))

    return tuple(read(index) for index in range(config.layers))


def hunyuan(config: Config) -> tuple[Layer, ...]:
    """Cross-layer attention: with use_cla only every cla_share_factor-th layer keeps keys and values, which the layers after
    it read (modeling_hunyuan.py of Hunyuan-Large)."""
    nth = config.count("cla_share_factor") if config.flag("use_cla") else 1
    own, other = FullAttention(**gqa_split(config)), NoState(why="reads another layer's keys and values")
    return tuple(other if index % nth else own for index in range(config.layers))


def plamo2(config: Config) -> tuple[Layer, ...]:
    """Mamba-2 without convolved B and C, and sliding attention but in full_attention_idx (modeling_plamo.py of PLaMo 2)."""
    count, step = config.layers, config.count("mamba_step", 2, least=2)
    full = set(config.counts("full_attention_idx") or ())
    size = config.count("hidden_size_per_head")
    heads = config.count("mamba_num_heads")
    inner = config.checked("mamba_num_heads * hidden_size_per_head", heads * size)
    mamba = Mamba2(
        heads=heads,
        head_dim=size,
        state_size=config.count("mamba_d_state"),
        groups=0,
        intermediate=inner,
        conv_kernel=config.count("mamba_d_conv"),
    )

    def read(index: int) -> Layer:
        is_mamba = index != count - 1 if count <= step // 2 else index % step != step // 2
        if config.flag("mamba_enabled", True) and is_mamba:
            return mamba
        if index in full:
            return FullAttention(kv_heads=config.kv_heads, head_dim=size, v_head_dim=size)
        window = config.count("attention_window_size")
        return SlidingAttention(kv_heads=config.kv_heads, head_dim=size, v_head_dim=size, window=window)

    return tuple(read(index) for index in range(count))


def plamo3(config: Config) -> tuple[Layer, ...]:
    """Every sliding_window_pattern-th layer is full (modeling_plamo.py of PLaMo 3)."""
    window = config.count("sliding_window" if config.given("sliding_window") else "window_size")
    words = every(config.count("sliding_window_pattern"))(config.layers)
    return read_layers(config, words, sliding_attention=lambda layer: SlidingAttention(**gqa(layer), window=window))


def bailing_moe(config: Config) -> tuple[Layer, ...]:
    """Ling and Ring: grouped-query attention (modeling_bailing_moe_v2.py)."""
    return (FullAttention(**gqa(config)),) * config.layers


def bailing_moe_linear(config: Config) -> tuple[Layer, ...]:
    """Ling and Ring linear: the last of each layer_group_size layers, and an incomplete last group, are softmax attention;
    the rest keep a matrix per query head (modeling_bailing_moe_linear_v2.py)."""
    group, count = config.count("layer_group_size"), config.layers
    whole = count // group * group
    size = config.head_dim
    linear = LightningAttention(heads=config.heads, head_dim=size, v_head_dim=size)
    full = FullAttention(**gqa(config))
    return tuple(full if (index + 1) % group == 0 or index >= whole else linear for index in range(count))


def phi4flash(config: Config) -> tuple[Layer, ...]:
    """SambaY (arXiv:2507.06607, modeling_phi4flash.py): Mamba and sliding attention in turn through the first half, then one
    Mamba and one full layer; the second half reads that layer's keys and values, or gates the Mamba's memory."""
    count, step = config.layers, config.count("mb_per_layer", 2)
    if count % 4 or step != 2:
        config.bad("mb_per_layer", step, "2, with num_hidden_layers a multiple of 4")
    inner = config.product("mamba_expand", "hidden_size", 2)
    mamba = Mamba(
        intermediate=inner, state_size=config.count("mamba_d_state", 16), conv_kernel=config.count("mamba_d_conv", 4)
    )
    full = FullAttention(**gqa_split(config))
    windows = config.get("sliding_window")
    window = next((w for w in windows if w is not None), None) if isinstance(windows, list) else windows
    sliding = SlidingAttention(**gqa_split(config), window=config.checked("sliding_window", window))
    half = count // 2

    def read(index: int) -> Layer:
        if index % 2 == 0:
            return mamba if index <= half else NoState(why="gates another layer's memory")
        if index < half:
            return sliding
        return full if index == half + 1 else NoState(why="reads another layer's keys and values")

    return tuple(read(index) for index in range(count))


def step3_text(config: Config) -> tuple[Layer, ...]:
    """Multi-matrix factorised attention keeps num_attention_groups heads (modeling_step3.py of Step3)."""
    size = config.count("head_dim")
    layer = FullAttention(kv_heads=config.count("num_attention_groups"), head_dim=size, v_head_dim=size)
    return (layer,) * config.layers


def exaone(config: Config) -> tuple[Layer, ...]:
    """EXAONE 3 (modeling_exaone.py): num_layers layers."""
    return (FullAttention(**gqa(config)),) * config.count("num_layers", most=10_000)


def plamo(config: Config) -> tuple[Layer, ...]:
    """PLaMo (modeling_plamo.py): n_shared_head query heads share a key and value."""
    size = config.ratio("hidden_size", "num_attention_heads")
    heads = config.ratio("num_attention_heads", "n_shared_head")
    return (FullAttention(kv_heads=heads, head_dim=size, v_head_dim=size),) * config.layers


def openelm(config: Config) -> tuple[Layer, ...]:
    """OpenELM (modeling_openelm.py): each layer has its own number of heads."""
    heads, size = config.counts("num_kv_heads", least=1), config.count("head_dim")
    count = config.count("num_transformer_layers", most=10_000)
    if heads is None or len(heads) != count:
        config.bad("num_kv_heads", heads, f"one per layer, num_transformer_layers = {count}")
    return tuple(FullAttention(kv_heads=kv_heads, head_dim=size, v_head_dim=size) for kv_heads in heads)


def gated_deltanet(config: Config) -> tuple[Layer, ...]:
    """Gated DeltaNet of flash-linear-attention (fla/models/gated_deltanet); attn.layers are softmax attention."""
    heads, size = config.count("num_heads", 6), config.count("head_dim", 256)
    values = config.count("num_v_heads", heads)
    delta = GatedDeltaNet(
        key_heads=heads,
        value_heads=values,
        key_dim=size,
        value_dim=config.checked("head_dim * expand_v", int(size * config.number("expand_v", 2))),
        conv_kernel=config.count("conv_size", 4) if config.flag("use_short_conv", True) else None,
    )
    section = config.section("attn")
    if section is None:
        return (delta,) * config.layers
    softmax = set(section.counts("layers") or ())
    query = section.count("num_heads", 32)
    dim = config.checked("hidden_size // attn.num_heads", config.hidden // query)
    window, kv_heads = section.optional("window_size"), section.count("num_kv_heads", query)
    own: Layer = FullAttention(kv_heads=kv_heads, head_dim=dim, v_head_dim=dim)
    if window is not None:
        own = SlidingAttention(kv_heads=kv_heads, head_dim=dim, v_head_dim=dim, window=window)
    return tuple(own if index in softmax else delta for index in range(config.layers))
