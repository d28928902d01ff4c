"""Engines: one module per engine turns layers and options into the terms of a curve."""

from __future__ import annotations

from ..base import BadConfig, nearest, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from ..layers import Layer
    from ..terms import Kept

    class Engine(Protocol):
        """What a module of this package offers. OPTIONS: the engine's own, which users may give. CACHE_DTYPES: what asks for
        a cache narrower than the model's dtype, widest first.

        keep takes the facts of the engine's view of a model (views/) beside them, by the same keywords; an option wins.
        """

        OPTIONS: tuple[str, ...]
        CACHE_DTYPES: tuple[dict[str, str], ...]

        def keep(self, layers: Sequence[Layer], dtype: str, **options: Any) -> Kept: ...


# The engines, and in a phrase what makes their bytes differ.
HOW = {
    "logical": "the paper's count: no padding, states in fp32",
    "transformers": "windows hold W - 1 tokens, convolutions K columns",
    "vllm": "blocks shared by groups of layers of one width, pages padded to one size",
    "sglang": "pages of tokens, slots of states in fp32 (one of each unused in front)",
    "llamacpp": "cells in multiples of 256 for the whole context, states in fp32",
    "mlx": "rows in steps of 256 by how the tokens come, rotating windows, states in fp32",
}
NAMES = tuple(HOW)
# The engine's own names for ranks that share a layer, and for pipeline stages.
RANKS_OPTION = {"vllm": "tensor_parallel_size", "sglang": "tp_size"}
STAGES_OPTION = {"vllm": "pipeline_parallel_size", "sglang": "pp_size"}
# Whose context is one that all sequences share out.
SHARED_CONTEXT = ("llamacpp",)
# Described on one machine alone, where what is held follows from how many tokens are fed at once.
IN_PIECES = ("mlx",)


def module(engine: str) -> Engine:
    """The module of an engine. BadConfig for an unknown one."""
    if not isinstance(engine, str) or engine not in NAMES:
        hint = nearest(str(engine), NAMES, 1)
        raise BadConfig(
            f"engine: {show(engine)}; expected one of {', '.join(NAMES)}" + (f" (nearest: {hint})" if hint else "")
        )
    found: Engine = __import__(f"{__name__}.{engine}", fromlist=["keep"])
    return found


def keep(
    engine: str, layers: Sequence[Layer], dtype: str, options: Mapping[str, Any], facts: Mapping[str, Any]
) -> Kept:
    """What an engine keeps for these layers. `dtype` is a full dtype name; options are the engine's own, facts its view's."""
    own = module(engine)
    unknown = [name for name in options if name not in own.OPTIONS]
    if unknown:
        hint = nearest(unknown[0], own.OPTIONS, 1)
        raise BadConfig(
            f"{unknown[0]}: {show(options[unknown[0]])}; not an option of engine {engine}, which has "
            f"{', '.join(own.OPTIONS)}" + (f" (nearest: {hint})" if hint else "")
        )
    return own.keep(layers, dtype, **{**facts, **options})
