"""quiesced check-config: what the daemon would refuse, it refuses, with file and line; what the daemon would take, it takes."""
import hashlib
import re
import subprocess

import pytest

from conftest import BUILD, SOURCE


def check(*arguments):
    done = subprocess.run([BUILD / "quiesced", "check-config", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_example_that_is_shipped_is_taken():
    path = SOURCE / "packaging" / "quiesced.yaml"
    assert check(path) == (0, f"{path}: OK\n", "")


def test_every_setting_that_the_example_shows_is_one(tmp_path):
    """Its comments are what people uncomment."""
    path = tmp_path / "all.yaml"
    lines = []
    for line in (SOURCE / "packaging" / "quiesced.yaml").read_text().splitlines():
        if line.startswith("#") and not re.match(r"# \S", line) and line != "#":
            lines.append(line[1:])
    text = "\n".join(lines).replace("  certificate: /etc", "  #certificate: /etc").replace("  key: /etc", "  #key: /etc")
    text = text.replace("  client_c", "  #client_c") + "\n"  # files that are not there
    path.write_text(text)
    assert check(path)[0] == 0, check(path)


FAULTS = [("listen: ['127.0.0.1:8877']\nwriter: []\n", 2, "writer", 'did you mean "writers"?'),
          ("limits:\n  freeze_seconds: 60\n  lease_seconds: long\n", 3, "limits.lease_seconds", ""),
          ("writers:\n  - {name: a, type: sqlite, databases: [/a.db]}\n  - {name: a, type: sqlite, databases: [/b.db]}\n", 3, "writers[1].name", "names must be unique"),
          ("tls:\n  certificate: /nowhere/c.pem\n  key: /nowhere/c.key\n", 2, "tls.certificate", "cannot open /nowhere/c.pem: No such file or directory"),
          ("repositories:\n  - {name: a, mover: archive, path: /b}\n  - {name: b, mover: archive, path: /b}\n", 3, "repositories[1].path", "/b and /b, the path of repository a, are the same or one within the other"),
          ("repositories:\n  - {name: a, mover: archive, path: /b}\n  - {name: b, mover: restic, path: /b/c, password_file: /dev/null}\n", 3, "repositories[1].path", "/b/c and /b, "),
          ("repositories:\n  - {name: a, mover: archive, path: /b/c}\n  - {name: b, mover: archive, path: /b}\n", 3, "repositories[1].path", "a directory of its own"),
          ("repositories:\n  - {name: a, mover: archive, path: /b/c}\n  - {name: b, mover: restic, url: 'local:/b', password_file: /dev/null}\n", 3, "repositories[1].url", "/b and /b/c, "),
          ("repositories: [{name: a, mover: archive, path: /b}]\nrestore:\n  roots: [/srv, /b]\n", 3, "restore.roots[1]", "/b lies in the repository a"),
          ("repositories: [{name: a, mover: archive, path: /b}]\nrestore:\n  roots: [/b/c]\n", 3, "restore.roots[0]", "/b/c lies in the repository a"),
          ("listen: [\n", None, "", "")]


@pytest.mark.parametrize("text, line, member, words", FAULTS)
def test_a_fault_is_told_with_its_line_and_a_hint(tmp_path, text, line, member, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    code, out, said = check(path)
    assert code == 1 and out == "" and words in said, said
    assert said.startswith(f"{path}:{line}: {member}: " if line else f"{path}:"), said


def test_all_faults_are_told_at_once(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("nonsense: 1\nlimits: {jobs: many}\nlisten: [nowhere]\n")
    code, _, said = check(path)
    assert code == 1 and len(said.splitlines()) == 3, said


def test_a_daemon_refuses_what_it_refuses(daemon, tmp_path):
    """The same words from both."""
    text = "limits: {jobs: many}\n"
    (tmp_path / "bad.yaml").write_text(text)
    told = check(tmp_path / "bad.yaml")[2].partition(": ")[2].strip()
    done = subprocess.run([BUILD / "quiesced", "serve", "--config", tmp_path / "bad.yaml", "--state-dir", tmp_path / "state", "--listen", "127.0.0.1:0"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and told in done.stderr, (told, done.stderr)


def test_usage_and_a_missing_file(tmp_path):
    assert check("--all")[0] == 2 and check("a", "b")[0] == 2
    code, _, said = check(tmp_path / "none.yaml")
    assert code == 1 and "No such file" in said, said


def test_neighbours_are_no_fault(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text("repositories:\n  - {name: a, mover: archive, path: /srv/b}\n  - {name: b, mover: archive, path: /srv/b2}\nrestore: {roots: [/srv, /srv/b3]}\n")
    assert check(path) == (0, f"{path}: OK\n", "")


def known_words():
    text = (SOURCE / "daemon" / "conf" / "known_tokens.c").read_text()
    return dict(re.findall(r'\{"([0-9a-f]{64})", "(.*?)"\}', text))


def test_the_table_of_known_tokens_is_right():
    words = known_words()
    assert {"", "test", "password", "secret", "admin", "changeme"} <= set(words.values())
    assert {value: hashlib.sha256(word.encode()).hexdigest() for value, word in words.items()} == {value: value for value in words}


@pytest.mark.parametrize("word", sorted(known_words().values()))
def test_a_token_that_anybody_would_guess_is_refused(tmp_path, word):
    path, value = tmp_path / "open.yaml", hashlib.sha256(word.encode()).hexdigest()
    for spelled in (value, value.upper()):
        path.write_text(f"principals:\n  - {{name: nightly, role: operator, token_sha256: '{spelled}'}}\n")
        code, out, said = check(path)
        assert (code, out) == (1, "") and said.startswith(f"{path}:2: principals[0].token_sha256: is the SHA-256 of "), said
        assert (f'the word "{word}"' if word else "nothing at all") in said and "openssl rand -hex 32" in said, said


def test_no_example_shows_a_hash():
    """It would be copied."""
    for path in [SOURCE / "packaging" / "quiesced.yaml", SOURCE / "README.md", *(SOURCE / "docs").rglob("*.md")]:
        assert not re.search(r"token_sha256: *['\"]?[0-9a-fA-F]{64}", path.read_text()), path


def test_a_password_file_that_is_not_there_is_a_warning(tmp_path):
    path = tmp_path / "warned.yaml"
    path.write_text("repositories:\n  - {name: off, mover: restic, path: /srv/off, password_file: /nowhere/secret}\n")
    code, out, said = check(path)
    assert (code, out) == (0, f"{path}: OK\n")
    assert said == f"{path}:2: repositories[0].password_file: warning: there is no file /nowhere/secret (the daemon starts without it, and whatever needs it fails)\n"
    (tmp_path / "secret").write_text("x")
    path.write_text(path.read_text().replace("/nowhere", str(tmp_path)))
    assert check(path) == (0, f"{path}: OK\n", "")
