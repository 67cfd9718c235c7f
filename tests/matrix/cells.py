"""The cells of the kill matrix: who, how, when. A cell is missing only because the role does not exist in that phase."""
import itertools

SIGNALS = ("SIGKILL", "SIGSTOP", "SIGTERM")

# phase: (kind of job, how it is held: by the writer in that event, by a fault point, or by itself: ext4 is frozen for an outside
# snapshot that nobody takes)
PHASES = {
    "identify": ("backup", "event", "identify"),
    "prepare_backup": ("backup", "event", "prepare_backup"),
    "prepare_snapshot": ("backup", "event", "prepare_snapshot"),
    "freeze": ("backup", "event", "freeze"),
    "create": ("backup", "fault", "worker.snapshot.create"),
    "hold": ("session", "progress", "hold"),
    "thaw": ("backup", "event", "thaw"),
    "post_snapshot": ("backup", "event", "post_snapshot"),
    "copy": ("backup", "fault", "mover.end"),
    "backup_complete": ("backup", "event", "backup_complete"),
    "release": ("backup", "event", "backup_shutdown"),
    "restore": ("restore", "fault", "mover.progress"),
    "pre_restore": ("in_place", "event", "pre_restore"),
    "restore_files": ("in_place", "fault", "mover.progress"),
    "post_restore": ("in_place", "event", "post_restore"),
}

# role: (roles whose processes get the signal, phases in which they exist)
EVERYWHERE = tuple(PHASES)
WITH_WRITERS = tuple(phase for phase in PHASES if phase != "restore")
ROLES = {
    "front": (("front",), EVERYWHERE),
    "core": (("core",), EVERYWHERE),
    "agent": (("agent",), EVERYWHERE),
    "guardian": (("guardian",), ("hold",)),
    "worker": (("worker",), EVERYWHERE),
    "writer": (("writer",), WITH_WRITERS),
    "mover": (("mover",), ("copy", "restore", "restore_files")),
    "agent and worker": (("agent", "worker"), EVERYWHERE),
    "guardian and worker": (("guardian", "worker"), ("hold",)),
    "all": (("serve", "logger", "front", "core", "agent", "guardian", "worker", "writer", "mover"), EVERYWHERE),
}

ALL = [(role, signal, phase) for role in ROLES for signal, phase in itertools.product(SIGNALS, PHASES) if phase in ROLES[role][1]]


# Of the restore sessions ./check takes a handful, since they wait for servers that stop and start: every phase with every signal, every role.
IN_PLACE_SHOWN = {("worker", "SIGKILL", "pre_restore"), ("all", "SIGKILL", "pre_restore"), ("writer", "SIGSTOP", "pre_restore"),
                  ("agent and worker", "SIGTERM", "pre_restore"), ("core", "SIGKILL", "restore_files"), ("mover", "SIGKILL", "restore_files"),
                  ("worker", "SIGSTOP", "restore_files"), ("front", "SIGTERM", "restore_files"), ("writer", "SIGTERM", "restore_files"), ("agent", "SIGKILL", "post_restore"),
                  ("core", "SIGSTOP", "post_restore"), ("writer", "SIGTERM", "post_restore")}


def repository(cell):
    """The mover's own cells meet restic too; everything else the archive."""
    role, signal, phase = cell
    return "restic" if role in ("mover", "worker", "all") and phase in ("copy", "restore") and signal != "SIGTERM" else "archive"


def is_representative(cell):
    """The part of ./check: every role, every phase with two signals, with the emphasis on the middle of the window."""
    role, signal, phase = cell
    if PHASES[phase][0] == "in_place":
        return cell in IN_PLACE_SHOWN
    if role in ("guardian", "mover"):
        return signal != "SIGTERM"
    if phase == "hold":
        return role != "front" and (signal == "SIGKILL" or (signal, role) in (("SIGSTOP", "agent"), ("SIGSTOP", "worker"), ("SIGSTOP", "writer"), ("SIGSTOP", "core")))
    if phase == "create":
        return (signal, role) in (("SIGKILL", "core"), ("SIGKILL", "worker"), ("SIGKILL", "writer"), ("SIGKILL", "agent and worker"), ("SIGSTOP", "worker"))
    if cell == ("writer", "SIGSTOP", "freeze"):  # every database is held by a writer that hears nothing
        return True
    if role == "all":
        return signal == "SIGKILL" and phase in ("freeze", "copy", "restore")
    if (role, signal) == ("worker", "SIGKILL") and phase in ("prepare_backup", "prepare_snapshot", "thaw", "backup_complete"):
        return True
    if (role, signal) == ("writer", "SIGSTOP") and phase == "release":
        return True
    spread = list(PHASES).index(phase) + list(ROLES).index(role)
    return SIGNALS[spread % 3] == signal and spread % 4 == 0


def name(cell):
    role, signal, phase = cell
    return f"{role.replace(' ', '_')}-{signal}-{phase}"
