"""A machine to install the packages on: this one's files beneath an overlay in memory, booted by a systemd of its own in a container.
Nothing of the host changes, and all of it is gone when the test's process tree is."""
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile
import time

PATIENCE = 120
# The container's root lies on a tmpfs that only the mount namespace of this script has.
BOOT = r"""
set -eu
place=$1; shift
mount -t tmpfs -o mode=755 none "$place/box"
cd "$place/box"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir="$PWD/upper",workdir="$PWD/work" root
# A machine that has never seen quiesced, and on which packages may start their services.
rm -rf root/usr/sbin/policy-rc.d root/var/lib/quiesced root/etc/quiesced
for user in quiesced quiesced-front quiesced-courier; do
  chroot root userdel "$user" 2>/dev/null || true
done
mkdir -p root/etc/systemd/system root/srv
cat > root/etc/systemd/system/nest.target <<X
[Unit]
Description=What the test's machine boots to: nothing
Wants=systemd-journald.service
X
mkfs.ext4 -q -F volume.img 64M
mkdir volume
mount -o loop volume.img volume
truncate -s 128M cow.img
mkfs.btrfs -q cow.img
mkdir cow
mount -o loop cow.img cow
mkdir -p root/srv/volume root/srv/cow
touch "$place/boots"
exec systemd-nspawn --quiet --register=no --keep-unit --settings=no --private-network --resolv-conf=off --timezone=off --link-journal=no \
  --directory=root --bind="$PWD/volume:/srv/volume" --bind="$PWD/cow:/srv/cow" --console=pipe --boot systemd.unit=nest.target
"""


def unable():
    """Why this machine cannot have such a container at all (itself a container without rights, say); empty when it can."""
    with tempfile.TemporaryDirectory(prefix="quiesced-nest-", dir="/var/tmp") as place:
        probe = 'mount -t tmpfs none "$1" && cd "$1" && mkdir u w r && mount -t overlay overlay -o lowerdir=/,upperdir="$PWD/u",workdir="$PWD/w" r'
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", probe, "probe", place], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


class Nest:
    def __init__(self, boot=BOOT, *words):
        """boot: what makes the root and becomes the container, given the place and these words; it makes the file `boots` there right before."""
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-nest-", dir="/var/tmp"))
        (self.place / "box").mkdir()
        self.log = open(self.place / "log", "wb")
        self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "bash", "-c", boot, "boot", self.place, *words],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
                                        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})
        try:
            self.leader = self.await_leader()
            self.until("systemctl is-system-running | grep -qE 'running|degraded'")
        except BaseException:
            self.end()
            raise

    def words(self):
        return (self.place / "log").read_text(errors="replace")[-3000:]

    def await_leader(self):
        """The container's first process: a descendant of ours that calls itself 1."""
        while not (self.place / "boots").exists():  # what it is made from may take its time
            assert self.process.poll() is None, f"the machine was not made: {self.words()}"
            time.sleep(0.1)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the container did not start: {self.words()}"
            for child in self.descendants(self.process.pid):
                try:
                    text = pathlib.Path(f"/proc/{child}/status").read_text()
                except OSError:
                    continue
                numbers = next((line.split()[1:] for line in text.splitlines() if line.startswith("NSpid:")), [])
                if len(numbers) > 1 and numbers[-1] == "1":
                    return child
            time.sleep(0.05)
        raise AssertionError(f"the container did not boot: {self.words()}")

    @staticmethod
    def descendants(pid):
        found = []
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return found
        for child in children:
            found += [int(child), *Nest.descendants(int(child))]
        return found

    def run(self, command, check=True, seconds=300):
        """In the container, by bash. Standard output and error are one text."""
        done = subprocess.run(["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
                               "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
                               "DEBIAN_FRONTEND=noninteractive", "bash", "-c", command],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, text=True, errors="replace")
        assert not check or done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout[-6000:]}\n{self.journal()}"
        return done.stdout if check else (done.returncode, done.stdout)

    def journal(self):
        done = subprocess.run(["nsenter", "--target", str(self.leader), "--mount", "--pid", "--root", "journalctl", "--no-pager", "-n", "60", "-u", "quiesced*"],
                              capture_output=True, text=True, errors="replace")
        return done.stdout[-5000:]

    def until(self, command, seconds=PATIENCE):
        """Asks again and again until it is so."""
        deadline = time.monotonic() + seconds
        while True:
            code, words = self.run(command, check=False)
            if code == 0:
                return words
            assert time.monotonic() < deadline, f"{command}: never: {words[-3000:]}\n{self.journal()}"
            time.sleep(0.1)

    def json(self, command):
        return json.loads(self.run(command))

    def put(self, name, source):
        """A file of the host's, seen in the container at name."""
        target = pathlib.Path(f"/proc/{self.leader}/root") / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)

    def changed(self):
        """Every path that is not as the host has it, but for what dpkg, apt and the boot keep for themselves."""
        box = pathlib.Path(f"/proc/{self.process.pid}/root") / str(self.place).lstrip("/") / "box" / "upper"
        others = ("var/lib/dpkg/", "var/lib/apt/", "var/cache/", "var/log/", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/subuid", "etc/subgid",
                  "etc/.pwd.lock", "var/lib/systemd/", "etc/machine-id", "run/", "tmp/", "root/", "usr/share/info/dir", "usr/lib/udev/hwdb.bin", "etc/udev/hwdb.bin")
        found = set()
        for folder, folders, files in os.walk(box):
            for name in files + folders:
                path = pathlib.Path(folder) / name
                text = str(path.relative_to(box))
                gone = stat.S_ISCHR(path.lstat().st_mode) and path.lstat().st_rdev == 0
                if not any(text == other.rstrip("/") or text.startswith(other) for other in others) and not path.is_dir():
                    found.add(text + (" (gone)" if gone else ""))
                elif path.is_dir() and not path.is_symlink() and not pathlib.Path("/", text).exists():
                    found.add(text + "/")
        return found

    def end(self):
        for pid in [*self.descendants(self.process.pid), self.process.pid]:
            if self.process.poll() is None:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.place, ignore_errors=True)
