"""What the hook of `clockwork.enable` costs: an image of a UNet whose steps are computed already."""

from collections.abc import Callable
from types import SimpleNamespace

from clockwork.adaptors import Adaptor
from clockwork.pipeline.enable import replace_hook
from clockwork.pipeline.hook import ClockHook
from clockwork.rivals.base import shared_copy
from clockwork.sampling.denoisers import ClockworkDenoiser, arguments
from clockwork.sampling.solvers import make_solver
from clockwork.sampling.steps import StepFunctions, full_step
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

STEPS = 50


def hook_image(teacher: Teacher, cut: str, adaptor: Adaptor) -> tuple[Callable[[], None], ClockHook]:
    """Prepares the UNet calls of a guided image of `STEPS` steps with the schedule `clock2`, without their computation.

    What is left is the bookkeeping: which step it is, what the adaptor receives, and the log.

    Args:
        teacher: The teacher, whose UNet is not changed.
        cut: Where the UNet is split.
        adaptor: The adaptor, which does not run.

    Returns:
        A function that makes the calls, and the hook.
    """
    solver = make_solver("ddim", teacher.noise_schedule)
    solver.set_timesteps(STEPS, device=teacher.device)
    unet = shared_copy(teacher.unet)
    pipe = SimpleNamespace(unet=unet, scheduler=solver, guidance_scale=2.0, do_classifier_free_guidance=True)
    split = SplitUNet(unet, cut)
    call = arguments(split, teacher.noise([0, 1]), solver.timesteps[0], teacher.encode(["", ""], False))
    features = full_step(split, call)
    computed = StepFunctions(full=lambda *_: features, adaptor=lambda *_: features)
    placed = adaptor.to(teacher.device, unet.dtype).requires_grad_(False)
    denoiser = ClockworkDenoiser(split, placed, Schedule.parse("clock2"), computed)
    hook = ClockHook(pipe, denoiser, (teacher.name, ""))
    replace_hook(pipe, hook)

    def image() -> None:
        for t in solver.timesteps:
            unet(**{**call, "timestep": t}, return_dict=False)

    return image, hook
