"""Fingerprints: of weights, by which adaptors know their teacher and rows their adaptor, and of plain data."""

import hashlib
import json
from typing import Any

import torch
from torch import nn


def weights_hash(module: nn.Module, *, about: str = "") -> str:
    """Twelve hexadecimal digits of names and weights rounded to half precision: a copy in half precision is the
    same model."""
    sha = hashlib.sha256(about.encode())
    for name, weight in sorted(module.state_dict().items()):
        sha.update(name.encode() + weight.to("cpu", torch.float16).contiguous().numpy().tobytes())
    return sha.hexdigest()[:12]


def digest(content: Any) -> str:
    """Twelve hexadecimal digits of plain data: the same whenever the data is."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
