"""The runner by itself: what it imports, and its solver against diffusers' own."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clockwork.adaptors import NO_HISTORY
from clockwork.exporting import runner
from clockwork.exporting.runner import Runner
from clockwork.exporting.solver_table import solver_table
from clockwork.sampling.denoisers import Denoised
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SETTINGS: dict[str, tuple[str, dict[str, Any], int]] = {
    "dpm++": ("dpm++", {}, 8),
    "dpm++ with one step": ("dpm++", {}, 1),
    "dpm++ with many steps": ("dpm++", {}, 20),
    "dpm++, last step of order 2": ("dpm++", {"final_sigmas_type": "sigma_min", "lower_order_final": False}, 6),
    "dpm++ of order 1": ("dpm++", {"solver_order": 1}, 5),
    "dpm++ with Karras' sigmas": ("dpm++", {"use_karras_sigmas": True}, 6),
    "ddim": ("ddim", {}, 8),
    "ddim, alpha of the last step not 1": ("ddim", {"set_alpha_to_one": False}, 4),
    "ddim, trailing timesteps": ("ddim", {"timestep_spacing": "trailing"}, 7),
}


def unet(sample: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """Stands for a UNet: a function of the sample, the timestep and the text that is not linear."""
    return torch.tanh(0.7 * sample + text.mean((1, 2))[:, None, None, None] + t / 1000)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", SETTINGS)
def test_solver_and_guidance_are_those_of_diffusers(name: str, prediction_type: str) -> None:
    solver_kind, settings, steps = SETTINGS[name]
    solver = make_solver(solver_kind, {**SCHEDULE, **settings, "prediction_type": prediction_type})
    rng = torch.Generator().manual_seed(0)
    noise, text = (torch.randn(shape, generator=rng) for shape in ((2, 4, 6, 6), (4, 3, 5)))

    def denoiser(sample: Tensor, t: Tensor, condition: Condition, *_: Any) -> Denoised:
        empty = torch.empty(0)
        return Denoised(unet(sample, t, condition.prompt_embeds), empty, empty, empty, True, NO_HISTORY)

    def graph(values: Mapping[str, Any]) -> list[Any]:
        tensors = [torch.from_numpy(values[key]) for key in ("sample", "timestep", "encoder_hidden_states")]
        return [unet(*tensors).numpy(), np.empty(0), np.empty(0)]

    alone = object.__new__(Runner)
    alone.full = alone.adaptor = graph
    alone.config = {
        "operating_point": {"guidance": 2.5},
        "solver": solver_table(solver, steps),
        "guided": True,
        "full_steps": [True] * steps,
        "num_full_steps": 0,
        "conditions": {"encoder_hidden_states": [3, 5]},
        "shapes": {"images": [1, 2], "channels": 4, "sides": [2, 8], "multiple": 2},
    }
    conditions = Condition(text[2:]), Condition(text[:2])
    *_, last = rollout(denoiser, solver, steps, noise, *conditions, 2.5)  # type: ignore[arg-type]
    latents = alone(noise.numpy(), text.numpy())
    np.testing.assert_allclose(latents, last.latents.numpy(), rtol=1e-4, atol=1e-4)


def test_the_runner_stands_alone() -> None:
    """It imports the standard library and numpy; a runtime when graphs are loaded."""
    nodes = list(ast.walk(ast.parse(Path(runner.__file__).read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    standard = {"collections.abc", "hashlib", "importlib", "json", "math", "pathlib", "typing"}
    assert names == {*standard, "numpy", "numpy.typing"}
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_runtime"]
    runtimes = {ast.literal_eval(call.args[0]) for call in calls}
    assert runtimes == {"onnxruntime", "openvino", "executorch.runtime", "torch"}
