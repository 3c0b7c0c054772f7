"""What a calibration has found so far: the maps of the steps behind it, and the sums of the step that it is at."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clockwork.adaptors import FeatureDims, Linear
from clockwork.calibration.least_squares import NormalEquations, StepFit
from clockwork.calibration.statistics import Moments
from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.distributed import sum_over_processes, world_size
from clockwork.unet.conditioning import HALVES


@dataclass(frozen=True)
class StepMaps:
    """The maps of one step.

    Attributes:
        weight: Inputs to outputs, or to the channels between the factors, `num_branches × channels × inputs`; of joint
            maps the inputs of all branches.
        bias: `num_branches × outputs`.
        up: The second factor, `num_branches × outputs × rank`; None for maps that are not factored.
        negative: The convolution that predicts the negative half of guidance, `channels × 3 channels × 5 × 5`; None if
            both halves run, and until it is fitted.
        negative_bias: Its bias, `channels`; likewise.
    """

    weight: Tensor
    bias: Tensor
    up: Tensor | None = None
    negative: Tensor | None = None
    negative_bias: Tensor | None = None

    @classmethod
    def of(cls, maps: Tensor, equations: NormalEquations, rank: int | None) -> "StepMaps":
        """Splits solutions into weights and biases, and factors them.

        Args:
            maps: The solutions by branch, `num_branches × inputs and the constant × outputs`.
            equations: The equations that they solve.
            rank: Rank of the factored maps; None for maps that are not factored.
        """
        if rank is None or rank >= maps.shape[-1]:
            return cls(maps[:, :-1].mT.float().cpu(), maps[:, -1].float().cpu())
        down, up = equations.reduce_rank(maps, rank)
        repeated = up.T.expand(len(maps), -1, -1)
        return cls(down[:, :-1].mT.float().cpu(), (down[:, -1] @ up).float().cpu(), repeated.float().cpu())


@dataclass
class Progress:
    """The state of a calibration.

    Attributes:
        maps: The maps of the steps that are fitted.
        fits: The figures of these fits.
        step: The step that was begun last.
        sums: Of this step: the number of chunks of captions, the sums over the captions that the maps are fitted on,
            and those over the captions that choose the ridge; None between steps.
        seconds: Duration so far.
    """

    maps: dict[int, StepMaps] = field(default_factory=dict)
    fits: list[StepFit] = field(default_factory=list)
    step: int = 0
    sums: tuple[int, Moments, Moments] | None = None
    seconds: float = 0.0

    def adaptor(
        self,
        dims: FeatureDims,
        terms: tuple[str, ...],
        steps: Sequence[int] | None = None,
        branches: Sequence[str] = HALVES,
    ) -> Linear:
        """Builds the adaptor of steps that are fitted.

        Args:
            dims: Dimensions of the features at the cut.
            terms: What the maps read.
            steps: The steps; by default all that are fitted.
            branches: Names of the branches of guidance, in the order of the batch; not used without guidance.

        Raises:
            UserError: If no step is fitted.
        """
        if not self.maps:
            raise UserError("no adaptor step was calibrated: use a schedule with adaptor steps, such as clock2")
        steps = sorted(self.maps if steps is None else steps)
        first = self.maps[steps[0]]
        rank = None if first.up is None else first.up.shape[-1]
        joint = first.weight.shape[-1] > Linear(dims, steps, terms).num_inputs
        channels = 0 if first.negative is None else len(first.negative)
        of_maps = branches if len(first.bias) > 1 else ("conditional",)
        adaptor = Linear(dims, steps, terms, of_maps, rank, joint, channels)
        names = {"weight": "weight", "bias": "bias", "up": "up"}
        names |= {"negative": "negative.weight", "negative_bias": "negative.bias"}
        parts = {names[part]: part for part, value in vars(first).items() if value is not None}
        adaptor.load_state_dict(
            {name: torch.stack([getattr(self.maps[s], part) for s in steps]) for name, part in parts.items()}
        )
        return adaptor.eval().requires_grad_(False)

    def keep_common_steps(self, num_steps: int) -> None:
        """Forgets the fits that another process does not have, so that all go on from the same one.

        Processes that were stopped may have saved different states. Every process has to call this.

        Args:
            num_steps: Number of steps of the roll-out.
        """
        fitted = torch.zeros(2, num_steps + 1, dtype=torch.int64)  # the maps of features, and the negative ones
        for step, maps in self.maps.items():
            fitted[: 1 if maps.negative is None else 2, step] = 1
        common, common_negative = (sum_over_processes(fitted) == world_size()).tolist()
        if self.step in self.maps and not common[self.step]:
            self.sums = None  # of the negative map of a step whose other maps are fitted again
        self.maps = {
            step: maps if common_negative[step] else replace(maps, negative=None, negative_bias=None)
            for step, maps in self.maps.items()
            if common[step]
        }
        self.fits = [fit for fit in self.fits if common[fit.step]]

    def save(self, file: Path, digest: str) -> None:
        """Writes the state, atomically.

        Args:
            file: A safetensors file.
            digest: Identifies the calibration, so that another one does not go on from here.
        """
        tensors = {
            f"{step}.{part}": value.contiguous()
            for step, maps in self.maps.items()
            for part, value in vars(maps).items()
            if value is not None
        }
        if self.sums is not None:
            tensors |= {**self.sums[1].to_tensors("fitted"), **self.sums[2].to_tensors("held_out")}
        num_chunks = None if self.sums is None else self.sums[0]
        fits = [asdict(fit) for fit in self.fits]
        about = {"step": self.step, "num_chunks": num_chunks, "fits": fits, "seconds": self.seconds}
        with atomic_write(file) as partial:
            save_file(tensors, partial, {"digest": digest, "progress": json.dumps(about)})

    @classmethod
    def load(cls, file: Path, digest: str) -> "Progress":
        """Reads a state that was saved.

        Args:
            file: The file.
            digest: Identifies the calibration.

        Returns:
            The state; an empty one if there is no file, or it is damaged or belongs to another calibration.
        """
        if not file.is_file():
            return cls()
        try:
            return cls._read(file, digest)
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            print(f"{file} is damaged ({type(error).__name__}): the calibration starts again")
            return cls()

    @classmethod
    def _read(cls, file: Path, digest: str) -> "Progress":
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("digest") != digest:
                return cls()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        about = json.loads(metadata["progress"])
        fits = [StepFit(**fit) for fit in about["fits"]]
        maps = {
            fit.step: StepMaps(
                tensors[f"{fit.step}.weight"],
                tensors[f"{fit.step}.bias"],
                *(tensors.get(f"{fit.step}.{part}") for part in ("up", "negative", "negative_bias")),
            )
            for fit in fits
        }
        sums = None
        if about["num_chunks"] is not None:
            moments = (Moments.from_tensors(tensors, prefix) for prefix in ("fitted", "held_out"))
            sums = (about["num_chunks"], *moments)
        return cls(maps, fits, about["step"], sums, about["seconds"])


def remove_progress(folder: Path) -> None:
    """Removes the states that calibrations have saved in a folder, and no other files.

    Args:
        folder: The folder.
    """
    for file in folder.glob("progress*.safetensors"):
        if re.fullmatch(r"progress\d+", file.stem):
            file.unlink()
