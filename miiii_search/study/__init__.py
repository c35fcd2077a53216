"""A study in its database: creating, reading, changing, exporting and deleting it."""
