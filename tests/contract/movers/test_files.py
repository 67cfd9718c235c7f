"""What a backup holds, directory by directory: every mover tells it from its manifest, without restoring anything."""
import stat

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFCHR: "character", stat.S_IFBLK: "block"}


def shown(name):
    """As the contract writes names: bytes that are no printable UTF-8, and the backslash, as \\xNN."""
    return "".join(f"\\x{ord(c) - 0xdc00:02x}" if 0xdc80 <= ord(c) <= 0xdcff else f"\\x{ord(c):02x}" if ord(c) < 32 or c in "\\\x7f" else c for c in name)


def of_disk(folder):
    found = []
    for path in folder.iterdir():
        if path.is_socket():
            continue
        st = path.lstat()
        found.append((shown(path.name), KINDS[stat.S_IFMT(st.st_mode)], st.st_size if stat.S_ISREG(st.st_mode) else 0, f"{stat.S_IMODE(st.st_mode):04o}", st.st_uid, st.st_gid))
    return sorted(found)


def told(ground, folder, limit=500):
    entries, after, pages = [], None, 0
    while pages == 0 or after is not None:
        page = ground.call("files", path=str(folder), limit=limit, **({"after": after} if after is not None else {}))["result"]
        entries += page["items"]
        after, pages = page.get("next"), pages + 1
        assert len(page["items"]) <= limit
    return entries, pages


def test_every_directory_is_told_as_it_was(ground):
    ground.run()
    expected = {str(folder): of_disk(folder) for folder in [ground.source, *ground.source.rglob("*")] if folder.is_dir() and not folder.is_symlink() and shown(folder.name) == folder.name}
    assert len(expected) > 3
    ground.source.rename(ground.place / "moved away")
    for folder, entries in expected.items():
        got, _ = told(ground, folder)
        assert sorted((e["name"], e["type"], e["bytes"], e["mode"], e["uid"], e["gid"]) for e in got) == entries, folder
    link = next(entry for entry in told(ground, ground.source / "deep")[0] if entry["name"] == "dangling")
    assert link["target"] == "nowhere\\xff" and link["modified_at"].endswith("Z"), link


def test_pages_hold_each_entry_once_and_in_order(ground):
    ground.run()
    whole, one = told(ground, ground.source)
    assert one == 1
    pieces, pages = told(ground, ground.source, 7)
    assert pages == -(-len(whole) // 7) and pieces == whole
    assert [entry["name"].encode() for entry in pieces if "\\x" not in entry["name"]] == sorted(entry["name"].encode() for entry in pieces if "\\x" not in entry["name"])


def test_from_the_top_down_to_what_was_asked_for(ground):
    """The directories above it are there too: who looks need not know where a backup begins."""
    ground.run()
    at = "/"
    for part in ground.source.parts[1:]:
        entries, _ = told(ground, at)
        assert [(entry["name"], entry["type"]) for entry in entries] == [(part, "directory")], (at, entries)
        at = f"{at.rstrip('/')}/{part}"
    assert told(ground, at)[0]


def test_what_is_no_directory_of_the_backup_is_not_found(ground):
    ground.run()
    for path in (ground.source / "missing", ground.source / "file-1", ground.source / "deep" / "link", str(ground.source) + "-more"):
        error = ground.call("files", path=str(path))["error"]
        assert error["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and str(path) in error["detail"], (path, error)
    for after in ("x", "", "-1", "99999999", "1 "):
        error = ground.call("files", path=str(ground.source), after=after)["error"]
        assert error["hresult"] == "E_INVALIDARG" and error["pointer"] == "?cursor", (after, error)
    ground.backup = "0198a6a1-3333-7000-8000-000000000000"
    error = ground.call("files", path="/")["error"]
    assert error["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and ground.backup in error["detail"], error


def test_a_damaged_manifest_tells_nothing_wrong(ground):
    """Every byte of an archive's manifest is held against its hash; the programs prove theirs by themselves."""
    ground.run()
    if ground.kind == "archive":
        manifest = next(ground.path.glob("*/manifest.jsonl"))
        manifest.write_bytes(manifest.read_bytes().replace(b"file-1", b"file-x", 1))
    else:
        for file in ground.path.glob("data/*/*"):
            file.chmod(0o600)
            content = bytearray(file.read_bytes())
            for at in range(0, len(content), 64):
                content[at] ^= 0x40
            file.write_bytes(content)
    done = ground.call("files", path=str(ground.source))
    assert "error" in done and done["error"]["detail"], done
