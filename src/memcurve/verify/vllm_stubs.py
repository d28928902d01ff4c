"""A machine without a GPU for vLLM: modules that stand in for compiled ones, a platform, process groups, the meta device.

vllm_recorder says what is stubbed and why.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path

GIB = 2**30
# name, capability, bytes of memory
GPUS = {
    "H100": ("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB),
    "B200": ("NVIDIA B200", (10, 0), 180 * GIB),
    "A100": ("NVIDIA A100-SXM4-80GB", (8, 0), 80 * GIB),
    "L4": ("NVIDIA L4", (8, 9), 23 * GIB),
    "RTX PRO 6000": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", (12, 0), 95 * GIB),
}
COMPILED = (
    "openai_harmony xgrammar llguidance outlines_core lmformatenforcer vllm._C_stable_libtorch "
    "vllm._moe_C_stable_libtorch vllm._qutlass_C vllm._deepselect_C vllm._flashkda_C "
    "vllm.third_party.deep_gemm._C cuda vllm.cumem_allocator torchaudio quack tilelang tvm tvm_ffi vllm.vllm_flash_attn.cute cutlass vllm.vllm_flash_attn._vllm_fa2_C "
    "vllm.model_executor.kernels.attention.dsa.dcp_indexer_cutedsl vllm.vllm_flash_attn._vllm_fa3_C"
).split()


class Anything(type):
    """The class of a class that has every attribute."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return stub(name)

    def __call__(cls, *_, **__):
        return super().__call__()

    def __add__(cls, _):
        return cls

    def __getitem__(cls, _):
        return cls

    def __rfloordiv__(cls, _):
        return 1


def stub(name: str):
    body = {"__get_pydantic_core_schema__": classmethod(lambda *_: {"type": "any"}), "__call__": lambda *_, **__: None}
    return Anything(name, (), body)


class Stub(types.ModuleType):
    """A module that has every name; each is an empty class."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = stub(name)
        setattr(self, name, value)
        return value


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(f"{one}.") for one in COMPILED):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Stub(spec.name)

    def exec_module(self, module):
        pass


def prepare(wheel: str, gpu: str) -> None:
    """Puts the wheel on the path, a GPU that is not there in front of it, and empty modules for what is compiled."""
    sys.path.insert(0, wheel)
    sys.meta_path.insert(0, Stubs())
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import importlib.metadata as metadata

    version = metadata.version
    metadata.version = lambda name: "0.33.0" if name == "vllm" else version(name)

    import torch

    # Operators of the extensions: asked whether a kernel is there, they say no.
    import torch._ops as ops
    from torch import library as operators

    class Operator:
        default = out = property(lambda self: self)
        _schema = None
        __call__ = staticmethod(lambda *_, **__: False)

    found = ops._OpNamespace.__getattr__

    def operator(space, name):
        try:
            return found(space, name)
        except AttributeError:
            if name.startswith("__") or not space.name.startswith(("_C", "_moe_C", "_vllm", "_flash", "vllm")):
                raise
            return Operator()

    ops._OpNamespace.__getattr__ = operator
    register = operators.register_fake

    def register_fake(op, func=None, **options):
        if isinstance(op, str) and op.split("::")[0].strip("_").startswith(("C", "moe_C", "torchvision")):
            return func or (lambda one: one)
        return register(op, func, **options)

    operators.register_fake = register_fake

    import vllm.platforms as platforms
    from vllm.platforms.interface import DeviceCapability

    name, capability, memory = GPUS[gpu]
    import vllm.platforms.cuda as cuda

    class FakeGpu(cuda.CudaPlatformBase):
        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(*capability))
        get_device_name = classmethod(lambda cls, device_id=0: name)
        get_device_total_memory = classmethod(lambda cls, device_id=0: memory)
        is_fully_connected = classmethod(lambda cls, device_ids: True)
        current_device = classmethod(lambda cls: "meta")
        num_compute_units = classmethod(lambda cls, device_id=0: 132)
        get_device_uuid = classmethod(lambda cls, device_id=0: "0")

        @classmethod
        def has_device_capability(cls, wanted, device_id=0):
            wanted = wanted if isinstance(wanted, tuple) else divmod(wanted, 10)
            return capability >= tuple(wanted)

    platforms._current_platform = FakeGpu()

    torch.cuda.device_count = torch.accelerator.device_count = lambda: 2**20
    cuda._cuda_device_count_stateless = lambda *_: 2**20
    import vllm.utils.torch_utils as torch_utils

    torch_utils.cuda_device_count_stateless = lambda: 2**20
    import vllm.config.vllm as config

    config.HAS_TRITON = True  # Model Runner V2, the default where Triton is installed
    torch.cuda.get_device_properties = lambda *_, **__: types.SimpleNamespace(
        name=name, major=capability[0], minor=capability[1], total_memory=memory, multi_processor_count=132,
        shared_memory_per_block_optin=232448, warp_size=32,
    )  # fmt: skip
    torch.cuda.get_device_capability = lambda *_, **__: capability
    torch.version.cuda = "13.0"
    torch.cuda.Stream, torch.cuda.Event = stub("Stream"), stub("Event")
    torch.cuda.current_device = torch.accelerator.current_device_index = lambda: 0

    import vllm.triton_utils as triton_utils
    import vllm.utils.import_utils as import_utils

    # The wheel has DeepGEMM among its compiled parts.
    has_module = import_utils._has_module
    import_utils._has_module = lambda name: name == "vllm.third_party.deep_gemm" or has_module(name)

    triton_utils.triton.set_allocator = lambda _: None
    triton_utils.triton.Config = lambda kwargs, num_warps=4, num_stages=3, **_: types.SimpleNamespace(
        kwargs=kwargs, num_warps=num_warps, num_stages=num_stages
    )

    # Classes are looked at in this process, where the stubs are, instead of in one of their own.
    import vllm.model_executor.models.registry as registry

    registry._LazyRegisteredModel.inspect_model_cls = lambda self: registry._ModelInfo.from_model_cls(
        self.load_model_cls()
    )

    # Configs whose class lives only on the hub are read as they stand.
    from transformers import AutoConfig, PreTrainedConfig

    load = AutoConfig.from_pretrained

    def from_pretrained(folder, *args, **options):
        try:
            return load(folder, *args, **options)
        except (ValueError, KeyError):
            data = json.loads(Path(folder, "config.json").read_text())
            kind = type("HubConfig", (PreTrainedConfig,), {"model_type": data.get("model_type", "")})
            if data.get("use_sliding_window") is False:
                # MiMo's class, like Qwen2's, drops a window that is not used.
                data["sliding_window"] = None
            if "block_configs" in data:
                data["block_configs"] = [named(block) for block in data["block_configs"]]
            return kind(**data)

    AutoConfig.from_pretrained = from_pretrained

    # Towers are asked what they take by processors, whose files are not there.
    from vllm.model_executor.models.transformers.multimodal import MultiModalProcessingInfo

    MultiModalProcessingInfo._get_supported_modalities = lambda self: ()

    towerless()

    import vllm.v1.worker.workspace as workspace

    workspace._manager = types.SimpleNamespace(get_simultaneous=lambda *_, **__: None, get=lambda *_, **__: None)

    import vllm.vllm_flash_attn.flash_attn_interface as flash

    supported = {2: capability >= (8, 0), 3: capability[0] == 9, 4: capability[0] in (9, 10)}
    flash.is_fa_version_supported = lambda version, device=None: supported[version]
    flash.fa_version_unsupported_reason = lambda version, device=None: None if supported[version] else "capability"
    apart()


def towerless() -> None:
    """Towers that can't be built are left out, models that ask their tokenizer for a token get one, suffix decoding is installed."""
    import vllm.config.speculative as speculative
    import vllm.tokenizers as tokenizers
    from vllm.model_executor.models.interfaces import SupportsMultiModal

    mark = SupportsMultiModal._mark_tower_model

    @contextlib.contextmanager
    def marked(self, *args, **options):
        with contextlib.suppress(Exception), mark(self, *args, **options):
            yield

    SupportsMultiModal._mark_tower_model = marked
    tokenizers.cached_tokenizer_from_config = lambda *_, **__: types.SimpleNamespace(vocab=collections.defaultdict(int))
    speculative.has_arctic_inference = lambda: True


def named(value):
    """A block of a config as its class on the hub has it: sections are objects."""
    return (
        types.SimpleNamespace(**{key: named(one) for key, one in value.items()}) if isinstance(value, dict) else value
    )


class Group:
    """A process group of a size, seen from one rank."""

    def __init__(self, world_size: int, rank: int = 0):
        self.world_size, self.rank_in_group, self.rank = world_size, rank, rank
        self.ranks, self.local_rank, self.unique_name = list(range(world_size)), 0, "fake"
        self.is_first_rank, self.is_last_rank = rank == 0, rank == world_size - 1
        self.first_rank, self.last_rank = 0, world_size - 1
        self.device_group = self.cpu_group = types.SimpleNamespace(
            size=lambda: world_size, rank=lambda: rank, world_size=world_size, rank_in_group=rank
        )
        self.device_communicator = None
        self.next_rank, self.prev_rank = (rank + 1) % world_size, (rank - 1) % world_size
        self.use_custom_op_call = False
        self.mq_broadcaster = None

    def all_gather(self, tensor, dim=-1):
        return tensor

    def all_reduce(self, tensor):
        return tensor


def apart() -> None:
    """Ranks of a group are not on one node, so that context parallelism makes no buffers that all of them share."""
    from vllm.v1.attention.ops import cp_common

    cp_common.in_the_same_node_as = lambda group, source_rank=0: [False] * group.world_size
    cp_common._symm_mem_spans_group = lambda group: False


def on_meta():
    """Everything that a model class makes goes to the meta device, whatever device it names."""
    import torch
    from torch.overrides import TorchFunctionMode

    class OnMeta(TorchFunctionMode):
        def __torch_function__(self, function, kinds, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            device = kwargs.get("device")
            if device is not None and "cpu" not in str(device):
                kwargs["device"] = "meta"
            if function is torch.Tensor.to and args[1:] and isinstance(args[1], (str, torch.device)):
                args = (args[0], "meta", *args[2:])
            if function in (torch.Tensor.cuda, torch.Tensor.cpu, torch.Tensor.pin_memory):
                return args[0]
            if function is torch.Tensor.item:
                return 0.0
            if function is torch.Tensor.tolist:
                return [0.0] * args[0].numel()
            return function(*args, **kwargs)

    return OnMeta()


def groups_of(tp: int, pp: int, rank: int, dcp: int) -> None:
    import vllm.distributed.parallel_state as state

    state._WORLD = Group(tp * pp)
    state._TP, state._PP, state._DCP = Group(tp), Group(pp, rank), Group(dcp)
    for name in ("_PCP", "_DP", "_EPLB"):
        setattr(state, name, Group(1))
    state._EP = Group(tp)
    state._ETP = Group(tp)
    with contextlib.suppress(AttributeError):
        state._INNER_DP_WORLD = Group(1)
