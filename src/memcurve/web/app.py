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

from .. import __version__, gpus, schema, shapes
from ..base import BadConfig, BadFile, MemcurveError, NotDescribed, Refused, TooLarge, show
from . import answers, forms
from .models import EXAMPLES, FORMS, TINY, CompareRequest, CrossRequest, CurveRequest, EstimateRequest, FitRequest
from .security import BYTES_TYPE, PROBLEM_TYPE, Guard, problem
from .wrong import first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

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
API = "/api/v1/"
# Statuses of every path, of those that take a body, and of those that take JSON: a name in components/responses, and why.
EVERYWHERE = {
    400: ("BadRequest", "Broken HTTP, a header given twice, or a body that is no JSON or nested too deeply"),
    403: ("Forbidden", "The host or the origin is not this server's"),
    405: ("MethodNotAllowed", "Another method at this path; Allow names those that it has"),
    431: ("HeadersTooLarge", "Headers that are too large"),
    503: ("Busy", "Too many at once; Retry-After says when to ask again"),
}  # fmt: skip
BODIES = {
    404: ("NotDescribed", "NotDescribed: a name, a model type or a structure that memcurve does not describe"),
    408: ("TooSlow", "A body that is not there in time"),
    413: ("BodyTooLarge", "A body that is too large"),
    415: ("OtherType", "A body of another content type or encoding"),
    422: ("Unusable", "BadConfig, BadFile or TooLarge: the detail names the key, the value and what was expected"),
}  # fmt: skip
QUESTIONS = {409: ("Refused", "Refused: the engine itself refuses; the detail is its reason")}
PROBLEMS = EVERYWHERE | BODIES | QUESTIONS
ALLOW = {"Allow": {"schema": {"type": "string"}, "description": "Methods of the path."}}
RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
ABOUT = (
    "Exactly how many bytes a language model's sequence state takes, as a function of context and batch, per engine: the same "
    "names and numbers as the command line's --json. Errors are problem details (RFC 9457)."
)


COMPONENTS, TABLES = "#/components/schemas/", ("models", "gpus", "engines")
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

    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        response = await run_in_threadpool(served, static, scope["path"])
        if scope["method"] != "GET":
            raise HTTPException(405, headers={"Allow": "GET"})
        await response(scope, receive, send)

    app.router.default = rest
    return Guard(app, hosts, [f"{API}{name}" for name in (*FORMS, "gguf")])


def add_questions(app: FastAPI) -> None:
    def question(name: str, summary: str, about: str) -> Callable[[Any], Any]:
        shown = {word: {"summary": word, "value": value} for word, value in EXAMPLES[name].items()}
        return app.post(
            f"{API}{name}", operation_id=name, summary=summary, description=about, response_class=Answer,
            openapi_extra={"requestBody": {"content": {"application/json": {"examples": shown}}}},
        )  # fmt: skip

    @question(
        "estimate",
        "Bytes at contexts",
        "What `memcurve estimate --json` prints: bytes, unfolded to layers × slots × bytes per slot.",
    )
    def estimate(asked: EstimateRequest) -> Response:
        return reckoned("estimate", asked)

    @question("curve", "A curve as data", "The curve's terms, formula, breakpoints, notes and explanation, the engine's bounds, and what requests share out in an amount of memory.")  # fmt: skip
    def curve(asked: CurveRequest) -> Response:
        return reckoned("curve", asked)

    @question(
        "cross", "Which of two is cheaper where", "What `memcurve cross --json` prints, of all pairs of the subjects."
    )
    def cross(asked: CrossRequest) -> Response:
        return reckoned("cross", asked)

    @question("fit", "Does it fit", "What `memcurve fit --json` prints: weights, state and what the engine sets aside on each GPU, and how many requests that leaves room for.")  # fmt: skip
    def fit(asked: FitRequest) -> Response:
        return reckoned("fit", asked)

    @question("compare", "Models side by side", "What `memcurve compare --format json` prints: bytes per token and at contexts, and with a GPU what fits it.")  # fmt: skip
    def compare(asked: CompareRequest) -> Response:
        return reckoned("compare", asked)

    @app.post(
        f"{API}gguf", operation_id="shorten_gguf", summary="A GGUF header made short", response_class=Answer,
        description="Takes the first bytes of a GGUF file, up to the end of its list of tensors at least (at most 32 MiB), and "
        "answers the same header without vocabulary and templates, in base64: what other requests take as `gguf`.",
        openapi_extra={"requestBody": {"required": True, "content": {BYTES_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
    )  # fmt: skip
    async def shorten(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(reckoned, "gguf", body)


def reckoned(name: str, asked: object) -> Response:
    """An answer, when it is its turn."""
    with TURNS:
        return Answer(answers.ANSWERED[name](asked))


def add_tables(app: FastAPI) -> None:
    @app.get(
        f"{API}models",
        operation_id="list_models",
        summary="The catalogue",
        response_class=Answer,
        description="Models by name, with structure and kinds of layer.",
    )
    def models() -> Response:
        return Response(models_json(), media_type="application/json")

    @app.get(
        f"{API}gpus",
        operation_id="list_gpus",
        summary="Accelerators",
        response_class=Answer,
        description="Their memory as an engine on one reckons with it, with sources.",
    )
    def devices() -> Response:
        return Answer(schema.gpus_data(gpus.table()))

    @app.get(f"{API}engines", operation_id="list_engines", summary="Engines and their options", response_class=Answer, description="Names, what makes their bytes differ, and options with kinds, defaults and choices.")  # fmt: skip
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
            name: {word: answers.answer_to(name, body) for word, body in bodies.items()}
            for name, bodies in EXAMPLES.items()
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
            examples = {word: {"summary": word, "value": value} for word, value in each.items()}
            content = {"application/json": {"schema": answer_of(name), "examples": examples}}
            statuses = EVERYWHERE | ({} if name in TABLES else BODIES) | (QUESTIONS if name in FORMS else {})
            (operation,) = found["paths"][f"{API}{name}"].values()
            operation["responses"] = {"200": {"description": "The answer", "content": content}} | {
                str(status): {"$ref": f"#/components/responses/{statuses[status][0]}"} for status in sorted(statuses)
            }
        found["components"]["responses"] = responses()
        own = {name: kind for name, kind in found["components"]["schemas"].items() if "ValidationError" not in name}
        found["components"]["schemas"] = own | shapes.elsewhere(shapes.SHAPES, COMPONENTS)
        app.openapi_schema = found
    return app.openapi_schema


def answer_of(name: str) -> dict[str, Any]:
    """The schema of an answer, of records in the document's components."""
    kinds = [shapes.ref(kind) for kind in shapes.ANSWERS[name]]
    found: dict[str, Any] = shapes.elsewhere(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}, COMPONENTS)
    return found


def responses() -> dict[str, Any]:
    """Each kind of problem, with the headers that it brings."""
    content = {PROBLEM_TYPE: {"schema": shapes.elsewhere(shapes.ref("Problem"), COMPONENTS)}}
    headers = {405: {"headers": ALLOW}, 503: {"headers": RETRY}}
    return {
        name: {"description": about, "content": content, **headers.get(status, {})}
        for status, (name, about) in sorted(PROBLEMS.items())
    }


@cache
def models_json() -> bytes:
    return bytes(Answer(schema.models_data()).body)


async def failed(request: Request, error: Exception) -> Response:
    """Any error as problem details, of one line."""
    status, kind, detail = 500, "Error", f"unexpected {type(error).__name__}; please report it"
    headers: dict[str, str] = {}
    if isinstance(error, MemcurveError):
        status = next((status for one, status in STATUS if isinstance(error, one)), 422)
        kind, detail = type(error).__name__, str(error)
    elif isinstance(error, RequestValidationError):
        errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
        form = FORMS.get(request.url.path.removeprefix(API))
        status, kind, detail = 422, "BadConfig", first_of(form, errors, error.body)
    elif isinstance(error, HTTPException):
        status, kind = error.status_code, "NotFound" if error.status_code == 404 else "BadRequest"
        detail, headers = str(error.detail), dict(error.headers or {})
    if status == 405:
        # What answers GET answers HEAD.
        own = set(headers.get("Allow", "GET").split(", "))
        headers["Allow"] = ", ".join(sorted(own | {"HEAD"} if "GET" in own else own))
        detail = f"{request.method[:20]} {show(request.url.path)}: expected {headers['Allow']}"
    return JSONResponse(problem(status, kind, detail), status, headers, media_type=PROBLEM_TYPE)


def served(folder: str, path: str) -> Response:
    """A file of the page. The request's path is looked up among the files that are there, and never opened itself."""
    for place, _, names in os.walk(folder):
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in names:
            kind = TYPES.get(os.path.splitext(name)[1])
            own = name if below == "." else f"{below}/{name}"
            full = os.path.join(place, name)
            if kind is not None and path == ("/" if own == "index.html" else f"/{own}") and not os.path.islink(full):
                with open(full, "rb") as file:
                    return Response(file.read(), media_type=kind)
    raise HTTPException(404, f"{show(path)}: nothing here; expected / or /api/v1/openapi.json")
