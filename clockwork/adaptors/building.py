"""From a folder's `config.json` and weights to an adaptor, with nothing allocated before the sizes are checked.

The folder may come from elsewhere: its config can ask for any size and any number of layers.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from clockwork.adaptors.base import KINDS, Adaptor
from clockwork.deprecated import with_new_keys
from clockwork.errors import UserError
from clockwork.io.foreign import one_line, read_weights, weight_shapes

WEIGHTS = "adaptor.safetensors"
_CALLS_PER_WEIGHT = 200  # of torch, to create a layer's weight and fill it with random numbers; 20 to 40 in fact


def build_adaptor(folder: Path, config: Mapping[str, Any]) -> Adaptor:
    """Builds the adaptor that a folder holds, which `check_sizes` has checked.

    Args:
        folder: The folder.
        config: Its `config.json`.

    Returns:
        The adaptor with its weights.

    Raises:
        UserError: The weights are damaged.
    """
    adaptor = KINDS[config["kind"]].from_config(with_new_keys(config["adaptor"]))
    adaptor.load_state_dict(read_weights(folder / WEIGHTS))
    return adaptor


def check_sizes(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks an adaptor's config against the header of its weights.

    The adaptor is built on the `meta` device, which takes no memory.

    Args:
        folder: The adaptor's folder.
        config: Its `config.json`.

    Raises:
        UserError: The kind is unknown, the config does not describe an adaptor of that kind, or the weights are not
            complete or those of another adaptor.
    """
    kind, arguments, file = config["kind"], with_new_keys(config["adaptor"]), folder / WEIGHTS
    if kind not in KINDS:
        raise UserError(
            f"the adaptor in {folder} is of kind {kind!r}, which is not one of {', '.join(KINDS)}: "
            "import the module that defines it first"
        )
    shapes = weight_shapes(file, floats_only=True)
    about = f"{folder / 'config.json'} does not describe a {kind} adaptor"
    try:
        with torch.device("meta"), _CallLimit(len(shapes)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on layers without weights
            planned = KINDS[kind].from_config(arguments)
        rebuilt = planned.config()
    except _WRONG_CONFIG as error:
        reason = one_line(error) or type(error).__name__
        raise UserError(f"{about} ({reason}): use the version that saved it") from error
    if wrong := next((name for name in arguments if not _includes(rebuilt.get(name), arguments[name])), None):
        raise UserError(f"{about}: {wrong} is unknown or of another type; use the version that saved it")
    expected = {name: tuple(weight.shape) for name, weight in planned.state_dict().items()}
    if expected != shapes:
        name = next(name for name in (*expected, *shapes) if expected.get(name) != shapes.get(name))
        raise UserError(
            f"{file} holds weights of another adaptor than config.json describes: {name} has shape "
            f"{list(shapes.get(name, ())) or None}, not {list(expected.get(name, ())) or None}; save the adaptor again"
        )


# What a constructor raises of arguments that it was not written for.
_WRONG_CONFIG = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError),
    *(StopIteration, TypeError, ValueError),
)


class _CallLimit(TorchFunctionMode):
    """Stops a constructor that makes more layers than there are weights, such as one of a billion blocks.

    Args:
        num_weights: Number of weights in the file.
    """

    def __init__(self, num_weights: int) -> None:
        super().__init__()
        self._left = _CALLS_PER_WEIGHT * (num_weights + 10)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._left -= 1
        if self._left < 0:
            raise UserError("it asks for more layers than there are weights")
        return func(*args, **(kwargs or {}))


def _includes(rebuilt: Any, saved: Any) -> bool:
    """Whether an argument is as it was saved, perhaps by a version that had fewer fields."""
    if isinstance(saved, dict) and isinstance(rebuilt, dict):
        return all(_includes(rebuilt.get(name), value) for name, value in saved.items())
    return json.dumps(rebuilt) == json.dumps(saved)  # in which true is not 1
