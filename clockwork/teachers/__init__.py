"""Teachers: frozen text-to-image pipelines, which adaptors are trained for and rows are measured with."""

from clockwork.teachers.loading import load_teacher
from clockwork.teachers.teacher import Teacher
from clockwork.unet.conditioning import Condition

__all__ = ["Condition", "Teacher", "load_teacher"]
