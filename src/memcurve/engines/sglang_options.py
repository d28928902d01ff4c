"""Options of engine sglang: their values checked, and resolved as SGLang 0.5.23's server arguments are on a GPU."""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Refused, show, whole
from ..units import dtype_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# environ.py, SGLANG_SWA_EVICTION_INTERVAL
EVICTION_INTERVAL = 128
# kv_cache_dtype.py, configure_kv_cache_dtype
KV_BYTES = {"fp8_e4m3": 1, "fp8_e5m2": 1, "mxfp8": 1, "bf16": 2, "bfloat16": 2}
STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# State slots that a running request takes beside its own (get_mamba_tracking_slots with the overlap schedule)
TRACKING = {"no_buffer": 0, "extra_buffer": 2, "extra_buffer_lazy": 1}
# Drafts by layers that the model brings, and drafts without a model. Draft checkpoints of their own are not described.
OWN_DRAFTS, NO_DRAFT_MODEL = ("EAGLE", "NEXTN"), ("NGRAM",)


def flags(**flags: object) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise BadConfig(f"{name}: {show(flag)}; expected True or False")


def ranks(tp_size: int, dp_size: int, attn_dp_size: int, enable_dp_attention: bool) -> tuple[int, int]:
    """The ranks that share a layer's heads, and the workers among which requests are divided (parallel_hook.py).

    Replicas (dp_size) each have pools of their own; with attention DP a rank holds more heads and fewer requests.
    """
    tp, groups = whole("tp_size", tp_size, 1), whole("attn_dp_size", attn_dp_size, 1)
    replicas = whole("dp_size", dp_size, 1)
    if enable_dp_attention and groups == 1:
        groups = replicas
    if tp % groups:
        raise Refused(f"tp_size must be divisible by attn_dp_size * attn_cp_size, got {tp} and {groups}")
    return tp // groups, groups


def check_heads(tp: int, heads: int | None, kv_heads: set[int]) -> list[str]:
    """Every attention class asserts that its query heads divide (models/llama.py, LlamaAttention.__init__). Most assert it
    of key-value heads and ranks too, the fewer of the more; the sizing goes on without: a note."""
    if heads is not None and heads % tp:
        raise Refused(f"{heads} attention heads are not divisible by {tp} ranks (tp_size)")
    return [
        f"{count} key-value heads and {tp} ranks don't divide: SGLang sizes its pools so, but most model classes assert it"
        for count in sorted(kv_heads)
        if max(count, tp) % min(count, tp)
    ]


def kv_bytes(kv_cache_dtype: str, dtype: str, fp8: bool, sparse: bool) -> int:
    """Bytes of an element of keys and values. sparse: DeepSeek's sparse attention runs in bf16 or fp8_e4m3 only."""
    if sparse and kv_cache_dtype not in ("auto", "bf16", "bfloat16", "fp8_e4m3"):
        raise Refused("DeepSeek DSA only supports bf16/bfloat16 or fp8_e4m3 kv_cache_dtype")
    if kv_cache_dtype == "auto":
        return 2 if sparse else 1 if fp8 else dtype_bytes(dtype)
    if kv_cache_dtype in ("nvfp4", "fp4_mx_block16"):
        raise NotDescribed(f"kv_cache_dtype: {kv_cache_dtype} is not described; nearest: fp8_e4m3")
    if kv_cache_dtype not in KV_BYTES:
        raise BadConfig(f"kv_cache_dtype: {show(kv_cache_dtype)}; expected one of auto, {', '.join(KV_BYTES)}")
    return KV_BYTES[kv_cache_dtype]


def packed(kv_cache_dtype: str, prefill: str | None, decode: str | None) -> bool:
    """calculate_mla_kv_cache_dim: TRT-LLM's backends, and TileLang's where both are, read fp8 latents without scales."""
    return kv_cache_dtype == "fp8_e4m3" and "trtllm" not in (prefill, decode) and (prefill, decode) != ("tilelang",) * 2


def state_bytes(option: str | None, own: str) -> int:
    if option is not None and option not in STATE_BYTES:
        raise BadConfig(f"mamba_ssm_dtype: {show(option)}; expected one of {', '.join(STATE_BYTES)}")
    # An unknown dtype in a config is ignored (mamba2_state_dtype).
    return STATE_BYTES[option] if option is not None else STATE_BYTES.get(own, 4)


def strategy(option: str | None, page: int, no_radix: bool, no_overlap: bool, extra_buffer: bool) -> str | None:
    """mamba_radix_cache_strategy as SGLang resolves it on a GPU (_mamba_radix_cache_resolution); None if it is not said."""
    if option is None or no_radix:
        return None
    if option not in ("auto", *TRACKING):
        raise BadConfig(f"mamba_radix_cache_strategy: {show(option)}; expected one of auto, {', '.join(TRACKING)}")
    if option == "auto":
        return "extra_buffer" if extra_buffer and (not no_overlap or page > 1) else "no_buffer"
    if option == "no_buffer" and page > 1:
        raise Refused("no_buffer only supports page_size=1.")
    if option == "extra_buffer_lazy" and no_overlap:
        raise Refused("Lazy extra buffer requires overlap schedule")
    return option


def drafts(algorithm: str | None, tokens: int | None, own_layers: int) -> tuple[int | None, int]:
    """Draft tokens that a step verifies, and the model's own draft layers that keep keys and values beside it."""
    if algorithm is None:
        if tokens is not None:
            raise BadConfig(f"speculative_num_draft_tokens: {show(tokens)}; expected only with speculative_algorithm")
        return None, 0
    name = algorithm.upper() if isinstance(algorithm, str) else ""
    if name not in (*OWN_DRAFTS, *NO_DRAFT_MODEL):
        raise BadConfig(
            f"speculative_algorithm: {show(algorithm)}; expected one of {', '.join((*OWN_DRAFTS, *NO_DRAFT_MODEL))}"
        )
    if tokens is None:
        raise BadConfig("speculative_num_draft_tokens: missing; expected a number with speculative_algorithm")
    return whole("speculative_num_draft_tokens", tokens, 1), own_layers if name in OWN_DRAFTS else 0


def ratio(name: str, value: Any, default: float, most: float | None = None) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise BadConfig(f"{name}: {show(value)}; expected a positive number")
    if most is not None and value > most:
        raise Refused("--swa-full-tokens-ratio should be in range (0, 1.0].")
    return float(value)


def slots(option: int | None, workers: int, by_requests: int | None) -> int | None:
    return by_requests if option is None else whole("max_mamba_cache_size", option, 1) // workers


def context(option: int | None, own: int | None) -> int | None:
    """The longest context (ModelConfig._derive_context_length); None where neither the config nor an option says it."""
    if option is None:
        return own
    length = whole("context_length", option, 1)
    if own is not None and length > own:
        raise Refused(
            f"User-specified context_length ({length}) is greater than the derived context_length ({own}). To allow "
            "overriding this maximum, set the env var SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1"
        )
    return length


def swa_cap(
    requests: int | None, window: int | None, page: int, drafts: int | None, chunk: int | None, no_overlap: bool
) -> int:
    """Sliding tokens live at once with max_running_requests (compute_swa_request_cap)."""
    assert requests is not None
    assert window is not None
    if chunk is None:
        raise BadConfig(
            "chunked_prefill_size: missing; expected a number, since it sizes the sliding pool under disable_radix_cache "
            "with max_running_requests (SGLang's own default depends on the GPU)"
        )
    if drafts is not None:
        raise NotDescribed("speculative decoding with disable_radix_cache and max_running_requests in sliding hybrids")
    size = whole("chunked_prefill_size", chunk, 1)
    each = window + EVICTION_INTERVAL + 2 * page
    return each * requests + (1 if no_overlap else 2) * size + page
