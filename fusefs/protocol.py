"""Control messages: node server and keeper, keeper and keeper, keeper and worker.

What a message is on the wire is the matter of `packets`.
"""

from typing import Final, Literal

import msgspec

MAJOR: Final = 1  # of the messages between programs; within it each understands the other

Filesystem = Literal["fuse", "tmpfs"]
WantedFilesystem = Literal["auto", Filesystem]


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages."""


# What node server and keeper hold for each other.


class Generation(msgspec.Struct, frozen=True, array_like=True):
    """A generation that is kept; `plan` leads to it, None when that is over and done with.

    `digest` says what secret memory must hold; a sealed file has none.
    """

    number: int
    plan: bytes | None
    digest: bytes = b""


class VolumeBackup(msgspec.Struct, frozen=True, array_like=True):
    """Everything from which a keeper goes on serving a volume, but for the descriptors.

    `slot` tells the worker's uid. What is above `acknowledged` has a plan: it is on its way in.
    """

    volume_id: str
    target: str
    slot: int
    record: bytes
    acknowledged: int
    generations: tuple[Generation, ...]
    init_request: bytes
    init_reply: bytes
    selinux_context: str = ""


# Node server to keeper. `request` is echoed in every answer.


class Register(Message, frozen=True):
    """Become the node session that is obeyed; the session before is obeyed no longer.

    The keeper sends all that it holds before it answers.
    """

    request: int
    major: int = MAJOR


class GiveBack(Message, frozen=True):
    """Go on with a volume that a keeper before served. Descriptors: FUSE device, page of counts.

    One `GiveBackGeneration` follows for each generation; the last of them starts the worker.
    """

    request: int
    volume: VolumeBackup


class GiveBackGeneration(Message, frozen=True):
    """Keep a generation of a volume that is given back. Descriptor: the snapshot."""

    request: int
    volume_id: str
    generation: int


class Publish(Message, frozen=True):
    """Mount a volume; answered with `Published`. Descriptor: the snapshot.

    `auto` is FUSE, or a tmpfs where FUSE cannot be had. A tmpfs that is found at the target stays
    one: a pod may be using it. `user_namespace` says that the pod has one of its own; an empty
    `selinux_context` asks for the node's default.
    """

    request: int
    volume_id: str
    target: str
    generation: int
    plan: bytes
    record: bytes
    filesystem: WantedFilesystem = "auto"
    user_namespace: bool = False
    selinux_context: str = ""
    digest: bytes = b""


class Rotate(Message, frozen=True):
    """Bring a new generation into a published volume. Descriptor: the snapshot."""

    request: int
    volume_id: str
    generation: int
    plan: bytes
    record: bytes
    digest: bytes = b""


class UpdateRecord(Message, frozen=True):
    """Replace the record of a published volume."""

    request: int
    volume_id: str
    record: bytes


class Unpublish(Message, frozen=True):
    """Take a volume away. An unknown one is fine; the target is cleaned up all the same."""

    request: int
    volume_id: str
    target: str


class ListVolumes(Message, frozen=True):
    """Ask for every volume. Needs no registration."""

    request: int


class FetchSnapshot(Message, frozen=True):
    """Ask for the newest snapshot of a volume. Needs no registration."""

    request: int
    volume_id: str


# Between keepers; see `handover`.


class TakeOver(Message, frozen=True):
    """Send everything, and let me serve it. `rank` says when its supervisor was started."""

    request: int
    rank: int
    major: int = MAJOR


class StandingBy(Message, frozen=True):
    """A worker of mine stands by for each volume: stop yours."""

    request: int


class Committed(Message, frozen=True):
    """My workers serve: end."""

    request: int


SuccessorMessage = TakeOver | StandingBy | Committed
NodeCommand = GiveBack | GiveBackGeneration | Publish | Rotate | UpdateRecord | Unpublish
NodeMessage = Register | NodeCommand | ListVolumes | FetchSnapshot | SuccessorMessage


# Keeper to node server


class Done(Message, frozen=True):
    """The request was carried out; for a rotation: every new open sees the generation."""

    request: int


class Published(Message, frozen=True):
    """The target shows the volume; `reason` tells why it is no FUSE volume if it might be one.

    Containers in `restart` still see what was there before, and will until they are restarted.
    """

    request: int
    filesystem: Filesystem
    reason: str
    restart: tuple[str, ...] = ()


class Refused(Message, frozen=True):
    """The request was not carried out and left nothing behind. `error` names a `KeeperError`."""

    request: int
    error: str
    text: str
    layout: bool = False


class VolumeState(Message, frozen=True):
    """One volume, as part of `Volumes`; `reason` as in `Published`."""

    volume_id: str
    target: str
    generation: int
    record: bytes
    worker_pid: int | None
    filesystem: Filesystem = "fuse"
    reason: str = ""


class Volumes(Message, frozen=True):
    """Every volume that is shown at its target."""

    request: int
    volumes: tuple[VolumeState, ...]


class SnapshotOf(Message, frozen=True):
    """A volume's newest generation. Descriptor: its snapshot."""

    request: int
    generation: int
    digest: bytes = b""


KeeperAnswer = Done | Published | Refused | Volumes | SnapshotOf


# Keeper to the obeyed session, unasked: what to hold, before the answer that depends on it.


class Hold(Message, frozen=True):
    """Hold a volume, instead of what was held of it. Descriptors: FUSE device, page of counts.

    One `HoldGeneration` follows for each generation.
    """

    volume: VolumeBackup


class HoldGeneration(Message, frozen=True):
    """Hold a generation of a volume. Descriptor: the snapshot."""

    volume_id: str
    generation: int


class Acknowledged(Message, frozen=True):
    """Every new open sees the generation; when finished, its plan is over and done with."""

    volume_id: str
    generation: int
    finished: bool


class Released(Message, frozen=True):
    """These generations are not kept any longer."""

    volume_id: str
    generations: tuple[int, ...]


class LetGo(Message, frozen=True):
    """The volume has ended; nothing of it is to be held."""

    volume_id: str


class Dismissed(Message, frozen=True):
    """A newer node server is obeyed, and holds everything."""


class Stopped(Message, frozen=True):
    """To a successor: nobody serves the volume now; `answered`: nothing that was taken is left."""

    volume_id: str
    answered: bool


KeeperNotice = Hold | HoldGeneration | Acknowledged | Released | LetGo | Dismissed
KeeperMessage = KeeperAnswer | KeeperNotice
ToSuccessor = KeeperMessage | Stopped


# Keeper to worker


class Swap(Message, frozen=True):
    """Make a new generation the current one. Descriptor: its snapshot."""

    generation: int
    plan: bytes
    digest: bytes = b""


class Finish(Message, frozen=True):
    """The plan in progress has been carried out."""


class Primed(Message, frozen=True):
    """The mount has been primed; the priming file must not be found any longer."""


class Drop(Message, frozen=True):
    """Let go of generations: those that nobody uses or, when forced, all of them."""

    generations: tuple[int, ...]
    forced: bool


class Ping(Message, frozen=True):
    """Answer, as a sign of life."""


class Attach(Message, frozen=True):
    """Serve, having stood by; with `recover`, what a predecessor took must be answered too."""

    recover: bool


class Recover(Message, frozen=True):
    """A predecessor is gone only now: answer what it had taken."""


class Stop(Message, frozen=True):
    """End, once all that was taken is answered."""


class Freeze(Message, frozen=True):
    """Give out no handle any more: the volume is to outlive this process."""


class Drain(Message, frozen=True):
    """Say when nobody uses a handle any more."""


ToWorker = Swap | Finish | Primed | Drop | Ping | Attach | Recover | Stop | Freeze | Drain


# Worker to keeper


class Ready(Message, frozen=True):
    """The worker answers the kernel. `reply` is its reply to INIT."""

    reply: bytes


class PrimingEnded(Message, frozen=True):
    """The priming file can be found no longer."""


class Swapped(Message, frozen=True):
    """Every new open on the live view sees this generation."""

    generation: int


class Dropped(Message, frozen=True):
    """These generations are no longer kept."""

    generations: tuple[int, ...]


class Rejected(Message, frozen=True):
    """A generation cannot be served: its snapshot or plan is not what it should be."""

    generation: int
    text: str


class Standby(Message, frozen=True):
    """The worker could serve and waits for the word. `reply` is its reply to INIT."""

    reply: bytes


class Pong(Message, frozen=True):
    """A sign of life."""


class Freezing(Message, frozen=True):
    """No handle is given out from now on."""


class Drained(Message, frozen=True):
    """Nobody uses a handle any more."""


FromWorker = (
    Ready | PrimingEnded | Swapped | Dropped | Rejected | Standby | Pong | Freezing | Drained
)

# What each end may be sent, ready to decode.
AT_KEEPER: Final = msgspec.msgpack.Decoder[NodeMessage](NodeMessage)
AT_NODE: Final = msgspec.msgpack.Decoder[KeeperMessage](KeeperMessage)
AT_SUCCESSOR: Final = msgspec.msgpack.Decoder[ToSuccessor](ToSuccessor)
AT_WORKER: Final = msgspec.msgpack.Decoder[ToWorker](ToWorker)
FROM_WORKER: Final = msgspec.msgpack.Decoder[FromWorker](FromWorker)
