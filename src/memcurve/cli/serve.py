"""memcurve serve: the page and the HTTP API, on this machine."""

from __future__ import annotations

from ..base import BadConfig, MissingExtraError, show
from .shared import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import socket

PORT = 8765
ANY = ("", "0.0.0.0", "::")


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=count, default=PORT, help=f"0: one that is free (default: {PORT})")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which browsers may reach it; needed with a --host that is not this machine's own",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def run(arguments: argparse.Namespace) -> None:
    from .. import __version__

    hosts = allowed(arguments.host, arguments.allow_host)
    try:
        import uvicorn

        from ..web.app import make_app
        from ..web.security import HEADER_BYTES
        from ..web.server import Protocol
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "h11", "pydantic", "starlette", "uvicorn"):
            raise
        raise MissingExtraError("memcurve serve needs FastAPI and uvicorn: pip install 'memcurve[web]'") from None
    listener = listen(arguments.host, arguments.port)
    address = f"http://{shown(arguments.host)}:{listener.getsockname()[1]}/"
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(hosts), http=Protocol, ws="none", lifespan="off", log_level="error", access_log=False, server_header=False,
            proxy_headers=False, h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=5, timeout_graceful_shutdown=2,
        )
    )  # fmt: skip
    print(f"memcurve {__version__} at {address} (Ctrl-C stops it)", flush=True)
    if arguments.open:
        import threading
        import webbrowser

        # The socket listens already; a browser in this terminal would keep the server from starting.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        print("stopped")


def allowed(host: str, names: list[str]) -> list[str]:
    """The names beside the loopback's that a browser may use: none for the loopback alone. BadConfig where one must be said."""
    if host in ("localhost", "::1") or host.startswith("127."):
        return [*names, shown(host)]
    if not names:
        raise BadConfig(
            f"host: {show(host)}; others can reach it: expected --allow-host NAME beside it, the name they use"
        )
    return names if host in ANY else [*names, shown(host)]


def shown(host: str) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host or "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. BadConfig for an address that is not there, and for a port that is taken."""
    import socket

    if port > 65535:
        raise BadConfig(f"port: {port}; expected 0 to 65535")
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        why = error.strerror or str(error)
        raise BadConfig(f"port: {port} of {show(host)}: {why}; expected a free one, such as --port 0") from None
