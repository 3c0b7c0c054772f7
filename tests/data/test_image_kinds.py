"""Images of every kind as viewers show them, damaged ones by name, and what a folder's listing leaves out."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers.utils import load_image
from PIL import Image, ImageCms

from clockwork.data.captioned_images import folder
from clockwork.data.image_files import check_image, image_files, read_image
from clockwork.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = np.linspace(0, 65535, 54).astype(np.uint16).reshape(6, 9)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


# kinds that diffusers and viewers show alike
SAME: dict[str, bytes] = {
    "png": encoded(PICTURE, "png"),
    "jpeg": encoded(PICTURE, "jpeg"),
    "progressive jpeg": encoded(PICTURE, "jpeg", progressive=True),
    "webp": encoded(PICTURE, "webp", lossless=True),
    "grey": encoded(PICTURE.convert("L"), "png"),
    "black and white": encoded(PICTURE.convert("1"), "png"),
    "grey jpeg": encoded(PICTURE.convert("L"), "jpeg"),
    "a palette": encoded(PICTURE.convert("P"), "png"),
    "a palette of 4 colours": encoded(PICTURE.quantize(4), "png"),
    "CMYK": encoded(PICTURE.convert("CMYK"), "jpeg"),
    "CMYK in tiff": encoded(PICTURE.convert("CMYK"), "tiff"),
    "an opaque alpha channel": encoded(PICTURE.convert("RGBA"), "png"),
    "grey with an opaque alpha channel": encoded(PICTURE.convert("L").convert("LA"), "png"),
    "a colour profile": encoded(PICTURE, "png", icc_profile=PROFILE),
    "an animation": encoded(PICTURE, "webp", lossless=True, save_all=True, append_images=[PICTURE.rotate(180)]),
    "gif": encoded(PICTURE, "gif"),
    "bmp": encoded(PICTURE, "bmp"),
    **{f"jpeg, orientation {n}": encoded(PICTURE, "jpeg", exif=turned(n)) for n in range(1, 9)},
    **{f"png, orientation {n}": encoded(PICTURE, "png", exif=turned(n)) for n in (3, 6, 8)},
    **{f"webp, orientation {n}": encoded(PICTURE, "webp", exif=turned(n)) for n in (3, 6, 8)},
    "an orientation that is none": encoded(PICTURE, "jpeg", exif=turned(17)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_an_image_is_read_as_diffusers_loads_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(SAME[name])
    check_image(tmp_path / "image")
    expected = np.asarray(load_image(Image.open(tmp_path / "image")))
    assert np.array_equal(read_image(tmp_path / "image").permute(1, 2, 0), expected)
    if "orientation" in name:
        upright = array(Image.open(io.BytesIO(SAME[name])))
        assert np.array_equal(expected, upright) == name.endswith(("1", "none"))


HALF = np.dstack([PIXELS, np.full((6, 9), 128, np.uint8)])
CLEAR = np.dstack([PIXELS, np.zeros((6, 9), np.uint8)])
ON_WHITE = np.round(PIXELS * (128 / 255) + 255 * (127 / 255))
PALETTE = Image.new("P", (9, 6), 1)
PALETTE.putpalette([0, 0, 0, 200, 10, 10])
# kinds whose transparent or 16-bit pixels diffusers shows otherwise than viewers do: what viewers show
SHOWN: dict[str, tuple[bytes, Any]] = {
    "half transparent": (encoded(Image.fromarray(HALF), "png"), ON_WHITE),
    "half transparent webp": (encoded(Image.fromarray(HALF), "webp", lossless=True), ON_WHITE),
    "transparent": (encoded(Image.fromarray(CLEAR), "png"), 255),
    "transparent grey": (encoded(Image.fromarray(CLEAR).convert("LA"), "png"), 255),
    "a palette with a transparent colour": (encoded(PALETTE, "png", transparency=1), 255),
    "a palette with another one": (encoded(PALETTE, "png", transparency=0), np.array([200, 10, 10])),
    "a transparent colour": (encoded(Image.new("RGB", (9, 6), (1, 2, 3)), "png", transparency=(1, 2, 3)), 255),
    "grey of 16 bits": (encoded(Image.fromarray(GREY), "png"), (GREY >> 8)[..., None]),
    "grey of 16 bits in tiff": (encoded(Image.fromarray(GREY), "tiff"), (GREY >> 8)[..., None]),
    "dark grey of 16 bits": (encoded(Image.fromarray(GREY // 300), "png"), 0),
    "grey of 16 bits, turned": (encoded(Image.fromarray(GREY), "png", exif=turned(3)), (GREY >> 8)[::-1, ::-1, None]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_image_is_read_as_viewers_show_it(name: str, tmp_path: Path) -> None:
    content, expected = SHOWN[name]
    (tmp_path / "image.png").write_bytes(content)
    check_image(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png").permute(1, 2, 0).numpy().astype(int)
    assert image.shape == (6, 9, 3) and np.abs(image - np.broadcast_to(expected, image.shape)).max() <= 1


LARGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
JPEG, PNG, WEBP = encoded(LARGE, "jpeg"), encoded(LARGE, "png"), encoded(LARGE, "webp", lossless=True)
FLOATS = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "tiff")
DAMAGED: dict[str, bytes] = {
    **{f"{kind} cut off at {share}": content[: int(share * len(content))]
       for kind, content in (("jpeg", JPEG), ("png", PNG), ("webp", WEBP))
       for share in (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99)},
    "jpeg without its last byte": JPEG[:-1],
    "webp without its last byte": WEBP[:-1],
    "a text": b"an image",
    "a web page": b"<!DOCTYPE html><html>404</html>",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "zeros": bytes(5000),
    "png with a changed byte": PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:],
    "png of a billion pixels": PNG[:16] + (10**5).to_bytes(4, "big") * 2 + PNG[24:],
    "numbers with fractions": FLOATS,
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_is_named_before_training_begins(name: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    Image.fromarray(PIXELS).save(tmp_path / "fine.png")
    file.write_bytes(DAMAGED[name])
    (tmp_path / "metadata.csv").write_text("file_name,caption\nfine.png,a\nbroken.jpg,b\n")
    for read in (check_image, read_image, lambda _: folder(tmp_path)):
        with pytest.raises(UserError, match=r"broken\.jpg is (not an image that can be read|a git-lfs)") as refused:
            read(file)
        assert len(str(refused.value).splitlines()) == 1


def test_only_files_with_another_end_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras write behind the end of a JPEG: such a file is decoded."""
    decoded: list[Path] = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: (decoded.append(Path(image.filename)), load(image))[1])
    for name, content in {"a.jpg": JPEG, "b.jpg": JPEG + b"camera", "c.webp": WEBP, "d.png": PNG}.items():
        (tmp_path / name).write_bytes(content)
        check_image(tmp_path / name)
    assert {file.name for file in decoded} == {"b.jpg"}


Make = Callable[[Path], object]


def place(name: str) -> Make:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(root / name, "png")

    return make


def link(name: str, target: str) -> Make:
    return lambda root: (root / name).symlink_to(target)


LEFT_OUT: dict[str, tuple[list[Make], str | None]] = {
    "other endings": ([place("a.gif"), place("b.GIF"), place("c.bmp")], "1 .bmp files, 2 .gif files"),
    "phones' images": ([place("a.HEIC"), place("b.avif")], "1 .avif files, 1 .heic files"),
    "videos": ([place("a.mp4")], "1 .mp4 files"),
    "checkpoints of notebooks": ([place(".ipynb_checkpoints/a.png")], "1 hidden folders .ipynb_checkpoints"),
    "hidden folders": ([place(".thumbs/a.png"), place("b/.thumbs/a.png")], "2 hidden folders .thumbs"),
    "macOS' folder": ([place("__MACOSX/a.png")], "1 hidden folders __MACOSX"),
    "macOS' files": ([place("._a.png"), place("._b.jpg")], "2 hidden files"),
    "a link to nothing": ([link("a.png", "nowhere.png")], "1 links to nothing"),
    "a link to a folder": ([place("../other/a.png"), link("linked", "../other")], "1 links to folders"),
    "a link to its own folder": ([link("again", ".")], "1 links to folders"),
    "captions and tables": ([place("0.txt"), place("metadata.csv"), place("a.jsonl"), place("README")], None),
    "hidden files of no images": ([place(".DS_Store"), place(".gitattributes")], None),
    "nothing": ([], None),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_listing_says_what_it_leaves_out(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "images"
    makes, expected = LEFT_OUT[name]
    names = ["0.png", "1.PNG", "below/2.jpg", "below/3.JPeG", "é.webp"]
    for make in (*map(place, names), link("linked.png", "0.png"), *makes):
        make(root)
    for _ in range(2):
        assert image_files(root) == sorted(root / name for name in [*names, "linked.png"])
    printed = capsys.readouterr().out
    assert printed == ("" if expected is None else f"{root}: 6 images; left out: {expected}\n")


def test_a_folder_of_other_files_says_so(tmp_path: Path) -> None:
    place("a.gif")(tmp_path)
    with pytest.raises(UserError, match=r"holds no images but 1 \.gif files: pass"):
        image_files(tmp_path)
    for number in range(30):
        place(f"b.{number}")(tmp_path)
        place(f"{number}.gif")(tmp_path)
    with pytest.raises(UserError, match=r"holds no images but .*31 \.gif files, 23 others: pass"):
        image_files(tmp_path)
