"""The caches of vLLM's layers: how many tokens a block has, and what each layer keeps of it on one rank.

Files cited are of vLLM 0.33.0, beneath vllm/.
"""

from __future__ import annotations

from math import lcm

from ..base import NotDescribed, Record, Refused, assert_never
from ..layers import (
    RGLRU,
    RWKV,
    RWKV4,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaNet,
    HiddenStates,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    MatrixLSTM,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
    SparseIndexer,
    parts,
)  # fmt: skip
from ..units import dtype_bytes
from .vllm_blocks import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..layers import Layer

    Tensors = tuple[tuple[str, int], ...]

DEFAULT_BLOCK = 16
# Bits of keys and values in turboquant's presets (layers/quantization/turboquant/config.py); 8-bit keys are plain fp8.
TURBOQUANT = {
    "turboquant_k8v4": (8, 4),
    "turboquant_4bit_nc": (4, 4),
    "turboquant_k3v4_nc": (3, 4),
    "turboquant_3bit_nc": (3, 3),
}
# Bits of an element where each token and head has a scale in float32 beside it (backends/triton_attn.py, customize_spec).
SCALED = {"int8_per_token_head": 8, "fp8_per_token_head": 8, "int4_per_token_head": 4}
PLAIN = {"float16": 2, "bfloat16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
# Known to config/cache.py, and without a kernel that the platform would choose.
NO_BACKEND = (
    "fp8_inc", "fp8_ds_mla", "nvfp4_ds_mla", "octave_k3v4", "octave_k3v3", "octave_k3v3_compact", "ultraquant_4bit",
    "nvfp4", "nvfp4_4over6",
)  # fmt: skip
KV_DTYPES = ("auto", *PLAIN, *SCALED, *TURBOQUANT, *NO_BACKEND)
MAMBA_DTYPES = ("auto", "float32", "float16", "bfloat16")
# What Triton reads in fp8 (platforms/cuda.py asks for SM89), and what the sparse backends of a capability read.
FP8_KERNELS = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_per_token_head")
SPARSE_DTYPES = {
    9: ("auto", "float16", "bfloat16", "fp8", "fp8_ds_mla"),
    10: ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla"),
}
# Speculation with layers of its own beside the target's (config/speculative.py, use_eagle), and without.
EAGLE = ("mtp", "eagle", "eagle3")
DRAFTED = (*EAGLE, "draft_model")
METHODS = (*DRAFTED, "ngram", "ngram_gpu", "suffix")
# A page of the sparse kernels: an index key is fp8 with a float32 scale per 128 (models/deepseek_v32/attention.py);
# the quantised latent keeps 512 fp8, 4 float32 scales and a rope key in bf16 (MLAAttentionSpec of fp8_ds_mla).
INDEX_GROUP, SPARSE_BLOCK = 128, 64
# Tokens of a page that FlashAttention 4 reads heads of 256 in.
WIDE_PAGE = 128
# Compressed attention: rotary dimensions of an entry, bytes that a page is a multiple of, tokens of a block.
ROPE_DIM, ENTRY_ALIGNMENT, COMPRESSED_BLOCK = 64, 576, 256


class Options(Record):
    """The options as vLLM resolves them before it sees the layers."""

    tp: int
    pp: int
    dcp: int
    kv_dtype: str
    element: int
    block: int | None
    state_block: int
    align: bool
    in_flight: int
    spec: int
    retained: int
    conv_element: int
    state_dtype: str
    checkpoints: bool
    capability: tuple[int, int]


class Shape(Record):
    """What the platform and the planning ask of the whole model (config/model.py), beside its layers.

    heads: query heads. head_dim, kv_heads: what the model's config says of its attention, which is what blocks are aligned
    by. encoder_tokens: the most that an encoder may give in one batch
    (max_num_encoder_input_tokens, config/scheduler.py). sinks: learned logits beside the keys.
    replicates: whether more ranks than key-value heads hold one each. windowed: whether short convolutions are no states,
    but windows of as many tokens as they reach (models/inkling/nvidia/sconv_swa_attn.py). wide_pages: whether
    the kernel for heads of 256 may read it, which has neither capped logits nor both directions over an image
    (_fa4_hd256_fallback_reason, backends/fa_utils.py). fixed_states: whether layers of Kimi Delta Attention keep float32 whatever
    the option says, by which pages are aligned all the same (layers/mamba/gdn/kimi_gdn_linear_attn.py, get_state_dtype).
    """

    heads: int = 0
    head_dim: int = 0
    kv_heads: int = 0
    encoder_tokens: int = 0
    sinks: bool = False
    replicates: bool = True
    windowed: bool = False
    wide_pages: bool = True
    fixed_states: bool = False


def is_state(part: Layer) -> bool:
    return isinstance(part, (GatedDeltaNet, KimiDeltaAttention, Mamba, Mamba2, LightningAttention, ShortConv))


def is_attention(part: Layer) -> bool:
    kinds = (FullAttention, SlidingAttention, ChunkedAttention, LatentAttention, CrossAttention, CompressedAttention)
    return isinstance(part, kinds)


def slides_latent(part: Layer) -> bool:
    return isinstance(part, LatentAttention) and part.window is not None


class Sizer:
    """The tokens of a block, as update_block_size_for_backend (platforms/interface.py) chooses them, and the spec of each layer."""

    def __init__(
        self, layers: Sequence[Layer], states: Sequence[Layer], options: Options, shape: Shape, plain: bool | None
    ) -> None:
        """layers: those of one stage. states: of the whole model. plain: whether turboquant leaves the first that attends as it
        is; None where it leaves none so."""
        self.options, self.shape, self.states = options, shape, states
        pieces = list({id(part): part for layer in layers for part in parts(layer)}.values())
        self.attention = [part for part in pieces if is_attention(part)]
        own = [part for part in pieces if is_state(part)]
        self.exports = options.checkpoints and bool(own) and all(hands_out(part, options.capability) for part in own)
        self.latent = any(isinstance(part, LatentAttention) for part in self.attention)
        self.sparse = any(isinstance(part, SparseIndexer) for part in pieces)
        self.packed = any(isinstance(part, CompressedAttention) for part in pieces)
        self.differs = any(
            isinstance(part, (FullAttention, SlidingAttention)) and part.head_dim != part.v_head_dim
            for part in self.attention
        )
        self.page: int | None = None
        self.kernel = self.kernel_block()
        if self.attention:
            asked = options.block
            if asked is not None and asked % self.kernel:
                raise Refused(
                    f"No valid attention backend found for cuda with block_size={asked}. Reasons: block_size not supported "
                    f"(expected a multiple of {self.kernel})"
                )
            self.block = max(DEFAULT_BLOCK, self.kernel) if asked is None else asked
            if self.states:
                self.align_states()
            if plain is not None:
                self.align_mixed(plain)
        else:
            self.block = options.block or DEFAULT_BLOCK

    def kernel_block(self) -> int:
        """The smallest block of the attention backend that the platform chooses (platforms/cuda.py, get_attn_backend_cls).

        16 for FLASH_ATTN, TRITON_ATTN, TURBOQUANT, FLASH_ATTN_MLA and TRITON_MLA; 64 for the sparse backends and their
        indexer; 128 for CUTLASS_MLA and for FlashAttention 4 with heads of 256 on compute capability 10, each given way to
        TRITON_MLA and TRITON_ATTN where the asked block is no multiple of it; 64 for FlashAttention 4 over an fp8 cache with
        heads of 512 on 9.
        """
        options, kv = self.options, self.options.kv_dtype
        if not self.attention:
            return 1
        major = options.capability[0]
        half = options.element == 2
        if self.packed:
            if kv != "auto" and not kv.startswith("fp8"):
                raise Refused(
                    f"DeepseekV4 only supports fp8 kv-cache, got {kv}. Please set `--kv-cache-dtype` to `fp8`."
                )
            if major == 12:
                raise NotDescribed("vllm: compressed attention on compute capability 12, where FlashInfer reads it")
            if options.dcp > 1:
                raise Refused("DCP not support sliding window.")
            if options.block is not None and options.block % COMPRESSED_BLOCK:
                raise NotDescribed("vllm: compressed attention in blocks that are no multiple of 256 tokens")
            return COMPRESSED_BLOCK
        if self.sparse:
            known = SPARSE_DTYPES.get(major, ())
            if kv not in known or (kv == "auto" and not half):
                self.no_backend()
            if any(slides_latent(part) for part in self.attention) and kv not in ("auto", "float16", "bfloat16"):
                raise Refused("FlashAttnMLASparseImpl currently supports only FP16/BF16 KV cache.")
            if major == 9 and options.dcp > 1 and not kv.startswith("fp8"):
                raise Refused(
                    "DCP for FlashMLA sparse requires an fp8_ds_mla kv-cache; the bf16 sparse path is not supported under DCP."
                )
            asked = options.block
            return 32 if major == 10 and asked is not None and asked % SPARSE_BLOCK else SPARSE_BLOCK
        if kv in NO_BACKEND:
            self.no_backend()
        if kv in FP8_KERNELS and options.capability < (8, 9):
            raise Refused(
                f"kv_cache_dtype={kv} on compute capability {major}.{options.capability[1]}: native FP8 (fp8e4nv) requires SM89+. "
                "Re-run with --kv-cache-dtype bfloat16."
            )
        if self.latent:
            if kv in SCALED or kv in TURBOQUANT or kv == "fp8_e5m2" or (kv == "auto" and not half):
                self.no_backend()
            return 128 if major == 10 and (options.block is None or options.block % 128 == 0) else DEFAULT_BLOCK
        if self.differs:
            self.check_differing()
        slides = any(isinstance(part, SlidingAttention) for part in self.attention)
        if kv in TURBOQUANT and (self.shape.sinks or (slides and not self.shape.windowed)):
            self.no_backend()
        fp8 = kv in ("fp8", "fp8_e4m3")
        if major == 9 and fp8 and self.shape.head_dim == 512:
            return 64
        if self.shape.head_dim == 256 and self.reads_wide_pages():
            return WIDE_PAGE if options.block is None or options.block % WIDE_PAGE == 0 else DEFAULT_BLOCK
        return DEFAULT_BLOCK

    def reads_wide_pages(self) -> bool:
        """Whether heads of 256 are read by the kernel for them (_fa4_hd256_fallback_reason, backends/fa_utils.py)."""
        options = self.options
        plain = options.kv_dtype in ("auto", "float16", "bfloat16") and options.element == 2
        return options.capability[0] == 10 and self.shape.wide_pages and plain and options.dcp == 1

    def check_differing(self) -> None:
        """Which caches the kernels for values of another size than keys read (backends/flash_attn_diffkv.py on compute capability
        9 and 10, triton_attn_diffkv.py on the others)."""
        kv, major = self.options.kv_dtype, self.options.capability[0]
        if major not in (9, 10) or kv in TURBOQUANT:
            if kv in SCALED or kv in TURBOQUANT or kv == "fp8_e5m2":
                raise Refused(
                    f"TritonAttentionDiffKVBackend supports only fp8/fp8_e4m3 quantized KV cache (got kv_cache_dtype='{kv}')."
                )
        elif kv == "fp8_e5m2" or (major == 10 and (kv in SCALED or kv in FP8_KERNELS)):
            raise Refused(f"FlashAttention does not support {kv} kv-cache on this device.")

    def no_backend(self) -> None:
        raise Refused(
            f"No valid attention backend found for cuda with kv_cache_dtype={self.options.kv_dtype}, elements of "
            f"{self.options.element} bytes"
        )

    def align_states(self) -> None:
        """Blocks so long that a page of attention holds a state, and states padded to it (_align_hybrid_block_size)."""
        options = self.options
        state = max(sum(size for _, size in state_tensors(part, options)) for part in self.states)
        if not state:
            return
        token = self.token_bytes()
        unit = max(self.kernel, self.block)
        if self.latent:
            # Decode kernels want a multiple of 128 tokens.
            unit = max(unit, 128)
        if options.align and self.exports:
            unit = lcm(unit, 64)
        self.block = max(self.block, unit * -(-state // (unit * token)))
        self.page = self.block * token

    def token_bytes(self) -> int:
        """Bytes of a token in an attention layer, by the sizes of the model's config."""
        first = self.attention[0]
        if isinstance(first, LatentAttention):
            return (first.kv_lora_rank + first.rope_head_dim) * self.options.element
        assert isinstance(first, (FullAttention, SlidingAttention, ChunkedAttention, CrossAttention))
        heads, width = self.shape.kv_heads or first.kv_heads, self.shape.head_dim or first.head_dim
        return sum(size for _, size in self.kv(self.ranked(heads), width, width))

    def align_mixed(self, plain: bool) -> None:
        """Blocks whose quantised page holds 16 tokens of a layer that is left as it is (_align_heterogeneous_kv_block_size).

        The first layer's backend decides how long a quantised token is. One that is left as it is packs nothing: an element
        counts as one byte.
        """
        first = self.attention[0]
        assert isinstance(first, (FullAttention, SlidingAttention, ChunkedAttention))
        heads = self.ranked(self.shape.kv_heads or first.kv_heads)
        width = self.shape.head_dim or first.head_dim
        packed = sum(size for _, size in self.kv(heads, width, width))
        quantised = 2 * heads * width if plain else packed
        whole = 2 * heads * width * 2
        self.block = max(self.block, self.block * -(-whole * DEFAULT_BLOCK // (self.block * quantised)))

    def ranked(self, heads: int) -> int:
        """Key-value heads of one rank: divided, or one each where there are more ranks than heads (config/model.py, get_num_kv_heads)."""
        tp = self.options.tp
        if tp > heads and not self.shape.replicates:
            raise Refused(
                f"{heads} key-value heads on {tp} ranks: the model class divides them, and does not replicate them"
            )
        if heads % tp if heads >= tp else tp % heads:
            raise Refused(
                f"{heads} key-value heads and tensor_parallel_size {tp}: the model class asserts that one divides the other"
            )
        return max(1, heads // tp)

    def kv(self, heads: int, width: int, v_width: int, plain: bool = False) -> Tensors:
        """key and value of one token in one layer of a rank, in the cache's dtype."""
        kv = self.options.kv_dtype
        if plain:
            return ("key", heads * width * 2), ("value", heads * v_width * 2)
        # FlashAttention, where the class asks for no other backend, keeps bytes, and no scales.
        if kv in SCALED and not (self.differs or self.shape.windowed):
            bits = SCALED[kv]
            return ("key", heads * (width * bits // 8 + 4)), ("value", heads * (v_width * bits // 8 + 4))
        if kv in TURBOQUANT and not self.shape.windowed:
            keys, values = TURBOQUANT[kv]
            key = width if keys == 8 else -(-width * keys // 8) + 2
            slot = key + -(-v_width * values // 8) + 4
            return (("key_value", heads * (slot + slot % 2)),)
        return ("key", heads * width * self.options.element), ("value", heads * v_width * self.options.element)

    def spec(self, part: Layer, plain: bool = False) -> Iterator[Spec]:
        """What vLLM keeps of one layer; nothing for one without a cache. plain: turboquant leaves this one as it is."""
        options = self.options
        match part:
            case FullAttention():
                if part.extra:
                    raise NotDescribed("vllm: learned tokens in front of the context are not described for this engine")
                tensors = self.kv(self.ranked(part.kv_heads), part.head_dim, part.v_head_dim, plain)
                yield self.pages(part.kind, "full", tensors, tokens=options.dcp)
            case SlidingAttention():
                if options.dcp > 1:
                    raise Refused("DCP not support sliding window.")
                tensors = self.kv(self.ranked(part.kv_heads), part.head_dim, part.v_head_dim, plain)
                held = part.window - 1 + options.retained + options.in_flight
                spec = self.pages(part.kind, "sliding", tensors, held=held, window=part.window)
                # A window's block is its own kernel's, where that can't read the others' (Attention.get_kv_cache_spec).
                wide = part.head_dim == 256 and options.block is None and self.reads_wide_pages()
                yield spec.resized(WIDE_PAGE) if wide and self.block % WIDE_PAGE else spec
            case ChunkedAttention():
                tensors = self.kv(self.ranked(part.kv_heads), part.head_dim, part.v_head_dim, plain)
                held = part.chunk + options.in_flight
                yield self.pages(part.kind, "chunked", tensors, held=held, window=part.chunk)
            case LatentAttention():
                tensors = self.latent_tensors(part)
                if part.window is None:
                    row = sum(size for _, size in tensors)
                    yield self.pages(part.kind, "latent", tensors, tokens=options.dcp).replace(stride=row)
                elif options.dcp > 1:
                    raise Refused("DCP not support sliding window.")
                else:
                    held = part.window - 1 + options.retained + options.in_flight
                    yield self.pages(part.kind, "sliding", tensors, held=held, window=part.window)
            case SparseIndexer():
                scales = 4 * (part.head_dim // INDEX_GROUP)
                keys: Tensors = (("index_key", part.head_dim), ("scale", scales))
                spec = self.pages(part.kind, "latent", keys, tokens=options.dcp)
                yield spec.replace(stride=1 if spec.block <= SPARSE_BLOCK else spec.row * SPARSE_BLOCK)
            case CrossAttention():
                tensors = self.kv(self.ranked(part.kv_heads), part.head_dim, part.v_head_dim)
                held = -(-self.shape.encoder_tokens // self.block)
                yield self.pages(part.kind, "cross", tensors, held=held)
            case ShortConv() if self.shape.windowed:
                yield self.window_of_convolutions(part)
            case GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2() | LightningAttention() | ShortConv():
                own = self.shape.fixed_states and isinstance(part, KimiDeltaAttention)
                tensors = state_tensors(part, options.replace(state_dtype="auto") if own else options)
                row = sum(size for _, size in tensors)
                page = self.page or row
                if page < row:
                    raise Refused(
                        f"{part.kind}: a state of {row:,} bytes is larger than the page of {page:,} bytes that its config gives"
                    )
                # With prefix caching blocks of states are as long as those of the stage's attention, if there is any.
                block = self.block if options.align and self.attention else options.state_block
                yield Spec(
                    kind=part.kind,
                    cache="state",
                    tensors=tensors,
                    block=block,
                    page=page,
                    held=self.states_held(part),
                    export=self.export_grid(part, block),
                )
            case NoState():
                pass
            case CompressedAttention():
                yield from self.compressed(part)
            case HiddenStates() | RWKV() | RWKV4() | RGLRU() | MatrixLSTM():
                raise NotDescribed(f"vllm: {part.kind} is not described for this engine")
            case Parallel():
                raise AssertionError("parts() leaves none")
            case _:
                assert_never(part)

    def pages(self, kind: str, cache: str, tensors: Tensors, held: int = 0, window: int = 0, tokens: int = 1) -> Spec:
        row = sum(size for _, size in tensors)
        return Spec(
            kind=kind,
            cache=cache,
            tensors=tensors,
            block=self.block,
            page=row * self.block,
            held=held,
            window=window,
            tokens=tokens,
        )

    def window_of_convolutions(self, part: ShortConv) -> Spec:
        """The last tokens of convolutions in one block of a window, in bf16; ranks share the heads (InklingConvState)."""
        size = 2 * divided(part.channels, self.options.tp)
        kernel = part.conv_kernel
        return Spec(
            kind=part.kind,
            cache="sliding",
            tensors=(("conv_state", size),),
            block=kernel,
            page=size * kernel,
            held=kernel - 1 + self.options.in_flight,
            window=kernel,
        )

    def compressed(self, part: CompressedAttention) -> Iterator[Spec]:
        """A window, compressed entries, and the float32 tokens that wait for theirs to fill (models/deepseek_v4/attention.py).

        An entry is 448 fp8, a rope key of 64 in bf16 and 8 bytes of scales; an index key 128 fp8 and a float32 scale. What
        waits are keys and gates of one ratio, or of two where entries overlap. Every page is a multiple of 576 bytes.
        """
        entry = part.head_dim - ROPE_DIM + 2 * ROPE_DIM + 8
        size = (("entry", entry),)
        yield self.padded("window", "sliding", size, 64, part.window)
        if not part.ratio:
            return
        halves = 2 if part.overlap else 1
        tokens, window = (4, 8) if part.overlap else (8, part.ratio)
        for name, width, row in (
            ("index key", part.index_head_dim, part.index_head_dim + 4),
            ("compressed attention", part.head_dim, entry),
        ):
            if width:
                entries = ((name.split()[0], row),)
                spec = self.padded(name, "latent", entries, self.block, ratio=part.ratio)
                kernel = self.padded(name, "latent", entries, COMPRESSED_BLOCK, ratio=part.ratio)
                yield spec.replace(stride=1 if spec.block == kernel.block else kernel.page)
                waiting = (("waiting_kv", halves * width * 4), ("waiting_gate", halves * width * 4))
                yield self.padded("waiting tokens", "sliding", waiting, tokens, window)

    def padded(self, kind: str, cache: str, tensors: Tensors, block: int, window: int = 0, ratio: int = 1) -> Spec:
        size = sum(size for _, size in tensors) * block // ratio
        return Spec(
            kind=kind,
            cache=cache,
            tensors=tensors,
            block=block,
            page=-(-size // ENTRY_ALIGNMENT) * ENTRY_ALIGNMENT,
            held=window - 1 + self.options.in_flight if window else 0,
            window=window,
            ratio=ratio,
        )

    def latent_tensors(self, part: LatentAttention) -> Tensors:
        rank, kv = part.kv_lora_rank, self.options.kv_dtype
        if self.sparse and (kv == "fp8_ds_mla" or (kv == "fp8" and self.options.capability[0] == 9)):
            # 512 fp8, a float32 scale per 128 of them, the rope key in bf16: 656 bytes.
            return ("latent", rank), ("scale", 4 * (rank // 128)), ("rope_key", 2 * part.rope_head_dim)
        e = self.options.element
        if kv == "nvfp4_ds_mla":
            # Nibbles and a byte of scale per 16 of them, beside the rope key in fp8: 352 bytes.
            return ("latent", rank // 2), ("scale", rank // 16), ("rope_key", part.rope_head_dim)
        return ("latent", part.kv_lora_rank * e), ("rope_key", part.rope_head_dim * e)

    def states_held(self, part: Layer) -> int:
        """Blocks of a request for a state (MambaSpec.max_memory_usage_bytes): with prefix caching one more to move on into, and
        one for a checkpoint inside a prefill where the layer can export it (get_kv_cache_spec of each layer)."""
        if not self.options.align:
            return 1 + self.options.spec
        return 2 + self.options.spec + (isinstance(part, Mamba2) or self.exports)

    def export_grid(self, part: Layer, block: int) -> int:
        """Tokens that the place of a state handed out in a prefill is a multiple of: any for Mamba-2, blocks for gated delta layers
        where all states are theirs (get_mamba_prefill_checkpoint_grid, layers/mamba/abstract.py); 0 where none is."""
        if not self.options.align:
            return 0
        return 1 if isinstance(part, Mamba2) else block if self.exports else 0


def hands_out(part: Layer, capability: tuple[int, int]) -> bool:
    """Whether FlashInfer's kernel for a gated delta rule runs, which hands out states in the middle of a prefill
    (layers/mamba/gdn/qwen_gdn_linear_attn.py)."""
    if not isinstance(part, GatedDeltaNet):
        return False
    return capability[0] == 9 or (capability[0] in (10, 12) and part.key_dim == 128)


def divided(size: int, tp: int) -> int:
    if size % tp:
        raise Refused(f"{size} is not divisible by {tp}")
    return size // tp


def state_tensors(part: Layer, options: Options) -> Tensors:
    """(name, bytes) of one layer's state on one rank (layers/mamba/mamba_utils.py, MambaStateShapeCalculator).

    The convolution keeps K - 1 columns and one more per token that is speculated, except in Mamba-1. A state has the
    convolution's dtype unless an option or the model says another; KDA's is float32.
    """
    tp, c = options.tp, options.conv_element
    s = c if options.state_dtype == "auto" else dtype_bytes(options.state_dtype)
    match part:
        case GatedDeltaNet():
            if part.conv_kernel is None:
                raise NotDescribed("vllm: a gated delta rule without a convolution is not described for this engine")
            conv = divided(part.conv_channels, tp) * (part.conv_kernel - 1 + options.spec) * c
            return ("conv_state", conv), (
                "recurrent_state",
                divided(part.value_heads, tp) * part.value_dim * part.key_dim * s,
            )
        case KimiDeltaAttention():
            if options.state_dtype == "float16":
                raise Refused("KDA recurrent state supports only auto, float32, and bfloat16; got float16")
            s = 4 if options.state_dtype == "auto" else s
            conv = divided(part.conv_channels, tp) * (part.conv_kernel - 1 + options.spec) * c
            return ("conv_state", conv), ("recurrent_state", divided(part.heads, tp) * part.head_dim**2 * s)
        case Mamba():
            inner = divided(part.intermediate, tp)
            return ("conv_state", inner * (part.conv_kernel - 1) * c), ("recurrent_state", inner * part.state_size * s)
        case Mamba2():
            # Groups are shared out with the heads; a single one goes to every rank (extra_groups_for_head_shards, mamba_mixer2.py).
            if part.groups % tp and part.groups != 1:
                raise Refused("If tensor parallel world size does not divide num_groups, then num_groups must equal 1.")
            groups = part.groups if part.groups % tp == 0 else tp
            channels = divided(part.intermediate + 2 * groups * part.state_size, tp)
            conv = channels * (part.conv_kernel - 1 + options.spec) * c
            return ("conv_state", conv), (
                "recurrent_state",
                divided(part.heads, tp) * part.head_dim * part.state_size * s,
            )
        case LightningAttention():
            return (("recurrent_state", part.heads // tp * part.head_dim * part.v_head_dim * c),)
        case ShortConv():
            columns = part.conv_kernel - 1 if part.columns is None else part.columns
            return (("conv_state", divided(part.channels, tp) * (columns + options.spec) * c),)
        case _:
            return ()
