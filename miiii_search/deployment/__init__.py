"""Passwords, certificates, database roles and invitations of an installation of containers.

`docker compose up` calls this package through the command line; nothing else imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
