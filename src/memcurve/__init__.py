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
    from .checkpoint.sources import weights
    from .figures import plot
    from .fits import fitting_dtypes
    from .fitting import fit
    from .heat import heatmap
    from .patterns import pattern
    from .sweeps.run import sweep
    from .traces.replaying import replay

__version__ = "0.1.0"
__all__ = [
    "BadConfig", "BadFile", "MemcurveError", "MemoryCurve", "Model", "NotDescribed", "Refused", "crossings", "fit",
    "fitting_dtypes", "heatmap", "load", "pattern", "plot", "replay", "sweep", "weights",
]  # fmt: skip

# Imported when used: the module of each.
LATER = {
    "fit": "fitting", "fitting_dtypes": "fits", "heatmap": "heat", "pattern": "patterns", "plot": "figures",
    "replay": "traces.replaying", "sweep": "sweeps.run", "weights": "checkpoint.sources",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name in LATER:
        return getattr(__import__(f"{__name__}.{LATER[name]}", fromlist=[name]), name)
    raise AttributeError(f"module 'memcurve' has no attribute {name!r}")
