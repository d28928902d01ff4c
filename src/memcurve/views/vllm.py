"""What vLLM 0.33.0's model classes make of a model."""

from __future__ import annotations

from . import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def view(layers: tuple[Layer, ...], dtype: str | None, config: Config | None) -> View:
    return View(layers=layers, dtype=dtype)
