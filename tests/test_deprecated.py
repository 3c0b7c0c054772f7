"""Old names go on working for one release, and say what to use."""

import importlib

import pytest

from clockwork.deprecated import RENAMED, new_name, with_new_config_keys


@pytest.mark.parametrize(("module", "old"), [(module, old) for module, names in RENAMED.items() for old in names])
def test_an_old_name_is_the_new_one_and_warns(module: str, old: str) -> None:
    path, new = new_name(module, old)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is now {path}.{new}"):
        value = getattr(importlib.import_module(module), old)
    assert value is getattr(importlib.import_module(path), new)


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    for module in RENAMED:
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = importlib.import_module(module).nothing


def test_old_config_keys_are_replaced_with_a_warning() -> None:
    words = ["adaptor=resnet", "passes=2", "+source_to_the_end=false", "passes_of_mine=1", "passes"]
    with pytest.warns(FutureWarning, match="config key passes is now repeats_per_epoch"):
        replaced = with_new_config_keys(words)
    assert replaced == ["adaptor=resnet", "repeats_per_epoch=2", "+keep_source=false", "passes_of_mine=1", "passes"]


@pytest.mark.parametrize(("old", "new"), [("own", "adaptor"), ("teacher", "teacher")])
def test_old_config_values_are_replaced_with_their_key(old: str, new: str) -> None:
    with pytest.warns(FutureWarning, match=f"config key features is now rollout: pass rollout={new}"):
        assert with_new_config_keys([f"features={old}"]) == [f"rollout={new}"]
