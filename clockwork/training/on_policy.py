"""The denoisers of training roll-outs: on adaptor steps they give the adaptor's target beside their own result."""

from dataclasses import dataclass, replace

from torch import Tensor

from clockwork.adaptors import Adaptor, History
from clockwork.sampling.denoisers import Denoised, FullDenoiser, arguments
from clockwork.sampling.steps import EAGER, AdaptorInputs, StepFunctions, estimate
from clockwork.schedule import Schedule
from clockwork.teachers import Condition
from clockwork.unet.split import SplitUNet


@dataclass(frozen=True, kw_only=True)
class WithTarget(Denoised):
    """The result of a step of a training roll-out.

    Attributes:
        sample: The latents that entered the step, scaled for the UNet, `batch × channels × height × width`.
        target: `r_out` of the teacher's low-res path on these latents, `batch × channels × height × width`.
        past: What the adaptor reads of the steps before.
    """

    sample: Tensor
    target: Tensor
    past: History


@dataclass(frozen=True)
class TrainingDenoiser:
    """Runs the low-res path on every step, and on adaptor steps perhaps the adaptor, whose estimate then goes on.

    Attributes:
        split: The UNet with its cut.
        adaptor: The adaptor in training; None if its inputs are unknown.
        schedule: Which steps are full.
        on_policy: Whether adaptor steps go on with the adaptor's estimate, as at inference, or with the target.
        functions: What runs the full UNet.
    """

    split: SplitUNet
    adaptor: Adaptor | None
    schedule: Schedule
    on_policy: bool
    functions: StepFunctions = EAGER

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> WithTarget:
        """Runs one step; arguments are those of `Denoiser`."""
        full = self.schedule.is_full(step)
        if full or not self.on_policy or self.adaptor is None:
            denoised = FullDenoiser(self.split, functions=self.functions)(sample, t, condition, step, history)
            target = denoised.r_out
        else:
            embedded = self.split.embed(**arguments(self.split, sample, t, condition))
            high = self.split.high_in(embedded)
            target = self.split.low(high, embedded)
            inputs = AdaptorInputs(condition.text_emb, condition.branch, step, history)
            r_out = estimate(self.adaptor, high.r_in, embedded.t_emb, inputs)
            output = self.split.high_out(r_out, high, embedded)
            denoised = Denoised(output, high.r_in, r_out, embedded.t_emb, full)
        after = history.after(self.adaptor, step, denoised.r_in, denoised.r_out, denoised.output, full)
        values = vars(replace(denoised, history=after))
        return WithTarget(**values, sample=sample, target=target, past=history)
