"""SD v1.5 and SDXL with few layers on a GPU that is not there (`helpers/fake_gpu.py`): in float16 on `cuda:0`.

Every tensor on the wrong device or in the wrong precision raises, as the last two tests show.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from helpers.fake_gpu import GPU
from helpers.real_size import CAPTIONS, RealSize, few_layers, switched_on
from torch import Tensor

import clockwork
from clockwork.adaptors import Adaptor, run_adaptor
from clockwork.adaptors.resnet import ResNet
from clockwork.analysis.perturbation import Perturbation
from clockwork.editing.edit import Editor
from clockwork.pipeline.compare import compare
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling import steps
from clockwork.sampling.solvers import make_solver
from clockwork.sampling.steps import AdaptorInputs
from clockwork.schedule import Schedule

# The hook tells one roll-out's timesteps from another's by a storage's address; here all are 0.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


@pytest.fixture(params=["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def real(request: pytest.FixtureRequest) -> Iterator[RealSize]:
    with switched_on(few_layers(request.param)) as built:
        yield built


def test_a_roll_out_beside_training(real: RealSize) -> None:
    """The adaptor in float32. Latents stay in float32, and the host never waits for the GPU."""
    for solver in ("dpm++", "ddim", "pndm") if real.teacher.name == "sd15" else ("dpm++",):
        latents = replace(real.sampler, solver=solver).latents(CAPTIONS, real.noise)
        assert (latents.device, latents.dtype, latents.shape) == (GPU, torch.float32, real.noise.shape)
    assert real.gpu.host_reads == []


def test_an_evaluations_roll_out_and_images(real: RealSize) -> None:
    """The adaptor in the teacher's precision, as `build_sampler` loads it; decoding waits once for each slice."""
    teacher = real.teacher
    half = ResNet(real.dims).to(teacher.device, teacher.unet.dtype)
    latents = replace(real.sampler, adaptor=half).latents(CAPTIONS, real.noise)
    assert real.gpu.host_reads == []
    images = teacher.decode(latents)
    side = teacher.resolution
    assert images.shape == (2, 3, side, side) and images.dtype == torch.uint8 and images.device.type == "cpu"


def test_a_pipeline(real: RealSize, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `scripts/generate.py` calls it: without Clockwork and with it, SDXL's autoencoder in float32."""
    monkeypatch.setattr(
        "clockwork.pipeline.compare.summarise", enabled_hook
    )  # not its FLOPs: they are counted elsewhere
    pipe, adaptor = real.teacher.pipe, ResNet(real.dims, inputs=("r_in", "r_out_prev", "t_emb"))
    pipe.scheduler = make_solver("dpm++", real.teacher.noise_schedule)
    clockwork.enable(pipe, "clock2", adaptor, "stage1")
    try:
        pair = compare(real.teacher, "a red circle", 0, {"num_inference_steps": 2})
    finally:
        clockwork.disable(pipe)
    assert pair.images.shape == (2, 3, *[real.teacher.resolution] * 2)
    assert [step.full for step in pair.summary.log.steps] == [True, False]
    assert adaptor.dtype == torch.float32  # the pipeline runs a copy in the UNet's precision


def test_edits(real: RealSize) -> None:
    generation = replace(real.sampler, solver="ddim")
    inversion = replace(generation, solver="ddim_inverse", guidance=1.0)
    editor = Editor(inversion, generation)
    image = torch.zeros(3, *[real.teacher.resolution] * 2, dtype=torch.uint8)
    latents = editor.invert(image, "a red circle")
    assert {(x.device, x.dtype) for x in latents.values()} == {(GPU, torch.float32)}
    for one in (editor, replace(editor, replay=True)):
        assert one.edit(latents, "a blue circle").shape == image.shape


def test_a_perturbation(real: RealSize) -> None:
    teacher = replace(real.sampler, adaptor=None, schedule=Schedule())
    one = Perturbation.each(teacher, "up", [1], 0.3)[0]
    latents = teacher.latents(CAPTIONS, real.noise, one.around(teacher.denoiser, [1, 2]))
    assert (latents.device, latents.dtype) == (GPU, torch.float32)


def test_an_adaptor_in_another_precision_raises_where_it_is_not_cast(
    real: RealSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncast(adaptor: Adaptor, r_in: Tensor, t_emb: Tensor, inputs: AdaptorInputs) -> Tensor:
        return run_adaptor(adaptor, r_in, t_emb.expand(len(r_in), -1), *inputs)

    monkeypatch.setattr(steps, "estimate", uncast)
    with pytest.raises(RuntimeError, match=r"Half.*float"):
        real.sampler.latents(CAPTIONS, real.noise)


def test_a_tensor_on_the_host_raises(real: RealSize) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        real.sampler.latents(CAPTIONS, real.noise.cpu())
