"""Arguments by name, against `inspect.Signature.bind`: the same names, values and errors."""

import inspect
from itertools import product
from typing import Any

import pytest
from diffusers import UNet2DConditionModel

from clockwork.unet.binding import Binder

NAMES = ("sample", "timestep", "encoder_hidden_states", "return_dict", "not_one")


@pytest.mark.parametrize("num_positional", [0, 1, 2, 3, 4, 14, 15])
def test_names_are_those_of_the_signature(num_positional: int) -> None:
    forward = UNet2DConditionModel.forward
    bind, signature = Binder(forward), inspect.signature(forward)
    args = tuple(range(num_positional))
    for chosen in product([False, True], repeat=len(NAMES)):
        kwargs = {name: name for name, is_in in zip(NAMES, chosen, strict=True) if is_in}
        try:
            expected: Any = signature.bind(None, *args, **kwargs)
        except TypeError as error:
            with pytest.raises(TypeError, match=str(error)):
                bind(args, kwargs)
            continue
        del expected.arguments["self"]
        assert bind(args, kwargs) == expected.arguments
        expected = signature.bind(None, *args, **kwargs)
        expected.apply_defaults()
        assert {**bind.defaults, **bind(args, kwargs)} == {k: v for k, v in expected.arguments.items() if k != "self"}
