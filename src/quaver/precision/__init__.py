"""What precision each part of a model has, as data: roles, formats, recipes, and devices."""

from quaver.precision.recipe import RECIPES, Recipe, find_recipe
from quaver.precision.roles import Format, Role

__all__ = ["RECIPES", "Format", "Recipe", "Role", "find_recipe"]
