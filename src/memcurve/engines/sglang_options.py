"""Options of engine sglang: their values checked, and resolved as SGLang 0.5.23's server arguments are on a GPU."""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Record, Refused, show, whole
from ..units import dtype_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
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
# _auto_choose_speculative_params (speculative_hook.py): steps, topk, draft tokens; classes that have others say so
DRAFTS = (3, 1, 4)
# speculative_ngram_max_bfs_breadth, and the draft tokens of _handle_ngram
NGRAM_BREADTH, NGRAM_TOKENS = 10, 12
# handle_gpu_memory_settings (memory_hook.py) on an H100 or H200; less below 60 GiB, twice as much from 160 GiB on
CHUNK = 8192
CHUNK_NOTE = (
    "chunked_prefill_size 8,192, as on an H100: 2,048 to 16,384 by the GPU's memory (handle_gpu_memory_settings), and it "
    "sizes the sliding pool here"
)
# DSA_CHOICES of arg_groups/fields/exec_.py that keep rows otherwise than the others
DSA_BACKENDS = (
    "flashmla_sparse", "flashmla_sparse_q8", "flashmla_kv", "flashmla_auto", "flashinfer_sparse_mla", "triton_sparse_mla",
    "fa3", "tilelang", "triton", "aiter", "trtllm", "intel_xpu",
)  # fmt: skip


class Drafts(Record):
    """What a step of speculative decoding drafts and verifies. layers: of the model's own that draft; steps None: not said.

    algorithm: EAGLE (NEXTN is another name) or NGRAM.
    """

    algorithm: str
    tokens: int
    steps: int | None
    topk: int
    layers: int

    def allocated(self, page: int, overlap: bool) -> int:
        """Tokens that decoding allocates ahead for a request (get_alloc_len_per_decode twice, for the batch in flight,
        else spec_decode_alloc_len_per_request)."""
        steps, topk, tokens = self.steps or 1, self.topk, self.tokens
        if overlap:
            if page == 1 or topk == 1 or self.algorithm == "NGRAM":
                return 2 * max(steps * topk, tokens)
            return 2 * max((page - 1 + steps + page - 1) // page * page * topk, tokens)
        if page > 1:
            steps = -(-(steps + (page if topk > 1 else 0)) // page) * page
            tokens = -(-tokens // page) * page
        return max(steps * topk, tokens)


def flags(**flags: object) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise BadConfig(f"{name}: {show(flag)}; expected True or False")


def ranks(
    tp_size: int, dp_size: int, attn_dp_size: int, attn_cp_size: int, enable_dp_attention: bool
) -> tuple[int, int]:
    """The ranks that share a layer's heads, and the workers among which requests are divided (parallel_hook.py).

    Replicas (dp_size) each have pools of their own; with attention DP a rank holds more heads and fewer requests, with
    attention CP more heads alone: every rank of context parallelism keeps all tokens.
    """
    tp, groups = whole("tp_size", tp_size, 1), whole("attn_dp_size", attn_dp_size, 1)
    replicas, context = whole("dp_size", dp_size, 1), whole("attn_cp_size", attn_cp_size, 1)
    if enable_dp_attention and groups == 1:
        groups, replicas = replicas, 1
    if groups > 1 and replicas > 1:
        raise Refused(
            f"--dp-size {replicas} with --attn-dp-size {groups}: data-parallel replicas combined with attention data "
            "parallelism are not supported."
        )
    if tp % context:
        raise Refused(f"tp_size must be divisible by attn_cp_size, got {tp} and {context}")
    if tp % (groups * context):
        raise Refused(f"tp_size must be divisible by attn_dp_size * attn_cp_size, got {tp} and {groups * context}")
    return tp // groups // context, groups


def check_class(facts: Mapping[str, Any], **sizes: int) -> None:
    """What a model's class refuses by name: facts["refuses"], reasons by option."""
    for name, size in sizes.items():
        reason = facts.get("refuses", {}).get(name)
        if size > 1 and reason is not None:
            raise Refused(reason)
    if sizes.get("pp_size", 1) > 1 and not facts.get("staged", True):
        raise NotDescribed(f"pp_size: {sizes['pp_size']}; the model's class has no pipeline stages in SGLang 0.5.23")


def check_heads(tp: int, heads: int | None, kv_heads: set[int], facts: Mapping[str, Any]) -> list[str]:
    """Attention classes assert that heads divide among ranks, or ranks among key-value heads (models/llama.py,
    LlamaAttention.__init__; those without an assertion divide in QKVParallelLinear.__init__).

    The sizing of pools does not ask: without a class (facts["asserts"]) uneven heads are a note.
    """
    if heads is not None and heads % tp:
        raise Refused(f"{heads} attention heads are not divisible by {tp} ranks (tp_size)")
    notes = []
    for count in sorted(kv_heads):
        if facts.get("whole_heads") and count % tp:
            raise Refused(f"num_k_heads ({count}) must be divisible by tp_size ({tp})")
        if max(count, tp) % min(count, tp) == 0:
            continue
        if facts.get("asserts"):
            rule = "total_num_kv_heads % tp_size" if count > tp else "tp_size % total_num_kv_heads"
            raise Refused(f"assert {rule} == 0: {count} key-value heads and {tp} ranks don't divide")
        notes.append(
            f"{count} key-value heads and {tp} ranks don't divide: SGLang sizes its pools so, but its classes refuse"
        )
    return notes


def kv_bytes(kv_cache_dtype: str, dtype: str, facts: Mapping[str, Any]) -> int:
    """Bytes of an element of keys and values. Sparse attention runs in bf16 or fp8_e4m3, with sinks in bf16 (overrides.py)."""
    fp8, sparse = facts.get("fp8_cache", False), facts.get("sparse", False)
    if facts.get("sinks") and kv_cache_dtype not in ("auto", "bf16", "bfloat16"):
        raise Refused(
            f"Learnable DSA attention sinks require a bfloat16 KV cache; got kv_cache_dtype={show(kv_cache_dtype)}."
        )
    if sparse and kv_cache_dtype not in ("auto", "bf16", "bfloat16", "fp8_e4m3"):
        raise Refused("DeepSeek DSA only supports bf16/bfloat16 or fp8_e4m3 kv_cache_dtype")
    if kv_cache_dtype == "auto":
        return 2 if sparse else 1 if fp8 else dtype_bytes(dtype)
    if kv_cache_dtype in ("nvfp4", "fp4_mx_block16"):
        raise NotDescribed(f"kv_cache_dtype: {kv_cache_dtype} is not described; nearest: fp8_e4m3")
    if kv_cache_dtype not in KV_BYTES:
        raise BadConfig(f"kv_cache_dtype: {show(kv_cache_dtype)}; expected one of auto, {', '.join(KV_BYTES)}")
    return KV_BYTES[kv_cache_dtype]


def packed(kv_cache_dtype: str, prefill: str | None, decode: str | None, sparse: bool) -> bool:
    """calculate_mla_kv_cache_dim: TRT-LLM's backends, and TileLang's where both are, read fp8 latents without scales."""
    for name, backend in (("dsa_prefill_backend", prefill), ("dsa_decode_backend", decode)):
        if backend is not None and backend not in DSA_BACKENDS:
            raise BadConfig(f"{name}: {show(backend)}; expected one of {', '.join(DSA_BACKENDS)}")
        if sparse and backend == "triton":
            raise Refused("The triton DSA backend is only supported on ROCm/HIP.")
    if kv_cache_dtype != "fp8_e4m3":
        return False
    if sparse and (prefill == "tilelang") != (decode == "tilelang"):
        raise Refused(
            "CUDA TileLang FP8 KV requires both DSA backends to be tilelang; raw and scaled FP8 KV layouts cannot be mixed."
        )
    return "trtllm" not in (prefill, decode) and prefill != "tilelang"


def state_bytes(option: str | None, own: str) -> int:
    if option is not None and option not in STATE_BYTES:
        raise BadConfig(f"mamba_ssm_dtype: {show(option)}; expected one of {', '.join(STATE_BYTES)}")
    # An unknown dtype in a config is ignored (mamba2_state_dtype).
    return STATE_BYTES[option] if option is not None else STATE_BYTES.get(own, 4)


def strategy(
    option: str | None,
    page: int,
    no_radix: bool,
    no_overlap: bool,
    interval: int,
    drafts: int | None,
    facts: Mapping[str, Any],
) -> tuple[str | None, list[str]]:
    """mamba_radix_cache_strategy as SGLang resolves it on a GPU, and notes. Not said (None), it is the configurator's own
    reckoning, also where a server would turn its "auto" down: a note then."""
    if option is not None:
        return resolved_strategy(option, page, no_radix, no_overlap, interval, drafts, facts), []
    try:
        resolved_strategy("auto", page, no_radix, no_overlap, interval, drafts, facts)
    except Refused as error:
        return None, [f'a server turns its mamba_radix_cache_strategy "auto" down here: {error}']
    return None, []


def resolved_strategy(
    option: str,
    page: int,
    no_radix: bool,
    no_overlap: bool,
    interval: int,
    drafts: int | None,
    facts: Mapping[str, Any],
) -> str | None:
    """_mamba_radix_cache_resolution, checked as in mamba_hook.py; None without a radix cache."""
    if option not in ("auto", *TRACKING):
        raise BadConfig(f"mamba_radix_cache_strategy: {show(option)}; expected one of auto, {', '.join(TRACKING)}")
    if no_radix:
        return None
    supported, arch = facts.get("extra_buffer", False), facts.get("architecture")
    if option == "auto":
        extra = facts.get("state_cache", True) and supported and (not no_overlap or page > 1)
        option = "extra_buffer" if extra else "no_buffer"
        if option == "no_buffer" and page > 1 and facts.get("state_cache"):
            raise Refused("no_buffer only supports page_size=1.")
    elif option == "no_buffer" and facts.get("state_cache", arch is None):
        if page > 1:
            raise Refused("no_buffer only supports page_size=1.")
        if not no_overlap:
            raise Refused("no_buffer do not support overlap schedule. Try to set disable_overlap_schedule=True.")
    elif option != "no_buffer" and arch is not None:
        if not facts.get("state_cache"):
            raise Refused(f"--mamba-radix-cache-strategy {option} needs mamba state, got {arch}.")
        if not supported:
            raise Refused(f"extra_buffer is not supported for {arch}; use no_buffer.")
    if option == "no_buffer":
        return option
    if option == "extra_buffer_lazy" and no_overlap:
        raise Refused("Lazy extra buffer requires overlap schedule (--disable-overlap-schedule is incompatible)")
    if drafts is not None and interval < drafts:
        raise Refused(f"assert mamba_track_interval >= speculative_num_draft_tokens, got {interval} and {drafts}")
    if interval % page:
        raise Refused(f"assert mamba_track_interval % page_size == 0, got {interval} and {page}")
    return option


def drafts(
    algorithm: str | None,
    tokens: int | None,
    steps: int | None,
    topk: int | None,
    breadth: int | None,
    facts: Mapping[str, Any],
) -> Drafts | None:
    """Speculative decoding as its hook resolves it (speculative_hook.py). NotDescribed with a draft checkpoint's algorithm."""
    given = {
        "speculative_num_draft_tokens": tokens,
        "speculative_num_steps": steps,
        "speculative_eagle_topk": topk,
        "speculative_ngram_max_bfs_breadth": breadth,
    }
    if algorithm is None:
        for name, value in given.items():
            if value is not None:
                raise BadConfig(f"{name}: {show(value)}; expected only with speculative_algorithm")
        return None
    name = algorithm.upper() if isinstance(algorithm, str) else ""
    if name not in (*OWN_DRAFTS, *NO_DRAFT_MODEL):
        raise BadConfig(
            f"speculative_algorithm: {show(algorithm)}; expected one of {', '.join((*OWN_DRAFTS, *NO_DRAFT_MODEL))}"
        )
    for key, value in given.items():
        if value is not None:
            whole(key, value, 1)
    if name in NO_DRAFT_MODEL:
        topk, tokens = breadth or NGRAM_BREADTH, tokens or NGRAM_TOKENS
        return Drafts(algorithm=name, tokens=tokens, steps=steps or tokens // topk, topk=topk, layers=0)
    layers = facts.get("draft_layers", 0)
    if facts.get("undescribed_drafts"):
        raise NotDescribed(
            f"speculative_algorithm: {name} with draft layers of another kind than the model's own; nearest: NGRAM"
        )
    if steps is None and topk is None and tokens is None:
        steps, topk, tokens = facts.get("drafts", DRAFTS)
    elif steps is not None and topk is None:
        raise BadConfig("speculative_eagle_topk: missing; expected a number with speculative_num_steps")
    if topk == 1 and steps is not None:
        tokens = steps + 1  # adjusted whatever was given
    if tokens is None:
        raise BadConfig("speculative_num_draft_tokens: missing; expected a number with speculative_eagle_topk")
    return Drafts(algorithm="EAGLE", tokens=tokens, steps=steps, topk=topk or 1, layers=layers)


def check_drafts(
    drafts: Drafts | None, asked: tuple[str | None, int | None], pp: int, groups: int, sparse: bool, compressed: bool
) -> None:
    """What speculative decoding does not run with (speculative_hook.py, deepseek_v4_hook.py, check_pipeline_parallel_compat).

    asked: algorithm and topk as given, which DeepSeek-V4 goes by; sparse: DeepSeek's sparse attention, in pages on its backend.
    """
    if drafts is None:
        return
    if compressed and str(asked[0]).upper() != "EAGLE":
        raise Refused("Only EAGLE and DSPARK speculative algorithms are supported for DeepseekV4ForCausalLM")
    if compressed and asked[1] != 1:
        raise Refused("Only EAGLE speculative algorithm with topk == 1 is supported for DeepseekV4ForCausalLM")
    if sparse and drafts.topk > 1:
        raise Refused(
            f"speculative_eagle_topk({drafts.topk}) > 1 with page_size > 1 is not supported on the attention backend 'dsa'"
        )
    if drafts.algorithm == "NGRAM" and groups > 1:
        raise Refused("Currently ngram speculative decoding does not support dp attention.")
    if pp > 1 and drafts.algorithm != "EAGLE":
        raise Refused("Pipeline parallelism currently only supports EAGLE (non-multi-layer) speculative decoding")
    if pp > 1:
        raise Refused(
            "PP + speculative decoding (MTP) is only supported on prefill nodes (disaggregation-mode=prefill)"
        )


def server_notes(
    facts: Mapping[str, Any], page_size: int | None, page: int, kv_cache_dtype: str, chunk: int | None
) -> list[str]:
    """What a server does otherwise, or turns down on some GPUs, that the sizing of pools answers. page: as it is reckoned with."""
    notes, own = [], facts.get("page_size")
    if page_size is not None and page_size != page:
        notes.append(f"page_size {page}: a server sets it for this model, whatever is given")
    elif facts.get("sparse") and page != own:
        notes.append(f"a server sets page_size {own} for this model, whatever is given")
    elif chunk is None and CHUNK % page and facts:
        notes.append(
            f"a server turns page_size {page} down with its own chunked_prefill_size, which is no multiple of it"
        )
    if kv_cache_dtype == "mxfp8":
        notes.append("a server turns kv_cache_dtype mxfp8 down on GPUs before Blackwell")
    return notes


def draft_notes(drafts: Drafts, tokens: int | None, page: int) -> list[str]:
    notes = []
    if drafts.algorithm == "NGRAM" and drafts.topk > 1 and page > 1:
        notes.append("a server runs NGRAM with pages of more than one token on the flashinfer backend only")
    if drafts.algorithm not in NO_DRAFT_MODEL and not drafts.layers:
        notes.append("the draft's own checkpoint has a pool beside this one, which is not counted")
    if tokens is None or tokens != drafts.tokens:
        notes.append(f"{drafts.tokens} draft tokens, as SGLang sets them")
    return notes


def requests(option: int | None, workers: int, drafts: Drafts | None, compressed: bool) -> int | None:
    """max_running_requests of one worker; None where the pools decide. 48 under speculative decoding (speculative_hook.py),
    256 for DeepSeek-V4 (apply_deepseek_v4_defaults)."""
    if option is None:
        option = 256 if compressed else 48 if drafts is not None else None
    return None if option is None else max(1, whole("max_running_requests", option, 1) // workers)


def tails(option: int | None) -> int | None:
    """Prefix tails that DeepSeek-V4's window keeps room for, if they are given (handle_cache_compatibility)."""
    if isinstance(option, int) and option < 0:
        raise Refused("--swa-prefix-tails should be a non-negative integer.")
    return None if option is None else whole("swa_prefix_tails", option)


def ratio(name: str, value: Any, default: float, most: float | None = None) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise BadConfig(f"{name}: {show(value)}; expected a number")
    if most is not None and not 0 < value <= most:
        raise Refused("--swa-full-tokens-ratio should be in range (0, 1.0].")
    if not value > 0:
        raise BadConfig(f"{name}: {show(value)}; expected a positive number")
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


def chunk(option: int | None, workers: int, page: int) -> int | None:
    """chunked_prefill_size of one worker (handle_data_parallelism, check_server_args); None if it is not said, 0 without chunks."""
    if option is None:
        return None
    if isinstance(option, bool) or not isinstance(option, int) or abs(option) > 2**40:
        raise BadConfig(f"chunked_prefill_size: {show(option)}; expected an integer, -1 for no chunks")
    size = option // workers
    if size <= 0:
        return 0
    if size % page:
        raise Refused("chunked_prefill_size must be divisible by page_size")
    return size


def swa_cap(requests: int, window: int, page: int, drafts: Drafts | None, chunk: int, overlap: bool) -> int:
    """Sliding tokens live at once with max_running_requests (compute_swa_request_cap)."""
    each = window + EVICTION_INTERVAL * (1 if drafts is None else drafts.tokens) + page
    each += page if drafts is None else drafts.allocated(page, overlap)
    return each * requests + (2 if overlap else 1) * chunk + page
