"""The denoiser that calibrates: it fits the maps of each adaptor step when the roll-out reaches it, then uses them.

All captions are rolled out together. On an adaptor step the low-res path gives the target, on the latents that the
roll-out has reached with the maps of the steps before. Its output is not used otherwise. So each step's maps are fitted
on what they will read.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from clockwork.adaptors import FeatureDims, History, Linear
from clockwork.adaptors.blocks import resize_to
from clockwork.adaptors.linear import term_values
from clockwork.calibration.chunks import Chunks, observations
from clockwork.calibration.least_squares import (
    NormalEquations,
    StepFit,
    error_weights,
    fit_step,
    require_enough_captions,
)
from clockwork.calibration.negative import convolution, negative_observations, num_negative_inputs
from clockwork.calibration.options import FitOptions
from clockwork.calibration.progress import Progress, StepMaps
from clockwork.calibration.statistics import Moments
from clockwork.errors import UserError
from clockwork.io.distributed import rank, sum_over_processes, world_size
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised, arguments
from clockwork.sampling.feature_shapes import dims_of_features
from clockwork.sampling.guidance import positive_half
from clockwork.schedule import Schedule
from clockwork.teachers import Condition
from clockwork.unet.conditioning import HALVES
from clockwork.unet.split import SplitUNet


class CalibratingDenoiser:
    """Runs a clocked roll-out of all captions, in chunks, and fits the maps on the way.

    Args:
        split: The UNet with its cut.
        schedule: Which steps are full.
        guidance: Scale of guidance; or a function that returns, for a timestep, the weights of the branches in the
            guided prediction, in the order of the batch.
        options: How maps are fitted.
        progress: The state to go on from, which is changed.
        save: Called after each step that was fitted, and when an error or Ctrl-C interrupts one.

    Attributes:
        branches: Names of the branches of guidance, in the order of the batch.
    """

    branches: tuple[str, ...] = HALVES

    def __init__(
        self,
        split: SplitUNet,
        schedule: Schedule,
        guidance: float | Callable[[Tensor], Sequence[float]],
        options: FitOptions | None = None,
        progress: Progress | None = None,
        save: Callable[[], None] = lambda: None,
    ) -> None:
        self.split, self.schedule, self.options = split, schedule, options or FitOptions()
        self.guidance = guidance if callable(guidance) else lambda _: (1 - guidance, guidance)
        self.progress, self.save = progress or Progress(), save
        # Before the first full step the features' channels are unknown; only the names of the inputs matter.
        self.adaptor = self._unfitted(FeatureDims(1, 1, 0, 0))

    def _unfitted(self, dims: FeatureDims) -> Linear:
        """Returns an adaptor that declares what the fitted ones read."""
        channels = self.split.unet.config.out_channels if self.options.positive_only else 0
        branches = ("conditional",) if channels else self.branches
        return Linear(dims, (1,), self.options.terms, branches, negative_channels=channels)

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments and result are those of `Denoiser`."""
        two_halves = self.split.kind.frames_axis is None and condition.branch is not None and self.branches == HALVES
        if self.options.positive_only and not two_halves:
            raise UserError(
                "positive_only is for images with guidance by the prompt: pass a scale above 1, or leave it out"
            )
        chunks = self._chunks(sample, t, condition, history)
        if not self.schedule.is_full(step):
            if history.r_out_prev is None:
                raise UserError(f"schedule {self.schedule} has no full step before step {step}: use clock2")
            self._fit(chunks, step)
            self.adaptor = self.fitted([step]).to(sample.device)
        denoiser = ClockworkDenoiser(self.split, self.adaptor, self.schedule)
        denoised = chunks.join([denoiser(*chunk[:3], step, chunk[3]) for chunk in chunks])
        self._learn_dims(denoised)
        return denoised

    def start(self, branches: tuple[str, ...]) -> None:
        """Starts a roll-out with other branches of guidance than `HALVES`.

        Args:
            branches: Their names, in the order of the batch; one without guidance.
        """
        self.branches = branches if len(branches) > 1 else HALVES
        self.adaptor = self._unfitted(self.adaptor.dims)

    def fitted(self, steps: Sequence[int] | None = None) -> Linear:
        """Returns the adaptor of some steps that are fitted; by default of all."""
        return self.progress.adaptor(self.adaptor.dims, self.options.terms, steps, self.branches)

    def _learn_dims(self, denoised: Denoised) -> None:
        """Takes the dimensions of the features from the first step's."""
        if self.adaptor.dims.t_emb == 0:
            dims = dims_of_features(denoised.r_in.shape, denoised.r_out.shape, denoised.t_emb.shape, 0)
            self.adaptor = self._unfitted(dims)

    def _chunks(self, sample: Tensor, t: Tensor, condition: Condition, history: History) -> Chunks:
        """Divides a batch."""
        sizes = self.split.kind.num_frames(sample.shape), 1 if condition.branch is None else len(self.branches)
        return Chunks(sample, t, condition, history, self.options.batch, *sizes)

    def _fit(self, chunks: Chunks, step: int) -> None:
        """Fits the maps of a step, unless that has been done."""
        maps = self.progress.maps
        if step not in maps and self.options.positive_only:
            half = positive_half(chunks.sample, chunks.t, chunks.condition)
            self._fit_features(self._chunks(*half, replace(chunks.history, output_prev=None)), step)
        elif step not in maps:
            self._fit_features(chunks, step)
        if self.options.positive_only and maps[step].negative is None:
            self._fit_negative(chunks, step)

    def _fit_features(self, chunks: Chunks, step: int) -> None:
        """Fits the maps that estimate `r_out`."""
        options, r_out_prev, num_inputs = self.options, chunks.history.r_out_prev, self.adaptor.num_inputs
        assert r_out_prev is not None
        num_captions = self._count_captions(chunks, r_out_prev, options.num_unknowns(num_inputs, chunks.num_branches))
        sizes = chunks.num_branches, num_inputs + 1, self.adaptor.dims.r_out
        sums = self._sums(step, sizes, chunks, num_captions, self._features)
        guidance = self._guidance(chunks)
        maps, equations, fit = self._solve(step, *sums, guidance, options.equations(chunks.num_branches))
        self.progress.maps[step] = StepMaps.of(maps, equations, options.rank)
        self.progress.fits.append(fit)
        self._finish_fit()

    def _fit_negative(self, chunks: Chunks, step: int) -> None:
        """Fits the map that predicts the negative half of guidance from the positive one."""
        progress, channels = self.progress, self.split.unet.config.out_channels
        num_inputs = num_negative_inputs(channels) + 1
        num_captions = self._count_captions(chunks, chunks.sample, num_inputs)
        denoiser = ClockworkDenoiser(self.split, self.fitted([step]).to(chunks.sample.device), self.schedule)
        weights = error_weights(self._guidance(chunks), self.options.guided_weight)
        observe = partial(negative_observations, denoiser, step, weights)
        sums = self._sums(step, (1, num_inputs, channels), chunks, num_captions, observe)
        weight, bias = convolution(self._solve(step, *sums, (1.0,), NormalEquations)[0][0])
        progress.maps[step] = replace(progress.maps[step], negative=weight, negative_bias=bias)
        self._finish_fit()

    def _guidance(self, chunks: Chunks) -> Sequence[float]:
        """Returns the weights of the branches in the guided prediction."""
        return (1.0,) if chunks.num_branches == 1 else self.guidance(chunks.t)

    def _solve(
        self, step: int, fitted: Moments, held_out: Moments, guidance: Sequence[float], kind: type[NormalEquations]
    ) -> tuple[Tensor, NormalEquations, StepFit]:
        """Solves for maps; arguments and result are those of `fit_step`."""
        return fit_step(step, fitted, held_out, guidance, self.options.guided_weight, self.options.ridges, kind)

    def _finish_fit(self) -> None:
        """Forgets the sums, whose maps are solved, and saves."""
        self.progress.sums = None
        self.save()

    def _sums(
        self,
        step: int,
        sizes: tuple[int, int, int],
        chunks: Chunks,
        num_captions: int,
        observe: Callable[..., tuple[Tensor, Tensor, Tensor]],
    ) -> tuple[Moments, Moments]:
        """Sums over captions that are fitted on, and over those that choose the ridge, of all processes.

        What was summed before an interruption is kept. `sizes` are branches, inputs and outputs of `Moments`.
        """
        progress, options, num_branches, device = self.progress, self.options, sizes[0], chunks.sample.device
        device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
        if progress.step != step or progress.sums is None:
            zeros = Moments.zeros(*sizes, device)
            progress.step, progress.sums = step, (0, zeros, zeros)
        num_chunks, fitted, held_out = progress.sums
        progress.sums = num_chunks, fitted.to(device), held_out.to(device)  # those of a file are on the CPU
        try:
            for chunk in chunks.after(progress.sums[0]):
                num_chunks, fitted, held_out = progress.sums
                features, count = observe(*chunk), len(chunk[0]) // chunks.num_branches
                fits, chooses = self._divide(num_chunks * options.batch, count, num_captions)
                fitted = fitted.add(*(observations(x, num_branches, count, fits) for x in features))
                held_out = held_out.add(*(observations(x, num_branches, count, chooses) for x in features))
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
        return fitted, held_out

    def _count_captions(self, chunks: Chunks, target: Tensor, num_unknowns: int) -> int:
        """Returns the number of captions of all processes; refuses fewer observations than each map has inputs."""
        captions = chunks.num_captions
        frames, _, height, width = target.shape
        positions = frames // (captions * chunks.num_branches) * height * width
        # Shares of the captions may differ by one, and all processes have to come to the same answer.
        total = int(sum_over_processes(torch.tensor(captions)))
        require_enough_captions(total, num_unknowns, positions)
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
