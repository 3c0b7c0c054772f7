"""Choice of the device and the precision, shared by the teacher, the adaptor and the Lightning trainer."""

import os
from typing import Any

import torch

from clockwork.errors import UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Chooses the device that a run uses.

    Args:
        name: `auto` (a CUDA GPU if there is one, else Apple's MPS, else the CPU), or a torch device such as `cpu`,
            `cuda`, `cuda:1`, `mps`. Under torchrun or DDP, `auto` and `cuda` choose the GPU of the local rank.

    Returns:
        The device. CUDA devices have an index.

    Raises:
        UserError: torch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is not a torch device: use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        index = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
        _require(index < torch.cuda.device_count(), name, f"{torch.cuda.device_count()} CUDA GPUs")
        return torch.device("cuda", index)
    if device.type == "mps":
        _require(torch.backends.mps.is_available(), name, "no MPS device")
    elif device.type not in ("cpu", "meta"):
        _require(hasattr(torch, device.type) and getattr(torch, device.type).is_available(), name, "no such device")
    return device


def _require(available: bool, name: str, devices: str) -> None:
    """Raises a UserError that names the devices that torch finds, unless the device is available."""
    if not available:
        raise UserError(f"device={name}, but torch finds {devices} on this machine: use device=cpu or device=auto")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Chooses the teacher's precision.

    Args:
        name: `auto` (float16 on a CUDA GPU, else float32), `float32`, `bfloat16` or `float16`.
        device: Device of the teacher.

    Returns:
        The precision.

    Raises:
        UserError: The name is not known, or the device does not support the precision.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise UserError(f"precision={name} is not known: use auto, {', '.join(PRECISIONS)}")
    if not _is_supported(PRECISIONS[name], device):
        raise UserError(f"precision={name} is not supported on {device}: use precision=auto or float32")
    return PRECISIONS[name]


def _is_supported(dtype: torch.dtype, device: torch.device) -> bool:
    """Tests whether a device computes convolutions in a precision."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        x = torch.ones(1, 1, 4, 4, dtype=dtype, device=device)
        torch.nn.functional.conv2d(x, x)
    except (RuntimeError, TypeError):
        return False
    return True


def lightning_device(device: torch.device, devices: int = 1) -> dict[str, Any]:
    """Returns Lightning's `accelerator` and `devices` options for the device that the teacher is on.

    Args:
        device: Device of the teacher.
        devices: Number of devices. With more than one, each process uses its own (DDP).

    Returns:
        The two options, as keyword arguments of `Trainer`.
    """
    if device.type == "cuda":
        return {"accelerator": "cuda", "devices": [device.index or 0] if devices == 1 else devices}
    return {"accelerator": device.type, "devices": devices}
