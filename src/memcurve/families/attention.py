"""Softmax attention: full, sliding and chunked, with shared keys and values and mixed head sizes."""

from __future__ import annotations

from ..layers import CrossAttention, FullAttention, HiddenStates, Parallel, SlidingAttention
from .reading import every, gqa, gqa_split, mha, read_layers, rope_layers, share_last, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def attention(config: Config) -> tuple[Layer, ...]:
    """Grouped-query attention. Without layer_types a sliding_window slides every layer, as Transformers does."""
    return read_layers(config, words_of(config))


def jetmoe(config: Config) -> tuple[Layer, ...]:
    """num_key_value_heads heads of kv_channels; each serves the experts of its tokens."""
    size = config.count("kv_channels")
    return read_layers(
        config,
        words_of(config),
        lambda layer: {"kv_heads": layer.count("num_key_value_heads"), "head_dim": size, "v_head_dim": size},
    )


def every_head(config: Config) -> tuple[Layer, ...]:
    """Multi-head attention whose class knows neither num_key_value_heads nor head_dim; add_cross_attention: as a decoder."""
    layers = read_layers(config, words_of(config), mha)
    if not config.flag("add_cross_attention"):
        return layers
    cross = CrossAttention(**mha(config))
    return tuple(Parallel(parts=(own, cross)) for own in layers)


def every_second(config: Config) -> tuple[Layer, ...]:
    """Sliding and full layers in turn."""
    return read_layers(config, words_of(config, every(2)))


def full_by_default(config: Config) -> tuple[Layer, ...]:
    """Every layer is full unless layer_types says otherwise, whatever sliding_window says."""
    return read_layers(config, words_of(config, lambda count: ["full_attention"] * count))


def every_fourth(config: Config) -> tuple[Layer, ...]:
    """Three sliding layers, then a full one."""
    return read_layers(config, words_of(config, every(4)))


def every_fifth(config: Config) -> tuple[Layer, ...]:
    """Four sliding layers, then a full one."""
    return read_layers(config, words_of(config, every(5)))


def afmoe(config: Config) -> tuple[Layer, ...]:
    """Every global_attn_every_n_layers-th layer is full."""
    return read_layers(config, words_of(config, every(config.count("global_attn_every_n_layers"))))


def beam(config: Config) -> tuple[Layer, ...]:
    """Every sixth layer is full, and the last one."""
    return read_layers(config, words_of(config, lambda count: [*every(6)(count)[:-1], "full_attention"]))


def cohere2(config: Config) -> tuple[Layer, ...]:
    """sliding_window_pattern (4): the last of each group is full."""
    return read_layers(config, words_of(config, every(config.count("sliding_window_pattern", 4))))


def cohere2_moe(config: Config) -> tuple[Layer, ...]:
    """Dense prefix layers and the rest each have their own pattern."""
    dense = config.count("first_k_dense_replace", 0, least=0)
    first = config.count("prefix_dense_sliding_window_pattern")
    rest = config.count("sliding_window_pattern")
    return read_layers(config, words_of(config, lambda count: every(first)(dense) + every(rest)(count - dense)))


def first_of_four(config: Config) -> tuple[Layer, ...]:
    """The first of every four layers is full."""
    return read_layers(config, words_of(config, lambda count: [_word(index % 4 == 0) for index in range(count)]))


def last_of_four(config: Config) -> tuple[Layer, ...]:
    """Counted from the last layer, every fourth is full."""
    return read_layers(config, words_of(config, lambda count: [_word((count - 1 - i) % 4 == 0) for i in range(count)]))


def flint(config: Config) -> tuple[Layer, ...]:
    """Full: the first two, every fourth from the second on, and the last."""
    return read_layers(
        config, words_of(config, lambda count: [_word(i < 2 or i % 4 == 1 or i == count - 1) for i in range(count)])
    )


def modernbert_decoder(config: Config) -> tuple[Layer, ...]:
    """Every global_attn_every_n_layers-th (3) layer from the first is full; the window is local_attention // 2."""
    nth = config.count("global_attn_every_n_layers", 3)
    window = config.count("local_attention") // 2
    words = words_of(config, lambda count: [_word(index % nth == 0) for index in range(count)])
    return read_layers(
        config,
        words,
        mha,
        sliding_attention=lambda layer: SlidingAttention(
            **mha(layer), window=config.checked("local_attention // 2", window)
        ),
    )


def gemma3(config: Config) -> tuple[Layer, ...]:
    """Every sliding_window_pattern-th (6) layer is full."""
    pattern = config.count("sliding_window_pattern", 6)
    words = words_of(config, every(pattern))
    return read_layers(config, words, sliding_attention=_sliding(config, config.flag("use_bidirectional_attention")))


def gemma3n(config: Config) -> tuple[Layer, ...]:
    """Every fifth layer is full; the last num_kv_shared_layers read earlier layers' keys and values."""
    return share_last(read_layers(config, words_of(config, every(5))), _shared(config))


def gemma4(config: Config) -> tuple[Layer, ...]:
    """Every sixth layer and the last are full, with their own head size and, where keys serve as values, their own heads."""
    wide = config.count("global_head_dim", 512)
    heads = config.optional("num_global_key_value_heads")
    if config.has("attention_k_eq_v") and not config.flag("attention_k_eq_v"):
        heads = None

    def full(layer: Config) -> Layer:
        if config.per_layer is not None:
            return FullAttention(**gqa(layer))
        return FullAttention(kv_heads=heads or layer.kv_heads, head_dim=wide, v_head_dim=wide)

    words = [*words_of(config, every(6))[:-1], "full_attention"]
    sliding = _sliding(config, config.get("use_bidirectional_attention") == "all")
    shared = _shared(config) if config.has("num_kv_shared_layers") else 0
    return share_last(read_layers(config, words, full_attention=full, sliding_attention=sliding), shared)


def qwen2(config: Config) -> tuple[Layer, ...]:
    """Layers from max_window_layers on slide, if use_sliding_window."""
    return dots1(config) if config.flag("use_sliding_window") else full_by_default(config)


def dots1(config: Config) -> tuple[Layer, ...]:
    """Layers from max_window_layers on slide, if there is a sliding_window."""
    if config.get("sliding_window") is None:
        return full_by_default(config)
    start = config.count("max_window_layers", least=0)
    return read_layers(config, words_of(config, lambda count: [_word(i < start) for i in range(count)]))


def qwen2_moe(config: Config) -> tuple[Layer, ...]:
    """Every second layer below max_window_layers slides, if use_sliding_window."""
    if not config.flag("use_sliding_window"):
        return full_by_default(config)
    stop = config.count("max_window_layers", least=0)
    return read_layers(config, words_of(config, lambda count: [_word(i % 2 == 1 or i >= stop) for i in range(count)]))


def qwen3_moe(config: Config) -> tuple[Layer, ...]:
    """Every layer slides if use_sliding_window and sliding_window are set; else none does."""
    return attention(config) if config.flag("use_sliding_window") else full_by_default(config)


def smollm3(config: Config) -> tuple[Layer, ...]:
    """Layers without rotary positions slide, if use_sliding_window."""
    slides = config.flag("use_sliding_window") and config.get("sliding_window") is not None

    def words(count: int) -> list[str]:
        rope = rope_layers(config)
        return [_word(not (slides and not has_rope)) for has_rope in rope]

    return read_layers(config, words_of(config, words))


def llama4(config: Config) -> tuple[Layer, ...]:
    """Layers with rotary positions attend within chunks; every no_rope_layer_interval-th is full."""

    def words(count: int) -> list[str]:
        return ["chunked_attention" if has_rope else "full_attention" for has_rope in rope_layers(config)]

    return read_layers(config, words_of(config, words))


def exaone4(config: Config) -> tuple[Layer, ...]:
    """sliding_window_pattern: an n, of which the last of each group is full, or a text such as "LLLG", whose G are."""

    def words(count: int) -> list[str]:
        pattern = config.get("sliding_window_pattern")
        if config.get("sliding_window") is None:
            return ["full_attention"] * count
        if isinstance(pattern, str):
            if not pattern or set(pattern) - {"L", "G"}:
                config.bad("sliding_window_pattern", pattern, "an integer, or a text of L and G")
            return [_word(pattern[index % len(pattern)] == "G") for index in range(count)]
        return every(config.count("sliding_window_pattern"))(count)

    return read_layers(config, words_of(config, words))


def mimo_v2_flash(config: Config) -> tuple[Layer, ...]:
    """Sliding layers have twice the key-value heads; the first and every sixth layer are full. The class reads no swa_… sizes."""
    extra = config.optional("sliding_window_size")
    window = config.count("sliding_window") if extra is None else extra + 1

    def words(count: int) -> list[str]:
        return [_word(i == 0 or (i + 1) % 6 == 0) for i in range(count)]

    def full(layer: Config) -> Layer:
        return FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.count("v_head_dim"))

    def sliding(layer: Config) -> Layer:
        heads = layer.checked("2 * num_key_value_heads", 2 * layer.kv_heads)
        v_head_dim = layer.count("v_head_dim")
        return SlidingAttention(kv_heads=heads, head_dim=layer.head_dim, v_head_dim=v_head_dim, window=window)

    return read_layers(config, words_of(config, words), full_attention=full, sliding_attention=sliding)


def step3p5(config: Config) -> tuple[Layer, ...]:
    """layer_types may name the prediction layers after the last; they are cut off."""
    words = config.words("layer_types")
    extra = config.count("num_nextn_predict_layers", 0, least=0)
    if words is not None and len(words) == config.layers + extra:
        config = config.overlaid({"layer_types": words[: config.layers]})
    return read_layers(config, words_of(config))


def dbrx(config: Config) -> tuple[Layer, ...]:
    """kv_n_heads stands in attn_config; 1 without it, as the class has it."""
    section = config.section("attn_config")
    kv_heads = section.count("kv_n_heads", 1) if section else 1
    return read_layers(config, words_of(config), lambda layer: {**mha(layer), "kv_heads": kv_heads})


def falcon(config: Config) -> tuple[Layer, ...]:
    """One key-value head with multi_query, else all; with the new decoder architecture num_kv_heads, which Transformers
    repeats to every head before it caches them (modeling_falcon.py, _split_heads)."""
    size, new = mha(config)["head_dim"], config.flag("new_decoder_architecture")
    kv_heads = 1 if config.flag("multi_query") else config.heads
    layer = FullAttention(
        kv_heads=config.count("num_kv_heads", config.heads) if new else kv_heads,
        head_dim=size,
        v_head_dim=size,
        repeated_to=config.heads if new else 0,
    )
    return (layer,) * config.layers


def gpt_bigcode(config: Config) -> tuple[Layer, ...]:
    """One key-value head with multi_query, else all."""
    kv_heads = 1 if config.flag("multi_query") else config.heads
    return read_layers(config, words_of(config), lambda layer: {**mha(layer), "kv_heads": kv_heads})


def hrm_text(config: Config) -> tuple[Layer, ...]:
    """Two stacks run H_cycles and L_cycles times, and each pass of a layer caches its own keys and values."""
    count = config.layers
    if config.optional("num_layers_per_stack") is None:
        count *= config.count("H_cycles") * (config.count("L_cycles") + 1)
    return (FullAttention(**gqa(config)),) * config.checked("num_hidden_layers", count, most=10_000)


def _word(full: bool) -> str:
    return "full_attention" if full else "sliding_attention"


def _shared(config: Config) -> int:
    return config.count("num_kv_shared_layers", least=0, most=config.layers - 1)


def _sliding(config: Config, bidirectional: bool):  # type: ignore[no-untyped-def]
    window = config.count("sliding_window")
    if bidirectional:
        # Both directions share the window, with exclusive bounds (configuration_gemma3.py, __post_init__).
        window = window // 2 + 1
    return lambda layer: SlidingAttention(**gqa(layer), window=window)


def xlnet(config: Config) -> tuple[Layer, ...]:
    """The hidden states of earlier tokens, the last mem_len of them if it is set, from which keys are made anew."""
    layer = HiddenStates(width=config.count("d_model"), window=config.optional("mem_len", least=0) or None)
    return (layer,) * config.layers


def reformer(config: Config) -> tuple[Layer, ...]:
    """Hidden states, and in "lsh" layers each token's buckets, per head and hash."""
    words = config.words("attn_layers")
    if not words or not set(words) <= {"local", "lsh"}:
        config.bad("attn_layers", words, 'a list of "local" and "lsh"')
    local = HiddenStates(width=config.hidden)
    buckets = config.product("num_attention_heads", "num_hashes")
    chunk = config.count("lsh_attn_chunk_length")
    hashed = HiddenStates(width=config.hidden, buckets=buckets, chunk=chunk)
    return tuple(hashed if word == "lsh" else local for word in words)


def cpmant(config: Config) -> tuple[Layer, ...]:
    """Every head of dim_head; the prompt_length learned tokens in front are kept as well."""
    size = config.count("dim_head")
    extra = config.count("prompt_length")
    return (FullAttention(kv_heads=config.heads, head_dim=size, v_head_dim=size, extra=extra),) * config.layers


def reference_sliding(config: Config) -> tuple[Layer, ...]:
    """The whole prompt, and a window over what was generated (modeling_unlimited_ocr.py)."""

    def sliding(layer: Config) -> Layer:
        return SlidingAttention(**gqa_split(layer), window=layer.count("sliding_window"), keeps_prompt=True)

    def computed(count: int) -> list[str]:
        return ["reference_sliding_attention" if config.get("sliding_window") is not None else "full_attention"] * count

    return read_layers(config, words_of(config, computed), gqa_split, reference_sliding_attention=sliding)


def split_heads(config: Config) -> tuple[Layer, ...]:
    """As attention, with head_dim always hidden // heads, whatever the config says."""
    return read_layers(config, words_of(config), gqa_split)
