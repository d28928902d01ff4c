"""Attention in the modules of mlx_lm/models/ (MLX-LM 0.32.2): of one kind, with windows, and with windows on some layers.

A reader takes the keys of its module's ModelArgs, with the defaults of that dataclass (mlx_args.json), and returns one
layer per entry of make_cache, or per decoder layer where the module has none. The sizes are those with which the
module's Attention.__init__ builds its projections; keys that it does not read are not asked for.
"""

from __future__ import annotations

from ..base import Refused, show
from ..layers import (
    RGLRU,
    ChunkedAttention,
    FullAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..config import Config
    from ..layers import Layer

# Modules whose width must be the heads' times theirs (their constructors say so, or their output projections).
WHOLE = frozenset(
    "afm7 dbrx deepseek exaone gpt2 gpt_bigcode gpt_neox gptj nanochat olmo phi phi3small phixtral qwen stablelm".split()
)
FULL, SLIDING = "full_attention", "sliding_attention"
# What the ArraysCaches of whole layers hold.
RECURRENT = (GatedDeltaNet, KimiDeltaAttention, LightningAttention, Mamba, Mamba2, RGLRU, ShortConv)
# Modules whose __post_init__ puts the attention heads where num_key_value_heads is None; in the others a null stops them.
HEADS_WITHOUT_KV = frozenset(
    "gear gpt2 internlm2 internlm3 lfm2 llama ministral3 mixtral olmo2 olmo3 olmo_hybrid olmoe phi phi3 qwen2_moe smollm3".split()
)


# -- sizes --------------------------------------------------------------------------------------------------------


def kv_heads(args: Config) -> int:
    """num_key_value_heads; the attention heads where it is None, in the modules that say so."""
    value = args.get("num_key_value_heads")
    if value is None and args.model_type in HEADS_WITHOUT_KV:
        return args.heads
    heads = args.checked("num_key_value_heads", value)
    if args.heads % heads:
        args.bad("num_key_value_heads", heads, f"a divisor of num_attention_heads, {args.heads}")
    return heads


def head_size(args: Config) -> int:
    """`args.head_dim or args.hidden_size // args.num_attention_heads`."""
    return args.count("head_dim") if args.get("head_dim") else args.ratio("hidden_size", "num_attention_heads")


def heads_of(kv: int, size: int, v_size: int | None = None) -> FullAttention:
    return FullAttention(kv_heads=kv, head_dim=size, v_head_dim=size if v_size is None else v_size)


def slid(layer: FullAttention, window: int) -> SlidingAttention:
    return SlidingAttention(
        kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim, window=window
    )


def as_asked(args: Config) -> FullAttention:
    """Sizes as llama.py takes them: head_dim where it is there, else hidden_size // num_attention_heads."""
    return heads_of(kv_heads(args), head_size(args))


def as_stated(args: Config) -> FullAttention:
    """Sizes of the modules that take head_dim alone."""
    return heads_of(kv_heads(args), args.count("head_dim"))


def shared(args: Config, key: str, kv: int, heads: int) -> None:
    """Refused where heads of queries can't share those of keys evenly."""
    if heads % kv:
        raise Refused(
            f"{args.path}{key}: {kv}; MLX-LM needs a divisor of the heads, {heads} ([scaled_dot_product_attention])"
        )


def whole_heads(args: Config, key: str, heads: int, size: int) -> None:
    """Refused where a width is not that of all heads."""
    if args.count(key) != heads * size:
        raise Refused(
            f"{args.path}{key}: {args.count(key)}; MLX-LM's {args.model_type}.py needs that of its heads, {heads} × {size}"
        )


def latent_of(args: Config, rank: str = "kv_lora_rank") -> LatentAttention:
    """The latent as keys and the rotary key as values (update_and_fetch(kv_latent, k_pe))."""
    return LatentAttention(
        kv_lora_rank=args.count(rank), rope_head_dim=args.count("qk_rope_head_dim", least=0, default=0)
    )


def words(args: Config, key: str = "layer_types", needs: Sequence[str] = ()) -> list[str]:
    """A word per layer, with those that the module looks up by `index` among them."""
    found = args.words(key)
    if found is None:
        args.bad(key, None, "a list of words, one per layer")
    return having(args, found, needs, key)


def having(args: Config, found: list[str], needs: Sequence[str], key: str = "layer_types") -> list[str]:
    for word in needs:
        if word not in found:
            raise Refused(f"{args.path}{key}: {args.model_type}.py looks for {show(word)} in it, and fails without")
    return found


def per_layer(args: Config, found: list[str], needs: Sequence[str] = ()) -> list[str]:
    """A word for each of num_hidden_layers; one list too short fails, and what stands behind them is not read."""
    if len(found) < args.layers:
        args.bad("layer_types", f"{len(found)} entries", f"one per layer, num_hidden_layers = {args.layers}")
    return having(args, found[: args.layers], needs)


def masked(args: Config, found: tuple[Layer, ...], attention: int, state: int | None = None) -> tuple[Layer, ...]:
    """`found`, if masks are made by caches that are there: the module asks the entries of these indices for the masks of all
    layers of attention, and of those with states (base.py, create_attention_mask, create_ssm_mask). Of the other kind they
    raise, but for keys in a batch, where there is no layer with a state to mask."""
    for index, recurs in ((attention, False), (state, True)):
        if index is not None and (index >= len(found) or isinstance(found[index], RECURRENT) != recurs):
            what = "with a state" if recurs else "of attention"
            raise Refused(
                f"MLX-LM's {args.model_type}.py takes a mask from entry {index} of its {len(found)} caches, where no layer {what} is"
            )
    return found


def by_word(found: list[str], full: FullAttention, window: Callable[[], int], full_words: bool) -> tuple[Layer, ...]:
    """full_words: what is not "full_attention" slides; else what is not "sliding_attention" is full."""
    slides = [word != FULL if full_words else word == SLIDING for word in found]
    sliding = slid(full, window()) if any(slides) else None
    return tuple(sliding if one and sliding is not None else full for one in slides)


# -- attention of one kind ----------------------------------------------------------------------------------------


def split(args: Config) -> tuple[Layer, ...]:
    """hidden_size // num_attention_heads, whatever head_dim says."""
    size = args.ratio("hidden_size", "num_attention_heads")
    if args.model_type in WHOLE:
        whole_heads(args, "hidden_size", args.heads, size)
    return (heads_of(kv_heads(args), size),) * args.layers


def asked(args: Config) -> tuple[Layer, ...]:
    return (as_asked(args),) * args.layers


def stated(args: Config) -> tuple[Layer, ...]:
    return (as_stated(args),) * args.layers


def every_head(args: Config) -> tuple[Layer, ...]:
    """talkie.py: every head keeps head_dim; qwen.py: kv_channels; gpt_neox.py: hidden_size // num_attention_heads."""
    key = {"talkie": "head_dim", "qwen": "kv_channels"}.get(args.model_type)
    size = args.count(key) if key else args.ratio("hidden_size", "num_attention_heads")
    if args.model_type in WHOLE:
        whole_heads(args, "hidden_size", args.heads, size)
    return (heads_of(args.heads, size),) * args.layers


# Modules with names of their own for layers, heads, keys' heads (None: every head) and width.
OWN_NAMES: dict[str, tuple[str, str, str | None, str]] = {
    "afm7": ("num_layers", "num_heads", "num_kv_heads", "hidden_dim"),
    "dbrx": ("n_layers", "n_heads", None, "d_model"),
    "exaone": ("num_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"),
    "gpt2": ("n_layer", "n_head", None, "n_embd"),
    "gpt_bigcode": ("n_layer", "n_head", None, "n_embd"),
    "gptj": ("n_layer", "n_head", None, "n_embd"),
    "lille-130m": ("n_layer", "n_head", "n_kv_heads", "n_embd"),
    "olmo": ("n_layers", "n_heads", None, "d_model"),
    "phixtral": ("num_layers", "num_heads", None, "model_dim"),
    "plamo": ("num_hidden_layers", "num_attention_heads", None, "hidden_size"),
}


def own_names(args: Config) -> tuple[Layer, ...]:
    """Keys under the module's own names; the width divides among the heads. afm7.py: the layers that reuse keys have no cache."""
    layers, heads_key, kv_key, width = OWN_NAMES[args.model_type]
    heads, count = args.count(heads_key), args.count(layers, most=10_000)
    kv = heads if kv_key is None else args.count(kv_key)
    size = args.count("head_dim") if args.get("head_dim") else args.ratio(width, heads_key)
    if args.model_type == "dbrx":
        section = args.section("attn_config")
        kv = section.count("kv_n_heads") if section else args.bad("attn_config", None, "an object")
        shared(args, "attn_config.kv_n_heads", kv, heads)
    elif args.model_type == "gpt_bigcode" and args.flag("multi_query"):
        kv = 1
    elif args.model_type == "plamo":
        kv = -(-heads // args.count("n_shared_head"))
    elif args.model_type == "afm7":
        count = args.checked("num_layers - num_kv_reuse_layers", count - args.count("num_kv_reuse_layers", least=0))
    if args.model_type in WHOLE:
        whole_heads(args, width, heads, args.ratio(width, heads_key))
    if kv_key:
        shared(args, kv_key, kv, heads)
    return (heads_of(kv, size),) * count


def openelm(args: Config) -> tuple[Layer, ...]:
    """Each layer has its own number of heads."""
    found, count = args.counts("num_kv_heads", least=1), args.count("num_transformer_layers", most=10_000)
    if found is None or len(found) < count:
        args.bad("num_kv_heads", found, f"one per layer, num_transformer_layers = {count}")
    return tuple(heads_of(kv, args.count("head_dim")) for kv in found[:count])


def nemotron_nas(args: Config) -> tuple[Layer, ...]:
    """Blocks whose attention is no_op have no entry; one replaced by a linear layer has an entry that stays empty."""
    blocks = args.items("block_configs") or []
    if len(blocks) != args.layers:
        args.bad("block_configs", f"{len(blocks)} entries", f"one per layer, num_hidden_layers = {args.layers}")
    size = args.ratio("hidden_size", "num_attention_heads")
    whole_heads(args, "hidden_size", args.heads, size)
    found: list[Layer] = []
    for index, block in enumerate(blocks):
        section = args.overlaid({"block": block}, f"{args.path}block_configs[{index}].").section("block")
        part = section.section("attention") if section else None
        if part is None:
            args.bad(f"block_configs[{index}].attention", None, "an object")
        if part.flag("replace_with_linear") and not part.flag("no_op"):
            found.append(NoState(why="no attention in this block"))
        elif not part.flag("no_op"):
            group = part.count("n_heads_in_group")
            if args.heads % group:
                part.bad("n_heads_in_group", group, f"a divisor of num_attention_heads, {args.heads}")
            found.append(heads_of(args.heads // group, size))
    return tuple(found)


def nanbeige(args: Config) -> tuple[Layer, ...]:
    """The stack runs effective_num_loops times, each with caches of its own."""
    for key in ("enable_double_loop_split", "loop_share_kv", "enable_depth_attention"):
        if args.get(key):
            raise Refused("enable_double_loop_split, loop_share_kv, and enable_depth_attention are not yet supported.")
    weights = args.items("loop_loss_weights")
    size = args.count("head_dim", args.ratio("hidden_size", "num_attention_heads"))
    return (heads_of(kv_heads(args), size),) * (
        args.layers * (len(weights) + 1 if weights else args.count("num_loops"))
    )


def iquestloopcoder(args: Config) -> tuple[Layer, ...]:
    """Two loops: all tokens in the first, a window in the second, with a list of caches for each."""
    if args.count("loop_num") != 2:
        raise Refused(f"Only loop_num=2 is supported, got {args.count('loop_num')}")
    full = as_stated(args)
    return (full,) * args.layers + (slid(full, args.count("loop_window_size")),) * args.layers


# -- windows ------------------------------------------------------------------------------------------------------


def llama(args: Config) -> tuple[Layer, ...]:
    """A layer per word of layer_types, full without it; sliding_window alone says nothing (llama.py, ministral3.py)."""
    full = as_asked(args)
    if args.get("layer_types") is None:
        return (full,) * args.layers
    return by_word(words(args, needs=(FULL,)), full, lambda: args.count("sliding_window"), full_words=False)


def afmoe(args: Config) -> tuple[Layer, ...]:
    """A layer per word of layer_types, with head_dim as stated."""
    return by_word(words(args, needs=(FULL,)), as_stated(args), lambda: args.count("sliding_window"), full_words=False)


def laguna(args: Config) -> tuple[Layer, ...]:
    """Full without layer_types; one of them must be (laguna.py, fa_idx). Queries have num_attention_heads_per_layer."""
    queries, kv = args.counts("num_attention_heads_per_layer") or [args.heads], args.count("num_key_value_heads")
    for heads in queries:
        if heads % kv:
            args.bad("num_key_value_heads", kv, f"a divisor of num_attention_heads_per_layer, {heads}")
    full = heads_of(kv, args.count("head_dim"))
    if args.get("layer_types") is None:
        return (full,) * args.layers
    found = per_layer(args, words(args), (FULL,))
    return by_word(found, full, lambda: args.count("sliding_window"), full_words=False)


def exaone_moe(args: Config) -> tuple[Layer, ...]:
    """exaone_moe.py and spark2_5.py: by layer_types (three sliding and a full one in spark2_5 without)."""
    found = args.words("layer_types")
    if found is None and args.model_type == "spark2_5":
        found = _patterned(args, 4)
    found = per_layer(args, words(args) if found is None else found)
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=False)


def muse_glimmer(args: Config) -> tuple[Layer, ...]:
    """Three sliding layers and a full one without layer_types."""
    found = args.words("layer_types")
    found = per_layer(args, _patterned(args, 4) if found is None else found)
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=False)


def muse_spark(args: Config) -> tuple[Layer, ...]:
    """A layer per pair of layer_rope_theta and layer_types."""
    count = len(args.items("layer_rope_theta") or ())
    return by_word(words(args)[:count], as_stated(args), lambda: args.count("sliding_window"), full_words=False)


def gpt_oss(args: Config) -> tuple[Layer, ...]:
    """Caches by layer_types, sliding and full in turn without it (then for an even number of layers); both kinds must occur."""
    found = args.words("layer_types") or [SLIDING, FULL] * (args.layers // 2)
    found = having(args, found[: args.layers], (SLIDING, FULL))
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=True)


def olmo3(args: Config) -> tuple[Layer, ...]:
    """Every fourth layer full without layer_types; both kinds must occur."""
    found = args.words("layer_types")
    found = per_layer(args, _patterned(args, 4) if found is None else found, (SLIDING, FULL))
    return by_word(found, as_asked(args), lambda: args.count("sliding_window"), full_words=True)


def mellum(args: Config) -> tuple[Layer, ...]:
    found = per_layer(args, words(args), (FULL,))
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=True)


def _patterned(args: Config, nth: int) -> list[str]:
    return [FULL if (index + 1) % nth == 0 else SLIDING for index in range(args.layers)]


def patterned(args: Config) -> tuple[Layer, ...]:
    """Every sliding_window_pattern-th layer is full, whatever layer_types says (cohere2.py, gemma3_text.py, plamo3.py)."""
    full = as_stated(args)
    if args.model_type == "cohere2" and full.head_dim * args.heads != args.hidden:
        raise Refused(
            f"hidden_size must be divisible by num_heads (got `hidden_size`: {args.hidden} and `num_heads`: {args.heads})."
        )
    key = "sliding_window"
    if args.model_type == "plamo3":
        key = "sliding_window" if args.get("sliding_window") is not None else "window_size"
    nth = args.count("sliding_window_pattern")
    layers = by_word(_patterned(args, nth), full, lambda: args.count(key), full_words=True)
    return layers if args.model_type == "plamo3" else masked(args, layers, nth - 1)


def exaone4(args: Config) -> tuple[Layer, ...]:
    """sliding_window_pattern spells the layers, L sliding and G full; all full without."""
    pattern = args.get("sliding_window_pattern")
    if not pattern:
        return stated(args)
    if not isinstance(pattern, str) or not {"L", "G"} <= set(pattern):
        args.bad("sliding_window_pattern", pattern, "a string of L and G")
    found = [SLIDING if pattern[index % len(pattern)] == "L" else FULL for index in range(args.layers)]
    found = having(args, found, (SLIDING, FULL), "sliding_window_pattern")
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=True)


def step3p5(args: Config) -> tuple[Layer, ...]:
    """Even layers slide without layer_types; attention_other_setting holds the heads of those that do."""
    given = args.words("layer_types")
    found = per_layer(args, given) if given else [FULL if index % 2 else SLIDING for index in range(args.layers)]
    size = args.count("head_dim")
    full = heads_of(args.count("num_attention_groups"), size)
    shared(args, "num_attention_groups", full.kv_heads, args.heads)
    other = args.section("attention_other_setting")
    wide = heads_of(other.count("num_attention_groups"), size) if other and other.data else full
    sliding = slid(wide, args.count("sliding_window"))
    return tuple(sliding if word == SLIDING else full for word in found)


def mimo_v2_flash(args: Config) -> tuple[Layer, ...]:
    """hybrid_layer_pattern: 1 for a sliding layer, with sizes of its own."""
    found = args.counts("hybrid_layer_pattern") or []
    if len(found) < args.layers or not {0, 1} <= set(found[: args.layers]):
        args.bad("hybrid_layer_pattern", f"{len(found)} entries", f"0 and 1, for {args.layers} layers")
    full = heads_of(kv_heads(args), args.count("head_dim"), args.count("v_head_dim"))
    wide = heads_of(args.count("swa_num_key_value_heads"), args.count("swa_head_dim"), args.count("swa_v_head_dim"))
    shared(args, "swa_num_key_value_heads", wide.kv_heads, args.count("swa_num_attention_heads"))
    sliding = slid(wide, args.count("sliding_window_size"))
    return tuple(sliding if one == 1 else full for one in found[: args.layers])


def gemma3n(args: Config) -> tuple[Layer, ...]:
    """No entries for the last num_kv_shared_layers; both kinds must occur before them."""
    found = words(args)[: args.layers - args.count("num_kv_shared_layers", least=0)]
    for word in (SLIDING, FULL):
        if word not in found:
            raise Refused(
                f"{args.path}layer_types: gemma3n.py looks for {word} before the layers that share, and fails"
            )
    if set(found) - {SLIDING, FULL}:
        args.bad("layer_types", sorted(set(found) - {SLIDING, FULL})[0], f"{FULL} or {SLIDING}")
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=True)


def gemma4_text(args: Config) -> tuple[Layer, ...]:
    """No entries for the last num_kv_shared_layers. Full layers have head sizes of their own, and with attention_k_eq_v heads."""
    found = args.words("layer_types")
    found = per_layer(args, _patterned(args, args.count("sliding_window_pattern")) if found is None else found)
    own = found[: args.layers - args.count("num_kv_shared_layers", least=0)]
    if missing := [word for word in found if word not in own]:
        raise Refused(f"{args.path}layer_types: no {missing[0]} before the layers that share its keys (gemma4_text.py)")
    kv = args.count("num_key_value_heads")
    wide = args.optional("num_global_key_value_heads") if args.flag("attention_k_eq_v") else None
    size = args.count("global_head_dim") if args.get("global_head_dim") else args.count("head_dim")
    for key, heads in (("num_key_value_heads", kv), ("num_global_key_value_heads", kv if wide is None else wide)):
        shared(args, key, heads, args.heads)
    full = heads_of(kv if wide is None else wide, size)
    sliding = slid(heads_of(kv, args.count("head_dim")), args.count("sliding_window")) if SLIDING in own else None
    return tuple(full if word == FULL or sliding is None else sliding for word in own)


def llama4(args: Config) -> tuple[Layer, ...]:
    """Three chunked layers, then a full one, whatever no_rope_layers says."""
    full = as_asked(args)
    chunked = ChunkedAttention(
        kv_heads=full.kv_heads,
        head_dim=full.head_dim,
        v_head_dim=full.v_head_dim,
        chunk=args.count("attention_chunk_size"),
    )
    return masked(args, tuple(full if (index + 1) % 4 == 0 else chunked for index in range(args.layers)), 3)


def baichuan_m1(args: Config) -> tuple[Layer, ...]:
    """A list of the last key and value before their convolution, and the keys and values after it, in each layer."""
    slides = set(args.counts("sliding_window_layers") or ())
    if args.count("conv_window") != 2:
        raise Refused("assert self.conv_window == 2")

    def read(index: int) -> Layer:
        own = index in slides
        heads_key = "num_swa_attention_heads" if own and args.get("num_swa_attention_heads") else "num_attention_heads"
        kv_key = "num_swa_key_value_heads" if own and args.get("num_swa_key_value_heads") else "num_key_value_heads"
        if args.hidden % args.count(heads_key):
            args.bad("hidden_size", args.hidden, f"a multiple of {heads_key}, {args.count(heads_key)}")
        full = heads_of(args.count(kv_key), args.ratio("hidden_size", heads_key))
        shared(args, kv_key, full.kv_heads, args.count(heads_key))
        last = ShortConv(channels=2 * full.kv_heads * full.head_dim, conv_kernel=2)
        return Parallel(parts=(last, slid(full, args.count("sliding_window")) if own else full))

    return tuple(read(index) for index in range(args.layers))
