"""The database and the bytes.

Connections, tables, retries, attributes of studies, artifacts and where they are kept.
"""
