"""memcurve site: the page as files, for any server of files."""

from __future__ import annotations

from pathlib import Path

from ..base import BadConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="where to write; made if there is none")
    parser.add_argument(
        "--gpu", action="append", help="a device to compute for, instead of the usual; may be given again"
    )


def run(arguments: argparse.Namespace) -> None:
    from ..gpus import gpu
    from ..site import DEVICES, write_site

    devices = tuple(gpu(name).name for name in arguments.gpu) if arguments.gpu else DEVICES
    folder = Path(arguments.folder)
    try:
        size = write_site(folder, devices)
    except OSError as error:
        raise BadConfig(f"{folder}: {error.strerror or error}; expected a place that can be written") from None
    print(f"wrote {folder}: {size:,} B; any server of files will do, such as python -m http.server -d {folder}")
