"""What vLLM 0.33.0 reserves for a request on one rank, and the pool that it makes of memory.

Files cited are of vLLM 0.33.0, beneath vllm/. Every layer becomes a spec (get_kv_cache_spec of
model_executor/layers/attention/*.py and layers/mamba/*.py), the platform chooses the tokens of a block
(platforms/interface.py, update_block_size_for_backend), and `vllm_blocks` groups the specs.

bytes(T) = bytes per block · Σ over groups of the blocks that a request of T tokens takes, on the fullest pipeline stage.
Which attention backend runs is as on a GPU with vLLM's own kernels, without FlashInfer and FlashMLA's dense kernels.
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Record, Refused, nearest, show, whole
from ..layers import ChunkedAttention, CompressedAttention, CrossAttention, LatentAttention, SparseIndexer, parts
from ..terms import Kept
from ..units import dtype_bytes
from .ranks import replicated, stage_ends
from .vllm_blocks import Serving, VllmAllocator, bytes_per_block, make_groups, terms_of
from .vllm_specs import (
    DEFAULT_BLOCK,
    DRAFTED,
    EAGLE,
    KV_DTYPES,
    MAMBA_DTYPES,
    METHODS,
    PLAIN,
    TURBOQUANT,
    Options,
    Shape,
    is_attention,
    is_state,
    slides_latent,
)
from .vllm_stages import specs_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..layers import Layer

OPTIONS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "decode_context_parallel_size",
    "kv_cache_dtype",
    "max_model_len",
    "block_size",
    "enable_prefix_caching",
    "mamba_cache_dtype",
    "mamba_ssm_cache_dtype",
    "mamba_cache_mode",
    "mamba_block_size",
    "max_num_batched_tokens",
    "max_num_seqs",
    "async_scheduling",
    "num_speculative_tokens",
    "speculative_method",
    "draft_layers",
    "disable_hybrid_kv_cache_manager",
    "gdn_prefill_backend",
    "gpu",
)
# By bits of an element; of 8 bits the one without scales beside them.
CACHE_DTYPES = (
    {"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "turboquant_k8v4"}, {"kv_cache_dtype": "turboquant_4bit_nc"},
    {"kv_cache_dtype": "int4_per_token_head"}, {"kv_cache_dtype": "turboquant_k3v4_nc"}, {"kv_cache_dtype": "turboquant_3bit_nc"},
)  # fmt: skip


PLAIN_DTYPES = ("auto", "float16", "bfloat16")
MODEL_DTYPES = ("bfloat16", "float16", "float32")  # ModelDType, config/model.py


class Gpu(Record):
    """A device as vLLM's defaults see it: compute capability, and the batch that get_batch_defaults (engine/arg_utils.py) gives it."""

    capability: tuple[int, int]
    max_num_batched_tokens: int
    max_num_seqs: int


# get_batch_defaults: 160 GiB or more; 70 GiB or more and no A100; the rest. Memory by the vendor's data sheets.
LARGE, MIDDLE, SMALL = (16384, 1024), (8192, 1024), (2048, 256)
GPUS = {
    "H100": ((9, 0), MIDDLE),
    "H200": ((9, 0), MIDDLE),
    "H20": ((9, 0), MIDDLE),
    "GH200": ((9, 0), MIDDLE),
    "B200": ((10, 0), LARGE),
    "GB200": ((10, 0), LARGE),
    "B300": ((10, 3), LARGE),
    "A100": ((8, 0), SMALL),
    "A800": ((8, 0), MIDDLE),
    "A10": ((8, 6), SMALL),
    "A10G": ((8, 6), SMALL),
    "A40": ((8, 6), SMALL),
    "L4": ((8, 9), SMALL),
    "L40S": ((8, 9), SMALL),
    "RTX 4090": ((8, 9), SMALL),
    "RTX 5090": ((12, 0), SMALL),
    "RTX PRO 6000": ((12, 0), MIDDLE),
}


def keep(
    layers: Sequence[Layer],
    dtype: str,
    *,
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    decode_context_parallel_size: int = 1,
    kv_cache_dtype: str = "auto",
    max_model_len: int | None = None,
    block_size: int | None = None,
    enable_prefix_caching: bool | None = None,
    mamba_cache_dtype: str = "auto",
    mamba_ssm_cache_dtype: str = "auto",
    mamba_cache_mode: str | None = None,
    mamba_block_size: int | None = None,
    max_num_batched_tokens: int | None = None,
    max_num_seqs: int | None = None,
    async_scheduling: bool | None = None,
    num_speculative_tokens: int = 0,
    speculative_method: str | None = None,
    draft_layers: int = 0,
    disable_hybrid_kv_cache_manager: bool | None = None,
    gdn_prefill_backend: str | None = None,
    gpu: str = "H100",
    longest: int | None = None,
    longest_key: str | None = None,
    assumed: int | None = None,
    state_dtype: str | None = None,
    heads: int = 0,
    head_dim: int = 0,
    kv_heads: int = 0,
    exports: bool = True,
    pipeline: bool = True,
    chunked: bool = True,
    hybrid: bool | None = None,
    quantised: str | None = None,
    sinks: bool = False,
    replicates: bool = True,
    no_float16: str | None = None,
    default_on_10: str | None = None,
    windowed: bool = False,
    wide_pages: bool = True,
    numbered: int | None = None,
    shards: Mapping[str, int] = {},
    modules: int | None = None,
    first_stage: int = 0,
    unquantised: bool = False,
    fixed_states: bool = False,
    notes: tuple[str, ...] = (),
) -> Kept:
    """Options by vLLM's names; from `longest` on what its model classes say of the model.

    longest, longest_key: the longest max_model_len, and the key that says so. assumed: max_model_len where the option does
    not say one. state_dtype: of recurrent states, where the
    model says one. heads, head_dim, kv_heads: of the config's attention. exports: whether
    its gated delta layers hand out states in the middle of a prefill. pipeline: whether its class runs in pipeline stages. chunked: whether its prefill can be cut in chunks. hybrid: whether
    its class counts as one that mixes attention and states, whatever its layers. quantised: the kv_cache_dtype that its
    quantisation says. sinks, replicates, windowed, wide_pages, fixed_states: as Shape has them. no_float16: a model type that is not stable in float16.
    numbered: num_hidden_layers, where the class makes several layers of one.
    shards: sizes of weights by name, which tensor_parallel_size must divide. modules: its modules of multi-token prediction, where
    they are known; 0 where its class has none. first_stage: layers that the first pipeline stage can't do without.
    unquantised: whether its class passes no kv_cache_dtype to its layers.
    default_on_10: the kv_cache_dtype that its class takes for "auto" on compute capability 10 (model_executor/models/config.py).
    """
    tp = whole("tensor_parallel_size", tensor_parallel_size, 1)
    pp = whole("pipeline_parallel_size", pipeline_parallel_size, 1)
    dcp = whole("decode_context_parallel_size", decode_context_parallel_size, 1)
    device = gpu_of(gpu)
    one_of("kv_cache_dtype", kv_cache_dtype, KV_DTYPES)
    if kv_cache_dtype == "auto" and quantised is not None:
        kv_cache_dtype = quantised
    if kv_cache_dtype == "auto" and default_on_10 is not None and device.capability[0] == 10:
        kv_cache_dtype = default_on_10
    one_of("mamba_cache_dtype", mamba_cache_dtype, MAMBA_DTYPES)
    one_of("mamba_ssm_cache_dtype", mamba_ssm_cache_dtype, MAMBA_DTYPES)
    if mamba_cache_mode is not None:
        one_of("mamba_cache_mode", mamba_cache_mode, ("none", "align"))
    if gdn_prefill_backend is not None:
        one_of("gdn_prefill_backend", gdn_prefill_backend, ("auto", "flashinfer", "triton", "cutedsl"))
    if disable_hybrid_kv_cache_manager is not None:
        flag("disable_hybrid_kv_cache_manager", disable_hybrid_kv_cache_manager)
    ahead = runs_ahead(async_scheduling, speculative_method)
    spec = whole("num_speculative_tokens", num_speculative_tokens)
    if speculative_method is not None:
        one_of("speculative_method", speculative_method, METHODS)
    drafts = whole("draft_layers", draft_layers)
    if drafts and speculative_method != "mtp":
        raise BadConfig(f"draft_layers: {drafts}; expected speculative_method='mtp' beside it")
    if drafts and not spec:
        raise BadConfig(f"draft_layers: {drafts}; expected num_speculative_tokens of 1 or more beside it")
    if speculative_method is not None and not spec:
        raise BadConfig(
            f"num_speculative_tokens: 0; expected 1 or more beside speculative_method={speculative_method!r}"
        )
    if dtype not in MODEL_DTYPES:
        raise BadConfig(
            f"dtype: {show(dtype)}; expected one of {', '.join(MODEL_DTYPES)} (kv_cache_dtype=fp8 is the cache's)"
        )
    pieces = [part for layer in layers for part in parts(layer)]
    states = any(is_state(part) for part in pieces) and not windowed
    attends = any(is_attention(part) for part in pieces)
    crosses = any(isinstance(part, CrossAttention) for part in pieces)
    model_len = model_length(max_model_len, longest, longest_key, assumed)
    if enable_prefix_caching is None:
        # is_prefix_caching_supported (config/model.py): not without attention, not with an encoder.
        prefix = (attends if hybrid is None else hybrid or attends) and not crosses
    else:
        prefix = flag("enable_prefix_caching", enable_prefix_caching)
    if mamba_block_size is not None:
        whole("mamba_block_size", mamba_block_size, 1)
        if not prefix and mamba_block_size != model_len:
            raise Refused("--mamba-block-size can only be set with --enable-prefix-caching")
    batched, seqs = batch_of(device, model_len, max_num_batched_tokens, max_num_seqs, chunked)
    check_batch(batched, seqs, model_len, chunked, spec if speculative_method in DRAFTED else 0)
    # max_concurrent_batches (config/vllm.py): a batch per stage, and one more where scheduling runs ahead.
    in_flight = batched * (pp + 1 if ahead else pp)
    check_parallel(tp, pp, dcp, heads, kv_heads, pipeline, any(isinstance(part, LatentAttention) for part in pieces))
    check_shards(tp, shards)
    if speculative_method == "mtp":
        check_modules(spec, modules if attends else 0)
    e = dtype_bytes(dtype)
    if no_float16 is not None and dtype == "float16":
        raise Refused(
            f"The model type {no_float16!r} does not support float16. Reason: Numerical instability. Please use bfloat16 or float32 instead."
        )
    if kv_cache_dtype in ("float16", "bfloat16") and kv_cache_dtype != dtype:
        raise Refused(
            f'kv_cache_dtype="{kv_cache_dtype}" is incompatible with dtype="{dtype}". '
            f"Please set `--kv-cache-dtype` to {'`auto`' if dtype == 'float32' else f'`auto` or `{dtype}`'}."
        )
    if unquantised and kv_cache_dtype not in PLAIN_DTYPES:
        if kv_cache_dtype in TURBOQUANT:
            raise NotDescribed("vllm: turboquant where the model's class passes no kv_cache_dtype to its layers")
        kv_cache_dtype = "auto"
    conv = e if mamba_cache_dtype == "auto" else dtype_bytes(mamba_cache_dtype)
    state = mamba_ssm_cache_dtype if mamba_ssm_cache_dtype != "auto" else state_dtype or "auto"
    options = Options(
        tp=tp,
        pp=pp,
        dcp=dcp,
        kv_dtype=kv_cache_dtype,
        element=e if kv_cache_dtype == "auto" else PLAIN.get(kv_cache_dtype, 1),
        block=None if block_size is None else whole("block_size", block_size, 1),
        state_block=mamba_block_size or ((block_size or DEFAULT_BLOCK) if prefix else model_len or 1),
        align=states and prefix,
        in_flight=in_flight,
        spec=spec,
        # Several MTP modules read further ahead than one (num_prefill_lookahead_tokens, config/vllm.py).
        retained=max(0, min(drafts, spec) - 1) if speculative_method == "mtp" and drafts > 1 else 0,
        conv_element=conv,
        state_dtype=state,
        checkpoints=exports and gdn_prefill_backend in (None, "auto", "flashinfer"),
        capability=device.capability,
    )
    shape = Shape(
        heads=heads,
        head_dim=head_dim,
        kv_heads=kv_heads,
        encoder_tokens=batched,
        sinks=sinks,
        replicates=replicates,
        windowed=windowed,
        wide_pages=wide_pages,
        fixed_states=fixed_states,
    )
    if pp > 1 and stage_ends("vllm", len(layers), pp)[0] < first_stage:
        raise Refused(f"start_layer should be greater than or equal to len(deepstack_visual_indexes), {first_stage}")
    specs, ranks = specs_of(layers, options, shape, drafts, numbered or len(layers))
    if dcp > 1 and not attends:
        raise Refused("decode context parallelism needs key-value heads; the model has none")
    packed = any(isinstance(part, CompressedAttention) or slides_latent(part) for part in pieces)
    if packed and disable_hybrid_kv_cache_manager:
        raise Refused("MLAAttentionSpec has no bounded_replay: windows over entries can't be held in full")
    chunks = any(isinstance(part, ChunkedAttention) for part in pieces)
    disabled = without_hybrid(disable_hybrid_kv_cache_manager, chunks and speculative_method in EAGLE)
    groups = make_groups(specs, ranks, pp, disabled, packed) if specs else ()
    block_bytes = tuple(bytes_per_block(groups, rank, packed) for rank in range(pp)) if groups else ()
    if 0 in block_bytes:
        raise Refused(
            f"integer division or modulo by zero: stage {block_bytes.index(0) + 1} of {pp} holds no layer that keeps anything, and "
            "vLLM divides the memory of each by its bytes per block"
        )
    return Kept(
        terms=terms_of(groups, block_bytes),
        notes=(*replicated(layers, options.tp), *notes_of(options, speculative_method, drafts, pieces), *notes),
        allocator=VllmAllocator(
            groups=groups,
            block_bytes=block_bytes,
            max_model_len=model_len,
            serving=Serving(
                max_num_batched_tokens=batched,
                max_num_seqs=seqs,
                prefix_caching=prefix,
                ahead=ahead,
                chunked=chunked,
                unknown=unscheduled(pp, spec, crosses, packed, states and dcp > 1),
            ),
        ),
    )


def unscheduled(pp: int, spec: int, crosses: bool, packed: bool, split: bool) -> str | None:
    """Why the scheduling of requests is not described, if so."""
    if pp > 1:
        return f"pipeline_parallel_size {pp}: a request decodes every {pp} steps, which is not described"
    if spec:
        return f"num_speculative_tokens {spec}: how many tokens a step gives depends on what is accepted"
    if split:
        return "decode context parallelism beside states: how hits within a block are copied is not described"
    if crosses:
        return "cross-attention: blocks for an encoder's output depend on the input"
    if packed:
        return "compressed attention: what a resumed request replays of its window is not described"
    return None


# -- options ----------------------------------------------------------------------------------------------------------


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in known:
        hint = nearest(str(value), list(known), 1)
        raise BadConfig(
            f"{name}: {show(value)}; expected one of {', '.join(known)}" + (f" (nearest: {hint})" if hint else "")
        )


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadConfig(f"{name}: {show(value)}; expected True or False")
    return value


def gpu_of(name: object) -> Gpu:
    """A GPU by its short name, or by the name that vLLM logs ("NVIDIA H100 80GB HBM3")."""
    if isinstance(name, str):
        words = f" {name.lower().replace('-', ' ')} "
        for known, (capability, (batched, seqs)) in GPUS.items():
            if f" {known.lower()} " in words:
                return Gpu(capability=capability, max_num_batched_tokens=batched, max_num_seqs=seqs)
    one_of("gpu", name, tuple(GPUS))
    raise AssertionError(name)


def alike(name: str, capability: tuple[int, int] | None, memory_bytes: int) -> str:
    """A GPU here of the same compute capability whose memory gives it the same batch; else one with the same batch.

    NotDescribed for one without a compute capability: which attention backend runs there, and with it the blocks, is not read.
    """
    if capability is None:
        raise NotDescribed("engine vllm is described on NVIDIA's GPUs; give gpu_memory and the gpu of them that is nearest")
    slow = "A100" in name or capability == (12, 1)  # get_batch_defaults: GB10 has the memory, not the compute
    batch = SMALL if memory_bytes < 70 * 2**30 or slow else MIDDLE if memory_bytes < 160 * 2**30 else LARGE
    names = [name for name, (_, own) in GPUS.items() if own == batch]
    found = [name for name in names if GPUS[name][0] == capability]
    near = [name for name in names if GPUS[name][0][0] == capability[0]]
    if not found and not near:
        raise NotDescribed(f"engine vllm: no GPU of compute capability {capability[0]}.{capability[1]} and this memory is described")
    return (found or near)[0]


def batch_of(
    device: Gpu, model_len: int | None, max_num_batched_tokens: int | None, max_num_seqs: int | None, chunked: bool
) -> tuple[int, int]:
    """max_num_batched_tokens and max_num_seqs, where they are not given as _set_default_max_num_seqs_and_batched_tokens_args
    (engine/arg_utils.py) sets them."""
    seqs = device.max_num_seqs if max_num_seqs is None else whole("max_num_seqs", max_num_seqs, 1)
    if max_num_batched_tokens is not None:
        batched = whole("max_num_batched_tokens", max_num_batched_tokens, 1)
    else:
        batched = device.max_num_batched_tokens
        if model_len is not None:
            batched = min(seqs * model_len, batched if chunked else max(batched, model_len))
    return batched, min(seqs, batched) if max_num_seqs is None else seqs


def model_length(asked: int | None, longest: int | None, key: str | None, usual: int | None) -> int | None:
    """max_model_len (config/model.py, _get_and_verify_max_len); None where neither the option nor the config says one."""
    if asked is None:
        return longest if usual is None else usual
    length = whole("max_model_len", asked, 1)
    if longest is not None and length > longest:
        raise Refused(
            f"User-specified max_model_len ({length}) is greater than the derived max_model_len ({key}={longest} in model's "
            "config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
    return length


def check_parallel(tp: int, pp: int, dcp: int, heads: int, kv_heads: int, pipeline: bool, latent: bool) -> None:
    """verify_with_parallel_config (config/model.py), with its words."""
    if heads % tp:
        raise Refused(f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tp}).")
    if pp > 1 and not pipeline:
        raise Refused(
            "Pipeline parallelism is not supported for this model. Supported models implement the `SupportsPP` interface."
        )
    if dcp > 1 and tp % dcp:
        raise Refused(f"tp_size={tp} must be divisible by dcp_size={dcp}.")
    if dcp > 1 and not latent and kv_heads:
        if tp <= kv_heads:
            raise Refused(
                f"Decode context parallelism for GQA/MQA requires `--tensor-parallel-size` ({tp}) to be greater than the "
                f"model's total number of KV heads ({kv_heads}). Increase `--tensor-parallel-size` or set "
                "`--decode-context-parallel-size 1`."
            )
        if dcp > tp // kv_heads:
            raise Refused(
                f"`--decode-context-parallel-size` ({dcp}) exceeds the maximum supported value ({tp // kv_heads}) for "
                f"`--tensor-parallel-size` ({tp}) and {kv_heads} model KV heads."
            )
        if heads // kv_heads % dcp:
            raise Refused(
                f"The model's number of query heads per KV head ({heads // kv_heads}) must be divisible by "
                f"`--decode-context-parallel-size` ({dcp}) for GQA/MQA."
            )


def runs_ahead(asked: bool | None, method: str | None) -> bool:
    """async_scheduling, which suffix decoding can't have: it runs in the first model runner (VllmConfig.__post_init__)."""
    if asked is not None and flag("async_scheduling", asked) and method == "suffix":
        raise Refused(
            "Async scheduling is not supported by the V1 model runner with suffix-based speculative decoding."
        )
    return method != "suffix" if asked is None else asked


def check_batch(batched: int, seqs: int, model_len: int | None, chunked: bool, lookahead: int) -> None:
    """verify_max_model_len (config/scheduler.py) and _set_max_num_scheduled_tokens (config/vllm.py), with their words.

    lookahead: num_lookahead_tokens, the tokens that a draft writes ahead.
    """
    if model_len is not None and batched < model_len and not chunked:
        raise Refused(
            f"max_num_batched_tokens ({batched}) is smaller than max_model_len ({model_len}). This effectively limits the maximum "
            "sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. Please increase "
            "max_num_batched_tokens or decrease max_model_len."
        )
    if batched < seqs:
        raise Refused(f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs ({seqs}).")
    if lookahead and batched <= lookahead:
        raise Refused(
            "VllmConfig does not have enough slots to schedule a token and support the speculative decoding settings. Got "
            f"max_num_batched_tokens={batched} and num_lookahead_tokens={lookahead}."
        )


def check_shards(tp: int, shards: Mapping[str, int]) -> None:
    """Sizes of weights that the model class divides among the ranks (divide, distributed/utils.py)."""
    for name, size in shards.items():
        if size % tp:
            raise Refused(f"{size} is not divisible by {tp} ({name})")


def check_modules(spec: int, modules: int | None) -> None:
    """hf_config_override and __post_init__ of config/speculative.py: a draft of the model's own modules."""
    if modules == 0:
        raise Refused("Unsupported speculative method: 'mtp'")
    if modules is not None and spec > modules and spec % modules:
        raise Refused(f"num_speculative_tokens:{spec} must be divisible by n_predict={modules}")


def without_hybrid(asked: bool | None, needed: bool) -> bool:
    """disable_hybrid_kv_cache_manager; chunks beside an Eagle-like draft need it (VllmConfig.__post_init__)."""
    if asked is False and needed:
        raise Refused(
            "Hybrid KV cache manager was explicitly enabled but is not supported in this configuration. Consider omitting the "
            "--enable-hybrid-kv-cache-manager flag to let vLLM decide automatically."
        )
    return needed if asked is None else asked


def notes_of(options: Options, method: str | None, drafts: int, kinds: Sequence[Layer]) -> tuple[str, ...]:
    """What the numbers stand on that an installation may have otherwise."""
    notes = []
    if method in DRAFTED and not drafts:
        notes.append(
            f"the target model alone: layers of the {method} draft are not counted; draft_layers says how many it has"
        )
    latent = any(isinstance(part, LatentAttention) for part in kinds)
    sparse = any(isinstance(part, SparseIndexer) for part in kinds)
    major, free = options.capability[0], options.block is None
    if latent and not sparse and major == 9 and free and options.kv_dtype in ("fp8", "fp8_e4m3"):
        notes.append("blocks as without FlashMLA's dense kernels; where they load, vLLM takes block_size 64")
    if major == 10 and free and any(is_attention(part) for part in kinds):
        notes.append("blocks as without FlashInfer; where it is installed, vLLM may take others, which block_size says")
    return tuple(notes)
