"""Runs vLLM's own scheduler on a CPU with fake outputs, and records how many requests it keeps running at once.

    python -m memcurve.verify.vllm_scheduler WHEEL record [--gpu B200] < JOBS.jsonl > RECORDED.jsonl
    python -m memcurve.verify.vllm_scheduler WHEEL compare [JOBS.jsonl]     where memcurve says otherwise; the recorded cases, or a file's
    python -m memcurve.verify.vllm_scheduler WHEEL check                    every case of tests/truth/vllm_steady.jsonl, recorded again
    python -m memcurve.verify.vllm_scheduler WHEEL rewrite                  the same, and writes the file

A job is {"id", "config", "options", "memory", "prompt", "output", "requests"}: options as `Model.curve(engine="vllm")` takes
them, bytes of memory for the caches of each rank, tokens (or a list of them, one per request), how many requests wait at
the start. "model" may name a config of the catalogue instead, with "changes" to its keys. What runs is vLLM's: planning as vllm_recorder has it, AsyncScheduler (or Scheduler), KVCacheManager and its block pool,
in the order of EngineCore.step_with_batch_queue (vllm/v1/engine/core.py). What is fake: the model's outputs, one token for every
request whose prompt is done, never one that ends it. Prompts share no token.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import deque
from pathlib import Path

from .vllm_recorder import engine_args, plan
from .vllm_stubs import groups_of, prepare

# In a checkout
TRUTH = Path(__file__).parents[3] / "tests" / "truth" / "vllm_steady.jsonl"
# What is recorded of a run, in the file's order.
FIELDS = ("num_blocks", "peak_running", "preemptions", "steps", "peak_blocks_used_all", "running_steps")
MOST_STEPS = 100_000


def scheduler_of(config: dict, requested: dict, memory: int):
    """vLLM's scheduler over the pool that it makes of so much memory, as EngineCore builds it; and the resolved config."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.core import kv_cache_planning as planning
    from vllm.v1.core.kv_cache_utils import (
        generate_scheduler_kv_cache_config,
        get_kv_cache_capacity,
        resolve_kv_cache_block_sizes,
    )
    from vllm.v1.structured_output import StructuredOutputManager

    with tempfile.TemporaryDirectory() as folder:
        groups_of(1, 1, 0, 1)
        args = engine_args(config, {**requested, "runner": "generate"}, folder)
        vllm_config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
        specs, _ = plan(vllm_config, bool(requested.get("draft_layers")))
    groups = planning.get_global_kv_cache_groups(vllm_config, [dict(one) for one in specs])
    configs = planning.get_kv_cache_configs(vllm_config, specs, [memory] * len(specs), groups)
    cache = generate_scheduler_kv_cache_config(configs)
    vllm_config.cache_config.num_gpu_blocks = cache.num_blocks
    cacheable = [one.kv_cache_spec.block_size for one in cache.kv_cache_groups if one.kv_cache_spec.prefix_cacheable]
    if cache.kv_cache_groups:
        every = [one.kv_cache_spec.block_size for one in cache.kv_cache_groups]
        vllm_config.cache_config.block_size = min(cacheable or every)
    sizes = resolve_kv_cache_block_sizes(cache, vllm_config)
    # Requests are text; what an image takes is asked of processors, whose files are not there.
    type(vllm_config.model_config).supports_multimodal_inputs = False
    capacity = get_kv_cache_capacity(vllm_config, cache) if cache.kv_cache_groups else (0, 0.0)
    scheduler = vllm_config.scheduler_config.get_scheduler_cls()(
        vllm_config=vllm_config,
        kv_cache_config=cache,
        structured_output_manager=StructuredOutputManager(vllm_config),
        block_size=sizes[0],
        hash_block_size=sizes[1],
    )
    return scheduler, vllm_config, cache, sizes, capacity


def requests_of(vllm_config, hash_block: int, prompts: list[int], outputs: list[int]):
    """Requests whose prompts share no token."""
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    hasher = None
    if vllm_config.cache_config.enable_prefix_caching:
        function = get_hash_fn_by_name(vllm_config.cache_config.prefix_caching_hash_algo)
        init_none_hash(function)
        hasher = get_request_block_hasher(hash_block, function)
    for number, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        sampling.update_from_generation_config({}, None)
        yield Request(
            request_id=str(number),
            prompt_token_ids=[number + 1] * prompt,
            sampling_params=sampling,
            pooling_params=None,
            arrival_time=float(number),
            block_hasher=hasher,
        )


def run(scheduler, depth: int, trace: list | None = None) -> dict:
    """Drives the scheduler until no request is left, `depth` batches under way at a time; trace: a row per step."""
    from vllm.v1.outputs import ModelRunnerOutput

    pool = scheduler.kv_cache_manager.block_pool
    total = pool.get_num_free_blocks()
    peak = used = preempted = steps = area = 0
    queue: deque = deque()
    while scheduler.has_unfinished_requests() or queue:
        if scheduler.has_unfinished_requests():
            before = sum(request.num_preemptions for request in scheduler.requests.values())
            output = scheduler.schedule()
            preempted += sum(request.num_preemptions for request in scheduler.requests.values()) - before
            ids = list(output.num_scheduled_tokens)
            tokens = [[] if scheduler.requests[name].is_prefill_chunk else [0] for name in ids]
            held = total - pool.get_num_free_blocks()
            peak, used = max(peak, len(scheduler.running)), max(used, held)
            area += len(scheduler.running)
            if trace is not None:
                trace.append([steps, len(scheduler.running), held, output.total_num_scheduled_tokens, preempted])
            steps += 1
            if steps > MOST_STEPS:
                raise RuntimeError(f"more than {MOST_STEPS} steps")
            queue.appendleft((output, ids, tokens))
            if len(queue) < depth and (output.total_num_scheduled_tokens or scheduler.has_requests()):
                continue
        output, ids, tokens = queue.pop()
        scheduler.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={name: index for index, name in enumerate(ids)},
                sampled_token_ids=tokens,
            ),
        )
    found = {"peak_running": peak, "preemptions": preempted, "steps": steps}
    return {**found, "peak_blocks_used_all": used, "running_steps": area}


def config_of(job: dict) -> dict:
    from memcurve import catalog

    return {**(job["config"] if "config" in job else catalog.find(job["model"])), **job.get("changes", {})}


def record(job: dict, trace: list | None = None) -> dict:
    scheduler, vllm_config, cache, sizes, _ = scheduler_of(config_of(job), job["options"], job["memory"])
    prompts, outputs = lengths_of(job)
    for request in requests_of(vllm_config, sizes[1], prompts, outputs):
        scheduler.add_request(request)
    found = run(scheduler, vllm_config.max_concurrent_batches, trace)
    return {"num_blocks": cache.num_blocks, **found}


def lengths_of(job: dict) -> list[list[int]]:
    return [one if isinstance(one, list) else [one] * job["requests"] for one in (job["prompt"], job["output"])]


def simulated(job: dict) -> dict:
    """What memcurve says of the same."""
    from memcurve import load
    from memcurve.engines.vllm_loop import run_of

    curve = load(config_of(job)).curve("vllm", **job["options"])
    blocks = curve.pool(job["memory"]).num_blocks
    found = run_of(curve.allocator, blocks, zip(*lengths_of(job), strict=True))
    values = (blocks, found.peak, found.preemptions, found.steps, found.blocks, found.area)
    return dict(zip(FIELDS, values, strict=True))


def row_of(job: dict, trace: bool = False) -> dict:
    steps: list | None = [] if trace else None
    try:
        row = record(job, steps)
    except Exception as error:  # noqa: BLE001 - whatever vLLM refuses or fails with is what is recorded
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    return row if steps is None else {**row, "trace": steps}


def again(jobs: list[dict], write: bool) -> int:
    """Every recorded case again; how many come out otherwise."""
    differ = 0
    for job in jobs:
        row = row_of(job)
        values = [row[name] for name in FIELDS] if "error" not in row else row["error"]
        if values != job["recorded"]:
            differ += 1
            print(f"{name_of(job)}: {values}, in the file {job['recorded']}")
            job["recorded"] = values
    if write:
        TRUTH.write_text("".join(json.dumps(job, separators=(",", ":")) + "\n" for job in jobs))
    print(f"{len(jobs)} cases, {differ} differ")
    return differ


def compare(jobs: list[dict]) -> int:
    """Prints where memcurve and vLLM differ; how many cases do."""
    differ = failed = 0
    for job in jobs:
        row = row_of(job)
        if "error" in row:
            failed += 1
            continue
        mine = simulated(job)
        if mine != row:
            differ += 1
            print(f"{name_of(job)}: {mine}, vLLM {row}")
    print(f"{len(jobs)} cases, {differ} differ, {failed} that vLLM does not run here")
    return differ


def name_of(job: dict) -> str:
    lengths = " + ".join("drawn" if isinstance(job[name], list) else str(job[name]) for name in ("prompt", "output"))
    return f"{job.get('id') or job.get('model')} {job['options']} {lengths}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m memcurve.verify.vllm_scheduler", description=__doc__)
    parser.add_argument("wheel", help="a folder with vLLM 0.33.0 unpacked")
    parser.add_argument("verb", choices=("record", "trace", "compare", "check", "rewrite"))
    parser.add_argument("jobs", nargs="?", type=Path)
    parser.add_argument("--gpu", default="H100")
    asked = parser.parse_args()
    prepare(asked.wheel, asked.gpu)
    if asked.verb in ("record", "trace"):
        for line in sys.stdin:
            job = json.loads(line)
            print(json.dumps({"id": job["id"], **row_of(job, asked.verb == "trace")}), flush=True)
        return
    jobs = [json.loads(line) for line in (asked.jobs or TRUTH).read_text().splitlines()]
    raise SystemExit(min(compare(jobs) if asked.verb == "compare" else again(jobs, asked.verb == "rewrite"), 1))


if __name__ == "__main__":
    main()
