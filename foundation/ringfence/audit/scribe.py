"""The thread that signs checkpoints over what has become durable, one at a time and always over the newest head.

It never holds up a commit: a commit is acknowledged first and signed afterwards, and many share one signature. On a
slower cadence the second key signs too, the anchor's counter is advanced (`anchor` has the protocol), and segments
that need not be kept any longer are removed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ringfence.audit.anchor import Anchor
from ringfence.audit.checkpoint import Checkpoint, Signer, sign_checkpoint
from ringfence.audit.commit import Head
from ringfence.audit.files import FilePort, read_blocks
from ringfence.audit.folder import read_layout
from ringfence.audit.records import decode_line
from ringfence.audit.retention import retain
from ringfence.audit.segments import checkpoints_name, records_name
from ringfence.audit.settings import Settings
from ringfence.errors import RingfenceError

RETAIN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Signing:
    """What checkpoints are made with."""

    origin: str
    signer: Signer
    second: Signer | None
    anchor: Anchor | None
    settings: Settings
    clock_ns: Callable[[], int]


class Scribe:
    """Signs in the background; `offer` tells it of a new head, `finish` asks for the last checkpoint.

    `fail` is called with the reason when the log must deny from now on; its second argument says that a sync failed.
    """

    def __init__(
        self,
        folder: Path,
        files: FilePort,
        signing: Signing,
        *,
        covered: int,
        counter: int,
        fail: Callable[[str, bool], None],
    ) -> None:
        self._folder = folder
        self._files = files
        self._with = signing
        self._fail = fail
        self._counter = counter
        self._newest: Head | None = None
        self._covered = self._attempted = self._complete = covered
        self._segment = 0
        self._descriptor = -1
        self._size = 0
        self._finishing = self._stopped = self._idle = False
        self._change = threading.Condition()
        self._last: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="audit-sign", daemon=True)
        self._thread.start()

    @property
    def covered(self) -> int:
        """The last record under a durable checkpoint."""
        return self._covered

    def offer(self, head: Head) -> None:
        """Makes a new durable head known."""
        with self._change:
            self._newest = head
            # While it keeps to its cadence it looks by itself; waking it would only take time from the commits.
            if self._idle:
                self._change.notify_all()

    def stop(self) -> None:
        """Ends it without another checkpoint."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def finish(self) -> None:
        """Signs what is not covered yet, by every key and the anchor that there are, and ends it."""
        with self._change:
            self._finishing = True
            self._attempted = self._complete
            self._change.notify_all()
        self._thread.join()
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1

    def _run(self) -> None:
        try:
            while (head := self._next_head()) is not None:
                self._cover(head)
            if not self._stopped:
                self._retain()
        except RingfenceError as error:
            self._fail(f"a checkpoint could not be made ({error.code})", False)
        except BaseException:
            self._fail("one of its threads failed", False)
            raise

    def _next_head(self) -> Head | None:
        """The newest head that no checkpoint was tried for, when it is time to, or None when there will be no more."""
        with self._change:
            self._idle = True
            self._change.wait_for(lambda: self._waiting() is not None or self._finishing or self._stopped)
            self._idle = False
            pause = self._last.get("sign", 0.0) + self._with.settings.checkpoint_every_s - time.monotonic()
            if pause > 0:
                self._change.wait_for(lambda: self._finishing or self._stopped, pause)
            head = self._waiting()
            if self._stopped or head is None:
                return None
            self._attempted = head.seq
            return head

    def _waiting(self) -> Head | None:
        head = self._newest
        return head if head is not None and head.seq > self._attempted else None

    def _cover(self, head: Head) -> None:
        settings = self._with.settings
        self._last["sign"] = time.monotonic()
        second = self._with.second if self._due("second", settings.second_every_s) else None
        anchor = self._with.anchor if self._due("anchor", settings.anchor_every_s) else None
        checkpoint = Checkpoint(
            self._with.origin,
            head.seq,
            head.tree.root(),
            head.chain.decode(),
            self._with.clock_ns(),
            self._counter + (anchor is not None),
        )
        if not self._write(sign_checkpoint(checkpoint, self._with.signer, second) + b"\n", head):
            return
        with self._change:
            self._covered = head.seq
            if second is self._with.second and anchor is self._with.anchor:
                self._complete = head.seq
            # `finish` may have set the attempt back while this one was under way.
            self._attempted = self._complete if self._finishing else head.seq
        self._count(second, anchor)
        if self._due("retain", RETAIN_EVERY_S):
            self._retain()

    def _due(self, what: str, every_s: float) -> bool:
        return self._finishing or what not in self._last or time.monotonic() - self._last[what] >= every_s

    def _count(self, second: Signer | None, anchor: Anchor | None) -> None:
        """Notes what a durable checkpoint was made with, and advances the counter that it named."""
        if second is not None:
            self._last["second"] = time.monotonic()
        if anchor is not None:
            self._last["anchor"] = time.monotonic()
            self._counter += 1
            if anchor.increment() != self._counter:
                self._fail("the anchor's counter is not this log's alone", False)

    def _write(self, entry: bytes, head: Head) -> bool:
        """Whether the checkpoint is durable; where there is no space for it, the next one covers its records too."""
        try:
            self._turn_to(head.segment)
            self._files.append(self._descriptor, entry)
        except OSError as error:
            if self._descriptor >= 0:
                try:
                    self._files.truncate(self._descriptor, self._size)
                except OSError:
                    self._fail(f"a checkpoint could not be written ({error.strerror}) and not undone", False)
            return False
        try:
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            self._fail(f"fdatasync of the checkpoints failed ({error.strerror})", True)
            return False
        self._size += len(entry)
        return True

    def _turn_to(self, segment: int) -> None:
        """Opens the file of a segment's checkpoints."""
        if segment == self._segment:
            return
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1
        path = self._folder / checkpoints_name(segment)
        self._descriptor = self._files.open(path)
        self._size = path.stat().st_size
        self._segment = segment

    def _retain(self) -> None:
        self._last["retain"] = time.monotonic()
        settings = self._with.settings
        if settings.keeps_everything:
            return
        now_ns = self._with.clock_ns()
        try:
            before = self._covered
            if settings.keep_at_least_s:
                before = min(before, _old_enough(self._folder, settings.keep_at_least_s, now_ns))
            retain(self._folder, before, settings, now_ns, self._files)
        except OSError:
            # What could not be removed now is removed the next time; nothing was lost.
            return


def _old_enough(folder: Path, seconds: int, now_ns: int) -> int:
    """The first record of the newest segment that began so long ago, 0 without one: all before it are older."""
    for first in reversed(read_layout(folder).records):
        lines, _ = next(read_blocks(folder / records_name(first)), ([], b""))
        # The first line is the header.
        if len(lines) > 1 and now_ns - decode_line(lines[1]).time_ns >= seconds * 1_000_000_000:
            return first
    return 0
