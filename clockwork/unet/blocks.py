"""How each kind of block runs its layers: the table that the chain is built from.

A block of diffusers is a loop over its resnets. After the i-th resnet follows the i-th module of each further list that
the block has (attentions, temporal convolutions, motion modules), and after the loop the resamplers. The kinds of block
differ in these lists and in the arguments of the modules, which is what the table says. Modules get positional or
keyword arguments as in diffusers' own loop, because wrappers of modules tell them apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets import unet_2d_blocks, unet_3d_blocks, unet_motion_model
from diffusers.utils.torch_utils import apply_freeu
from torch import Tensor, nn

from clockwork.unet.inputs import EmbeddedInputs

ModuleCall = Callable[[Any, Tensor, EmbeddedInputs], Tensor]
Resample = Callable[[Any, Tensor, EmbeddedInputs, Any], Tensor]


@dataclass(frozen=True)
class BlockKind:
    """How a class of down or up blocks runs its layers.

    Attributes:
        cls: The class.
        resample: Runs a down- or upsampler; its last argument is the size of an upsampler's output, or None.
        followers: Names of the lists whose i-th modules follow the i-th resnet, each with what runs such a module.
        resnet: Runs a resnet.
        freeu: Whether FreeU changes the inputs of the block's resnets.
    """

    cls: type[nn.Module]
    resample: Resample
    followers: tuple[tuple[str, ModuleCall], ...] = ()
    resnet: ModuleCall = lambda resnet, sample, embedded: resnet(sample, embedded.t_emb)
    freeu: bool = False


def _resnet_with_frames(resnet: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a resnet that mixes the frames of a video."""
    return resnet(sample, embedded.t_emb, image_only_indicator=embedded.image_only_indicator)


def _named_resnet(resnet: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a resnet with arguments by name."""
    return resnet(input_tensor=sample, temb=embedded.t_emb)


def _self_attention(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs an attention that reads nothing but its features."""
    return attention(sample)


def _transformer(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a transformer that reads the text features."""
    text = embedded.encoder_hidden_states
    return attention(sample, encoder_hidden_states=text, return_dict=False, **embedded.attention_kwargs)[0]


def _named_transformer(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a transformer that reads the text features, with arguments by name."""
    text = embedded.encoder_hidden_states
    return attention(hidden_states=sample, encoder_hidden_states=text, return_dict=False, **embedded.attention_kwargs)[
        0
    ]


def _added_kv_attention(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs an attention whose keys and values are those of the features and of the text; it has one mask for both."""
    text, options = embedded.encoder_hidden_states, embedded.attention_kwargs
    mask = options["attention_mask"]
    if mask is None and text is not None:
        mask = options["encoder_attention_mask"]
    return attention(
        sample, encoder_hidden_states=text, attention_mask=mask, **(options["cross_attention_kwargs"] or {})
    )


def _transformer_without_masks(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a transformer of a video UNet that ignores masks."""
    options = embedded.attention_kwargs["cross_attention_kwargs"]
    text = embedded.encoder_hidden_states
    return attention(sample, encoder_hidden_states=text, cross_attention_kwargs=options, return_dict=False)[0]


def _temporal_transformer(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a transformer over the frames of a video."""
    options = embedded.attention_kwargs["cross_attention_kwargs"]
    return attention(sample, num_frames=embedded.num_frames, cross_attention_kwargs=options, return_dict=False)[0]


def _transformer_with_frames(attention: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a transformer that reads image features and mixes the frames of a video."""
    return attention(
        sample,
        encoder_hidden_states=embedded.encoder_hidden_states,
        image_only_indicator=embedded.image_only_indicator,
        return_dict=False,
    )[0]


def _over_frames(module: Any, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
    """Runs a convolution or motion module over the frames of a video."""
    return module(sample, num_frames=embedded.num_frames)


def _downsample(resampler: Any, sample: Tensor, embedded: EmbeddedInputs, size: Any) -> Tensor:
    """Runs a downsampler."""
    return resampler(sample)


def _upsample(resampler: Any, sample: Tensor, embedded: EmbeddedInputs, size: Any) -> Tensor:
    """Runs an upsampler."""
    return resampler(sample, size)


def _resample_resnet(resampler: Any, sample: Tensor, embedded: EmbeddedInputs, size: Any) -> Tensor:
    """Runs a resnet that resamples."""
    return resampler(sample, embedded.t_emb)


def _resample_either(resampler: Any, sample: Tensor, embedded: EmbeddedInputs, size: Any) -> Tensor:
    """Runs a resampler that is a convolution or a resnet."""
    return resampler(sample, temb=embedded.t_emb) if isinstance(resampler, ResnetBlock2D) else resampler(sample)


def _named_downsample(resampler: Any, sample: Tensor, embedded: EmbeddedInputs, size: Any) -> Tensor:
    """Runs a downsampler with arguments by name."""
    return resampler(hidden_states=sample)


def _named_upsample(resampler: Any, sample: Tensor, embedded: EmbeddedInputs, size: Any) -> Tensor:
    """Runs an upsampler with arguments by name."""
    return resampler(hidden_states=sample, output_size=size)


_TEXT, _SELF = ("attentions", _transformer), ("attentions", _self_attention)
_ADDED_KV, _WITH_FRAMES = ("attentions", _added_kv_attention), ("attentions", _transformer_with_frames)
_CONVOLUTION, _MOTION = ("temp_convs", _over_frames), ("motion_modules", _over_frames)
_VIDEO = (_CONVOLUTION, ("attentions", _transformer_without_masks), ("temp_attentions", _temporal_transformer))
_NAMED_TEXT = ("attentions", _named_transformer)

two, three, motion = unet_2d_blocks, unet_3d_blocks, unet_motion_model
DOWN_BLOCKS = (
    BlockKind(two.CrossAttnDownBlock2D, _downsample, (_TEXT,)),
    BlockKind(two.DownBlock2D, _downsample),
    BlockKind(two.AttnDownBlock2D, _resample_either, (_SELF,)),
    BlockKind(two.ResnetDownsampleBlock2D, _resample_resnet),
    BlockKind(two.SimpleCrossAttnDownBlock2D, _resample_resnet, (_ADDED_KV,)),
    BlockKind(three.CrossAttnDownBlock3D, _downsample, _VIDEO),
    BlockKind(three.DownBlock3D, _downsample, (_CONVOLUTION,)),
    BlockKind(three.CrossAttnDownBlockSpatioTemporal, _downsample, (_WITH_FRAMES,), _resnet_with_frames),
    BlockKind(three.DownBlockSpatioTemporal, _downsample, (), _resnet_with_frames),
    BlockKind(motion.CrossAttnDownBlockMotion, _named_downsample, (_NAMED_TEXT, _MOTION), _named_resnet),
    BlockKind(motion.DownBlockMotion, _named_downsample, (_MOTION,), _named_resnet),
)
UP_BLOCKS = (
    BlockKind(two.CrossAttnUpBlock2D, _upsample, (_TEXT,), freeu=True),
    BlockKind(two.UpBlock2D, _upsample, freeu=True),
    BlockKind(two.AttnUpBlock2D, _resample_either, (_SELF,)),
    BlockKind(two.ResnetUpsampleBlock2D, _resample_resnet),
    BlockKind(two.SimpleCrossAttnUpBlock2D, _resample_resnet, (_ADDED_KV,)),
    BlockKind(three.CrossAttnUpBlock3D, _upsample, _VIDEO, freeu=True),
    BlockKind(three.UpBlock3D, _upsample, (_CONVOLUTION,), freeu=True),
    BlockKind(three.CrossAttnUpBlockSpatioTemporal, _upsample, (_WITH_FRAMES,), _resnet_with_frames),
    BlockKind(three.UpBlockSpatioTemporal, _upsample, (), _resnet_with_frames),
    BlockKind(motion.CrossAttnUpBlockMotion, _named_upsample, (_NAMED_TEXT, _MOTION), _named_resnet, freeu=True),
    BlockKind(motion.UpBlockMotion, _named_upsample, (_MOTION,), _named_resnet, freeu=True),
)


def _text(embedded: EmbeddedInputs) -> dict[str, Any]:
    """Returns the arguments of a middle block that reads text."""
    return {"encoder_hidden_states": embedded.encoder_hidden_states, **embedded.attention_kwargs}


# A middle block is always in the low-res path and runs as a whole: these are its arguments after the time embedding.
MIDDLE_BLOCKS: Mapping[type[nn.Module], Callable[[EmbeddedInputs], dict[str, Any]]] = {
    two.UNetMidBlock2DCrossAttn: _text,
    two.UNetMidBlock2DSimpleCrossAttn: _text,
    two.UNetMidBlock2D: lambda embedded: {},
    three.UNetMidBlock3DCrossAttn: lambda embedded: {
        "encoder_hidden_states": embedded.encoder_hidden_states,
        "num_frames": embedded.num_frames,
        "cross_attention_kwargs": embedded.attention_kwargs["cross_attention_kwargs"],
    },
    three.UNetMidBlockSpatioTemporal: lambda embedded: {
        "encoder_hidden_states": embedded.encoder_hidden_states,
        "image_only_indicator": embedded.image_only_indicator,
    },
    motion.UNetMidBlockCrossAttnMotion: lambda embedded: {**_text(embedded), "num_frames": embedded.num_frames},
}


def block_kind(block: nn.Module, kinds: tuple[BlockKind, ...]) -> BlockKind | None:
    """Finds the kind of a down or up block.

    Args:
        block: The block.
        kinds: `DOWN_BLOCKS` or `UP_BLOCKS`.

    Returns:
        The kind; None if the block is of another class.
    """
    return next((kind for kind in kinds if isinstance(block, kind.cls)), None)


def middle_arguments(middle: nn.Module, embedded: EmbeddedInputs) -> dict[str, Any]:
    """Returns the arguments of a middle block after the features and the time embedding.

    Args:
        middle: The middle block, of a class in `MIDDLE_BLOCKS`.
        embedded: The inputs of the UNet call.
    """
    return next(arguments for cls, arguments in MIDDLE_BLOCKS.items() if isinstance(middle, cls))(embedded)


def apply_block_freeu(kind: BlockKind, block: Any, sample: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
    """Applies FreeU to the inputs of an up block's resnet, if the kind has it and it is enabled.

    Args:
        kind: The block's kind.
        block: The block, whose attributes hold FreeU's factors.
        sample: Features, `batch × channels × height × width`. They are not modified.
        skip: The skip connection that the resnet reads, of the same batch and size.

    Returns:
        Both, reweighted.
    """
    factors = {name: getattr(block, name, None) for name in ("s1", "s2", "b1", "b2")}
    if not kind.freeu or not all(factors.values()):
        return sample, skip
    # apply_freeu writes into its input, and r_out must not change. Without a middle block, sample and skip can be the
    # same tensor, and diffusers writes into both.
    copy = sample.clone()
    reweighted: tuple[Tensor, Tensor] = apply_freeu(
        block.resolution_idx, copy, copy if skip is sample else skip, **factors
    )
    return reweighted
