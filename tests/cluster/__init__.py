"""A Kubernetes node of the project's own: real programs, in namespaces, ended by one kill.

`node.node` starts one and yields the `cluster.Cluster` that scenarios talk to; `python -m cluster`
leaves one running for a person. What it is made of (Kubernetes' programs, Debian's container
runtime, images) is made once and kept in the user's cache folder.
"""
