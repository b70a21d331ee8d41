"""A Client's protocols, a file each."""
