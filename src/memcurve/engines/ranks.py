"""What tensor parallelism does not divide: parts that every rank, or several, hold alike."""

from __future__ import annotations

from ..layers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Mamba2,
    SlidingAttention,
    SparseIndexer,
    parts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..layers import Layer


def replicated(layers: Sequence[Layer], ranks: int) -> tuple[str, ...]:
    """A note that names the parts that `ranks` tensor-parallel ranks hold more than once; none where all is divided.

    Latents, their index keys and compressed entries have no heads to divide; of fewer key-value heads than ranks each is
    on several; the B and C groups of Mamba-2 that do not divide are copied.
    """
    found: list[str] = []
    for part in dict.fromkeys(part for layer in layers for part in parts(layer)):
        if isinstance(part, LatentAttention | SparseIndexer | CompressedAttention):
            found.append(f"{part.kind} whole on each")
        elif isinstance(part, FullAttention | SlidingAttention | ChunkedAttention | CrossAttention):
            if part.kv_heads < ranks:
                each = f"on {ranks // part.kv_heads} ranks" if ranks % part.kv_heads == 0 else "on some ranks"
                copies = each if part.kv_heads > 1 else "on each"
                found.append(
                    f"{part.kind} {part.kv_heads} key-value head{'' if part.kv_heads == 1 else 's, each'} {copies}"
                )
        elif isinstance(part, Mamba2) and part.groups % ranks:
            found.append(f"{part.kind} {part.groups} group{'' if part.groups == 1 else 's'} of B and C copied")
    if ranks == 1 or not found:
        return ()
    return (f"not divided by {ranks} ranks: {', '.join(dict.fromkeys(found))}",)
