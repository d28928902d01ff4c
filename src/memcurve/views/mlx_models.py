"""What each module of mlx_lm/models/ (MLX-LM 0.32.2) makes of a config: one line of a table per rule, and the modules under it.

A reader takes the keys of its module's ModelArgs, with the defaults of that dataclass (mlx_args.json), and returns one
layer per entry of make_cache, or per decoder layer where the module has none. The sizes are those with which the
module's Attention.__init__ (or mixer) builds its projections; keys that it does not read are not asked for.
"""

from __future__ import annotations

from ..base import Refused, show
from ..layers import (
    RGLRU,
    RWKV,
    ChunkedAttention,
    CompressedAttention,
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
    SparseIndexer,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..config import Config
    from ..layers import Layer

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
# Modules whose __post_init__ puts the attention heads where num_key_value_heads is None; in the others a null stops them.
HEADS_WITHOUT_KV = frozenset(
    "gear gpt2 internlm2 internlm3 lfm2 llama ministral3 mixtral olmo2 olmo3 olmo_hybrid olmoe phi phi3 qwen2_moe smollm3".split()
)


# Dtypes of states that differ from engines.mlx.STATES; why a batch, or a quantised cache, fails in a module.
STATES: dict[str, dict[str, str]] = {"bailing_moe_linear": {"lightning attention": "model"}}
# muse_spark.py feeds its attention bfloat16, which meets float16 weights in float32.
CASTS = {"muse_spark": {"float16": "float32"}}
BATCHES = {
    "gpt_bigcode": "gpt_bigcode.py takes the offset of its positions as one number ([convert] Only length-1 arrays can be converted)",
    "gemma2": "gemma2.py does not broadcast the mask of a batch to its groups of heads ([broadcast_shapes])",
    "nemotron-nas": "nemotron-nas.py keeps an empty cache for a block without attention, which can't be merged",
    "phi3small": "phi3small.py does not broadcast the mask of a batch to its groups of heads ([broadcast_shapes])",
}
# Attention written out in the module takes arrays, and gets the lists that a QuantizedKVCache returns.
_BY_HAND = "{} works on the keys and values itself, and a quantised cache gives lists of arrays"
# Of these, modules whose masks fit by chance where there are as many sequences as key-value heads.
GROUPED = ("gemma2", "phi3small")
QUANTISES = {
    module: _BY_HAND.format(f"{module}.py")
    for module in (
        "afm7 bailing_hybrid bailing_moe_v3 deepseek_v3 gemma2 glm4_moe_lite kimi_k3 kimi_linear kimi_vl mistral4 olmo phi "
        "phi3small phixtral plamo plamo2 stablelm"
    ).split()
}
# Modules that stop on a context of several tokens unless their mask is an array: why.
PROMPTS = {"olmo": 'olmo.py adds the mask to its scores, and the mask of several tokens is the word "causal"'}


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
    for word in needs:
        if word not in found:
            raise Refused(f"{args.path}{key}: {args.model_type}.py looks for {show(word)} in it, and fails without")
    return found


def per_layer(args: Config, found: list[str]) -> list[str]:
    """A word for each of num_hidden_layers; one list too short fails, and what stands behind them is not read."""
    if len(found) < args.layers:
        args.bad("layer_types", f"{len(found)} entries", f"one per layer, num_hidden_layers = {args.layers}")
    return found[: args.layers]


def by_word(found: list[str], full: FullAttention, window: Callable[[], int], full_words: bool) -> tuple[Layer, ...]:
    """full_words: what is not "full_attention" slides; else what is not "sliding_attention" is full."""
    slides = [word != FULL if full_words else word == SLIDING for word in found]
    sliding = slid(full, window()) if any(slides) else None
    return tuple(sliding if one and sliding is not None else full for one in slides)


# -- attention of one kind ----------------------------------------------------------------------------------------


def split(args: Config) -> tuple[Layer, ...]:
    """hidden_size // num_attention_heads, whatever head_dim says."""
    size = args.ratio("hidden_size", "num_attention_heads")
    return (heads_of(kv_heads(args), size),) * args.layers


def asked(args: Config) -> tuple[Layer, ...]:
    return (as_asked(args),) * args.layers


def stated(args: Config) -> tuple[Layer, ...]:
    return (as_stated(args),) * args.layers


def every_head(args: Config) -> tuple[Layer, ...]:
    """talkie.py: every head keeps head_dim; qwen.py: kv_channels; gpt_neox.py: hidden_size // num_attention_heads."""
    key = {"talkie": "head_dim", "qwen": "kv_channels"}.get(args.model_type)
    size = args.count(key) if key else args.ratio("hidden_size", "num_attention_heads")
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
WHOLE = ("gpt2", "gptj", "phixtral", "olmo")


def own_names(args: Config) -> tuple[Layer, ...]:
    """Keys under the module's own names; the width divides among the heads. afm7.py: the layers that reuse keys have no cache."""
    layers, heads_key, kv_key, width = OWN_NAMES[args.model_type]
    heads, count = args.count(heads_key), args.count(layers, most=10_000)
    kv = heads if kv_key is None else args.count(kv_key)
    size = args.count("head_dim") if args.get("head_dim") else args.ratio(width, heads_key)
    if args.model_type == "dbrx":
        section = args.section("attn_config")
        kv = section.count("kv_n_heads") if section else args.bad("attn_config", None, "an object")
    elif args.model_type == "gpt_bigcode" and args.flag("multi_query"):
        kv = 1
    elif args.model_type == "plamo":
        kv = -(-heads // args.count("n_shared_head"))
    elif args.model_type == "afm7":
        count = args.checked("num_layers - num_kv_reuse_layers", count - args.count("num_kv_reuse_layers", least=0))
    if args.model_type in WHOLE and args.count(width) % heads:
        args.bad(width, args.count(width), f"a multiple of {heads_key}, {heads}")
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
    found = per_layer(args, words(args, needs=(FULL,)))
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
    found = words(args.overlaid({"layer_types": found}), needs=(SLIDING, FULL))[: args.layers]
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=True)


def olmo3(args: Config) -> tuple[Layer, ...]:
    """Every fourth layer full without layer_types; both kinds must occur."""
    found = args.words("layer_types")
    found = _patterned(args, 4) if found is None else found
    found = per_layer(args, words(args.overlaid({"layer_types": found}), needs=(SLIDING, FULL)))
    return by_word(found, as_asked(args), lambda: args.count("sliding_window"), full_words=True)


def mellum(args: Config) -> tuple[Layer, ...]:
    found = per_layer(args, words(args, needs=(FULL,)))
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
    found = _patterned(args, args.count("sliding_window_pattern"))
    return by_word(found, full, lambda: args.count(key), full_words=True)


def exaone4(args: Config) -> tuple[Layer, ...]:
    """sliding_window_pattern spells the layers, L sliding and G full; all full without."""
    pattern = args.get("sliding_window_pattern")
    if not pattern:
        return stated(args)
    if not isinstance(pattern, str) or not {"L", "G"} <= set(pattern):
        args.bad("sliding_window_pattern", pattern, "a string of L and G")
    found = [SLIDING if pattern[index % len(pattern)] == "L" else FULL for index in range(args.layers)]
    return by_word(found, as_stated(args), lambda: args.count("sliding_window"), full_words=True)


def step3p5(args: Config) -> tuple[Layer, ...]:
    """Even layers slide without layer_types; attention_other_setting holds the heads of those that do."""
    given = args.words("layer_types")
    found = per_layer(args, given) if given else [FULL if index % 2 else SLIDING for index in range(args.layers)]
    size = args.count("head_dim")
    full = heads_of(args.count("num_attention_groups"), size)
    other = args.section("attention_other_setting")
    wide = heads_of(other.count("num_attention_groups"), size) if other and other.data else full
    sliding = slid(wide, args.count("sliding_window"))
    return tuple(sliding if word == SLIDING else full for word in found)


def mimo_v2_flash(args: Config) -> tuple[Layer, ...]:
    """hybrid_layer_pattern: 1 for a sliding layer, with sizes of its own."""
    found = args.counts("hybrid_layer_pattern") or []
    if len(found) < args.layers or not {0, 1} <= set(found):
        args.bad("hybrid_layer_pattern", f"{len(found)} entries", f"0 and 1, for {args.layers} layers")
    full = heads_of(kv_heads(args), args.count("head_dim"), args.count("v_head_dim"))
    wide = heads_of(args.count("swa_num_key_value_heads"), args.count("swa_head_dim"), args.count("swa_v_head_dim"))
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
    return tuple(full if (index + 1) % 4 == 0 else chunked for index in range(args.layers))


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
        last = ShortConv(channels=2 * full.kv_heads * full.head_dim, conv_kernel=2)
        return Parallel(parts=(last, slid(full, args.count("sliding_window")) if own else full))

    return tuple(read(index) for index in range(args.layers))


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
    return tuple(full if (index + 1) % nth == 0 else delta for index in range(args.layers))


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
    return tuple(kda if index + 1 in delta else latent_of(args) for index in range(args.layers))


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
    return _grouped(args, as_asked, LightningAttention(heads=args.heads, head_dim=size, v_head_dim=size))


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
    return tuple(found_layers[letter] for letter in letters if letter in found_layers)


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
    conv = ShortConv(channels=args.hidden, conv_kernel=args.count("conv_L_cache", least=2))
    full = heads_of(kv_heads(args), args.ratio("hidden_size", "num_attention_heads"))
    return tuple(full if index in set(found) else conv for index in range(args.layers))


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
    sliding = slid(heads_of(1, size), args.count("attention_window_size"))
    state = RGLRU(width=args.hidden, conv_kernel=4)
    return tuple(state if found[i % len(found)] == "recurrent" else sliding for i in range(count))


def rwkv7(args: Config) -> tuple[Layer, ...]:
    size = args.count("head_dim")
    if args.hidden % size:
        args.bad("hidden_size", args.hidden, f"a multiple of head_dim, {size}")
    return (RWKV(hidden=args.hidden, heads=args.ratio("hidden_size", "head_dim"), head_dim=size),) * args.layers


READERS: dict[Callable[[Config], tuple[Layer, ...]], str] = {
    split: """
        Klear apertus bailing_moe cohere deepseek granite granitemoe helium hunyuan internlm2 internlm3 mimo
        minicpm mixtral nanochat phi phi3 phi3small phimoe qwen2 qwen2_moe stablelm starcoder2
        """,
    asked: "bitnet dots1 ernie4_5 ernie4_5_moe glm hunyuan_v1_dense minimax nemotron olmo2 olmoe telechat3",
    stated: "gemma gemma2 glm4 glm4_moe llama4_text qwen3 qwen3_moe seed_oss solar_open",
    every_head: "gpt_neox qwen talkie",
    own_names: " ".join(OWN_NAMES),
    openelm: "openelm",
    nemotron_nas: "nemotron-nas",
    nanbeige: "nanbeige",
    iquestloopcoder: "iquestloopcoder",
    llama: "llama ministral3 smollm3",
    afmoe: "afmoe",
    laguna: "laguna",
    exaone_moe: "exaone_moe spark2_5",
    muse_glimmer: "muse_glimmer",
    muse_spark: "muse_spark",
    gpt_oss: "gpt_oss",
    olmo3: "olmo3",
    mellum: "mellum",
    patterned: "cohere2 gemma3_text plamo3",
    exaone4: "exaone4",
    step3p5: "step3p5",
    mimo_v2_flash: "mimo_v2_flash",
    gemma3n: "gemma3n",
    gemma4_text: "gemma4_text",
    llama4: "llama4",
    baichuan_m1: "baichuan_m1",
    latent: "deepseek_v3 glm4_moe_lite kimi_vl mistral4",
    expanded: "deepseek_v2 minicpm3 youtu_llm",
    indexed: "deepseek_v32 glm_moe_dsa",
    minimax_m3_vl: "minimax_m3_vl",
    longcat_flash: "longcat_flash longcat_flash_ngram",
    deepseek_v41: "deepseek_v41",
    qwen3_next: "qwen3_next qwen3_5",
    olmo_hybrid: "olmo_hybrid",
    kimi_linear: "kimi_linear kimi_k3",
    bailing_hybrid: "bailing_hybrid",
    bailing_moe_linear: "bailing_moe_linear",
    bailing_moe_v3: "bailing_moe_v3",
    mamba: "mamba",
    mamba2: "mamba2",
    jamba: "jamba",
    falcon_h1: "falcon_h1",
    granitemoehybrid: "granitemoehybrid",
    nemotron_h: "nemotron_h",
    plamo2: "plamo2",
    lfm2: "lfm2 lfm2_moe",
    gear: "gear",
    recurrent_gemma: "recurrent_gemma",
    rwkv7: "rwkv7",
}


def reader_of(module: str) -> Callable[[Config], tuple[Layer, ...]]:
    """The reader of a module of mlx_lm/models/."""
    return next(read for read, modules in READERS.items() if module in modules.split())
