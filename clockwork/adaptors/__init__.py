"""The modules that stand in for the low-res path, one a file, and their folder on disk."""

from clockwork.adaptors.base import INPUTS, Adaptor, Widths
from clockwork.adaptors.folder import KINDS, adaptor_hash, check_point, load_adaptor, save_adaptor
from clockwork.adaptors.identity import Identity
from clockwork.adaptors.resnet import ResNet
from clockwork.adaptors.unet import UNet

__all__ = [
    "INPUTS",
    "KINDS",
    "Adaptor",
    "Identity",
    "ResNet",
    "UNet",
    "Widths",
    "adaptor_hash",
    "check_point",
    "load_adaptor",
    "save_adaptor",
]
