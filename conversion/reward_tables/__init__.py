"""Readers of other people's score tables; one file a format, all of one shape.

Each has `read(source)`, an iterator of rows as a reward table has them (`query`, `rewards`, `tags`, `subset`), and
`experts(source)`, what the source says of the experts.
"""
