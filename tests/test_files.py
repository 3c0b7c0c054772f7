"""Whole or not at all: what a failure, Ctrl-C or a kill in the middle of writing leaves behind."""

from pathlib import Path

import pytest

from clockwork.io.atomic import whole
from clockwork.miniature.training import Recipe


def fill(place: Path, folder: bool, text: str) -> None:
    if folder:
        place.mkdir()
        (place / text).touch()
    else:
        place.write_text(text)


def content(place: Path) -> list[str]:
    return [file.name for file in place.iterdir()] if place.is_dir() else [place.read_text()]


@pytest.mark.parametrize("folder", [False, True])
def test_new_content_takes_the_place_of_old(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "made" / "target.txt"
    for text in ("old", "new"):
        with whole(target) as partial:
            fill(partial, folder, text)
    assert content(target) == ["new"] and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_stops_leaves_what_was_there(tmp_path: Path, folder: bool, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    fill(target, folder, "old")
    with pytest.raises(error), whole(target) as partial:
        fill(partial, folder, "new")
        raise error
    assert content(target) == ["old"] and list(tmp_path.iterdir()) == [target]


def test_a_killed_runs_rest_does_not_end_in_the_next_ones_folder(tmp_path: Path) -> None:
    fill(tmp_path / "target.partial", True, "old")
    with whole(tmp_path / "target") as partial:
        fill(partial, True, "new")
    assert content(tmp_path / "target") == ["new"]


def test_a_stage_stopped_while_it_saves_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe takes a folder that is there for a finished stage."""

    def stopped(self: object, folder: Path, **_: object) -> None:
        fill(Path(folder), True, "config.json")
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusers.AutoencoderKL.save_pretrained", stopped)
    optimisation = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    with pytest.raises(KeyboardInterrupt):
        Recipe(tmp_path).autoencoder(optimisation, {"accelerator": "cpu"})
    assert not (tmp_path / "vae").exists()
