"""Folders of captioned pictures: what is read, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clockwork.data.captioned_images import folder, pixels
from clockwork.errors import MissingFileError, UserError
from clockwork.miniature import scenes
from clockwork.miniature.prompts import scene_images


def write(path: Path, count: int = 3) -> Path:
    path.mkdir()
    for i in range(count):
        Image.fromarray(np.full((6 + 2 * i, 10, 3), 40 * i, np.uint8)).save(path / f"{i}.png")
    return path


def metadata(path: Path, columns: str) -> None:
    lines = [columns, *(f'{i}.png,"a picture, the {i}th"' for i in range(3))]
    (path / "metadata.csv").write_text("\n".join(lines))


def test_captions_from_a_table_or_beside(tmp_path: Path) -> None:
    table, jsonl, beside = (write(tmp_path / name) for name in "abc")
    metadata(table, "file_name,text")
    rows = [json.dumps({"file_name": f"{i}.png", "caption": f"a picture, the {i}th"}) for i in range(3)]
    (jsonl / "metadata.jsonl").write_text("\n".join(rows))
    for i in range(3):
        (beside / f"{i}.txt").write_text(f"a picture, the {i}th\n")
    for path in (table, jsonl, beside):
        images = folder(path)
        assert [image.text for image in images] == [f"a picture, the {i}th" for i in range(3)]
        assert pixels(images, 8)[:, 0, 0, 0].tolist() == [0, 40, 80] and pixels(images, 8).shape == (3, 3, 8, 8)
        assert len(folder(path, 2)) == 2


def test_the_miniatures_scenes_are_its_pictures() -> None:
    captions, rendered = scenes.render_batch("train", 0, 2)
    images = scene_images("train", 2)
    assert [image.text for image in images] == captions
    assert torch.equal(pixels(images, 32), ((rendered + 1) * 127.5).round().byte())


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"0\.png has no caption: write 0\.txt"):
        folder(path)
    metadata(path, "file_name,label")
    with pytest.raises(ValueError, match="has no column caption, prompt or text"):
        folder(path)
    metadata(path, "number,text")
    with pytest.raises(ValueError, match="no column file_name"):
        folder(path)
    metadata(path, "file_name,text")
    with pytest.raises(ValueError, match="fewer than 4"):
        folder(path, 4)
    (path / "1.png").write_bytes((path / "1.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"1\.png is not an image that can be read"):
        folder(path)
    (path / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image at .*1\.png"):
        folder(path)


OUTSIDE = [
    "../elsewhere/0.png",
    "{absolute}/0.png",
    "a/../../elsewhere/0.png",
    "linked/0.png",
    "{absolute}/../elsewhere/0.png",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("table", ["metadata.csv", "metadata.tsv", "metadata.jsonl"])
def test_a_table_names_images_of_its_folder_alone_unless_allowed(table: str, name: str, tmp_path: Path) -> None:
    path, elsewhere = write(tmp_path / "pictures"), write(tmp_path / "elsewhere", 1)
    (path / "a").mkdir()
    (path / "linked").symlink_to(elsewhere)
    name = name.format(absolute=elsewhere)
    tab = "\t" if table.endswith("tsv") else ","
    line = (
        json.dumps({"file_name": name, "caption": "a"}) if "json" in table else f"file_name{tab}caption\n{name}{tab}a"
    )
    (path / table).write_text(line)
    with pytest.raises(UserError, match=rf"{table} names '.*', which is not below .* or pass images.outside=true"):
        folder(path)
    (image,) = folder(path, outside=True)
    assert image.file.samefile(elsewhere / "0.png") and image.text == "a" and image.read().shape == (3, 6, 10)


def test_links_to_images_are_read(tmp_path: Path) -> None:
    """As in the hub's cache, whose folders are links to files elsewhere."""
    path, elsewhere = tmp_path / "pictures", write(tmp_path / "elsewhere", 1)
    path.mkdir()
    (path / "0.png").symlink_to(elsewhere / "0.png")
    (path / "metadata.csv").write_text("file_name,text\n0.png,a circle")
    for link in (path, tmp_path / "link"):
        link.is_dir() or link.symlink_to(path)
        assert [image.text for image in folder(link)] == ["a circle"]


@pytest.mark.parametrize("name", ["..", "/", "a\0.png", "../missing.png", "../elsewhere"])
def test_what_is_no_image_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "pictures")
    write(tmp_path / "elsewhere", 1)
    (path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "caption": "a"}))
    with pytest.raises((UserError, MissingFileError), match=r"^(no image at|.*metadata.jsonl names)"):
        folder(path, outside=True)


def test_images_elsewhere_need_metadata(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside=true is for images that metadata names"):
        folder(write(tmp_path / "pictures"), outside=True)
    with pytest.raises(MissingFileError, match="no image folder"):
        folder(tmp_path / "nowhere", outside=True)


def test_two_tables_of_one_folder_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pictures", 1)
    for name in ("metadata.csv", "metadata.tsv"):
        (path / name).write_text("file_name\tcaption\n0.png\ta circle\n".replace("\t", "," if "csv" in name else "\t"))
    with pytest.raises(UserError, match=r"has metadata\.csv and metadata\.tsv: keep the one"):
        folder(path)
    (path / "metadata.tsv").unlink()
    assert [image.text for image in folder(path, count=1)] == ["a circle"]
    for count in (0, -1, 1.5):
        with pytest.raises(UserError, match=r"images\.count=.* is not possible"):
            folder(path, count=count)  # type: ignore[arg-type]
