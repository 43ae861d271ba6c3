"""`mlmessages sandbox`: a server to try things against."""

from __future__ import annotations

import json
import os
import socket

from cli.conftest import interrupted_by_a_line, run


def test_it_serves_until_ctrl_c_and_prints_what_to_set():
    """stdout holds the settings as commands of the shell; with them `mlmessages unread` works; Ctrl-C ends with 130."""
    with interrupted_by_a_line("sandbox", "--packs", "4") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        prefix = "$env:" if os.name == "nt" else "export "
        assert all(line.startswith(prefix) for line in lines)
        pairs = (line.removeprefix(prefix).split("=", 1) for line in lines)
        settings = {name.strip(): value.strip(' "') for name, value in pairs}
        assert settings.keys() == {"MLMESSAGES_BASE_URL", "MLMESSAGES_SELLER_ID", "MLMESSAGES_TOKEN"}
        result = run("unread", "--json", **settings)
        assert len(json.loads(result.stdout)["packs"]) == 4
        stdout, stderr = process.communicate("now\n", timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert "4 unread conversations" in stderr
    assert settings["MLMESSAGES_BASE_URL"] in stderr
    assert "Traceback" not in stderr


def test_a_port_in_use_is_one_line():
    """A port that somebody else has ends with exit code 1 and a line that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("sandbox", "--port", str(port))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert str(port) in result.stderr
    assert result.stderr.count("\n") == 1
