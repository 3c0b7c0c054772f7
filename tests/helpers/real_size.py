"""Teachers on the GPU of `fake_gpu.py`, at their real size, or at their real width and resolution with few layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers.fake_gpu import GPU, FakeGPU
from torch import Tensor

from clockwork.adaptors import FeatureDims
from clockwork.adaptors.resnet import ResNet
from clockwork.data.prompts import Prompt
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, text_embedder
from clockwork.teachers.architectures import architecture
from clockwork.teachers.random_weights import TEXTS, VAE, VIT_L, pipeline_around, random_pipeline
from clockwork.teachers.teacher import Pipeline
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.split import SplitUNet

PROMPTS = [Prompt(1, "a large red circle"), Prompt(2, "a small blue square")]
CAPTIONS = [prompt.text for prompt in PROMPTS]
GUIDANCE = {"sd15": 7.5, "sd21": 7.5, "sdxl": 5.0}
# Of SD v1.5, v2.1 and XL at stage 1: r_in, r_out, the time embedding, and the text embedding of ViT-g/14.
DIMS = FeatureDims(320, 640, 1280, 1024)


@dataclass(frozen=True)
class RealSize:
    """A teacher in half precision with a ResNet in float32, 2 steps at clock 2: the second is the adaptor's."""

    gpu: FakeGPU
    sampler: Sampler

    @property
    def teacher(self) -> Teacher:
        return self.sampler.teacher

    @property
    def dims(self) -> FeatureDims:
        """The feature dimensions of its adaptor."""
        assert self.sampler.adaptor is not None
        return self.sampler.adaptor.dims

    @property
    def noise(self) -> Tensor:
        return self.teacher.noise([prompt.id for prompt in PROMPTS])


@cache
def _gpu() -> FakeGPU:
    """One for all: text embedders are shared."""
    return FakeGPU()


@cache
def few_layers(name: str) -> RealSize:
    """`sd15` or `sdxl`, as `load_teacher` leaves it on a GPU, with one layer of each kind per block; made once.

    Devices and precisions are those of all layers, with which a step takes seconds.
    """
    unet = {**architecture(name), "layers_per_block": 1, "transformer_layers_per_block": 1}
    texts = [{**text, "num_hidden_layers": 2} for text in TEXTS.get(name, [VIT_L])]
    vae = {**VAE, "layers_per_block": 1}
    return _build(name, _gpu(), lambda: pipeline_around(UNet2DConditionModel(**unet), texts, vae), "ViT-B-32")


@contextmanager
def alone(name: str) -> Iterator[RealSize]:
    """`sd15`, `sd21` or `sdxl` with all layers on a GPU with nothing else on it, switched on."""
    text_embedder._load.cache_clear()
    with switched_on(_build(name, FakeGPU(), lambda: random_pipeline(name), "ViT-g-14")) as real:
        yield real
    text_embedder._load.cache_clear()


def _build(name: str, gpu: FakeGPU, make_pipeline: Callable[[], Pipeline], embedder: str) -> RealSize:
    with gpu.on():
        teacher = _teacher(name, make_pipeline, embedder)
        with GPU:
            adaptor = ResNet(replace(DIMS, text_emb=teacher.text_width))
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


def _teacher(name: str, make_pipeline: Callable[[], Pipeline], embedder: str) -> Teacher:
    torch.set_default_dtype(torch.float16)
    try:
        with GPU:
            pipe = make_pipeline()
    finally:
        torch.set_default_dtype(torch.float32)
    if name == "sdxl":
        pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    teacher = Teacher(name, pipe, GUIDANCE[name], text_embedder=OpenCLIP(embedder, None, GPU, text_only=True))
    teacher.__dict__["hash"] = "0" * 12  # a fingerprint reads weights, which are not there
    encode = cache(lambda captions, *rest: Teacher.encode(teacher, list(captions), *rest))
    # Each text once.
    teacher.__dict__["encode"] = lambda captions, *rest: encode(tuple(captions), *rest)
    return teacher
