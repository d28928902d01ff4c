"""What memcurve answers to the lines of truth/sglang.jsonl (tests/README.md says how they read)."""

from __future__ import annotations

from typing import Any

from replay import unquantised

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
from memcurve.verify.sglang import difference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memcurve.layers import Layer

KV = {"float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2", "bfloat16": "bf16", "float16": "auto", "float32": "auto"}


def answers(line: dict[str, Any]) -> list[str]:
    """Where memcurve answers otherwise than SGLang did."""
    name = line.get("cls", line.get("model"))
    if "cls" in line:
        found = pool_bytes(line)
        return [
            f"{name} {line['args']}: {k} {found.get(k)}, recorded {v}"
            for k, v in line["bytes"].items()
            if found.get(k) != v
        ]
    config = line.get("config") or unquantised(line["model"])
    texts = [difference(config, case) for case in line["cases"]]
    return [f"{name} {text}" for text in texts if text]


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
    chain: dict[str, Any] = {}
    tree: dict[str, Any] = {}
    if args.get("drafts"):
        options |= {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": args["drafts"]}
        chain, tree = {"speculative_ngram_max_bfs_breadth": 1}, {"speculative_ngram_max_bfs_breadth": 2}

    def held(**more: Any) -> int:
        own = allocator((layer,) * args["n_layers"], **options, **more)
        return own.pool_of(state_slots=args["size"], requests=args.get("requests", 0))["state"]

    pool = allocator((layer,) * args["n_layers"], **options).states
    assert pool is not None
    return {
        "slot": pool.slot_bytes,
        "conv": pool.conv_bytes * (args["size"] + 1),
        "recurrent": pool.recurrent_bytes * (args["size"] + 1),
        "view": held(**tree),
        "storage": held(**chain),
    }
