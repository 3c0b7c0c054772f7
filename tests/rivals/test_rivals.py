"""Rivals in the sampling loop: against their packages, the identity adaptor, and the teacher where nothing changes."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluation import evaluation_of
from torch import Tensor

from clockwork.adaptors import Identity, Taylor
from clockwork.errors import UserError
from clockwork.evaluation.rows import read_rows
from clockwork.flops.cost import image_flops
from clockwork.flops.measured import measured_flops
from clockwork.miniature.prompts import scene_prompts
from clockwork.rivals.base import Rival, shared_copy
from clockwork.rivals.broadcast import AttentionBroadcast
from clockwork.rivals.deepcache import DeepCache
from clockwork.rivals.fastercache import FasterCache
from clockwork.rivals.tome import ToMe
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet

CAPTIONS = ["a large red circle in the center on a plain blue background", "a green star on a striped white background"]
RIVALS: dict[str, Rival] = {
    "deepcache2": DeepCache(2),
    "tome2": ToMe(0.5, max_downsample=2),
    "pab": AttentionBroadcast(2, 6),
    "fastercache": FasterCache(),
}


@pytest.fixture(scope="module")
def full() -> Sampler:
    teacher = load_teacher("miniature", guidance=3.0)
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule(), "dpm++", 8, 3.0)


def with_rival(full: Sampler, rival: Rival, **more: Any) -> Sampler:
    return replace(full, rival=rival, adaptor_name=type(rival).__name__.lower(), **more)


def identity(full: Sampler, branch: int, interval: int) -> Sampler:
    split = SplitUNet(full.teacher.unet, Cut(branch, branch + 1))
    return replace(full, split=split, adaptor=Identity(), schedule=Schedule.parse(f"clock{interval}"))


def latents(sampler: Sampler, ids: tuple[int, ...] = (0, 1)) -> Tensor:
    return sampler.latents([CAPTIONS[i] for i in ids], sampler.teacher.noise(list(ids)))


@pytest.mark.parametrize(("branch", "interval"), [(0, 2), (0, 3), (1, 2)])
@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
def test_deepcache_is_its_packages_own_and_the_identity(full: Sampler, branch: int, interval: int, solver: str) -> None:
    """Bit for bit: its helper on diffusers' pipeline, the rival, and the identity adaptor at the matching cut."""
    from DeepCache import DeepCacheSDHelper

    point = replace(full, solver=solver, steps=7)
    ours = latents(with_rival(point, DeepCache(interval, branch)))
    assert torch.equal(ours, latents(identity(point, branch, interval)))
    pipe = load_teacher("miniature", guidance=3.0).pipe
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_solver(solver, full.teacher.noise_schedule)
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    call = {"num_inference_steps": 7, "guidance_scale": 3.0, "output_type": "latent"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pipe(CAPTIONS, latents=full.teacher.noise([0, 1]), **call).images
    assert torch.equal(ours, theirs) and not torch.equal(ours, latents(point))


NOTHING: dict[str, Rival] = {
    "every step is full": DeepCache(interval=1),
    "no token is merged": ToMe(ratio=0),
    "no attention at this resolution": ToMe(ratio=0.5, max_downsample=1),
    "attention on every step": AttentionBroadcast(spatial=1, cross=1),
    "no timestep to repeat attention at": AttentionBroadcast(spatial=2, cross=2, above=500, below=500),
    "both halves on every step": FasterCache(interval=1),
    "no timestep to leave out a half at": FasterCache(below=-1),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_rival_that_changes_nothing_is_the_teacher(full: Sampler, name: str) -> None:
    assert torch.equal(latents(with_rival(full, NOTHING[name])), latents(full))


def test_rivals_do_not_affect_each_other_or_the_teacher(full: Sampler) -> None:
    """Each of them alone, and then in turn with other batches between, on one teacher that never changes."""
    full = replace(full, steps=5)
    plain, weights = latents(full), {k: v.clone() for k, v in full.teacher.unet.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in full.teacher.unet.named_modules()}
    classes = {name: type(module) for name, module in full.teacher.unet.named_modules()}
    alone = {name: latents(with_rival(full, rival)) for name, rival in RIVALS.items()}
    samplers = {name: with_rival(full, rival) for name, rival in RIVALS.items()}
    for ids in ((0,), (0, 1)):
        results = {name: latents(sampler, ids) for name, sampler in samplers.items()}
    assert all(torch.equal(results[name], alone[name]) for name in RIVALS)
    assert all(not torch.equal(one, plain) for one in alone.values())
    assert torch.equal(latents(full), plain)
    unet = full.teacher.unet
    assert all(torch.equal(value, weights[key]) for key, value in unet.state_dict().items())
    assert {name: set(vars(module)) for name, module in unet.named_modules()} == attributes
    assert {name: type(module) for name, module in unet.named_modules()} == classes


def test_a_copy_shares_the_weights(full: Sampler) -> None:
    unet = full.teacher.unet
    copied = shared_copy(unet)
    assert all(one is two for one, two in zip(unet.parameters(), copied.parameters(), strict=True))
    assert not {id(module) for module in unet.modules()} & {id(module) for module in copied.modules()}


def test_measured_flops_are_those_of_the_formula_where_there_is_one(full: Sampler) -> None:
    """Of the teacher, of adaptors, and of DeepCache, which runs what the identity runs at its cut."""
    short = replace(full, steps=2)
    clock = replace(short, adaptor=Identity(), schedule=Schedule.parse("clock2"))
    for sampler in (short, clock, replace(clock, adaptor=Taylor()), replace(short, guidance=1.0)):
        assert measured_flops(sampler) == image_flops(sampler)
    for branch, interval in ((0, 2), (1, 2)):
        rival = with_rival(short, DeepCache(interval, branch))
        assert image_flops(rival) == image_flops(identity(short, branch, interval))


def test_flops_of_rivals_lie_between_those_of_the_identity_and_of_the_teacher(full: Sampler) -> None:
    full = replace(full, steps=4)
    teacher, least = image_flops(full), image_flops(identity(full, 0, 4))
    flops = {name: image_flops(with_rival(full, rival)).full for name, rival in RIVALS.items()}
    assert all(least.full < count < teacher.full for count in flops.values())
    # Two of the 4 steps leave out one of the two halves: those at timesteps below 641.
    assert flops["fastercache"] * 8 == teacher.full * 6


def test_a_row_of_a_rival_has_the_same_metrics(full: Sampler, tmp_path: Path) -> None:
    evaluation, full = evaluation_of(scene_prompts("test", 2), tmp_path), replace(full, steps=2)
    before = evaluation.images_digest(full)
    points = [full, with_rival(full, DeepCache(2)), with_rival(full, ToMe(0.5, 2)), identity(full, 0, 2)]
    for point in points:
        evaluation.evaluate(point)
    teacher, deepcache, tome, clock = read_rows(evaluation.rows)
    assert teacher["images_digest"] == before and "psnr" not in teacher["metrics"]
    assert deepcache["metrics"] == clock["metrics"] and set(tome["metrics"]) == {"psnr", "ssim"}
    assert deepcache["teacher_digest"] == tome["teacher_digest"] == teacher["digest"]
    assert (deepcache["adaptor"], deepcache["schedule"], deepcache["tflops_full"]) == (
        "deepcache",
        "full",
        clock["tflops_full"],
    )
    digests = {evaluation.images_digest(with_rival(full, rival)) for rival in [*RIVALS.values(), DeepCache(3)]}
    assert len(digests) == 5 and before not in digests


def compiled(full: Sampler) -> None:
    teacher = load_teacher("miniature", guidance=3.0, compile=True)
    with_rival(full, DeepCache(2), teacher=teacher, split=SplitUNet(teacher.unet))


MISTAKES: dict[str, tuple[Callable[[Sampler], Any], str]] = {
    "no such interval": (lambda full: DeepCache(0), "at least 1"),
    "no such branch": (lambda full: with_rival(full, DeepCache(2, branch=2)), "not a layer of this UNet"),
    "a branch too deep": (lambda full: with_rival(full, DeepCache(2, branch=12)), "not a layer of this UNet"),
    "too many tokens": (lambda full: ToMe(ratio=0.9), "from 0 to 0.75"),
    "no such level": (lambda full: ToMe(max_downsample=3), "1, 2, 4 or 8"),
    "nothing to repeat": (lambda full: AttentionBroadcast(None, None), "set one of them"),
    "guidance off": (lambda full: with_rival(full, FasterCache(), guidance=1.0), "guidance above 1"),
    "compiled": (compiled, "teacher.compile=false"),
    "an adaptor, too": (lambda full: replace(identity(full, 0, 2), rival=DeepCache(2)), "use adaptor=none"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(full: Sampler, name: str) -> None:
    make, expected = MISTAKES[name]
    with pytest.raises(UserError, match=expected):
        make(full)


@pytest.mark.parametrize(("rival", "package"), [(DeepCache, "DeepCache"), (ToMe, "tomesd")])
def test_a_missing_package_is_one_sentence(rival: type[Rival], package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package} is not installed: pip install "clockwork-diffusion\[rivals\]"'):
        rival()


def test_a_unet_without_a_middle_block_is_refused(full: Sampler) -> None:
    teacher: Teacher = load_teacher("miniature", guidance=3.0)
    teacher.unet.mid_block = None
    with pytest.raises(UserError, match="middle block"):
        Sampler(teacher, SplitUNet(teacher.unet), Schedule(), "dpm++", 8, 3.0, rival=DeepCache(2))
