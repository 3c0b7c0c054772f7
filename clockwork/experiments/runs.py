"""Several noise seeds and fits of the same operating points."""

from collections.abc import Sequence

from omegaconf import DictConfig, open_dict


def paired(seeds: Sequence[int], fits: Sequence[int] | None) -> list[tuple[int, int | None]]:
    """Pairs seeds of the noise with seeds of the fits, as run i has the i-th of both; the shorter list is repeated.

    Args:
        seeds: Seeds of the noise.
        fits: Seeds of calibrations and trainings; None where adaptors are of no known seed.

    Returns:
        The seeds of each run.
    """
    if fits is None:
        return [(seed, None) for seed in seeds]
    return [(seeds[i % len(seeds)], fits[i % len(fits)]) for i in range(max(len(seeds), len(fits)))]


def fit_folder(adaptors: str, fit: int) -> str:
    """Returns the folder of the adaptors of a fit.

    Args:
        adaptors: Folder of all adaptors.
        fit: Seed of the fit.
    """
    return f"{adaptors}/fit{fit}"


def at_fit(cfg: DictConfig, fit: int | None) -> DictConfig:
    """Returns the config of a command with the adaptors of a fit.

    Args:
        cfg: The config, with the folder of all adaptors.
        fit: Seed of the fit; None for the adaptors of that folder itself.
    """
    if fit is None:
        return cfg
    of_fit = cfg.copy()
    with open_dict(of_fit):
        of_fit.fit, of_fit.adaptors = fit, fit_folder(cfg.adaptors, fit)
    return of_fit
