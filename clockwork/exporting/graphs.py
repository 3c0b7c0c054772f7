"""The full step and the adaptor step as graphs of `torch.export`, with dynamic batch, height and width."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from clockwork.adaptors import Adaptor, FullStep, History
from clockwork.sampling.feature_shapes import meta_call
from clockwork.sampling.steps import AdaptorInputs, Features, adaptor_step, full_step
from clockwork.unet.split import SplitUNet

OUTPUTS = ("output", "r_in", "r_out")
ADDED = ("text_embeds", "time_ids")  # SDXL's, which `unet.forward` takes in `added_cond_kwargs`
MAX_IMAGES, MAX_SIDE = 16, 256  # so that no tensor has more elements than upsamplers of diffusers treat alike


@dataclass(frozen=True)
class GraphInputs:
    """Example inputs of a graph.

    Attributes:
        tensors: The inputs by name, in their order.
        dims: The dynamic axes of each, as `torch.export` takes them; none for graphs of fixed size.
    """

    tensors: dict[str, Tensor]
    dims: dict[str, dict[int, Any]]


class FullGraph(nn.Module):
    """The full step.

    Args:
        split: The UNet.
        names: Names of the inputs, in their order.
    """

    def __init__(self, split: SplitUNet, names: tuple[str, ...]) -> None:
        super().__init__()
        self.unet, self.split, self.names = split.unet, split, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the prediction, `r_in` and `r_out`, each `batch × channels × height × width`."""
        return _outputs(full_step(self.split, _unet_call(self.split, dict(zip(self.names, tensors, strict=True)))))


class AdaptorGraph(nn.Module):
    """The adaptor step.

    Args:
        split: The UNet.
        adaptor: The adaptor.
        names: Names of the inputs, in their order.
    """

    def __init__(self, split: SplitUNet, adaptor: Adaptor, names: tuple[str, ...]) -> None:
        super().__init__()
        self.unet, self.adaptor, self.split, self.names = split.unet, adaptor, split, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the prediction, `r_in` and `r_out`, each `batch × channels × height × width`."""
        values = dict(zip(self.names, tensors, strict=True))
        full_steps = tuple(
            FullStep(values[f"full_step_{i}"], values.get(f"full_r_in_{i}"), values[f"full_r_out_{i}"])
            for i in range(num_full_steps(self.adaptor))
        )
        history = History(values.get("r_out_prev"), values.get("r_in_prev"), full_steps)
        branch = values["conditional"].long() if "conditional" in values else None
        inputs = AdaptorInputs(values.get("text_emb"), branch, values.get("step", 1), history)
        return _outputs(adaptor_step(self.split, self.adaptor, _unet_call(self.split, values), inputs))


def num_full_steps(adaptor: Adaptor) -> int:
    """Returns how many of the last full steps are inputs of an adaptor's graph.

    Args:
        adaptor: The adaptor.
    """
    return adaptor.num_full_steps if "full_steps" in adaptor.inputs else 0


def full_inputs(split: SplitUNet, tokens: int, guided: bool, fixed: bool = False) -> GraphInputs:
    """Creates example inputs of the full graph.

    Args:
        split: The UNet.
        tokens: Number of text tokens.
        guided: Whether the batch holds both halves of guidance, so that it is even.
        fixed: Whether the graph is for one image of the UNet's own size, instead of all sizes.
    """
    multiple, config = side_multiple(split), split.unet.config
    sides = (config.sample_size,) * 2 if fixed else (2 * multiple, 3 * multiple)
    call = meta_call(split.unet, (config.in_channels, *sides), tokens)
    call |= call.pop("added_cond_kwargs", {})
    images = Dim("images", max=MAX_IMAGES)
    # `torch.export` takes a size of 1 for a constant, so the example has two images. One image runs nevertheless.
    batch, size = (2 * images, 4) if guided else (images, 2)
    size = size // 2 if fixed else size
    rows, columns = (Dim(name, min=2, max=MAX_SIDE // multiple) for name in ("rows", "columns"))
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(size, *x.shape[1:], generator=generator) for name, x in call.items() if x.dim()}
    dims: dict[str, dict[int, Any]] = {name: {0: batch} for name in tensors}
    dims["sample"] |= {2: multiple * rows, 3: multiple * columns}
    dims = {} if fixed else dims
    return GraphInputs(
        {name: tensors.get(name, torch.tensor(500)) for name in call},  # the timestep is a number
        {name: dims.get(name, {}) for name in call},
    )


def adaptor_inputs(split: SplitUNet, adaptor: Adaptor, full: GraphInputs, guided: bool) -> GraphInputs:
    """Creates example inputs of the adaptor graph: those of the full graph, and what the adaptor reads besides.

    Args:
        split: The UNet.
        adaptor: The adaptor.
        full: The example inputs of the full graph.
        guided: Whether the batch holds both halves of guidance.
    """
    with torch.no_grad():
        features = full_step(split, _unet_call(split, full.tensors))
    size, batch = features.r_in.shape[0], {axis: dim for axis, dim in full.dims["sample"].items() if axis == 0}
    values: dict[str, Tensor] = {"r_out_prev": features.r_out, "r_in_prev": features.r_in}
    numbers = {"step": torch.tensor(num_full_steps(adaptor) + 1)}
    inputs = {name: values[name] for name in values if name in adaptor.inputs}
    for i in range(num_full_steps(adaptor)):
        inputs[f"full_r_out_{i}"] = features.r_out
        inputs |= {f"full_r_in_{i}": features.r_in} if "r_in" in adaptor.inputs else {}
        numbers[f"full_step_{i}"] = torch.tensor(num_full_steps(adaptor) - i)
    if "step" not in adaptor.inputs:
        del numbers["step"]
    # Clones: two inputs that were one tensor would be one input.
    tensors = {**full.tensors, **{name: x.clone() for name, x in inputs.items()}, **numbers}
    dims = {**full.dims, **{name: _feature_dims(split, full, x) for name, x in inputs.items()}}
    if "text_emb" in adaptor.inputs:
        tensors["text_emb"], dims["text_emb"] = torch.zeros(size, adaptor.dims.text_emb), batch
    if "branch" in adaptor.inputs and guided:
        tensors["conditional"], dims["conditional"] = torch.arange(size) >= size // 2, batch
    return GraphInputs(tensors, {name: dims.get(name, {}) for name in tensors})


def export_graph(graph: nn.Module, inputs: GraphInputs) -> ExportedProgram:
    """Exports a graph.

    Args:
        graph: A `FullGraph` or an `AdaptorGraph`.
        inputs: Its example inputs.

    Returns:
        The exported graph, with the weights that it reads and no others.
    """
    with torch.no_grad():
        program = torch.export.export(
            graph.eval(), tuple(inputs.tensors.values()), dynamic_shapes=(tuple(inputs.dims.values()),)
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # holds the paths of source files, and is most of a small graph's file
    return _without_unused_weights(program)


def _without_unused_weights(program: ExportedProgram) -> ExportedProgram:
    """Removes weights that no operation reads: of an adaptor step, those of the low-res path."""
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    unused = {n.name: n for n in program.graph.find_nodes(op="placeholder") if n.name in weights and not n.users}
    for name, node in unused.items():
        program.graph.erase_node(node)
        program.state_dict.pop(weights[name], None)
    signature.input_specs = [spec for spec in signature.input_specs if getattr(spec.arg, "name", None) not in unused]
    program.graph_module.recompile()
    return program


def _outputs(features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the outputs of a graph, in the order of `OUTPUTS`."""
    return features.output, features.r_in, features.r_out


def _unet_call(split: SplitUNet, values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the arguments of a UNet call."""
    names = ("sample", "timestep", "encoder_hidden_states", "timestep_cond")
    call: dict[str, Any] = {name: values[name] for name in names if name in values}
    if added := {name: values[name] for name in ADDED if name in values}:
        call["added_cond_kwargs"] = added
    return split.arguments(**call)


def side_multiple(split: SplitUNet) -> int:
    """Returns the number of which height and width of latents have to be multiples.

    Args:
        split: The UNet.
    """
    return int(2**split.unet.num_upsamplers)


def _feature_dims(split: SplitUNet, full: GraphInputs, features: Tensor) -> dict[int, Any]:
    """Returns the dynamic axes of features, whose sides are those of the latents divided by a power of two."""
    sample, dims = full.tensors["sample"], full.dims["sample"]
    if not dims:
        return {}
    factors = {axis: side_multiple(split) * features.shape[axis] // sample.shape[axis] for axis in (2, 3)}
    sides = {axis: dims[axis].root if factor == 1 else factor * dims[axis].root for axis, factor in factors.items()}
    return {0: dims[0], **sides}
