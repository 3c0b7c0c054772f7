"""Teachers at their real size on the GPU of `fake_gpu.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from helpers.fake_gpu import GPU, FakeGPU
from torch import Tensor

from clockwork.adaptors import FeatureDims
from clockwork.adaptors.resnet import ResNet
from clockwork.data.prompts import Prompt
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, text_embedder
from clockwork.teachers.random_weights import random_pipeline
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.split import SplitUNet

PROMPTS = [Prompt(1, "a large red circle"), Prompt(2, "a small blue square")]
CAPTIONS = [prompt.text for prompt in PROMPTS]
GUIDANCE = {"sd15": 7.5, "sd21": 7.5, "sdxl": 5.0}
# Of SD v1.5, v2.1 and XL at stage 1: r_in, r_out, the time embedding, and the text embedding of ViT-g/14.
WIDTHS = FeatureDims(320, 640, 1280, 1024)


@dataclass(frozen=True)
class RealSize:
    """A teacher in half precision with a ResNet in float32, 2 steps at clock 2: the second is the adaptor's."""

    gpu: FakeGPU
    sampler: Sampler

    @property
    def teacher(self) -> Teacher:
        return self.sampler.teacher

    @property
    def noise(self) -> Tensor:
        return self.teacher.noise([prompt.id for prompt in PROMPTS])


@cache
def _gpu() -> FakeGPU:
    """One for all: text embedders are shared."""
    return FakeGPU()


@cache
def real_size(name: str) -> RealSize:
    """`sd15`, `sd21` or `sdxl`, as `load_teacher` leaves it on a GPU, made once."""
    return _build(name, _gpu())


@contextmanager
def alone(name: str) -> Iterator[RealSize]:
    """The same on a GPU with nothing else on it, switched on."""
    text_embedder._load.cache_clear()
    with switched_on(_build(name, FakeGPU())) as real:
        yield real
    text_embedder._load.cache_clear()


def _build(name: str, gpu: FakeGPU) -> RealSize:
    with gpu.on():
        teacher = _teacher(name)
        with GPU:
            adaptor = ResNet(WIDTHS)
        split, clock2 = SplitUNet(teacher.unet, "stage1"), Schedule.parse("clock2")
        return RealSize(gpu, Sampler(teacher, split, clock2, "dpm++", 2, teacher.guidance, adaptor, "resnet"))


@contextmanager
def switched_on(real: RealSize) -> Iterator[RealSize]:
    with pytest.MonkeyPatch.context() as patch, real.gpu.on():
        # Whether images are finite is a question to their values, which are not there.
        patch.setattr("clockwork.teachers.autoencoder.require_finite", lambda values, description: None)
        real.gpu.host_reads.clear()
        real.gpu.peak_bytes = real.gpu.bytes
        yield real


def _teacher(name: str) -> Teacher:
    torch.set_default_dtype(torch.float16)
    try:
        with GPU:
            pipe = random_pipeline(name)
    finally:
        torch.set_default_dtype(torch.float32)
    if name == "sdxl":
        pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    teacher = Teacher(name, pipe, GUIDANCE[name], text_embedder=OpenCLIP("ViT-g-14", None, GPU, text_only=True))
    teacher.__dict__["hash"] = "0" * 12  # a fingerprint reads weights, which are not there
    encode = cache(lambda captions, *rest: Teacher.encode(teacher, list(captions), *rest))
    # Each text once: ViT-g/14 alone has 24 layers.
    teacher.__dict__["encode"] = lambda captions, *rest: encode(tuple(captions), *rest)
    return teacher
