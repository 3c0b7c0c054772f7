"""Names the arguments of a `forward`, on every step of a sampling loop."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


class Binder:
    """Names arguments as `inspect.Signature.bind` does, in less time.

    Args:
        forward: A method of named parameters. Its first, `self`, is left out.

    Attributes:
        names: The names of the parameters.
        defaults: The defaults of those that have one.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._signature = inspect.signature(forward)
        parameters = dict(list(self._signature.parameters.items())[1:])
        self.names = tuple(parameters)
        self.defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
        self._known, self._required = set(self.names), set(self.names) - set(self.defaults)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Names the arguments of a call.

        Args:
            args: Positional arguments, without `self`.
            kwargs: Keyword arguments.

        Returns:
            Those arguments by name, without defaults.

        Raises:
            TypeError: If the method cannot be called with them.
        """
        call = {**dict(zip(self.names, args, strict=False)), **kwargs}
        if len(call) != len(args) + len(kwargs) or not self._required <= call.keys() <= self._known:
            self._signature.bind(None, *args, **kwargs)  # raises Python's own error
        return call
