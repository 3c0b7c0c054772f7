"""Old names, which work with a DeprecationWarning for one release.

To end them, delete this file, the lines `__getattr__ = renamed(__name__)` and the other uses of it.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RENAMED: dict[str, dict[str, str]] = {  # by module: old name, new name; with its module where that is another
    "clockwork": {"Clocked": "ClockworkDenoiser", "Full": "FullDenoiser"},
    "clockwork.adaptors": {"Widths": "FeatureDims"},
    "clockwork.sampling.denoisers": {"Clocked": "ClockworkDenoiser", "Full": "FullDenoiser"},
    "clockwork.sampling.rollout": {"guide": "clockwork.sampling.guidance.apply_guidance"},
    "clockwork.sampling.sampler": {"Setup": "Sampler", "widths": "clockwork.sampling.feature_shapes.feature_dims"},
    "clockwork.sampling.solvers": {"timesteps": "num_unet_calls"},
    "clockwork.training.examples": {"Unrolled": "TrajectoryExamples"},
    "clockwork.training.latents": {"UnrolledStates": "UnrolledLatents", "NoisedStates": "NoisedLatents"},
    "clockwork.training.noised": {"NoisedPairs": "NoisedExamples"},
    "clockwork.training.objectives.adaptor": {"Distillation": "AdaptorDistillation"},
    "clockwork.training.objectives.guidance": {"Guidance": "GuidanceDistillation"},
    "clockwork.training.objectives.progressive": {"Progressive": "ProgressiveDistillation"},
    "clockwork.editing.benchmark": {"ti2i": "read_ti2i"},
}
CONFIG_KEYS = {"passes": "repeats_per_epoch", "source_to_the_end": "keep_source"}
CONFIG_VALUES = {  # of keys that were replaced by a key with other values
    "features": ("rollout", {"teacher": "teacher", "own": "adaptor"}),
}
ADAPTOR_KEYS = {"widths": "dims", "num_halves": "branches"}  # of `adaptor` in an adaptor's config.json
ADAPTOR_INPUTS = {"conditional": "branch"}  # of `inputs` in it
BRANCHES: dict[Any, list[str]] = {1: ["conditional"], 2: ["unconditional", "conditional"]}  # by `num_halves`


def renamed(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__`, which finds names by their old spelling.

    Args:
        module: Full name of the module.
    """

    def getattr_by_old_name(name: str) -> Any:
        if name not in RENAMED[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        path, new = new_name(module, name)
        warnings.warn(f"{module}.{name} is now {path}.{new}: use that", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(path), new)

    return getattr_by_old_name


def new_name(module: str, name: str) -> tuple[str, str]:
    """The module and the name that replace an old name of a module."""
    path, _, new = RENAMED[module][name].rpartition(".")
    return path or module, new


def with_new_keys(adaptor: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an adaptor from its config.json, with the names that an earlier version wrote replaced."""
    new = {ADAPTOR_KEYS.get(key, key): value for key, value in adaptor.items()}
    if type(adaptor.get("num_halves")) is int:
        new["branches"] = BRANCHES.get(adaptor["num_halves"], adaptor["num_halves"])
    if isinstance(new.get("inputs"), list):
        new["inputs"] = [ADAPTOR_INPUTS.get(name, name) if isinstance(name, str) else name for name in new["inputs"]]
    return new


def with_hashed_keys(adaptor: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an adaptor as an earlier version named them, so that its fingerprint is the same."""
    old, branches = {key: value for key, value in adaptor.items() if key != "branches"}, adaptor.get("branches")
    if branches == BRANCHES[1]:
        old["num_halves"] = 1
    elif branches not in (None, BRANCHES[2]):
        old["branches"] = branches
    if isinstance(inputs := adaptor.get("inputs"), list):
        names = {new: name for name, new in ADAPTOR_INPUTS.items()}
        old["inputs"] = [names.get(name, name) for name in inputs]
    return old


def with_new_config_keys(words: Sequence[str]) -> list[str]:
    """A command line's overrides, with config keys by their old names replaced, each with a warning."""
    return [_with_new_config_key(word) for word in words]


def _with_new_config_key(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    new, values = CONFIG_VALUES.get(name, (CONFIG_KEYS.get(name), {}))
    if new is None or not equals:
        return word
    value = values.get(value, value)
    warnings.warn(f"the config key {key} is now {new}: pass {new}={value}", FutureWarning, stacklevel=3)
    return f"{key[: -len(name)]}{new}={value}"
