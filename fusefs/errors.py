"""What can go wrong in fusefs, and whose fault it is.

::

    FusefsError
    +-- InvalidTree          the caller's files do not form a tree
    +-- InvalidSnapshot      a descriptor that does not hold a sealed snapshot
    +-- CannotStart          the node lacks what the keeper needs
    +-- NodeError            a kernel request that has no answer; `errnos` gives it a number
    |   +-- NoSuchName
    |   +-- NoSuchAttribute
    |   +-- StaleGeneration
    |   +-- ReadOnlyVolume
    |   +-- NotADirectoryNode
    +-- KeeperError          the keeper's answer to a request
    |   +-- InvalidMessage
    |   +-- TargetRefused
    |   +-- KernelUnsupported
    |   +-- OverBudget
    |   +-- Superseded
    |   +-- VolumeUnknown
    |   +-- VolumeFailed
    +-- KeeperUnavailable    no answer: no keeper at the socket, or the connection was lost

No message ever holds file content.
"""


class FusefsError(Exception):
    """Base of everything raised here on purpose; never raised itself."""


class InvalidTree(FusefsError):
    """The files given do not form a tree that a volume can show.

    Attributes:
        path: The offending path, as given.
        problem: What is wrong with it, in words for the author of the class.
    """

    def __init__(self, path: str, problem: str) -> None:
        """Build the message from the path and the problem."""
        super().__init__(f"invalid file path {path!r}: {problem}")
        self.path = path
        self.problem = problem


class InvalidSnapshot(FusefsError):
    """A descriptor does not hold a sealed snapshot: wrong seals, size, magic or index."""


class CannotStart(FusefsError):
    """The keeper was started with options, or on a node, that do not let it work."""


class NodeError(FusefsError):
    """A kernel request that cannot be answered with content."""


class NoSuchName(NodeError):
    """No such name in this directory, or not yet (ENOENT)."""


class NoSuchAttribute(NodeError):
    """The node has no extended attribute of this name (ENODATA)."""


class StaleGeneration(NodeError):
    """The generation a node or handle belongs to is no longer kept (ESTALE)."""


class ReadOnlyVolume(NodeError):
    """An operation that would change the volume, outside the plan in progress (EROFS)."""


class NotADirectoryNode(NodeError):
    """A directory operation on something else (ENOTDIR)."""


class KeeperError(FusefsError):
    """Base of what the keeper answers to a request that it did not carry out."""


class InvalidMessage(KeeperError):
    """A control message that does not follow the protocol: a defect of the sender."""


class TargetRefused(KeeperError):
    """The target path is not one that the keeper may mount on.

    Attributes:
        layout: True when the path does not follow kubelet's layout (the caller's argument is
            wrong), False when what is found there forbids it (the node is in the wrong state).
    """

    def __init__(self, message: str, *, layout: bool = False) -> None:
        """Keep the message and whose fault it is."""
        super().__init__(message)
        self.layout = layout


class KernelUnsupported(KeeperError):
    """The running kernel lacks something that a volume needs."""


class OverBudget(KeeperError):
    """A snapshot is larger than the keeper's budget for one volume."""


class Superseded(KeeperError):
    """A newer node session has registered; this one is no longer obeyed."""


class VolumeUnknown(KeeperError):
    """The request names a volume that is not published."""


class VolumeFailed(KeeperError):
    """The volume could not be brought up, or its worker keeps dying."""


class KeeperUnavailable(FusefsError):
    """There is no keeper at the socket, or the connection was lost before an answer came."""
