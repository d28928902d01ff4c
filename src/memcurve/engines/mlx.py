"""MLX-LM 0.32.2: what its caches have allocated once so many tokens are in them (mlx_lm/models/cache.py, generate.py)."""

from __future__ import annotations

from ..terms import Kept
from . import logical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..layers import Layer

OPTIONS = (
    "schedule", "prompt", "max_kv_size", "kv_bits", "kv_group_size", "quantized_kv_start", "prefill_step_size",
)  # fmt: skip
CACHE_DTYPES = ({"dtype": "bfloat16"},)
# Dtype of the states of recurrent kinds in ArraysCache, where the module's view does not say otherwise.
STATES: dict[str, str] = {}


def keep(
    layers: Sequence[Layer],
    dtype: str,
    *,
    schedule: str = "generate_step",
    prompt: int | None = None,
    max_kv_size: int | None = None,
    kv_bits: int | None = None,
    kv_group_size: int = 64,
    quantized_kv_start: int = 5000,
    prefill_step_size: int = 2048,
    own_cache: bool = False,
    states: Mapping[str, str] | None = None,
    batches: str = "",
    quantises: str = "",
    reads: tuple[str, ...] = (),
) -> Kept:
    return logical.keep(layers, dtype).replace(notes=reads)
