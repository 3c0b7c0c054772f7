"""Teachers: the frozen text encoder, UNet, autoencoder and noise schedule behind every adaptor and every row."""

from clockwork.teachers.loading import load_teacher
from clockwork.teachers.teacher import Teacher
from clockwork.unet.conditioning import Condition

__all__ = ["Condition", "Teacher", "load_teacher"]
