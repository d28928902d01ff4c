"""fit: the parts add up, the answer fits and the next size does not, and more memory never lowers an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import memcurve
from memcurve import BadConfig, MemcurveError, NotDescribed, Refused, catalog
from memcurve.checkpoint import Tensor, Weights
from memcurve.cli import run
from memcurve.compare import CONTEXTS, cells, row
from memcurve.fitting import Fit, fit
from memcurve.terms import compile_expr

GIB = 2**30
# Of each kind of state: full attention, windows, latents, gated delta, Mamba-2, Mamba without attention.
MODELS = (
    "mlc/qwen2", "google/gemma-3-1b-it", "deepseek-ai/DeepSeek-V2", "Qwen/Qwen3-Next-80B-A3B-Thinking",
    "tiiuae/Falcon-H1-34B-Instruct", "tiiuae/falcon-mamba-7b",
)  # fmt: skip
ENGINES = ("logical", "transformers", "vllm", "sglang", "llamacpp")


def weights_of(gib: int, layers: int) -> Weights:
    """A checkpoint of so many GiB of dense layers."""
    each = gib * GIB // layers // 2 // 1024
    tensors = (
        Tensor(name=f"model.layers.{layer}.mlp.up_proj.weight", dtype="BF16", shape=(1024, each), bytes=2 * 1024 * each)
        for layer in range(layers)
    )
    return Weights(source="made", tensors=tuple(tensors))


def asked(name: str, engine: str, memory: int, context: int, batch: int = 1, **options: Any) -> Fit:
    model = memcurve.load(name)
    return fit(
        model, gpu_memory=memory, engine=engine, context=context, batch=batch, weights=weights_of(4, len(model.layers)),
        reserve=2 * GIB, **options,
    )  # fmt: skip


cases = given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(ENGINES),
    memory=st.integers(7 * GIB, 200 * GIB),
    context=st.integers(1, 2000),
    batch=st.integers(1, 20),
)
slow = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@slow
@cases
def test_what_fits_fits_and_the_next_size_does_not(
    name: str, engine: str, memory: int, context: int, batch: int
) -> None:
    try:
        found = asked(name, engine, memory, context, batch)
    except Refused:
        assume(False)
    for gpu in (found.per_gpu, *found.stages):
        assert gpu.weights_bytes + gpu.state_bytes + gpu.reserve_bytes + gpu.free_bytes == gpu.total_bytes == memory
    assert found.fits == (found.max_requests >= batch)
    if found.fits:
        assert found.per_gpu.free_bytes >= 0
        assert found.max_context is None or found.max_context >= context
    if found.max_requests:
        assert asked(name, engine, memory, context, found.max_requests).fits
    with_one_more = batch_refused(name, engine, memory, context, found.max_requests + 1)
    assert with_one_more
    longest = found.max_context
    if longest:
        assert asked(name, engine, memory, longest, batch).fits
    if longest is not None:
        assert not asked(name, engine, memory, longest + 1, batch).fits


def batch_refused(name: str, engine: str, memory: int, context: int, batch: int) -> bool:
    try:
        return not asked(name, engine, memory, context, batch).fits
    except Refused:
        return True


@slow
@cases
def test_more_memory_never_lowers_an_answer(name: str, engine: str, memory: int, context: int, batch: int) -> None:
    try:
        less, more = asked(name, engine, memory, context, batch), asked(name, engine, memory + GIB, context, batch)
    except Refused:
        assume(False)
    assert more.max_requests >= less.max_requests
    assert more.max_context is None or (less.max_context is not None and more.max_context >= less.max_context)


@pytest.mark.parametrize("engine", ENGINES)
def test_stages_hold_all_weights_and_all_state(engine: str) -> None:
    # SGLang's class of Qwen3-Next has no pipeline stages.
    name = "Qwen/Qwen3-30B-A3B" if engine == "sglang" else "Qwen/Qwen3-Next-80B-A3B-Thinking"
    one, two = asked(name, engine, 80 * GIB, 4096), asked(name, engine, 80 * GIB, 4096, pp=2)
    assert sum(gpu.weights_bytes for gpu in two.stages) == one.per_gpu.weights_bytes
    # 4,096 tokens are 16 cells of 256, and states are of one size, so that nothing is rounded twice.
    assert sum(gpu.state_bytes for gpu in two.stages) == one.per_gpu.state_bytes


def test_the_latent_is_on_every_rank_and_grouped_heads_are_divided() -> None:
    """MLA has no heads to divide (DeepSeek-V2, arXiv:2405.04434); Qwen3-30B-A3B's four key-value heads go to four ranks."""
    latent = [asked("deepseek-ai/DeepSeek-V2", "vllm", 80 * GIB, 4096, tp=tp).per_gpu.state_bytes for tp in (1, 4)]
    grouped = [asked("Qwen/Qwen3-30B-A3B", "vllm", 80 * GIB, 4096, tp=tp).per_gpu.state_bytes for tp in (1, 4, 8)]
    assert latent[0] == latent[1]
    assert grouped[0] == 4 * grouped[1]
    assert grouped[1] == grouped[2]


def test_what_binds_is_named() -> None:
    assert asked("mlc/qwen2", "vllm", 5 * GIB, 1000).bound_by == "weights"
    assert asked("mlc/qwen2", "vllm", 10 * GIB, 1000).bound_by == "tokens"
    assert asked("mlc/qwen2", "vllm", 200 * GIB, 10).bound_by == "max_num_seqs"
    assert asked("mlc/qwen2", "vllm", 200 * GIB, 10**6).bound_by == "max_model_len"
    assert asked("mlc/qwen2", "llamacpp", 200 * GIB, 256).bound_by == "n_seq_max"
    assert asked("Qwen/Qwen3-Next-80B-A3B-Thinking", "sglang", 80 * GIB, 10).bound_by == "state slots"
    assert asked("tiiuae/falcon-mamba-7b", "transformers", 10 * GIB, 1000).bound_by == "state slots"


def test_the_fewest_gpus_do_it_and_one_fewer_does_not() -> None:
    name, memory = "Qwen/Qwen3-Next-80B-A3B-Thinking", 7 * GIB
    found = asked(name, "vllm", memory, 100_000, batch=4)
    assert found.fewest is not None
    gpus, tp, pp = found.fewest
    assert gpus > 1
    assert asked(name, "vllm", memory, 100_000, batch=4, tp=tp, pp=pp).fits
    for fewer in range(1, gpus):
        assert not asked(name, "vllm", memory, 100_000, batch=4, gpus=fewer).fits


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, BadConfig, "gpu: missing; expected a name"),
        ({"gpu_memory": 8 * GIB, "gpus": 3, "tp": 2}, BadConfig, "gpus: 3; expected a multiple of tp 2 = 2"),
        ({"gpu_memory": 8 * GIB, "gpus": 4, "tp": 2, "pp": 4}, BadConfig, "gpus: 4; expected tp 2 × pp 4 = 8"),
        ({"gpu_memory": 8 * GIB, "gpus": 10**6}, BadConfig, "gpus: 1,000,000; expected at most 1,024"),
        ({"gpu_memory": 2**60}, BadConfig, "gpu_memory: .*; expected the bytes of one GPU"),
        ({"gpu_memory": 24}, BadConfig, "gpu_memory: 24 bytes; expected .* such as 24GiB"),
        (
            {"gpu_memory": 8 * GIB, "tp": 2, "tensor_parallel_size": 4},
            BadConfig,
            "tensor_parallel_size: 4; expected tp = 2",
        ),
        ({"gpu_memory": 8 * GIB, "log": "nothing", "reserve": 1}, BadConfig, "log and reserve: both say"),
        ({"gpu_memory": 8 * GIB, "log": 5}, BadConfig, "log: 5; expected the text"),
        ({"gpu_memory": 8 * GIB, "tp": 0}, BadConfig, "tp: 0"),
        ({"gpu_memory": 8 * GIB, "tp": 3}, Refused, "heads"),
        ({"gpu_memory": 8 * GIB, "engine": "llamacpp", "tp": 2}, NotDescribed, "expected tp=1 and pp=2"),
        ({"gpu_memory": 8 * GIB, "engine": "sglang", "pp": 200}, Refused, "num_hidden_layers >= pp_size"),
        (
            {"gpu_memory": 8 * GIB, "engine": "sglang", "tp": 2, "dp_size": 2, "enable_dp_attention": True},
            NotDescribed,
            "enable_dp_attention: True; how weights are divided",
        ),
        ({"gpu_memory": 8 * GIB, "engine": "vlm"}, BadConfig, "nearest: vllm"),
        ({"gpu_memory": 8 * GIB, "wrong": 1}, BadConfig, "wrong: 1; not an option of engine vllm"),
    ],
)
def test_errors(options: dict[str, Any], error: type[MemcurveError], said: str) -> None:
    with pytest.raises(error, match=said):
        fit("mlc/qwen2", weights=weights_of(1, 24), **options)


def test_the_command_says_the_same_as_the_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "Qwen/Qwen3-8B", "--gpu", "L4", "--context", "4k", "--batch", "2"]
    assert run([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    found = fit("Qwen/Qwen3-8B", gpu="L4", context=4096, batch=2)
    assert data == json.loads(json.dumps(found.to_dict()))
    # 8,190,735,360 parameters in bf16, as the model card says (8.2 B)
    assert data["per_gpu"]["weights_bytes"] == 2 * 8_190_735_360
    assert {
        "fits",
        "model",
        "engine",
        "gpu",
        "gpus",
        "tp",
        "pp",
        "context",
        "batch",
        "max_context",
        "max_requests",
    } <= set(data)
    figure = tmp_path / "fit.svg"
    assert run([*words, "--explain", "-o", str(figure)]) == 0
    text = capsys.readouterr().out
    for part in (found.per_gpu.weights_bytes, found.per_gpu.state_bytes, found.per_gpu.reserve_bytes):
        assert f"{part:,} B" in text
    assert all(one.name in text and one.why in text for one in found.per_gpu.allowances)
    assert "L4" in figure.read_text()


def test_drafts_and_prefixes_are_told_apart() -> None:
    """DeepSeek-V3 drafts with one layer of the same latent: of 62 layers one; vLLM keeps three blocks of a state, not one."""
    drafted = fit(
        "deepseek-ai/DeepSeek-V3",
        dtype="bf16",
        gpu="B200",
        tp=16,
        speculative=1,
        context=1024,
        weights=weights_of(600, 61),
    )
    assert dict(drafted.extras)["drafting"] * 62 == drafted.per_gpu.state_bytes
    name = "Qwen/Qwen3-Next-80B-A3B-Thinking"
    on, off = (fit(name, gpu="H200", gpus=2, prefix_caching=flag, context=1024) for flag in (True, False))
    assert dict(on.extras)["prefix caching"] == on.per_gpu.state_bytes - off.per_gpu.state_bytes > 0
    assert not off.extras


def test_llamacpp_drafts_in_a_context_of_its_own() -> None:
    """GLM-4.5-Air's one draft layer attends as the 46 of the model do, so that it keeps a 46th of their state more."""
    kept: dict[str, Any] = {
        "engine": "llamacpp",
        "gpu_memory": 300 * GIB,
        "context": 8192,
        "weights": weights_of(100, 46),
        "reserve": 0,
    }
    plain = fit("zai-org/GLM-4.5-Air", **kept)
    drafted = fit("zai-org/GLM-4.5-Air", speculative=1, **kept)
    assert drafted.per_gpu.state_bytes * 46 == plain.per_gpu.state_bytes * 47
    assert dict(drafted.extras) == {"drafting": plain.per_gpu.state_bytes // 46}


def test_a_table_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "Qwen/Qwen3-8B", "3gdn:1mha", "--format", "json"]) == 0
    plain, pattern = json.loads(capsys.readouterr().out)["models"]
    # 36 layers × 8 heads × 128 × 2 × 2 B
    assert (plain["per_token"], plain["constant"]) == (147_456, 0)
    assert plain["bytes"]["8192"] == 8192 * 147_456
    assert pattern["constant"] > 0
    assert (plain["constant_from"], pattern["constant_from"]) == (0, 0)
    assert run(["compare", "Qwen/Qwen3-8B", "--gpu", "H100", "--format", "md"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].count("|") == rows[1].count("|") == rows[2].count("|")
    assert "147,456 B" in rows[2]


def test_windows_of_a_table_are_those_that_fill() -> None:
    """What grows no more is there at a context of its own, and never more than all that is kept from there on."""
    # 62 layers of which one in six is full, 16 heads × 128 × 2 × 2 B a token: 52 windows of 1,024
    found = row(memcurve.load("google/gemma-3-27b-it"), engine="logical", dtype="bf16")
    assert (found.constant, found.constant_from) == (52 * 1024 * 16 * 128 * 2 * 2, 1024)
    # vLLM takes at most 8,192 tokens of Gemma 2, in whose windows of 4,096 lies a step of 8,192 too: they never fill
    found = row(memcurve.load("google/gemma-2-9b"), engine="vllm", dtype="bf16")
    assert (found.constant, found.constant_from) == (0, 0)
    # All 42 layers grow: 8 heads × 256 × 2 × 2 B each
    assert found.per_token == 42 * 8 * 256 * 2 * 2
    for name in catalog.names():
        for engine in ("logical", "vllm", "sglang", "llamacpp"):
            try:
                found = row(memcurve.load(name), engine=engine, dtype="bf16")
            except MemcurveError:
                continue
            for context, size in zip(CONTEXTS, found.bytes, strict=True):
                assert size is None or context < found.constant_from or found.constant <= size, (name, engine)
    shown = cells(row(memcurve.load("openai/gpt-oss-120b"), engine="vllm", dtype="bf16"), False)[2]
    assert shown.startswith("581.06 MiB from ")


def test_the_engines_own_names_of_a_split_say_the_same() -> None:
    name = "Qwen/Qwen3-8B"
    kept: dict[str, Any] = {"gpu": "H100", "context": 4096}
    assert fit(name, tensor_parallel_size=2, **kept) == fit(name, tp=2, **kept)
    assert fit(name, pipeline_parallel_size=2, **kept) == fit(name, pp=2, **kept)
    assert fit(name, engine="sglang", tp_size=2, **kept) == fit(name, engine="sglang", tp=2, **kept)


def test_weights_are_in_the_dtype_that_the_engine_runs_in() -> None:
    """Qwen3-8B has 8,190,735,360 parameters; vLLM runs float32 checkpoints in bfloat16 unless it is told otherwise."""
    count = 8_190_735_360
    assert fit("Qwen/Qwen3-8B", gpu="H100", dtype="fp32").per_gpu.weights_bytes == 4 * count
    single = {**catalog_of("Qwen/Qwen3-8B"), "torch_dtype": "float32"}
    assert fit(single, gpu="H100").per_gpu.weights_bytes == 2 * count
    files = Weights(
        source="made", tensors=(Tensor(name="model.layers.0.mlp.up_proj.weight", dtype="F32", shape=(8, 8), bytes=256),)
    )
    assert fit(single, gpu="H100", weights=files).per_gpu.weights_bytes == 128
    assert fit(single, gpu="H100", weights=files, dtype="fp32").per_gpu.weights_bytes == 256
    assert fit(single, gpu="RTX 4090", engine="llamacpp", weights=files).per_gpu.weights_bytes == 256


def catalog_of(name: str) -> dict[str, Any]:
    found = catalog.find(name)
    assert found is not None
    return {key: value for key, value in found.items() if key not in ("dtype", "torch_dtype")}


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("deepseek-ai/DeepSeek-V3", {"speculative": 1, "gpus": 8}, NotDescribed, "weights of draft layers"),
        ("nvidia/Qwen3-235B-A22B-NVFP4", {"gpus": 8}, NotDescribed, "its name says NVFP4"),
        ("nvidia/DeepSeek-V4-Flash-NVFP4", {"gpus": 8}, NotDescribed, "expert_dtype"),
        ("deepseek-ai/DeepSeek-V4-Flash", {"gpus": 8}, NotDescribed, "expert_dtype: 'fp4'"),
        ("moonshotai/Kimi-K2-Thinking", {"gpus": 8}, NotDescribed, "published quantised"),
        ("Qwen/Qwen3-8B", {"engine": "llamacpp", "n_ctx": 4096}, BadConfig, "n_ctx: 4096; here it follows"),
        # 1,536 / 8 = 192 is no multiple of 128 (vllm-project/vllm#17569)
        (
            "Qwen/Qwen3-235B-A22B-FP8",
            {"tp": 8},
            Refused,
            "192 is not divisible by weight quantization block_[nk] = 128",
        ),
    ],
)
def test_no_answer_that_would_be_a_guess(
    name: str, options: dict[str, Any], error: type[MemcurveError], said: str
) -> None:
    with pytest.raises(error, match=said):
        fit(name, gpu="H100", **options)


def test_a_split_that_quantised_blocks_allow_is_found() -> None:
    assert (found := fit("Qwen/Qwen3-235B-A22B-FP8", gpu="H100", gpus=8)).tp == 4
    assert found.pp == 2


def test_the_pool_is_that_of_the_stage_with_the_fewest_blocks() -> None:
    found = fit("ai21labs/Jamba-v0.1", dtype="bf16", gpu="H200", pp=5, context=1000)
    pools = [stage_pool(found, number) for number in range(5)]
    assert found.pool is not None
    assert found.pool.as_dict()["num_blocks"] == min(pools) < max(pools)
    assert found.per_gpu.free_bytes == min(gpu.free_bytes for gpu in found.stages)


def stage_pool(found: Fit, number: int) -> int:
    gpu, curve = found.stages[number], found.curves[number]
    return int(curve.pool(gpu.free_bytes + gpu.state_bytes).as_dict()["num_blocks"])


def test_a_pool_that_is_given_must_be_there() -> None:
    kept: dict[str, Any] = {"gpu": "H100", "context": 4096}
    assert fit("Qwen/Qwen3-8B", kv_cache_memory_bytes=20 * GIB, **kept).fits
    too_much = fit("Qwen/Qwen3-8B", kv_cache_memory_bytes=70 * GIB, **kept)
    assert (too_much.fits, too_much.bound_by) == (False, "kv_cache_memory_bytes")


def test_notes_say_what_an_answer_stands_on() -> None:
    assert any("CUDA context" in note for note in fit("Qwen/Qwen3-8B", gpu="H100", gpu_memory_utilization=1).notes)
    small = fit("Qwen/Qwen3-8B", gpu="L4")
    assert small.starts_with == small.max_context
    assert small.pool is not None
    log = "Model loading took 14.99 GiB memory\nAvailable KV cache memory: 50.00 GiB\nGraph capturing finished in 5 secs, took 0.50 GiB\n"
    assert not any("the log says" in note for note in fit("Qwen/Qwen3-8B", gpu="H100", log=log).notes)
    assert any("the log says 14.99 GiB" in note for note in fit("Qwen/Qwen3-8B", gpu="H100", tp=2, log=log).notes)


def test_llamacpps_buffer_follows_the_context_and_its_sequences() -> None:
    """Its mask has 512 tokens × cells in 2 B: 512 × 2 × (65,536 − 8,192) more."""
    short, long = (
        fit("Qwen/Qwen3-8B", gpu="RTX 4090", engine="llamacpp", context=tokens).per_gpu.reserve_bytes
        for tokens in (8192, 65536)
    )
    assert long - short == 512 * 2 * (65536 - 8192)
    for context, batch in ((8192, 1), (8192, 4), (512, 100)):
        # The buffer as data, for the page, is what the allowance says.
        found = fit("Qwen/Qwen3-8B", gpu="H100", engine="llamacpp", context=context, batch=batch)
        sizes = [compile_expr(size)(context, batch, 0) for size, _ in found.rooms[0].buffers or ()]
        assert {one.name: one.bytes for one in found.per_gpu.allowances}["compute buffer"] == max(sizes)
    many = fit("Qwen/Qwen3-8B", gpu="H100", engine="llamacpp", context=256, batch=300)
    assert (many.fits, many.bound_by) == (False, "n_seq_max")


def test_sizes_that_make_no_weights_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    config = {**catalog_of("Qwen/Qwen3-8B"), "torch_dtype": "bfloat16"}
    for key in ("vocab_size", "hidden_size"):
        with pytest.raises(BadConfig):
            fit({**config, key: 0}, gpu="L4")
    assert main_of("fit", "Qwen/Qwen3-8B", "--gpu", "L4", "-O", "pp=2", capsys=capsys) == "option pp=2: expected --pp 2"
    # A bar does not outgrow its line, whatever does not fit.
    assert run(["fit", "Qwen/Qwen3-8B", "--gpu-memory", "64MiB"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 260


def main_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(BadConfig) as caught:
        run(list(words))
    return str(caught.value)
