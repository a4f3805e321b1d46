"""What a run is: one YAML file, read, checked, and taken apart into its variants."""

from .recipe import Recipe, find_recipe, packaged_recipes

__all__ = ["Recipe", "find_recipe", "packaged_recipes"]
