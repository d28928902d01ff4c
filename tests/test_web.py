"""The web API: the same names and numbers as the command line and Python, and nothing that a hostile request can do with it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from test_gguf import QWEN, TOKEN, encoded
from web_client import ask, client

import memcurve
from memcurve import BadFile, MemcurveError, cli, gguf, load
from memcurve.engines import NAMES, module
from memcurve.web import forms
from memcurve.web.app import make_app
from memcurve.web.models import EXAMPLES, FORMS, TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


QWEN3, NEXT, OSS = "Qwen/Qwen3-8B", "Qwen/Qwen3-Next-80B-A3B-Thinking", "openai/gpt-oss-120b"
SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def web() -> TestClient:
    return client(make_app())


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.run(words) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def why(call: Callable[[], object]) -> str:
    """What an error of memcurve's own says; nothing where there is none."""
    try:
        call()
    except MemcurveError as error:
        return str(error)
    return ""


# -- the same names and numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (f"estimate {NEXT} --context 4k,1M --batch 3", "estimate", {"model": NEXT, "contexts": [4096, 2**20], "batch": 3}),
        (f"estimate {OSS} --context 32k --dtype bf16 --engine vllm --memory 30GiB", "estimate",
         {"model": OSS, "contexts": [32768], "dtype": "bf16", "engine": "vllm", "memory": 30 * 2**30}),
        (f"estimate {OSS} --context 5k,32k --dtype bf16 --engine all --batch 2", "estimate",
         {"model": OSS, "contexts": [5120, 32768], "dtype": "bf16", "engine": "all", "batch": 2}),
        ("estimate openai/gpt-oss-20b --dtype bf16 --engine llamacpp -O type_k=q8_0 -O type_v=q8_0", "estimate",
         {"model": "openai/gpt-oss-20b", "dtype": "bf16", "engine": "llamacpp", "options": {"type_k": "q8_0", "type_v": "q8_0"}}),
        ("estimate 3gdn:1mha --context 777", "estimate", {"model": "3gdn:1mha", "contexts": [777]}),
        (f"cross {NEXT} deepseek-ai/DeepSeek-V3", "cross", {"subjects": [{"model": NEXT}, {"model": "deepseek-ai/DeepSeek-V3"}]}),
        (f"cross {OSS}@engine=vllm,label=A {OSS}@engine=llamacpp --dtype bf16 --batch 8 --max_ctx 128k", "cross",
         {"subjects": [{"model": OSS, "engine": "vllm", "label": "A", "dtype": "bf16"},
                       {"model": OSS, "engine": "llamacpp", "dtype": "bf16"}], "batch": 8, "max_ctx": 131072}),
        (f"fit {NEXT} --gpu H100-80G --gpus 4 --context 32k", "fit", {"model": NEXT, "gpu": "H100-80G", "gpus": 4, "context": 32768}),
        (f"fit {OSS} --gpu H200 --dtype bf16 --engine sglang --batch 4 --tp 2 -O mem_fraction_static=0.85", "fit",
         {"model": OSS, "gpu": "H200", "dtype": "bf16", "engine": "sglang", "batch": 4, "tp": 2,
          "options": {"mem_fraction_static": 0.85}}),
        (f"fit {QWEN3} --gpu-memory 24GiB --reserve 2GiB --prefix-caching off", "fit",
         {"model": QWEN3, "gpu_memory": 24 * 2**30, "reserve": 2 * 2**30, "prefix_caching": False}),
        ("models", "models", None),
        ("gpus", "gpus", None),
    ],
)  # fmt: skip
def test_the_command_line_and_the_api_say_the_same(
    words: str, path: str, body: object, web: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    found = web.get(f"/api/v1/{path}").json() if body is None else ask(web, path, body)
    assert found == printed(capsys, *words.split(), "--json")


def test_python_says_the_same(web: TestClient) -> None:
    curve = load(NEXT).curve("vllm", tensor_parallel_size=2)
    asked = {
        "model": NEXT,
        "engine": "vllm",
        "options": {"tensor_parallel_size": 2},
        "contexts": [1, 4097, 2**20],
        "batch": 5,
    }
    found = ask(web, "estimate", asked)
    assert [one["bytes"] for one in found["estimates"]] == [curve.bytes(context, 5) for context in (1, 4097, 2**20)]
    assert [one["breakdown"] for one in found["estimates"]] == [curve.breakdown(n, 5) for n in (1, 4097, 2**20)]
    assert ask(web, "fit", {"model": QWEN3, "gpu": "H100"}) == json.loads(
        json.dumps(memcurve.fit(QWEN3, gpu="H100").to_dict())
    )
    crossed = ask(web, "cross", {"subjects": [{"model": NEXT}, {"model": "deepseek-ai/DeepSeek-V3"}]})
    both = memcurve.crossings(load(NEXT).curve(), load("deepseek-ai/DeepSeek-V3").curve())
    assert [one["context"] for one in crossed["crossings"]] == both


def test_numbers_are_exact_at_any_size(web: TestClient) -> None:
    # 36 layers × 2 × 8 heads × 128 × 2 B a token
    found = ask(web, "estimate", {"model": QWEN3, "contexts": [2**62], "batch": 2**31})
    assert found["bytes"] == TOKEN * 2**62 * 2**31


# -- curves as data ---------------------------------------------------------------------------------------------------


def evaluate(expr: Any, context: int, batch: int) -> int:
    """An expression as a page would: by the words of the document alone."""
    if not isinstance(expr, list):
        return {"context": context, "batch": batch}[expr] if isinstance(expr, str) else int(expr)
    left, right = evaluate(expr[1], context, batch), evaluate(expr[2], context, batch or 1)
    match expr[0]:
        case "add":
            return left + evaluate(expr[2], context, batch)
        case "mul":
            return left * evaluate(expr[2], context, batch)
        case "min":
            return min(left, evaluate(expr[2], context, batch))
        case "past":
            return max(left - right, 0)
        case "floor":
            return left // right
        case "ceil":
            return -(-left // right)
    assert expr[0] == "mod"
    return left % right


@pytest.mark.parametrize("engine", NAMES)
@pytest.mark.parametrize("name", [NEXT, OSS, "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3.2"])
def test_a_page_can_evaluate_a_curve_and_its_pool(engine: str, name: str, web: TestClient) -> None:
    memory = 96 * 2**30
    found = ask(web, "curve", {"model": name, "engine": engine, "dtype": "bf16", "memory": memory, "batch": 3})
    curve = load(name).curve(engine, "bf16")
    terms = found["curve"]["terms"]
    for context in (1, 3, 257, 4096, 70001):
        if context < found["first_context"]:
            continue
        total = sum(
            one["layers"] * sum(size for _, size in one["tensors"]) * evaluate(one["slots"], context, 3) * (1 if one["shared"] else 3)
            for one in terms
        )  # fmt: skip
        assert total == curve.bytes(context, 3)
    assert memcurve.MemoryCurve.from_dict(found["curve"]) == curve.replace(allocator=None, course=None)
    assert (found["formula"], found["kinks"]) == (curve.formula, list(curve.kinks(3)))
    assert found["explanation"] == curve.explain(None, 3).splitlines()
    assert found["pools"] == (engine in forms.POOLS)
    if not found["pools"]:
        assert found["room"] is None
        return
    room, longest = found["room"], found["bounds"].get("context", {"most": 2**62})["most"]
    assert curve.allocator is not None
    if room["refused"] is not None:
        with pytest.raises(MemcurveError, match=re.escape(room["refused"][:40])):
            curve.pool(memory)
        return
    assert room["pool"] == json.loads(json.dumps(curve.pool(memory).to_dict()))
    for context in (1, 100, 5000, longest, longest + 1):
        takes = [(one["units"], evaluate(one["each"], context, 1), one["name"]) for one in room["shares"]]
        most, why = min((units // each, name) for units, each, name in takes if each)
        if engine == "vllm" or context <= longest:
            assert curve.allocator.most_requests(memory, context)[0] == (0 if context > longest else most), why


def test_pages_of_a_pool_are_whole(web: TestClient) -> None:
    # Of 100,000 tokens, requests of 5,000 take 79 pages of 64 each: 5,056
    options = {"page_size": 64, "max_total_tokens": 100_000}
    asked = {"model": QWEN3, "engine": "sglang", "options": options, "memory": 60 * 2**30}
    room = ask(web, "curve", asked)["room"]
    tokens = next(one for one in room["shares"] if one["name"] == "tokens")
    # Whole pages of them
    assert (tokens["units"], evaluate(tokens["each"], 5000, 1)) == (100_000 // 64 * 64, 5056)


def test_what_has_no_end_is_null(web: TestClient) -> None:
    """A model that keeps nothing: as many requests as one likes, which JSON has no number for."""
    blocks = [{"attention": {"no_op": True}, "ffn": {}}] * 2
    config = {"model_type": "nemotron-nas", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "block_configs": blocks,
              "torch_dtype": "bfloat16", "max_position_embeddings": 4096}  # fmt: skip
    found = ask(web, "estimate", {"config": config, "engine": "vllm", "contexts": [1], "memory": 2**30})
    assert (found["bytes"], found["pool"]["max_concurrency"]) == (0, None)
    assert (
        ask(web, "curve", {"config": config, "engine": "vllm", "memory": 2**30})["room"]["pool"]["max_concurrency"]
        is None
    )


def test_the_encoders_positions_are_put_in(web: TestClient) -> None:
    config = {
        "model_type": "whisper",
        "d_model": 512,
        "decoder_layers": 2,
        "decoder_attention_heads": 8,
        "torch_dtype": "float32",
    }
    found = ask(web, "curve", {"config": config, "batch": 1})
    # Whisper's encoder gives 1,500 positions: keys and values of 512 numbers in 4 bytes in each of two layers
    assert found["encoder_context"] == 1500
    assert "encoder" not in json.dumps(found["curve"]["terms"])
    crossing = [one for one in found["curve"]["terms"] if one["slots"] == 1500]
    assert (
        sum(one["layers"] * sum(size for _, size in one["tensors"]) for one in crossing) * 1500
        == 2 * 2 * 512 * 4 * 1500
    )


# -- what a subject may be ----------------------------------------------------------------------------------------------

_seen: list[tuple[str, str]] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "socket.connect",
                                       "socket.getaddrinfo", "subprocess.Popen", "urllib.Request"):  # fmt: skip
        _seen.append((event, " ".join(map(str, arguments))))


sys.addaudithook(_watch)


@pytest.fixture
def watched() -> Iterator[list[tuple[str, str]]]:
    """Every file that is opened and every address that is asked, while a test runs."""
    global _seen
    _seen = []
    yield _seen
    _seen = None


HOSTILE = (
    "/etc/passwd", "../../../etc/passwd", "./config.json", "..", "~/.ssh/id_rsa", "nobody/nothing", "file:///etc/passwd",
    "http://127.0.0.1:1/x", "https://huggingface.co/a/b", "a/b.json", "x.gguf", "model.gguf", "C:\\x\\config.json",
    "\\\\host\\share", "a\u0000b/c", "%2e%2e/%2e%2e/etc/passwd", "con", "/dev/zero", "/proc/self/environ", "x/" * 90,
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_never_a_path_or_an_address(
    name: str, web: TestClient, watched: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for own in ("config.json", "a/b.json", "x.gguf", "model.gguf", "con"):
        (tmp_path / own).write_text(json.dumps({"model_type": "qwen3"}))
    monkeypatch.chdir(tmp_path)
    watched.clear()
    for path, body in (
        ("estimate", {"model": name}),
        ("curve", {"model": name}),
        ("fit", {"model": name, "gpu": "H100"}),
        ("cross", {"subjects": [{"model": name}, {"model": QWEN3}]}),
    ):
        assert ask(web, path, body, 404)["error"] == "NotDescribed"
    ask(web, "estimate", {"config": {"model_type": "qwen3", "_name_or_path": name}, "name": name, "dtype": "bf16"})
    ask(web, "fit", {"model": QWEN3, "gpu": name}, 422)
    for own in ("weights", "log", "model", "gpu", "engine", "dtype", "self"):
        ask(web, "fit", {"model": QWEN3, "gpu": "H100", "options": {own: name}}, 422)
        ask(web, "curve", {"model": QWEN3, "engine": "sglang", "options": {own: name}}, 422)
    folder = os.path.dirname(memcurve.__file__)
    for event, what in watched:
        assert event in ("open", "os.listdir"), what
        assert what.startswith(folder), what
        assert event == "os.listdir" or what.split(" ")[1] in ("r", "rb"), what


def test_nothing_is_written(web: TestClient, watched: list[tuple[str, str]]) -> None:
    watched.clear()
    for path, bodies in EXAMPLES.items():
        for body in bodies.values():
            ask(web, path, body)
    web.post("/api/v1/gguf", content=TINY, headers={"content-type": "application/octet-stream"})
    web.get("/")
    folder = os.path.dirname(memcurve.__file__)
    for event, what in watched:
        assert event in ("open", "os.listdir", "os.scandir"), what
        assert what.startswith(folder), what
        assert event != "open" or what.split(" ")[1] in ("r", "rb"), what


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "subject: nothing given; expected one of model, config and gguf"),
        ({"model": QWEN3, "config": {}}, 422, "subject: model and config given"),
        ({"model": "Qwen/Qwen3-9B"}, 404, "'Qwen/Qwen3-9B' is not in the catalogue; nearest: Qwen/Qwen3"),
        ({"model": QWEN3, "sizes": {"n_layers": 4}}, 422, "sizes: given; expected them beside a pattern"),
        ({"model": "3gdn:1mhb"}, 422, "pattern '3gdn:1mhb': 'mhb'; expected a kind among"),
        ({"model": QWEN3, "engine": "vlm"}, 422, "engine: 'vlm'; expected one of logical"),
        ({"model": QWEN3, "dtype": "bf17"}, 422, "dtype: 'bf17'; expected one of fp32"),
        ({"model": QWEN3, "engine": "vllm", "options": {"block": 16}}, 422, "options.block: not an option of engine vllm"),
        ({"model": QWEN3, "contexts": ["4k"]}, 422, "contexts[0]: '4k'; expected an integer (nearest: 4096)"),
        ({"model": QWEN3, "contexts": [4.5]}, 422, "contexts[0]: 4.5; expected an integer"),
        ({"model": QWEN3, "contexts": [True]}, 422, "contexts[0]: True; expected an integer"),
        ({"model": QWEN3, "contexts": [-1]}, 422, "contexts[0]: -1; expected 0 or more"),
        ({"model": QWEN3, "contexts": [2**63]}, 422, "contexts[0]: 9223372036854775808; expected at most 4,611,686,018,427,387,904"),
        ({"model": QWEN3, "contexts": list(range(513))}, 422, "contexts: 513; expected at most 512 of them"),
        ({"model": QWEN3, "contexts": []}, 422, "contexts: 0; expected at least 1 of them"),
        ({"model": QWEN3, "contexts": 5}, 422, "contexts: 5; expected a list"),
        ({"model": QWEN3, "memory": "60GiB"}, 422, "memory: '60GiB'; expected an integer (nearest: 64424509440)"),
        ({"model": QWEN3, "memory": [1]}, 422, "memory: a list; expected an integer"),
        ({"model": 5}, 422, "model: 5; expected a text"),
        ({"model": "x" * 201}, 422, f"model: '{'x' * 56}...; expected at most 200 characters"),
        ({"config": 5}, 422, "config: 5; expected an object or a text"),
        ({"model": QWEN3, "options": {"block_size": []}}, 422, "options.block_size: a list; expected true or false, an integer, a number or a text"),
        ({"model": QWEN3, "options": {"x" * 201: 1}}, 422, f"options.{'x' * 192}: expected a name of at most 200 characters"),
        ({"model": QWEN3, "options": 7}, 422, "options: 7; expected an object"),
        ({"model": "3gdn:1mha", "sizes": {"n_layer": 4}}, 422, "sizes.n_layer: not a field; expected one of conv_kernel, "),
        ({"model": QWEN3, "nonsense": 1}, 422, "nonsense: not a field; expected one of batch, config, "),
        ({"model": QWEN3, "context": 4096}, 422,
         "context: not a field; expected one of batch, config, contexts, dtype, encoder_context, engine, gguf, memory, model, name, "
         "options, sizes (nearest: contexts)"),
        ([], 422, "body: a list; expected an object"),
        ({"model": QWEN3, "batch": 257, "engine": "llamacpp"}, 409, "n_seq_max must be <= 256"),
        ({"config": {"model_type": "qwen99"}}, 404, "model type 'qwen99'"),
        ({"config": {"model_type": "qwen3", "num_hidden_layers": -1}}, 422, "num_hidden_layers: -1; expected an integer"),
        ({"config": {"general.architecture": "llama"}}, 422, "config: metadata of a GGUF file; expected its header as gguf"),
        ({"gguf": "?"}, 422, "gguf: not base64"),
        ({"gguf": "R0dVRg=="}, 422, "gguf: "),
        ({"model": QWEN3, "memory": 2**30}, 422, "pool: this curve of engine logical reserves no pool"),
        ({"model": QWEN3, "encoder_context": 9}, 422, "encoder_context: 9; Qwen/Qwen3-8B keeps nothing of an encoder"),
    ],
)  # fmt: skip
def test_errors_are_problems_of_one_line(body: object, status: int, detail: str, web: TestClient) -> None:
    found = ask(web, "estimate", body, status)
    assert found["detail"].startswith(detail)
    assert found["type"] == "about:blank"
    assert found["error"] == {404: "NotDescribed", 409: "Refused"}.get(status, found["error"])


def test_a_config_is_named_and_never_trusted(web: TestClient) -> None:
    label = "</script><script>alert(1)</script>\u0007"
    response = web.post(
        "/api/v1/curve", json={"config": {**EXAMPLES["curve"]["quantised keys and values"]["config"]}, "name": label}
    )
    assert response.json()["model"] == label
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_config_may_be_its_text(web: TestClient) -> None:
    """Mamba's say time_step_limit: [0, Infinity], which no browser parses."""
    config = json.dumps({"model_type": "qwen3", "torch_dtype": "bfloat16", "time_step_limit": [0, float("inf")]})
    assert "Infinity" in config
    assert ask(web, "estimate", {"config": config})["model"] == "qwen3"
    for text, detail in (
        ("[1]", "config: holds a list"),
        ("{", "config: not JSON"),
        ("[" * 10**5, "config: nested too deeply"),
    ):
        assert ask(web, "estimate", {"config": text}, 422)["detail"].startswith(detail)


def test_options_are_those_of_the_engines(web: TestClient) -> None:
    """Each choice is taken, what is none is turned down with the choices, and defaults are what leaving out means."""
    engines = web.get("/api/v1/engines").json()["engines"]
    assert [one["name"] for one in engines] == list(NAMES)
    model = load(QWEN3)
    for engine in engines:
        assert [one["name"] for one in engine["options"]] == list(module(engine["name"]).OPTIONS)
        plain = model.curve(engine["name"], "bf16")
        for one in engine["options"]:
            given = model.curve(engine["name"], "bf16", **{one["name"]: one["default"]})
            assert given.terms == plain.terms, one
            assert one["optional"] == (one["default"] is None)
            wrong = {"word": "no such word", "flag": "no flag", "count": "no count", "number": "no number"}[one["kind"]]
            with pytest.raises(MemcurveError) as error:
                model.curve(engine["name"], "bf16", **{one["name"]: wrong})
            if one["kind"] != "word":
                continue
            said = str(error.value)
            assert one["choices"], one
            for choice in one["choices"]:
                assert str(choice) in said or one["name"] == "state_dtype", (said, choice)
                refusal = why(partial(model.curve, engine["name"], "bf16", **{one["name"]: choice}))
                assert f"{one['name']}: " not in refusal, refusal


def test_fit_options_are_those_of_the_budgets(web: TestClient) -> None:
    for engine in web.get("/api/v1/engines").json()["engines"]:
        for one in engine["fit_options"]:
            value = {"count": 16, "number": 0.9, "flag": True, "word": "cuda_ipc"}[one["kind"]]
            asked = {"model": QWEN3, "gpu": "H200", "engine": engine["name"], "options": {one["name"]: value}}
            response = web.post("/api/v1/fit", json=asked)
            assert response.status_code in (200, 409), response.text
            if one["kind"] != "word":
                ask(web, "fit", asked | {"options": {one["name"]: "no such thing"}}, 422)


# -- weights --------------------------------------------------------------------------------------------------------------


def test_weights_as_given(web: TestClient) -> None:
    found = ask(web, "fit", {"model": QWEN3, "gpu": "H100", "weights_bytes": 5 * 10**9 + 1})
    assert (found["total_weights"], found["weights"]) == (5 * 10**9 + 1, "given")
    assert found["per_gpu"]["weights_bytes"] == 5 * 10**9 + 1
    # Halves of nearly everything on each of two ranks
    two = ask(web, "fit", {"model": QWEN3, "gpu": "H100", "weights_bytes": 5 * 10**9, "tp": 2})["per_gpu"][
        "weights_bytes"
    ]
    assert 2.5e9 <= two < 2.6e9
    # A pattern has no tensors to divide them among
    asked = {"model": "48mha", "gpu": "H100", "weights_bytes": 10**9, "reserve": 0, "options": {"max_model_len": 8192}}
    alone = ask(web, "fit", {**asked, "tp": 2})
    assert alone["per_gpu"]["weights_bytes"] == 10**9
    assert "how they divide is not known" in alone["notes"][0]


def file_of(metadata: dict[str, Any], tensors: tuple[str, ...] = ()) -> bytes:
    return encoded(metadata, tensors=tensors)


def test_a_gguf_header_is_what_the_file_is(web: TestClient, tmp_path: Path) -> None:
    tokens = QWEN | {
        "tokenizer.ggml.tokens": ["word"] * 5000,
        "tokenizer.chat_template": "x" * 9000,
        "qwen3.vocab_size": 5000,
    }
    header = file_of(tokens, ("token_embd.weight", "blk.0.attn_q.weight"))
    (tmp_path / "mine.gguf").write_bytes(header)
    curve = load(tmp_path / "mine.gguf").curve("llamacpp")
    short = web.post("/api/v1/gguf", content=header, headers={"content-type": "application/octet-stream"}).json()
    assert len(base64.b64decode(short["gguf"])) < 1000 < len(header)
    for data in (base64.b64encode(header).decode(), short["gguf"]):
        found = ask(web, "estimate", {"gguf": data, "engine": "llamacpp", "contexts": [4096]})
        assert (found["model"], found["bytes"]) == ("Qwen3 8B", curve.bytes(4096))
    metadata, plain = gguf.read_header(base64.b64decode(short["gguf"]), "x"), gguf.read(str(tmp_path / "mine.gguf"))
    assert metadata.data == plain.data
    assert metadata.has_tensor("blk.0.attn_q.weight")
    assert not metadata.has_tensor("blk.1.attn_q.weight")


def test_the_weights_of_a_header_are_those_it_lists(web: TestClient) -> None:
    sizes = {"qwen3.vocab_size": 5000, "qwen3.feed_forward_length": 12288}
    for tensors, status in (((), 404), (("token_embd.weight",), 200)):
        data = base64.b64encode(file_of(QWEN | sizes, tensors)).decode()
        found = ask(web, "fit", {"gguf": data, "gpu": "H100", "engine": "llamacpp"}, status)
        assert status == 200 or "does not list all weights" in found["detail"]


def test_a_header_cut_anywhere_is_a_bad_file(web: TestClient) -> None:
    header = file_of(QWEN, ("token_embd.weight",))
    for end in range(len(header)):
        said = why(partial(gguf.read_header, header[:end], "gguf"))
        # What follows the list of tensors is padding
        assert said.startswith("gguf: ") if said else not header[end:].strip(b"\0")
    ask(web, "estimate", {"gguf": base64.b64encode(header[:60]).decode()}, 422)


def test_tensors_of_a_split_file_may_be_elsewhere() -> None:
    metadata = gguf.read_header(file_of(QWEN | {"split.count": 2, "split.no": 0}, ("a",)), "gguf")
    assert metadata.has_tensor("a")
    with pytest.raises(BadFile, match="may be in another of 2 parts"):
        metadata.has_tensor("b")


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_no_header_does_worse_than_an_error(junk: bytes, at: int) -> None:
    header = file_of(QWEN, ("a", "b"))
    for data in (b"GGUF" + junk, header[:at] + junk + header[at + len(junk) :]):
        for read in (gguf.read_header, gguf.shortened):
            with contextlib.suppress(BadFile):
                read(data, "gguf")


# -- the document ---------------------------------------------------------------------------------------------------------


def test_every_example_of_the_document_is_real(web: TestClient) -> None:
    document = web.get("/api/v1/openapi.json").json()
    asked = 0
    for path, entry in document["paths"].items():
        for method, operation in entry.items():
            assert operation["summary"], path
            assert operation["description"], path
            shown = operation["responses"]["200"]["content"]["application/json"]["examples"]
            if method == "get":
                found = web.get(path).json()
                for key, value in shown["the first two"]["value"].items():
                    assert (found[key][:2] if isinstance(value, list) else found[key]) == value
                continue
            content = operation["requestBody"]["content"]
            if path == "/api/v1/gguf":
                response = web.post(path, content=TINY, headers={"content-type": "application/octet-stream"})
                assert response.json() == next(iter(shown.values()))["value"]
                continue
            assert content["application/json"]["examples"], path
            for name, example in content["application/json"]["examples"].items():
                response = web.post(path, json=example["value"])
                assert response.status_code == 200, response.text
                assert response.json() == shown[name]["value"]
                asked += 1
    assert asked == sum(map(len, EXAMPLES.values())) >= 12
    assert set(document["paths"]) == {
        f"/api/v1/{name}"
        for name in ("estimate", "curve", "cross", "fit", "compare", "gguf", "models", "gpus", "engines")
    }


def test_every_field_of_a_request_is_described(web: TestClient) -> None:
    kinds = web.get("/api/v1/openapi.json").json()["components"]["schemas"]
    for form in FORMS.values():
        for field, entry in kinds[form.__name__]["properties"].items():
            assert entry.get("description"), (form, field)
