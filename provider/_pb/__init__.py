"""Generated wire stubs of the provider protocol; see README.md."""
