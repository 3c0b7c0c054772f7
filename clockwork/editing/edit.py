"""Editing of an image: inversion with a source prompt, then generation with a target prompt (paper, Section 5.3)."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from torch import Tensor

from clockwork.adaptors import require_both_halves
from clockwork.editing.cost import edit_flops
from clockwork.editing.injection import Features, Injection, recording
from clockwork.editing.inversion import condition, inverse_solver, invert, timesteps
from clockwork.editing.plug_and_play import PlugAndPlay, ReplayDenoiser, SourceDenoiser
from clockwork.errors import UserError
from clockwork.flops.counter import Flops
from clockwork.io.progress import progress_bar
from clockwork.sampling.denoisers import Denoiser
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Condition


@dataclass(frozen=True)
class Editor:
    """Edits images with one teacher, and with steps, adaptor and schedule of their own for inversion and generation.

    Attributes:
        inversion: The sampler of the inversion, with the solver `ddim_inverse` and guidance 1.
        generation: The sampler of the generation, with the solver `ddim`.
        negative: Negative prompt of the generation.
        tau_f: Share of the steps on which a convolution's output is injected (Table 7).
        tau_a: Share of the steps on which queries and keys of self-attention are injected (Table 7).
        keep_source: If False, the source leaves the batch after the last step with injection.
        replay: If True, the source's features are recorded in one pass and injected into all edits of the image.
    """

    inversion: Sampler
    generation: Sampler
    negative: str = ""
    tau_f: float = 0.8
    tau_a: float = 0.5
    keep_source: bool = True
    replay: bool = False

    def __post_init__(self) -> None:
        self.generation.require_uncompiled("editing")
        require_both_halves(self.generation.adaptor, "editing")
        inverted = set(timesteps(inverse_solver(self.inversion), self.inversion.steps))
        if missing := [t for t in self.visited if t not in inverted]:
            raise UserError(
                f"{self.generation.steps} generation steps visit timesteps that {self.inversion.steps} inversion steps "
                f"do not visit ({missing[0]} and {len(missing) - 1} others): use as many inversion steps as "
                "generation steps, or a multiple of them"
            )
        _ = self.injection  # raises its errors here, before any work

    @cached_property
    def visited(self) -> list[int]:
        """The timesteps of the generation, at which the source's latents are needed."""
        sampler = self.generation
        return timesteps(make_solver(sampler.solver, sampler.teacher.noise_schedule), sampler.steps)

    @cached_property
    def injection(self) -> Injection:
        """The modules whose features are injected."""
        return Injection.from_chain(self.generation.split.chain, self.generation.num_unet_calls, self.tau_f, self.tau_a)

    def invert(self, image: Tensor, source: str) -> dict[int, Tensor]:
        """Inverts an image.

        Args:
            image: 8-bit image, `3 × height × width`.
            source: Description of the image.

        Returns:
            The image's latents at the timesteps of the generation.
        """
        latent = self.generation.teacher.encode_images(image[None])
        return invert(self.inversion, latent, source, set(self.visited))

    def reconstruct(self, latents: Mapping[int, Tensor], source: str) -> Tensor:
        """Reconstructs an image from its inversion, by full steps without injection and guidance.

        Args:
            latents: Result of `invert`.
            source: Description of the image.

        Returns:
            8-bit image, `3 × height × width`.
        """
        sampler = self.generation
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        full = Sampler(sampler.teacher, sampler.split, Schedule(), sampler.solver, sampler.steps, 1.0)
        steps = rollout(full.denoiser, solver, sampler.steps, self._start(latents), condition(full, source))
        return sampler.teacher.decode(deque(steps, maxlen=1).pop().latents)[0]

    def record(self, latents: Mapping[int, Tensor]) -> list[Features]:
        """Records the source's features for `replay`, in one pass per step that serves all edits of the image.

        Args:
            latents: Result of `invert`.

        Returns:
            The features to inject, per step.
        """
        features: list[Features] = []
        with recording(self.injection.modules(1)) as outputs:
            steps = self._rollout(
                SourceDenoiser(self.generation.denoiser, latents), latents, condition(self.generation, "")
            )
            for record in islice(steps, self.injection.steps):
                modules = self.injection.modules(record.step)
                features.append({module: outputs[module] for module in modules if module in outputs})
                outputs.clear()
        return features

    def edit(self, latents: Mapping[int, Tensor], target: str, features: list[Features] | None = None) -> Tensor:
        """Generates the edited image.

        Args:
            latents: Result of `invert`.
            target: Description of the edited image.
            features: Result of `record` if `replay` is on; None to record them now.

        Returns:
            8-bit image, `3 × height × width`.
        """
        inner = self.generation.denoiser
        denoiser: Denoiser
        if self.replay:
            denoiser = ReplayDenoiser(inner, self.injection, self.record(latents) if features is None else features)
        else:
            empty = condition(self.generation, "")
            denoiser = PlugAndPlay(inner, self.injection, latents, empty, self.keep_source)
        negative = condition(self.generation, self.negative) if self.unet_calls_per_step == 2 else None
        steps = self._rollout(denoiser, latents, condition(self.generation, target), negative)
        last = deque(
            progress_bar(steps, "generation", self.generation.num_unet_calls, leave=False, unit="step"), maxlen=1
        ).pop()
        return self.generation.teacher.decode(last.latents)[0]

    def _rollout(
        self, denoiser: Denoiser, latents: Mapping[int, Tensor], prompt: Condition, negative: Condition | None = None
    ) -> Iterator[StepRecord]:
        """Runs the generation from the inversion's last latent."""
        sampler, start = self.generation, self._start(latents)
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        return rollout(denoiser, solver, sampler.steps, start, prompt, negative, sampler.guidance)

    def _start(self, latents: Mapping[int, Tensor]) -> Tensor:
        """Returns the latent from which generation starts."""
        return latents[self.visited[0]].to(self.generation.teacher.device)

    @property
    def unet_calls_per_step(self) -> int:
        """UNet passes per generation step without the source's: 2 with classifier-free guidance, else 1."""
        return self.generation.teacher.unet_calls_per_step(self.generation.guidance)

    @property
    def clock(self) -> str:
        """Adaptor and schedule, for example `identity clock2`; both phases' if they differ."""
        clocks = [
            "no clock" if sampler.adaptor is None else f"{sampler.adaptor_name} {sampler.schedule}"
            for sampler in (self.inversion, self.generation)
        ]
        return " | ".join(dict.fromkeys(clocks))

    @property
    def label(self) -> str:
        """Description for progress bars, for example `identity clock2, 50 + 50 steps`."""
        return f"{self.clock}, {self.inversion.steps} + {self.generation.steps} steps"

    def columns(self) -> dict[str, Any]:
        """Describes the editor.

        Returns:
            The values of its columns in a row.
        """
        point = asdict(self.generation.point)
        shared = {name: point[name] for name in ("teacher", "teacher_hash", "cut", "resolution", "guidance")}
        return {
            **shared,
            **self._settings,
            **_columns("inversion", self.inversion),
            **_columns("generation", self.generation),
        }

    @property
    def text_embedder(self) -> str | None:
        """The text embedder that the adaptors read; None if no adaptor reads text."""
        return self.inversion.text_embedder or self.generation.text_embedder

    def identity(self) -> dict[str, Any]:
        """Describes everything that changes an edit, other than the image and its prompts.

        Returns:
            Plain data for a digest.
        """
        phases = {"inversion": self.inversion.identity(), "generation": self.generation.identity()}
        return {**phases, **self._settings}

    @property
    def _settings(self) -> dict[str, Any]:
        """The settings that are no part of a sampler."""
        return {name: getattr(self, name) for name in ("negative", "tau_f", "tau_a", "keep_source", "replay")}

    def flops(self, edits: int = 1) -> Flops:
        """Counts the FLOPs of one edit, from the steps that run and the batch of each (see `editing.cost`).

        Args:
            edits: Number of edits per image, which share what `replay` records.

        Returns:
            The FLOPs of the image's inversion and of one of its edits.
        """
        return edit_flops(self, edits)


def _columns(phase: str, sampler: Sampler) -> dict[str, Any]:
    """Returns the columns of one phase."""
    return {
        f"{phase}_steps": sampler.steps,
        f"{phase}_full_steps": sampler.schedule.full_steps(sampler.num_unet_calls),
        f"{phase}_schedule": str(sampler.schedule),
        f"{phase}_adaptor": sampler.adaptor_name,
        f"{phase}_adaptor_hash": sampler.adaptor_hash,
    }
