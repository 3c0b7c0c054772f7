"""The paper's solvers (Table 4), as diffusers objects on a teacher's noise schedule; `flow` for rectified flows."""

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMInverseScheduler, DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, SchedulerMixin

from clockwork.errors import UserError
from clockwork.sampling.rectified_flow import RectifiedFlow

SOLVERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddim_inverse": (DDIMInverseScheduler, {"clip_sample": False}),  # from a picture's latent to noise: editing's
    "flow": (RectifiedFlow, {}),
}


def make_solver(name: str, noise_schedule: Mapping[str, Any]) -> SchedulerMixin:
    """A fresh solver; `noise_schedule` is the config of the teacher's own scheduler (betas, prediction)."""
    if name not in SOLVERS:
        raise UserError(f"no solver {name!r}: choose among {', '.join(SOLVERS)}")
    predicts = noise_schedule.get("prediction_type")
    if (name == "flow") != (predicts == "flow"):
        raise UserError(
            f"solver {name} does not go with this teacher, which predicts {predicts}: solver=flow is for teachers of "
            "rectified flows (InstaFlow), and they need it"
        )
    kind, options = SOLVERS[name]
    return kind.from_config(noise_schedule, **options)


def timesteps(name: str, noise_schedule: Mapping[str, Any], steps: int) -> int:
    """How many denoiser calls `steps` steps take: PNDM makes one more."""
    solver = make_solver(name, noise_schedule)
    solver.set_timesteps(steps)
    return len(solver.timesteps)


def solver_name(solver: SchedulerMixin) -> str:
    """What we call it, or its class's name where it is none of ours."""
    for name, (kind, options) in SOLVERS.items():
        if type(solver) is kind and all(solver.config.get(k) == v for k, v in options.items()):
            return name
    return type(solver).__name__
