"""Compiled steps on a pipeline, and what becomes of a UNet that was compiled as a whole."""

from collections.abc import Mapping
from typing import Any

from diffusers.utils.torch_utils import is_compiled_module

from clockwork.errors import UserError
from clockwork.pipeline.parts import get_unet
from clockwork.sampling.compiled import Compiler, step_functions
from clockwork.sampling.steps import StepFunctions


class WholeUNet:
    """The form in which a pipeline's UNet was compiled as a whole, if it was.

    It is set aside as long as Clockwork runs the UNet in parts.

    Args:
        pipe: A diffusers pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.unet = pipe, get_unet(pipe)
        self._module, self._compiled = pipe.unet, self.unet._compiled_call_impl

    @property
    def compiler(self) -> Compiler | None:
        """What compiles a function as the UNet was compiled; None if it was not."""
        if is_compiled_module(self._module):
            compiler: Compiler = self._module.dynamo_ctx
            return compiler
        # `Module.compile` keeps only the function that it compiled, which refers to its compiler.
        contents = [cell.cell_contents for cell in getattr(self._compiled, "__closure__", None) or ()]
        return next((content for content in contents if hasattr(content, "compiler_config")), None)

    def set_aside(self) -> None:
        """Leaves the pipeline a UNet that is not compiled."""
        if self._module is not self.unet:
            self.pipe.unet = self.unet
        self.unet._compiled_call_impl = None

    def put_back(self) -> None:
        """Gives the pipeline its compiled UNet again, unless something else has taken its place."""
        if self.pipe.unet is self.unet:
            self.pipe.unet = self._module
        self.unet._compiled_call_impl = self.unet._compiled_call_impl or self._compiled


def pipeline_functions(whole_unet: WholeUNet, compile: bool | Mapping[str, Any] | None = None) -> StepFunctions:
    """Returns the functions that run the steps of a pipeline's UNet.

    Args:
        whole_unet: The form in which the UNet was compiled as a whole, if it was.
        compile: Whether steps are compiled, or the arguments of `torch.compile`. None compiles them if the UNet was
            compiled as a whole, with the options of that.

    Raises:
        UserError: If `compile` is something else, or the machine lacks the compiler.
    """
    if compile is None:
        return step_functions(whole_unet.compiler or False, whole_unet.unet.device)
    if not isinstance(compile, bool | Mapping):
        raise UserError(f"compile={compile!r} is not possible: pass True, or arguments of torch.compile as a dict")
    return step_functions(compile, whole_unet.unet.device)
