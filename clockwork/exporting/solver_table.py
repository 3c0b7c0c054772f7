"""The numbers that a solver needs on each step, so that the runner computes steps without its code."""

from typing import Any

from clockwork.errors import UserError
from clockwork.sampling.solvers import solver_from_config, solver_name

EXPORTED_SOLVERS = ("dpm++", "ddim")


def solver_table(solver: Any, steps: int) -> dict[str, Any]:
    """Returns the timesteps of a roll-out, and for each the numbers of a step of DPM-Solver++ (Lu et al. 2022).

    DDIM is its first order.

    Args:
        solver: A diffusers scheduler.
        steps: Number of solver steps.

    Returns:
        As plain data: `timesteps`; `alphas_cumprod` before each step and `alphas_cumprod_next` after it, the squared
        shares of signal in the latents; `orders`; `prediction_type`.

    Raises:
        UserError: If the solver is neither DPM++ up to order 2 nor DDIM, or has settings that the runner does not know.
    """
    name, config = solver_name(solver), solver.config
    if name not in EXPORTED_SOLVERS:
        raise UserError(f"solver {name} cannot be exported: use {' or '.join(EXPORTED_SOLVERS)}")
    if refused := _refused_settings(name, config):
        raise UserError(f"solver {name} with {refused} cannot be exported: make one with clockwork's solver={name}")
    solver = solver_from_config(type(solver), config)
    solver.set_timesteps(steps)
    before, after, orders = _dpm(solver) if name == "dpm++" else _ddim(solver, steps)
    return {
        "timesteps": solver.timesteps.tolist(),
        "alphas_cumprod": before,
        "alphas_cumprod_next": after,
        "orders": orders,
        "prediction_type": config.prediction_type,
    }


def _refused_settings(name: str, config: Any) -> str | None:
    """Names a setting that changes a step in a way that the table does not hold, if there is one."""
    refused = {"thresholding": True, "rescale_betas_zero_snr": True}
    if name == "ddim":
        refused |= {"clip_sample": True}
    elif config.solver_order > 2:
        return f"solver_order={config.solver_order}"
    elif config.solver_type != "midpoint":
        return f"solver_type={config.solver_type}"
    return next((f"{key}={value}" for key, value in refused.items() if config.get(key) == value), None)


def _dpm(solver: Any) -> tuple[list[float], list[float], list[int]]:
    """Returns the columns of DPM++; its first step, and its last in some cases, is of order 1, as in diffusers."""
    config, signal = solver.config, [1 / (1 + sigma**2) for sigma in solver.sigmas.double().tolist()]
    orders = [1] + [config.solver_order] * (len(signal) - 2)
    few = config.lower_order_final and len(orders) < 15
    if few or config.euler_at_final or config.final_sigmas_type == "zero":
        orders[-1] = 1
    return signal[:-1], signal[1:], orders


def _ddim(solver: Any, steps: int) -> tuple[list[float], list[float], list[int]]:
    """Returns the columns of DDIM."""
    signal, stride = solver.alphas_cumprod.double().tolist(), solver.config.num_train_timesteps // steps
    timesteps = solver.timesteps.tolist()
    after = [signal[t - stride] if t >= stride else float(solver.final_alpha_cumprod) for t in timesteps]
    return [signal[t] for t in timesteps], after, [1] * len(timesteps)
