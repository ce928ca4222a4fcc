"""Recipes: how what ships with the package was made."""
