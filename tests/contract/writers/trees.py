"""Plain copies of a living data directory, as a mover without snapshots would make them."""
import fnmatch
import os
import shutil
import stat

from postgresql_server import own


def volume(path, atomic):
    return [{"volume": path, "provider": "btrfs" if atomic else "copy", "atomic": atomic}]


def excluded(path, excludes):
    for rule in excludes:
        parent, name = os.path.split(path)
        if fnmatch.fnmatch(name, rule["spec"]) and (parent == rule["path"] or rule["recursive"] and (parent + "/").startswith(rule["path"] + "/")):
            return True
    return False


def copy_tree(source, target, excludes, original=None):
    """A plain, slow, not atomic copy of a living tree: what vanishes meanwhile is left out."""
    original = original or source
    os.mkdir(target, 0o700)
    own(target)
    for entry in os.scandir(source):
        path, copy = original + "/" + entry.name, target + "/" + entry.name
        if excluded(path, excludes):
            continue
        try:
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            elif entry.is_dir():
                copy_tree(entry.path, copy, excludes, path)
            elif stat.S_ISREG(entry.stat().st_mode):
                shutil.copy(entry.path, copy)
                own(copy)
        except FileNotFoundError:
            pass


def add_extra(component, *sets):
    """sets: (original directory, its copy)."""
    for extra in component["extra_files"]:
        copy, = (kept + extra["path"][len(path):] for path, kept in sets if extra["path"].startswith(path + "/"))
        shutil.copy(extra["source"], copy)
        own(copy)


def staging_of(place):
    path = place + "/staging"
    os.mkdir(path, 0o700)
    own(path)
    return path
