"""Vault and OpenBao: one connection, and the secrets that are read through it.

The connection knows nothing of material, so that a login can be under way while that is loaded.
"""
