"""memcurve: exactly how many bytes a language model's sequence state takes, as a function of context and batch.

>>> import memcurve
>>> curve = memcurve.load("Qwen/Qwen3-Next-80B-A3B-Thinking").curve(dtype="bf16")
>>> curve.bytes(context=131072)
3298492416
"""

from .base import BadConfig, BadFile, MemcurveError, NotDescribed, Refused
from .curve import MemoryCurve, crossings
from .model import Model, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .figures import plot
    from .fits import fitting_dtypes
    from .heat import heatmap
    from .patterns import pattern

__version__ = "0.1.0"
__all__ = [
    "BadConfig", "BadFile", "MemcurveError", "MemoryCurve", "Model", "NotDescribed", "Refused", "crossings",
    "fitting_dtypes", "heatmap", "load",
    "pattern", "plot",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """What is imported when used."""
    if name == "plot":
        from .figures import plot

        return plot
    if name == "fitting_dtypes":
        from .fits import fitting_dtypes

        return fitting_dtypes
    if name == "heatmap":
        from .heat import heatmap

        return heatmap
    if name == "pattern":
        from .patterns import pattern

        return pattern
    raise AttributeError(f"module 'memcurve' has no attribute {name!r}")
