"""The course: lessons on the paper in which the page computes what this package computes."""

from alexnet.learn.notebooks import write_notebooks
from alexnet.learn.pages import write_course
from alexnet.learn.serving import open_course

__all__ = ["open_course", "write_course", "write_notebooks"]
