"""One device and one precision for a run, and what roll-outs, adaptors and teachers make of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from clockwork.adaptors import NO_HISTORY, History, ResNet
from clockwork.errors import UserError
from clockwork.io.device import choose_device, choose_precision, lightning_device
from clockwork.miniature import WEIGHTS
from clockwork.miniature.teacher import small_clip
from clockwork.sampling.denoisers import ClockworkDenoiser, FullDenoiser
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.guidance import cfg_batch
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.sampling.steps import AdaptorInputs, estimate
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.teachers import text_embedder as embedders
from clockwork.teachers.autoencoder import slice_size
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.split import SplitUNet

CAPTIONS = ["a large red circle on a plain blue background", "a small green ring on a plain black background"]


@pytest.fixture(scope="module")
def half() -> Teacher:
    return load_teacher("miniature_sd", guidance=3.0, device="cpu", precision="bfloat16")


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu0", "not a torch device"), ("cuda", "0 CUDA GPUs"), ("cuda:3", "0 CUDA GPUs"), ("mps", "no MPS device")],
)
def test_a_device_that_is_not_here_is_refused(device: str, message: str) -> None:
    assert not torch.cuda.is_available() and not torch.backends.mps.is_available(), "written for a machine without one"
    with pytest.raises(UserError, match=message):
        choose_device(device)


@pytest.mark.parametrize("precision", ["half", "float8", "64", "bf16", ""])
def test_an_unknown_precision_is_refused(precision: str) -> None:
    with pytest.raises(UserError, match="use auto, float32, bfloat16, float16"):
        choose_precision(precision, torch.device("cpu"))


def test_auto_is_half_precision_on_a_gpu_only() -> None:
    names = {device: choose_precision("auto", torch.device(device)) for device in ("cpu", "mps", "cuda:1")}
    assert names == {"cpu": torch.float32, "mps": torch.float32, "cuda:1": torch.float16}


def test_lightning_gets_the_teachers_device() -> None:
    assert lightning_device(torch.device("cpu")) == {"accelerator": "cpu", "devices": 1}
    assert lightning_device(torch.device("mps")) == {"accelerator": "mps", "devices": 1}
    assert lightning_device(torch.device("cuda", 1)) == {"accelerator": "cuda", "devices": [1]}
    assert lightning_device(torch.device("cuda", 0), 2) == {"accelerator": "cuda", "devices": 2}


def test_a_path_is_never_taken_for_a_shipped_teacher(tmp_path: Path) -> None:
    """`WEIGHTS / path` with an absolute path is that path: SD v1.5 from a folder used to get the small CLIP."""
    folder = tmp_path / "miniature"
    folder.symlink_to(WEIGHTS / "miniature")
    shipped = load_teacher("miniature", device="cpu")
    elsewhere = load_teacher(str(folder), device="cpu")
    named = load_teacher(str(folder), openclip="ViT-g-14", openclip_tag="laion2b_s34b_b88k", device="cpu")
    assert shipped.text_embedder is not None and shipped.text_embedder.config["name"] == "miniature"
    assert elsewhere.text_embedder is None
    assert (
        named.text_embedder is not None
        and named.text_embedder.config["name"] == "ViT-g-14"
        and named.text_width == 1024
    )


def test_a_pipeline_is_loaded_in_its_precision(half: Teacher) -> None:
    parts = (half.unet, half.pipe.vae, half.pipe.text_encoder)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.bfloat16}
    assert half.precision == "bfloat16" and half.identity["precision"] == "bfloat16"


def test_a_full_pass_in_half_precision_equals_diffusers(half: Teacher) -> None:
    condition, noise = half.encode(CAPTIONS), half.noise([0, 1])
    t = torch.tensor(500)
    ours = FullDenoiser(SplitUNet(half.unet))(noise, t, condition, 1, NO_HISTORY).output
    assert noise.dtype == torch.float32 and ours.dtype == torch.bfloat16
    assert torch.equal(ours, half.unet(noise.bfloat16(), t, condition.prompt_embeds).sample)


def test_latents_and_the_solvers_state_stay_in_float32(half: Teacher) -> None:
    """By hand: the UNet in bfloat16, guidance and DPM++ in float32 on its outputs."""
    solver = make_solver("dpm++", half.noise_schedule)
    condition, negative = half.conditions(CAPTIONS, 3.0)
    records = list(rollout(FullDenoiser(SplitUNet(half.unet)), solver, 2, half.noise([0, 1]), condition, negative, 3.0))
    assert all(record.latents.dtype == torch.float32 for record in records)
    assert negative is not None
    solver.set_timesteps(2)
    latents, tokens = half.noise([0, 1]), torch.cat([negative.prompt_embeds.expand(2, -1, -1), condition.prompt_embeds])
    for t in solver.timesteps:
        with torch.no_grad():
            without, prompted = half.unet(torch.cat([latents] * 2).bfloat16(), t, tokens).sample.float().chunk(2)
        latents = solver.step(without + 3.0 * (prompted - without), t, latents).prev_sample
    assert torch.equal(records[-1].latents, latents)


def test_an_adaptor_in_float32_serves_a_teacher_in_half_precision(half: Teacher) -> None:
    torch.manual_seed(0)
    adaptor = ResNet(feature_dims(half, "stage1"), width=16, blocks=1).eval()
    denoiser = ClockworkDenoiser(SplitUNet(half.unet), adaptor, Schedule.parse("clock2"))
    conditions = half.conditions(CAPTIONS, 3.0)
    records = list(
        rollout(denoiser, make_solver("dpm++", half.noise_schedule), 2, half.noise([0, 1]), *conditions, 3.0)
    )
    assert [record.denoised.r_out.dtype for record in records] == [torch.bfloat16] * 2
    assert {p.dtype for p in adaptor.parameters()} == {torch.float32}, "the adaptor itself is left as it was"
    first, second = records[0].denoised, records[1].denoised
    text = torch.cat(
        [c.text_emb.expand(2, -1) for c in reversed(conditions) if c is not None and c.text_emb is not None]
    )
    with torch.no_grad():
        expected = adaptor(second.r_in.float(), first.r_out.float(), second.t_emb.float().expand(4, -1), text)
        both = replace(cfg_batch(*conditions), text_emb=text)
        again = estimate(
            adaptor, second.r_in, second.t_emb, AdaptorInputs(both.text_emb, both.branch, 2, History(first.r_out))
        )
    assert torch.equal(second.r_out, expected.bfloat16()) and torch.equal(again, second.r_out)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_never_become_an_image(half: Teacher, bad: float) -> None:
    latents = half.noise([0, 1, 2])
    latents[1, 0, 0, 0] = bad
    with pytest.raises(UserError, match="not finite"):
        half.decode(latents)


def test_decoding_and_encoding_in_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_teacher("miniature_sd", device="cpu")
    latents = teacher.noise(list(range(5)))
    images = teacher.decode(latents)
    encoded = teacher.encode_images(images)
    monkeypatch.setattr("clockwork.teachers.autoencoder.slice_size", lambda height, width: 2)
    assert torch.equal(images, teacher.decode(latents))
    assert torch.allclose(encoded, teacher.encode_images(images), atol=1e-5)  # other batch, other order of sums


@pytest.mark.parametrize(("side", "at_once"), [(512, 4), (256, 16), (768, 1), (1024, 1)])
def test_the_decoders_slice_follows_the_resolution(side: int, at_once: int) -> None:
    assert slice_size(side, side) == at_once


def test_the_text_embedder_is_one_tower_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    loads, create = [], open_clip.create_model

    def counted(name: str, **options: object) -> nn.Module:
        loads.append(name)
        model: nn.Module = create(name, **options)
        return model

    monkeypatch.setattr(open_clip, "create_model", counted)
    embedders._load.cache_clear()
    devices = ("cpu", torch.device("cpu"), "cpu:0")
    embedded = [small_clip(device, text_only=True).encode_text(CAPTIONS) for device in devices]
    whole = small_clip()
    assert len(loads) == 1 and not hasattr(small_clip(text_only=True).module, "visual")
    assert torch.equal(whole.encode_text(CAPTIONS), embedded[0]) and torch.equal(embedded[0], embedded[2])
    assert len(loads) == 2 and hasattr(whole.module, "visual")


@pytest.mark.parametrize(("name", "width"), [("ViT-g-14", 1024), ("ViT-B-32", 512), (small_clip().name, 96)])
def test_a_text_embedders_width_is_known_without_loading_it(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedders, "_load", lambda *_: pytest.fail("the model was loaded"))
    assert OpenCLIP(name, "some tag").width == width


def test_identity_tells_teachers_apart(half: Teacher) -> None:
    single = load_teacher("miniature_sd", device="cpu")
    assert half.identity != single.identity
    assert {k: v for k, v in half.identity.items() if k == "noise_schedule"} == {
        "noise_schedule": single.identity["noise_schedule"]
    }
    other = load_teacher("miniature_sd", device="cpu")
    with torch.no_grad():
        next(other.pipe.vae.parameters()).add_(1.0)
    assert {k for k in single.identity if single.identity[k] != other.identity[k]} == {"vae"}
