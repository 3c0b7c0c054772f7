"""Numbers with the prefixes of their units, as plans print them."""


def with_prefix(number: float, unit: str, base: int = 1000) -> str:
    """Formats a number with four digits and a prefix of its unit, such as `6.742 GB`.

    Args:
        number: The number, not negative.
        unit: The unit.
        base: 1000, or 1024 for binary prefixes such as in `6.279 GiB`.

    Returns:
        Number, prefix and unit.
    """
    power = 0
    while number >= base and power < 7:
        number, power = number / base, power + 1
    prefix = ("", "k", "M", "G", "T", "P", "E", "Z")[power]
    return f"{number:.4g} {prefix}{'i' if base == 1024 and power else ''}{unit}"


def duration(seconds: float) -> str:
    """Formats a time with two digits or its two largest units, such as `4.2 s`, `12 min` or `3 h 20 min`.

    Args:
        seconds: The time.
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
