"""No command removes what it did not make: it is refused before anything is loaded, and everything stays as it was."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.adaptors import POINT, SMALL
from helpers.commands import QUICK_TRAINING, ROOT, config, run
from helpers.configs import changed, refusal
from hydra import initialize_config_dir
from PIL import Image

from clockwork.adaptors import Identity, ResNet, add_row, read_config, save_adaptor
from clockwork.errors import UserError
from clockwork.experiments.run_dir import claim
from clockwork.io.atomic import atomic_write
from clockwork.miniature.prompts import scene_prompts
from clockwork.teachers import Teacher

# {file}, {folder}, {link} and {new} stand for a file, a folder, a link to a file, and a path where nothing is.
REFUSED = {
    "generate prompt=a output={folder}": "the path of a png file",
    "generate prompt=a output={folder}/": "the path of a png file",
    "generate prompt=a output={folder}.jpg": "the path of a png file",
    "generate prompt=a output={new}.json": "the path of a png file",
    "generate prompt=a output={new}": "the path of a png file",
    "generate prompt=a output={file}/a.png": "the path of a png file",
    "generate prompt=a output={folder}/folder.png": "the path of a png file",
    "train output={file}": "the path of a folder",
    "train output={file}/new": "the path of a folder",
    "train output={link}": "the path of a folder",
    "train output={link}/new": "the path of a folder",
    "train objective=recover teacher=sd15 teachers={file}": "the path of a folder",
    "calibrate output={file}": "the path of a folder",
    "calibrate what=menu menu.output={file}": "the path of a folder",
    "evaluate output={file}": "the path of a folder",
    "evaluate metrics.cache={file}": "the path of a folder",
    "edit output={file}": "the path of a folder",
    "edit latents={file}": "the path of a folder",
    "drift output={file}": "the path of a folder",
    "perturb output={file}": "the path of a folder",
    "report output={file}": "the path of a folder",
    "tables output={file}": "the path of a folder",
    "tables rows={file}": "the path of a folder",
    "tables adaptors={file}": "the path of a folder",
    "evidence output={file}": "the path of a folder",
    "evidence rows={file}": "the path of a folder",
    "gpu_check output={file}": "the path of a folder",
    "miniature stage=clip output={file}": "the path of a folder",
    # names that would be folders elsewhere
    "train name=../../elsewhere": "a name without slashes",
    "train name=/elsewhere": "a name without slashes",
    "train name=..": "a name without slashes",
    "train name=.": "a name without slashes",
    "train adaptor_name=../elsewhere": "a name without slashes",
    "train objective_name=a/b": "a name without slashes",
    "train teacher.name=../elsewhere": "a name without slashes",
    "edit +benchmark=scenes name=../elsewhere": "a name without slashes",
}


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        yield


def state(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("command", REFUSED)
def test_a_path_of_the_other_kind_and_a_name_with_slashes_are_refused(command: str, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("file", "folder", "link", "new")}
    places["folder"].mkdir()
    (places["folder"] / "folder.png").mkdir()
    places["file"].write_text("a user's")
    places["link"].symlink_to(places["file"])
    before = state(tmp_path)
    message = refusal(command.format(**places), changed)
    assert REFUSED[command] in message and " is not allowed: use " in message
    assert len(message.splitlines()) == 1 and state(tmp_path) == before


@pytest.mark.parametrize("kind", ["image", "figures"])
def test_generate_replaces_only_its_own_image_and_figures(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    generate = ["prompt=a circle", "steps=1", "schedule=full", f"output={tmp_path / 'package.png'}"]
    if kind == "image":
        Image.new("RGB", (8, 8)).save(tmp_path / "package.png")
    else:
        (tmp_path / "package.json").write_text('{"name": "a user\'s"}')
    before = state(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, "generate", *generate)
    assert "was not made by Clockwork, so it is not replaced" in capsys.readouterr().err
    assert state(tmp_path) == before


def test_generate_replaces_what_it_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for seed in (0, 1):
        run(monkeypatch, "generate", "prompt=a circle", "steps=1", f"output={tmp_path / 'a.png'}", f"seed={seed}")
        assert json.loads((tmp_path / "a.json").read_text())[0]["seed"] == seed


@pytest.mark.parametrize("name", ["source.png", "edit.png", "no-clock.png"])
@pytest.mark.parametrize("image", [True, False])
def test_edit_replaces_neither_its_image_nor_those_of_others(
    name: str, image: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / name)
    file = tmp_path / name if image else ROOT / "docs" / "grid.png"
    before = state(tmp_path)
    with pytest.raises(SystemExit):
        words = ["source=a", "target=b", "inversion.steps=2", "generation.steps=2", "points=[{adaptor: none}]"]
        run(monkeypatch, "edit", f"image={file}", *words, f"output={tmp_path}")
    expected = "is the image to edit" if image else "was not made by Clockwork"
    assert expected in capsys.readouterr().err and state(tmp_path) == before


FOREIGN: dict[str, Any] = {
    "a model's config": ("config.json", '{"architectures": ["LlamaForCausalLM"]}'),
    "a config that is no JSON": ("config.json", "notes"),
    "an empty config": ("config.json", ""),
    "a project's README": ("README.md", "# My project"),
    "another model's card": ("README.md", "---\nlibrary_name: diffusers\n---\n"),
    "a folder named as the config": ("config.json", None),
    "a folder named as the weights": ("adaptor.safetensors", None),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_adaptor_is_not_saved_over_something_else(name: str, tmp_path: Path) -> None:
    file, text = FOREIGN[name]
    (tmp_path / file).mkdir() if text is None else (tmp_path / file).write_text(text)
    before = state(tmp_path)
    with pytest.raises(UserError, match=rf"{file} (exists and was not made by|is a folder)"):
        save_adaptor(tmp_path, Identity(), POINT)
    assert state(tmp_path) == before


@pytest.mark.parametrize("text", ['{"name": "a package"}', "[]", "notes", "", '{"settings": 3}'])
def test_a_run_does_not_begin_in_a_folder_with_anothers_config(text: str, teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        claim(tmp_path, config(tmp_path), teacher, scene_prompts("train", 4))
    assert (tmp_path / "config.json").read_text() == text


def test_a_teacher_is_not_trained_over_a_pipeline_of_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "sd15").mkdir()
    (tmp_path / "sd15" / "model_index.json").write_text("{}")
    before = state(tmp_path)
    with pytest.raises(SystemExit):
        words = ["objective=guidance", "name=sd15", f"teachers={tmp_path}", f"output={tmp_path / 'runs'}"]
        run(monkeypatch, "train", *QUICK_TRAINING, *words)
    assert "sd15 exists and was not made by Clockwork" in capsys.readouterr().err
    assert state(tmp_path) == before


ROW = {**vars(POINT), "images": 100, "prompts": "a", "seed": 0, "precision": "float32", "device": "", "versions": ""}
# metrics that the folder has and those that are measured, and what the second row changes: what is left
ADDED: dict[str, tuple[dict[str, float], dict[str, float], dict[str, Any], dict[str, float]]] = {
    "another metric": ({"fid": 1.0}, {"clip": 2.0}, {}, {"fid": 1.0, "clip": 2.0}),
    "no metric": ({"fid": 1.0}, {}, {}, {"fid": 1.0}),
    "the same metric": ({"fid": 1.0}, {"fid": 3.0}, {}, {"fid": 3.0}),
    "more images": ({"fid": 1.0}, {"fid": 3.0, "clip": 2.0}, {"images": 200}, {"fid": 3.0, "clip": 2.0}),
    "more images, fewer metrics": ({"fid": 1.0, "clip": 2.0}, {"fid": 3.0}, {"images": 200}, {"fid": 1.0, "clip": 2.0}),
    "fewer images": ({"fid": 1.0}, {"fid": 3.0}, {"images": 50}, {"fid": 1.0}),
    "other prompts, fewer metrics": ({"fid": 1.0}, {}, {"prompts": "b"}, {"fid": 1.0}),
    "other prompts": ({"fid": 1.0}, {"fid": 3.0}, {"prompts": "b"}, {"fid": 3.0}),
    "another point": ({"fid": 1.0}, {"fid": 3.0}, {"steps": 6}, {"fid": 1.0}),
    "the first": ({}, {"fid": 3.0}, {}, {"fid": 3.0}),
}


@pytest.mark.parametrize("name", ADDED)
def test_figures_are_added_to_an_adaptor_and_never_removed(name: str, tmp_path: Path) -> None:
    first, second, change, expected = ADDED[name]
    save_adaptor(tmp_path, ResNet(SMALL, 16, 1), POINT, training={"loss": 0.1})
    if first:
        add_row(tmp_path, {**ROW, "metrics": first, "latency_ms": 5.0})
    add_row(tmp_path, {**ROW, "metrics": second, "latency_ms": None, **change})
    read = read_config(tmp_path)
    assert read["row"]["metrics"] == expected and read["training"] == {"loss": 0.1}
    if first and not change:
        assert read["row"]["latency_ms"] == 5.0


@contextmanager
def stopped_before_the_config(file: Path) -> Iterator[Path]:
    """The weights, which are renamed first, are in place; the config is not."""
    with atomic_write(file) as partial:
        yield partial
        if file.name == "config.json":
            raise KeyboardInterrupt


def test_a_stopped_save_never_joins_records_and_weights_of_two_adaptors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from clockwork.adaptors import folder, load_adaptor

    save_adaptor(tmp_path, ResNet(SMALL, 16, 1), POINT, training={"loss": 0.1})
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(folder, "atomic_write", stopped_before_the_config)
        save_adaptor(tmp_path, ResNet(SMALL, 16, 1), POINT)  # other random weights
    with pytest.raises(UserError, match=r"weights of one adaptor and the config of another.*run it again"):
        load_adaptor(tmp_path)
    last = ResNet(SMALL, 16, 1)
    save_adaptor(tmp_path, last, POINT)
    assert load_adaptor(tmp_path)[1] == POINT and "training" not in read_config(tmp_path)
