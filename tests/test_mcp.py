"""memcurve mcp over real standard input and output, asked by the SDK's own client: the library's answers, and nothing else on the wire."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client

import memcurve
from memcurve import compare, load, schema
from memcurve.base import BadConfig
from memcurve.shapes import answer_schema
from memcurve.web.answers import ANSWERED
from memcurve.web.models import EXAMPLES, FORMS
from memcurve.web.security import MAX_BODY
from memcurve.web.tools import answered, call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SOURCE = Path(memcurve.__file__).parents[1]
QWEN3, NEXT = "Qwen/Qwen3-8B", "Qwen/Qwen3-Next-80B-A3B-Thinking"
# Paths that are there, addresses, and a tool's arguments that are none: with what the one line says.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("estimate", {"model": "/etc/passwd"}, "'/etc/passwd' is not in the catalogue"),
    ("estimate", {"model": "./config.json"}, "'./config.json' is not in the catalogue"),
    ("estimate", {"model": "https://example.org/config.json"}, "is not in the catalogue"),
    ("estimate", {"model": "someone/on-the-hub"}, "'someone/on-the-hub' is not in the catalogue"),
    ("estimate", {"model": "Qwen3-Nxt"}, f"nearest: {NEXT}"),
    ("estimate", {}, "nothing given; expected one of model, config and gguf"),
    ("estimate", {"model": QWEN3, "contexts": ["128k"]}, "contexts[0]: '128k'; expected an integer (nearest: 131072)"),
    ("estimate", {"model": QWEN3, "contexts": [10**30]}, "contexts[0]: 1"),
    ("estimate", {"model": QWEN3, "path": "x"}, "path: not a field; expected one of "),
    ("estimate", {"config": "{\"model_type\":\"lama\"}"}, "'lama' is not described; nearest: "),
    ("estimate", {"model": QWEN3, "engine": "vlm"}, "nearest: vllm"),
    ("estimate", {"model": QWEN3, "options": {"__class__": 1}}, "options.__class__: not an option of engine logical"),
    ("estimate", {"gguf": "R0dVRg=="}, "expected"),
    ("curve", {"model": "a\nb\x1b[31m"}, "is not in the catalogue"),
    ("cross", {"subjects": [{"model": QWEN3}]}, "subjects: "),
    ("compare", {"subjects": [{"model": QWEN3}], "gpus": 2}, "gpus: 2; expected gpu or gpu_memory beside it"),
    ("compare", {"subjects": [{"model": QWEN3}], "engine": "all"}, "engine: 'all'; expected one of"),
    ("fit", {"model": QWEN3, "gpu": "H10"}, "nearest: "),
    ("fit", {"model": QWEN3, "gpu": "L4", "log": "/etc/passwd"}, "log: not a field; expected one of "),
    ("estmate", {}, "tool: 'estmate'; expected one of estimate, curve, cross, fit, compare (nearest: estimate)"),
]  # fmt: skip


def talk(conversation: Callable[[Client], Awaitable[None]]) -> str:
    """Runs a conversation with a server of its own; what that wrote to its standard error."""
    environment = {"PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "always", "HF_HUB_OFFLINE": "1"}
    server = StdioServerParameters(command=sys.executable, args=["-m", "memcurve", "mcp"], env=environment)
    read, write = os.pipe()

    async def run() -> None:
        with os.fdopen(write, "w") as errors:
            async with Client(stdio_client(server, errlog=errors)) as client:
                await conversation(client)

    anyio.run(run)
    with os.fdopen(read) as stream:
        return stream.read()


def test_tools_and_their_schemas() -> None:
    async def conversation(client: Client) -> None:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("memcurve", memcurve.__version__)
        assert "131072, not 128k" in (client.instructions or "")
        found = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(found) == list(FORMS)
        assert set(found) == {"estimate", "curve", "cross", "compare", "fit"}
        for name, tool in found.items():
            assert tool.input_schema == FORMS[name].model_json_schema()
            assert tool.output_schema == answer_schema(name)
            Draft202012Validator.check_schema(tool.input_schema)
            for body in EXAMPLES[name].values():
                Draft202012Validator(tool.input_schema).validate(body)
            assert tool.description
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert tool.annotations.open_world_hint is False

    assert talk(conversation) == ""


def test_answers_are_the_librarys() -> None:
    curve = load(NEXT).curve("transformers")
    other = load("deepseek-ai/DeepSeek-V3").curve()

    async def ask(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
        found = await client.call_tool(name, arguments)
        assert not found.is_error
        data: dict[str, Any] = found.structured_content
        assert json.loads(found.content[0].text) == data  # type: ignore[union-attr]
        return data

    async def conversation(client: Client) -> None:
        one = await ask(client, "estimate", model=NEXT, engine="transformers", contexts=[131072], batch=4)
        # Per sequence 12 × 131,072 × 2·256·2 × 2 B, and 36 × (8,192 × 4 × 2 B + 32·128·128 × 4 B) of states.
        assert one["bytes"] == 4 * (12 * 131072 * 2048 + 36 * (8192 * 4 * 2 + 32 * 128 * 128 * 4)) == 13196328960
        assert one == schema.estimate_data(load(NEXT), curve, [131072], 4, 0)
        large = await ask(client, "estimate", model=QWEN3, contexts=[2**62])
        assert large["bytes"] == 36 * 2**62 * 2 * 8 * 128 * 2  # far above 2^53, exact all the same
        shape = await ask(client, "curve", model=NEXT, engine="transformers")
        assert shape["curve"] == curve.to_dict()
        pair = await ask(client, "cross", subjects=[{"model": NEXT}, {"model": "deepseek-ai/DeepSeek-V3"}])
        crossed = memcurve.crossings(load(NEXT).curve(), other)
        assert [found["context"] for found in pair["crossings"]] == crossed == [1691]
        plan = await ask(client, "fit", model=QWEN3, gpu="L4", context=8192)
        assert plan == json.loads(json.dumps(memcurve.fit(QWEN3, gpu="L4", context=8192).to_dict()))
        rows = await ask(client, "compare", subjects=[{"model": QWEN3}, {"model": NEXT}], gpu="H100 80GB", gpus=4)
        row = [compare.row(load(name), engine="vllm", gpu="H100 80GB", gpus=4) for name in (QWEN3, NEXT)]
        assert rows == json.loads(compare.table(row, "json"))

    assert talk(conversation) == ""


def test_errors_are_one_line_and_no_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    monkeypatch.chdir(tmp_path)

    async def conversation(client: Client) -> None:
        for name, arguments, words in BAD:
            found = await client.call_tool(name, arguments)
            said = found.content[0].text  # type: ignore[union-attr]
            assert found.is_error, (name, arguments)
            assert words in said, said
            assert said.isprintable()
            assert found.structured_content is None
        assert not (await client.call_tool("estimate", {"model": QWEN3})).is_error

    assert talk(conversation) == ""


def test_every_example_is_answered_as_the_api_does() -> None:
    for name, bodies in EXAMPLES.items():
        for body in bodies.values():
            assert not call(name, body).is_error
            found = answered(name, body)
            assert found == ANSWERED[name](FORMS[name](**body))
            Draft202012Validator(answer_schema(name)).validate(json.loads(json.dumps(found)))


def test_hostile_arguments_cost_little() -> None:
    deep: dict[str, Any] = {"model_type": "llama"}
    for _ in range(300):
        deep = {"text_config": deep}
    wide = {"model_type": "llama", "layer_types": ["full_attention"] * 200_000}
    for body, words in (
        ({"config": deep}, "nested too deeply"),
        ({"config": wide}, f"expected at most {MAX_BODY:,}"),
        ({"config": {"model_type": "llama", "rope_theta": float("nan")}}, "not JSON"),
        ({"model": QWEN3, "contexts": [1] * 513}, "contexts: "),
        ({"model": QWEN3, "engine": "vllm", "options": {f"o{i}": 1 for i in range(65)}}, "options: "),
    ):
        began = time.perf_counter()
        with pytest.raises((BadConfig, OverflowError), match=words):
            answered("estimate", body)
        assert time.perf_counter() - began < 2


def test_nothing_but_messages_is_written() -> None:
    """By hand, in the handshake of 2025, with a line that is no message between."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "estimate", "arguments": {"model": QWEN3, "contexts": [1]}}},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "estimate", "arguments": {"model": "?"}}},
    ]  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "memcurve", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    found: dict[int, Any] = {}
    for line in ("no message\n", *(json.dumps(line) + "\n" for line in lines)):
        server.stdin.write(line)
        server.stdin.flush()
    while len(found) < 4:
        message = json.loads(server.stdout.readline())
        assert message["jsonrpc"] == "2.0"
        if message.get("id") is not None:
            found[message["id"]] = message
    rest, _ = server.communicate()
    assert rest == ""
    assert server.returncode == 0
    assert found[1]["result"]["protocolVersion"] == "2025-06-18"
    assert len(found[2]["result"]["tools"]) == 5
    assert found[3]["result"]["structuredContent"]["bytes"] == 36 * 2 * 8 * 128 * 2
    assert found[4]["result"]["isError"]


def test_the_settings_that_the_docs_show() -> None:
    page = (Path(__file__).parents[1] / "docs" / "integrations.md").read_text()
    shown = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert shown == {"mcpServers": {"memcurve": {"command": "memcurve", "args": ["mcp"]}}}


def test_it_needs_no_fastapi_and_says_what_it_needs() -> None:
    code = (
        "import sys; sys.modules['{0}'] = None; sys.argv = ['memcurve', 'mcp']\n"
        "from memcurve.cli import main\n"
        "sys.exit(main())"
    )

    def run(hidden: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code.format(hidden)]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        return subprocess.run(command, input="", capture_output=True, text=True, env=environment, check=False)

    without = run("fastapi")
    assert (without.returncode, without.stdout, without.stderr) == (0, "", "")
    lacking = run("mcp")
    assert (lacking.returncode, lacking.stdout) == (1, "")
    assert lacking.stderr == "memcurve: memcurve mcp needs the MCP SDK: pip install 'memcurve[mcp]'\n"
