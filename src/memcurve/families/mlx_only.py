"""Structures whose public code is MLX-LM's alone: mlx_lm/models/ of mlx-lm 0.32.2, the module of the same name.

Nothing is assumed for a missing key but what the module's ModelArgs does.
"""

from __future__ import annotations

from ..layers import FullAttention, NoState, Parallel, ShortConv, SlidingAttention
from .reading import every, gqa, gqa_split, read_layers, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer
    from .reading import Sizes


def klear(config: Config) -> tuple[Layer, ...]:
    """Klear.py: hidden_size // num_attention_heads in every layer, whatever head_dim says."""
    return (FullAttention(**gqa_split(config)),) * config.layers


def afm7(config: Config) -> tuple[Layer, ...]:
    """afm7.py: the last num_kv_reuse_layers read the keys and values of the layer before them."""
    count, shared = config.count("num_layers", most=10_000), config.count("num_kv_reuse_layers", least=0)
    size = config.ratio("hidden_dim", "num_heads")
    own = config.checked("num_layers - num_kv_reuse_layers", count - shared)
    layer = FullAttention(kv_heads=config.count("num_kv_heads"), head_dim=size, v_head_dim=size)
    return (layer,) * own + (NoState(why="reads another layer's keys and values"),) * shared


def lille(config: Config) -> tuple[Layer, ...]:
    """lille-130m.py: GPT-2's names, with heads of keys and values apart."""
    size = config.ratio("n_embd", "n_head")
    layer = FullAttention(kv_heads=config.count("n_kv_heads"), head_dim=size, v_head_dim=size)
    return (layer,) * config.count("n_layer", most=10_000)


def phixtral(config: Config) -> tuple[Layer, ...]:
    """phixtral.py: every head keeps model_dim // num_heads."""
    heads = config.count("num_heads", 32)
    size = config.checked("model_dim // num_heads", config.count("model_dim", 2560) // heads)
    return (FullAttention(kv_heads=heads, head_dim=size, v_head_dim=size),) * config.count(
        "num_layers", 32, most=10_000
    )


def talkie(config: Config) -> tuple[Layer, ...]:
    """talkie.py: every head keeps head_dim."""
    size = config.count("head_dim")
    return (FullAttention(kv_heads=config.heads, head_dim=size, v_head_dim=size),) * config.layers


def iquestloopcoder(config: Config) -> tuple[Layer, ...]:
    """iquestloopcoder.py: each layer runs twice; the first keeps all tokens, the second the last loop_window_size (64)."""
    sizes = gqa(config)
    window = SlidingAttention(**sizes, window=config.count("loop_window_size", 64))
    return (Parallel(parts=(FullAttention(**sizes), window)),) * config.layers


def spark2_5(config: Config) -> tuple[Layer, ...]:
    """spark2_5.py: three sliding layers and a full one without layer_types."""
    return read_layers(config, words_of(config, every(4)))


def gear(config: Config) -> tuple[Layer, ...]:
    """gear.py: full and sliding attention, and layers that mix tokens by convolutions over their keys and values (conv_mixer)."""

    def mixer(layer: Config) -> Layer:
        sizes: Sizes = gqa(layer)
        return ShortConv(channels=2 * sizes["kv_heads"] * sizes["head_dim"], conv_kernel=layer.count("conv_L_cache", 3))

    def sliding(layer: Config) -> Layer:
        return SlidingAttention(**gqa(layer), window=layer.count("sliding_window", 512))

    return read_layers(config, words_of(config), sliding_attention=sliding, conv_mixer=mixer)
