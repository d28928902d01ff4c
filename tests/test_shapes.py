"""One schema for each answer: what the commands print, what Python gives and what the API answers are equal, and hold to it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from test_gguf import QWEN, encoded
from test_weights import safetensors
from web_client import client

import memcurve
from memcurve import BadConfig, catalog, cli, gpus, load, pattern, schema
from memcurve.compare import row, to_data
from memcurve.engines import NAMES
from memcurve.fits import fitting_dtypes
from memcurve.model import catalogued
from memcurve.pages import fit_data
from memcurve.shapes import ANSWERS, SHAPES, answer_schema, refs
from memcurve.web import forms
from memcurve.web.answers import ANSWERED, answer_to
from memcurve.web.app import make_app
from memcurve.web.models import EXAMPLES, FORMS, TINY

if TYPE_CHECKING:
    from starlette.testclient import TestClient

QWEN3, NEXT, OSS = "Qwen/Qwen3-8B", "Qwen/Qwen3-Next-80B-A3B-Thinking", "openai/gpt-oss-120b"
V3 = "deepseek-ai/DeepSeek-V3"
LOG = Path(__file__).parents[1] / "docs" / "logs" / "kimi-k2-vllm.log"


@pytest.fixture(scope="module")
def web() -> TestClient:
    return client(make_app())


@cache
def validator(name: str) -> Draft202012Validator:
    own = answer_schema(name)
    Draft202012Validator.check_schema(own)
    return Draft202012Validator(own)


def held(name: str, found: object) -> Any:
    """An answer as JSON has it, which its schema describes."""
    plain = json.loads(json.dumps(found, allow_nan=False))
    validator(name).validate(plain)
    return plain


def estimate(name: str, contexts: list[int], engine: str, memory: int | None = None) -> dict[str, object]:
    model = load(name)
    return schema.estimate_data(model, model.curve(engine, "bf16"), contexts, 3, schema.encoder_of(model, None), memory)


def answered() -> list[tuple[str, str, dict[str, Any] | None, Any]]:
    """The schema's name; the command; the request to the API, None of a GET; and what Python gives."""
    every = [OSS, V3]
    return [
        ("estimate", f"estimate {NEXT} --context 4k,1M --batch 3 --dtype bf16",
         {"model": NEXT, "contexts": [4096, 2**20], "batch": 3, "dtype": "bf16"}, estimate(NEXT, [4096, 2**20], "logical")),
        *(("estimate", f"estimate {name} --context 32k --batch 3 --dtype bf16 --engine {engine} --memory 90GiB",
           {"model": name, "contexts": [32768], "batch": 3, "dtype": "bf16", "engine": engine, "memory": 90 * 2**30},
           estimate(name, [32768], engine, 90 * 2**30)) for name in (OSS, NEXT) for engine in forms.POOLS),
        ("estimate", f"estimate {OSS} --context 5k,32k --dtype bf16 --engine all --batch 512",
         {"model": OSS, "contexts": [5120, 32768], "dtype": "bf16", "engine": "all", "batch": 512},
         schema.engines_data(load(OSS), [5120, 32768], 512, "bf16", None, {})),
        ("cross", f"cross {NEXT} {V3}", {"subjects": [{"model": NEXT}, {"model": V3}]}, None),
        ("cross", f"cross {every[0]} --dtype bf16 --engine all --max_ctx 16k --batch 2", None, None),
        ("cross", f"cross {V3} {V3}", {"subjects": [{"model": V3}, {"model": V3}]}, None),
        ("fit", f"fit {NEXT} --gpu H100-80G --gpus 4 --context 32k", {"model": NEXT, "gpu": "H100-80G", "gpus": 4, "context": 32768},
         memcurve.fit(NEXT, gpu="H100-80G", gpus=4, context=32768).to_dict()),
        ("fit", f"fit {QWEN3} --gpu H100 --prompt_tokens 4k --output_tokens 300", None,
         memcurve.fit(QWEN3, gpu="H100", prompt=4096, output=300).to_dict()),
        *(("fit", f"fit {OSS} --gpu H200 --dtype bf16 --engine {engine} --gpus 2",
           {"model": OSS, "gpu": "H200", "dtype": "bf16", "engine": engine, "gpus": 2},
           memcurve.fit(OSS, gpu="H200", dtype="bf16", engine=engine, gpus=2).to_dict()) for engine in NAMES if engine != "mlx"),
        ("fit", f"fit {OSS} --gpu M4-Max-64G --dtype bf16 --engine mlx --wired_limit_mb 57344",
         {"model": OSS, "gpu": "M4-Max-64G", "dtype": "bf16", "engine": "mlx", "wired_limit_mb": 57344},
         memcurve.fit(OSS, gpu="M4-Max-64G", dtype="bf16", engine="mlx", wired_limit_mb=57344).to_dict()),
        ("fit", f"fit {V3} --gpu L4", {"model": V3, "gpu": "L4"}, memcurve.fit(V3, gpu="L4").to_dict()),
        ("compare", f"compare {NEXT} {QWEN3} --format json", {"subjects": [{"model": NEXT}, {"model": QWEN3}]},
         to_data([row(load(name), engine="logical") for name in (NEXT, QWEN3)])),
        ("compare", f"compare {NEXT} {V3} --gpu H100 --gpus 4 --format json",
         {"subjects": [{"model": NEXT}, {"model": V3}], "gpu": "H100", "gpus": 4},
         to_data([row(load(name), engine="vllm", gpu="H100", gpus=4) for name in (NEXT, V3)])),
        ("models", "models --json", None, schema.models_data()),
        ("gpus", "gpus --json", None, schema.gpus_data(gpus.table())),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "body", "python"), answered())
def test_one_answer_everywhere(
    name: str, words: str, body: dict[str, Any] | None, python: object, web: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert cli.run(words.split() if "--format" in words or "--json" in words else [*words.split(), "--json"]) == 0
    printed = held(name, json.loads(capsys.readouterr().out))
    if python is not None:
        assert held(name, python) == printed
    if body is not None:
        assert held(name, web.post(f"/api/v1/{name}", json=body).json()) == printed
        assert held(name, answer_to(name, body)) == printed
    elif f"{name} --json" == words:
        assert held(name, web.get(f"/api/v1/{name}").json()) == printed


def test_answers_of_commands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, logs, types, and which dtype of the cache fits."""
    (tmp_path / "model.safetensors").write_bytes(safetensors({"a": ("BF16", [2, 3])}))
    front = "subjects = '{n}gdn:1mha'\ncontexts = [0, 9]\nsizes.n = [1, true]\ncolumns.a = 0.5\npareto = 'a'\nengines = 'all'\n"
    (tmp_path / "front.toml").write_text(f"{front}options.block_size = ['none', 16]\noptions.kv_bits = 8\n")
    (tmp_path / "none.toml").write_text("subjects = '1mha'\ncontexts = 0\nengines = 'vllm'\noptions.block_size = 17\n")
    for name, words in (
        ("fits", f"estimate {QWEN3} --context 32k --engine vllm --memory 4GiB --fits --json"),
        ("weights", f"weights {tmp_path}/model.safetensors --json"),
        ("check-log", f"check-log {LOG} --model moonshotai/Kimi-K2-Thinking -O tensor_parallel_size=8 --json"),
        ("types", "models --types qwen3 --json"),
        *(("sweep", f"sweep {tmp_path}/{name}.toml -o {tmp_path}/{name}.csv --json") for name in ("front", "none")),
    ):
        cli.run(words.split())
        found = held(name, json.loads(capsys.readouterr().out))
        if name == "fits":
            tried = fitting_dtypes(load(QWEN3), 2**32, 32768, engine="vllm")
            assert held(name, schema.fitting_data(load(QWEN3), tried, "vllm", 32768, 1, 2**32)) == found


def test_answers_of_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    trace = tmp_path / "t.csv"
    requests = "".join(f"{index // 9},{500 + 37 * index},{40 + index % 30}\n" for index in range(60))
    trace.write_text("timestamp,prompt_tokens,output_tokens\n" + requests + "5,-1,2\n")
    words = f"replay {trace} --json --prefill_rate 200000 -O max_model_len=4096 --dtype bf16"
    for more in (
        f"--model {QWEN3} --model {NEXT} --memory 4GiB",
        f"--model {QWEN3} --model {OSS}",
        f"--model {QWEN3} --memory 600MiB --uncapped",
        f"--model {QWEN3} --max_queue 2s",
        f"--model {QWEN3} --gpu H100 --max_queue 2s",
    ):
        assert cli.run([*words.split(), *more.split()]) == 0
        held("replay", json.loads(capsys.readouterr().out))


def test_every_model_under_every_engine_holds_to_its_schema() -> None:
    for name in catalog.names():
        model = catalogued(name)
        for engine in NAMES:
            try:
                # Rotating caches that are quantised are refused at some contexts.
                curve = model.curve(engine, "bf16", **({"kv_bits": 8, "max_kv_size": 64} if engine == "mlx" else {}))
                found = schema.curve_data(model, curve, 1, model.encoder_context, None, 40 * 2**30)
            except memcurve.MemcurveError:
                continue
            held("curve", found)


def test_answers_of_the_api_alone(web: TestClient) -> None:
    for name, bodies in EXAMPLES.items():
        for body in bodies.values():
            assert held(name, web.post(f"/api/v1/{name}", json=body).json()) == held(name, answer_to(name, body))
    raw = {"content-type": "application/octet-stream"}
    header = encoded(QWEN, tensors=("token_embd.weight",))
    for data in (TINY, header):
        held("gguf", web.post("/api/v1/gguf", content=data, headers=raw).json())
    held("engines", web.get("/api/v1/engines").json())
    held("fit", fit_data(memcurve.fit(OSS, gpu="H100", dtype="bf16", engine="llamacpp")))
    short = memcurve.fit(pattern("48mha", dtype="bf16"), gpu="L4", weights=load_weights(), reserve=0, max_model_len=9)
    held("fit", fit_data(short))


def load_weights() -> memcurve.checkpoint.Weights:
    from memcurve.web.answers import spread

    return spread(pattern("48mha", dtype="bf16"), 10**9, None)


def test_schemas_are_strict() -> None:
    """No field is left out of one, or left undescribed by it."""
    found = held("estimate", answer_to("estimate", {"model": QWEN3}))
    for broken in (
        {key: value for key, value in found.items() if key != "formula"},
        found | {"more": 1},
        found | {"batch": "1"},
        found | {"schema": 2},
        found | {"estimates": [{**found["estimates"][0], "bytes": None}]},
    ):
        with pytest.raises(ValidationError):
            validator("estimate").validate(broken)
    with pytest.raises(BadConfig, match=r"answer: 'estimates'; expected one of estimate, .* \(nearest: estimate\)"):
        answer_schema("estimates")


def test_every_record_is_of_an_answer() -> None:
    used = {"Problem", *(name for names in ANSWERS.values() for name in names)}
    for name in ANSWERS:
        own = answer_schema(name)
        assert set(refs(own)) <= set(own["$defs"])
        assert own["type"] == "object", "tools take no other"
        used |= set(own["$defs"])
    assert used == set(SHAPES)
    assert set(ANSWERED) == {*FORMS, "gguf"}
    assert set(ANSWERED) <= set(ANSWERS)


def test_schemas_and_forms_need_no_server() -> None:
    code = "import sys, memcurve.shapes; print('pydantic' in sys.modules); import memcurve.web.answers; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
