"""A pod volume as a small filesystem of its own: snapshots, keeper, one FUSE worker per volume.

Other packages use `fusefs.snapshot` (what a volume shows), `fusefs.client` (how to ask the keeper)
and `fusefs.errors`. Everything else is the keeper's and the workers' own.
"""
