"""Other formats to and from ours."""
