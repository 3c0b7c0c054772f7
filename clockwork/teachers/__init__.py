"""Teachers: the frozen text encoder, UNet, decoder and noise schedule that everything is measured against."""

from clockwork.teachers.loading import load_teacher
from clockwork.teachers.teacher import Teacher
from clockwork.unet.conditioning import Condition

__all__ = ["Condition", "Teacher", "load_teacher"]
