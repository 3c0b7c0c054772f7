"""The tables of docs/calibration.md on the miniature: `make calibration-tables`.

Each figure is the PSNR in dB to the teacher's images at the same steps, of captions that no calibration uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from clockwork.adaptors import Identity, Linear
from clockwork.calibration.fit import calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.evaluation.text_to_image import full_teacher
from clockwork.experiments.calibrate import draw
from clockwork.flops.cost import image_flops
from clockwork.metrics.similarity import PSNR
from clockwork.miniature.prompts import scene_prompts
from clockwork.reports.formats import markdown
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.unet.split import SplitUNet

OTHER = "a blue circle"
SCALES = (1.5, 3.0, 5.0, 7.5)
RANKS = (4, 8, 16)


@dataclass(frozen=True)
class Tables:
    """Fits linear adaptors at 8 steps, clock 2 and guidance 3, and measures them.

    Attributes:
        teacher: The miniature.
        captions: Number of test captions.
        counts: Numbers of calibration captions; the last one is that of the fits with other options.
        of_teacher: The teacher's images that are generated so far, by guidance scale and negative prompt.
    """

    teacher: Teacher
    captions: int = 64
    counts: tuple[int, ...] = (8, 32, 128)
    of_teacher: dict[tuple[float, str], Tensor] = field(default_factory=dict)

    def print(self) -> None:
        """Prints the four tables as Markdown."""
        for table in (self.options, self.positive_only, self.negatives, self.scales):
            print(f"\n{table()}", flush=True)

    def options(self) -> str:
        """What captions, terms, rank and joint maps give, at two cuts."""
        most = self.counts[-1]
        fits = {str(count): (count, FitOptions(batch=32)) for count in self.counts}
        fits |= {f"{most}, rank {rank}": (most, FitOptions(rank=rank, batch=32)) for rank in RANKS}
        fits[f"{most}, `r_in` and `r_out_prev` only"] = most, FitOptions(("r_out_prev", "r_in"), batch=32)
        fits[f"{most}, `guided_weight=0`"] = most, FitOptions(guided_weight=0, batch=32)
        fits |= {f"{count}, `joint`": (count, FitOptions(joint=True, batch=32)) for count in self.counts[1:]}
        rows = []
        for cut in ("stage1", "layer1"):
            identity = self.sampler(cut)
            fitted = [self.fit(identity, count, options=options) for count, options in fits.values()]
            rows.append([f"`{cut}`", *(self.psnr(sampler) for sampler in (identity, *fitted))])
        return markdown(["cut", "identity", *fits], rows)

    def positive_only(self) -> str:
        """Adaptor steps of both halves of guidance and of the positive one only: GFLOPs per image, and PSNR."""
        both, positive = (FitOptions(positive_only=only, batch=32) for only in (False, True))
        rows = []
        for cut in ("stage1", "layer1"):
            identity = self.sampler(cut)
            fits = {f"both halves, {count}": (count, both) for count in self.counts[1:]}
            fits |= {f"positive only, {count}": (count, positive) for count in self.counts[1:]}
            for name, (count, options) in fits.items():
                fitted = self.fit(identity, count, options=options)
                flops = image_flops(fitted)
                gflops = (f"{number / 1e9:.2f}" for number in (flops.full, flops.paper))
                rows.append([f"`{cut}`", name, *gflops, self.psnr(fitted)])
        return markdown(["cut", "adaptor steps, captions", "GFLOPs, `full`", "GFLOPs, `paper`", "PSNR"], rows)

    def negatives(self) -> str:
        """Negative prompts that the maps were fitted on, and others."""
        identity, fitted = self.sampler(), [self.fitted, self.fitted_on([OTHER]), self.fitted_on(["", OTHER])]
        rows = [
            [name, *(self.psnr(sampler, negative=text) for sampler in (identity, *fitted, self.fitted_jointly))]
            for name, text in (("the empty prompt", ""), (f"`{OTHER}`", OTHER))
        ]
        names = ['fitted on `""`', f"fitted on `{OTHER}`", "fitted on both in turn", '`joint`, fitted on `""`']
        return markdown(["sampled with", "identity", *names], rows)

    def scales(self) -> str:
        """Guidance scales that the maps were not fitted on."""
        samplers = self.sampler(), self.fitted, self.fitted_jointly
        rows = [[f"{g:g}", *(self.psnr(replace(sampler, guidance=g)) for sampler in samplers)] for g in SCALES]
        return markdown(["guidance", "identity", "fitted at 3", "`joint`, fitted at 3"], rows)

    @cached_property
    def fitted(self) -> Sampler:
        """Fitted on the empty negative prompt."""
        return self.fitted_on([""])

    @cached_property
    def fitted_jointly(self) -> Sampler:
        """The same with joint maps."""
        return self.fit(self.sampler(), self.counts[-1] // 2, options=FitOptions(joint=True, batch=32))

    def fitted_on(self, negatives: Sequence[str]) -> Sampler:
        """Fitted on some negative prompts."""
        return self.fit(self.sampler(), self.counts[-1] // 2, negatives)

    def sampler(self, cut: str = "stage1") -> Sampler:
        """The operating point with the identity adaptor."""
        identity = Identity(feature_dims(self.teacher, cut))
        split = SplitUNet(self.teacher.unet, cut)
        return Sampler(self.teacher, split, Schedule.parse("clock2"), "dpm++", 8, 3.0, identity, "identity")

    def fit(
        self, sampler: Sampler, count: int, negatives: Sequence[str] = ("",), options: FitOptions | None = None
    ) -> Sampler:
        """The operating point with an adaptor that is fitted on the captions that `scripts/calibrate.py` draws."""
        prompts = draw(scene_prompts("train", 50_000), count, seed=0)
        result = calibrate_sampler(sampler, prompts, negatives, options=options or FitOptions(batch=32))
        assert isinstance(result.adaptor, Linear)
        return result.sampler

    def psnr(self, sampler: Sampler, negative: str = "") -> str:
        """Compares the images of the test captions with the teacher's."""
        key = sampler.guidance, negative
        if key not in self.of_teacher:
            self.of_teacher[key] = self._images(full_teacher(sampler), negative)
        ratios = PSNR().of_pairs(self._images(sampler, negative).float(), self.of_teacher[key].float())
        return f"{ratios.mean():.2f}"

    def _images(self, sampler: Sampler, negative: str) -> Tensor:
        """Generates the images of the test captions."""
        prompts = scene_prompts("test", self.captions)
        condition, empty = sampler.conditions([prompt.text for prompt in prompts])
        unconditional = self.teacher.encode([negative], False) if negative else empty
        noise = self.teacher.noise([prompt.id for prompt in prompts])
        return self.teacher.decode(sampler.latents_of((condition, unconditional), noise))


if __name__ == "__main__":
    Tables(load_teacher("miniature", guidance=3.0, device="cpu")).print()
