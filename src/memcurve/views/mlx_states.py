"""Latents and states in the modules of mlx_lm/models/ (MLX-LM 0.32.2), read as mlx_attention does."""

from __future__ import annotations

from ..base import Refused
from ..layers import (
    RGLRU,
    RWKV,
    CompressedAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    Parallel,
    ShortConv,
    SparseIndexer,
)
from .mlx_attention import (
    FULL,
    SLIDING,
    as_asked,
    as_stated,
    head_size,
    heads_of,
    kv_heads,
    latent_of,
    masked,
    per_layer,
    slid,
    whole_heads,
    words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Config
    from ..layers import Layer

LINEAR = "linear_attention"


# -- latents ------------------------------------------------------------------------------------------------------


def latent(args: Config) -> tuple[Layer, ...]:
    """The compressed latent and its rotary key."""
    return (latent_of(args),) * args.layers


def expanded(args: Config) -> tuple[Layer, ...]:
    """Keys and values of every head, expanded from the latent before they are cached (deepseek_v2.py, minicpm3.py, youtu_llm.py)."""
    nope, rope = args.count("qk_nope_head_dim", least=0), args.count("qk_rope_head_dim", least=0)
    value = (
        args.ratio("hidden_size", "num_attention_heads") if args.model_type == "minicpm3" else args.count("v_head_dim")
    )
    return (heads_of(args.heads, nope + rope, value),) * args.layers


def indexed(args: Config) -> tuple[Layer, ...]:
    """The latent, and in a cache beside it the index keys, with zeros of the same size as their values (Indexer.__call__)."""
    parts = (latent_of(args), SparseIndexer(head_dim=args.count("index_head_dim")))
    return (Parallel(parts=parts),) * args.layers


def minimax_m3_vl(args: Config) -> tuple[Layer, ...]:
    """Sparse layers keep one index key a token in a cache of their own, without values (TextArgs.is_sparse_attn)."""
    nested = args.section("sparse_attention_config")

    def sparse(key: str, own: str) -> object:
        return nested.get(key) if nested and key in nested.data else args.get(own)

    attention, count = as_stated(args), args.layers
    flags = [True] * count
    if sparse("sparse_block_size", "index_block_size") is None:
        flags = [False] * count
    elif args.get("layer_types") is not None:
        flags = [word != FULL for word in per_layer(args, words(args))]
    elif (freq := sparse("sparse_attention_freq", "sparse_attention_freq")) is not None:
        if not isinstance(freq, list) or len(freq) < count:
            args.bad("sparse_attention_freq", freq, f"one per layer, num_hidden_layers = {count}")
        flags = [bool(one) for one in freq[:count]]
    if not any(flags):
        return (Parallel(parts=(attention,)),) * count
    index = heads_of(1, args.checked("index_head_dim", sparse("sparse_index_dim", "index_head_dim")), 0)
    return tuple(Parallel(parts=(attention, index) if one else (attention,)) for one in flags)


def longcat_flash(args: Config) -> tuple[Layer, ...]:
    """Two latents in each layer; with n-gram embeddings the last emb_neighbor_num - 1 token ids before them."""
    layers = (Parallel(parts=(latent_of(args),) * 2),) * args.count("num_layers", most=10_000)
    if args.model_type == "longcat_flash":
        return layers
    return (ShortConv(channels=1, conv_kernel=args.count("emb_neighbor_num"), dtype="int64"), *layers)


def deepseek_v41(args: Config) -> tuple[Layer, ...]:
    """A window in each layer; compressed entries in those of kv_source_layer_ids, index keys where they are index sources too."""
    if args.items("engram_layer_ids"):
        raise Refused(
            f"Layers {args.counts('engram_layer_ids')} use engram memory, which this implementation does not have"
        )
    ratios = args.counts("compress_ratios") or []
    sources, indexers = set(args.counts("kv_source_layer_ids") or ()), set(args.counts("index_source_layer_ids") or ())
    if len(ratios) < args.layers:
        ratios = [*ratios, *[0] * (args.layers - len(ratios))]
    size, window = args.count("head_dim"), args.count("sliding_window")

    def read(index: int) -> Layer:
        return CompressedAttention(
            head_dim=size,
            window=window,
            ratio=ratios[index] if index in sources else 0,
            index_head_dim=args.count("index_head_dim") if index in sources & indexers and ratios[index] else 0,
        )

    return tuple(read(index) for index in range(args.layers))


# -- states -------------------------------------------------------------------------------------------------------


def gated_delta(args: Config) -> GatedDeltaNet:
    keys, values = args.count("linear_num_key_heads"), args.count("linear_num_value_heads")
    if args.model_type != "olmo_hybrid" and values % keys:
        raise Refused(f"num_v_heads ({values}) must be divisible by num_k_heads ({keys})")
    return GatedDeltaNet(
        key_heads=keys,
        value_heads=values,
        key_dim=args.count("linear_key_head_dim"),
        value_dim=args.count("linear_value_head_dim"),
        conv_kernel=args.count("linear_conv_kernel_dim", least=2),
    )


def qwen3_next(args: Config) -> tuple[Layer, ...]:
    """Every full_attention_interval-th layer is full attention, whatever layer_types says; head_dim is computed in qwen3_5 without."""
    nth, delta = args.count("full_attention_interval"), gated_delta(args)
    size = None if args.model_type == "qwen3_next" else args.ratio("hidden_size", "num_attention_heads")
    full = heads_of(kv_heads(args), args.count("head_dim", size))
    return masked(args, tuple(full if (index + 1) % nth == 0 else delta for index in range(args.layers)), nth - 1, 0)


def olmo_hybrid(args: Config) -> tuple[Layer, ...]:
    """A layer per word of layer_types; every fourth full without it."""
    found = args.words("layer_types")
    if found is None:
        found = [FULL if index % 4 == 3 else LINEAR for index in range(args.layers)]
    delta = gated_delta(args)
    full = heads_of(kv_heads(args), args.count("head_dim", args.ratio("hidden_size", "num_attention_heads")))
    return tuple(delta if word == LINEAR else full for word in found)


def kimi_linear(args: Config) -> tuple[Layer, ...]:
    """Kimi Delta Attention in linear_attn_config.kda_layers, counted from 1; the latent elsewhere."""
    section = args.section("linear_attn_config")
    if section is None:
        args.bad("linear_attn_config", None, "an object")
    delta = set(section.counts("kda_layers") or ())
    default = 4 if args.model_type == "kimi_linear" else None
    kda = KimiDeltaAttention(
        heads=section.count("num_heads"),
        head_dim=section.count("head_dim"),
        conv_kernel=section.count("short_conv_kernel_size", default, least=2),
    )
    layers = tuple(kda if index + 1 in delta else latent_of(args) for index in range(args.layers))
    if args.model_type == "kimi_k3":
        return layers
    first = (section.counts("kda_layers", least=1) or [args.layers + 1])[0] - 1
    return masked(args, layers, next((i for i, layer in enumerate(layers) if layer != kda), args.layers), first)


def _grouped(args: Config, softmax: Callable[[Config], Layer], linear: Layer) -> tuple[Layer, ...]:
    """The last of each layer_group_size layers, and all of an incomplete last group, are softmax attention."""
    group, count = args.count("layer_group_size"), args.layers
    whole = count // group * group
    return tuple(softmax(args) if (i + 1) % group == 0 or i >= whole else linear for i in range(count))


def bailing_hybrid(args: Config) -> tuple[Layer, ...]:
    size = head_size(args)
    return _grouped(args, latent_of, LightningAttention(heads=args.heads, head_dim=size, v_head_dim=size))


def bailing_moe_linear(args: Config) -> tuple[Layer, ...]:
    """head_dim counts in softmax layers; linear ones divide hidden_size (LinearAttention.__init__)."""
    size = args.ratio("hidden_size", "num_attention_heads")
    found = _grouped(args, as_asked, LightningAttention(heads=args.heads, head_dim=size, v_head_dim=size))
    return masked(args, found, args.count("layer_group_size") - 1, 0)


def bailing_moe_v3(args: Config) -> tuple[Layer, ...]:
    for key in ("rope_interleave", "no_kda_lora", "kda_safe_gate"):
        if not args.flag(key):
            raise Refused(f"Bailing V3 MLX currently requires {key}=true")
    kda = KimiDeltaAttention(
        heads=args.heads, head_dim=args.count("head_dim"), conv_kernel=args.count("short_conv_kernel_size", least=2)
    )
    return _grouped(args, latent_of, kda)


def mamba(args: Config) -> tuple[Layer, ...]:
    layer = Mamba(
        intermediate=args.count("intermediate_size"),
        state_size=args.count("state_size"),
        conv_kernel=args.count("conv_kernel", least=2),
    )
    return (layer,) * args.layers


def jamba(args: Config) -> tuple[Layer, ...]:
    """A layer per word of layers_block_type, else by attn_layer_period and offset; both kinds must occur."""
    found = args.words("layers_block_type")
    if found is None:
        period, offset = args.count("attn_layer_period"), args.count("attn_layer_offset", least=0)
        found = ["attention" if index % period == offset else "mamba" for index in range(args.layers)]
    found = words(args.overlaid({"layers_block_type": found}), "layers_block_type", ("attention", "mamba"))
    state = Mamba(
        intermediate=args.checked("mamba_expand * hidden_size", args.count("mamba_expand") * args.hidden),
        state_size=args.count("mamba_d_state"),
        conv_kernel=args.count("mamba_d_conv", least=2),
    )
    full = heads_of(kv_heads(args), args.ratio("hidden_size", "num_attention_heads"))
    return tuple(full if word == "attention" else state for word in found)


def _mamba2(args: Config, heads: str, size: str, state: str, groups: str, kernel: str) -> Mamba2:
    """heads · size channels beside B and C of each group."""
    number, dim, sharing = args.count(heads), args.count(size), args.count(groups)
    if number % sharing:
        args.bad(groups, sharing, f"a divisor of {heads}, {number}")
    return Mamba2(
        heads=number,
        head_dim=dim,
        state_size=args.count(state),
        groups=sharing,
        intermediate=args.checked(f"{heads} * {size}", number * dim),
        conv_kernel=args.count(kernel, least=2),
    )


def mamba2(args: Config) -> tuple[Layer, ...]:
    key = "ssm_state_size" if args.get("ssm_state_size") is not None else "state_size"
    return (_mamba2(args, "num_heads", "head_dim", key, "n_groups", "conv_kernel"),) * args.layers


def falcon_h1(args: Config) -> tuple[Layer, ...]:
    """Mamba-2 and attention in each layer; mamba_d_ssm channels."""
    state = _mamba2(args, "mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv")
    if args.count("mamba_d_ssm") != state.intermediate:
        args.bad("mamba_d_ssm", args.get("mamba_d_ssm"), f"mamba_n_heads * mamba_d_head = {state.intermediate}")
    return (Parallel(parts=(state, as_stated(args))),) * args.layers


def granitemoehybrid(args: Config) -> tuple[Layer, ...]:
    """A layer per word of layer_types, mamba or attention."""
    found = words(args)
    for word in found:
        if word not in ("mamba", "attention"):
            args.bad("layer_types", word, "mamba or attention")
    full = heads_of(kv_heads(args), args.ratio("hidden_size", "num_attention_heads")) if "attention" in found else None
    state = None
    if "mamba" in found:
        state = _mamba2(args, "mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv")
    return tuple(layer for word in found if (layer := state if word == "mamba" else full) is not None)


# _block_type_to_char of nemotron_h.py
BLOCKS = {
    "full_attention": "*", "linear_attention": "M", "moe": "E", "mlp": "-", "attention": "*", "mamba": "M", "conv": "M",
}  # fmt: skip


def nemotron_h(args: Config) -> tuple[Layer, ...]:
    """hybrid_override_pattern, a letter or an entry per layer, else by words; no entries for MLP and expert layers."""
    pattern = args.get("hybrid_override_pattern")
    if pattern is None:
        key = "layers_block_type" if args.get("layers_block_type") else "layer_types"
        found = words(args, key)
        if unknown := sorted(set(found) - set(BLOCKS)):
            raise Refused(f"Unsupported layers_block_type {unknown}, expected any of {sorted(BLOCKS)}.")
        pattern = [BLOCKS[word] for word in found]
    letters = list(pattern) if isinstance(pattern, (str, list)) and len(pattern) <= 10_000 else None
    if letters is None or not all(letter in ("M", "*", "-", "E") for letter in letters):
        args.bad("hybrid_override_pattern", pattern, "M, *, - or E per layer")
    found_layers: dict[str, Layer] = {}
    if "M" in letters:
        found_layers["M"] = _mamba2(
            args, "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"
        )
    if "*" in letters:
        size = args.count("head_dim", args.ratio("hidden_size", "num_attention_heads"))
        found_layers["*"] = heads_of(kv_heads(args), size)
    kept = [letter for letter in letters if letter in found_layers]
    before = [kept.index(letter) if letter in kept else len(kept) for letter in "*M"]
    return masked(args, tuple(found_layers[letter] for letter in kept), *before)


def plamo2(args: Config) -> tuple[Layer, ...]:
    """Mamba-2 without convolved B and C; every attention keeps all tokens (its windows are not done: make_cache, TODO)."""
    count, step, size = args.layers, args.count("mamba_step", least=2), args.count("hidden_size_per_head")
    full = heads_of(kv_heads(args), size)
    if not args.flag("mamba_enabled"):
        return (full,) * count
    heads = args.count("mamba_num_heads")
    state = Mamba2(
        heads=heads,
        head_dim=size,
        state_size=args.count("mamba_d_state"),
        groups=0,
        intermediate=args.checked("mamba_num_heads * hidden_size_per_head", heads * size),
        conv_kernel=args.count("mamba_d_conv", least=2),
    )
    recurs = [index != count - 1 if count <= step // 2 else index % step != step // 2 for index in range(count)]
    return tuple(state if one else full for one in recurs)


def lfm2(args: Config) -> tuple[Layer, ...]:
    """Attention in full_attn_idxs, or where layer_types says so; short convolutions elsewhere."""
    found = args.counts("full_attn_idxs")
    if found is None:
        found = [index for index, word in enumerate(words(args)) if word == FULL]
    if not found:
        args.bad("full_attn_idxs", found, "at least one layer")
    if args.model_type == "lfm2" and args.get("block_dim") not in (None, args.hidden):
        raise Refused(
            f"{args.path}block_dim: {args.count('block_dim')}; MLX-LM's lfm2.py needs hidden_size, {args.hidden}"
        )
    conv = ShortConv(channels=args.hidden, conv_kernel=args.count("conv_L_cache", least=2))
    full = heads_of(kv_heads(args), args.ratio("hidden_size", "num_attention_heads"))
    layers = tuple(full if index in set(found) else conv for index in range(args.layers))
    return masked(args, layers, found[0], next((i for i, layer in enumerate(layers) if layer == conv), args.layers))


def gear(args: Config) -> tuple[Layer, ...]:
    """Full and sliding attention, and layers that convolve their keys and values (conv_mixer), each with a state of its own."""
    full, kernel = as_stated(args), args.count("conv_L_cache")
    found = [FULL] * args.layers if args.get("layer_types") is None else words(args)
    if len(found) != args.layers:
        raise Refused(f"Expected {args.layers} layer types, got {len(found)}.")
    if args.flag("use_bidirectional_attention"):
        raise Refused("Gear bidirectional attention is not supported.")
    kinds: dict[str, Layer] = {
        FULL: full,
        SLIDING: slid(full, args.count("sliding_window")),
        "conv_mixer": ShortConv(channels=2 * full.kv_heads * full.head_dim, conv_kernel=kernel),
    }
    for word in found:
        if word not in kinds:
            args.bad("layer_types", word, f"one of {', '.join(kinds)}")
    return tuple(kinds[word] for word in found)


def recurrent_gemma(args: Config) -> tuple[Layer, ...]:
    """block_types repeated; one key of hidden_size // heads, and a recurrence of hidden_size channels behind a convolution of 4:
    Griffin hands on neither lru_width nor conv1d_width."""
    key = "block_types" if args.get("block_types") is not None else "_block_types"
    found, count = words(args, key, ("attention",)), args.layers
    size = args.ratio("hidden_size", "num_attention_heads")
    whole_heads(args, "hidden_size", args.heads, size)
    sliding = slid(heads_of(1, size), args.count("attention_window_size"))
    state = RGLRU(width=args.hidden, conv_kernel=4)
    layers = tuple(state if found[i % len(found)] == "recurrent" else sliding for i in range(count))
    return masked(args, layers, found.index("attention"))


def rwkv7(args: Config) -> tuple[Layer, ...]:
    size = args.count("head_dim")
    if args.hidden % size:
        args.bad("hidden_size", args.hidden, f"a multiple of head_dim, {size}")
    return (RWKV(hidden=args.hidden, heads=args.ratio("hidden_size", "head_dim"), head_dim=size),) * args.layers
