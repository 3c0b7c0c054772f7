"""An editor: what inverts a picture, and what paints it anew by another prompt (paper, Section 5.3, Table 7)."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from clockwork.data.image_io import read_image, squared
from clockwork.editing.inversion import condition, inverse_solver, invert, timesteps
from clockwork.editing.plug_and_play import Features, Injection, PlugAndPlay, Replay, Source, recording
from clockwork.errors import UserError
from clockwork.flops.cost import step_flops
from clockwork.flops.counter import Flops
from clockwork.sampling.denoisers import Denoiser
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.sampler import Setup
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Condition


@dataclass(frozen=True)
class Editor:
    """Two setups of one teacher, each with its own steps and clock: `ddim_inverse` at guidance 1, and `ddim`.

    The two savings are off by default: `source_to_the_end` false takes the source out of the batch once injection
    is over; `replay` records its features in one pass of their own and injects them in every edit of the picture.
    """

    inversion: Setup
    generation: Setup
    negative: str = ""
    tau_f: float = 0.8
    tau_a: float = 0.5
    source_to_the_end: bool = True
    replay: bool = False

    def __post_init__(self) -> None:
        kept = set(timesteps(inverse_solver(self.inversion), self.inversion.steps))
        if missing := [t for t in self.visited if t not in kept]:
            raise UserError(
                f"{self.generation.steps} steps of generation visit timesteps that {self.inversion.steps} steps of "
                f"inversion pass over ({missing[0]} and {len(missing) - 1} others): take as many steps of inversion "
                "as of generation, or a whole multiple"
            )
        _ = self.injection  # refused early, if at all

    @cached_property
    def visited(self) -> list[int]:
        """The generation's timesteps: at which the source's latents are wanted."""
        setup = self.generation
        return timesteps(make_solver(setup.solver, setup.teacher.noise_schedule), setup.steps)

    @cached_property
    def injection(self) -> Injection:
        return Injection.of(self.generation.split.chain, self.generation.calls, self.tau_f, self.tau_a)

    def invert(self, picture: Tensor, source: str) -> dict[int, Tensor]:
        """The source's latents at the timesteps that generation visits; `picture` 8 bits, `3 × height × width`."""
        latent = self.generation.teacher.encode_images(picture[None])
        return invert(self.inversion, latent, source, set(self.visited))

    def reconstruct(self, latents: Mapping[int, Tensor], source: str) -> Tensor:
        """The picture (8 bits, `3 × height × width`) that the source prompt alone leads back to, by full steps."""
        setup = self.generation
        solver = make_solver(setup.solver, setup.teacher.noise_schedule)
        full = Setup(setup.teacher, setup.split, Schedule(), setup.solver, setup.steps, 1.0)
        steps = rollout(full.denoiser, solver, setup.steps, self._start(latents), condition(full, source))
        return setup.teacher.decode(deque(steps, maxlen=1).pop().latents)[0]

    def record(self, latents: Mapping[int, Tensor]) -> list[Features]:
        """The source's features to inject, a step, for `replay`: one pass a step, for every edit of the picture."""
        features: list[Features] = []
        with recording(self.injection.modules(1)) as seen:
            steps = self._rollout(Source(self.generation.denoiser, latents), latents, condition(self.generation, ""))
            for record in islice(steps, self.injection.steps):
                wanted = self.injection.modules(record.step)
                features.append({module: seen[module] for module in wanted if module in seen})
                seen.clear()
        return features

    def edit(self, latents: Mapping[int, Tensor], target: str, features: list[Features] | None = None) -> Tensor:
        """The edited picture: 8 bits, `3 × height × width`. `features` are `record`'s, if they were kept."""
        inner = self.generation.denoiser
        denoiser: Denoiser
        if self.replay:
            denoiser = Replay(inner, self.injection, self.record(latents) if features is None else features)
        else:
            denoiser = PlugAndPlay(
                inner, self.injection, latents, condition(self.generation, ""), self.source_to_the_end
            )
        negative = condition(self.generation, self.negative) if self._rows == 2 else None
        steps = self._rollout(denoiser, latents, condition(self.generation, target), negative)
        last = deque(tqdm(steps, "generation", self.generation.calls, leave=False, unit="step"), maxlen=1).pop()
        return self.generation.teacher.decode(last.latents)[0]

    def _rollout(
        self, denoiser: Denoiser, latents: Mapping[int, Tensor], prompt: Condition, negative: Condition | None = None
    ) -> Iterator[StepRecord]:
        setup, start = self.generation, self._start(latents)
        solver = make_solver(setup.solver, setup.teacher.noise_schedule)
        return rollout(denoiser, solver, setup.steps, start, prompt, negative, setup.guidance)

    @property
    def _rows(self) -> int:
        """Of the batch, without the source's."""
        return self.generation.teacher.passes(self.generation.guidance)

    def _start(self, latents: Mapping[int, Tensor]) -> Tensor:
        return latents[self.visited[0]].to(self.generation.teacher.device)

    @property
    def clock(self) -> str:
        """ "identity clock2": of inversion and generation, told apart where they differ."""
        clocks = [
            "no clock" if setup.adaptor is None else f"{setup.adaptor_name} {setup.schedule}"
            for setup in (self.inversion, self.generation)
        ]
        return " | ".join(dict.fromkeys(clocks))

    @property
    def label(self) -> str:
        return f"{self.clock}, {self.inversion.steps} + {self.generation.steps} steps"

    def columns(self) -> dict[str, Any]:
        """What a row says of the editor."""
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
        """Which text embedder the adaptors read; None where none does."""
        return self.inversion.text_embedder or self.generation.text_embedder

    def identity(self) -> dict[str, Any]:
        """Everything that changes an edit besides its image and prompts, as plain data."""
        phases = {"inversion": self.inversion.identity(), "generation": self.generation.identity()}
        return {**phases, **self._settings}

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("negative", "tau_f", "tau_a", "source_to_the_end", "replay")}

    def flops(self, edits: int = 1) -> Flops:
        """Of inverting one picture and one of its `edits`: of the steps that run, at the batch that each has.

        Equations 4 to 6 with `ceil(n/N)` full steps, where neither saving is on. Inversion counts wholly to each
        edit, as in the paper; what `replay` records is shared by all the picture's edits.
        """
        inversion = step_flops(self.inversion)
        same = self.inversion.adaptor is self.generation.adaptor
        generation = inversion if same else step_flops(self.generation)
        clock, calls = self.generation.schedule, self.generation.calls
        cost = _passes(inversion, self.inversion.schedule, self.inversion.calls)
        cost += _passes(generation, clock, calls) * self._rows
        if not self.replay:
            return cost + _passes(generation, clock, calls if self.source_to_the_end else self.injection.steps)
        recorded = _passes(generation, clock, self.injection.steps)
        return cost + Flops(*(count // edits for count in asdict(recorded).values()))


def read_picture(file: Path, side: int, resize: bool = True) -> Tensor:
    """8 bits, `3 × side × side`. Another size's middle square is resized, with a notice, or refused."""
    picture = read_image(file)
    height, width = picture.shape[-2:]
    if (height, width) == (side, side):
        return picture
    if not resize:
        raise UserError(f"{file} has {width} × {height} pixels, not {side} × {side}: say resize=true")
    print(f"{file} has {width} × {height} pixels: its middle square is resized to {side} × {side}")
    return squared(picture, side)


def _columns(phase: str, setup: Setup) -> dict[str, Any]:
    return {
        f"{phase}_steps": setup.steps,
        f"{phase}_full_steps": setup.schedule.full_steps(setup.calls),
        f"{phase}_schedule": str(setup.schedule),
        f"{phase}_adaptor": setup.adaptor_name,
        f"{phase}_adaptor_hash": setup.adaptor_hash,
    }


def _passes(step: tuple[Flops, Flops], schedule: Schedule, first: int) -> Flops:
    """Of so many first steps at batch 1; `step` is a full one's cost and an adaptor one's."""
    whole = sum(schedule.is_full(number) for number in range(1, 1 + first))
    return step[0] * whole + step[1] * (first - whole)
