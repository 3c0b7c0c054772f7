"""A page in a real headless browser: its document once the scripts have run, and what they complained of."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def opened(page: Path, then: str = "", width: int = 1280) -> tuple[str, list[str]]:
    """The document and the console's lines, after `then` (JavaScript) has run at its end, without a network."""
    assert CHROMIUM is not None
    copy = page.with_name(f"opened-{page.name}")
    copy.write_text(page.read_text().replace("</body>", f"<script>{then}</script></body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},1200", "--enable-logging=stderr"]
    command += [f"--user-data-dir={page.parent / 'browser'}", "--virtual-time-budget=4000", "--dump-dom", copy.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return seen.stdout, re.findall(r"CONSOLE.*", seen.stderr)
