"""Runs vLLM's own scheduler on a CPU over requests that arrive with time, and records every step and every request.

    python -m memcurve.verify.vllm_replay WHEEL compare [JOBS.jsonl]    where memcurve says otherwise; the recorded cases, or a file's
    python -m memcurve.verify.vllm_replay WHEEL record < JOBS.jsonl     jobs with what was recorded
    python -m memcurve.verify.vllm_replay WHEEL check                   every case of tests/truth/vllm_replay.jsonl, recorded again

A job is {"model" or "config", "changes", "options", "memory"} as in vllm_scheduler, "step_ns" and "prefill_tokens" (how long a batch
takes: memcurve.engines.vllm_replay), "hash_tokens", and per request "arrival", "prompt", "output" and, where there is hash_tokens,
"hashes": runs [first id, how many] of ids that follow one another. The clock is this file's own, in the order of EngineCore.step and
step_with_batch_queue (vllm/v1/engine/core.py): requests are taken in before a batch is made, which takes no time. All else is
as in vllm_scheduler. Prompts share the tokens of equal hashes, and no output is like another.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import deque
from pathlib import Path

from .vllm_scheduler import config_of, scheduler_of
from .vllm_stubs import prepare

# In a checkout
TRUTH = Path(__file__).parents[3] / "tests" / "truth" / "vllm_replay.jsonl"
OWN, OUTPUT = 10**8, 2 * 10**8


def ids_of(job: dict, number: int) -> list[int]:
    """The hashes of a request's prompt."""
    runs = job["hashes"][number] if job.get("hash_tokens") else []
    return [first + index for first, count in runs for index in range(count)]


def requests_of(vllm_config, hash_block: int, job: dict):
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    hasher = None
    if vllm_config.cache_config.enable_prefix_caching:
        function = get_hash_fn_by_name(vllm_config.cache_config.prefix_caching_hash_algo)
        init_none_hash(function)
        hasher = get_request_block_hasher(hash_block, function)
    for number, (arrival, prompt, output) in enumerate(zip(job["arrival"], job["prompt"], job["output"], strict=True)):
        tokens = [one + 1 for one in ids_of(job, number) for _ in range(job["hash_tokens"])][:prompt]
        tokens += [OWN + number] * (prompt - len(tokens))
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        sampling.update_from_generation_config({}, None)
        yield (
            arrival,
            Request(
                request_id=str(number),
                prompt_token_ids=tokens,
                sampling_params=sampling,
                pooling_params=None,
                arrival_time=float(number),
                block_hasher=hasher,
            ),
        )


class Clock:
    """Which tokens of a batch are of prefills, and how long it takes."""

    def __init__(self, job: dict) -> None:
        self.step_ns, self.prefill_tokens = job["step_ns"], job["prefill_tokens"]
        self.decoding: set[str] = set()
        self.busy = 0

    def batch(self, scheduler, output, now: int) -> int:
        """The end of a batch that is made now."""
        self.decoding -= set(output.preempted_req_ids or ())
        prefills = sum(tokens for name, tokens in output.num_scheduled_tokens.items() if name not in self.decoding)
        decodes = any(name in self.decoding for name in output.num_scheduled_tokens)
        took = prefills * self.step_ns // self.prefill_tokens + (self.step_ns if decodes else 0)
        self.busy = max(now, self.busy) + (max(took, 1) if output.num_scheduled_tokens else 0)
        for name in output.num_scheduled_tokens:
            if not scheduler.requests[name].is_prefill_chunk:
                self.decoding.add(name)
        return self.busy


def held(scheduler, total: int) -> tuple[int, int]:
    """Blocks in use, and tokens of the requests that run: of one group of full attention those of shared blocks once."""
    manager = scheduler.kv_cache_manager
    used = total - manager.block_pool.get_num_free_blocks()
    first, *others = manager.coordinator.single_type_managers
    if others or type(first).__name__ != "FullAttentionManager":
        return used, sum(request.num_computed_tokens for request in scheduler.running)
    places = sum(len(first.req_to_blocks[request.request_id]) * first.block_size for request in scheduler.running)
    spare = places - sum(request.num_computed_tokens for request in scheduler.running)
    return used, used * first.block_size - spare


def run(scheduler, depth: int, arrivals: list, job: dict) -> tuple[list, list]:
    """Rows of steps [time, running, waiting, blocks, tokens, preemptions, finished] and of requests [admitted, first token, end,
    preemptions, hit], by number."""
    from vllm.v1.outputs import ModelRunnerOutput

    total = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    clock, queue = Clock(job), deque()
    now = preempted = finished = 0
    steps: list = []
    found = [[-1, -1, -1, 0, 0] for _ in arrivals]
    ahead = deque(arrivals)
    while ahead or scheduler.has_unfinished_requests() or queue:
        if not scheduler.has_unfinished_requests() and not queue:
            now = max(now, ahead[0][0])
        while ahead and ahead[0][0] <= now:
            scheduler.add_request(ahead.popleft()[1])
        if scheduler.has_unfinished_requests():
            before = {name: request.num_preemptions for name, request in scheduler.requests.items()}
            output = scheduler.schedule()
            for name, count in before.items():
                more = scheduler.requests[name].num_preemptions - count
                preempted += more
                found[int(name)][3] += more
            for new in output.scheduled_new_reqs:
                row = found[int(new.req_id)]
                if row[0] < 0:
                    row[0], row[4] = now, new.num_computed_tokens
            ids = list(output.num_scheduled_tokens)
            tokens = [[] if scheduler.requests[name].is_prefill_chunk else [OUTPUT + int(name)] for name in ids]
            over = clock.batch(scheduler, output, now)
            used, places = held(scheduler, total)
            steps.append([now, len(scheduler.running), len(scheduler.waiting), used, places, preempted, finished])
            queue.appendleft((output, ids, tokens, over))
            if len(queue) < depth and (output.total_num_scheduled_tokens or scheduler.has_requests()):
                continue
        output, ids, tokens, over = queue.pop()
        now = max(now, over)
        index = {name: at for at, name in enumerate(ids)}
        given = scheduler.update_from_output(
            output, ModelRunnerOutput(req_ids=ids, req_id_to_index=index, sampled_token_ids=tokens)
        )
        for one in (one for outputs in given.values() for one in outputs.outputs):
            row = found[int(one.request_id)]
            row[1] = now if row[1] < 0 else row[1]
            if one.finish_reason is not None:
                row[2] = now
                finished += 1
    return steps, found


def digest(rows: list) -> str:
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()[:32]


def summary(blocks: int, steps: list, found: list) -> dict:
    """What is kept of a run: sums to look at, and digests of all rows."""
    return {
        "num_blocks": blocks,
        "steps": len(steps),
        "preemptions": steps[-1][5],
        "peak": [max(row[column] for row in steps) for column in (1, 2, 3, 4)],
        "sums": [sum(row[column] for row in found) for column in range(5)],
        "rows": digest(steps),
        "requests": digest(found),
    }


def record(job: dict) -> tuple[int, list, list]:
    scheduler, vllm_config, cache, sizes, _ = scheduler_of(config_of(job), job["options"], job["memory"])
    arrivals = list(requests_of(vllm_config, sizes[1], job))
    return (cache.num_blocks, *run(scheduler, vllm_config.max_concurrent_batches, arrivals, job))


def replayed(job: dict, compiled: bool | None = None) -> tuple[int, list, list]:
    """The same by memcurve."""
    from memcurve import load
    from memcurve.engines.vllm_replay import Replayer

    curve = load(config_of(job)).curve("vllm", **job["options"])
    blocks = curve.pool(job["memory"]).num_blocks
    replayer = Replayer(
        curve.allocator,
        blocks,
        step_ns=job["step_ns"],
        prefill_tokens=job["prefill_tokens"],
        hash_tokens=job.get("hash_tokens"),
        interval_ns=0,
        compiled=compiled,
    )
    many = range(len(job["arrival"]))
    hashes = None
    if job.get("hash_tokens"):
        ids = [ids_of(job, number) for number in many]
        offsets = [0]
        for one in ids:
            offsets.append(offsets[-1] + len(one))
        hashes = offsets, [number for one in ids for number in one]
    steps, found = [], [[-1, -1, -1, 0, 0] for _ in many]
    for part in (replayer.feed(job["arrival"], job["prompt"], job["output"], hashes), replayer.finish()):
        rows = [part.series[name].tolist() for name in part.series]
        for time, running, waiting, back, used, tokens, preempted, finished, _ in zip(*rows, strict=True):
            steps.append([time, running, waiting + back, used, tokens, preempted, finished])
        rows = [part.requests[name].tolist() for name in part.requests]
        for number, _, _, _, admitted, first, end, preempted, hit in zip(*rows, strict=True):
            found[number] = [admitted, first, end, preempted, hit]
    # The last row is the end, after all steps.
    return blocks, steps[:-1], found


def difference(mine: tuple, theirs: tuple) -> str | None:
    """The first row that differs."""
    for name, left, right in zip(("blocks", "steps", "requests"), mine, theirs, strict=True):
        if left != right:
            if isinstance(left, int):
                return f"{name}: {left}, vLLM {right}"
            at = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), -1)
            return f"{name}: row {at} of {len(left)}: {left[at]}, vLLM {right[at]} of {len(right)}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m memcurve.verify.vllm_replay", description=__doc__)
    parser.add_argument("wheel", help="a folder with vLLM 0.33.0 unpacked")
    parser.add_argument("verb", choices=("record", "compare", "check"))
    parser.add_argument("jobs", nargs="?", type=Path)
    asked = parser.parse_args()
    prepare(asked.wheel, "H100")
    if asked.verb == "record":
        for line in sys.stdin:
            job = json.loads(line)
            print(json.dumps({**job, "recorded": summary(*record(job))}, separators=(",", ":")), flush=True)
        return
    jobs = [json.loads(line) for line in (asked.jobs or TRUTH).read_text().splitlines()]
    differ = 0
    for number, job in enumerate(jobs):
        theirs = record(job)
        said = difference(replayed(job), theirs) if asked.verb == "compare" else None
        if asked.verb == "check" and (again := summary(*theirs)) != job["recorded"]:
            said = f"{again}, in the file {job['recorded']}"
        if said:
            differ += 1
            print(f"{number} {job.get('id', job.get('model'))}: {said}")
    print(f"{len(jobs)} cases, {differ} differ")
    raise SystemExit(min(differ, 1))


if __name__ == "__main__":
    main()
