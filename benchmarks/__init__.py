"""Measured comparisons; never run by the tests."""
