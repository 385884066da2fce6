"""Generated wire stubs of the CSI and of kubelet's plugin registration; see README.md."""
