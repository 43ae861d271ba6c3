"""`mlmessages download PACK --to DIR`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cases import case
from cli.conftest import Serve, run
from mlmessages.cli.commands.download import file_name
from mlmessages.models import Attachment
from mlmessages.testing import Message, Pack, Reply, Server, on


def with_files(server: Server, *names: str, **overrides: Any) -> list[str]:
    """A conversation 11 with a message for each file; their ids."""
    ids = [server.sandbox.add_file(f"content of {name}".encode(), name) for name in names]
    rows = [
        {"filename": id_, "original_filename": name, "type": "application/pdf", **overrides}
        for id_, name in zip(ids, names, strict=True)
    ]
    server.sandbox.add_pack(Pack("11", messages=[Message(overrides={"message_attachments": [row]}) for row in rows]))
    return ids


@case("R3")
def test_every_attachment_becomes_a_file(serve: Serve, tmp_path: Path):
    """Its path on stdout, its content whole, a name that tells it; the conversation stays unread."""
    server = serve(0)
    ids = with_files(server, "nota fiscal.pdf", "Año 2026.pdf")
    result = run("download", "11", "--to", str(tmp_path), "--site-id", "MLM", server=server)
    assert result.exit_code == 0, result.output
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert sorted(path.read_bytes() for path in paths) == [
        "content of Año 2026.pdf".encode(),
        b"content of nota fiscal.pdf",
    ]
    assert {path.name for path in paths} == {
        f"{id_.removesuffix('.pdf')} {name}" for id_, name in zip(ids, ["nota fiscal.pdf", "Año 2026.pdf"], strict=True)
    }
    assert "2 files saved in" in result.stderr
    assert server.sandbox.marked_ids() == set()


@case("R3")
def test_run_again_it_asks_for_none_of_them(serve: Serve, tmp_path: Path):
    """What is there is not downloaded again, nor replaced."""
    server = serve(0)
    with_files(server, "a.pdf")
    args = ["download", "11", "--to", str(tmp_path), "--site-id", "MLM"]
    assert run(*args, server=server).exit_code == 0
    again = run(*args, server=server)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "0 files saved" in again.stderr
    assert "1 there already" in again.stderr
    assert server.sandbox.count("download") == 1


@case("R3")
def test_what_cannot_be_saved_is_named(serve: Serve, tmp_path: Path):
    """Exit code 3; the others are saved."""
    server = serve(0, rules=[on("download", nth=1).do(Reply(404))])
    with_files(server, "a.pdf", "b.pdf")
    result = run("download", "11", "--to", str(tmp_path), "--site-id", "MLM", server=server)
    assert result.exit_code == 3
    assert "Not saved: " in result.stderr
    assert "1 file saved in" in result.stderr
    assert len(list(tmp_path.iterdir())) == 1


@case("R3")
def test_a_file_that_is_too_large_keeps_no_other_from_being_saved(serve: Serve, tmp_path: Path):
    """It is named as one that was not saved: exit code 3, and not the end."""
    server = serve(0)
    _, broken, _ = with_files(server, "a.pdf", "b.pdf", "c.pdf")
    server.sandbox.add(on("download", path=broken).do(Reply(200, bytes((25 << 20) + 1))))
    result = run("download", "11", "--to", str(tmp_path), "--site-id", "MLM", server=server)
    assert result.exit_code == 3, result.output
    assert "2 files saved in" in result.stderr
    assert "1 not saved" in result.stderr


@case("R3")
def test_a_missing_folder_is_made(serve: Serve, tmp_path: Path):
    """Readable by its owner alone, as the files are; one whose parent is missing is a misspelling, and refused."""
    server = serve(0)
    with_files(server, "a.pdf")
    folder = tmp_path / "new"
    result = run("download", "11", "--to", str(folder), "--site-id", "MLM", server=server)
    assert (result.exit_code, len(list(folder.iterdir()))) == (0, 1), result.output
    assert os.name == "nt" or folder.stat().st_mode & 0o077 == 0


@case("R3")
def test_a_long_name_in_any_script_fits_the_file_system(serve: Serve, tmp_path: Path):
    """100 characters may be 300 bytes; a name has 255 at most."""
    server = serve(0)
    with_files(server, "日" * 120 + ".pdf")
    result = run("download", "11", "--to", str(tmp_path), "--site-id", "MLM", server=server)
    assert (result.exit_code, len(list(tmp_path.iterdir()))) == (0, 1), result.output


@case("R3")
def test_a_file_that_may_be_dangerous_is_left_out(serve: Serve, tmp_path: Path):
    """Until it is asked for by an option."""
    server = serve(0)
    with_files(server, "a.pdf", potential_security_threat=True)
    args = ["download", "11", "--to", str(tmp_path), "--site-id", "MLM"]
    refused = run(*args, server=server)
    assert (refused.exit_code, "--allow-threat" in refused.stderr) == (3, True)
    assert run(*args, "--allow-threat", server=server).exit_code == 0


@case("R3")
@pytest.mark.parametrize("id_", ["../../etc/passwd", "/etc/passwd", "a\x00b", "..", "a/b.pdf", "\x1b[2J"])
def test_no_name_leads_out_of_the_folder(serve: Serve, tmp_path: Path, id_: str):
    """An id with a path in it is refused before anything is asked or looked for."""
    server = serve(0)
    server.sandbox.add_pack(Pack("11", messages=[Message(overrides={"message_attachments": [{"filename": id_}]})]))
    inside = tmp_path / "in"
    inside.mkdir()
    result = run("download", "11", "--to", str(inside), server=server)
    assert result.exit_code == 3
    assert "\x1b" not in result.output
    assert list(tmp_path.rglob("*")) == [inside]
    assert server.sandbox.count("download") == 0


@case("R3")
@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "f1.pdf"),
        ("", "f1.pdf"),
        ("nota.pdf", "f1 nota.pdf"),
        ("nota", "f1 nota.pdf"),
        ("../../x.pdf", "f1 x.pdf"),
        ("a/b\\c:d*e?.pdf", "f1 a_b_c_d_e_.pdf"),
        ("x" * 300 + ".pdf", f"f1 {'x' * 100}.pdf"),
        ("日" * 100, f"f1 {'日' * 78}.pdf"),  # 241 bytes: a name has 255 at most
        ("\u202egpj.exe", "f1 gpj.exe.pdf"),
        ("...", "f1.pdf"),
    ],
)
def test_a_name_is_safe_in_every_system(given: str | None, name: str):
    """What the sender called it, without what is a path, a control or reserved somewhere."""
    assert file_name(Attachment("f1.pdf", given)) == name


@case("R3")
@pytest.mark.parametrize(
    "args", [["x", "--to", "."], ["11", "--to", "missing/folder"], ["11"]], ids=["pack", "folder", "none"]
)
def test_misuse_is_one_line(serve: Serve, args: list[str]):
    """Exit code 2, and nothing is sent."""
    server = serve(1)
    result = run("download", *args, server=server)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert server.sandbox.log == []
