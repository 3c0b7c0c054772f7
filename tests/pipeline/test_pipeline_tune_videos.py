"""`clockwork.tune` where the pipeline makes videos, or where each prompt has an image of its own."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pipelines import make, picture
from helpers.video_pipelines import VIDEOS
from PIL import Image

import clockwork
from clockwork.errors import UserError
from clockwork.flops.counter import count_flops
from clockwork.metrics.similarity import PSNR
from clockwork.pipeline.enable import enabled_hook, get_unet
from clockwork.pipeline.hook import get_hook
from clockwork.pipeline.menu import Menu
from clockwork.reports.menu import write_menu

PROMPTS = ["a circle", "a star", "a square", "a cat", "two rings", "a moon"]
IMAGES = torch.cat([picture(seed) for seed in range(6)])
STEPS = 4
INPUTS: dict[str, tuple[list[str] | None, dict[str, Any]]] = {
    "AnimateDiffPipeline": (PROMPTS, {}),
    "StableVideoDiffusionPipeline": (None, {"image": IMAGES}),
}


@pytest.fixture(scope="module", params=INPUTS)
def tuned(request: pytest.FixtureRequest) -> tuple[str, Any, dict[str, Any], Menu]:
    """Four videos are fitted on, two are measured."""
    pipe, arguments = VIDEOS[request.param]()
    pipe.set_progress_bar_config(disable=True)
    prompts, images = INPUTS[request.param]
    call = {name: value for name, value in arguments.items() if name not in ("prompt", "output_type")}
    call |= {**images, "num_inference_steps": STEPS}
    return request.param, pipe, call, clockwork.tune(pipe, prompts, ["layer1"], ["clock2"], num_measured=2, **call)


def measured(kind: str, pipe: Any, call: dict[str, Any], **more: Any) -> Any:
    """The pipeline's own videos of the inputs that the menu measures."""
    inputs = {"image": IMAGES[-2:]} if INPUTS[kind][0] is None else {"prompt": PROMPTS[-2:]}
    return pipe(**{**call, **inputs, "generator": torch.Generator().manual_seed(0), **more}).frames


def test_frames_are_compared_as_the_pipeline_decodes_them(tuned: tuple[str, Any, dict[str, Any], Menu]) -> None:
    """The PSNR is the mean over all frames of the videos that no adaptor was fitted on."""
    kind, pipe, call, menu = tuned
    assert get_hook(get_unet(pipe)) is None
    full = (measured(kind, pipe, call, output_type="pt") * 255).round()
    assert torch.equal(menu.images.float(), full) and full.shape == (2, 3, 3, 32, 32)
    adaptor = menu.use(pipe, 1)
    assert str(enabled_hook(pipe).denoiser.schedule) == "clock2" and adaptor.steps == (2, 4)
    assert adaptor.point is not None and adaptor.point.frames == 3
    assert adaptor.calibration is not None and adaptor.calibration["prompts"] == 4
    clocked = (measured(kind, pipe, call, output_type="pt") * 255).round()
    clockwork.disable(pipe)
    (entry,) = menu.entries
    assert torch.equal(entry.images.float(), clocked)
    per_frame = PSNR().of_pairs(clocked.flatten(0, 1), full.flatten(0, 1))
    assert len(per_frame) == 6 and entry.psnr == pytest.approx(float(per_frame.mean()), abs=1e-3)
    assert entry.relative_l2 > 0 and entry.feature_error > 0


def test_flops_are_those_of_the_calls_of_one_video(tuned: tuple[str, Any, dict[str, Any], Menu]) -> None:
    """Counted in the UNet's own `forward` while the pipeline generates both videos."""
    kind, pipe, call, menu = tuned
    forward, counts = pipe.unet.forward, []

    def count(*arguments: Any, **options: Any) -> Any:
        counts.append(count_flops(lambda: forward(*arguments, **options)))
        return forward(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipe.unet, "forward", count)
        measured(kind, pipe, call, output_type="latent")
    assert len(counts) == STEPS
    (entry,) = menu.entries
    assert 2 * entry.flops_without.full == sum(count.full for count in counts) > 2 * entry.flops.full
    assert 2 * entry.flops_without.paper == sum(count.paper for count in counts) > 2 * entry.flops.paper


def test_a_budget_is_the_time_of_a_video(tuned: tuple[str, Any, dict[str, Any], Menu]) -> None:
    menu = tuned[-1]
    assert menu.prompts == (tuple(PROMPTS[-2:]) if tuned[0] == "AnimateDiffPipeline" else ("image 5", "image 6"))
    assert 0 < menu.entries[0].time_share == menu.entries[0].milliseconds / menu.entries[0].milliseconds_without


def test_the_page_shows_moving_pictures(tuned: tuple[str, Any, dict[str, Any], Menu], tmp_path: Path) -> None:
    menu = tuned[-1]
    page = write_menu(menu, tmp_path / "menu.html").read_text(encoding="utf-8")
    urls = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    videos = [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls]
    assert [video.n_frames for video in videos] == [3] * 4  # type: ignore[attr-defined]
    videos[0].seek(2)
    assert torch.equal(torch.tensor(list(videos[0].convert("RGB").getdata())).T, menu.images[0, 2].flatten(1))


def test_a_menu_is_not_made_of_what_is_wrong() -> None:
    animated, images_to_videos = (VIDEOS[kind]()[0] for kind in INPUTS)
    size = {"height": 32, "width": 32, "num_inference_steps": 2}

    def refused(message: str, pipe: Any, prompts: list[str] | None = None, **call: Any) -> None:
        with pytest.raises(UserError, match=message):
            clockwork.tune(pipe, prompts, num_measured=2, **{**size, **call})
        assert get_hook(get_unet(pipe)) is None

    refused("makes a video of each image: pass image, a list of some dozens", images_to_videos)
    refused("makes a video of each image", images_to_videos, image=Image.new("RGB", (32, 32)))
    refused("2 of 2 images cannot be measured: leave some to fit on", images_to_videos, image=IMAGES[:2])
    refused("takes no prompts: pass None", images_to_videos, PROMPTS, image=IMAGES)
    refused("num_frames=33 is more than the 32 frames that the motion modules know", animated, PROMPTS, num_frames=33)
    refused("pass seed, not generator", animated, PROMPTS, generator=torch.Generator())
    with pytest.raises(UserError, match="num_frames=33 is more than the 32 frames"):
        clockwork.calibrate(animated, PROMPTS, num_frames=33, **size)


def test_each_prompt_is_measured_with_its_own_image() -> None:
    """Those that are measured with the last images, in the order of the prompts."""
    pipe, _ = make("StableDiffusionImg2ImgPipeline")
    pipe.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"num_inference_steps": 4, "strength": 0.9}
    menu = clockwork.tune(pipe, PROMPTS, ["layer1"], ["clock2"], num_measured=2, runs=1, image=IMAGES, **call)
    images = pipe(PROMPTS[-2:], image=IMAGES[-2:], generator=torch.Generator().manual_seed(0), output_type="pt", **call)
    torch.testing.assert_close(menu.images.float(), (images.images * 255).round(), atol=1, rtol=0)
