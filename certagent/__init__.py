"""certagent brings an Istio mesh's CA from Vault to istiod: verified, in one swap, kept fresh."""

__version__ = "0.1.0"
