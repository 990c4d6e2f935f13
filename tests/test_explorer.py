"""The explorer in a real browser: `voila`, as `make explore` starts it, and headless Chromium."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATIENCE = 300  # seconds, for a machine that does much else
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NO_CHROMIUM = "no Chromium, so the explorer is not tried in a browser: apt-get install chromium chromium-driver, and run this again"
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=NO_CHROMIUM)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where Voila serves the explorer, to this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("voila") / "log"
    command = [sys.executable, "-m", "voila", "explore.ipynb", "--no-browser", f"--port={port}"]
    with log.open("w") as file, subprocess.Popen(command, cwd=NOTEBOOKS, stdout=file, stderr=file) as server:
        end = time.time() + PATIENCE
        while "is running at" not in log.read_text() and server.poll() is None and time.time() < end:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
        server.terminate()


@pytest.fixture(scope="module")
def page(address):
    """The explorer's page, once the first map is there."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,1100"):
        options.add_argument(flag)
    options.page_load_strategy = "none"
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        browser.get(address)
        wait(browser, lambda: "of other captions" in text(browser))
        yield browser
    finally:
        browser.quit()


def wait(page, happened):
    WebDriverWait(page, PATIENCE, 0.05, ignored_exceptions=[Exception]).until(lambda _: happened())


def find(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def text(page):
    return find(page, "body")[0].text


def maps(page):
    """The pictures that are seen, as their addresses in the browser; the first is the picture itself."""
    return [image.get_attribute("src") for image in find(page, ".widget-image")]


def words(page):
    """The words below the maps, and the other buttons."""
    return {button.text: button for button in find(page, "button")}


def changes(page, action):
    """Do something, and wait for another map than before."""
    before = maps(page)[1:]
    action()
    wait(page, lambda: maps(page)[1:] != before)


def write(page, caption, n=0):
    find(page, ".widget-text input")[n].send_keys(Keys.CONTROL, "a", Keys.NULL, caption)


def slide(page, label, keys):
    """Move the slider of this label by keys."""
    (slider,) = [one for one in find(page, ".widget-slider") if one.text.split("\n")[0] == label]
    slider.find_element(By.CSS_SELECTOR, ".noUi-handle").send_keys(keys)


def upload(page, path):
    """Give a file to the upload button, whose input is kept out of the page."""
    page.execute_script("HTMLInputElement.prototype.click = function () { document.body.append(this); }")
    find(page, ".widget-upload")[0].click()
    find(page, "body > input[type=file]")[-1].send_keys(str(path))


def test_it_answers_to_typing_clicks_sliders_and_files(page, tmp_path):
    changes(page, lambda: write(page, "an eagle and a guitar"))
    wait(page, lambda: "guitar" in words(page))
    changes(page, words(page)["guitar"].click)
    wait(page, lambda: "M2IB, guitar alone" in text(page))
    changes(page, lambda: slide(page, "mask above", Keys.ARROW_RIGHT * 8))
    wait(page, lambda: "of the picture, box" in text(page))
    changes(page, lambda: slide(page, "step", Keys.ARROW_LEFT * 3))
    changes(page, lambda: slide(page, "seed", Keys.ARROW_RIGHT))
    changes(page, lambda: write(page, "a snail", 1))
    wait(page, lambda: len(maps(page)) == 3)
    Image.new("RGB", (300, 200), "green").save(tmp_path / "green.jpg")
    changes(page, lambda: upload(page, tmp_path / "green.jpg"))
    (tmp_path / "torn.png").write_bytes(b"torn")
    upload(page, tmp_path / "torn.png")
    wait(page, lambda: "torn.png: the image is not an image that can be read" in text(page))
    (tmp_path / "large.png").write_bytes(os.urandom(12_000_000))  # more than a message to the kernel may have by default
    upload(page, tmp_path / "large.png")
    wait(page, lambda: "large.png: the image is not an image" in text(page))
    upload(page, tmp_path / "green.jpg")
    wait(page, lambda: len(maps(page)) == 3)


def test_it_asks_nothing_outside_of_this_machine(page, address):
    asked, refused = {}, set()
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        given = message["params"]
        if message["method"] == "Network.requestWillBeSent":
            asked[given["requestId"]] = given["request"]["url"]
        if message["method"] == "Network.loadingFailed" and given.get("blockedReason") == "csp":
            refused.add(given["requestId"])  # by the browser itself: the page's policy lets it ask this machine alone
    sent = [url for key, url in asked.items() if key not in refused and not url.startswith(("data:", "blob:"))]
    assert len(sent) > 20
    assert all(url.startswith(address) for url in sent)
