"""Fingerprints of weights and of plain data: adaptors record that of their teacher, rows that of their adaptor."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def weights_hash(module: nn.Module, *, about: str = "") -> str:
    """Computes the fingerprint of a module's weights.

    Weights are rounded to half precision, so that a copy in half precision has the same fingerprint. Those of quantised
    layers are dequantised.

    Args:
        module: The module.
        about: Further text that distinguishes modules with equal weights, such as their configuration.

    Returns:
        Twelve hexadecimal digits.
    """
    sha = hashlib.sha256(about.encode())
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        for part in value if isinstance(value, tuple) else (value,):  # a packed weight and its bias
            sha.update(_half_precision(part) if isinstance(part, Tensor) else str(part).encode())
    return sha.hexdigest()[:12]


def _half_precision(weight: Tensor) -> bytes:
    """Returns a weight's numbers in half precision."""
    if weight.is_quantized or type(weight) not in (Tensor, nn.Parameter):  # torchao's are subclasses
        weight = weight.dequantize()
    return weight.to("cpu", torch.float16).contiguous().numpy().tobytes()


def file_hash(file: Path) -> str:
    """Computes the fingerprint of a file's contents.

    Args:
        file: The file, of any size.

    Returns:
        The first twelve hexadecimal digits of its SHA-256.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def digest(content: Any) -> str:
    """Computes the fingerprint of plain data.

    Args:
        content: Anything that `json.dumps` accepts. The order of keys does not matter.

    Returns:
        Twelve hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
