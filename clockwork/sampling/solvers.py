"""The paper's solvers (Table 4) as diffusers schedulers, `lcm` for consistency models, `flow` for rectified flows."""

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
)

from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.sampling.rectified_flow import RectifiedFlow

SOLVERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "lcm": (LCMScheduler, {"clip_sample": False}),  # for teachers made by objective=consistency, and other LCMs
    "ddim_inverse": (DDIMInverseScheduler, {"clip_sample": False}),  # from the latent of an image to noise, for editing
    "flow": (RectifiedFlow, {}),
}

__getattr__ = renamed(__name__)


def make_solver(name: str, noise_schedule: Mapping[str, Any]) -> SchedulerMixin:
    """Creates a solver for a teacher's noise schedule.

    Args:
        name: A key of `SOLVERS`.
        noise_schedule: Config of the teacher's scheduler: betas, prediction type, spacing of timesteps.

    Returns:
        A diffusers scheduler, without timesteps.

    Raises:
        UserError: If the name is unknown, or the solver does not fit what the teacher predicts.
    """
    if name not in SOLVERS:
        raise UserError(f"solver {name!r} is not known: use one of {', '.join(SOLVERS)}")
    prediction_type = noise_schedule.get("prediction_type")
    if (name == "flow") != (prediction_type == "flow"):
        raise UserError(
            f"solver {name} does not fit this teacher, which predicts {prediction_type}: use solver=flow for "
            "rectified flows (InstaFlow), and only for them"
        )
    solver_class, options = SOLVERS[name]
    return solver_from_config(solver_class, noise_schedule, **options)


def solver_from_config(solver_class: type[SchedulerMixin], config: Mapping[str, Any], **options: Any) -> SchedulerMixin:
    """Creates a solver from a config, without diffusers' notice that the solver `dpm` of the paper is deprecated.

    Args:
        solver_class: The class of the solver.
        config: Config of a scheduler of any class.
        options: Settings that replace those of the config.

    Returns:
        A diffusers scheduler, without timesteps.
    """
    if {**config, **options}.get("algorithm_type") != "dpmsolver":
        return solver_class.from_config(config, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`algorithm_types dpmsolver and sde-dpmsolver`", FutureWarning)
        return solver_class.from_config(config, **options)


def num_unet_calls(name: str, noise_schedule: Mapping[str, Any], steps: int) -> int:
    """Returns the number of UNet calls of a roll-out. PNDM calls the UNet once more than it has steps.

    Args:
        name: A key of `SOLVERS`.
        noise_schedule: Config of the teacher's scheduler.
        steps: Number of solver steps.

    Raises:
        UserError: If the solver is unknown or does not fit the teacher, or cannot take so many steps.
    """
    solver = make_solver(name, noise_schedule)
    if name == "lcm" and steps > solver.config.original_inference_steps:
        raise UserError(
            f"solver lcm takes at most {solver.config.original_inference_steps} steps, not {steps}: pass fewer steps"
        )
    solver.set_timesteps(steps)
    return len(solver.timesteps)


def solver_settings(solver: SchedulerMixin) -> dict[str, Any]:
    """Returns the settings of a solver that are not defaults of its class, as plain data.

    Defaults are left out because diffusers adds new ones with every version, and so are settings that a config has
    taken over from another class of solver, which this one does not read.

    Args:
        solver: A diffusers scheduler.
    """
    parameters = inspect.signature(type(solver).__init__).parameters
    return {
        name: _plain(value)
        for name, value in solver.config.items()
        if name in parameters and _plain(value) != _plain(parameters[name].default)
    }


def _plain(value: Any) -> Any:
    """Converts a setting to what JSON gives back: betas may be an array, and sequences are lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def timesteps_of_caller(solver: SchedulerMixin, steps: int, position: int) -> list[float] | None:
    """Returns the timesteps of a roll-out unless they are those that the solver chooses for a number of steps.

    Args:
        solver: A diffusers scheduler, with timesteps.
        steps: The number of steps.
        position: Index of the first timestep that is used; not 0 where an image is changed (`strength`).
    """
    by_solver = copy.copy(solver)  # `set_timesteps` replaces attributes: nothing of the caller's solver is changed
    by_solver.set_timesteps(steps)
    # `tolist` before anything else: it waits for the device once.
    timesteps = [float(t) for t in solver.timesteps.tolist()[position:]]
    return None if timesteps == [float(t) for t in by_solver.timesteps.tolist()] else timesteps


def solver_name(solver: SchedulerMixin) -> str:
    """Returns the name of a solver.

    Args:
        solver: A diffusers scheduler.

    Returns:
        Its key in `SOLVERS`, or the name of its class if it has none.
    """
    for name, (solver_class, options) in SOLVERS.items():
        if type(solver) is solver_class and all(solver.config.get(k) == v for k, v in options.items()):
            return name
    return type(solver).__name__
