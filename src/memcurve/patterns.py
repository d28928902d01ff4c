"""Architectures written as a pattern, such as 3gdn:1mha, with sizes of one's own."""

from __future__ import annotations

import re

from .base import BadConfig, nearest, show
from .layers import (
    RWKV,
    FullAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    ShortConv,
    SlidingAttention,
)  # fmt: skip
from .model import Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layers import Layer

KINDS = ("mha", "gqa", "mqa", "mla", "swa", "gdn", "kda", "mamba", "mamba2", "lightning", "conv", "rwkv")
PART = re.compile(r"\s*(\d{0,5})\s*([a-z0-9_]+?)\s*")
MAX_LAYERS = 100_000

# The sizes that `pattern` takes, for the command line: name -> (default, meaning). None is computed from the others.
SIZES: dict[str, tuple[int | None, str]] = {
    "emb_dim": (2048, "embedding width"),
    "n_heads": (16, "query heads"),
    "n_layers": (48, "layers; the pattern repeats until there are so many"),
    "n_kv_heads": (None, "key-value heads of gqa and swa (default: n_heads / 4, at least 1)"),
    "window": (1024, "tokens that swa keeps"),
    "kv_lora_rank": (512, "latent width of mla"),
    "rope_head_dim": (64, "shared rotary key of mla"),
    "state_size": (None, "state size of mamba (default: 16) and mamba2 (default: 128)"),
    "conv_kernel": (4, "kernel of the short convolution of gdn, kda, mamba and mamba2; gdn takes 0 for none"),
}


def is_pattern(text: str) -> bool:
    """Whether a text is meant as a pattern: parts of an optional number and a word, with a known kind among them."""
    parts = [PART.fullmatch(part.lower()) for part in text.split(":")]
    return all(parts) and any(part and part[2] in KINDS for part in parts)


def pattern(
    text: str,
    *,
    emb_dim: int = 2048,
    n_heads: int = 16,
    n_layers: int = 48,
    n_kv_heads: int | None = None,
    window: int = 1024,
    kv_lora_rank: int = 512,
    rope_head_dim: int = 64,
    state_size: int | None = None,
    conv_kernel: int = 4,
    dtype: str | None = None,
) -> Model:
    """A model whose layers repeat a pattern "N kind : N kind : …" until there are n_layers; the last repeat may be cut.

    Kinds: mha gqa mqa mla swa gdn kda mamba mamba2 lightning conv rwkv. Heads have emb_dim // n_heads dimensions;
    gdn, kda and lightning have n_heads heads; mamba and mamba2 are 2 · emb_dim wide (mamba2: heads of 64, one group);
    conv has kernel 3 over emb_dim channels; rwkv has heads of 64.
    BadConfig for a text that is no pattern and for sizes that are not positive integers.
    """
    if not isinstance(text, str):
        raise BadConfig(f"pattern: {show(text)}; expected a text such as 3gdn:1mha")
    sizes = {
        "emb_dim": emb_dim, "n_heads": n_heads, "n_layers": n_layers, "window": window, "kv_lora_rank": kv_lora_rank,
        "rope_head_dim": rope_head_dim, "conv_kernel": conv_kernel,
        "n_kv_heads": max(1, n_heads // 4) if n_kv_heads is None and isinstance(n_heads, int) else n_kv_heads,
        "state_size": 1 if state_size is None else state_size,
    }  # fmt: skip
    for name, value in sizes.items():
        least = 0 if name in ("conv_kernel", "rope_head_dim") else 1
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            raise BadConfig(f"{name}: {show(value)}; expected an integer of {least} or more")
    if n_layers > MAX_LAYERS:
        raise BadConfig(f"n_layers: {n_layers:,}; expected at most {MAX_LAYERS:,}")
    if n_heads > emb_dim:
        raise BadConfig(f"n_heads: {n_heads}; expected at most emb_dim = {emb_dim}")
    head, kv = emb_dim // n_heads, sizes["n_kv_heads"] or 1

    def layer(kind: str) -> Layer:
        match kind:
            case "mha" | "gqa" | "mqa":
                heads = {"mha": n_heads, "gqa": kv, "mqa": 1}[kind]
                return FullAttention(kv_heads=heads, head_dim=head, v_head_dim=head)
            case "swa":
                return SlidingAttention(kv_heads=kv, head_dim=head, v_head_dim=head, window=window)
            case "mla":
                return LatentAttention(kv_lora_rank=kv_lora_rank, rope_head_dim=rope_head_dim)
            case "gdn":
                return GatedDeltaNet(
                    key_heads=n_heads,
                    value_heads=n_heads,
                    key_dim=head,
                    value_dim=head,
                    conv_kernel=conv_kernel or None,
                )
            case "kda":
                return KimiDeltaAttention(heads=n_heads, head_dim=head, conv_kernel=max(conv_kernel, 1))
            case "mamba":
                return Mamba(intermediate=2 * emb_dim, state_size=state_size or 16, conv_kernel=max(conv_kernel, 1))
            case "mamba2":
                return Mamba2(
                    heads=max(1, 2 * emb_dim // 64), head_dim=64, state_size=state_size or 128, groups=1,
                    intermediate=2 * emb_dim, conv_kernel=max(conv_kernel, 1),
                )  # fmt: skip
            case "lightning":
                return LightningAttention(heads=n_heads, head_dim=head, v_head_dim=head)
            case "conv":
                return ShortConv(channels=emb_dim, conv_kernel=3)
            case "rwkv":
                return RWKV(hidden=emb_dim, heads=max(1, emb_dim // 64), head_dim=64)
        hint = nearest(kind, KINDS)
        raise BadConfig(
            f"pattern {show(text)}: {show(kind)}; expected a kind among {' '.join(KINDS)}"
            + (f" (nearest: {hint})" if hint else "")
        )

    period: list[Layer] = []
    for part in text.lower().split(":"):
        found = PART.fullmatch(part)
        if found is None or (found[1] and int(found[1]) == 0):
            raise BadConfig(
                f"pattern {show(text)}: {show(part)}; expected a number and a kind, such as 3gdn, between colons"
            )
        period += [layer(found[2])] * int(found[1] or 1)
    layers = tuple(period[index % len(period)] for index in range(n_layers))
    return Model(name=text, model_type="pattern", layers=layers, dtype=dtype)
