"""What the adaptors of a menu are fitted on and measured with: prompts, or images that become videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clockwork.errors import UserError
from clockwork.pipeline.calibration_call import pipeline_arguments, prompts_for
from clockwork.pipeline.parts import get_unet
from clockwork.unet.models import unet_kind

IMAGES = ("image", "mask_image", "control_image")  # arguments of pipelines that may have an image per prompt
NOISE = ("generator", "latents")


@dataclass(frozen=True)
class MenuInputs:
    """Prompts or images, and the other arguments of a pipeline's call.

    Attributes:
        names: What each input is called: the prompt, or the image by its number.
        prompts: The prompts; None for a pipeline that takes none, whose images are in `call`.
        call: Arguments of the pipeline's own call.
    """

    names: tuple[str, ...]
    prompts: tuple[str, ...] | None
    call: Mapping[str, Any]

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str] | None, call: Mapping[str, Any]) -> "MenuInputs":
        """Returns the inputs of a call of `tune`.

        Args:
            pipe: The pipeline.
            prompts: The caller's prompts; None for those that come with Clockwork, or for images.
            call: Arguments of the pipeline's own call.

        Raises:
            UserError: If there are neither prompts nor images, or if noise is passed on.
        """
        if noise := [name for name in NOISE if call.get(name) is not None]:
            raise UserError(
                f"a menu generates each prompt several times with the same noise: pass seed, not {noise[0]}"
            )
        texts = prompts_for(pipe, prompts)
        if texts is not None:
            return cls(tuple(texts), tuple(texts), call)
        if unet_kind(get_unet(pipe)).frames_axis is None:
            raise UserError(
                f"a menu measures other prompts, and {type(pipe).__name__} takes none: use clockwork.calibrate"
            )
        images: Any = call.get("image")
        if not _is_several(images):
            raise UserError(f"{type(pipe).__name__} makes a video of each image: pass image, a list of some dozens")
        return cls(tuple(f"image {number}" for number in range(1, len(images) + 1)), None, call)

    def __getitem__(self, part: slice) -> "MenuInputs":
        """Returns some of the inputs, and the images that belong to them."""
        images = {name: self.call[name] for name in IMAGES if _is_several(self.call.get(name))}
        images = {name: image[part] for name, image in images.items() if len(image) == len(self.names)}
        return MenuInputs(self.names[part], self.prompts and self.prompts[part], {**self.call, **images})

    def arguments(self, pipe: Any, seed: int) -> dict[str, Any]:
        """Returns the arguments of a call that generates the latents of all inputs.

        Args:
            pipe: The pipeline.
            seed: Seed of the noise.
        """
        return pipeline_arguments(pipe, self.prompts, self.call, seed)


def _is_several(images: Any) -> bool:
    """Whether an argument is a list or a batch of images."""
    return isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
