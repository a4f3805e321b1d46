"""What a run is: one YAML file, read, checked, and taken apart into its variants."""

from .packaged import find_recipe, packaged_recipes
from .recipe import Recipe

__all__ = ["Recipe", "find_recipe", "packaged_recipes"]
