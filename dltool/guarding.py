"""The monitors of a session: what a training shows by itself, told once an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dltool import files
from dltool.errors import CheckFailed
from dltool.guards.findings import FILE, reasons
from dltool.guards.monitors import Watch

if TYPE_CHECKING:
    from dltool.training import Session


class Monitors:
    """Read the losses, gradients and modes of a session's steps; change nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.excused = reasons(session.settings.without)
        self.told: set[str] = set()
        self.watch: Watch | None = None
        self._total, self._count = 0.0, 0
        if session.settings.guards == "off" or not session.team.is_first:
            return
        # the session clears gradients itself and stops at a loss that is not finite
        self.watch = Watch(
            session.model, session.optimizer, chance=session.settings.chance, zeroes=True
        )
        session.optimizer.register_step_pre_hook(lambda *_: self._loss())

    def _loss(self) -> None:
        """Note the mean loss since the last look: at every step, on an accelerator now and then."""
        session, watch = self.session, self.watch
        on_cpu = session.settings.device.type == "cpu"
        if watch is None or not (on_cpu or session.global_step % session.settings.check_every == 0):
            return
        count, total = session.loss.count, float(session.loss.total)
        if count < self._count:  # another epoch, or a rollback
            self._total, self._count = 0.0, 0
        if count > self._count:
            watch.loss((total - self._total) / (count - self._count))
        self._total, self._count = total, count

    def tell(self, *, at_end: bool = False) -> None:
        """Warn of what is new, and keep it in the run folder.

        Args:
            at_end: judge the curve of the loss too, which until then may still turn.

        Raises:
            CheckFailed: with `--guards strict`, anything that counts.
        """
        if self.watch is None:
            return
        known = self.watch.report().findings if at_end else self.watch.found.values()
        new = [each for each in known if each.code not in self.told]
        if not new:
            return
        console = self.session.console
        for found in new:
            self.told.add(found.code)
            reason = self.excused.get(found.code, "")
            console.findings.append({**found.as_dict(), "left_out": reason})
            if not reason:
                console.warn(found.text())
        files.write_json_atomic(self.session.run.folder / FILE, console.findings)
        counts = [found for found in new if found.code not in self.excused]
        # one rank that leaves alone would hang the others
        if counts and self.session.settings.guards == "strict" and self.session.team.is_alone:
            raise CheckFailed("E602", f"guard {counts[0].code}: {counts[0].message}")
