"""The app: questions under /api/v1, and the page's files beside them."""

from __future__ import annotations

import os
from functools import cache
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import __version__, gpus, schema
from ..base import BadConfig, BadFile, MemcurveError, NotDescribed, Refused, TooLarge, show
from . import answers, forms
from .models import (
    EXAMPLES,
    TINY,
    CompareRequest,
    CrossRequest,
    CurveRequest,
    EstimateRequest,
    FitRequest,
    Problem,
    first_of,
)
from .security import BYTES_TYPE, Guard, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp

STATIC = os.path.join(os.path.dirname(__file__), "static")
# The files that a page is made of; others in the folder are not served.
TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".json": "application/json", ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
# The status of each kind of error. A file that is of an unknown model is NotDescribed.
STATUS: tuple[tuple[type[MemcurveError], int], ...] = (
    (NotDescribed, 404), (Refused, 409), (BadConfig, 422), (BadFile, 422), (TooLarge, 422),
)  # fmt: skip
PROBLEMS = {
    400: "No JSON, or nested too deeply",
    403: "The host or the origin is not this server's",
    404: "NotDescribed: a name, a model type or a structure that memcurve does not describe",
    409: "Refused: the engine itself refuses; the detail is its reason",
    413: "A body that is too large",
    415: "A body of another content type",
    422: "BadConfig, BadFile or TooLarge: the detail names the key, the value and what was expected",
    503: "Too many requests at once; Retry-After says when to ask again",
}  # fmt: skip
ABOUT = (
    "Exactly how many bytes a language model's sequence state takes, as a function of context and batch, per engine: the same "
    "names and numbers as the command line's --json. Errors are problem details (RFC 9457)."
)


# Few answers are reckoned at once, the others wait: threads share one interpreter, and tables and files should not wait for all.
TURNS = Semaphore(2)


class Answer(JSONResponse):
    """Numbers are exact integers of any size."""


def make_app(hosts: Collection[str] = (), static: str = STATIC) -> ASGIApp:
    """The app behind its checks. hosts: names beside the loopback's by which browsers may reach it."""
    app = FastAPI(
        title="memcurve", version=__version__, description=ABOUT, openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None,
        redirect_slashes=False, separate_input_output_schemas=False,
    )  # fmt: skip
    for kind in (MemcurveError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, failed)
    add_questions(app)
    add_tables(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        return served(static, path)

    return Guard(app, hosts)


def add_questions(app: FastAPI) -> None:
    details = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    problems: dict[int | str, dict[str, Any]] = {
        status: {"description": about, "content": details} for status, about in PROBLEMS.items()
    }

    def question(name: str, summary: str, about: str) -> Callable[[Any], Any]:
        shown = {word: {"summary": word, "value": value} for word, value in EXAMPLES[name].items()}
        return app.post(
            f"/api/v1/{name}", summary=summary, description=about, response_class=Answer, responses=problems,
            openapi_extra={"requestBody": {"content": {"application/json": {"examples": shown}}}},
        )  # fmt: skip

    @question(
        "estimate",
        "Bytes at contexts",
        "What `memcurve estimate --json` prints: bytes, unfolded to layers × slots × bytes per slot.",
    )
    def estimate(asked: EstimateRequest) -> Response:
        return reckoned(answers.estimated, asked)

    @question("curve", "A curve as data", "The curve's terms, formula, breakpoints, notes and explanation, the engine's bounds, and what requests share out in an amount of memory.")  # fmt: skip
    def curve(asked: CurveRequest) -> Response:
        return reckoned(answers.curved, asked)

    @question(
        "cross", "Which of two is cheaper where", "What `memcurve cross --json` prints, of all pairs of the subjects."
    )
    def cross(asked: CrossRequest) -> Response:
        return reckoned(answers.crossed, asked)

    @question("compare", "Models side by side", "What `memcurve compare --format json` prints: a row for each subject.")
    def compare(asked: CompareRequest) -> Response:
        return reckoned(answers.compared, asked)

    @question("fit", "Does it fit", "What `memcurve fit --json` prints: weights, state and what the engine sets aside on each GPU, and how many requests that leaves room for.")  # fmt: skip
    def fit(asked: FitRequest) -> Response:
        return reckoned(answers.fitted, asked)

    @app.post(
        "/api/v1/gguf", summary="A GGUF header made short", response_class=Answer,
        description="Takes the first bytes of a GGUF file, up to the end of its list of tensors at least (at most 32 MiB), and "
        "answers the same header without vocabulary and templates, in base64: what other requests take as `gguf`.",
        openapi_extra={"requestBody": {"required": True, "content": {BYTES_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
    )  # fmt: skip
    async def shorten(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(reckoned, answers.shortened, body)


def reckoned(answer: Callable[[Any], dict[str, object]], asked: object) -> Response:
    """An answer, when it is its turn."""
    with TURNS:
        return Answer(answer(asked))


def add_tables(app: FastAPI) -> None:
    @app.get(
        "/api/v1/models",
        summary="The catalogue",
        response_class=Answer,
        description="Models by name, with structure and kinds of layer.",
    )
    def models() -> Response:
        return Response(models_json(), media_type="application/json")

    @app.get(
        "/api/v1/gpus",
        summary="Accelerators",
        response_class=Answer,
        description="Their memory as an engine on one reckons with it, with sources.",
    )
    def devices() -> Response:
        return Answer(schema.gpus_data(gpus.table()))

    @app.get("/api/v1/engines", summary="Engines and their options", response_class=Answer, description="Names, what makes their bytes differ, and options with kinds, defaults and choices.")  # fmt: skip
    def engines() -> Response:
        return Answer(forms.engines_data())


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with an answer to each example: those that the app itself gives, of lists the first two entries."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes,
            separate_input_output_schemas=False,
        )  # fmt: skip
        shown: dict[str, Any] = {
            name: {word: answer(kind(**body)) for word, body in EXAMPLES[name].items()}
            for name, (kind, answer) in answers.ANSWERED.items()
        }
        shown["gguf"] = {"a header without a vocabulary": answers.shortened(TINY)}
        for name, table in (
            ("models", schema.models_data()),
            ("gpus", schema.gpus_data(gpus.table())),
            ("engines", forms.engines_data()),
        ):
            short = {key: value[:2] if isinstance(value, list) else value for key, value in table.items()}
            shown[name] = {"the first two": short}
        for name, each in shown.items():
            path = found["paths"][f"/api/v1/{name}"]
            content = path.get("post", path.get("get"))["responses"]["200"]["content"]
            content["application/json"] = {
                "schema": {"type": "object", "required": ["schema"]},
                "examples": {word: {"summary": word, "value": value} for word, value in each.items()},
            }
        app.openapi_schema = found
    return app.openapi_schema


@cache
def models_json() -> bytes:
    return bytes(Answer(schema.models_data()).body)


async def failed(_: Request, error: Exception) -> Response:
    """Any error as problem details, of one line."""
    status, kind, detail = 500, "Error", f"unexpected {type(error).__name__}; please report it"
    if isinstance(error, MemcurveError):
        status = next((status for one, status in STATUS if isinstance(error, one)), 422)
        kind, detail = type(error).__name__, str(error)
    elif isinstance(error, RequestValidationError):
        status, kind, detail = 422, "BadConfig", first_of(error.errors()[0], 1)
    elif isinstance(error, HTTPException):
        status, kind, detail = (
            error.status_code,
            "NotFound" if error.status_code == 404 else "BadRequest",
            str(error.detail),
        )
    return JSONResponse(problem(status, kind, detail), status, media_type="application/problem+json")


def served(folder: str, path: str) -> Response:
    """A file of the page. The request's path is looked up among the files that are there, and never opened itself."""
    for place, _, names in os.walk(folder):
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in names:
            kind = TYPES.get(os.path.splitext(name)[1])
            own = name if below == "." else f"{below}/{name}"
            full = os.path.join(place, name)
            if kind is not None and own == (path or "index.html") and not os.path.islink(full):
                with open(full, "rb") as file:
                    return Response(file.read(), media_type=kind)
    raise HTTPException(404, f"{show('/' + path)}: nothing here; expected / or /api/v1/openapi.json")
