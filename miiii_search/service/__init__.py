"""What an installation of containers needs besides the search: passwords, certificates, roles, signs of life."""
