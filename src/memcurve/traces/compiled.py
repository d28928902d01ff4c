"""What every numeric module of traces stands on: NumPy, and functions compiled by Numba."""

from __future__ import annotations

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


if TYPE_CHECKING:

    def compiled(function: Compiled) -> Compiled: ...

else:

    def compiled(function):
        """The function as machine code, kept beside its source (or in the user's cache) for the next process."""
        try:
            return numba.njit(cache=True)(function)
        except RuntimeError:  # no folder can be written to
            return numba.njit(function)


__all__ = ["compiled", "np"]
