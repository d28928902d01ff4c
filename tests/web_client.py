"""What the tests of the web API share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def client(app: ASGIApp, host: str = "localhost:8765") -> TestClient:
    return TestClient(app, base_url=f"http://{host}", raise_server_exceptions=False)


def ask(web: TestClient, path: str, body: object, status: int = 200, **headers: str) -> dict[str, Any]:
    response = web.post(f"/api/v1/{path}", json=body, headers=headers)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert set(found) == {"type", "title", "status", "detail", "error"}
        assert found["status"] == status
        assert "\n" not in found["detail"]
    return found
