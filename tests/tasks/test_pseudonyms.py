"""Pseudonyms: the same key gives the same ones, another key others; the key is private, made once, and in no repository."""

from __future__ import annotations

import hashlib
import hmac
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID

from tasks.pseudonyms import KEY, key, other_uid, pseudonym


def use(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    monkeypatch.setenv(KEY, str(path))
    return path


@given(st.text(st.characters()))
@settings(deadline=None)
def test_a_pseudonym_is_the_beginning_of_a_keyed_hash(identity: str) -> None:
    wanted = hmac.digest(key(), b"name:" + identity.encode("utf-8", "surrogatepass"), hashlib.sha256)
    assert bytes.fromhex(pseudonym(identity)) == wanted[:8]
    assert identity == "" or identity not in pseudonym(identity) or len(identity) < 4


@given(st.text("0123456789.", min_size=1, max_size=64))
@settings(deadline=None)
def test_another_uid_is_a_uid_and_not_the_one_it_stands_for(uid: str) -> None:
    made = other_uid(uid)
    assert UID(made).is_valid and len(made) <= 64 and made.startswith("2.25.")
    assert made == other_uid(uid) != uid


def test_another_key_gives_other_pseudonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, tmp_path / "a")
    first = pseudonym("P1")
    use(monkeypatch, tmp_path / "b")
    assert pseudonym("P1") != first
    (tmp_path / "c").write_text((tmp_path / "a").read_text())
    use(monkeypatch, tmp_path / "c")
    assert pseudonym("P1") == first


def test_a_key_is_made_on_first_use_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv(KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        made = key()
    path = tmp_path / "cinefab" / "key"
    assert path.read_text() == made.hex() + "\n" and len(made) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in path.parent.iterdir()] == ["key"]
    assert str(path) in caplog.text and made.hex() not in caplog.text
    assert key() == made


def test_processes_that_begin_together_make_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, tmp_path / "key")
    code = "from tasks.pseudonyms import key; print(key().hex())"
    begun = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert {one.communicate()[0].strip() for one in begun} == {(tmp_path / "key").read_text().strip()}


def test_what_is_no_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short").write_text("abc")
    use(monkeypatch, tmp_path / "short")
    with pytest.raises(ValueError, match="is no key of 64 hexadecimal digits; put the right one back"):
        key()
    use(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=r"cannot be used \(IsADirectoryError\); name a file that can in CINEFAB_KEY"):
        key()


def test_a_key_in_the_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    use(monkeypatch, tmp_path / "keys" / "key")
    with pytest.raises(ValueError, match="the key must not lie in the repository"):
        key()
    assert not (tmp_path / "keys").exists()
