"""The formats of exported graphs."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from clockwork.errors import UserError, import_extra
from clockwork.exporting.attention import fuse_attention
from clockwork.exporting.graphs import OUTPUTS

OPSET = 23  # the first with an operator for attention
LEAST_EXTERNAL = 1024  # bytes; smaller constants, such as shapes, stay in the graph, where runtimes look for them


def save_pt2(programs: Mapping[str, ExportedProgram], inputs: Mapping[str, list[str]], folder: Path, pair: str) -> None:
    """Saves graphs as `<name>.pt2`, each with its weights.

    Args:
        programs: The graphs by name.
        inputs: Names of the inputs of each.
        folder: The folder.
        pair: The identifier that the files carry.
    """
    del inputs  # they are positional
    for name, program in programs.items():
        torch.export.save(program, folder / f"{name}.pt2", extra_files={"pair": pair})


def save_onnx(
    programs: Mapping[str, ExportedProgram], inputs: Mapping[str, list[str]], folder: Path, pair: str
) -> None:
    """Saves graphs as `<name>.onnx`, with one file of weights for all.

    Args:
        programs: The graphs by name.
        inputs: Names of the inputs of each.
        folder: The folder.
        pair: The identifier that the files carry.
    """
    import onnx_ir

    models = {name: onnx_model(program, inputs[name]) for name, program in programs.items()}
    for model in models.values():
        model.metadata_props["pair"] = pair
    _share_weights(list(models.values()), folder, f"weights-{pair}.bin")
    for name, model in models.items():
        onnx_ir.save(model, folder / f"{name}.onnx")


def onnx_model(program: ExportedProgram, inputs: list[str]) -> Any:
    """Converts a graph to ONNX.

    Args:
        program: The graph.
        inputs: Names of its inputs.

    Returns:
        The model, an `onnx_ir.Model` with its weights in memory.
    """
    names: dict[str, Any] = {"input_names": inputs, "output_names": OUTPUTS}
    exported = torch.onnx.export(program, (), dynamo=True, verbose=False, opset_version=OPSET, **names)
    assert exported is not None
    fuse_attention(exported.model)
    for node in exported.model.graph:
        node.metadata_props.clear()  # where it comes from in Python
    return exported.model


def _share_weights(models: list[Any], folder: Path, file_name: str) -> None:
    """Moves the weights of ONNX models to one file, equal ones once."""
    import onnx_ir

    weights = [
        v for model in models for v in model.graph.initializers.values() if v.const_value.nbytes >= LEAST_EXTERNAL
    ]
    digests = [sha256(weight.const_value.tobytes()).digest() for weight in weights]
    distinct = {digest: weight.const_value for digest, weight in zip(digests, weights, strict=True)}
    stored = onnx_ir.external_data.convert_tensors_to_external(list(distinct.values()), folder, file_name)
    place = dict(zip(distinct, stored, strict=True))
    for digest, weight in zip(digests, weights, strict=True):
        tensor, data = weight.const_value, place[digest]
        weight.const_value = onnx_ir.ExternalTensor(
            file_name, data.offset, data.length, tensor.dtype, shape=tensor.shape, name=weight.name, base_dir=folder
        )


def save_openvino(
    programs: Mapping[str, ExportedProgram], inputs: Mapping[str, list[str]], folder: Path, pair: str
) -> None:
    """Saves graphs as `<name>.xml` with their weights in `<name>.bin`, in float32.

    Args:
        programs: The graphs by name.
        inputs: Names of the inputs of each.
        folder: The folder.
        pair: The identifier that the files carry.
    """
    openvino = import_extra("openvino", "openvino")
    for name, program in programs.items():
        model = openvino.convert_model(program)
        for ports, names in ((model.inputs, inputs[name]), (model.outputs, OUTPUTS)):
            for port, port_name in zip(ports, names, strict=True):
                port.set_names({port_name})
        model.set_rt_info(pair, "pair")
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)


def save_executorch(
    programs: Mapping[str, ExportedProgram], inputs: Mapping[str, list[str]], folder: Path, pair: str
) -> None:
    """Saves graphs as `<name>.pte`, each with its weights, for the CPU kernels of XNNPACK.

    Args:
        programs: The graphs by name, of fixed size.
        inputs: Names of the inputs of each.
        folder: The folder.
        pair: The identifier that the files carry.
    """
    del inputs  # they are positional
    exir = import_extra("executorch.exir", "executorch")
    partitioner = import_extra("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    for name, program in programs.items():
        kernels, constants = [partitioner.XnnpackPartitioner()], {"pair": pair}
        edge = exir.to_edge_transform_and_lower(program, partitioner=kernels, constant_methods=constants)
        with (folder / f"{name}.pte").open("wb") as file:
            edge.to_executorch().write_to_file(file)


SAVE: dict[str, Callable[..., None]] = {
    "onnx": save_onnx,
    "pt2": save_pt2,
    "openvino": save_openvino,
    "executorch": save_executorch,
}
PACKAGES = {  # and the extra that installs them
    "onnx": (("onnx", "onnxscript"), "export"),
    "pt2": ((), ""),
    "openvino": (("openvino",), "openvino"),
    "executorch": (("executorch",), "executorch"),
}
FIXED_SIZE = ("executorch",)  # formats that plan memory for the largest size before they run: they have one size


def check_format(name: str) -> None:
    """Checks that a format is known and its packages are installed.

    Args:
        name: The format.

    Raises:
        UserError: If it is not known, or a package is missing.
    """
    if name not in SAVE:
        raise UserError(f"format={name} is not one of those that exist: use {' or '.join(SAVE)}")
    packages, extra = PACKAGES[name]
    for package in packages:
        import_extra(package, extra)
