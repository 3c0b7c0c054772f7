"""`Sampler`: an operating point with the loaded teacher and adaptor."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from clockwork.adaptors import Adaptor, adaptor_hash, check_dims
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.rivals.base import Rival
from clockwork.sampling.compiled import step_functions
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoiser, FullDenoiser, RivalDenoiser
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.solvers import make_solver, num_unet_calls, solver_settings
from clockwork.sampling.steps import StepFunctions
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, Teacher
from clockwork.unet.split import SplitUNet

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class Sampler:
    """Generates latents of prompts at one operating point.

    Attributes:
        teacher: The teacher.
        split: Its UNet with the cut.
        schedule: Which steps are full.
        solver: Name of the solver (`clockwork.sampling.solvers.SOLVERS`).
        steps: Number of solver steps.
        guidance: Scale of classifier-free guidance.
        adaptor: The adaptor; None if every step is full.
        adaptor_name: Name of the adaptor, or of the rival, in rows.
        folder: The adaptor's folder, if it was loaded from one.
        trained_hash: Fingerprint of the adaptor's weights before they were cast to the teacher's precision.
        rival: Another method that makes the UNet cheaper; it takes the place of adaptor and schedule.

    Raises:
        UserError: If the schedule is too long for the steps, needs an adaptor that is missing, or starts with an
            adaptor step although the adaptor reads the previous step, if the adaptor is for features of other sizes
            than the teacher's at the cut, or if there is a rival beside an adaptor, or one
            that does not fit the UNet.
    """

    teacher: Teacher
    split: SplitUNet
    schedule: Schedule
    solver: str
    steps: int
    guidance: float
    adaptor: Adaptor | None = None
    adaptor_name: str = "none"
    folder: Path | None = None
    trained_hash: str | None = None
    rival: Rival | None = None

    def __post_init__(self) -> None:
        self.schedule.adaptor_steps(self.num_unet_calls)  # raises if the schedule is longer than the steps
        if self.adaptor is None and self.schedule != Schedule():
            raise UserError(
                f"schedule {self.schedule} has adaptor steps, but there is no adaptor: pass adaptor=… or schedule=full"
            )
        if self.adaptor is not None and self.rival is not None:
            raise UserError(f"rival {self.adaptor_name} takes the place of an adaptor: use adaptor=none")
        if self.rival is not None and self.teacher.compile is not False:
            raise UserError("rivals do not run compiled, so that latencies would mislead: use teacher.compile=false")
        if self.adaptor is not None:
            check_dims(self.adaptor, feature_dims(self.teacher, self.split.cut), str(self.split.cut))
        _ = self.denoiser  # raises if the adaptor does not fit the schedule, or the rival the UNet

    def require_uncompiled(self, task: str) -> None:
        """Refuses compiled steps for tasks that change the UNet's hooks from step to step: each change compiles again.

        Args:
            task: The task, for the message.

        Raises:
            UserError: If the teacher's steps are compiled.
        """
        if self.teacher.compile is not False:
            raise UserError(
                f"{task} reads or replaces features by hooks, so steps cannot be compiled: use teacher.compile=false"
            )

    @property
    def num_unet_calls(self) -> int:
        """Number of UNet calls per roll-out: one per step, and one more for PNDM."""
        return num_unet_calls(self.solver, self.teacher.noise_schedule, self.steps)

    @property
    def point(self) -> OperatingPoint:
        """The operating point."""
        return OperatingPoint(
            teacher=self.teacher.name,
            teacher_hash=self.teacher.hash,
            cut=str(self.split.cut),
            schedule=str(self.schedule),
            solver=self.solver,
            steps=self.steps,
            guidance=self.guidance,
            resolution=self.teacher.resolution,
            solver_settings=solver_settings(make_solver(self.solver, self.teacher.noise_schedule)),
        )

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser: `FullDenoiser` without adaptor and rival, else `ClockworkDenoiser` or `RivalDenoiser`."""
        if self.rival is not None:
            return self._rival_denoiser
        return (
            self.full_denoiser
            if self.adaptor is None
            else ClockworkDenoiser(self.split, self.adaptor, self.schedule, self.functions)
        )

    @cached_property
    def _rival_denoiser(self) -> Denoiser:
        """The denoiser of the rival, attached once."""
        assert self.rival is not None
        solver = make_solver(self.solver, self.teacher.noise_schedule)
        solver.set_timesteps(self.steps)
        guided = self.teacher.unet_calls_per_step(self.guidance) == 2
        return RivalDenoiser.attach(self.rival, self.split, solver.timesteps, guided)

    @property
    def is_full_teacher(self) -> bool:
        """Whether this is the teacher alone, without adaptor and rival."""
        return self.adaptor is None and self.rival is None

    @property
    def full_denoiser(self) -> FullDenoiser:
        """The denoiser that runs the full UNet on every step."""
        return FullDenoiser(self.split, functions=self.functions)

    @cached_property
    def functions(self) -> StepFunctions:
        """What runs the UNet, compiled if the teacher's are."""
        return step_functions(self.teacher.compile, self.teacher.device)

    @property
    def reads_text(self) -> bool:
        """Whether the adaptor reads the text embedding."""
        return self.adaptor is not None and "text_emb" in self.adaptor.inputs

    @property
    def adaptor_hash(self) -> str | None:
        """Fingerprint of the adaptor, independent of the precision that it was cast to; None without an adaptor."""
        return None if self.adaptor is None else self.trained_hash or adaptor_hash(self.adaptor)

    @property
    def text_embedder(self) -> str | None:
        """Identity of the text embedder; None if the adaptor does not read text."""
        embedder = self.teacher.text_embedder
        return embedder.identity if self.reads_text and embedder is not None else None

    def identity(self) -> dict[str, Any]:
        """Returns everything that changes an image, apart from its prompt and seed, as plain data."""
        precision = None if self.adaptor is None else self.adaptor.dtype
        return {
            **{name: value for name, value in asdict(self.point).items() if name != "more_guidance"},
            "teacher_parts": self.teacher.identity,
            "adaptor_hash": self.adaptor_hash,
            "adaptor_precision": precision and str(precision).removeprefix("torch."),
            "text_embedder": self.text_embedder,
            **({} if self.teacher.compile is False else {"compile": str(self.teacher.compile)}),
            **({} if self.rival is None else {"rival": self.rival.identity()}),
        }

    def conditions(self, captions: list[str]) -> tuple[Condition, Condition | None]:
        """Encodes prompts for a roll-out.

        Args:
            captions: The prompts.

        Returns:
            The prompts' conditions, and the empty prompt's if guidance needs a second pass, else None.
        """
        return self.teacher.conditions(captions, self.guidance, self.reads_text)

    def rollout(self, captions: list[str], noise: Tensor, denoiser: Denoiser | None = None) -> Iterator[StepRecord]:
        """Samples latents from noise, step by step.

        Args:
            captions: The prompts.
            noise: Initial noise, `batch × channels × height × width`.
            denoiser: The denoiser; by default `self.denoiser`.

        Returns:
            An iterator over one record per denoiser call.
        """
        return self._rollout(self.conditions(captions), noise, denoiser)

    def latents(self, captions: list[str], noise: Tensor, denoiser: Denoiser | None = None) -> Tensor:
        """Samples latents from noise.

        Args:
            captions: The prompts.
            noise: Initial noise, `batch × channels × height × width`.
            denoiser: The denoiser; by default `self.denoiser`.

        Returns:
            The final latents, `batch × channels × height × width`.
        """
        return self.latents_of(self.conditions(captions), noise, denoiser)

    def latents_of(
        self, conditions: tuple[Condition, Condition | None], noise: Tensor, denoiser: Denoiser | None = None
    ) -> Tensor:
        """Samples latents from noise for prompts that are already encoded.

        Args:
            conditions: The result of `self.conditions`.
            noise: Initial noise, `batch × channels × height × width`.
            denoiser: The denoiser; by default `self.denoiser`.

        Returns:
            The final latents, `batch × channels × height × width`.
        """
        return deque(self._rollout(conditions, noise, denoiser), maxlen=1).pop().latents

    def _rollout(
        self, conditions: tuple[Condition, Condition | None], noise: Tensor, denoiser: Denoiser | None
    ) -> Iterator[StepRecord]:
        """Starts a roll-out from encoded prompts."""
        solver = make_solver(self.solver, self.teacher.noise_schedule)
        return rollout(denoiser or self.denoiser, solver, self.steps, noise, *conditions, self.guidance)
