"""The node server: CSI Identity and Node services for Key Vault volumes."""
