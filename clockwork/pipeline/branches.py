"""Which branches of guidance a UNet call has: as the user, the guider or the pipeline tells it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clockwork.errors import UserError
from clockwork.pipeline.guidance import BRANCHES
from clockwork.pipeline.hook import get_hook
from clockwork.pipeline.parts import get_unet


@contextmanager
def branch(pipe: Any, *names: str) -> Iterator[None]:
    """Tells which branch of guidance the UNet's calls are, in a loop of one's own that calls it once per branch.

    Adaptors that `clockwork.calibrate` fitted with guidance have a map for each branch, and from the arguments of a
    call it cannot be known which one it is. diffusers' pipelines and guiders tell it by themselves. Adaptors that do
    not tell branches apart, such as the identity, do not need it. On a pipeline without Clockwork this does nothing.

    Args:
        pipe: The pipeline whose UNet is called, in this thread.
        names: `"conditional"` for the call with the prompt, `"unconditional"` for that with the negative prompt,
            `"image"` for InstructPix2Pix's with the image and the negative prompt, `"perturbed"` for that of
            perturbed-attention guidance; for a call with several in one batch their names, in the order of the batch.

    Raises:
        UserError: If a name is unknown, or there is none.

    Example:
        >>> for t in pipe.scheduler.timesteps:
        ...     with clockwork.branch(pipe, "unconditional"):
        ...         negative = pipe.unet(latents, t, negative_embeds).sample
        ...     with clockwork.branch(pipe, "conditional"):
        ...         positive = pipe.unet(latents, t, prompt_embeds).sample
        ...     latents = pipe.scheduler.step(negative + 5 * (positive - negative), t, latents).prev_sample
    """
    if not names or set(names) - set(BRANCHES):
        raise UserError(f"branches {list(names)} are unknown: pass one or more of {', '.join(BRANCHES)}")
    hook = get_hook(get_unet(pipe))
    if hook is None:
        yield
        return
    thread = hook.thread
    previous, thread.branches = thread.branches, names
    try:
        yield
    finally:
        thread.branches = previous
