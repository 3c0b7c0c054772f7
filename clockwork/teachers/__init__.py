"""Teachers: the frozen text encoder, UNet, decoder and noise schedule that everything is measured against."""

from clockwork.teachers.condition import Condition
from clockwork.teachers.stable_diffusion import load_teacher
from clockwork.teachers.teacher import Teacher

__all__ = ["Condition", "Teacher", "load_teacher"]
