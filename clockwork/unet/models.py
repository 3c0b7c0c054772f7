"""What each class of UNet does before its first and after its last layer: the table of classes that can be split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import (
    I2VGenXLUNet,
    ModelMixin,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from diffusers.models.unets.unet_motion_model import UNetMotionOutput
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionOutput
from torch import Tensor

from clockwork.errors import UserError
from clockwork.unet.inputs import EmbeddedInputs, embed_conditional, embed_unconditional
from clockwork.unet.video_inputs import embed_3d, embed_image_to_video, embed_motion, embed_spatio_temporal


def _conv_in(unet: Any, embedded: EmbeddedInputs) -> Tensor:
    """Runs the input convolution."""
    return unet.conv_in(embedded.sample)


def _conv_in_over_frames(unet: Any, embedded: EmbeddedInputs) -> Tensor:
    """Runs the input convolution, and a transformer over the frames."""
    options = embedded.attention_kwargs["cross_attention_kwargs"]
    return unet.transformer_in(
        unet.conv_in(embedded.sample),
        num_frames=embedded.num_frames,
        cross_attention_kwargs=options,
        return_dict=False,
    )[0]


def _unchanged(output: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Returns the output of the last convolution."""
    return output


def _divided(output: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Divides the output of a UNet that predicts a score."""
    return output if embedded.output_divisor is None else output / embedded.output_divisor


def _frames_before_channels(output: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Takes the frames out of the batch, `videos × frames × channels × height × width`."""
    return output.reshape(-1, embedded.num_frames, *output.shape[1:])


def _frames_after_channels(output: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Takes the frames out of the batch, `videos × channels × frames × height × width`."""
    return _frames_before_channels(output, embedded).transpose(1, 2)


@dataclass(frozen=True)
class UNetKind:
    """A class of UNets, with what it does outside its blocks.

    Attributes:
        cls: The class.
        output: The class of what its `forward` returns.
        embed: Embeds the arguments of its `forward`, by name with defaults, as the inputs of the layers.
        first: Runs what comes before the first layer.
        last: Gives the output of the last convolution the shape and scale of the UNet's output.
        frames_axis: Axis of the sample that holds a video's frames, which are part of the batch in all features; None
            for images.
    """

    cls: type[ModelMixin]
    output: type
    embed: Callable[[Any, Mapping[str, Any]], EmbeddedInputs]
    first: Callable[[Any, EmbeddedInputs], Tensor] = _conv_in
    last: Callable[[Tensor, EmbeddedInputs], Tensor] = _unchanged
    frames_axis: int | None = None

    def num_frames(self, shape: Sequence[int]) -> int:
        """Returns the number of frames of each video of a batch, 1 for images.

        Args:
            shape: Shape of the UNet's sample.
        """
        return 1 if self.frames_axis is None else shape[self.frames_axis]


UNETS = (
    UNetKind(UNet2DConditionModel, UNet2DConditionOutput, embed_conditional),
    UNetKind(UNet2DModel, UNet2DOutput, embed_unconditional, last=_divided),
    UNetKind(
        UNetSpatioTemporalConditionModel,
        UNetSpatioTemporalConditionOutput,
        embed_spatio_temporal,
        last=_frames_before_channels,
        frames_axis=1,
    ),
    UNetKind(UNetMotionModel, UNetMotionOutput, embed_motion, last=_frames_after_channels, frames_axis=2),
    UNetKind(UNet3DConditionModel, UNet3DConditionOutput, embed_3d, _conv_in_over_frames, _frames_after_channels, 2),
    UNetKind(
        I2VGenXLUNet, UNet3DConditionOutput, embed_image_to_video, _conv_in_over_frames, _frames_after_channels, 2
    ),
)


def unet_kind(unet: ModelMixin) -> UNetKind:
    """Finds the kind of a UNet.

    Args:
        unet: The UNet.

    Returns:
        The entry of `UNETS` for its class.

    Raises:
        UserError: If the UNet is of another class.
    """
    for kind in UNETS:
        if isinstance(unet, kind.cls) and type(unet).forward is kind.cls.forward:
            return kind
    names = ", ".join(kind.cls.__name__ for kind in UNETS)
    raise UserError(f"cannot split a {type(unet).__name__}: use a pipeline whose UNet is one of {names}")
