"""Structures of models: one module per kind of state, one function per structure, registered under model types.

A hybrid lives under its rarest part. `describe` is the way in.
"""

from __future__ import annotations

from ..config import unknown_type
from . import attention, compressed, deltanet, encoder_decoder, latent, mamba, recurrent  # noqa: F401 - they register
from .registry import FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def model_types() -> tuple[str, ...]:
    """The model types that are described, sorted."""
    return tuple(sorted(FAMILIES))


def is_described(model_type: str) -> bool:
    """Whether a structure claims this model type."""
    return model_type in FAMILIES


def structure_name(model_type: str) -> str:
    """The name of the function that reads this type."""
    return FAMILIES[model_type].__name__


def describe(config: Config) -> tuple[Layer, ...]:
    """The layers of a config's decoder. NotDescribed for a model type that no structure claims."""
    if config.model_type not in FAMILIES:
        raise unknown_type(config.model_type, model_types())
    return FAMILIES[config.model_type](config)
