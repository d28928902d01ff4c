"""What memcurve answers to the lines of truth/sglang.jsonl (tests/README.md says how they read)."""

from __future__ import annotations

from typing import Any

from memcurve import Refused, load
from memcurve.catalog import find
from memcurve.engines import keep
from memcurve.engines.sglang_pools import SGLangAllocator
from memcurve.engines.sglang_v4 import CompressedAllocator
from memcurve.layers import (
    CompressedAttention,
    FullAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    Mamba2,
    Parallel,
    SlidingAttention,
    SparseIndexer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memcurve.layers import Layer

GIB = 1 << 30
KV = {"float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2", "bfloat16": "bf16", "float16": "auto", "float32": "auto"}


def answers(line: dict[str, Any]) -> list[str]:
    """Where memcurve answers otherwise than SGLang did."""
    name = line.get("cls", line.get("model"))
    found = pool_bytes(line) if "cls" in line else None
    if found is not None:
        return [
            f"{name} {line['args']}: {k} {found.get(k)}, recorded {v}"
            for k, v in line["bytes"].items()
            if found.get(k) != v
        ]
    wrong = []
    for case in line["cases"]:
        if "refused" in case:
            if not refuses(line, case):
                wrong.append(f"{name} {case}: not refused")
            continue
        got = sizes(line, case)
        differing = {k: (got[k], case.get(k)) for k in got if got[k] != case.get(k)}
        if differing:
            wrong.append(f"{name} tp {case['tp']} {case['kv']} {case['gib']} GiB page {case['page']}: {differing}")
    return wrong


def refuses(line: dict[str, Any], case: dict[str, Any]) -> bool:
    try:
        sizes(line, case)
    except Refused:
        return True
    return False


def allocator(
    layers: tuple[Layer, ...], dtype: str = "bfloat16", model: dict[str, Any] | None = None, **options: Any
) -> SGLangAllocator:
    found = keep("sglang", layers, dtype, options, {"model": model or {}}).allocator
    assert isinstance(found, SGLangAllocator)
    return found


def pool_bytes(line: dict[str, Any]) -> dict[str, int]:
    """The pool of a line: layers of its arguments, and the bytes of its sizes."""
    args, cls = line["args"], line["cls"]
    if cls == "MambaPool":
        return _states(args)
    if cls == "DeepSeekV4TokenToKVPool":
        return _compressed(args)
    options: dict[str, Any] = {"page_size": args["page_size"], "kv_cache_dtype": KV[args["dtype"]]}
    dtype = args["dtype"] if KV[args["dtype"]] == "auto" else "bfloat16"
    layers = _layers(cls, args)
    if cls == "DSATokenToKVPool" and args["kv_cache_dim"] == args["kv_lora_rank"] + args["qk_rope_head_dim"]:
        # The raw layout of an fp8 latent, as TRT-LLM's backend reads it
        options["dsa_decode_backend"] = "trtllm"
    if cls == "MHATokenToKVPoolMXFP8":
        options["kv_cache_dtype"] = "mxfp8"
    own = allocator(layers, dtype, {"index_ratio": args.get("qsa_compress_ratio", 0)}, **options)
    sizes = {"tokens": args["size"], "swa_tokens": args.get("size_swa"), "requests": args.get("requests", 0)}
    pools = own.pool_of(**sizes)
    found = {"kv_size": sum(pools.values())}
    if cls == "DSATokenToKVPool":
        found |= {"latent": pools["latent"], "index": pools["index"]}
    if cls == "MHATokenToKVPool":
        found["storage"] = sum(own.pool_of(**sizes, storage=True).values())
    return found


def _compressed(args: dict[str, Any]) -> dict[str, int]:
    window = SlidingAttention(kv_heads=1, head_dim=512, v_head_dim=512, window=128)
    kinds: dict[int, Layer] = {
        0: window,
        4: CompressedAttention(head_dim=512, window=128, ratio=4, overlap=True, index_head_dim=128),
        128: CompressedAttention(head_dim=512, window=128, ratio=128),
    }
    layers = tuple(kinds[ratio] for ratio in args["compression_ratios"])
    own = keep("sglang", layers, "bfloat16", {"page_size": args["page_size"]}, {}).allocator
    assert isinstance(own, CompressedAllocator)
    return own.pool_of(args["size"], args["size_swa"], args["requests"])


def _layers(cls: str, args: dict[str, Any]) -> tuple[Layer, ...]:
    count = int(args.get("layer_num", 0))
    if cls in ("MLATokenToKVPool", "DSATokenToKVPool"):
        latent = LatentAttention(kv_lora_rank=args["kv_lora_rank"], rope_head_dim=args["qk_rope_head_dim"])
        if cls == "MLATokenToKVPool":
            return (latent,) * count
        indexed = Parallel(parts=(latent, SparseIndexer(head_dim=args["index_head_dim"])))
        skipped = args.get("skip_topk_layers") or [False] * count
        return tuple(latent if skip else indexed for skip in skipped)
    heads = (args["head_num"], args["head_dim"], args.get("v_head_dim", args["head_dim"]))
    full = FullAttention(kv_heads=heads[0], head_dim=heads[1], v_head_dim=heads[2])
    if cls == "SWAKVPool":
        narrow = SlidingAttention(kv_heads=heads[0], head_dim=heads[1], v_head_dim=heads[2], window=128)
        return (narrow,) * int(args["n_swa"]) + (full,) * int(args["n_full"])
    if cls in ("HybridLinearKVPool", "QSATokenToKVPool"):
        # Beside layers with a state, which make it such a pool
        state = GatedDeltaNet(key_heads=1, value_heads=1, key_dim=1, value_dim=1, conv_kernel=4)
        kept: list[Layer] = [full] * len(args["full_attention_layer_ids"])
        if cls == "QSATokenToKVPool":
            index = SparseIndexer(head_dim=args["qsa_index_head_dim"])
            # The positions of a group's keys are kept once
            kept = [Parallel(parts=(full, index.replace(position_dims=3)))]
            kept += [Parallel(parts=(full, index))] * (len(args["full_attention_layer_ids"]) - 1)
        return (state, *kept)
    if cls == "MiniMaxSparseKVPool":
        alone = SparseIndexer(head_dim=args["idx_head_dim"])
        both = alone.replace(head_dim=2 * args["idx_head_dim"])
        spared = args["disable_value_sparse_layer_ids"]
        sparse = [Parallel(parts=(full, alone if i in spared else both)) for i in args["sparse_layer_ids"]]
        return (*[full] * len(args["dense_layer_ids"]), *sparse)
    return (full,) * count


def _states(args: dict[str, Any]) -> dict[str, int]:
    """MambaPool. view: what SGLang reports, where windows of a chain of drafts overlap; storage: what it allocates."""
    layer: Layer
    if "kimi_delta" in args:
        heads, dim, kernel = args["kimi_delta"]
        layer = KimiDeltaAttention(heads=heads, head_dim=dim, conv_kernel=kernel)
    elif "gated_delta" in args:
        key_heads, heads, key_dim, dim, kernel = args["gated_delta"]
        layer = GatedDeltaNet(
            key_heads=key_heads, value_heads=heads, key_dim=key_dim, value_dim=dim, conv_kernel=kernel
        )
    else:
        intermediate, groups, heads, dim, state, kernel = args["mamba2"]
        layer = Mamba2(
            heads=heads, head_dim=dim, state_size=state, groups=groups, intermediate=intermediate, conv_kernel=kernel
        )
    options: dict[str, Any] = {"tp_size": args["tp"], "mamba_ssm_dtype": args["state_dtype"]}
    if args.get("drafts"):
        options |= {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": args["drafts"]}

    def held(**more: Any) -> int:
        own = allocator((layer,) * args["n_layers"], **options, **more)
        return own.pool_of(state_slots=args["size"], requests=args.get("requests", 0))["state"]

    pool = allocator((layer,) * args["n_layers"], **options).states
    assert pool is not None
    return {
        "slot": pool.slot_bytes,
        "conv": pool.conv_bytes * (args["size"] + 1),
        "recurrent": pool.recurrent_bytes * (args["size"] + 1),
        "view": held(speculative_eagle_topk=2) if args.get("drafts") else held(),
        "storage": held(),
    }


def sizes(line: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """What memcurve says of a model and an amount of memory, under the names of the file."""
    config = line.get("config") or find(line["model"])
    assert config is not None
    options = {
        "tp_size": case["tp"],
        "page_size": case["page"],
        "kv_cache_dtype": case["kv"],
        **case.get("options", {}),
    }
    curve = load(config).curve("sglang", **options)
    own = curve.allocator
    assert isinstance(own, (SGLangAllocator, CompressedAllocator))
    pool = own.pool(case["gib"] * GIB)
    found: dict[str, Any] = {
        "tokens": pool.tokens,
        "full": pool.full_tokens,
        "swa": pool.swa_tokens,
        "requests": pool.max_running_requests,
        "dtype": curve.dtype,
    }
    if isinstance(own, CompressedAllocator):
        return {**found, "cell": own.full_cell}
    found |= {
        "context": own.context_length,
        "slots": pool.state_slots,
        "slots_per_request": pool.slots_per_request,
        "slot": own.states and own.states.slot_bytes,
        "rest": None if own.states is None else int(own._states(float(case["gib"]))[0] * GIB),
    }
    if not own.hybrid:
        found["cell"] = own.cell_bytes()
    elif own.swa_cap is None:
        full, slid = own.cell_bytes(), own.cell_bytes(sliding=True)
        found["cell"] = full + own.swa_ratio * slid if any(not pool.sliding for pool in own.pools) else slid
    return found
