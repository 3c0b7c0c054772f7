"""FLOPs of one image, counted while it is generated."""

from weakref import WeakKeyDictionary

from clockwork.flops.counter import Flops, count_flops
from clockwork.sampling.sampler import Sampler

_MEASURED: WeakKeyDictionary[Sampler, Flops] = WeakKeyDictionary()


def measured_flops(sampler: Sampler) -> Flops:
    """Counts the FLOPs of everything that runs between text encoder and decoder, by generating one image's latents.

    Args:
        sampler: The operating point, which is measured once per process.

    Returns:
        The FLOPs.
    """
    if sampler not in _MEASURED:
        conditions, noise = sampler.conditions([""]), sampler.teacher.noise([0])
        _MEASURED[sampler] = count_flops(lambda: sampler.latents_of(conditions, noise))
    return _MEASURED[sampler]
