"""Drive the companion notebook in a real browser, wide and narrow: python tests/browser.py [FOLDER for screenshots]

Runs a copy of the repository in JupyterLab, moves a slider, types a prompt, clicks the sketch pad and eight times
"paint", and fails where a control has no room, a picture does not change, or an error is not told. Needs
`pip install playwright` and Debian's chromium.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = ".jupyter-widgets.widget-hbox:has(.widget-image)"


def serve(folder):
    """JupyterLab on a free port, without a token: (process, address)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser",
         f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2)
            return server, address
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("JupyterLab did not start")


def source(box):
    """The picture of a box of controls, as it is now."""
    return box.locator("img").get_attribute("src")


def changed(box, before, seconds=60):
    """Wait until a box shows another picture, and its line says nothing."""
    end = time.time() + seconds
    while source(box) == before:
        assert time.time() < end, "the picture did not change"
        time.sleep(0.02)
    expect(box.locator(".widget-html-content").last).to_have_text("", timeout=1000 * seconds)


def drive(page, address, shots, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{address}/lab/tree/test_single_sample.ipynb", timeout=120_000)
    page.wait_for_selector(".jp-Notebook", timeout=120_000)
    page.wait_for_function("window.jupyterapp && document.querySelector('.jp-Notebook')", timeout=120_000)
    time.sleep(3)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(f"document.querySelectorAll('{CONTROLS}').length >= 4", timeout=300_000)
    boxes = page.locator(CONTROLS)
    for i in range(4):
        box = boxes.nth(i)
        box.scroll_into_view_if_needed()
        page.screenshot(path=shots / f"{width}_{i}.png")
        for kind in (".slider", "input[type=text]", "select", "img"):
            for part in box.locator(kind).all():
                assert part.bounding_box()["width"] > 100, f"at {width} pixels a {kind} has no room"
    digit, painting, _, pad = (boxes.nth(i) for i in range(4))
    before = source(digit)
    handle = digit.locator(".noUi-handle").first
    handle.focus()
    begun = time.time()
    handle.press("ArrowRight")
    changed(digit, before)
    print(f"{width} pixels: the digit was drawn {time.time() - begun:.1f} s after its slider was moved")
    for _ in range(5):  # each move ends the drawing under way
        handle.press("ArrowLeft")
    before = source(painting)
    text = painting.locator("input[type=text]").first
    text.fill("a rocket on a blue background")
    text.press("Enter")
    changed(painting, before)
    page.screenshot(path=shots / f"{width}_painted.png")
    fields = pad.locator(".widget-gridbox button")
    assert len({round(fields.nth(i).bounding_box()["y"]) for i in range(16)}) == 1, "a row of the pad is broken"
    fields.nth(5).click()
    before = source(pad)
    begun = time.time()
    for _ in range(8):
        pad.get_by_role("button", name="paint").click()
    changed(pad, before)
    print(f"{width} pixels: eight clicks painted in {time.time() - begun:.1f} s")
    pad.scroll_into_view_if_needed()
    page.screenshot(path=shots / f"{width}_pad.png")


def main(shots):
    shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "training", "data"))
        server, address = serve(copy)
        try:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for width in (1280, 800):
                page = browser.new_page()
                drive(page, address, shots, width)
                page.close()
            browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "screenshots"))
