"""Whole runs on real models, from queries to an evaluated router."""
