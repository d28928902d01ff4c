"""What an engine's own model classes make of a model, where that is not what the model's own code does.

One module per engine that has model classes of its own: which layers it treats as what, and the facts that its
planning asks of the model (views may know config keys and model types; engines know neither).
"""

from __future__ import annotations

from ..base import NotDescribed, Record
from ..config import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..gguf import Metadata
    from ..layers import Layer

# Engines with a module here; the others see the layers as they are.
NAMES: tuple[str, ...] = ("vllm", "sglang", "llamacpp", "mlx")
# Of these, which see a model by the metadata of a GGUF file as well.
READS_GGUF = ("llamacpp",)


class View(Record):
    """A model as an engine sees it: its layers, the dtype it would run in, and facts for the engine's `keep`, by keyword."""

    layers: tuple[Layer, ...]
    dtype: str | None = None
    facts: Mapping[str, Any] = {}


def view(engine: str, layers: tuple[Layer, ...], dtype: str | None, config: Config | Metadata | None) -> View:
    """The view of an engine on a model; `config` is None for a pattern of layers. NotDescribed where the engine lacks the model."""
    if engine not in NAMES:
        return View(layers=layers, dtype=dtype)
    if engine not in READS_GGUF and not isinstance(config, Config | None):
        raise NotDescribed(f"engine {engine}: sees a model by its config.json; a GGUF file has none")
    see: Callable[..., View] = __import__(f"{__name__}.{engine}", fromlist=["view"]).view
    return see(layers, dtype, config)
