"""The figure of a fit: a bar per GPU of a pipeline stage, of weights, state, what is set aside, and what is free."""

from __future__ import annotations

from .base import clean
from .figures import new_figure
from .units import show_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .fitting import Fit

GIB = 2**30
# Okabe and Ito's palette, with hatches that tell the parts apart in print.
PARTS = (
    ("weights", "#0072B2", ""),
    ("state of the requests", "#E69F00", "//"),
    ("set aside by the engine", "#999999", ".."),
    ("free", "#F2F2F2", ""),
)


def draw(fit: Fit) -> Figure:
    """One bar per stage, in GiB; a line at the GPU's memory, which what does not fit runs over."""
    count = len(fit.stages)
    figure = new_figure(8, 1.9 + 0.55 * count)
    axes = figure.subplots()
    each = fit.gpus // fit.pp
    names = [
        (f"stage {gpu.stage + 1}" if count > 1 else "") + (f"\n{each} GPUs alike" if each > 1 else "") or "GPU"
        for gpu in fit.stages
    ]
    for row, gpu in enumerate(fit.stages):
        left = 0.0
        sizes = (gpu.weights_bytes, gpu.state_bytes, gpu.reserve_bytes, max(gpu.free_bytes, 0))
        for (name, colour, hatch), size in zip(PARTS, sizes, strict=True):
            width = size / GIB
            axes.barh(
                row, width, left=left, color=colour, hatch=hatch, edgecolor="#333333", linewidth=0.6, height=0.6,
                label=name if row == 0 else None,
            )  # fmt: skip
            if width > 0.06 * max(gpu.total_bytes, gpu.total_bytes - gpu.free_bytes) / GIB:
                box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
                axes.text(left + width / 2, row, f"{width:,.1f}", ha="center", va="center", fontsize=8, bbox=box)
            left += width
    total = fit.per_gpu.total_bytes / GIB
    axes.axvline(total, color="#D55E00", linewidth=1.6)
    axes.text(
        total,
        -0.62,
        f"{fit.gpu} " if fit.gpu.endswith("iB") else f"{fit.gpu}: {total:,.1f} GiB ",
        ha="right",
        va="bottom",
        fontsize=8,
        color="#D55E00",
    )
    axes.set_yticks(range(count), names)
    axes.invert_yaxis()
    axes.set_ylim(count - 0.5, -0.95)
    axes.set_xlim(0, max(total, *((gpu.total_bytes - gpu.free_bytes) / GIB for gpu in fit.stages)) * 1.02)
    axes.set_xlabel("GiB on each GPU")
    verdict = "fits" if fit.fits else "does not fit"
    axes.set_title(
        f"{clean(fit.model)} · {fit.engine} · tp {fit.tp}, pp {fit.pp}\n{fit.batch:,} × {show_count(fit.context, 'token')}: {verdict}",
        fontsize=10,
        parse_math=False,
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.set_layout_engine("constrained")
    return figure
