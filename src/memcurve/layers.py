"""The kinds of layer that keep state between two tokens, one frozen record per kind.

Sizes are those of one layer and one sequence. The properties count elements per slot; how many slots are held, and
in how many bytes each, is for an engine to say. No kind inherits from another, so that order never decides.
"""

from __future__ import annotations

from .base import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, TypeAlias


class FullAttention(Record):
    """Softmax attention over every token (MHA, GQA or MQA by kv_heads): key [kv_heads, T, head_dim], value [kv_heads, T, v_head_dim].

    extra: learned tokens in front of the context that are kept as well. repeated_to: heads that the model's own code
    repeats its keys and values to before it caches them; 0 if it does not.
    """

    kind: ClassVar[str] = "full attention"
    kv_heads: int
    head_dim: int
    v_head_dim: int
    extra: int = 0
    repeated_to: int = 0


class SlidingAttention(Record):
    """Softmax attention over the last `window` tokens, the token itself among them (Longformer, arXiv:2004.05150).

    keeps_prompt: the prompt stays in full, the window slides over what is generated.
    """

    kind: ClassVar[str] = "sliding attention"
    kv_heads: int
    head_dim: int
    v_head_dim: int
    window: int
    keeps_prompt: bool = False


class HiddenStates(Record):
    """The layer's inputs, from which keys and values are made anew (XLNet, arXiv:1906.08237): hidden_state [T, width].

    buckets: hash buckets kept per token as int64 once the context is longer than `chunk` (Reformer, arXiv:2001.04451).
    """

    kind: ClassVar[str] = "hidden states"
    width: int
    window: int | None = None
    buckets: int = 0
    chunk: int = 0


class ChunkedAttention(Record):
    """Softmax attention within chunks of `chunk` tokens (Llama 4)."""

    kind: ClassVar[str] = "chunked attention"
    kv_heads: int
    head_dim: int
    v_head_dim: int
    chunk: int


class LatentAttention(Record):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): latent [T, kv_lora_rank], rope_key [T, rope_head_dim].

    window: only the last so many tokens, where the layer slides.
    """

    kind: ClassVar[str] = "latent attention"
    kv_lora_rank: int
    rope_head_dim: int
    window: int | None = None


class SparseIndexer(Record):
    """The index keys by which sparse attention picks its tokens (DeepSeek-V3.2): index_key [T, head_dim].

    position_dims: int64 positions kept beside each index key. dtype: "model", or the dtype of the keys whatever the model's.
    """

    kind: ClassVar[str] = "sparse indexer"
    head_dim: int
    position_dims: int = 0
    dtype: str = "model"


class CompressedAttention(Record):
    """A window of shared keys and values, and one compressed entry per `ratio` tokens (DeepSeek-V4).

    window_kv [min(T, window), head_dim]; compressed_kv [T // ratio, head_dim]; the T mod ratio tokens that are not
    compressed yet wait with their gates. overlap: each entry also looks at the ratio tokens before its own, and both
    halves wait. index_head_dim: an indexer compresses index keys in the same way; 0 without one.
    """

    kind: ClassVar[str] = "compressed attention"
    head_dim: int
    window: int
    ratio: int
    overlap: bool = False
    index_head_dim: int = 0


class CrossAttention(Record):
    """Attention over an encoder's output: key [kv_heads, E, head_dim], value [kv_heads, E, v_head_dim]."""

    kind: ClassVar[str] = "cross attention"
    kv_heads: int
    head_dim: int
    v_head_dim: int


class GatedDeltaNet(Record):
    """Gated DeltaNet (arXiv:2412.06464): recurrent_state [value_heads, key_dim, value_dim], conv_state over q, k and v.

    conv_kernel None: no convolution.
    """

    kind: ClassVar[str] = "gated delta"
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int | None

    @property
    def conv_channels(self) -> int:
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def recurrent_elements(self) -> int:
        return self.value_heads * self.key_dim * self.value_dim


class KimiDeltaAttention(Record):
    """Kimi Delta Attention (arXiv:2510.26692): recurrent_state [heads, head_dim, head_dim], conv_state over q, k and v."""

    kind: ClassVar[str] = "kimi delta"
    heads: int
    head_dim: int
    conv_kernel: int

    @property
    def conv_channels(self) -> int:
        return 3 * self.heads * self.head_dim

    @property
    def recurrent_elements(self) -> int:
        return self.heads * self.head_dim * self.head_dim


class Mamba(Record):
    """Mamba (arXiv:2312.00752): recurrent_state [intermediate, state_size], conv_state over `intermediate` channels."""

    kind: ClassVar[str] = "mamba"
    intermediate: int
    state_size: int
    conv_kernel: int

    @property
    def conv_channels(self) -> int:
        return self.intermediate

    @property
    def recurrent_elements(self) -> int:
        return self.intermediate * self.state_size


class Mamba2(Record):
    """Mamba-2 (arXiv:2405.21060): recurrent_state [heads, head_dim, state_size], conv_state over x, B and C.

    intermediate: the channels of x as the convolution has them (heads · head_dim in most models).
    """

    kind: ClassVar[str] = "mamba2"
    heads: int
    head_dim: int
    state_size: int
    groups: int
    intermediate: int
    conv_kernel: int

    @property
    def conv_channels(self) -> int:
        return self.intermediate + 2 * self.groups * self.state_size

    @property
    def recurrent_elements(self) -> int:
        return self.heads * self.head_dim * self.state_size


class LightningAttention(Record):
    """Linear attention with decay (Lightning Attention, arXiv:2401.04658): recurrent_state [heads, head_dim, v_head_dim]."""

    kind: ClassVar[str] = "lightning attention"
    heads: int
    head_dim: int
    v_head_dim: int

    @property
    def recurrent_elements(self) -> int:
        return self.heads * self.head_dim * self.v_head_dim


class ShortConv(Record):
    """A causal depthwise convolution that mixes a few tokens (LFM2): conv_state [channels, conv_kernel - 1].

    dtype: "model", or the dtype that the state has whatever the model's. columns: how many are held where that is not
    the engine's usual rule for conv_kernel (a dilated convolution, a shift by one token).
    """

    kind: ClassVar[str] = "short convolution"
    channels: int
    conv_kernel: int
    dtype: str = "model"
    columns: int | None = None


class RWKV(Record):
    """RWKV-5, -6 and -7 (arXiv:2404.05892, 2503.14456): recurrent_state [heads, head_dim, head_dim] and the last token of both mixers."""

    kind: ClassVar[str] = "rwkv"
    hidden: int
    heads: int
    head_dim: int

    @property
    def recurrent_elements(self) -> int:
        return self.heads * self.head_dim * self.head_dim


class RWKV4(Record):
    """RWKV-4 (arXiv:2305.13048): numerator, denominator and maximum [attention_hidden], and the last token of both mixers."""

    kind: ClassVar[str] = "rwkv4"
    hidden: int
    attention_hidden: int


class RGLRU(Record):
    """Real-gated linear recurrent unit (Griffin, arXiv:2402.19427): recurrent_state [width], conv_state over `width` channels."""

    kind: ClassVar[str] = "rg-lru"
    width: int
    conv_kernel: int


class MatrixLSTM(Record):
    """mLSTM of xLSTM (arXiv:2405.04517): matrix [heads, qk_dim, v_dim], normaliser [heads, qk_dim], maximum [heads]."""

    kind: ClassVar[str] = "mlstm"
    heads: int
    qk_dim: int
    v_dim: int


class NoState(Record):
    """Keeps nothing: an MLP or mixture-of-experts layer, or one that reads another layer's keys and values."""

    kind: ClassVar[str] = "no state"
    why: str = "no attention"


class Parallel(Record):
    """One layer that keeps several states at once (attention beside Mamba, self- beside cross-attention)."""

    kind: ClassVar[str] = "parallel"
    parts: tuple[Layer, ...]


Layer: TypeAlias = """(
    FullAttention | SlidingAttention | HiddenStates | ChunkedAttention | LatentAttention | SparseIndexer | CompressedAttention
    | CrossAttention | GatedDeltaNet | KimiDeltaAttention | Mamba | Mamba2 | LightningAttention | ShortConv | RWKV
    | RWKV4 | RGLRU | MatrixLSTM | NoState | Parallel
)"""


def parts(layer: Layer) -> tuple[Layer, ...]:
    """The states that a layer keeps, each of a kind that is not Parallel."""
    return tuple(inner for part in layer.parts for inner in parts(part)) if isinstance(layer, Parallel) else (layer,)
