"""Start-up logs read as figures, and budgets that stand on them. The lines are those of public logs (tests/truth/startup.jsonl)."""

from __future__ import annotations

import time
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcurve import BadConfig
from memcurve.engines.budget import Measured, Sizes, budget
from memcurve.logs import MAX_LOG
from memcurve.startup import LINES, read_startup

MiB, GiB = 2**20, 2**30
LLAMA = Sizes(hidden=4096, vocabulary=128256, layers=32, heads=32, intermediate=14336, tokens=8192, sequences=1024)

# vLLM 0.22.0, Qwen2.5-7B: what is requested is not said
VLLM = """\
INFO 09-03 03:38:43 [utils.py:278] non-default args: {'max_model_len': 4096, 'gpu_memory_utilization': 0.95}
(EngineCore pid=1073) INFO 09-03 03:38:57 [gpu_model_runner.py:5132] Model loading took 14.29 GiB memory and 4.660599 seconds
(EngineCore pid=1073) INFO 09-03 03:39:28 [gpu_model_runner.py:6365] Estimated CUDA graph memory: 0.37 GiB total
(EngineCore pid=1073) INFO 09-03 03:39:29 [gpu_worker.py:466] Available KV cache memory: 26.32 GiB
(EngineCore pid=1073) INFO 09-03 03:39:29 [gpu_worker.py:481] CUDA graph memory profiling is enabled (default since v0.21.0). \
The current --gpu-memory-utilization=0.9500 is equivalent to --gpu-memory-utilization=0.9417 without CUDA graph memory profiling.
(EngineCore pid=1073) INFO 09-03 03:39:33 [gpu_model_runner.py:6456] Graph capturing finished in 4 secs, took 0.31 GiB
"""
# vLLM 0.29, four ranks of which two are here: the fullest counts
RANKS = """\
(Worker_TP0) INFO [gpu_model_runner.py:1] Model loading took 62.10 GiB memory and 9.1 seconds
(Worker_TP1) INFO [gpu_model_runner.py:1] Model loading took 62.15 GiB memory and 9.1 seconds
(Worker_TP0) INFO [gpu_worker.py:624] Available KV cache memory: 17.79 GiB
(Worker_TP1) INFO [gpu_worker.py:624] Available KV cache memory: 17.73 GiB
(Worker_TP0) INFO [gpu_worker.py:855] Free memory on device (91.64/94.97 GiB) on startup. Desired GPU memory utilization is \
(0.91, 86.42 GiB). Actual usage is 64.44 GiB for consumed memory (weights + non-torch), 4.19 GiB for peak activation, and \
0.25 GiB for CUDAGraph memory.
"""
# vLLM 0.7, whose engine said everything in two lines
OLD = """\
INFO 05-30 16:23:28 worker.py:267] the current vLLM instance can use total_gpu_memory (14.56GiB) x gpu_memory_utilization (0.50) = 7.28GiB
INFO 05-30 16:23:28 worker.py:267] model weights take 2.89GiB; non_torch_memory takes 0.01GiB; PyTorch activation peak memory \
takes 2.02GiB; the rest of the memory reserved for KV Cache is 2.36GiB.
"""
SGLANG = """\
[2025-10-16 09:06:02] server_args=ServerArgs(model_path='m', mem_fraction_static=0.836, chunked_prefill_size=8192)
[2025-10-16 09:06:10 TP5] Load weight begin. avail mem=137.29 GB
[2025-10-16 09:06:10 TP0] Load weight begin. avail mem=137.34 GB
[2025-10-16 09:06:20 TP0] Load weight end. type=Qwen3MoeForCausalLM, dtype=torch.bfloat16, avail mem=108.00 GB, mem usage=29.34 GB.
[2025-10-16 09:06:21 TP0] Load weight begin. avail mem=107.90 GB
[2025-10-16 09:06:50 TP0] Capture cuda graph end. Time elapsed: 11.39 s. mem usage=1.00 GB. avail mem=11.17 GB.
"""
LLAMACPP = """\
load_tensors:   CPU_Mapped model buffer size =   308.23 MiB
load_tensors:        CUDA0 model buffer size =  2375.91 MiB
llama_kv_cache:      CUDA0 KV buffer size =  1152.00 MiB
0.00.635.819 \x1b[32mI \x1b[0msched_reserve:      CUDA0 compute buffer size =    85.01 MiB
sched_reserve:      CUDA1 compute buffer size =\x1b[0m    90,25 MiB
sched_reserve:  CUDA_Host compute buffer size =   411.29 MiB
"""


def said(found: Measured, *fields: str) -> list[str]:
    return [getattr(found, name).text for name in fields]


def test_vllm_figures() -> None:
    found = read_startup(VLLM)
    assert (found.engine, found.utilization, found.counted) == ("vllm", 0.95, True)
    assert said(found, "weights", "pool", "graphs") == ["14.29 GiB", "26.32 GiB", "0.37 GiB"]
    # 14.29 is anything from 14.285 to 14.295
    weights: Any = found.weights
    assert weights.low / GiB == pytest.approx(14.285, abs=1e-4)
    assert weights.high / GiB == pytest.approx(14.295, abs=1e-4)
    assert found.requested is None
    assert found.total is None


def test_the_fullest_rank_counts() -> None:
    found = read_startup(RANKS)
    assert said(found, "weights", "pool", "requested") == ["62.15 GiB", "17.73 GiB", "86.42 GiB"]
    assert said(found, "total", "consumed") == ["94.97 GiB", "64.44 GiB"]
    assert found.utilization == 0.91


def test_figures_of_an_old_engine() -> None:
    found = read_startup(OLD)
    assert said(found, "weights", "pool", "requested") == ["2.89 GiB", "2.36 GiB", "7.28 GiB"]
    assert said(found, "total", "activations") == ["14.56 GiB", "2.02 GiB"]
    assert (found.utilization, found.counted) == (0.5, False)


def test_sglang_figures() -> None:
    found = read_startup(SGLANG)
    # the second model that loads is a draft
    assert said(found, "before", "weights", "graphs") == ["137.29 GiB", "29.34 GiB", "1.00 GiB"]
    assert (found.engine, found.fraction) == ("sglang", 0.836)


def test_llamacpp_figures() -> None:
    found = read_startup(LLAMACPP)
    assert found.engine == "llamacpp"
    assert said(found, "compute", "weights") == ["90,25 MiB", "2375.91 MiB"]
    only = read_startup("sched_reserve:        CPU compute buffer size =   266.50 MiB\n")
    assert said(only, "compute") == ["266.50 MiB"]


def test_a_budget_on_a_log() -> None:
    total = round(44.4 * GiB)
    found = budget("vllm", total, sizes=LLAMA, options={"gpu_memory_utilization": 0.95}, log=read_startup(VLLM))
    assert [one.name for one in found] == ["left free", "beside weights"]
    # 0.95 × 44.4 − 14.29 − 26.32, each at the end of its rounding that leaves less
    most = ceil(total * 0.95) - (14.285 + 26.315) * GiB
    assert found[1].bytes == pytest.approx(most, abs=1e5)
    assert found[1].why.startswith("measured: 0.95 of 44.40 GiB − 14.29 GiB of weights − 26.32 GiB of pool")
    # The same start with another utilisation sets as much aside beside its weights.
    (left, same) = budget("vllm", total, sizes=LLAMA, options={"gpu_memory_utilization": 0.8}, log=read_startup(VLLM))
    assert same.bytes == found[1].bytes
    assert left.bytes == total - ceil(total * 0.8)


def test_graphs_that_a_log_did_not_count() -> None:
    text = VLLM.replace("CUDA graph memory profiling is enabled", "In v0.19, it will be enabled")
    found = budget("vllm", round(44.4 * GiB), sizes=LLAMA, log=read_startup(text))
    assert [one.name for one in found] == ["left free", "beside weights", "CUDA graphs"]
    assert found[2].bytes == pytest.approx(0.375 * GiB, abs=1e5)
    eager = budget("vllm", round(44.4 * GiB), sizes=LLAMA, options={"enforce_eager": True}, log=read_startup(text))
    assert len(eager) == 2
    kept = {"kv_cache_memory_bytes": 9 * GiB}
    given = budget("vllm", round(44.4 * GiB), sizes=LLAMA, options=kept, log=read_startup(text))
    assert [one.name for one in given] == ["CUDA context", "beside weights", "CUDA graphs"]
    # counted in the log, and not wanted: taken off again
    less = budget("vllm", round(44.4 * GiB), sizes=LLAMA, options={"enforce_eager": True}, log=read_startup(VLLM))
    assert less[1].bytes == pytest.approx(found[1].bytes - 0.365 * GiB, abs=1e5)


def test_sglang_and_llamacpp_on_a_log() -> None:
    total = round(139.81 * GiB)
    runtime, slack = budget("sglang", total, sizes=LLAMA, tp=8, log=read_startup(SGLANG))
    assert runtime.bytes == pytest.approx(total - 137.285 * GiB, abs=1e5)
    assert slack.bytes == pytest.approx((1 - 0.836) * 137.285 * GiB, abs=1e5)
    assert "in the log" in slack.why
    (compute, *_) = budget("llamacpp", total, sizes=LLAMA, log=read_startup(LLAMACPP))
    assert compute.bytes == pytest.approx(90.255 * MiB, abs=1e3)
    assert compute.why == "measured: 90,25 MiB"


def test_logs_that_do_not_help_are_refused() -> None:
    with pytest.raises(BadConfig, match="log: of sglang; expected a start-up log of vllm"):
        budget("vllm", 80 * GiB, sizes=LLAMA, log=read_startup(SGLANG))
    only = read_startup("Model loading took 14.29 GiB memory and 1 seconds")
    with pytest.raises(BadConfig, match='log: no "Model loading took" and no "Available KV cache memory"'):
        budget("vllm", 80 * GiB, sizes=LLAMA, log=only)
    with pytest.raises(BadConfig, match='log: no "Load weight begin'):
        budget("sglang", 80 * GiB, sizes=LLAMA, log=read_startup("Load weight end. mem usage=1.00 GB"))
    with pytest.raises(BadConfig, match='log: no "compute buffer size"'):
        budget("llamacpp", 80 * GiB, sizes=LLAMA, log=read_startup("CUDA0 model buffer size = 1.00 MiB"))
    with pytest.raises(BadConfig, match="log: no figure of memory"):
        read_startup("INFO: Application startup complete.")
    with pytest.raises(BadConfig, match="at most"):
        read_startup("x" * (MAX_LOG + 1))


@given(st.text(alphabet=st.sampled_from("0123456789.,-=()/ \nGiBMsKVmx"), max_size=60), st.data())
def test_nothing_else_is_raised(tail: str, data: Any) -> None:
    marks = [one.mark for lines in LINES.values() for one in lines] + ["gpu_memory_utilization", "mem_fraction_static"]
    text = "".join(data.draw(st.lists(st.one_of(st.sampled_from(marks), st.just(tail)), max_size=12)))
    try:
        found = read_startup(text)
    except BadConfig:
        return
    for figure in (found.total, found.weights, found.pool, found.before, found.compute):
        assert figure is None or 0 <= figure.high <= 2 * 10**9 * GiB


@pytest.mark.parametrize("mark", sorted({one.mark for lines in LINES.values() for one in lines}))
def test_hostile_repetition_costs_little(mark: str) -> None:
    text = (mark + " " * 40 + "9" * 400) * (2_000_000 // (len(mark) + 440))
    start = time.perf_counter()
    with pytest.raises(BadConfig):
        read_startup(text)
    assert time.perf_counter() - start < 2
