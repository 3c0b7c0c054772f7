"""The denoiser that calibrates: it fits the maps of each adaptor step when the roll-out reaches it, then uses them.

All captions are rolled out together. On an adaptor step the low-res path gives the target, on the latents that the
roll-out has reached with the maps of the steps before. Its output is not used otherwise. So each step's maps are fitted
on what they will read.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from clockwork.adaptors import FeatureDims, FullStep, History, Linear
from clockwork.adaptors.blocks import resize_to
from clockwork.adaptors.linear import term_values
from clockwork.calibration.least_squares import fit_step, require_enough_captions
from clockwork.calibration.options import FitOptions
from clockwork.calibration.progress import Progress, StepMaps
from clockwork.calibration.statistics import Moments
from clockwork.errors import UserError
from clockwork.io.distributed import rank, sum_over_processes, world_size
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised, arguments
from clockwork.sampling.feature_shapes import dims_of_features
from clockwork.schedule import Schedule
from clockwork.teachers import Condition
from clockwork.unet.conditioning import select_examples
from clockwork.unet.split import SplitUNet


class CalibratingDenoiser:
    """Runs a clocked roll-out of all captions, in chunks, and fits the maps on the way.

    Args:
        split: The UNet with its cut.
        schedule: Which steps are full.
        guidance: Scale of guidance, or a function that returns it on an adaptor step.
        options: How maps are fitted.
        progress: The state to go on from, which is changed.
        save: Called after each step that was fitted, and when an error or Ctrl-C interrupts one.
    """

    def __init__(
        self,
        split: SplitUNet,
        schedule: Schedule,
        guidance: float | Callable[[], float],
        options: FitOptions | None = None,
        progress: Progress | None = None,
        save: Callable[[], None] = lambda: None,
    ) -> None:
        self.split, self.schedule, self.options = split, schedule, options or FitOptions()
        self.guidance = guidance if callable(guidance) else lambda: guidance
        self.progress, self.save = progress or Progress(), save
        # Before the first full step the features' channels are unknown; only the names of the inputs matter.
        self.adaptor = Linear(FeatureDims(1, 1, 0, 0), (1,), self.options.terms)

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments and result are those of `Denoiser`."""
        chunks = self._chunks(sample, condition)
        if not self.schedule.is_full(step):
            if history.r_out_prev is None:
                raise UserError(f"schedule {self.schedule} has no full step before step {step}: use clock2")
            if step not in self.progress.maps:
                self._fit(sample, t, condition, step, history, chunks)
            self.adaptor = self.progress.adaptor(self.adaptor.dims, self.options.terms, [step]).to(sample.device)
        denoiser = ClockworkDenoiser(self.split, self.adaptor, self.schedule)
        parts = [
            denoiser(*selected[:3], step, selected[3])
            for selected in self._selected(sample, t, condition, history, chunks)
        ]
        denoised = _in_order(parts, torch.argsort(torch.cat(chunks)), self.split.kind.num_frames(sample))
        self._learn_dims(denoised)
        return denoised

    def _learn_dims(self, denoised: Denoised) -> None:
        """Takes the dimensions of the features from the first step's."""
        r_in, r_out = denoised.r_in, denoised.r_out
        if self.adaptor.dims.t_emb == 0:
            dims = dims_of_features(r_in.shape, r_out.shape, denoised.t_emb.shape, 0)
            self.adaptor = Linear(dims, (1,), self.options.terms)

    def _selected(
        self, sample: Tensor, t: Tensor, condition: Condition, history: History, chunks: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Condition, History]]:
        """Yields what the UNet and the adaptor read of each chunk's examples."""
        batch, num_frames = len(sample), self.split.kind.num_frames(sample)
        for index in chunks:
            select = partial(select_examples, index=index, batch=batch, num_frames=num_frames)
            yield sample[index], select(t), condition.select(index, batch, num_frames), history.map(select)

    def _chunks(self, sample: Tensor, condition: Condition) -> list[Tensor]:
        """Returns indices into the batch, with both halves of some captions in each chunk, unconditional first."""
        num_halves = 1 if condition.conditional is None else 2
        captions = torch.arange(len(sample) // num_halves, device=sample.device)
        return [
            torch.cat([part + half * len(captions) for half in range(num_halves)])
            for part in captions.split(self.options.batch)
        ]

    def _fit(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History, chunks: list[Tensor]
    ) -> None:
        """Fits the maps of a step. What was summed before an interruption is kept."""
        num_halves = 1 if condition.conditional is None else 2
        num_captions = self._count_captions(len(sample) // num_halves, num_halves, history)
        progress, options = self.progress, self.options
        device = "cpu" if sample.device.type == "mps" else sample.device  # which has no float64
        if progress.step != step or progress.sums is None:
            zeros = Moments.zeros(num_halves, self.adaptor.num_inputs + 1, self.adaptor.dims.r_out, device)
            progress.step, progress.sums = step, (0, zeros, zeros)
        num_chunks, fitted, held_out = progress.sums
        progress.sums = num_chunks, fitted.to(device), held_out.to(device)  # those of a file are on the CPU
        try:
            for selected in self._selected(sample, t, condition, history, chunks[progress.sums[0] :]):
                num_chunks, fitted, held_out = progress.sums
                features, count = self._features(*selected), len(selected[0]) // num_halves
                fits, chooses = self._divide(num_chunks * options.batch, count, num_captions)
                fitted = fitted.add(*(_observations(x, num_halves, count, fits) for x in features))
                held_out = held_out.add(*(_observations(x, num_halves, count, chooses) for x in features))
                progress.sums = num_chunks + 1, fitted, held_out
        except BaseException:
            self.save()
            raise
        fitted, held_out = (sums.over_processes() for sums in progress.sums[1:])
        if not (fitted.is_finite() and held_out.is_finite()):
            progress.sums = None  # the same command starts this step again
            self.save()
            raise UserError(
                f"features of step {step} are not finite in {str(self.split.dtype).removeprefix('torch.')}: "
                "pass precision=float32 or bfloat16, or check the weights"
            )
        how = self.guidance(), options.guided_weight, options.ridges, options.equations(num_halves)
        maps, equations, fit = fit_step(step, fitted, held_out, *how)
        progress.maps[step] = StepMaps.of(maps, equations, options.rank)
        progress.fits.append(fit)
        progress.sums = None
        self.save()

    def _count_captions(self, captions: int, num_halves: int, history: History) -> int:
        """Returns the number of captions of all processes; refuses fewer observations than each map has inputs."""
        assert history.r_out_prev is not None
        frames, _, height, width = history.r_out_prev.shape
        positions = frames // (captions * num_halves) * height * width
        # Shares of the captions may differ by one, and all processes have to come to the same answer.
        total = int(sum_over_processes(torch.tensor(captions)))
        require_enough_captions(total, self.options.num_unknowns(self.adaptor.num_inputs, num_halves), positions)
        return total

    def _features(
        self, sample: Tensor, t: Tensor, condition: Condition, history: History
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the inputs of the maps, their target, and `r_out`, `batch × … × height × width` each, in float32."""
        embedded = self.split.embed(**arguments(self.split, sample, t, condition))
        high = self.split.high_in(embedded)
        r_out = self.split.low(high, embedded)
        # The adaptor runs in float32, so differences are not rounded to the UNet's half precision.
        past, r_in, r_out = history.map(Tensor.float), high.r_in.float(), r_out.float()
        assert past.r_out_prev is not None
        values = term_values(self.adaptor.terms, r_in, past.r_out_prev, past.r_in_prev, past.full_steps)
        inputs = []
        for term, value in values.items():
            if value is None:
                value = r_out.new_zeros(len(r_out), self.adaptor.term_channels(term), *r_out.shape[-2:])
            inputs.append(resize_to(value, r_out.shape[-2:]))
        return torch.cat(inputs, 1), r_out - past.r_out_prev, r_out

    def _divide(self, first: int, count: int, num_captions: int) -> tuple[list[int], list[int]]:
        """Divides a chunk's captions into those that maps are fitted on, and those that choose the ridge.

        The number of a caption among those of all processes decides, so that one process divides them alike.
        """
        period, num_processes = self.options.hold_out_period(num_captions), world_size()
        numbers = [(first + i) * num_processes + rank() for i in range(count)]
        chooses = [i for i, number in enumerate(numbers) if period is not None and number % period == period - 1]
        return [i for i in range(count) if i not in chooses], chooses


def _observations(features: Tensor, num_halves: int, count: int, captions: list[int]) -> list[Tensor]:
    """Returns the features of some of `count` captions per half, `positions × channels`."""
    index = torch.tensor(captions, dtype=torch.int64, device=features.device)
    per_half = features.unflatten(0, (num_halves, count, -1))  # the last of these axes holds the frames of a video
    return [half[index].permute(0, 1, 3, 4, 2).flatten(0, 3) for half in per_half]


def _in_order(parts: list[Denoised], order: Tensor, num_frames: int) -> Denoised:
    """Joins the results of chunks, in the order of the whole batch."""

    def join(features: Sequence[Tensor | None]) -> Tensor:
        joined = torch.cat([part for part in features if part is not None])
        return select_examples(joined, order, len(order), num_frames)

    output, r_in, r_out = (join([getattr(part, name) for part in parts]) for name in ("output", "r_in", "r_out"))
    first, steps = parts[0], list(zip(*(part.history.full_steps for part in parts), strict=True))
    full_steps = tuple(
        FullStep(same[0].step, join([full.r_in for full in same]), join([full.r_out for full in same]))
        for same in steps
    )
    return Denoised(output, r_in, r_out, first.t_emb, first.full, History(r_out, r_in, full_steps))
