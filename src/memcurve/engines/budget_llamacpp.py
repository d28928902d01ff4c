"""What llama.cpp 0c1e57098 needs of a GPU's memory beside weights and caches.

The compute buffer is what ggml's scheduler reserves for a graph of n_ubatch tokens (src/llama-context.cpp, sched_reserve):
the largest set of tensors that live at once, in fp32, and the masks. llama-server gives logits for as many tokens as it
has slots (tools/server/server-context.cpp, server_output_limits), other programs for a whole batch. common/fit.cpp leaves
fit_target free on each device after all of it (common/common.h, fit_params_target: 1024 MiB).
"""

from __future__ import annotations

from ..base import whole
from ..units import show_bytes
from .allowances import Allowance, MiB, flag, lacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .allowances import Measured, Sizes

OPTIONS = ("fit", "fit_target", "n_ctx", "n_seq_max", "n_outputs_max")
CONTEXT = 512 * MiB  # driver and runtime of one process
TARGET = 1024  # MiB
# Tokens of a mask where no context is said
CONTEXT_TOKENS = 131072


def allowances(sizes: Sizes, options: Mapping[str, Any], log: Measured | None) -> tuple[Allowance, ...]:
    if log is not None:
        if log.compute is None:
            raise lacks(log, '"compute buffer size"')
        compute = Allowance(name="compute buffer", bytes=log.compute.high, why=f"measured: {log.compute.text}")
    else:
        compute = compute_buffer(sizes, options)
    parts = [compute, Allowance(name="CUDA context", bytes=CONTEXT, why="assumed: driver and runtime of one process")]
    if flag(options, "fit", True):
        target = whole("fit_target", options.get("fit_target", TARGET))
        parts.append(
            Allowance(
                name="margin", bytes=target * MiB, why=f"--fit leaves {target:,} MiB free (--fit-target)", exact=True
            )
        )
    return tuple(parts)


def compute_buffer(sizes: Sizes, options: Mapping[str, Any]) -> Allowance:
    """tokens × the widest stage of a layer or the logits, and a mask of tokens × cells; without flash attention the scores.

    A stage counts five hidden states beside its own: a feed-forward's three halves; experts, each token to each of its
    own; heads of queries and of latents; a recurrence's inner states. A sixteenth is added for what that leaves out.
    """
    tokens = whole("n_ubatch", options.get("n_ubatch", 512), 1)
    outputs = min(tokens, whole("n_outputs_max", options.get("n_outputs_max", options.get("n_seq_max", 4)), 1))
    streams = 1 if flag(options, "kv_unified") else whole("n_seq_max", options.get("n_seq_max", 1), 1)
    cells = -(-whole("n_ctx", options.get("n_ctx", CONTEXT_TOKENS), 1) // streams)
    widths = stages(sizes)
    stage = max(widths, key=lambda name: widths[name])
    size = max(4 * tokens * widths[stage], 4 * (outputs * sizes.vocabulary + tokens * 5 * sizes.hidden))
    mask = 2 * tokens * cells
    why = f"{tokens:,} tokens × {widths[stage]:,} numbers of {stage} in fp32"
    if options.get("flash_attn") is False:
        inner = max(8 * sizes.hidden, widths.get("latents", 0))
        scores = 4 * tokens * (sizes.heads * cells + inner)
        if scores > size:
            size, why = scores, f"{tokens:,} tokens × {sizes.heads} heads × {cells:,} cells of scores in fp32"
        mask *= 2
    return Allowance(
        name="compute buffer",
        bytes=size * 17 // 16 + mask,
        why=f"assumed: {why}, and a mask for {cells:,} cells ({show_bytes(mask)})",
    )


def stages(sizes: Sizes) -> dict[str, int]:
    """Numbers that a token holds at the widest point of each part of a layer."""
    hidden, experts, width = sizes.hidden, sizes.experts, sizes.expert_width
    found = {"feed-forward": 3 * sizes.intermediate + 5 * hidden}
    if experts:
        found["experts"] = max(3 * experts * width + 5 * hidden, 2 * experts * (hidden + width) + hidden)
    if sizes.latent_layers:
        found["latents"] = 2 * sizes.heads * sizes.latent_rank + 3 * sizes.latent_heads // 2 + 5 * hidden
    if sizes.recurrent:
        found["a recurrence"] = 16 * hidden
    return found
