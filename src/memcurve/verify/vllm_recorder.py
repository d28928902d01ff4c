"""Runs vLLM's own planning code on a CPU, and compares what it reserves with memcurve.

    python -m memcurve.verify.vllm_recorder WHEEL compare                the catalogue's configs, with vLLM's defaults
    python -m memcurve.verify.vllm_recorder WHEEL compare JOBS.jsonl     configs and options of a file
    python -m memcurve.verify.vllm_recorder WHEEL check                  every config and option of tests/truth/vllm.jsonl, recorded again
    python -m memcurve.verify.vllm_recorder WHEEL rewrite                the same, and writes the file
    python -m memcurve.verify.vllm_recorder WHEEL record [--gpu B200] < JOBS.jsonl > RECORDED.jsonl

WHEEL is a folder with vLLM 0.33.0 unpacked; torch, Transformers below 5.21 and vLLM's pure Python requirements must be
installed. A job is {"id", "config", "options"}, options as `Model.curve(engine="vllm")` takes them.

What runs is vLLM's: EngineArgs, the model class on the meta device, its layers' cache specs, the platform's choice of
block size, grouping, and planning. What is stubbed:

- the platform: CudaPlatformBase with the name, capability and memory of a GPU (GPUS) that is not there;
- the compiled extensions and what only kernels need (COMPILED): importing them gives empty modules, their operators say no.
  So FlashMLA's dense kernels and FlashInfer count as not installed; FlashAttention 2, 3 and 4 as supported where the
  capability of the GPU allows, Triton and DeepGEMM as installed;
- tensors: everything that a model class makes goes to the meta device;
- the process groups: objects with a size and a rank, for tensor, pipeline and context parallelism, on nodes of their own;
- processors of images and sound, which the Transformers backend asks what a tower takes: it takes nothing; towers that can't be
  built from a short config are left out;
- tokenizers, weights and quantised kernels: a config's quantization_config is left out.

A draft of multi-token prediction is built beside its target's last stage where the options say draft_layers.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from .vllm_stubs import GIB, GPUS, groups_of, on_meta, prepare

# In a checkout
TRUTH = Path(__file__).parents[3] / "tests" / "truth" / "vllm.jsonl"

LENGTHS = (1, 12, 16, 17, 129, 1000, 1024, 4096, 8192, 8193, 32768, 65536, 131072, 262144, 1048576)
# Keys that a published config has and a short one may leave out, with a value, or the key of one.
LFM2 = {
    "block_dim": "hidden_size", "conv_dim": "hidden_size", "conv_dim_out": "hidden_size", "block_ff_dim": "intermediate_size",
    "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
}  # fmt: skip
LEFT_OUT: dict[str, dict] = {
    "gemma4": {"vision_config": {}}, "lfm2": LFM2, "lfm2_moe": LFM2, "minimax_m2": {"rotary_dim": 64, "scoring_func": "sigmoid"},
}  # fmt: skip
# Characters that the file keeps of the reason of a pool that does not start.
KEPT = 200
MEMORIES = (20 * GIB, 40 * GIB, 60 * GIB, 7_777_777_777)


def engine_args(config: dict, requested: dict, folder: str):
    """EngineArgs of a job. The config is written into a folder, without what only weights need."""
    from vllm.engine.arg_utils import EngineArgs

    data = completed(config)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(data, file)
    with open(os.path.join(folder, "added_tokens.json"), "w") as file:
        json.dump({"<|imgpad|>": 0}, file)
    options = {name: value for name, value in requested.items() if name not in ("gpu", "draft_layers")}
    tokens, method = options.pop("num_speculative_tokens", 0), options.pop("speculative_method", None)
    if method:
        options["speculative_config"] = {"method": method, "num_speculative_tokens": tokens}
        if method == "ngram":
            options["speculative_config"]["prompt_lookup_max"] = 4
    if "gdn_prefill_backend" in options:
        options["additional_config"] = {"gdn_prefill_backend": options.pop("gdn_prefill_backend")}
    return EngineArgs(
        model=folder,
        tokenizer_mode="auto",
        skip_tokenizer_init=True,
        load_format="dummy",
        trust_remote_code=False,
        **options,
    )


def completed(config: dict) -> dict:
    """The config without what only weights need, and with what a published one has and a short one may leave out: an architecture,
    towers by their class, the factors of a long rope."""
    from memcurve.config import class_defaults, read_type

    data = copy.deepcopy(
        {key: value for key, value in config.items() if key not in ("quantization_config", "auto_map")}
    )
    data.setdefault("model_type", read_type(data))
    if not data.get("architectures"):
        data["architectures"] = (class_defaults(read_type(data)) or {}).get("arch", [])[:1]
    for level in (data, data.get("text_config") or {}):
        for key, value in LEFT_OUT.get(level.get("model_type", ""), {}).items():
            level.setdefault(key, level.get(value) if isinstance(value, str) else value)
    rope = data.get("rope_scaling") or data.get("rope_parameters")
    if isinstance(rope, dict) and "longrope" in (rope.get("type"), rope.get("rope_type")):
        size = data["hidden_size"] // data["num_attention_heads"]
        size = data.get("qk_rope_head_dim") or int(size * data.get("partial_rotary_factor", 1))
        factors = {key: rope.get(key) or [1.0] * (size // 2) for key in ("short_factor", "long_factor")}
        data["rope_scaling"] = {**rope, **factors}
    return data


def build(vllm_config, rank: int, drafts: bool):
    """One pipeline rank's layers, by vLLM's model class on the meta device; they register themselves in the config."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model

    parallel = vllm_config.parallel_config
    groups_of(
        parallel.tensor_parallel_size, parallel.pipeline_parallel_size, rank, parallel.decode_context_parallel_size
    )
    vllm_config.compilation_config.static_forward_context.clear()
    old = torch.get_default_dtype()
    torch.set_default_dtype(vllm_config.model_config.dtype)
    try:
        with torch.device("meta"), on_meta(), set_current_vllm_config(vllm_config):
            model = initialize_model(vllm_config=vllm_config)
            if drafts and rank == parallel.pipeline_parallel_size - 1:
                build_draft(vllm_config)
            return model
    finally:
        torch.set_default_dtype(old)


def build_draft(vllm_config) -> None:
    """Builds the draft model beside the target, as the speculator's loader does, and marks its layers."""
    speculative = vllm_config.speculative_config
    if speculative is None or speculative.draft_model_config is None or speculative.method in ("ngram", "suffix"):
        return
    from vllm.model_executor.model_loader.utils import initialize_model

    context = vllm_config.compilation_config.static_forward_context
    before = set(context)
    initialize_model(vllm_config=vllm_config, model_config=speculative.draft_model_config, prefix="draft")
    for name in set(context) - before:
        with contextlib.suppress(AttributeError):
            context[name].is_draft_layer = True


def plan(vllm_config, drafts: bool):
    """Specs of every pipeline rank at the platform's block size, and the groups over all of them."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    ranks, specs, layouts, backends = vllm_config.parallel_config.pipeline_parallel_size, [], [], {}
    register_all_kvcache_specs(vllm_config)
    for rank in range(ranks):
        # A worker of several has a config of its own (multiproc_executor.py), and its block size follows from its own layers.
        own = vllm_config if vllm_config.parallel_config.world_size == 1 else copy.deepcopy(vllm_config)
        build(own, rank, drafts)
        current_platform.update_block_size_for_backend(own)
        own.validate_block_size()
        with set_current_vllm_config(own):
            specs.append(get_kv_cache_spec(own))
            layouts.append([one.name for one in get_supported_kv_cache_layouts(get_current_attn_backends(own))])
        for name, layer in own.compilation_config.static_forward_context.items():
            with contextlib.suppress(AttributeError, NotImplementedError):
                backends.setdefault(layer.get_attn_backend().get_name(), name)
    resolve_kv_cache_layout(vllm_config, layouts, [spec for one in specs for spec in one.values()])
    return specs, backends


def record(config: dict, requested: dict, lengths: tuple[int, ...] = (), memories: tuple[int, ...] = MEMORIES) -> dict:
    """What vLLM makes of one config and its options: options as resolved, specs, groups, bytes by length and by memory."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.core import kv_cache_planning as planning
    from vllm.v1.core.kv_cache_config_builder import get_kv_cache_config_builder

    os.environ.pop("VLLM_MLA_DISABLE", None)  # some model classes set it, for good
    with tempfile.TemporaryDirectory() as folder:
        groups_of(1, 1, 0, 1)
        vllm_config = engine_args(config, requested, folder).create_engine_config(UsageContext.OPENAI_API_SERVER)
        specs, backends = plan(vllm_config, bool(requested.get("draft_layers")))
    groups = planning.get_global_kv_cache_groups(vllm_config, [dict(one) for one in specs])
    builder = get_kv_cache_config_builder(vllm_config)
    found = {
        "engine_args": resolved(vllm_config),
        "backends": backends,
        "layer_specs": [runs(one) for one in specs],
        "groups": [group_row(group) for group in groups],
    }
    projected = [planning._project_kv_cache_groups_to_worker(groups, one) for one in specs]
    model = vllm_config.model_config
    longest = model.max_model_len
    by_length = {}
    for length in sorted(lengths or {*(one for one in LENGTHS if one <= longest), longest}):
        model.max_model_len = length
        by_length[str(length)] = [
            planning._max_memory_usage_bytes_from_groups(builder, vllm_config, one) for one in projected
        ]
    model.max_model_len = longest
    found["bytes_by_length"] = by_length
    found["bytes_per_block"] = [
        planning._pool_bytes_per_block_from_builder(builder, vllm_config, one) for one in projected
    ]
    found["by_memory"] = [at_memory(vllm_config, builder, specs, groups, projected, one) for one in memories]
    return found


def at_memory(vllm_config, builder, specs, groups, projected, memory: int) -> dict:
    from vllm.v1.core import kv_cache_planning as planning
    from vllm.v1.core.kv_cache_utils import generate_scheduler_kv_cache_config, get_kv_cache_capacity

    each = [planning._pool_bytes_per_block_from_builder(builder, vllm_config, one) for one in projected]
    longest = min(
        (
            planning._estimate_max_model_len_from_groups(builder, vllm_config, one, memory - size)
            for one, size in zip(projected, each, strict=True)
            if one
        ),
        default=None,
    )
    row: dict = {"available_memory": memory, "auto_fit_max_model_len": longest}
    try:
        configs = planning.get_kv_cache_configs(vllm_config, specs, [memory] * len(specs), groups)
    except ValueError as error:
        return {**row, "num_blocks": min(memory // size for size in each if size), "error": str(error)}
    scheduler = generate_scheduler_kv_cache_config(configs)
    tokens, concurrency = get_kv_cache_capacity(vllm_config, scheduler)
    return {
        **row,
        "num_blocks": scheduler.num_blocks,
        "pool_bytes": [scheduler.num_blocks * size for size in each],
        "kv_cache_size_tokens": tokens,
        "max_concurrency": concurrency,
    }


def resolved(vllm_config) -> dict:
    """The options as vLLM resolved them."""
    cache, model, parallel = vllm_config.cache_config, vllm_config.model_config, vllm_config.parallel_config
    return {
        "tp": parallel.tensor_parallel_size,
        "pp": parallel.pipeline_parallel_size,
        "model_dtype": str(model.dtype),
        "kv_cache_dtype": cache.cache_dtype,
        "max_model_len": model.max_model_len,
        "enable_prefix_caching": cache.enable_prefix_caching,
        "mamba_cache_mode": cache.mamba_cache_mode,
        "mamba_ssm_cache_dtype": cache.mamba_ssm_cache_dtype,
        "block_size_resolved": cache.block_size,
        "mamba_block_size": cache.mamba_block_size,
        "mamba_page_size_padded": cache.mamba_page_size_padded,
        "kv_cache_layout": cache.kv_cache_layout,
        "max_num_batched_tokens": vllm_config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": vllm_config.scheduler_config.max_num_seqs,
        "async_scheduling": vllm_config.scheduler_config.async_scheduling,
        "max_in_flight_tokens": vllm_config.max_in_flight_tokens,
        "num_speculative_tokens": vllm_config.num_speculative_tokens,
        "disable_hybrid_kv_cache_manager": vllm_config.scheduler_config.disable_hybrid_kv_cache_manager,
        "architecture": model.architecture,
    }


SPEC_FIELDS = (
    "block_size page_size_bytes num_kv_heads head_size head_size_v dtype sliding_window attention_chunk_size "
    "extra_retained_tokens shapes dtypes num_speculative_blocks num_prefill_checkpoint_blocks is_draft tokens_per_state "
    "page_size_padded"
).split()


def spec_row(spec) -> dict:
    row = {"type": type(spec).__name__}
    for name in SPEC_FIELDS:
        value = getattr(spec, name, None)
        if value is not None:
            row[name] = str(value) if name in ("dtype", "dtypes", "tokens_per_state") else value
    return row


def runs(specs: dict) -> list:
    """Equal specs with how many layers have them, in the order of first layers."""
    count = Counter(json.dumps(spec_row(spec)) for spec in specs.values())
    return [[number, json.loads(text)] for text, number in count.items()]


def group_row(group) -> dict:
    return {
        "n_layers": len(group.layer_names),
        "first_layer": group.layer_names[0],
        "block_size": group.kv_cache_spec.block_size,
        "spec_type": type(group.kv_cache_spec).__name__,
        "page_size_bytes": group.kv_cache_spec.page_size_bytes,
    }


def recorded(wheel: str, jobs: list[dict]) -> list[dict]:
    """What vLLM makes of the jobs, each with its GPU, in processes of their own; an error where it refuses."""
    found: dict[str, dict] = {}
    for gpu in sorted({job["options"].get("gpu", "H100") for job in jobs}):
        mine = [job for job in jobs if job["options"].get("gpu", "H100") == gpu]
        command = [sys.executable, "-m", "memcurve.verify.vllm_recorder", wheel, "record", "--gpu", gpu]
        text = "\n".join(json.dumps(job) for job in mine)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                found[row["id"]] = row
    return [found[job["id"]] for job in jobs]


def differences(job: dict, row: dict) -> list[str]:
    """What memcurve says otherwise than what was recorded: bytes by length, and pools by memory. Empty if all is equal."""
    from memcurve import load
    from memcurve.base import MemcurveError

    try:
        curve = load(job["config"]).curve("vllm", **job["options"])
    except MemcurveError as error:
        return [] if "error" in row else [f"{type(error).__name__}: {error}"]
    if "error" in row:
        return [f"vLLM: {row['error'][:200]}"]
    found = []
    for length, sizes in row["bytes_by_length"].items():
        if curve.bytes(int(length)) != max(sizes):
            found.append(f"{length} tokens: {curve.bytes(int(length)):,}, vLLM {max(sizes):,}")
    for entry in row["by_memory"]:
        memory = entry["available_memory"]
        try:
            pool = curve.pool(memory)
            mine = (pool.num_blocks, pool.capacity_tokens, pool.max_concurrency, pool.longest_context)
            want = tuple(
                entry.get(key)
                for key in ("num_blocks", "kv_cache_size_tokens", "max_concurrency", "auto_fit_max_model_len")
            )
        except MemcurveError as error:
            mine = () if "error" in entry else (str(error),)
            want = ()
        if mine != want:
            found.append(f"{memory:,} bytes: {mine}, vLLM {want}")
    return found


def catalogue() -> list[dict]:
    from memcurve import catalog

    return [{"id": name, "config": catalog.find(name), "options": {}} for name in catalog.names()]


def compare(wheel: str, jobs: list[dict]) -> int:
    """Prints where memcurve and vLLM differ; how many do."""
    count: Counter[str] = Counter()
    for job, row in zip(jobs, recorded(wheel, jobs), strict=True):
        found = differences(job, row)
        kind = "equal" if not found else "vLLM refuses" if "error" in row else "different"
        count[kind] += 1
        if found:
            print(f"{kind}: {job['id']} {job['options']}: {found[0]}")
    print(dict(count))
    return count["different"]


def rerecord(wheel: str, write: bool) -> int:
    """Every config and option of the recorded file again; how many numbers differ. Specs that were made by hand stay."""
    entries = [json.loads(line) for line in TRUTH.read_text().splitlines()]
    from memcurve import catalog

    for entry in entries:
        entry["from"] = entry.get("config") or catalog.find(entry.get("catalogue", ""))
    jobs = [
        {
            "id": name,
            "config": entry["from"],
            "options": options,
            "lengths": [int(length) for length in lengths],
            "memories": [one[0] for one in memories],
        }
        for entry in entries
        if entry["from"]
        for name, options, lengths, memories in entry["cases"]
    ]
    rows = {row["id"]: row for row in recorded(wheel, jobs)}
    differ = 0
    for entry in entries:
        for case in entry["cases"] if entry.pop("from") else ():
            row = rows[case[0]]
            lengths = {length: max(sizes) for length, sizes in row["bytes_by_length"].items()}
            memories = [memory_row(one) for one in row["by_memory"]]
            if lengths != case[2] or memories != case[3]:
                differ += 1
                print(f"{case[0]}: recorded otherwise than in the file: {[lengths, memories]}"[:300])
            case[2:] = [lengths, memories]
    if write:
        TRUTH.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))
    print(f"{len(rows)} cases, {differ} differ")
    return differ


def memory_row(row: dict) -> list:
    """A pool in the file's form: memory, blocks, longest context, then tokens and concurrency, or why it does not start."""
    first = [row["available_memory"], row["num_blocks"], row["auto_fit_max_model_len"]]
    if "error" in row:
        return [*first, row["error"].split(" Based on")[0][:KEPT]]
    return [*first, row["kv_cache_size_tokens"], row["max_concurrency"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("wheel")
    parser.add_argument("verb", choices=("compare", "check", "rewrite", "record"))
    parser.add_argument("jobs", nargs="?", type=Path)
    parser.add_argument("--gpu", default="H100", choices=tuple(GPUS))
    asked = parser.parse_args()
    if asked.verb == "record":
        prepare(asked.wheel, asked.gpu)
        for line in sys.stdin:
            job = json.loads(line)
            try:
                row = record(
                    job["config"], job["options"], tuple(job.get("lengths", ())), tuple(job.get("memories", MEMORIES))
                )
            except Exception as error:  # noqa: BLE001 - whatever vLLM refuses or its class fails with is what is recorded
                row = {"error": f"{type(error).__name__}: {error}"[:1000]}
            print(json.dumps({"id": job["id"], **row}), flush=True)
        return
    if asked.verb == "compare":
        jobs = [json.loads(line) for line in asked.jobs.read_text().splitlines()] if asked.jobs else catalogue()
        raise SystemExit(min(compare(asked.wheel, jobs), 1))
    raise SystemExit(min(rerecord(asked.wheel, asked.verb == "rewrite"), 1))


if __name__ == "__main__":
    main()
