"""A GPU without a GPU: tensors on `cuda:0` that have shapes, devices and precisions, and no memory.

Under `FakeTensorMode` mixing devices or precisions raises as on a real GPU, and a step of SD v1.5 at its real size
takes a second. A fake tensor has no values, but a program reads a few: a solver its timesteps, a pipeline its token
ids. So small tensors that are made on the host keep their values beside them, wherever they are moved. A program that
reads one from `cuda:0` waits for the GPU: `host_reads` lists these. Reading any other value from there raises.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from clockwork.sampling.solvers import SOLVERS

GPU = torch.device("cuda:0")
SEEN_BY_AUTOGRAD = torch.device("meta")
aten = torch.ops.aten
READS = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
FACTORIES = ("arange", "zeros", "ones", "full", "linspace", "scalar_tensor", "lift_fresh")
LARGEST = 10_000  # numbers: every noise schedule and prompt, no image and no weight
RANDOM = torch.Tag.nondeterministic_seeded


class FakeGPU(TorchDispatchMode):
    """While it is `on()`, tensors on `cuda:0` exist; those of one object do not mix with another's.

    Attributes:
        host_reads: The operator's name, each time the host waits for a value or a copy of one from the GPU.
        bytes, peak_bytes: Memory of the tensors on the GPU, now and at most. Set the peak back as torch's
            `reset_peak_memory_stats` does. What kernels take besides is not counted.
        training: Set it around what needs gradients. Autograd runs what belongs to a GPU in threads of that GPU, and
            there are none: while set, it is told that tensors on the GPU are on `meta`, and what it then makes on
            `meta` is made on the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.host_reads, self.training = list[str](), False
        self.bytes = self.peak_bytes = 0
        self._storages = set[int]()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Solvers, attention and `module.to(...)`, too, work on fake tensors inside."""
        with pytest.MonkeyPatch.context() as patch:
            for kind in {kind for kind, _ in SOLVERS.values()}:
                patch.setattr(kind, "set_timesteps", _with_real_numbers(kind.set_timesteps))
            patch.setattr(nn.Module, "_apply", _with_new_parameters)
            patch.setattr(FakeTensor, "__deepcopy__", _deepcopy, raising=False)
            patch.setattr(F, "scaled_dot_product_attention", _flash_attention(F.scaled_dot_product_attention))
            with self.fake, self:
                yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            device = args[0].fake_device if types else args[0].device
            return SEEN_BY_AUTOGRAD if self.training and device == GPU else device
        kwargs = kwargs or {}
        if self.training and kwargs.get("device") == SEEN_BY_AUTOGRAD:
            kwargs = {**kwargs, "device": GPU}
        tensors = [x for x in _flat(args) if isinstance(x, Tensor)]
        known = self._known(func, tensors)
        if func in READS:
            self._note(func, tensors)
        if known and func in READS:
            value = _real(func, args, kwargs)
            return _keep(self.fake.from_tensor(value), value) if isinstance(value, Tensor) else value
        output = func(*args, **kwargs)
        self._allocate(output)
        if func is aten._to_copy.default and output.device.type == "cpu":
            self._note(func, tensors)
        if known:
            return _keep(output, _real(func, args, kwargs))
        if func._schema.is_mutable and tensors:
            tensors[0].__dict__.pop("host_value", None)
        return output

    def _allocate(self, output: Any) -> None:
        for x in output if isinstance(output, list | tuple) else (output,):
            if isinstance(x, FakeTensor) and x.fake_device == GPU:
                storage = x.untyped_storage()
                if storage._cdata not in self._storages:
                    self._storages.add(storage._cdata)
                    self.bytes += storage.nbytes()
                    self.peak_bytes = max(self.peak_bytes, self.bytes)
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, storage: int, size: int) -> None:
        self._storages.remove(storage)
        self.bytes -= size

    def _known(self, func: Any, tensors: list[Tensor]) -> bool:
        """Whether the values of all of an operator's inputs are known."""
        if tensors and func is not aten.lift_fresh.default:
            return all(hasattr(x, "host_value") for x in tensors) and RANDOM not in func.tags
        return func._opname in FACTORIES

    def _note(self, func: Any, tensors: list[Tensor]) -> None:
        if any(x.device.type == "cuda" for x in tensors):
            self.host_reads.append(func._opname)


def _flat(args: Any) -> Iterator[Any]:
    for x in args:
        if isinstance(x, list | tuple):
            yield from x
        else:
            yield x


def _real(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator on the values, on the CPU."""

    def value(x: Any) -> Any:
        if isinstance(x, torch.device):
            return torch.device("cpu")
        return getattr(x, "host_value", x) if isinstance(x, Tensor) else x

    with _disable_current_modes():
        args, kwargs = tree_map(value, (args, kwargs))
        return func(*args, **kwargs)


def _keep(output: Any, values: Any) -> Any:
    for fake, value in zip(tree_leaves(output), tree_leaves(values), strict=True):
        if isinstance(fake, Tensor) and value.numel() <= LARGEST:
            fake.__dict__["host_value"] = value
    return output


def _with_real_numbers(set_timesteps: Any) -> Any:
    """Solvers compute their timesteps with numpy, which cannot read fake tensors: another solver of the same config
    does that without the mode, and its numbers are copied."""

    def set_fake_timesteps(self: Any, *args: Any, device: Any = None, **kwargs: Any) -> None:
        with _disable_current_modes():
            real = type(self).from_config(self.config)
            set_timesteps(real, *args, **kwargs)
        for name, x in vars(real).items():
            if isinstance(x, Tensor):
                setattr(self, name, torch.tensor(x.tolist(), dtype=x.dtype))
            elif name != "_internal_dict":
                setattr(self, name, x)
        self.timesteps = self.timesteps.to(device)

    return set_fake_timesteps


def _with_new_parameters(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """`module.to(...)`: torch swaps the memory of a parameter, which fake tensors refuse; here the module gets new
    parameters."""
    moved: dict[int, Tensor] = {}  # tied parameters stay tied

    def applied(x: Tensor) -> Tensor:
        if id(x) not in moved:
            with torch.no_grad():
                y = fn(x)
            moved[id(x)] = y if y is x or not isinstance(x, nn.Parameter) else nn.Parameter(y, x.requires_grad)
        return moved[id(x)]

    for module in self.modules() if recurse else [self]:
        for tensors in (module._parameters, module._buffers):
            cast(dict[str, Any], tensors).update({name: applied(x) for name, x in tensors.items() if x is not None})
    return self


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """torch's own would copy the mode, too."""
    if id(self) not in memo:
        copied = self.detach().clone()
        is_parameter = isinstance(self, nn.Parameter)
        memo[id(self)] = nn.Parameter(copied, self.requires_grad) if is_parameter else copied
    return memo[id(self)]


def _flash_attention(plain: Any) -> Any:
    """What torch runs on a GPU in half precision where there is no mask; without a GPU it would choose the form that
    holds every weight."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        half = q.device.type == "cuda" and q.dtype == k.dtype == v.dtype != torch.float32
        if half and kwargs.get("attn_mask") is None and not args:
            return aten._scaled_dot_product_flash_attention(q, k, v, is_causal=kwargs.get("is_causal", False))[0]
        return plain(q, k, v, *args, **kwargs)

    return attention
