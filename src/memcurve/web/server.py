"""What answers before the app does: broken HTTP, and more connections than are served, as problem details too."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .security import HEADERS, PROBLEM_TYPE, Denied, answer, problem, sealed

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CONNECTIONS = 128


class Protocol(H11Protocol):
    """uvicorn's, without its plain texts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if len(self.connections) <= CONNECTIONS or scope["type"] != "http":
                await inner(scope, receive, send)
                return
            denied = Denied(503, "Busy", f"more than {CONNECTIONS} connections; expected fewer: try again in a second")
            await answer(denied, sealed(send, scope["method"]))

        self.app = app

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, by h11's error: 400, or 431 for headers that do not end."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        kind, why = ("TooLarge", "headers") if status == 431 else ("BadRequest", "request")
        body = json.dumps(problem(status, kind, f"{why}: {error or msg}; expected HTTP/1.1")).encode()
        headers = {
            **HEADERS,
            "content-type": PROBLEM_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
        }
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            start = h11.Response(status_code=status, headers=list(headers.items()), reason=b"")
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
