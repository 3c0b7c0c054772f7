"""The model card of an adaptor, which is its page on the hub."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

COSTS = ("tflops_paper", "tflops_full", "latency_ms")


def model_card(config: Mapping[str, Any]) -> str:
    """Writes the model card of an adaptor.

    Args:
        config: Contents of the adaptor's `config.json`. Its `row`, if any, becomes a table of measurements, with
            `row_labels` where it has them.

    Returns:
        Markdown with the hub's YAML header.
    """
    point, row = config["operating_point"], config.get("row") or {}
    metrics = row["metrics"] if isinstance(row.get("metrics"), Mapping) else {}  # a text in rows of earlier versions
    measured = {**metrics, **{name: row[name] for name in COSTS if row.get(name) is not None}}
    labels = {name: config.get("row_labels", {}).get(name, name) for name in measured}
    title = f"Clockwork {config['kind']} adaptor for {point['teacher']}"
    header = ModelCardData(
        library_name="clockwork",
        pipeline_tag="text-to-image",
        tags=["clockwork", "diffusers", "arxiv:2312.08128"],
        base_model=config.get("base_model"),
        model_name=title,
        eval_results=_results(row, measured, labels) or None,
        ignore_metadata_errors=False,
    )
    parts = [f"---\n{header.to_yaml()}\n---", f"# {title}", _ABOUT, _table("operating point", point)]
    if config.get("calibration"):
        parts.append(_calibration(config["calibration"]))
    if measured:
        conditions = (
            f"Measured with {row['images']} images, seed {row['seed']}, on {row['device']} ({row['versions']})."
        )
        parts += [conditions, _table("measured", {labels[name]: f"{value:.6g}" for name, value in measured.items()})]
    return "\n\n".join(parts) + "\n"


_ABOUT = """On most sampling steps this small module replaces the low-resolution path of the teacher's UNet
([Clockwork Diffusion](https://arxiv.org/abs/2312.08128)). It was made for the operating point below. At another
operating point a warning is issued; with another teacher an error is raised.

```python
import clockwork

clockwork.enable(pipe, adaptor="<this repository's name, or a folder>")
```"""


def _results(row: Mapping[str, Any], measured: Mapping[str, float], labels: Mapping[str, str]) -> list[EvalResult]:
    """Converts the measurements of a row to the hub's format."""
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type="prompts",
            dataset_name=f"{row['images']} prompts ({row['prompts']})",
            metric_type=name,
            metric_name=labels[name],
            metric_value=value,
        )
        for name, value in measured.items()
    ]


def _calibration(figures: Mapping[str, Any]) -> str:
    """Describes how an adaptor was fitted in closed form."""
    count = figures.get("captions", figures.get("prompts"))  # of the command, of `clockwork.calibrate`
    captions = f" on {count} captions" if count else ""
    text = (
        f"It was fitted in closed form{captions} in {figures['seconds']:.3g} seconds, one least-squares problem per "
        "adaptor step. Errors are relative L2 errors of `r_out` after guidance."
    )
    lines = [
        f"| {fit['step']} | {fit['error']:.3f} | {fit['identity_error']:.3f} |" for fit in figures.get("steps", ())
    ]
    table = "\n".join(["| step | error | identity's error |", "|---|---|---|", *lines])
    return f"{text}\n\n{table}" if lines else text


def _table(title: str, values: Mapping[str, Any]) -> str:
    """Writes a Markdown table of two columns."""
    lines = [f"| {title} | |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in values.items()])
