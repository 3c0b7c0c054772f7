"""clockwork: cheaper diffusion UNets by clock schedules and distilled adaptors (arXiv 2312.08128).

Public names are imported when they are first used, so that `import clockwork` costs nothing by itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clockwork.adaptors import (
        Adaptor,
        Hermite,
        Identity,
        Linear,
        ResNet,
        Taylor,
        UNet,
        load_adaptor,
        push_to_hub,
        save_adaptor,
    )
    from clockwork.errors import UserError
    from clockwork.exporting import export
    from clockwork.operating_point import OperatingPoint
    from clockwork.pipeline import branch, calibrate, disable, enable, summary, tune
    from clockwork.sampling.denoisers import ClockworkDenoiser, FullDenoiser
    from clockwork.sampling.rollout import rollout
    from clockwork.schedule import Schedule
    from clockwork.teachers import Teacher, load_teacher
    from clockwork.unet.chain import Cut
    from clockwork.unet.split import SplitUNet

__version__ = "0.1.0"

_HOME = {
    "clockwork.adaptors": (
        *("Adaptor", "Hermite", "Identity", "Linear", "ResNet", "Taylor", "UNet"),
        *("load_adaptor", "push_to_hub", "save_adaptor"),
    ),
    "clockwork.unet.chain": ("Cut",),
    "clockwork.sampling.denoisers": ("ClockworkDenoiser", "FullDenoiser"),
    "clockwork.errors": ("UserError",),
    "clockwork.exporting": ("export",),
    "clockwork.operating_point": ("OperatingPoint",),
    "clockwork.pipeline": ("branch", "calibrate", "disable", "enable", "summary", "tune"),
    "clockwork.sampling.rollout": ("rollout",),
    "clockwork.schedule": ("Schedule",),
    "clockwork.unet.split": ("SplitUNet",),
    "clockwork.teachers": ("Teacher", "load_teacher"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Adaptor",
    "ClockworkDenoiser",
    "Cut",
    "FullDenoiser",
    "Hermite",
    "Identity",
    "Linear",
    "OperatingPoint",
    "ResNet",
    "Schedule",
    "SplitUNet",
    "Taylor",
    "Teacher",
    "UNet",
    "UserError",
    "branch",
    "calibrate",
    "disable",
    "enable",
    "export",
    "load_adaptor",
    "load_teacher",
    "push_to_hub",
    "rollout",
    "save_adaptor",
    "summary",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        from clockwork.deprecated import renamed

        return renamed(__name__)(name)
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
