"""Names and addresses of the node; they mean something only inside its network namespace."""

from __future__ import annotations

from typing import Final

NODE: Final = "node-1"
ADDRESS: Final = "10.250.0.2"
POD_SUBNET: Final = "10.244.0.0/24"
SERVICE_SUBNET: Final = "10.96.0.0/16"
# Where pods find the API server. There is no kube-proxy: this one address lies on the node's
# loopback device, and the API server listens on the port that the service has.
SERVICE_ADDRESS: Final = "10.96.0.1"
API_PORT: Final = 443
API_URL: Final = f"https://{ADDRESS}:{API_PORT}"

# Paths inside the node.
CONFIG: Final = "/etc/kubernetes"
RUNTIME: Final = "unix:///run/containerd/containerd.sock"

# Images of our own.
PAUSE_IMAGE: Final = "localhost/pause:1"
READER_IMAGE: Final = "localhost/reader:1"
DRIVER_IMAGE: Final = "localhost/akvfs:test"
NEXT_DRIVER_IMAGE: Final = "localhost/akvfs:next"
