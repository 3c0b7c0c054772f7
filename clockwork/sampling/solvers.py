"""The paper's solvers (Table 4), as diffusers objects on a teacher's noise schedule; `flow` for rectified flows."""

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMInverseScheduler, DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, SchedulerMixin

from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.sampling.rectified_flow import RectifiedFlow

SOLVERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddim_inverse": (DDIMInverseScheduler, {"clip_sample": False}),  # from an image's latent to noise, for editing
    "flow": (RectifiedFlow, {}),
}

__getattr__ = renamed(__name__)


def make_solver(name: str, noise_schedule: Mapping[str, Any]) -> SchedulerMixin:
    """Builds a solver.

    Args:
        name: A key of `SOLVERS`.
        noise_schedule: The config of the teacher's own scheduler (betas, prediction type, spacing of timesteps).

    Raises:
        UserError: The name is unknown, or the solver does not fit what the teacher predicts.
    """
    if name not in SOLVERS:
        raise UserError(f"solver {name!r} is not known: use one of {', '.join(SOLVERS)}")
    predicts = noise_schedule.get("prediction_type")
    if (name == "flow") != (predicts == "flow"):
        raise UserError(
            f"solver {name} does not fit this teacher, which predicts {predicts}: use solver=flow for rectified flows "
            "(InstaFlow), and only for them"
        )
    kind, options = SOLVERS[name]
    return kind.from_config(noise_schedule, **options)


def num_unet_calls(name: str, noise_schedule: Mapping[str, Any], steps: int) -> int:
    """The number of UNet calls that `steps` solver steps take: PNDM makes one more than it has steps."""
    solver = make_solver(name, noise_schedule)
    solver.set_timesteps(steps)
    return len(solver.timesteps)


def solver_settings(solver: SchedulerMixin) -> dict[str, Any]:
    """What its config sets, as plain data; without what it leaves to the class, which differs from one solver to
    another and grows with diffusers' versions."""
    left_open = solver.config.get("_use_default_values", [])
    return {k: v for k, v in solver.config.items() if k not in left_open and not k.startswith("_")}


def solver_name(solver: SchedulerMixin) -> str:
    """The solver's key in `SOLVERS`, or its class's name if it has none."""
    for name, (kind, options) in SOLVERS.items():
        if type(solver) is kind and all(solver.config.get(k) == v for k, v in options.items()):
            return name
    return type(solver).__name__
