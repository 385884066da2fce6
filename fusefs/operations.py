"""FUSE handlers: each asks the node table and builds the reply.

No handler waits for anything, so one task serves them in order. An operation that would change
the volume is accepted exactly when the plan in progress contains it, whoever asks: through a
pod's mount the kernel refuses it before it gets here, and through the private mount only the
touch child comes. Each accepted operation may arrive twice, since a worker can die between
carrying it out and answering.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

import pyfuse3
from typing_extensions import override

from fusefs.attributes import Attributes
from fusefs.errnos import handler, no_reply
from fusefs.errors import NoSuchAttribute, NoSuchName, ReadOnlyVolume, StaleGeneration
from fusefs.nodeids import PRIME_NODE, ROOT_NODE, Handle, split
from fusefs.nodes import NodeTable
from fusefs.plan import DATA_LINK, DATA_LINK_NEXT, Step, StepKind

CACHED_S: Final = 1e8  # until told: every change is followed by an invalidation
BLOCK_BYTES: Final = 4096
NAME_MAX: Final = 255
_FILE_TYPES: Final = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}


def entry_of(attributes: Attributes, *, lasting: bool = True) -> pyfuse3.EntryAttributes:
    """Return pyfuse3's form of `attributes`."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.node
    entry.st_mode = _FILE_TYPES[attributes.kind] | attributes.mode
    entry.st_nlink = attributes.links
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_size = attributes.size
    entry.st_blksize = BLOCK_BYTES
    entry.st_blocks = -(-attributes.size // 512)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.time_ns
    entry.attr_timeout = entry.entry_timeout = CACHED_S if lasting and attributes.lasting else 0
    return entry


class VolumeOperations(pyfuse3.Operations):
    """The handlers of one volume."""

    supports_dot_lookup = False  # no file handles for NFS

    def __init__(self, table: NodeTable) -> None:
        """Serve `table`."""
        super().__init__()
        self.table = table

    # Names and attributes

    @override
    @handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name in (b".", b".."):
            raise NoSuchName
        node = self.table.resolve(parent_inode, name)
        entry = entry_of(self.table.attributes(node))
        self.table.count_lookup(node)
        return entry

    @override
    @no_reply
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for node, count in inode_list:
            self.table.count_lookup(node, -count)

    @override
    @handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return entry_of(self.table.attributes(inode))

    @override
    @handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self.table.link_target(inode)

    @override
    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        found = self.table.extended_attributes(inode)
        if name not in found:
            raise NoSuchAttribute
        return found[name]

    @override
    @handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        try:
            return sorted(self.table.extended_attributes(inode))
        except NoSuchAttribute:
            return []

    @override
    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        size, files = self.table.totals()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_BYTES
        # Zero blocks trip disk alerts; a full file system of its real size does not surprise.
        data.f_blocks = max(1, -(-size // BLOCK_BYTES))
        data.f_bfree = data.f_bavail = 0
        data.f_files = max(1, files)
        data.f_ffree = data.f_favail = 0
        data.f_namemax = NAME_MAX
        return data

    # Files

    @override
    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if inode == PRIME_NODE:
            return pyfuse3.FileInfo(fh=PRIME_NODE, direct_io=True, keep_cache=False)
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        generation, entry = self.table.file(inode)
        if writing and not self._may_touch(inode, entry.path):
            raise ReadOnlyVolume
        return self._opened(Handle(generation=generation, local=entry.node, writing=writing), inode)

    def _may_touch(self, inode: int, path: str) -> bool:
        transition = self.table.transition
        return split(inode)[0] == 0 and transition is not None and path in transition.plan.changed

    def _opened(self, handle: Handle, inode: int) -> pyfuse3.FileInfo:
        """Live files bypass the page cache, which would mix generations; others may use it."""
        lasting = split(inode)[0] != 0
        self.table.opened(handle.generation)
        return pyfuse3.FileInfo(fh=handle.pack(), direct_io=not lasting, keep_cache=lasting)

    @override
    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        if fh == PRIME_NODE:
            return b""
        handle = Handle.unpack(fh)
        return self.table.read(handle.generation, handle.local, off, size)

    @override
    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if not Handle.unpack(fh).writing:
            raise ReadOnlyVolume
        return len(buf)

    @override
    @handler
    async def flush(self, fh: int) -> None:
        # Learnt by the kernel at priming. Were it asked at every close, a reader that is killed
        # while the worker is being replaced would hang.
        raise pyfuse3.FUSEError(errno.ENOSYS)

    @override
    @no_reply
    async def release(self, fh: int) -> None:
        if fh != PRIME_NODE:
            self.table.released(Handle.unpack(fh).generation)

    # Directories

    @override
    @handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        generation, local = split(inode)
        shown = generation or self.table.shown
        if not generation and local not in self.table.directories_of(shown):
            shown = self.table.current  # a directory that the plan in progress has made
        if local not in self.table.directories_of(shown):
            raise StaleGeneration
        self.table.opened(shown)
        return Handle(generation=shown, local=local, live=not generation).pack()

    @override
    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = Handle.unpack(fh)
        entries = self.table.listing(handle.generation, handle.local, live=handle.live)
        for number, (name, node) in enumerate(entries):
            if number < start_id:
                continue
            entry = entry_of(
                self.table.attributes(node), lasting=self._still_there(handle, name, node)
            )
            if not pyfuse3.readdir_reply(token, name, entry, number + 1):
                break
            self.table.count_lookup(node)

    def _still_there(self, handle: Handle, name: bytes, node: int) -> bool:
        """Whether a look-up would find `node` too: an old listing must not revive a gone name."""
        if not handle.live:
            return True
        try:
            return self.table.resolve(handle.local, name) == node
        except NoSuchName:
            return False

    @override
    @no_reply
    async def releasedir(self, fh: int) -> None:
        self.table.released(Handle.unpack(fh).generation)

    # Operations of the plan in progress; anything else is EROFS

    @override
    @handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._carry_out("mkdir", parent_inode, name)
        return self._entered(self.table.resolve(parent_inode, name))

    @override
    @handler
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self._carry_out("create", parent_inode, name)
        node = self.table.resolve(parent_inode, name)
        generation, entry = self.table.file(node)
        handle = Handle(generation=generation, local=entry.node, writing=True)
        return self._opened(handle, node), self._entered(node)

    @override
    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._carry_out("unlink", parent_inode, name)

    @override
    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._carry_out("rmdir", parent_inode, name)

    @override
    @handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        transition = self.table.transition
        wanted = (ROOT_NODE, DATA_LINK_NEXT.encode(), b"..%d" % self.table.current)
        if transition is None or (parent_inode, name, target) != wanted:
            raise ReadOnlyVolume
        if transition.done < len(transition.plan.steps):
            raise ReadOnlyVolume
        if transition.swung:  # a second touch child: nobody would ever find what was accepted now
            raise pyfuse3.FUSEError(errno.EEXIST)
        self.table.advance(len(transition.plan.steps) + 1)
        return self._entered(self.table.data_link(self.table.current))

    @override
    @handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        transition = self.table.transition
        asked = (parent_inode_old, name_old, parent_inode_new, name_new)
        wanted = (ROOT_NODE, DATA_LINK_NEXT.encode(), ROOT_NODE, DATA_LINK.encode())
        if transition is None or asked != wanted or not (transition.linked or transition.swung):
            raise ReadOnlyVolume
        self.table.advance(len(transition.plan.steps) + 2)

    def _carry_out(self, kind: StepKind, parent: int, name: bytes) -> None:
        transition = self.table.transition
        if transition is None or split(parent)[0]:
            raise ReadOnlyVolume
        number = transition.number_of(Step(kind, self.table.path_of(parent, name)))
        if number is None or number > transition.done:
            raise ReadOnlyVolume
        self.table.advance(number + 1)

    def _entered(self, node: int) -> pyfuse3.EntryAttributes:
        entry = entry_of(self.table.attributes(node))
        self.table.count_lookup(node)
        return entry

    @override
    @handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        raise ReadOnlyVolume

    @override
    @handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise ReadOnlyVolume

    @override
    @handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise ReadOnlyVolume

    @override
    @handler
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        raise ReadOnlyVolume

    @override
    @handler
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise ReadOnlyVolume
