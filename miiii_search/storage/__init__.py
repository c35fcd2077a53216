"""The study's database and its artifacts.

`database` opens a storage URL and `retry` waits while the database is unavailable. `schema` defines the tables;
`study_attrs`, `notes`, `deleted_studies` and `revisions` read and write what is stored about a study. `artifacts` holds
files in the database, `artifact_stores` holds them in a folder or an S3 bucket. The names below are imported when they
are first used, because some of them load Optuna.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
