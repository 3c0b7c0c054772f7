"""Old names go on working for one release, and say what to use."""

import importlib

import pytest

from clockwork.deprecated import RENAMED


@pytest.mark.parametrize(
    ("module", "old", "new"), [(m, o, n) for m, names in RENAMED.items() for o, n in names.items()]
)
def test_an_old_name_is_the_new_one_and_warns(module: str, old: str, new: str) -> None:
    loaded = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is now {module}.{new}"):
        assert getattr(loaded, old) is getattr(loaded, new)


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    for module in RENAMED:
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = importlib.import_module(module).nothing
