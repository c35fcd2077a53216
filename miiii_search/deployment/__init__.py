"""What containers and other machines need: passwords, certificates, database roles, invitations and signs of life."""
