"""Passwords, certificates, database roles and invitations of an installation of containers.

`docker compose up` calls this package through the command line; nothing else imports it.
"""
