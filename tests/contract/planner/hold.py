"""A freeze that cannot be forgotten: a process of its own holds it and thaws on word, when we die, or at its deadline."""
import contextlib
import os
import signal
import subprocess
import sys
import time

LIMIT = 30  # seconds that nothing stays frozen beyond, whatever happens to the test

WATCHDOG = """
import fcntl, os, select, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fds = [os.open(path, os.O_RDONLY) for path in sys.argv[2:]]
for fd in fds:
    fcntl.ioctl(fd, 0xC0045877, 0)
print("frozen", flush=True)
select.select([0], [], [], float(sys.argv[1]))
for fd in reversed(fds):
    try:
        fcntl.ioctl(fd, 0xC0045878, 0)
    except OSError:
        pass
print("thawed", flush=True)
"""


@contextlib.contextmanager
def frozen(*paths):
    """The paths' file systems, frozen in this order, thawed in reverse."""
    holder = subprocess.Popen([sys.executable, "-c", WATCHDOG, str(LIMIT), *map(str, paths)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert holder.stdout.readline() == "frozen\n"
    try:
        yield
    finally:
        holder.communicate("")
        holder.wait()


def python(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def blocked(process):
    """Waits until the process is stuck in the kernel (state D, beyond the reach of SIGKILL), or has ended."""
    while process.poll() is None:
        with open(f"/proc/{process.pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "D":
                time.sleep(0.2)  # not just between two moments
                with open(f"/proc/{process.pid}/stat") as again:
                    if again.read().rpartition(")")[2].split()[0] == "D":
                        return True
        time.sleep(0.01)
    return False


def killed_in_vain(process):
    """SIGKILL, and it is still there."""
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    return process.poll() is None
