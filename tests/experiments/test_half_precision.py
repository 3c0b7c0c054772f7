"""Every command once with the teacher in half precision, on the CPU: `precision=bfloat16`, at 16 × 16 pixels.

`test_training.py` and `test_tuning.py` have resuming and every objective.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.commands import QUICK_TRAINING, run
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import mse_loss

from clockwork.adaptors import load_adaptor
from clockwork.data.image_files import read_image
from clockwork.evaluation.rows import image_folder, read_rows
from clockwork.miniature.prompts import scene_prompts
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.split import HighResFeatures, SplitUNet

SMALL = ["teacher.resolution=16", "device=cpu"]
HALF = ["precision=bfloat16", *SMALL]
POINT = ["schedule=clock2", "steps=2", *HALF]
TINY = [*QUICK_TRAINING, "prompts_per_epoch=4", "batch_size=4", "val_prompts=2"]
PROMPT = "prompt=a large red circle in the center on a plain blue background"


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """Of what the UNet's first layers get in all roll-outs, pipelines and examples of a command."""
    seen: set[torch.dtype] = set()
    high_in = SplitUNet.high_in

    def look(self: SplitUNet, embedded: EmbeddedInputs) -> HighResFeatures:
        if not embedded.sample.is_meta:
            seen.update((embedded.sample.dtype, self.dtype))
        return high_in(self, embedded)

    monkeypatch.setattr(SplitUNet, "high_in", look)
    return seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adaptor's folder, trained beside a teacher in bfloat16, with sample images after its epoch."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "train", *TINY, *POINT, "samples_every=1", f"output={folder}")
    return next(folder.rglob("adaptor"))


def weights(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / "adaptor.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * mse_loss(a.float() / 255, b.float() / 255).log10())


def test_training_with_sample_images(trained: Path, dtypes: set[torch.dtype]) -> None:
    found = weights(trained)
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in found.values()) and found["up.weight"].any()
    grid = read_image(trained.parent / "samples" / "epoch0001.png")
    assert grid.float().std() > 10


def test_training_on_noised_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]) -> None:
    run(monkeypatch, "train", *TINY, *POINT, "data=noised", "images.count=100", "samples_every=0", f"output={tmp_path}")
    adaptor, _ = load_adaptor(next(tmp_path.rglob("adaptor")))
    assert adaptor.dtype == torch.float32 and all(weight.isfinite().all() for weight in adaptor.parameters())
    assert dtypes == {torch.bfloat16}


def test_an_evaluation(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    dtypes: set[torch.dtype],
) -> None:
    """Images differ from those in float32, a little; rows say which precision they are of; scored again, by another
    command, the images get the row's score."""
    scores = ["metrics.reference=100", f"metrics.cache={tmp_path}", "metrics.latency=false"]
    few = ["prompts.count=4", "batch_size=4", "steps=2", *scores]
    points = f"{{schedule: full}},{{adaptor: identity}},{{adaptor: {trained}}}"
    for precision, swept in (("bfloat16", points), ("float32", points.rpartition(",")[0])):
        dtypes.clear()
        run(monkeypatch, "evaluate", *few, *SMALL, f"points=[{swept}]", f"precision={precision}", f"output={tmp_path}")
        assert {str(dtype) for dtype in dtypes} == {f"torch.{precision}"}
    rows = read_rows(tmp_path / "rows.jsonl")
    kinds = [("none", "bfloat16"), ("identity", "bfloat16"), ("resnet", "bfloat16")]
    assert [(row["adaptor"], row["precision"]) for row in rows] == [
        *kinds,
        ("none", "float32"),
        ("identity", "float32"),
    ]
    assert all(row["metrics"]["fid_miniature"] > 0 and row["metrics"]["clip_score_miniature"] > 0 for row in rows)
    images = [torch.stack(list(map(read_image, sorted(image_folder(tmp_path, row).glob("*.png"))))) for row in rows]
    assert images[0].shape == (4, 3, 16, 16)
    for half, single in zip(images[:2], images[3:], strict=True):
        assert 25 < psnr(half, single) < 70
    folder = image_folder(tmp_path, rows[0])
    for prompt in scene_prompts("test", 4):
        (folder / f"{prompt.id}.txt").write_text(prompt.text)
    run(monkeypatch, "score", f"images.path={folder}", "resolution=16", "device=cpu", *scores)
    scored = re.search(r"^clip_score_miniature (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert scored is not None and float(scored[1]) == pytest.approx(
        rows[0]["metrics"]["clip_score_miniature"], abs=1e-4
    )


def test_a_pipelines_images(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]
) -> None:
    for name, adaptor in (
        ("bfloat16", ["adaptor=folder", f"adaptor.path={trained}"]),
        ("float32", ["adaptor=identity"]),
    ):
        place = [f"output={tmp_path}/{name}.png", f"precision={name}", *SMALL]
        run(monkeypatch, "generate", PROMPT, *adaptor, "steps=2", *place)
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert report[0]["adaptor_steps"] == 1
    assert torch.bfloat16 in dtypes
    without = [read_image(tmp_path / f"{name}.png")[:, :, :64] for name in ("bfloat16", "float32")]  # left half
    assert 25 < psnr(*without) < 70


def test_an_edit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]) -> None:
    words = ["image=docs/grid.png", "source=a circle", "target=a blue circle", "edit_metrics=none"]
    few = ["inversion.steps=2", "generation.steps=2", *HALF]
    run(monkeypatch, "edit", *words, *few, f"output={tmp_path}")
    source, edit = (Image.open(tmp_path / f"{name}.png").convert("RGB") for name in ("source", "identity-clock2"))
    assert source.size == edit.size and source.tobytes() != edit.tobytes()
    assert dtypes == {torch.bfloat16}


def test_a_benchmark_of_edits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]) -> None:
    few = ["benchmark.count=1", "inversion.steps=2", "generation.steps=2", *HALF]
    run(monkeypatch, "edit", "+benchmark=scenes", "points=[{schedule: clock2}]", *few, f"output={tmp_path}")
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert row["precision"] == "bfloat16" and row["generation_schedule"] == "clock2"
    assert dtypes == {torch.bfloat16}


def test_a_perturbation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]) -> None:
    few = ["count=2", "grids=1", "steps=2", "from_steps=[1]", *HALF]
    run(monkeypatch, "perturb", *few, f"output={tmp_path}")
    lines = (tmp_path / "perturbation.csv").read_text().splitlines()
    assert len(lines) > 2 and all(0 < float(line.split(",")[-1]) < 1 for line in lines[1:])
    assert dtypes == {torch.bfloat16}


def test_drift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]) -> None:
    run(monkeypatch, "drift", "count=2", "steps=3", *HALF, f"output={tmp_path}")
    lines = (tmp_path / "drift.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 2 * 2  # cuts, steps from the second, prompts
    assert all(0 < float(line.split(",")[3]) < 2 for line in lines[1:])
    assert dtypes == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")  # diffusers asks for torch's version in a layer
def test_a_benchmark_of_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[torch.dtype]) -> None:
    """diffusers' pipeline, which receives latents in the UNet's precision, other methods, and compiled steps."""
    few = ["compile=[{backend: eager}]", "batch=1", "rounds=1", "rollout_rounds=1", "work_rounds=0"]  # work is float32
    run(monkeypatch, "bench", *POINT, *few, f"output={tmp_path / 'timings.json'}")
    timings = json.loads((tmp_path / "timings.json").read_text())
    assert "bfloat16" in json.dumps(timings) and dtypes == {torch.bfloat16}
