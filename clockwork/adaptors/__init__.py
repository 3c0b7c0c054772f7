"""Adaptors, the modules that replace the low-res path, and how they are saved, loaded and shared."""

from clockwork.adaptors.base import ANY_DIMS, HISTORY_INPUTS, INPUTS, KINDS, Adaptor, FeatureDims, run_adaptor
from clockwork.adaptors.folder import (
    adaptor_hash,
    add_row,
    check_adaptor,
    check_adaptor_folder,
    load_adaptor,
    read_config,
    save_adaptor,
)
from clockwork.adaptors.forecast import Hermite, Taylor
from clockwork.adaptors.history import NO_HISTORY, FullStep, History
from clockwork.adaptors.hub import fetch, is_hub_name, push_to_hub
from clockwork.adaptors.identity import Identity
from clockwork.adaptors.linear import Linear
from clockwork.adaptors.mismatch import (
    check_dims,
    check_teacher,
    check_text_embedder,
    mismatch_message,
    warn_if_mismatched,
)
from clockwork.adaptors.negative import require_both_halves
from clockwork.adaptors.residual import Residual
from clockwork.adaptors.resnet import ResNet
from clockwork.adaptors.unet import UNet
from clockwork.deprecated import renamed

__getattr__ = renamed(__name__)

__all__ = [
    "ANY_DIMS",
    "HISTORY_INPUTS",
    "INPUTS",
    "KINDS",
    "NO_HISTORY",
    "Adaptor",
    "FeatureDims",
    "FullStep",
    "Hermite",
    "History",
    "Identity",
    "Linear",
    "ResNet",
    "Residual",
    "Taylor",
    "UNet",
    "adaptor_hash",
    "add_row",
    "check_adaptor",
    "check_adaptor_folder",
    "check_dims",
    "check_teacher",
    "check_text_embedder",
    "fetch",
    "is_hub_name",
    "load_adaptor",
    "mismatch_message",
    "push_to_hub",
    "read_config",
    "require_both_halves",
    "run_adaptor",
    "save_adaptor",
    "warn_if_mismatched",
]
