"""Runs SGLang's own scheduling on a CPU with fake batches, and records how many requests it runs at once.

    python verify/sglang_scheduler.py WHEEL            compares memcurve with it: tests/truth/sglang_steady.jsonl, recorded again
    python verify/sglang_scheduler.py WHEEL --draw 7   compares 40 cases drawn with that seed
    python verify/sglang_scheduler.py WHEEL --rewrite  draws and writes the file

WHEEL is a folder with SGLang 0.5.23 unpacked. What runs is SGLang's: Scheduler.get_next_batch_to_run, _get_new_batch_prefill_raw,
update_running_batch, _reqs_finishing_inflight and get_num_allocatable_reqs (managers/scheduler.py), PrefillAdder, PrefillBudget,
NewTokenRatioTracker, ScheduleBatch.retract_decode and check_decode_mem, in the order of event_loop_overlap. What is fake: the pool, a
count of free tokens in whole pages; the tree, which finds nothing; batches and requests, which are numbers; results, one token for
every request. Modules of kernels are empty.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import random
import types
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from memcurve.base import Refused
from memcurve.engines.sglang_scheduler import Scheduler
from memcurve.verify import sglang_stubs as stubs

TRUTH = Path(__file__).parents[1] / "tests" / "truth" / "sglang_steady.jsonl"
EMPTY = (
    "sglang.kernels sglang.srt.layers.attention.fla zmq setproctitle psutil uvloop prometheus_client uvicorn xgrammar outlines "
    "llguidance torchao soundfile partial_json_parser openai_harmony interegular smg_grpc_servicer smg_grpc_proto grpc"
).split()
MOST_STEPS = 200_000


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(f"{one}.") for one in EMPTY):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return stubs.StubModule(spec.name)

    def exec_module(self, module):
        pass


def prepare(wheel: str) -> None:
    import sys

    stubs.prepare(wheel)
    sys.meta_path.insert(0, Empty())
    stubs.Stub.__get_pydantic_core_schema__ = classmethod(lambda *_: {"type": "any"})


class Pool:
    """The allocator: free tokens in whole pages, and rows of requests."""

    def __init__(self, size: int, page: int):
        self.size = self.free = size
        self.page_size, self.rows = page, 0

    def available_size(self):
        return self.free

    def create_prefill_budget(self, tree, *, num_mixed_decode_tokens=0):
        from sglang.srt.mem_cache.prefill_budget import PrefillBudget

        return PrefillBudget(self, tree, num_mixed_decode_tokens=num_mixed_decode_tokens)

    def request_slot_reserve(self, **_):
        return 0

    def check_decode_capacity(self, *, num_tokens, **_):
        return self.free >= num_tokens

    def hold(self, request, tokens: int) -> None:
        page = self.page_size
        self.rows += (tokens > 0) - (request.held > 0)
        self.free -= (-(-tokens // page) + -request.held // page) * page
        request.held = request.kv.kv_committed_len = tokens
        request.kv.holds_kv = tokens > 0
        request.kv.req_pool_idx = 1 if tokens else None
        assert self.free >= 0


class Tree:
    """A radix cache in which nothing is ever found."""

    disable = False
    buffer_pipeline = storage_prefetch_retries = linker = None
    supports_mamba = load_back_is_cache_owned = lambda self: False
    supports_prefix_sharing = lambda self: True  # noqa: E731
    evictable_size = lambda self: 0  # noqa: E731

    def __getattr__(self, name):
        return lambda *_, **__: None


class Request:
    def __init__(self, prompt: int, output: int):
        self.origin_input_ids, self.output_ids = range(prompt), []
        self.sampling_params = SimpleNamespace(max_new_tokens=output, ignore_eos=False)
        self.kv = SimpleNamespace(
            holds_kv=False, req_pool_idx=None, kv_committed_len=0, holds_mamba=False, mamba_pool_idx=None
        )
        self.time_stats = MagicMock()
        self.held = self.prefix_len = self.extend_end = self.inflight_middle_chunks = 0
        self.host_hit_length = self.swa_host_hit_length = self.auxiliary_swa_host_hit_length = 0
        self.mamba_host_hit_length = self.storage_hit_length = self.storage_hit_start = self.host_loaded_length = 0
        self.retracted_stain = self.host_hit_is_storage = self.over = self.is_retracted = False
        self.beam_group = self.last_node = self.best_match_node = self.cache_request_handle = self.lock = None
        self.token_indices_to_pool = self.lora_id = self.session = self.rid = None

    full_untruncated_fill_ids = property(lambda self: range(len(self.origin_input_ids) + len(self.output_ids)))
    extend_len = extend_input_len = property(lambda self: self.extend_end - self.prefix_len)

    def init_next_round_input(self, tree=None):
        self.prefix_len = self.held

    def finished(self):
        return self.over

    def next_output_finishes_by_length(self):
        return len(self.output_ids) + 1 >= self.sampling_params.max_new_tokens

    needs_host_load_back = is_dllm_prefill = lambda self: False
    materialized_host_hit_len = fulfilled_storage_hit_len = lambda self, *_: 0


def batch_class(pool: Pool, tree: Tree):
    """A batch whose memory is counted, with SGLang's own checks of it."""
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    class Batch:
        is_prefill_only = return_logprob = batch_is_full = False
        input_embeds = chunked_req = part = None
        token_to_kv_pool_allocator, tree_cache = pool, tree
        spec_algorithm = SimpleNamespace(is_none=lambda: True)
        forward_mode = ForwardMode.DECODE
        new_tokens_required_next_decode = ScheduleBatch.new_tokens_required_next_decode
        check_decode_mem = ScheduleBatch.check_decode_mem
        retract_decode = ScheduleBatch.retract_decode
        _get_decode_retraction_order = staticmethod(ScheduleBatch._get_decode_retraction_order)

        def __init__(self, reqs: Iterable = ()):
            self.reqs = list(reqs)

        @classmethod
        def init_new(cls, reqs, *_, chunked_req=None, **__):
            batch = cls(reqs)
            batch.chunked_req = chunked_req
            return batch

        def is_empty(self):
            return not self.reqs

        def batch_size(self):
            return len(self.reqs)

        def filter_batch(self, reqs_to_exclude=(), keep_indices=None):
            if keep_indices is not None:
                self.reqs = [self.reqs[index] for index in keep_indices]
            else:
                self.reqs = [one for one in self.reqs if not one.over and one not in (reqs_to_exclude or ())]

        def merge_batch(self, other):
            self.reqs += other.reqs

        def prepare_for_extend(self):
            self.forward_mode = ForwardMode.EXTEND
            for request in self.reqs:
                request.is_retracted = False
                pool.hold(request, request.extend_end)

        def prepare_for_decode(self):
            self.forward_mode = ForwardMode.DECODE
            for request in self.reqs:
                pool.hold(request, request.held + 1)

        def release_req(self, index, remaining, offload_kv=True):
            request = self.reqs[index]
            pool.hold(request, 0)
            request.is_retracted = request.retracted_stain = True
            request.prefix_len = 0
            return True

    return Batch


def scheduler(requests: list[Request], pool: Pool, tree: Tree, batch: type, most: int, chunk: int):
    """What the methods of SGLang's Scheduler find on it, with its defaults."""
    import sglang.srt.managers.schedule_batch as batches
    import sglang.srt.managers.schedule_policy as policy
    import sglang.srt.managers.scheduler as module
    from sglang.srt.managers.scheduler_components import new_token_ratio_tracker as ratios

    schedule = SimpleNamespace(
        schedule_policy="fcfs", prefill_max_requests=None, schedule_low_priority_values_first=False,
        retraction_policy="default", schedule_conservativeness=1.0, prefill_decode_interval=0,
    )  # fmt: skip
    for one in (module, policy, batches, ratios):
        one.get_schedule = lambda: schedule
    module.ScheduleBatch, module.PrefillStats = batch, MagicMock()
    module.set_time_batch = module.set_schedule_time_batch = lambda *_: None
    module.get_parallel = lambda: SimpleNamespace(pp_max_micro_batch_size=most)
    policy.get_exec = lambda: SimpleNamespace(features=SimpleNamespace(enable_encoder_swa_bounded_replay=False))
    policy._use_exact_chunk_fill = lambda: False
    policy.mamba_prefill_chunk_grid = policy.page_interleave_shard_size = lambda *_: 1
    found = MagicMock()
    for name in (
        "dllm_config chunked_req min_free_slots_delayer dynamic_chunk_sizer lora_drainer truncation_align_size prefill_delayer "
        "disaggregation_mode decode_offload_manager"
    ).split():
        setattr(found, name, None)
    for name in (
        "enable_hisparse enable_priority_preemption is_hybrid_swa is_mixed_chunk enable_lora enable_hicache_storage enable_lmcache "
        "enable_hierarchical_cache enable_unified_cache_external_linker require_mlp_sync"
    ).split():
        setattr(found, name, False)
    found.waiting_queue, found.running_batch, found.result_queue = list(requests), batch(), []
    found.page_size, found.chunked_prefill_size, found.max_running_requests = pool.page_size, chunk, most
    found.max_prefill_tokens, found.max_prefill_bs, found.priority_scheduling_preemption_threshold = 16384, 0, 0
    found.tree_cache, found.token_to_kv_pool_allocator = tree, pool
    tree.req_to_token_pool = SimpleNamespace()
    found.req_to_token_pool = SimpleNamespace(available_size=lambda: most - pool.rows)
    found.new_token_ratio_tracker = ratios.NewTokenRatioTracker.from_config()
    found.enable_skip_finishing_decode = True
    found.grammar_manager.has_waiting_grammars = found._should_defer_prefill = lambda *_: False
    found.get_prefill_adder_class = lambda: policy.PrefillAdder
    found.policy.shortest_prefill_chunk_limit = found.stash_chunked_request = lambda *_: None
    found.beam_coordinator.pending_member_rows = lambda *_: 0
    found.metrics_reporter.enable_metrics = found.tp_worker.model_runner.prefill_aware_swa = False
    same = lambda one, **_: one  # noqa: E731
    found.dp_attn_adapter.maybe_prepare_mlp_sync_batch = found.dp_attn_adapter.maybe_convert_decode_to_extend = same
    found.ngram_embedding_manager.prepare_for_forward = same
    for (
        name
    ) in "_get_new_batch_prefill_raw update_running_batch get_num_allocatable_reqs _reqs_finishing_inflight".split():
        setattr(found, name, types.MethodType(getattr(module.Scheduler, name), found))
    plan = lambda pair: SimpleNamespace(batch_to_run=pair[0], running_batch=pair[1])  # noqa: E731
    found.get_new_batch_prefill = lambda running: plan(found._get_new_batch_prefill_raw(None, running))
    found.retracted = 0

    def put_back(request, is_retracted=False):
        found.waiting_queue.append(request)
        found.retracted += 1

    found._add_request_to_queue = put_back
    return found, module.Scheduler.get_next_batch_to_run


def recorded(case: dict[str, Any]) -> list[int]:
    """The most requests at once, retractions, batches, the most tokens in use."""
    requests = [Request(*one) for one in pairs(case)]
    pool, tree = Pool(case["tokens"], case["page"]), Tree()
    batch_kind = batch_class(pool, tree)
    found, next_batch = scheduler(requests, pool, tree, batch_kind, case["most"], case["chunk"])
    last, steps, peak, used = None, 0, 0, 0
    while True:
        plan = next_batch(found, running_batch=found.running_batch, last_batch=last)
        found.running_batch, batch = plan.running_batch, plan.batch_to_run
        if batch:
            steps += 1
            launched = batch_kind(batch.reqs)
            launched.part = found.chunked_req if batch.forward_mode.is_extend() else None
            found.result_queue.append((launched, None))
        peak, used = max(peak, pool.rows), max(used, pool.size - pool.free)
        if last:
            done, _ = found.result_queue.pop(0)
            for request in done.reqs:
                if not (request.over or request.is_retracted or request is done.part):
                    request.output_ids.append(0)
                    if len(request.output_ids) >= request.sampling_params.max_new_tokens:
                        request.over = True
                        pool.hold(request, 0)
        if (batch is None and not last) or steps > MOST_STEPS:
            break
        last = batch
    return [peak, found.retracted, steps, used, sum(not one.over for one in requests)]


def simulated(case: dict[str, Any]) -> list[int]:
    try:
        run = Scheduler(case["tokens"], case["page"], case["most"], "", case["chunk"], ahead=True).run(pairs(case))
    except Refused:
        return []
    return [run.peak, run.preemptions, run.steps, run.tokens, 0]


def pairs(case: dict[str, Any]) -> list[tuple[int, int]]:
    prompts, outputs = (
        one if isinstance(one, list) else [one] * case["requests"] for one in (case["prompt"], case["output"])
    )
    return list(zip(prompts, outputs, strict=True))


def drawn(seed: int, number: int = 40) -> list[dict[str, Any]]:
    source, cases = random.Random(seed), []
    for _ in range(number):
        prompt, output = source.choice([10, 100, 1000, 5000, 20000]), source.choice([1, 2, 50, 300, 2000])
        many, page = source.choice([5, 20, 60]), source.choice([1, 1, 16, 64])
        case = {"prompt": prompt, "output": output, "requests": many}
        if source.random() < 0.5:
            for name in ("prompt", "output"):
                case[name] = [max(1, int(case[name] * source.lognormvariate(0, 0.5))) for _ in range(many)]
        # What the longest one needs at any time, so that all come in.
        most = max(one + more for one, more in pairs(case)) + 2 * page
        case |= {"page": page, "tokens": int(most * source.choice([1.2, 2, 4, 10])) // page * page}
        case |= {"chunk": source.choice([2048, 8192]), "most": source.choice([10**6, 7])}
        cases.append(case)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel")
    parser.add_argument("--draw", type=int)
    parser.add_argument("--rewrite", action="store_true")
    asked = parser.parse_args()
    prepare(asked.wheel)
    if asked.draw is not None or asked.rewrite:
        cases = drawn(asked.draw or 1)
    else:
        cases = [json.loads(line) for line in TRUTH.read_text().splitlines()]
    differ = 0
    for case in cases:
        real, mine = recorded(case), simulated(case)
        if real != mine or case.get("recorded", real) != real:
            differ += 1
            print({**case, "recorded": real, "memcurve": mine})
        case["recorded"] = real
    if asked.rewrite:
        TRUTH.write_text("".join(json.dumps(case, separators=(",", ":")) + "\n" for case in cases))
    print(f"{len(cases)} cases, {differ} differ")
    raise SystemExit(differ > 0)


if __name__ == "__main__":
    main()
