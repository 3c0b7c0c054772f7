"""How much the features at each cut change from one step to the next (paper, Section 4.1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.data.prompts import Prompt, chunks
from clockwork.errors import UserError
from clockwork.metrics.similarity import distance
from clockwork.sampling.sampler import Sampler
from clockwork.unet.chain import Chain, Cut


@dataclass(frozen=True)
class Drift:
    """The change of `r_out` since the previous step, for one prompt, cut and step.

    With classifier-free guidance, the values are means over the conditional and the unconditional pass.

    Attributes:
        cut: Name of the cut.
        step: The step, from 2.
        prompt: Id of the prompt.
        relative_l2: ‖r_out − r_out_prev‖₂ / ‖r_out‖₂, the relative error of the identity adaptor.
        cosine: Cosine similarity of `r_out` and `r_out_prev`.
    """

    cut: str
    step: int
    prompt: int
    relative_l2: float
    cosine: float


def drift(
    sampler: Sampler, prompts: Sequence[Prompt], cuts: Sequence[str], seed: int = 0, batch: int = 16
) -> list[Drift]:
    """Measures the change of `r_out` between steps in roll-outs of the full teacher.

    All cuts are measured in the same roll-outs.

    Args:
        sampler: The teacher, solver, steps and guidance. Its schedule should be `full`.
        prompts: The prompts to generate.
        cuts: Names of the cuts (see `Cut.parse`).
        seed: Seed of the initial noise.
        batch: Prompts per batch.

    Returns:
        One entry per prompt, cut and step from 2 on.

    Raises:
        UserError: If a cut is unknown or does not fit the UNet, or the teacher's steps are compiled.
    """
    sampler.require_uncompiled("drift")
    chain = sampler.split.chain
    modules = {name: r_out_module(chain, Cut.parse(name, chain)) for name in cuts}
    return [entry for group in chunks(prompts, batch) for entry in _batch_drift(sampler, group, modules, seed)]


def r_out_module(chain: Chain, cut: Cut) -> nn.Module:
    """Finds the module whose output is `r_out`: the last module before the first kept up layer.

    Args:
        chain: The chain of the UNet.
        cut: The cut.

    Returns:
        A module of the UNet. An attention module returns a tuple whose first item is `r_out`.

    Raises:
        UserError: If the cut does not fit the chain, or no module of the low-res path precedes the kept up layers.
    """
    cut.validate(chain)
    position = len(chain.up) - cut.up
    if position == 0:
        if chain.middle is None:
            raise UserError(
                f"cut {cut} leaves no layer whose output is r_out, as this UNet has no middle block: "
                f"keep at most {cut.up - 1} up layers"
            )
        return chain.middle
    layer = chain.up[position - 1]
    return layer.resampler or layer.attention or layer.resnet


def _batch_drift(
    sampler: Sampler, prompts: Sequence[Prompt], modules: Mapping[str, nn.Module], seed: int
) -> Iterator[Drift]:
    """Measures one batch of prompts."""
    ids, current, previous = [p.id for p in prompts], dict[str, Tensor](), dict[str, Tensor]()
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(_store_output(current, name)))
        for record in sampler.rollout([p.text for p in prompts], sampler.teacher.noise(ids, seed)):
            for name, r_out in current.items():
                if record.step > 1:
                    relative, cosine = (_mean_per_prompt(x, len(ids)) for x in feature_change(r_out, previous[name]))
                    for prompt, l2, similarity in zip(ids, relative, cosine, strict=True):
                        yield Drift(name, record.step, prompt, l2, similarity)
            previous = dict(current)


def _store_output(outputs: dict[str, Tensor], name: str) -> Callable[..., None]:
    """Makes a forward hook that stores the module's output under a name."""

    def hook(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs[name] = output[0] if isinstance(output, tuple) else output  # attention returns a tuple

    return hook


def feature_change(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Compares features with those of another step.

    Args:
        new: Features, `batch × channels × height × width`.
        old: Features of the same shape.

    Returns:
        The relative L2 distance ‖new − old‖₂ / ‖new‖₂ and the cosine similarity, `batch` each.
    """
    new, old = new.float(), old.float()
    return distance(new, old) / distance(new, new * 0), F.cosine_similarity(new.flatten(1), old.flatten(1))


def _mean_per_prompt(values: Tensor, num_prompts: int) -> list[float]:
    """Averages over the passes of guidance; `values` holds all prompts of the first pass, then those of the second."""
    return values.reshape(-1, num_prompts).mean(0).tolist()
