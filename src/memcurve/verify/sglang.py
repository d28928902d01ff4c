"""Asks SGLang 0.5.23 itself, on a CPU: its pools, and its configurators on real configs, compared with memcurve.

    memcurve verify --engine sglang --source WHEEL SUBJECT...    # WHEEL: the folder of an unpacked wheel
    python -m memcurve.verify.sglang WHEEL                       # in a checkout: every line of tests/truth/sglang.jsonl
    python -m memcurve.verify.sglang WHEEL --record              # writes what SGLang says into that file, and compares

Needs torch and transformers, and of SGLang's own requirements msgspec, orjson, requests, pybase64, dill, gguf,
compressed_tensors, fastapi, aiohttp, pyzmq and partial_json_parser.

Run in earnest: ModelConfig on the config.json, ServerArgs' fields as given, KVCacheConfigurator and the configurators
of model_executor/pool_configurator.py, and the pools of mem_cache. Stubbed: compiled and GPU modules (sglang_stubs.py;
each name in them is a class that accepts anything), torch.compile, the model itself (its layers are counted from
ModelConfig), and the measurement of free memory, which is given. Config types that live on the hub only are read as
plain PretrainedConfigs with their own keys. Platform questions are answered as on a machine without a GPU, so defaults
that ask for one (the index dtype of MiniMax-M3, strategies and page sizes that ServerArgs resolves) are not compared.

A line of the file is a pool (`cls`, `args`, `bytes`) or a model (`model`, its `config` or the catalogue's name, `cases`).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import json
import sys
import tempfile
import types
import unittest.mock
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..base import MemcurveError, NotDescribed, Refused
from ..catalog import find
from ..config import Config
from ..engines import keep
from ..engines.sglang_pools import SGLangAllocator
from ..engines.sglang_stages import StagedAllocator
from ..engines.sglang_v4 import CompressedAllocator
from ..model import load
from ..views import view
from ..views.sglang import architecture
from . import Outcome, find_source, read_config, unrun
from .sglang_stubs import VERSION as PINNED
from .sglang_stubs import installed, prepare

__all__ = ["PINNED", "STUBBED", "compare", "installed"]

STUBBED = (
    "stubbed: kernels, the GPU and its free memory (given), and the model class: layers are counted from SGLang's ModelConfig.\n"
    "Ranks that a model's heads do not divide into are not asked: its class would turn them down."
)
# In a checkout
TRUTH = Path(__file__).parents[3] / "tests" / "truth" / "sglang.jsonl"
GIB = 1 << 30
# What is asked about a model: ranks, kv_cache_dtype, GiB
ASKED = [(tp, kv, gib) for tp in (1, 2, 8) for kv in ("auto", "fp8_e4m3") for gib in (16, 400)]
# What a server sets for DeepSeek-V4 before it sizes its pools (deepseek_v4_hook.py)
V4_OPTIONS = {"max_running_requests": 256, "swa_full_tokens_ratio": 0.1}


# -- SGLang's answers ----------------------------------------------------------------------------------------------


class Server:
    """A published configuration of SGLang with these ServerArgs."""

    def __init__(self, **fields: Any) -> None:
        import sglang.srt.runtime_context as runtime

        self.override = runtime.get_context().override_server_args(**fields)

    def __enter__(self) -> Any:
        return self.override.install()

    def __exit__(self, *_: Any) -> None:
        self.override.restore()


def model_config(config: dict[str, Any], folder: str, **options: Any) -> Any:
    """ModelConfig of a config.json that is written into the folder."""
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.utils.hf_transformers.config import _CONFIG_REGISTRY
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name = config.get("model_type")
    if name and name not in CONFIG_MAPPING and name not in _CONFIG_REGISTRY:
        plain = type(
            f"Plain_{name.replace('-', '_')}", (PretrainedConfig,), {"model_type": name, "__module__": "plain"}
        )
        AutoConfig.register(name, plain, exist_ok=True)
    Path(folder, "config.json").write_text(json.dumps(config))
    return ModelConfig(folder, trust_remote_code=False, **options)


@functools.cache
def window_methods(arch: str) -> list[str]:
    """How the module of a model's class defines its window (get_attention_sliding_window_size): the text of each method."""
    import sglang.srt.models

    found = []
    for file in Path(sglang.srt.models.__path__[0]).glob("*.py"):
        entry, _, _ = file.read_text().rpartition("EntryClass")
        if f"class {arch}(" in entry:
            found += [text[:400] for text in entry.split("def get_attention_sliding_window_size")[1:]]
    return found


def window(model: Any) -> int | None:
    """resolve_sliding_window_size. It asks the model's class, which needs kernels to import: its source is read instead."""
    from sglang.srt.model_executor.model_runner_components.load_model_utils import resolve_sliding_window_size

    plain = types.SimpleNamespace()
    if methods := window_methods(model.hf_config.architectures[0]):
        size = model.sliding_window_size - any(" - 1" in text for text in methods)
        plain.get_attention_sliding_window_size = lambda: size
    found: int | None = resolve_sliding_window_size(plain, model)
    return found


def configurator(model: Any, server: Any, page: int, dtype: Any, stage: int, stages: int) -> Any:
    """KVCacheConfigurator of one pipeline stage, without a model: its layers are those that get_pp_indices gives it."""
    import sglang.srt.runtime_context as runtime
    from sglang.srt.configs.model_config import AttentionArch
    from sglang.srt.distributed.utils import get_pp_indices
    from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
    from sglang.srt.model_executor.model_runner_components.layer_setup import resolve_layer_indices
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    own = types.SimpleNamespace()
    if stages > 1:
        own.start_layer, own.end_layer = get_pp_indices(model.num_hidden_layers, stage, stages)
    spec = types.SimpleNamespace(
        draft_model_config=None,
        dflash_draft_num_layers=None,
        eagle_draft_num_layers=model.num_nextn_predict_layers,
        eagle_draft_swa_num_layers=len(model.swa_attention_layer_ids) if model.swa_attention_layer_ids else None,
    )
    return KVCacheConfigurator(
        device="cpu", gpu_id=0, attn_dp_size=runtime.get_parallel().attn_dp_size, pp_size=stages,
        pp_group=types.SimpleNamespace(rank_in_group=stage), model=None,
        model_config=model, server_args=server, kv_cache_dtype=dtype, kv_cache_dtype_str="auto", model_dtype=model.dtype,
        page_size=page, sliding_window_size=window(model) if model.is_hybrid_swa else None,
        spec_algorithm=SpeculativeAlgorithm.from_string(runtime.get_spec().speculative_algorithm), is_draft_worker=False,
        post_capture_kv_active=False, spec_aux_config=spec, is_hybrid_swa=model.is_hybrid_swa,
        is_hybrid_swa_compress=model.is_hybrid_swa_compress, use_mla_backend=model.attention_arch == AttentionArch.MLA,
        layer_info=resolve_layer_indices(model=own, model_config=model, is_draft_worker=False),
        forward_stream=None, req_to_token_pool=None, token_to_kv_pool_allocator=None, memory_pool_config=None,
    )  # fmt: skip


def dtype_of(name: str, model: Any = None) -> Any:
    import torch

    return model.dtype if name == "auto" else {"fp8_e4m3": torch.float8_e4m3fn, "bfloat16": torch.bfloat16}[name]


def size(config: dict[str, Any], folder: str, tp: int, kv: str, gib: int, page: int, **options: Any) -> dict[str, Any]:
    """What SGLang makes of so much memory: cell size, state slots, tokens, requests.

    Of pipeline stages: all of the one whose tokens take the most, and the cell size of each under `stages`.
    """
    count = options.get("pp_size", 1)
    found = [stage_size(config, folder, tp, kv, gib, page, stage, None, **options) for stage in range(count)]
    if count == 1:
        return found[0]
    fewest = min(one["tokens"] for one in found)
    found = [stage_size(config, folder, tp, kv, gib, page, stage, fewest, **options) for stage in range(count)]
    cells = [one["cell"] for one in found]
    return {**found[cells.index(max(cells))], "stages": cells}


def stage_size(
    config: dict[str, Any], folder: str, tp: int, kv: str, gib: int, page: int, stage: int, fewest: int | None, **options: Any
) -> dict[str, Any]:  # fmt: skip
    """One stage; fewest: tokens of the stage with the fewest, which an all-reduce tells the others."""
    import sglang.srt.runtime_context as runtime
    import torch.distributed
    from sglang.srt.environ import envs
    from sglang.srt.model_executor.pool_configurator import create_memory_pool_configurator

    found: dict[str, Any] = {}
    # serving_hook.py hands the option on in the environment
    given = {"_swa_full_tokens_ratio_explicitly_set": "swa_full_tokens_ratio" in options, **options}
    if given.get("chunked_prefill_size", 0) > 0:  # handle_data_parallelism
        given["chunked_prefill_size"] //= given.get("attn_dp_size", 1)
    if given.get("pp_size", 1) > 1:  # _pipeline_parallel_overlap_disable
        given["disable_overlap_schedule"] = True
    reduced: Any = lambda tensor, **_: tensor.fill_(min(int(tensor), int(tensor) if fewest is None else fewest))  # noqa: E731
    with (
        envs.SGLANG_MAMBA_SSM_DTYPE.override(options.get("mamba_ssm_dtype")),
        Server(tp_size=tp, page_size=page, **given) as server,
        unittest.mock.patch.object(torch.distributed, "all_reduce", reduced),
        unittest.mock.patch.object(type(runtime.get_parallel()), "world_group", unittest.mock.MagicMock(), create=True),
    ):
        own_options = {
            name: options[name] for name in ("context_length", "disable_hybrid_swa_memory") if name in options
        }
        model = model_config(config, folder, **own_options)
        kvc = configurator(model, server, page, dtype_of(kv, model), stage, given.get("pp_size", 1))
        rest = float(gib)
        if kvc.mambaish_config is not None:
            params = kvc.mambaish_config.mamba2_cache_params
            found["slot"] = int(params.mamba_cache_per_req)
            rest = kvc._handle_max_mamba_cache(rest)
            found["slots"] = runtime.get_schedule().max_mamba_cache_size
            found["rest"] = int(rest * GIB)
            found["slots_per_request"] = kvc._calculate_mamba_ratio()
        if rest <= 0:  # _profile_available_bytes, which measures memory before it asks for states
            raise ValueError("Loaded weights leave no GPU memory for the KV cache")
        own = create_memory_pool_configurator(kvc)
        if hasattr(own, "bytes_per_full_token"):
            found["cell"] = own.bytes_per_full_token
        elif not hasattr(own, "_swa_cap") or given.get("pp_size", 1) > 1:
            found["cell"] = own._cell_size
        pool = kvc.config_from_budget(int(rest * GIB))
        found["tokens"] = pool.max_total_num_tokens
        if pool.swa_max_total_num_tokens is not None:
            found["full"], found["swa"] = pool.full_max_total_num_tokens, pool.swa_max_total_num_tokens
        found["requests"] = kvc.resolve_max_num_reqs(pool.max_total_num_tokens)
        found["context"], found["dtype"] = model.context_len, str(model.dtype).removeprefix("torch.")
    return found


def allocate(cls: str, args: dict[str, Any]) -> dict[str, int]:
    """Bytes of a pool that SGLang allocates with these arguments."""
    import torch
    from sglang.srt.mem_cache import memory_pool, qsa_kv_pool, swa_memory_pool
    from sglang.srt.mem_cache.memory_pool import MambaPool, get_tensor_size_bytes

    given = dict(args)
    kind = getattr(torch, given.pop("dtype", "float32"))
    common = {"device": "cpu", "enable_memory_saver": False}
    with Server(tp_size=1, page_size=given.get("page_size", 1)):
        if cls == "MambaPool":
            return _mamba(MambaPool, given)
        if cls == "DeepSeekV4TokenToKVPool":
            return _compressed(kind, given)
        if cls == "SWAKVPool":
            swa, full = given.pop("n_swa"), given.pop("n_full")
            pool = swa_memory_pool.SWAKVPool(
                dtype=kind, device="cpu", swa_attention_layer_ids=list(range(swa)),
                full_attention_layer_ids=list(range(swa, swa + full)), **given,
            )  # fmt: skip
        else:
            if cls in ("HybridLinearKVPool", "QSATokenToKVPool"):
                given["mamba_pool"] = None
            if cls == "QSATokenToKVPool":
                given["num_request_slots"] = given.pop("requests") + 1
            if cls == "MiniMaxSparseKVPool":
                given["index_dtype"] = kind
            pool = getattr(qsa_kv_pool if cls == "QSATokenToKVPool" else memory_pool, cls)(
                dtype=kind, **common, **given
            )
        total = pool.get_kv_size_bytes()
        found = {"kv_size": int(sum(total) if isinstance(total, tuple) else total)}
        if cls == "DSATokenToKVPool":
            found["latent"] = sum(get_tensor_size_bytes(one) for one in pool.kv_buffer)
            found["index"] = found["kv_size"] - found["latent"]
        if cls == "MHATokenToKVPool":
            buffers = {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*pool.k_buffer, *pool.v_buffer)
            }
            found["storage"] = sum(buffers.values())
        return found


def _compressed(kind: Any, args: dict[str, Any]) -> dict[str, int]:
    import torch
    from sglang.srt.mem_cache.deepseek_v4_memory_pool import DeepSeekV4TokenToKVPool

    full, swa, page, ratios = args["size"], args["size_swa"], args["page_size"], args["compression_ratios"]
    slots, count = args["requests"] + 1, len(ratios)
    pool = DeepSeekV4TokenToKVPool(
        max_num_reqs=args["requests"], num_req_slots=slots, swa_size=swa, c4_size=full // 4, c128_size=full // 128,
        c4_state_pool_size=swa // page * 8, c128_state_pool_size=slots * 128, page_size=page, swa_page_size=page, dtype=kind,
        c4_state_dtype=torch.float32, c128_state_dtype=torch.float32, qk_nope_head_dim=448, qk_rope_head_dim=64,
        indexer_head_dim=128, layer_num=count, device="cpu", enable_memory_saver=False, compression_ratios=ratios,
        start_layer=0, end_layer=count, full_size=full,
    )  # fmt: skip

    def states(ratio: int) -> int:
        pools = [*pool.compress_state_pools, *pool.indexer_compress_state_pools]
        return sum(one.kv_score_buffer.kv_score.nbytes for one in pools if one is not None and one.ratio == ratio)

    return {
        "swa kv": sum(one.nbytes for one in pool.swa_kv_pool.kv_buffer),
        "compressed kv 4": sum(one.nbytes for one in pool.kv_pools[4].kv_buffer),
        "index 4": sum(one.nbytes for one in pool.index_pools[4].index_k_with_scale_buffer),
        "compressed kv 128": sum(one.nbytes for one in pool.kv_pools[128].kv_buffer),
        "state 4": states(4),
        "state 128": states(128),
    }


def _mamba(cls: Any, args: dict[str, Any]) -> dict[str, int]:
    import torch
    from sglang.srt.configs.mamba_utils import (
        KimiLinearCacheParams,
        KimiLinearStateShape,
        Mamba2CacheParams,
        Mamba2StateDType,
        Mamba2StateShape,
    )
    from sglang.srt.mem_cache.memory_pool import get_tensor_size_bytes

    ids = list(range(args["n_layers"]))
    kind = Mamba2StateDType(conv=torch.bfloat16, temporal=getattr(torch, args["state_dtype"]))
    if "kimi_delta" in args:
        heads, dim, kernel = args["kimi_delta"]
        shape: Any = KimiLinearStateShape.create(
            tp_world_size=args["tp"], num_heads=heads, head_dim=dim, conv_kernel_size=kernel
        )
        params: Any = KimiLinearCacheParams(shape=shape, layers=ids, dtype=kind)
    else:
        if "gated_delta" in args:
            groups, heads, state, dim, kernel = args["gated_delta"]
            intermediate = heads * dim
        else:
            intermediate, groups, heads, dim, state, kernel = args["mamba2"]
        shape = Mamba2StateShape.create(
            tp_world_size=args["tp"], intermediate_size=intermediate, n_groups=groups, num_heads=heads, head_dim=dim,
            state_size=state, conv_kernel=kernel,
        )  # fmt: skip
        params = Mamba2CacheParams(shape=shape, layers=ids, dtype=kind)
    pool = cls(
        size=args["size"], spec_state_size=args.get("requests", 0), cache_params=params, mamba_layer_ids=ids, device="cpu",
        speculative_num_draft_tokens=args.get("drafts"),
    )  # fmt: skip
    cache = pool.mamba_cache
    found = {
        "slot": int(params.mamba_cache_per_req),
        "conv": get_tensor_size_bytes(cache.conv),
        "recurrent": get_tensor_size_bytes(cache.temporal),
        "view": cache.mem_usage_bytes(),
    }
    found["storage"] = found["view"]
    if args.get("drafts"):
        found["storage"] += get_tensor_size_bytes(pool._intermediate_conv_window_phys) - get_tensor_size_bytes(
            cache.intermediate_conv_window
        )
    return {name: int(value) for name, value in found.items()}


# -- comparison ---------------------------------------------------------------------------------------------------


def with_architecture(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the architecture that memcurve takes, where it has none."""
    if config.get("architectures"):
        return config
    described = load(config).config
    assert isinstance(described, Config)
    return {**config, "architectures": [architecture(described)]}


def asked(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases of ASKED, at ranks that the model's heads divide into."""
    compressed = isinstance(load(config).curve("sglang").allocator, CompressedAllocator)
    more: dict[str, Any] = {"options": V4_OPTIONS} if compressed else {}
    pages = (256,) if compressed else (1, 64)
    return [
        {"tp": tp, "kv": kv, "gib": gib, "page": page, **more}
        for tp, kv, gib in ASKED
        if tp == 1 or divides(config, tp)
        for page in pages
    ]


def divides(config: dict[str, Any], tp: int) -> bool:
    try:
        load(config).curve("sglang", tp_size=tp)
    except Refused:
        return False
    return True


def answered(config: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The case with what SGLang says: sizes, or why it refuses."""
    own = case.get("options", {})
    with tempfile.TemporaryDirectory() as folder:
        try:
            return case | size(copy.deepcopy(config), folder, case["tp"], case["kv"], case["gib"], case["page"], **own)
        except (ValueError, RuntimeError, AssertionError) as error:
            return case | {"refused": str(error).split(". ")[0][:160]}


def planned(config: dict[str, Any], options: dict[str, Any]) -> tuple[Any, str]:
    """memcurve's sizing and dtype without the model class, which is stubbed: it would refuse uneven heads."""
    model = load(config)
    seen = view("sglang", model.layers, model.dtype, model.config)
    assert seen.dtype is not None
    facts = {"model": {**seen.facts["model"], "asserts": False, "whole_heads": False}}
    return keep("sglang", seen.layers, seen.dtype, options, facts).allocator, seen.dtype


def sizes(config: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """What memcurve says of a model and an amount of memory, under the names of `size`."""
    options = {
        "tp_size": case["tp"],
        "page_size": case["page"],
        "kv_cache_dtype": case["kv"],
        **case.get("options", {}),
    }
    own, dtype = planned(config, options)
    pool = own.pool(case["gib"] * GIB)
    found: dict[str, Any] = {
        "tokens": pool.tokens,
        "full": pool.full_tokens,
        "swa": pool.swa_tokens,
        "requests": pool.max_running_requests,
        "dtype": dtype,
    }
    if isinstance(own, CompressedAllocator):
        return {**found, "cell": own.full_cell}
    if isinstance(own, StagedAllocator):
        found["stages"] = [cell(one) for one in own.stages]
        own = own.stages[own.bound]
    assert isinstance(own, SGLangAllocator)
    found |= {
        "context": own.context_length,
        "slots": pool.state_slots,
        "slots_per_request": pool.slots_per_request,
        "rest": None if own.states is None else int(own._states(float(case["gib"]))[0] * GIB),
    }
    if "stages" not in found:  # SGLang says the slot of all stages
        found["slot"] = own.states and own.states.slot_bytes
    if own.swa_cap is None or "stages" in found:
        found["cell"] = cell(own)
    return found


def cell(own: SGLangAllocator) -> float:
    """Bytes of a token as _recompute_cell_size has them."""
    full, slid = own.cell_bytes(), own.cell_bytes(sliding=True)
    if not own.hybrid:
        return full
    return full + own.swa_ratio * slid if any(not pool.sliding for pool in own.pools) else slid


def difference(config: dict[str, Any], case: dict[str, Any]) -> str:
    """Where memcurve answers a case otherwise than SGLang did; "" where it says the same."""
    where = f"tp {case['tp']}, {case['kv']}, {case['gib']} GiB, page {case['page']}: "
    try:
        got = sizes(config, case)
    except Refused as error:
        return "" if "refused" in case else f"{where}memcurve refuses: {error}"
    if "refused" in case:
        return f"{where}not refused; SGLang: {case['refused']}"
    differing = [f"{name} {got[name]}, SGLang {case.get(name)}" for name in got if got[name] != case.get(name)]
    return where + "; ".join(differing) if differing else ""


def compare(subjects: Iterable[str], source: str | None = None) -> Iterator[Outcome]:
    """Per subject (a model type, a catalogue name, a config.json) what SGLang's configurators and memcurve make of it."""
    prepare(find_source("sglang", source))
    for subject in subjects:
        config = read_config(subject)
        load(config)
        with contextlib.redirect_stdout(sys.stderr):
            outcome = compare_config(subject, config)
        yield outcome


def compare_config(name: str, config: dict[str, Any]) -> Outcome:
    try:
        cases, config = asked(config), with_architecture(config)
    except (NotDescribed, Refused) as error:
        return unrun(name, error, "refused by memcurve")
    try:
        found = [difference(config, answered(config, case)) for case in cases]
    except MemcurveError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever SGLang's classes raise is the finding
        return unrun(name, error)
    return Outcome(name, len(found), found.count(""), None, next(filter(None, found), ""))


# -- recording, in a checkout --------------------------------------------------------------------------------------


def record(line: dict[str, Any]) -> dict[str, Any]:
    """The line with what SGLang says now."""
    if "cls" in line:
        return {**line, "bytes": allocate(line["cls"], line["args"])}
    config = with_architecture(dict(line.get("config") or find(line["model"]) or {}))
    names = ("tp", "kv", "gib", "page", "options")
    cases = [{name: case[name] for name in names if name in case} for case in line["cases"]]
    return {**line, "cases": [answered(config, case) for case in cases]}


def dump(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":"), default=int)


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask SGLang's pools and configurators again for every recorded case.")
    parser.add_argument("wheel", help="folder of the unpacked wheel")
    parser.add_argument("--record", action="store_true", help="write what SGLang says into tests/truth/sglang.jsonl")
    arguments = parser.parse_args()
    prepare(find_source("sglang", arguments.wheel))
    sys.path.insert(0, str(TRUTH.parents[1]))
    answers = importlib.import_module("replay_sglang").answers
    old = [json.loads(text) for text in TRUTH.read_text().splitlines()]
    new = [record(line) for line in old]
    changed = [line for line, was in zip(new, old, strict=True) if line != was]
    print(f"{TRUTH.name}: {len(new)} lines, {len(changed)} that SGLang answers otherwise")
    if arguments.record:
        TRUTH.write_text("".join(f"{dump(line)}\n" for line in new))
    wrong = [found for line in new for found in answers(line)]
    print(*wrong, f"memcurve: {len(wrong)} wrong answers", sep="\n")
    return 1 if wrong or changed else 0


if __name__ == "__main__":
    sys.exit(main())
