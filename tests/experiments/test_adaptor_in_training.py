"""Training on top of a linear adaptor, from the command's config: what is trained, saved, evaluated and refused."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import config
from helpers.linear import linear_sampler, random_linear

from clockwork.adaptors import Adaptor, Linear, Residual, adaptor_hash, load_adaptor, read_config, save_adaptor
from clockwork.errors import MissingFileError, UserError
from clockwork.experiments.adaptor_in_training import check_base, load_base, make_adaptor
from clockwork.experiments.build import build_sampler
from clockwork.experiments.train import train_adaptor
from clockwork.flops.cost import step_flops, step_parts
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.plan import adaptor_flops

FEW = ["steps=4", "prompts_per_epoch=2", "val_prompts=0"]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, openclip="miniature", device="cpu")


@pytest.fixture(scope="module")
def base(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a linear adaptor for 4 steps at clock 2."""
    folder = tmp_path_factory.mktemp("linear")
    sampler = linear_sampler(teacher)
    assert sampler.adaptor is not None
    save_adaptor(folder, sampler.adaptor, sampler.point)
    return folder


def same_weights(adaptor: Adaptor, folder: Path) -> bool:
    return adaptor_hash(adaptor) == adaptor_hash(load_adaptor(folder)[0])


def test_a_resnet_is_trained_on_top_and_evaluated_as_one_adaptor(teacher: Teacher, base: Path, tmp_path: Path) -> None:
    """On the adaptor's own roll-out, with a loss on the output. The base stays as it was, and its folder may go."""
    words = [*FEW, f"base={base}", "rollout=adaptor", "output_loss=1", "batch_size=4"]
    folder, _ = train_adaptor(config(tmp_path, *words))
    assert folder.parent.name == "resnet_on_linear-stage1-clock2-dpm++-4-g3"
    adaptor, point = load_adaptor(folder)
    assert isinstance(adaptor, Residual) and same_weights(adaptor.base, base)
    assert adaptor.correction.up.weight.any()  # type: ignore[union-attr, operator]
    assert read_config(folder)["base"] == adaptor_hash(adaptor.base)
    sampler = build_sampler(config(tmp_path, *FEW), teacher, {"adaptor": str(folder)})
    assert sampler.point == point and sampler.adaptor_name == "residual" and sampler.adaptor is not None
    noise = teacher.noise([1], 0)
    latents, of_base = (replace(sampler, adaptor=a).latents(["a star"], noise) for a in (sampler.adaptor, adaptor.base))
    assert latents.isfinite().all() and not torch.equal(latents, of_base)
    flops = [adaptor_flops(sampler, part) for part in (adaptor, adaptor.base, adaptor.correction)]
    assert flops[0] == flops[1] + flops[2] and min(flops) > 0
    assert step_flops(sampler)[1].full == step_parts(sampler).high_res.full + flops[0]
    save_adaptor(tmp_path / "other", random_linear(adaptor.dims, (2, 4), 0.02), point)
    with pytest.raises(UserError, match=rf"was begun with base {adaptor_hash(adaptor.base)}, not "):
        train_adaptor(config(tmp_path, *words, f"base={tmp_path / 'other'}"))


def test_the_maps_of_a_linear_adaptor_are_tuned(base: Path, tmp_path: Path) -> None:
    words = [*FEW, "adaptor=linear", f"base={base}", "rollout=adaptor", "output_loss=1", "learning_rate=1e-4"]
    folder, _ = train_adaptor(config(tmp_path, *words))
    tuned, before = load_adaptor(folder)[0], load_adaptor(base)[0]
    assert isinstance(tuned, Linear) and folder.parent.name.startswith("linear_tuned-")
    assert tuned.config() == before.config() and not same_weights(tuned, base)
    assert torch.allclose(tuned.weight, before.weight, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps=6"], "the base was made for steps 4, not 6: train at its operating point, or calibrate another base"),
        (["schedule='2,3,4'"], "the base was made for schedule clock2, not 2,3,4: train"),
        (["cut=stage2"], "this adaptor was trained for teacher miniature .* at cut"),
        (["adaptor=resnet_r_in"], "the resnet adaptor does not read r_out_prev"),
        (["adaptor=identity"], "adaptor=identity has nothing to train"),
        (
            ["adaptor=linear", "base=null"],
            "is fitted in closed form: run `python scripts/calibrate.py .*`; to tune",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    words: list[str], message: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train_adaptor(config(tmp_path, *FEW, f"base={base}", *words))
    assert not list(tmp_path.iterdir())


def test_other_bases_are_refused_or_warned_of(teacher: Teacher, base: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path, *FEW)
    with pytest.raises(MissingFileError, match="is not an adaptor folder"):
        load_base(config(tmp_path, *FEW, f"base={tmp_path}"))
    _, resnet = make_adaptor(cfg, teacher, None)
    point = linear_sampler(teacher).point
    save_adaptor(tmp_path / "resnet", resnet, point, openclip=teacher.text_embedder and teacher.text_embedder.config)
    cfg = config(tmp_path, *FEW, "adaptor=linear", f"base={tmp_path / 'resnet'}")
    with pytest.raises(UserError, match="tunes the maps of a linear adaptor, but"):
        make_adaptor(cfg, teacher, load_base(cfg))
    with pytest.raises(UserError, match="this adaptor was trained for teacher other"):
        check_base(replace(point, teacher="other", teacher_hash="0"), point)
    with pytest.warns(UserWarning, match=r"point it was trained for: guidance 5\.0, not 3\.0$"):
        check_base(point, replace(point, guidance=5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_base(point, point)
