"""The two pictures of README: `python benchmarks/pictures.py` runs the demo, and makes the report of a sandbox.

The demo's lines become an SVG by rich; the report is opened in Chromium, which must be installed, without a window.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
COMMAND = [sys.executable, "-m", "mlmessages"]


def demo() -> None:
    """What the demo leaves on a terminal."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "96"}
    done = subprocess.run([*COMMAND, "demo"], env=environment, capture_output=True, text=True, check=True)
    console = Console(width=96, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: PTH123, SIM115
    console.print(Text("$ .venv/bin/mlmessages demo", style="bold"))
    console.print(Text.from_ansi(done.stdout.rstrip()))
    svg = console.export_svg(title="mlmessages demo")
    (PICTURES / "demo.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))  # loads nothing


def report() -> None:
    """The page of a sandbox's conversations, as a browser shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        out, page, shot = Path(folder, "out.jsonl"), Path(folder, "report.html"), PICTURES / "report.png"
        server = subprocess.Popen([*COMMAND, "sandbox", "--packs", "400"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        settings = dict(os.environ)
        for line in server.stdout:
            if found := re.match(r"(?:export |set |\$env:)?(MLMESSAGES_\w+)\s*=\s*['\"]?([^'\"\n]+)", line):
                settings[found[1]] = found[2]
            if (
                "MLMESSAGES_TOKEN" in settings
                and "MLMESSAGES_BASE_URL" in settings
                and "MLMESSAGES_SELLER_ID" in settings
            ):
                break
        threading.Thread(target=server.stdout.read, daemon=True).start()
        try:
            ids = subprocess.run(
                [*COMMAND, "unread", "--ids"], env=settings, capture_output=True, text=True, check=True
            ).stdout
            subprocess.run(
                [*COMMAND, "fetch", "--packs", "-", "--out", str(out)], env=settings, input=ids, text=True, check=True
            )
        finally:
            server.terminate()
            server.wait()
        subprocess.run(
            [*COMMAND, "report", str(out), "--out", str(page), "--time-zone", "America/Sao_Paulo"], check=True
        )
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", "--window-size=1100,1000", f"--screenshot={shot}", page.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    demo()
    report()
