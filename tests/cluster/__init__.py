"""A Kubernetes node of the project's own: real programs, in namespaces, ended by one kill.

`node.node` starts one and yields the `cluster.Cluster` that scenarios talk to; `python -m cluster`
leaves one running for a person. What it is made of (Kubernetes' programs, Debian's container
runtime, images) is made once and kept in the user's cache folder.

On it, the fixture `driver` installs the chart with an image of the working tree; its vault is the
emulator, in the test process (`vault`). A scenario writes objects with `volumes` and `pods`, lets a
container check its own files (`starting`) or four readers read all the time (`reading`), looks at
every mount namespace (`mountcheck`), and tells what it saw in its `row` of the `table`.
"""
