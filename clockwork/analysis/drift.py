"""How much `r_out` changes from one step to the next, at every cut: the picture behind the whole idea (Section 4.1)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.data.prompts import Prompt, chunks
from clockwork.errors import UserError
from clockwork.metrics.similarity import distance
from clockwork.sampling.sampler import Setup
from clockwork.unet.chain import Chain, Cut


@dataclass(frozen=True)
class Drift:
    """One prompt, one cut, one step: how far `r_out` is from the step before's. Means over guidance's two halves."""

    cut: str
    step: int  # from 2
    prompt: int
    relative_l2: float  # ‖r_out − r_out_prev‖₂ / ‖r_out‖₂: what the identity adaptor would get wrong
    cosine: float


def drift(setup: Setup, prompts: Sequence[Prompt], cuts: Sequence[str], seed: int = 0, batch: int = 16) -> list[Drift]:
    """The full teacher's roll-outs, seen at every one of `cuts` in one pass."""
    chain = setup.split.chain
    modules = {name: entrance(chain, Cut.named(name, chain)) for name in cuts}
    return [row for some in chunks(prompts, batch) for row in _of_batch(setup, some, modules, seed)]


def entrance(chain: Chain, cut: Cut) -> nn.Module:
    """The module whose output is `r_out`: the last one before the first kept up layer."""
    cut.check(chain)
    before = len(chain.up) - cut.up
    if before == 0:
        if chain.middle is None:
            raise UserError(f"{cut} leaves no up layer in the low-res path, and this UNet has no middle: keep fewer")
        return chain.middle
    layer = chain.up[before - 1]
    return layer.sampler or layer.attention or layer.resnet


def _of_batch(setup: Setup, prompts: Sequence[Prompt], modules: Mapping[str, nn.Module], seed: int) -> Iterator[Drift]:
    ids, seen, before = [p.id for p in prompts], dict[str, Tensor](), dict[str, Tensor]()
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(_keeper(seen, name)))
        for record in setup.rollout([p.text for p in prompts], setup.teacher.noise(ids, seed)):
            for name, feature in seen.items():
                if record.step > 1:
                    relative, cosine = (_by_prompt(x, len(ids)) for x in changes(feature, before[name]))
                    for i, l2, c in zip(ids, relative, cosine, strict=True):
                        yield Drift(name, record.step, i, l2, c)
            before = dict(seen)


def _keeper(seen: dict[str, Tensor], name: str) -> Any:
    def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output  # an attention's is a tuple

    return keep


def changes(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Relative L2 and cosine of each example, `batch` each."""
    new, old = new.float(), old.float()
    return distance(new, old) / distance(new, new * 0), F.cosine_similarity(new.flatten(1), old.flatten(1))


def _by_prompt(values: Tensor, prompts: int) -> list[float]:
    return values.reshape(-1, prompts).mean(0).tolist()
