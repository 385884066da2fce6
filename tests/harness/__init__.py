"""Real parts for the tests that need a kernel: kubelet's directories, processes, load."""
