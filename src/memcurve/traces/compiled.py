"""What every numeric module of traces stands on: NumPy, and functions compiled by Numba."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from ..base import MissingExtraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Compiled = TypeVar("Compiled", bound=Callable[..., object])

WANTED = "replays need {}: pip install 'memcurve[replay]'"

try:
    import numba
    import numpy as np
except ImportError as error:
    raise MissingExtraError(WANTED.format(error.name)) from None


def digest() -> str:
    """Of the sources of this folder. Numba keeps code by the file of a function, and would not see that what it calls elsewhere changed."""
    found = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


DIGEST = digest()

if TYPE_CHECKING:

    def compiled(function: Compiled) -> Compiled: ...

else:

    def compiled(function):
        """The function as machine code, kept beside its source (or in the user's cache) for the next process, under a name by DIGEST."""
        function.__qualname__ += f"_{DIGEST}"
        try:
            return numba.njit(cache=True)(function)
        except RuntimeError:  # no folder can be written to
            return numba.njit(function)


__all__ = ["compiled", "np"]
