"""Engines: one module per engine turns layers and options into the terms of a curve."""

from __future__ import annotations

from ..base import BadConfig, nearest, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from ..curve import Term
    from ..layers import Layer

    Terms: TypeAlias = Callable[..., tuple[Term, ...]]

NAMES = ("logical", "transformers")


def terms(engine: str, layers: Sequence[Layer], dtype: str, options: dict[str, Any]) -> tuple[Term, ...]:
    """The terms that an engine keeps for these layers. `dtype` is a full dtype name; options are the engine's own."""
    if engine == "logical":
        from . import logical as module
    elif engine == "transformers":
        from . import transformers as module  # type: ignore[no-redef]
    else:
        hint = nearest(str(engine), NAMES, 1)
        raise BadConfig(
            f"engine: {show(engine)}; expected one of {', '.join(NAMES)}" + (f" (nearest: {hint})" if hint else "")
        )
    unknown = [name for name in options if name not in module.OPTIONS]
    if unknown:
        known = ", ".join(module.OPTIONS)
        raise BadConfig(
            f"{unknown[0]}: {show(options[unknown[0]])}; not an option of engine {engine}, which has {known}"
        )
    return module.terms(layers, dtype, **options)
