"""What MLX-LM 0.32.2's own modules make of a model: one layer per entry of the list that make_prompt_cache gives.

`view` returns layers of memcurve's kinds *as the module of mlx_lm/models/ makes them*, each with the sizes that the module
really uses (some read neither head_dim nor layer_types). The engine turns kinds into cache classes:

    FullAttention       KVCache (keys [kv_heads, head_dim], values [kv_heads, v_head_dim]); with max_kv_size and no make_cache
                        of the module's own, RotatingKVCache(max_kv_size, keep=4)
    LatentAttention     KVCache of one head: keys of kv_lora_rank, values of rope_head_dim; RotatingKVCache with a window
    SparseIndexer       KVCache of one head: keys and values of head_dim each (what is stored once is FullAttention with v_head_dim 0)
    SlidingAttention    RotatingKVCache(window)
    ChunkedAttention    ChunkedKVCache(chunk)
    CompressedAttention LayerCache of deepseek_v41: window, compressed groups, index keys, and what waits in fp32
    recurrent kinds     ArraysCache: convolutions of kernel K hold K - 1 columns in the model's dtype; states as `states` says
    NoState             no entry, or one that nothing is put in
    Parallel            CacheList: the sum of its parts, never quantised

The layers may be more or fewer than the model's (loops, shared caches): an entry of the list each.

Facts, all optional, by keyword of engines.mlx.keep:
    own_cache: bool     the module has a make_cache, so that max_kv_size is ignored (False without)
    states: dict        kind of layer -> "float32" or "model", where the state's dtype is not what engines.mlx.STATES says
    batches: str        why batch_generator raises; "" where it runs (ChunkedAttention and CompressedAttention: the engine says it)
    quantises: str      why a forward over quantised caches raises; "" where it runs (group sizes and rotating caches: the engine says it)
    reads: tuple[str]   notes for `explain`: keys of the config that the module ignores
"""

from __future__ import annotations

from . import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..layers import Layer


def view(layers: tuple[Layer, ...], dtype: str | None, config: Config | None) -> View:
    return View(layers=layers, dtype=dtype)
