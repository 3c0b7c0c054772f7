"""What may be written where: nothing is removed that Clockwork did not make, and names stay in their folders."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_folder, atomic_write
from clockwork.io.paths import below, can_be_file, can_be_folder, check_file, folder_name


def state(folder: Path) -> dict[str, str | None]:
    """All paths below a folder, with what files hold."""
    return {str(path): path.read_text() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "below").mkdir(parents=True)
    (tmp_path / "photos" / "cat.txt").write_text("a cat")
    (tmp_path / "notes").write_text("not ours")
    (tmp_path / "link").symlink_to("notes")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "linked").symlink_to("photos")
    (tmp_path / "empty").mkdir()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / ".clockwork").touch()
    (tmp_path / "ours" / "old").touch()
    return tmp_path


def write_folder(path: Path) -> None:
    with atomic_folder(path) as partial:
        partial.mkdir()
        (partial / "new").touch()


def write_file(path: Path) -> None:
    with atomic_write(path) as partial:
        partial.touch()


def write_marked(path: Path) -> None:
    check_file(path, "our mark")
    write_file(path)


KEPT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file over a folder": (write_file, "photos"),
    "a file over an empty folder": (write_file, "empty"),
    "a file over our folder": (write_file, "ours"),
    "a file over a link to a folder": (write_file, "linked"),
    "a folder over a folder": (write_folder, "photos"),
    "a folder over a file": (write_folder, "notes"),
    "a folder over a link to a file": (write_folder, "link"),
    "a folder over a link to nothing": (write_folder, "dangling"),
    "a folder over a link to a folder": (write_folder, "linked"),
    "a folder over a folder below": (write_folder, "photos/../photos"),
    "a marked file over one without": (write_marked, "notes"),
    "a marked file over a link to one without": (write_marked, "link"),
    "a marked file over a folder": (write_marked, "photos"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_ours_is_kept(name: str, place: Path) -> None:
    (write, target), before = KEPT[name], state(place)
    with pytest.raises(UserError, match="choose another path"):
        write(place / target)
    assert state(place) == before


@pytest.mark.parametrize("target", ["ours", "empty", "new", "new/below"])
def test_our_folders_empty_ones_and_new_ones_are_written(target: str, place: Path) -> None:
    before = state(place)
    write_folder(place / target)
    assert {path.name for path in (place / target).iterdir()} == {".clockwork", "new"}
    others = {path: content for path, content in before.items() if Path(path).relative_to(place).parts[0] != target}
    assert others.items() <= state(place).items()


def test_a_link_to_our_folder_stays_a_link(place: Path) -> None:
    (place / "teacher").symlink_to("ours")
    write_folder(place / "teacher")
    assert (place / "teacher").is_symlink() and (place / "ours" / "new").is_file()
    assert not (place / "ours" / "old").exists()


def test_marked_files_are_replaced(place: Path) -> None:
    (place / "notes").write_text("{our mark}")
    write_marked(place / "notes")
    assert (place / "notes").read_text() == ""


FOLDERS = {"photos": True, "photos/new/below": True, "linked": True, "": True, "notes": False, "notes/new": False}
FOLDERS |= {"link": False, "link/new": False, "dangling": False, "dangling/new": False, "x" * 300: False, "a\0b": False}


FOLDERS |= {"/": False, "/..": False, "/proc": False, "/proc/new": False, "/sys/new/below": False, "/dev/new": False}
FOLDERS |= {"/proc/../tmp": True, "/dev/shm/new": True, "/dev/null": False, "/dev/full/new": False, "/process": True}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_can_be_a_folder(name: str, place: Path) -> None:
    (place / "to_proc").symlink_to("/proc")
    (place / "loop").symlink_to("loop")
    assert can_be_folder(place / name) is FOLDERS[name]
    assert not can_be_folder(place / "to_proc" / "new") and not can_be_folder(place / "loop" / "new")


FILES = {"photos": False, "photos/new.png": True, "notes": True, "notes/new": False, "new": True, "new/new": True}
FILES |= {"/new.png": True, "/proc/new.png": False, "/dev/null": False, "/": False, "linked": False, "x" * 300: False}


@pytest.mark.parametrize("name", FILES)
def test_what_can_be_a_file(name: str, place: Path) -> None:
    assert can_be_file(place / name) is FILES[name]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_name_that_leaves_no_room_for_a_temporary_one_is_refused(write: Callable[[Path], None], place: Path) -> None:
    before = state(place)
    for name in ("x" * 176, "é" * 88, "x" * 255):
        with pytest.raises(UserError, match="choose one of at most 175"):
            write(place / name)
    assert state(place) == before
    write(place / ("x" * 175))
    write(place / ("é" * 87))


@pytest.mark.parametrize("name", ["../cat.png", "a/../../cat.png", "/etc/passwd", "..", "a/..", "a\0.png"])
def test_a_name_that_leads_out_of_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"metadata.csv names {re.escape(repr(name))}, which is not below"):
        below(tmp_path, name, Path("metadata.csv"))


@pytest.mark.parametrize("name", ["cat.png", "a/b/cat.png", "./cat.png", "..cat.png", "a..b/c"])
def test_a_name_below_its_folder_is_allowed(name: str, tmp_path: Path) -> None:
    assert below(tmp_path, name, Path("metadata.csv")) == tmp_path / name


def test_the_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "sd15").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models" / "sd15")
    names = {".": "sd15", "": "sd15", "..": "models", "../../models/..": tmp_path.name, "user/model": "model"}
    assert {path: folder_name(path) for path in names} == names
