"""The sampler: a teacher at an operating point, with the adaptor that replaces its low-res path."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.adaptors import Adaptor, FeatureDims, adaptor_hash
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoiser, FullDenoiser
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.solvers import make_solver, num_unet_calls, solver_settings
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, Teacher
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class Sampler:
    """Generates latents of prompts with one teacher, solver, schedule and adaptor."""

    teacher: Teacher
    split: SplitUNet
    schedule: Schedule
    solver: str
    steps: int
    guidance: float
    adaptor: Adaptor | None = None
    adaptor_name: str = "none"
    folder: Path | None = None  # the adaptor's
    trained_hash: str | None = None  # of the adaptor's weights before they were cast to the teacher's precision

    def __post_init__(self) -> None:
        self.schedule.adaptor_steps(self.num_unet_calls)  # refuses a schedule longer than the steps
        if self.adaptor is None and self.schedule != Schedule():
            raise UserError(f"schedule {self.schedule} has adaptor steps: name an adaptor, or say schedule=full")
        _ = self.denoiser  # refuses an adaptor that the schedule is not for

    @property
    def num_unet_calls(self) -> int:
        """Denoiser calls: the steps, and one more for PNDM."""
        return num_unet_calls(self.solver, self.teacher.noise_schedule, self.steps)

    @property
    def point(self) -> OperatingPoint:
        return OperatingPoint(
            teacher=self.teacher.name,
            teacher_hash=self.teacher.hash,
            cut=str(self.split.cut),
            schedule=str(self.schedule),
            solver=self.solver,
            steps=self.steps,
            guidance=self.guidance,
            resolution=self.teacher.resolution,
        )

    @property
    def denoiser(self) -> Denoiser:
        return (
            FullDenoiser(self.split)
            if self.adaptor is None
            else ClockworkDenoiser(self.split, self.adaptor, self.schedule)
        )

    @property
    def reads_text(self) -> bool:
        """Whether the adaptor reads the text embedder's embedding."""
        return self.adaptor is not None and "text_emb" in self.adaptor.inputs

    @property
    def adaptor_hash(self) -> str | None:
        """Fingerprint of the adaptor, the same in every precision that it is cast to; None without an adaptor."""
        return None if self.adaptor is None else self.trained_hash or adaptor_hash(self.adaptor)

    @property
    def text_embedder(self) -> str | None:
        """Which text embedder the adaptor reads; None where it reads none."""
        embedder = self.teacher.text_embedder
        return embedder.identity if self.reads_text and embedder is not None else None

    def identity(self) -> dict[str, Any]:
        """Everything that changes an image besides its prompt and seed, as plain data."""
        precision = None if self.adaptor is None else self.adaptor.dtype
        return {
            **asdict(self.point),
            "solver_config": solver_settings(make_solver(self.solver, self.teacher.noise_schedule)),
            "teacher_parts": self.teacher.identity,
            "adaptor_hash": self.adaptor_hash,
            "adaptor_precision": precision and str(precision).removeprefix("torch."),
            "text_embedder": self.text_embedder,
        }

    def conditions(self, captions: list[str]) -> tuple[Condition, Condition | None]:
        """What the captions become: the prompts' condition, and guidance's negative one where there is one."""
        return self.teacher.conditions(captions, self.guidance, self.reads_text)

    def rollout(self, captions: list[str], noise: Tensor, denoiser: Denoiser | None = None) -> Iterator[StepRecord]:
        """A record per step; by another denoiser than the sampler's own, if one is given."""
        return self._rollout(self.conditions(captions), noise, denoiser)

    def latents(self, captions: list[str], noise: Tensor, denoiser: Denoiser | None = None) -> Tensor:
        """The roll-out's last latents, `batch × channels × height × width`."""
        return self.latents_of(self.conditions(captions), noise, denoiser)

    def latents_of(
        self, conditions: tuple[Condition, Condition | None], noise: Tensor, denoiser: Denoiser | None = None
    ) -> Tensor:
        """The same of `conditions`, as the method of that name gives them: the UNet, the adaptor and the solver alone
        run, and only the last step's record is kept."""
        return deque(self._rollout(conditions, noise, denoiser), maxlen=1).pop().latents

    def _rollout(
        self, conditions: tuple[Condition, Condition | None], noise: Tensor, denoiser: Denoiser | None
    ) -> Iterator[StepRecord]:
        solver = make_solver(self.solver, self.teacher.noise_schedule)
        return rollout(denoiser or self.denoiser, solver, self.steps, noise, *conditions, self.guidance)


def feature_dims(teacher: Teacher, cut: Cut | str) -> FeatureDims:
    """The channels that an adaptor for this teacher and cut has to fit."""
    with torch.device("meta"):
        unet = type(teacher.unet).from_config(teacher.unet.config)
    split = SplitUNet(unet, cut)
    embedded = split.embed(**meta_call(unet, teacher.latent_shape, tokens=1))
    high = split.high_in(embedded)
    return dims_of_features(high.r_in, split.low(high, embedded), embedded.t_emb, teacher.text_width)


def dims_of_features(r_in: Tensor, r_out: Tensor, t_emb: Tensor, text_width: int) -> FeatureDims:
    """The same from the features at the cut, and the width of the text embedding."""
    return FeatureDims(r_in.shape[1], r_out.shape[1], t_emb.shape[1], text_width, r_out.shape[-1] // r_in.shape[-1])


def meta_call(unet: UNet2DConditionModel, latent_shape: tuple[int, int, int], tokens: int = 77) -> dict[str, Any]:
    """What a UNet takes, as empty tensors of batch 1 on `meta`, with the conditions that its config asks for."""
    config = unet.config
    with torch.device("meta"):
        call: dict[str, Any] = {
            "sample": torch.empty(1, *latent_shape),
            "timestep": torch.tensor(1),
            "encoder_hidden_states": torch.empty(1, tokens, config.cross_attention_dim),
        }
        if config.time_cond_proj_dim is not None:  # the guidance scale, embedded
            call["timestep_cond"] = torch.empty(1, config.time_cond_proj_dim)
        if config.addition_embed_type == "text_time":  # SDXL: six sizes and crops, and the pooled text
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            added = {"time_ids": torch.empty(1, 6), "text_embeds": torch.empty(1, pooled)}
            call["added_cond_kwargs"] = added
    return call
