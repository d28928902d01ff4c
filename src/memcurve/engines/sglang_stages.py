"""Pipeline stages in SGLang 0.5.23: which layers a stage keeps, and how many tokens all stages hold together.

Sources, under sglang/srt: distributed/utils.py (get_pp_indices) and mem_cache/kv_cache_configurator.py: every stage sizes its
own pools, and the fewest tokens of any stage are those of all (_apply_token_constraints); state slots are sized on each
stage as on the one with the most layers of states (_handle_max_mamba_cache), so they are alike.
"""

from __future__ import annotations

from ..terms import Allocator
from .ranks import stage_ends
from .sglang_pools import SGLangAllocator, SGLangPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..layers import Layer


def stages(layers: Sequence[Layer], count: int) -> list[Sequence[Layer]]:
    """The layers of each pipeline stage: as get_pp_indices divides them."""
    ends = stage_ends("sglang", len(layers), count)
    return [layers[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


class StagedAllocator(Allocator):
    """The sizing of every pipeline stage, with the same memory on each. `bound`: the stage whose tokens take the most."""

    stages: tuple[SGLangAllocator, ...]
    bound: int

    def pools(self, memory_bytes: int) -> list[SGLangPool]:
        """The pools of each stage of so many bytes each."""
        tokens = min(stage.capacity(memory_bytes) for stage in self.stages)
        return [stage.pool(memory_bytes, tokens) for stage in self.stages]

    def pool(self, memory_bytes: int) -> SGLangPool:
        """The pools of the stage that binds."""
        return self.pools(memory_bytes)[self.bound]

    def bounds(self) -> dict[str, tuple[str, int]]:
        return self.stages[self.bound].bounds()

    def explain(self, context: int | None) -> list[str]:
        sizes = ", ".join(f"{stage.cell_bytes() + stage.cell_bytes(sliding=True):,} B" for stage in self.stages)
        lines = self.stages[self.bound].explain(context)
        return [f"pipeline stage {self.bound + 1} of {len(self.stages)}; a token on each stage: {sizes}", *lines]
