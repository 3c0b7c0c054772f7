"""Runs an exported pair of graphs with numpy and the runtime of its format: onnxruntime, OpenVINO, ExecuTorch, torch.

The file needs neither Clockwork nor diffusers: copy it beside an exported folder.

    latents = Runner("exported")(noise, prompt_embeds)
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIG, OUTPUTS = "config.json", ("output", "r_in", "r_out")
STOP_SPINNING = ("session.force_spinning_stop", "1")  # of onnxruntime's threads after a run; the other graph runs next
Array = NDArray[Any]
Graph = Callable[[Mapping[str, Array]], list[Array]]  # from inputs by name to the prediction, r_in and r_out


class RunnerError(ValueError):
    """A mistake that the user can correct. The message is one sentence: what is wrong, and what to do."""


class Runner:
    """Samples latents with an exported pair of graphs: solver, guidance, clock, and the features between steps.

    Args:
        folder: The folder that `clockwork.export` wrote. Load your own `.pt2` graphs only: they may unpickle objects.
        **options: Arguments of `onnxruntime.InferenceSession`, such as `providers`, or of `openvino.compile_model`,
            such as `device_name`; by default the graphs run on the CPU in float32.

    Attributes:
        config: The contents of `config.json`: operating point, solver and shapes.
        full: The graph of the full step: a function of arrays by name that returns prediction, `r_in` and `r_out`.
        adaptor: The graph of the adaptor step.

    Raises:
        RunnerError: If a file is missing or belongs to another export, or the format's package is not installed.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:
        self.config: dict[str, Any] = json.loads(_existing(Path(folder, CONFIG)).read_text(encoding="utf-8"))
        format = self.config["format"]
        files = [_existing(Path(folder, f"{name}.{SUFFIXES.get(format, format)}")) for name in ("full", "adaptor")]
        self.full, self.adaptor = (LOADERS[format](file, self.config, options) for file in files)

    def __call__(self, noise: Array, prompt_embeds: Array, **conditions: Array) -> Array:
        """Samples latents.

        Args:
            noise: Standard normal noise, `images × channels × height × width`.
            prompt_embeds: Text features, `images × tokens × width`; with guidance `2 images × tokens × width`, those of
                the negative prompts first.
            **conditions: What else the graphs read, each with as many rows as `prompt_embeds`: `text_embeds` and
                `time_ids` of SDXL, `timestep_cond` of UNets that are conditioned on the guidance scale, `text_emb` (the
                OpenCLIP embeddings) of adaptors that read text.

        Returns:
            The latents, `images × channels × height × width`, in float32.

        Raises:
            RunnerError: If an input is missing, unknown, or outside the exported shapes.
        """
        guidance, solver = self.config["operating_point"]["guidance"], self.config["solver"]
        guided, images = self.config["guided"], len(noise)
        conditions = {"encoder_hidden_states": prompt_embeds, **conditions}
        self._check_noise(noise)
        self._check_conditions(conditions, images * (2 if guided else 1))
        given: dict[str, Array] = {name: np.asarray(value, np.float32) for name, value in conditions.items()}
        given["conditional"] = np.arange(2 * images) >= images  # read with guidance only
        latents, clean, past = np.asarray(noise, np.float32), None, dict[str, Array]()
        for i, timestep in enumerate(solver["timesteps"]):
            sample = np.concatenate([latents, latents]) if guided else latents
            values = {**given, "sample": sample, "timestep": np.asarray(timestep, np.int64)}
            if is_full := self.config["full_steps"][i]:
                output, r_in, r_out = self.full(values)
            else:
                output, r_in, r_out = self.adaptor({**values, **past, "step": np.asarray(i + 1, np.int64)})
            past = self.remember(past, i + 1, r_in, r_out, is_full)
            if guided:
                unconditional, conditional = np.split(output, 2)
                output = unconditional + guidance * (conditional - unconditional)
            previous, clean = clean, self._clean_latents(output, latents, solver["alphas_cumprod"][i])
            latents = self._solver_step(latents, clean, previous, i)
        return latents

    def remember(
        self, past: Mapping[str, Array], step: int, r_in: Array, r_out: Array, is_full: bool
    ) -> dict[str, Array]:
        """Returns what the adaptor graph reads of the steps so far; the latest full step has number 0.

        Args:
            past: The result of the previous step; empty before the first.
            step: The step, from 1.
            r_in: The step's `r_in`, `batch × channels × height × width`.
            r_out: The step's `r_out`, `batch × channels × height × width`.
            is_full: Whether the step was a full one.
        """
        result = {**past, "r_in_prev": r_in, "r_out_prev": r_out}
        if is_full:
            for name, value in (("step", np.asarray(step, np.int64)), ("r_in", r_in), ("r_out", r_out)):
                result[f"full_{name}_0"] = value
                for number in range(1, self.config["num_full_steps"]):  # where there is none, the first is repeated
                    result[f"full_{name}_{number}"] = past.get(f"full_{name}_{number - 1}", value)
        return result

    def _clean_latents(self, output: Array, latents: Array, alpha_cumprod: float) -> Array:
        """Returns the estimate of the latents without noise."""
        alpha, sigma = math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod)
        prediction_type = self.config["solver"]["prediction_type"]
        if prediction_type == "sample":
            return output
        if prediction_type == "v_prediction":
            return alpha * latents - sigma * output
        return (latents - sigma * output) / alpha

    def _solver_step(self, latents: Array, clean: Array, previous: Array | None, i: int) -> Array:
        """Takes a step of DPM-Solver++ (Lu et al. 2022, Algorithm 2); DDIM is its first order."""
        solver = self.config["solver"]
        before, after = solver["alphas_cumprod"][i], solver["alphas_cumprod_next"][i]
        if after >= 1:
            return clean
        h = _half_log_snr(after) - _half_log_snr(before)
        direction = clean
        if solver["orders"][i] == 2 and previous is not None:
            ratio = (_half_log_snr(before) - _half_log_snr(solver["alphas_cumprod"][i - 1])) / h
            direction = clean + (clean - previous) / (2 * ratio)
        return math.sqrt((1 - after) / (1 - before)) * latents - math.sqrt(after) * math.expm1(-h) * direction

    def _check_noise(self, noise: Array) -> None:
        """Refuses noise outside the exported shapes."""
        shapes = self.config["shapes"]
        (fewest, most), (least, largest), multiple = shapes["images"], shapes["sides"], shapes["multiple"]
        if noise.ndim != 4 or noise.shape[1] != shapes["channels"]:
            raise RunnerError(f"noise of shape {noise.shape} is not images × {shapes['channels']} × height × width")
        if not fewest <= len(noise) <= most:
            raise RunnerError(f"{len(noise)} images are outside the exported range: pass {fewest} to {most} at a time")
        if any(side % multiple or not least <= side <= largest for side in noise.shape[2:]):
            raise RunnerError(
                f"latents of {noise.shape[2]} × {noise.shape[3]} are outside the exported range: use multiples of "
                f"{multiple} from {least} to {largest}"
            )

    def _check_conditions(self, conditions: Mapping[str, Array], batch: int) -> None:
        """Refuses conditions that are missing or unknown, or have another shape."""
        expected = self.config["conditions"]
        if missing := expected.keys() - conditions.keys():
            raise RunnerError(f"the graphs read {', '.join(sorted(missing))} as well: pass it by name")
        if unknown := conditions.keys() - expected.keys():
            raise RunnerError(f"the graphs do not read {', '.join(sorted(unknown))}: leave it out")
        for name, shape in expected.items():
            if conditions[name].shape != (batch, *shape):
                label = "prompt_embeds" if name == "encoder_hidden_states" else name
                sizes = " × ".join(map(str, (batch, *shape)))
                raise RunnerError(f"{label} has shape {conditions[name].shape}: pass {sizes} for these images")


def pair_id(config: Mapping[str, Any]) -> str:
    """Returns the identifier that both graphs of an export carry.

    Args:
        config: The contents of `config.json`.
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def _half_log_snr(alpha_cumprod: float) -> float:
    """Returns log(α / σ)."""
    return 0.5 * math.log(alpha_cumprod / (1 - alpha_cumprod))


def _existing(file: Path) -> Path:
    """Returns a file that exists, or refuses."""
    if not file.is_file():
        raise RunnerError(f"{file} does not exist: pass a folder that clockwork.export wrote, with all of its files")
    return file


def _check_pair(file: Path, pair: str | None, config: Mapping[str, Any]) -> None:
    """Refuses a graph that carries another identifier than that of the config."""
    if pair != pair_id(config):
        raise RunnerError(f"{file} and {CONFIG} beside it belong to different exports: copy all files of one export")


def _runtime(module: str) -> Any:
    """Imports the runtime of a format, or refuses."""
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise RunnerError(f"{package} is not installed: pip install {package}") from None


def _load_onnx(file: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> Graph:
    """Loads an ONNX graph."""
    onnxruntime = _runtime("onnxruntime")
    defaults = {"sess_options": onnxruntime.SessionOptions(), "providers": ["CPUExecutionProvider"]}
    defaults["sess_options"].add_session_config_entry(*STOP_SPINNING)
    session = onnxruntime.InferenceSession(str(file), **{**defaults, **options})
    _check_pair(file, session.get_modelmeta().custom_metadata_map.get("pair"), config)
    inputs = session.get_inputs()
    return lambda values: list(session.run(OUTPUTS, {x.name: values[x.name] for x in inputs}))


def _load_openvino(file: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> Graph:
    """Loads a graph of OpenVINO, in float32 also on a CPU with units for half precision."""
    openvino, _ = _runtime("openvino"), _existing(file.with_suffix(".bin"))
    model = openvino.Core().read_model(file)
    _check_pair(file, model.get_rt_info("pair").astype(str) if model.has_rt_info("pair") else None, config)
    defaults = {"device_name": "CPU", "config": {"INFERENCE_PRECISION_HINT": "f32"}}
    compiled = openvino.compile_model(model, **{**defaults, **options})
    names = [value.get_any_name() for value in compiled.inputs]
    return lambda values: list(compiled({name: values[name] for name in names}).values())


def _load_executorch(file: Path, config: Mapping[str, Any], _: Mapping[str, Any]) -> Graph:
    """Loads a graph of ExecuTorch, whose Python runtime takes tensors of torch."""
    torch, program = _runtime("torch"), _runtime("executorch.runtime").Runtime.get().load_program(file)
    _check_pair(file, program.load_method("pair").execute([])[0], config)
    forward, names = program.load_method("forward"), config["inputs"][file.stem]

    def run(values: Mapping[str, Array]) -> list[Array]:
        inputs = [torch.from_numpy(np.array(values[name])) for name in names]
        return [output.numpy().copy() for output in forward.execute(inputs)]  # the next run overwrites its memory

    return run


def _load_pt2(file: Path, config: Mapping[str, Any], _: Mapping[str, Any]) -> Graph:
    """Loads a graph of `torch.export`."""
    torch, extra_files = _runtime("torch"), {"pair": ""}
    program = torch.export.load(file, extra_files=extra_files)
    _check_pair(file, extra_files["pair"], config)
    # Shapes have been checked. The guards would refuse one image where a size of 1 could have taken another branch.
    module, names = program.module(check_guards=False), config["inputs"][file.stem]

    @torch.no_grad()
    def run(values: Mapping[str, Array]) -> list[Array]:
        return [output.numpy() for output in module(*(torch.from_numpy(values[name]) for name in names))]

    return run


LOADERS = {"onnx": _load_onnx, "pt2": _load_pt2, "openvino": _load_openvino, "executorch": _load_executorch}
SUFFIXES = {"openvino": "xml", "executorch": "pte"}  # of files; those of other formats are their names
