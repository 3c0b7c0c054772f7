"""Samplers of the miniature, shared by the tests of rows."""

from dataclasses import replace

import pytest
import torch

from clockwork.adaptors import Identity, ResNet
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import load_teacher
from clockwork.unet.split import SplitUNet


@pytest.fixture(scope="module")
def identity() -> Sampler:
    teacher = load_teacher("miniature", guidance=3.0)
    made = Identity(feature_dims(teacher, "stage1"))
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule.parse("clock2"), "dpm++", 8, 3.0, made, "identity")


@pytest.fixture(scope="module")
def reads_text(identity: Sampler) -> Sampler:
    torch.manual_seed(0)
    adaptor = ResNet(feature_dims(identity.teacher, "stage1"), width=16, blocks=1).eval()
    return replace(identity, adaptor=adaptor, adaptor_name="resnet", steps=2)
