"""The API's questions as tools of the Model Context Protocol; needs the extra memcurve[mcp], and of the web no more than its forms.

A call names no path and no address, and its answer is that of the API: the same forms, bounds and numbers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from .. import __version__
from ..base import BadConfig, MemcurveError, TooLarge, nearest, show
from ..shapes import answer_schema
from .answers import answer_to
from .models import FORMS
from .security import MAX_BODY, Denied, check_json

if TYPE_CHECKING:
    from collections.abc import Mapping

AT_ONCE = 2  # answers reckoned at a time, the others wait
SUBJECT = (
    "A subject is one of: model, a hub name of the catalogue (such as Qwen/Qwen3-8B) or a pattern of layers (such as 3gdn:1mha); "
    "config, a config.json as an object or as its text; gguf, a GGUF header in base64."
)
ABOUT = (
    "Exactly how many bytes a language model's sequence state takes (KV caches, latents, recurrent states), per engine: logical, "
    f"transformers, vllm, sglang, llamacpp. {SUBJECT} Contexts, batches and memory are whole numbers of tokens, sequences and bytes: "
    "131072, not 128k. An error says in one line what was expected."
)
TITLES = {
    "estimate": ("Bytes at contexts", "Bytes of a subject's sequence state at contexts and a batch, unfolded to layers × slots × bytes per slot. Engine all: one row of each engine."),
    "curve": ("A curve as data", "How a subject's bytes grow with context: formula, terms, breakpoints, explanation, the engine's bounds, and what requests share out in an amount of memory."),
    "cross": ("Which of two is cheaper where", "From which context on which of two to eight subjects takes fewer bytes: all pairs, every crossing."),
    "compare": ("Models side by side", "A row for each of up to eight subjects: bytes per token, constant bytes, bytes at 8k, 128k and 1M tokens, and with a GPU what fits it."),
    "fit": ("Does it fit", "Whether a subject fits GPUs: weights, state and what the engine sets aside on each, the largest context, how many requests at once, and what binds."),
}  # fmt: skip
HINTS = types.ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


def tools() -> list[types.Tool]:
    return [
        types.Tool(
            name=name, title=TITLES[name][0], description=TITLES[name][1], input_schema=form.model_json_schema(),
            output_schema=answer_schema(name), annotations=HINTS,
        )
        for name, form in FORMS.items()
    ]  # fmt: skip


def call(name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
    """A tool's answer, as data and as its text; an error of memcurve's as one line."""
    try:
        found = answered(name, arguments)
    except MemcurveError as error:
        return types.CallToolResult(content=[text(one_line(str(error)))], is_error=True)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, never a traceback
        line = f"unexpected {type(error).__name__}; please report it"
        return types.CallToolResult(content=[text(line)], is_error=True)
    return types.CallToolResult(content=[text(json.dumps(found, ensure_ascii=False))], structured_content=found)


def answered(name: str, arguments: Mapping[str, Any]) -> dict[str, object]:
    """What the API answers to the same body. BadConfig for what is no body of its."""
    if name not in FORMS:
        hint = nearest(name, list(FORMS), 1)
        raise BadConfig(
            f"tool: {show(name)}; expected one of {', '.join(FORMS)}" + (f" (nearest: {hint})" if hint else "")
        )
    body = json.dumps(arguments).encode()
    if len(body) > MAX_BODY:
        raise TooLarge(f"arguments: {len(body):,} bytes; expected at most {MAX_BODY:,}")
    try:
        check_json(body)
    except Denied as denied:
        raise BadConfig(denied.detail) from None
    return answer_to(name, arguments)


def one_line(words: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in words).split())[:1000]


def text(words: str) -> types.TextContent:
    return types.TextContent(text=words)


def make_server() -> Server[dict[str, Any]]:
    turns = anyio.CapacityLimiter(AT_ONCE)
    listed = types.ListToolsResult(tools=tools())

    async def on_list_tools(_: Any, __: Any) -> types.ListToolsResult:
        return listed

    async def on_call_tool(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        return await anyio.to_thread.run_sync(call, asked.name, asked.arguments or {}, limiter=turns)

    return Server(
        "memcurve", version=__version__, title="memcurve", instructions=ABOUT, on_list_tools=on_list_tools,
        on_call_tool=on_call_tool,
    )  # fmt: skip


async def serve() -> None:
    """Answers on standard input and output until the input ends."""
    server = make_server()
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
