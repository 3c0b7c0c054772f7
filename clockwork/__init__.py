"""clockwork: cheaper diffusion UNets by clock schedules and distilled adaptors (arXiv 2312.08128)."""

from clockwork.adaptors import Adaptor, Identity, ResNet, UNet, load_adaptor, push_to_hub, save_adaptor
from clockwork.chain import Cut
from clockwork.denoise import Clocked, Full
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline import disable, enable, summary
from clockwork.rollout import rollout
from clockwork.schedule import Schedule
from clockwork.split import SplitUNet
from clockwork.teachers import Teacher, load_teacher

__all__ = [
    "Adaptor",
    "Clocked",
    "Cut",
    "Full",
    "Identity",
    "OperatingPoint",
    "ResNet",
    "Schedule",
    "SplitUNet",
    "Teacher",
    "UNet",
    "disable",
    "enable",
    "load_adaptor",
    "load_teacher",
    "push_to_hub",
    "rollout",
    "save_adaptor",
    "summary",
]
