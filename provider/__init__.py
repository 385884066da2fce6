"""The Key Vault provider: the v1alpha1 provider protocol on a unix socket."""
