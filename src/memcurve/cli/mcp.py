"""memcurve mcp: the API's questions as tools of the Model Context Protocol."""

from __future__ import annotations

from ..base import MissingExtraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def build(parser: argparse.ArgumentParser) -> None:
    """It takes no options: an editor or an assistant starts it, and speaks to it on standard input and output."""


def run(arguments: argparse.Namespace) -> None:
    try:
        import anyio

        from ..web.tools import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("anyio", "mcp", "mcp_types", "pydantic"):
            raise
        raise MissingExtraError("memcurve mcp needs the MCP SDK: pip install 'memcurve[mcp]'") from None
    anyio.run(serve)
