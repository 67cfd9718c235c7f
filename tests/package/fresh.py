"""A fresh Debian 12: a minimal one, made by mmdebstrap from the entries that this machine's own apt has for Debian. Nothing of this machine is in it. Packages are built in one
(what is missing from Build-Depends is missing there) and installed on another, which a systemd of its own boots."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

CODENAME = "bookworm"
SOURCES, PACKAGES = "/usr/src/quiesced", "/var/tmp/quiesced-packages"
# Within a mount namespace that ends with the script; roots lie on a tmpfs in it.
PRIVATE = ["unshare", "--mount", "--propagation", "private", "bash", "-euc"]
# A command in a root that is not booted, with this machine's network, by which apt reaches the archive.
ENTER = ("systemd-nspawn --quiet --register=no --keep-unit --settings=no --as-pid2 --resolv-conf=copy-host --bind-ro=/etc/hosts --timezone=off --link-journal=no "
         "--console=pipe --setenv=DEBIAN_FRONTEND=noninteractive --setenv=LANG=C.UTF-8")
MAKE = """
mount -t tmpfs -o mode=755 none "$1"
TMPDIR=$1 mmdebstrap --quiet --mode=root --variant=minbase --include=systemd-sysv --aptopt="$2/options" --dpkgopt=force-unsafe-io --skip=cleanup/apt/lists \\
  "$4" "$3" "$2/sources"
"""
BUILD = f"""
place=$1 base=$2 tree=$3 out=$4 cache=$5 name=$6; shift 6
mount -t tmpfs -o mode=755 none "$place"
mkdir "$place/root" && tar -xf "$base" -C "$place/root"
mkdir -p "$place/root{SOURCES}" && tar -xf "$tree" -C "$place/root{SOURCES}"
mkdir -p "$cache"
{ENTER} --directory="$place/root" --bind="$cache:/var/cache/compiler" --setenv=CCACHE_DIR=/var/cache/compiler --hostname="$name" "$@" </dev/null
cp "$place"/root{PACKAGES}/* "$out"
"""


# A machine without a network: what apt is going to be asked for lies in its cache. The names are what Debian's installer writes; the kernel's own are not asked.
BOOT = f"""
set -eu
place=$1 base=$2 packages=$3; shift 3
mount -t tmpfs -o mode=755 none "$place/box"
cd "$place/box"
mkdir -p root{PACKAGES}
tar -xf "$base" -C root
printf '127.0.0.1 localhost\\n127.0.1.1 fresh\\n::1 localhost ip6-localhost ip6-loopback\\n' >root/etc/hosts
cp "$packages"/*.deb root{PACKAGES}
{ENTER} --directory=root sh -c 'apt-get install -y --download-only "$@" {PACKAGES}/*.deb' sh "$@" </dev/null
touch "$place/boots"
exec systemd-nspawn --quiet --register=no --keep-unit --settings=no --private-network --resolv-conf=off --timezone=off --link-journal=no --hostname=fresh \\
  --directory=root --console=pipe --boot systemd.unit=multi-user.target
"""


def unable():
    """Why this machine can have no such thing at all (itself a container without rights, say); empty when it can."""
    if os.geteuid() != 0:
        return "only root can make one"
    for program in ("mmdebstrap", "systemd-nspawn", "unshare"):
        if not shutil.which(program):
            return f"{program} is not installed"
    with tempfile.TemporaryDirectory(prefix="quiesced-fresh-", dir="/var/tmp") as place:
        done = subprocess.run([*PRIVATE, 'mount -t tmpfs none "$1" && mkdir "$1/a" && mknod "$1/null" c 1 3 && mount --bind "$1" "$1/a"', "probe", place], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def sources():
    """Whatever mirror this machine has, its entries for Debian, as sources.list has them."""
    wanted = ["apt-get", "indextargets", "--format", "deb [signed-by=$(SIGNED_BY)] $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages", "Origin: Debian"]
    for update in (False, True):  # who the origin is, apt knows from its lists
        if update:
            subprocess.run(["apt-get", "update"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        entries = sorted(set(subprocess.run(wanted, capture_output=True, text=True, check=True).stdout.splitlines()))
        if entries:
            break
    return "".join(re.sub(r"\[signed-by=(?!/)[^]]*\] ", "", entry) + "\n" for entry in entries)


def options():
    """What this machine's apt has to be told to reach the archive."""
    told = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(line + "\n" for line in told.splitlines() if re.match(r"Acquire::(Check-|https?::|Retries)", line))


def make(tar):
    """The minimal Debian, as a tar file."""
    with tempfile.TemporaryDirectory(prefix="quiesced-fresh-", dir="/var/tmp") as place:
        settings, work = pathlib.Path(place) / "settings", pathlib.Path(place) / "work"
        settings.mkdir()
        work.mkdir()
        for folder in (pathlib.Path(place), settings, work):
            folder.chmod(0o755)  # apt downloads as a user of its own
        (settings / "sources").write_text(sources())
        (settings / "options").write_text(options())
        done = subprocess.run([*PRIVATE, MAKE, "make", work, settings, tar, CODENAME], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})
    if done.returncode and re.search(r"Temporary failure resolving|Could not (?:connect|resolve)|Unable to connect|Network is unreachable", done.stdout):
        pytest.skip(f"Debian's archive is out of reach: {done.stdout.strip()[-300:]}")
    assert done.returncode == 0, done.stdout[-6000:]


def tree(source, tar):
    """The working tree as a clone would have it: what is tracked, and what is new and not ignored."""
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=source, check=True, capture_output=True).stdout
    there = b"\0".join(name for name in files.split(b"\0") if name and os.path.lexists(os.path.join(os.fsencode(source), name)))
    subprocess.run(["tar", "--null", "--no-recursion", "--owner=0", "--group=0", "-T", "-", "-cf", tar], cwd=source, input=there, check=True)


def build(base, source, out, commands):
    """The packages, by the commands of the manual: [to get git, to get what is built with, to build]. The compiler cache, where this machine has one, goes in with the sources."""
    get_git, get_rest, make_packages = commands
    script = "\n".join(["set -euo pipefail", f"cd {SOURCES}", get_git, get_rest, "dpkg-checkbuilddeps packaging/debian/control", "git init -q . && git add -A -f",
                        "apt-get install -y --no-install-recommends ccache", "export DEB_BUILD_OPTIONS='noautodbgsym nocheck'", make_packages])
    kept = subprocess.run(["ccache", "--get-config", "cache_dir"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="quiesced-fresh-", dir="/var/tmp") as place:
        files, work = pathlib.Path(place) / "tree.tar", pathlib.Path(place) / "work"
        work.mkdir()
        tree(source, files)
        done = subprocess.run([*PRIVATE, BUILD, "build", work, base, files, out, kept, "builder", "bash", "-c", script],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stdout[-8000:]
    return sorted(pathlib.Path(out).glob("*.deb"))
