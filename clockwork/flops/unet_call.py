"""FLOPs of a UNet's call, as pipelines make it."""

from collections.abc import Mapping
from typing import Any

from clockwork.adaptors import Adaptor
from clockwork.flops.cost import on_meta, part_flops, shapes
from clockwork.flops.counter import Flops
from clockwork.sampling.guidance import positive_half
from clockwork.unet.conditioning import Condition
from clockwork.unet.split import SplitUNet


def full_and_adaptor_flops(
    split: SplitUNet, adaptor: Adaptor | None, call: Mapping[str, Any], guided: bool = False
) -> tuple[Flops, Flops]:
    """Counts one full and one adaptor pass of a UNet on any device, without running it.

    Args:
        split: The UNet.
        adaptor: The adaptor; without one, the adaptor pass has no FLOPs.
        call: Arguments of the UNet's `forward`.
        guided: Whether the call has both halves of guidance, of which the adaptor may run the positive one only.

    Returns:
        FLOPs of the full pass and of the adaptor pass.
    """
    split, call = SplitUNet(on_meta(split.unet), split.cut), shapes(call)
    parts = part_flops(split, call)
    if adaptor is None:
        return parts.full_pass, Flops()
    adaptor = on_meta(adaptor)
    if not guided or adaptor.negative_map is None:
        return parts.full_pass, parts.adaptor_pass(adaptor)
    return parts.full_pass, part_flops(split, _positive_call(call)).positive_step(adaptor)


def _positive_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the positive half of a UNet call."""
    named = ("sample", "timestep", "encoder_hidden_states")
    rest = {name: value for name, value in call.items() if name not in named}
    condition = Condition(call.get("encoder_hidden_states"), None, rest)
    sample, t, condition = positive_half(call["sample"], call["timestep"], condition)
    text = {"encoder_hidden_states": condition.prompt_embeds} if "encoder_hidden_states" in call else {}
    return {"sample": sample, "timestep": t, **text, **condition.unet_kwargs}
