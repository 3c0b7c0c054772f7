"""What is allowed in a config: a dataclass per command and group, checked before anything heavy is imported."""

from clockwork.experiments.schemas.check import check
from clockwork.experiments.schemas.commands import COMMANDS, schema_of
from clockwork.experiments.schemas.describe import unknown_key

__all__ = ["COMMANDS", "check", "schema_of", "unknown_key"]
