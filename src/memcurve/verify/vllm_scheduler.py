"""Runs vLLM's own scheduler on a CPU with fake outputs, and records how many requests it keeps running at once.

    python -m memcurve.verify.vllm_scheduler WHEEL record [--gpu B200] < JOBS.jsonl > RECORDED.jsonl

A job is {"id", "config", "options", "memory", "prompt", "output", "requests"}: options as `Model.curve(engine="vllm")` takes
them, bytes of memory for the caches of each rank, tokens (or a list of them, one per request), how many requests wait at
the start. What runs is vLLM's: planning as vllm_recorder has it, AsyncScheduler (or Scheduler), KVCacheManager and its block pool,
in the order of EngineCore.step_with_batch_queue (vllm/v1/engine/core.py). What is fake: the model's outputs, one token for every
request whose prompt is done, never one that ends it. Prompts share no token.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import deque

from .vllm_recorder import engine_args, plan
from .vllm_stubs import groups_of, prepare


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


def run(scheduler, depth: int, trace: list | None = None, most: int = 0) -> dict:
    """Drives the scheduler until no request is left, `depth` batches under way at a time."""
    from vllm.v1.outputs import ModelRunnerOutput

    pool = scheduler.kv_cache_manager.block_pool
    total = pool.get_num_free_blocks()
    peak = used = preempted = steps = one = longest = 0
    area = 0
    queue: deque = deque()
    history = []
    while scheduler.has_unfinished_requests() or queue:
        if scheduler.has_unfinished_requests():
            before = sum(request.num_preemptions for request in scheduler.requests.values())
            output = scheduler.schedule()
            preempted += sum(request.num_preemptions for request in scheduler.requests.values()) - before
            ids = list(output.num_scheduled_tokens)
            tokens = [[] if scheduler.requests[name].is_prefill_chunk else [0] for name in ids]
            peak = max(peak, len(scheduler.running))
            area += len(scheduler.running)
            used = max(used, total - pool.get_num_free_blocks())
            longest = max(longest, output.total_num_scheduled_tokens)
            if scheduler.running:
                first = scheduler.running[0]
                held = [
                    sum(not block.is_null for block in blocks)
                    for blocks in scheduler.kv_cache_manager.coordinator.get_blocks(first.request_id)
                ]
                one = max(one, sum(held))
                history.append((steps, first.num_computed_tokens, held))
            if trace is not None:
                trace.append(
                    [
                        steps,
                        len(scheduler.running),
                        total - pool.get_num_free_blocks(),
                        output.total_num_scheduled_tokens,
                        preempted,
                    ]
                )
            steps += 1
            if most and steps > most:
                raise RuntimeError(f"more than {most} steps")
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
    middle = len(history) // 2
    return {
        "peak_running": peak,
        "peak_blocks_used_all": used,
        "peak_blocks_one_request": one,
        "preemptions": preempted,
        "steps": steps,
        "running_steps": area,
        "most_tokens": longest,
        "first_request_history": history[:3] + history[middle : middle + 2] + history[-3:],
    }


def record(job: dict, trace: bool = False) -> dict:
    scheduler, vllm_config, cache, sizes, (tokens, concurrency) = scheduler_of(
        job["config"], job["options"], job["memory"]
    )
    many = job["requests"]
    prompts, outputs = (
        value if isinstance(value, list) else [value] * many for value in (job["prompt"], job["output"])
    )
    for request in requests_of(vllm_config, sizes[1], prompts, outputs):
        scheduler.add_request(request)
    steps: list = []
    depth = vllm_config.max_concurrent_batches
    found = run(scheduler, depth, steps if trace else None, job.get("most", 0))
    return {
        "num_blocks": cache.num_blocks,
        "block_sizes": [group.kv_cache_spec.block_size for group in cache.kv_cache_groups],
        "group_types": [type(group.kv_cache_spec).__name__ for group in cache.kv_cache_groups],
        "hash_block": sizes[1],
        "depth": depth,
        "max_num_batched_tokens": vllm_config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": vllm_config.scheduler_config.max_num_seqs,
        "reported_max_concurrency": concurrency,
        "reported_capacity_tokens": tokens,
        **found,
        **({"trace": steps} if trace else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m memcurve.verify.vllm_scheduler", description=__doc__)
    parser.add_argument("wheel", help="a folder with vLLM 0.33.0 unpacked")
    parser.add_argument("verb", choices=("record", "trace"))
    parser.add_argument("--gpu", default="H100")
    asked = parser.parse_args()
    prepare(asked.wheel, asked.gpu)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            row = record(job, asked.verb == "trace")
        except Exception as error:  # noqa: BLE001 - whatever vLLM refuses or fails with is what is recorded
            row = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(json.dumps({"id": job["id"], **row}), flush=True)


if __name__ == "__main__":
    main()
