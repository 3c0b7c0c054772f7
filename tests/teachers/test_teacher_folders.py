"""Pipeline folders that are incomplete, broken or of another model: one sentence before any weights are loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from helpers.commands import answers_in_one_sentence, run
from safetensors.torch import load_file, save_file

from clockwork.miniature import WEIGHTS
from clockwork.teachers import load_teacher
from clockwork.teachers.architectures import architecture

TEXT, VAE, UNET = (
    Path("text_encoder/model.safetensors"),
    Path("vae/diffusion_pytorch_model.safetensors"),
    Path("unet/diffusion_pytorch_model.safetensors"),
)


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()


def configure(part: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def cut_off(file: Path) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-100])


def without(file: Path, start: str) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        weights = load_file(folder / file)
        save_file({name: weight for name, weight in weights.items() if not name.startswith(start)}, folder / file)

    return drop


def sharded_without_its_shard(folder: Path) -> None:
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def of_architecture(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "unet" / "config.json").write_text(json.dumps(architecture(name)))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no autoencoder": (remove("vae"), "it has no vae"),
    "no text encoder": (remove("text_encoder"), "it has no text_encoder"),
    "no tokenizer": (remove("tokenizer"), "it has no tokenizer"),
    "no scheduler": (remove("scheduler"), "it has no scheduler"),
    "no weights of the autoencoder": (remove(str(VAE)), "vae has no weights"),
    "no weights of the text encoder": (remove(str(TEXT)), "text_encoder has no weights"),
    "no config of the text encoder": (remove("text_encoder/config.json"), "no valid config.json of a CLIPTextModel"),
    "no config of the autoencoder": (remove("vae/config.json"), "no valid config.json of a AutoencoderKL"),
    "a download cut off": (cut_off(UNET), "not a complete safetensors file"),
    "another autoencoder's weights": (configure("vae", block_out_channels=[8, 16]), "vae are of another model"),
    "another text encoder's weights": (configure("text_encoder", intermediate_size=99), "text_encoder are of another"),
    "fewer text layers": (without(TEXT, "encoder.layers.0"), "text_encoder are of another model"),
    "another text encoder": (configure("text_encoder", hidden_size=96), "have width 96, but its UNet"),
    "another autoencoder": (
        configure("vae", latent_channels=16),
        "4 output channels, but its autoencoder has 16",
    ),
    "an inpainting UNet": (configure("unet", in_channels=9), "has 9 input"),
    "another UNet's weights": (configure("unet", layers_per_block=3), "unet are of another model"),
    "a shard missing": (sharded_without_its_shard, "00001-of-00002.safetensors, which its index lists"),
    "Stable Diffusion v1.5 for the miniature": (of_architecture("sd15"), "pass teacher=sd15"),
    "Stable Diffusion v2.1 for the miniature": (of_architecture("sd21"), "pass teacher=sd21"),
    "Stable Diffusion XL for the miniature": (of_architecture("sdxl"), "pass teacher=sdxl"),
    "a UNet of no known family": (configure("unet", cross_attention_dim=7), "whose cross_attention_dim is 7"),
}


FAMILIES = [("sd15", "sdxl", "2048"), ("sdxl", "sd15", "768"), ("sd21", "sd15", "768")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WEIGHTS / "miniature", tmp_path / "copy"))


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded")

    for cls in (StableDiffusionPipeline, StableDiffusionXLPipeline):
        monkeypatch.setattr(cls, "from_pretrained", from_pretrained)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_a_sentence(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    change, said = BROKEN[name]
    change(folder)
    (output := tmp_path / "output").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "train", "prompts.count=100", f"teacher.path={folder}", f"output={output}")
    answers_in_one_sentence(stopped.value.code, capsys, said, output)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(
    ("asked", "found", "said"), [("sd15", "sdxl", "2048"), ("sdxl", "sd15", "768"), ("sd21", "sd15", "768")]
)
def test_a_folder_of_another_family_names_the_teacher_to_pass(
    asked: str, found: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_architecture(found)(folder)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "drift", f"teacher={asked}", f"teacher.path={folder}", "prompts=miniature")
    assert stopped.value.code == 2
    assert (
        f"reads text features of width {said}" in (error := capsys.readouterr().err)
        and f"pass teacher={found}" in error
    )


def test_older_names_of_weights_are_no_other_model(folder: Path) -> None:
    """Hub folders call the text encoder's weights `text_model.…`, and the autoencoder's attention `query`."""
    before = load_teacher(str(folder), cross_attention_dim=64).identity
    save_file({f"text_model.{name}": weight for name, weight in load_file(folder / TEXT).items()}, folder / TEXT)
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = load_file(folder / VAE)
    for new, old in older.items():
        weights = {name.replace(new, old): weight for name, weight in weights.items()}
    save_file(weights, folder / VAE)
    assert load_teacher(str(folder), cross_attention_dim=64).identity == before
