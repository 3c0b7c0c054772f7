"""The features that Plug-and-Play injects (arXiv 2211.12572): which modules, on which steps, and the hooks for it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from clockwork.errors import UserError
from clockwork.unet.chain import Chain

Features = Mapping[nn.Module, Tensor]  # outputs of modules for the source image, 1 × …


@dataclass(frozen=True)
class Injection:
    """The modules whose outputs are replaced by the source image's, and on how many of the first steps (Table 7).

    Attributes:
        convolution: The second convolution of one resnet; its output is replaced before the residual is added.
        attention: The query and key projections of self-attentions.
        convolution_steps: Number of first steps on which `convolution` is injected.
        attention_steps: Number of first steps on which `attention` is injected.
    """

    convolution: nn.Module
    attention: tuple[nn.Module, ...]
    convolution_steps: int
    attention_steps: int

    @classmethod
    def from_chain(cls, chain: Chain, steps: int, tau_f: float = 0.8, tau_a: float = 0.5) -> "Injection":
        """Selects the layers that the authors of Plug-and-Play use, by their position among the layers with attention.

        Args:
            chain: The chain of the UNet.
            steps: Number of steps.
            tau_f: Share of the steps on which the convolution is injected, from 0 to 1.
            tau_a: Share of the steps on which self-attention is injected, from 0 to 1.

        Returns:
            The injection: the resnet of the second up layer with attention, and self-attention from that layer on.

        Raises:
            UserError: If a share is out of range, the UNet has too few up layers with attention, or the projections of
                attention are fused.
        """
        if not (0 <= tau_f <= 1 and 0 <= tau_a <= 1):
            raise UserError(f"tau_f {tau_f} and tau_a {tau_a} are shares of the steps: use values from 0 to 1")
        positions = injected_layers(chain)
        attentions = [block.attn1 for i in positions for block in chain.up[i].attention.transformer_blocks]
        if any(attention.fused_projections for attention in attentions):
            raise UserError(
                "queries and keys cannot be injected into fused projections: call unet.unfuse_qkv_projections() first"
            )
        projections = tuple(projection for attention in attentions for projection in (attention.to_q, attention.to_k))
        return cls(chain.up[positions[0]].resnet.conv2, projections, int(steps * tau_f), int(steps * tau_a))

    @property
    def steps(self) -> int:
        """Number of first steps on which anything is injected."""
        return max(self.convolution_steps, self.attention_steps)

    def modules(self, step: int) -> tuple[nn.Module, ...]:
        """Lists the modules that are injected on a step.

        Args:
            step: The step, from 1.

        Returns:
            The modules.
        """
        convolution = (self.convolution,) if step <= self.convolution_steps else ()
        return convolution + (self.attention if step <= self.attention_steps else ())


def injected_layers(chain: Chain) -> tuple[int, ...]:
    """Finds the layers whose self-attention is injected. The convolution is that of the first of them.

    Args:
        chain: The chain of the UNet.

    Returns:
        Indices into `chain.up`: the second layer with attention and all later ones.

    Raises:
        UserError: If the UNet has fewer than two up layers with attention.
    """
    with_attention = [i for i, layer in enumerate(chain.up) if layer.attention is not None]
    if len(with_attention) < 2:
        raise UserError(
            "Plug-and-Play injects features from the second up layer with attention on, but this UNet has "
            f"{len(with_attention)} such layers: choose another teacher"
        )
    return tuple(with_attention[1:])


@contextmanager
def injecting(modules: Sequence[nn.Module], features: Features | None = None) -> Iterator[None]:
    """Replaces the outputs of modules by the source image's for the whole batch, within the context.

    Args:
        modules: The modules.
        features: The source's outputs by module; None to take those of the batch's first example.
    """

    def replace_output(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return (output[:1] if features is None else features[module]).expand_as(output)

    handles = [module.register_forward_hook(replace_output) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recording(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Records the outputs of modules within the context.

    Args:
        modules: The modules.

    Yields:
        A dictionary with the latest output of every module that has run.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[module] = output

    handles = [module.register_forward_hook(record) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
