"""The page as a reader uses it: opened from a file, without a server."""

from __future__ import annotations

import base64
import io
import re
from urllib.parse import parse_qs

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis import load_dataset, load_model
from crate_analysis.explorer import export_page
from crate_analysis.explorer import page as page_parts
from crate_analysis.explorer.images import one_of_each
from crate_analysis.measures import coding_rate
from crate_analysis.segmentation import average_precision

NETWORKS = ["crate-creatures", "vit-creatures", "crate-simdino-creatures"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with nothing about the view."""
    folder = tmp_path_factory.mktemp("site")
    export_page(folder / "explorer", NETWORKS)
    scripts = "".join(f'<script src="explorer/{name}"></script>' for name in page_parts.SCRIPTS)
    style = f'<link rel="stylesheet" href="explorer/{page_parts.STYLE}">'
    still = f'<img src="explorer/{page_parts.STILL}" alt="a still">'
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>x</title>'
        f'{style}{scripts}</head><body><div class="crate-explorer">{still}</div></body></html>',
        encoding="utf-8",
    )
    return (folder / "index.html").as_uri()


@pytest.fixture
def open_page(browser, address):
    """Opens the page; at the end nothing may have gone wrong or been asked of another host."""
    trouble, contexts = [], []

    def opened(state="", **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else trouble.append(request.url)
            ),
        )
        page.goto(f"{address}{'#' if state else ''}{state}")
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not trouble


def settle(page):
    page.wait_for_selector(".ce[data-ready] .ce-stage")


def state(page):
    page.wait_for_timeout(600)
    return {key: value[0] for key, value in parse_qs(page.url.partition("#")[2]).items()}


def wait_for(page, text, selector):
    page.wait_for_function(
        "([text, selector]) => document.querySelector(selector)?.textContent.includes(text)",
        arg=[text, selector],
    )


def sample(index=0):
    return one_of_each(load_dataset("creatures", "val", 72), 12)[index]


def drop(page, name, data):
    page.evaluate(
        """([name, text]) => {
          const dataTransfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          dataTransfer.items.add(new File([bytes], name));
          const event = new DragEvent("drop", { dataTransfer, bubbles: true });
          document.querySelector(".ce").dispatchEvent(event);
        }""",
        [name, base64.b64encode(data).decode()],
    )


def readings(page, kind):
    return page.locator(f".ce-{kind} .ce-number").all_inner_texts()


def test_values_are_those_of_the_library(open_page):
    page = open_page()
    model = load_model("crate-creatures")
    image = model.normalize(sample().image[None])
    with torch.no_grad():
        states = list(model.unroll(image))
        rates = [coding_rate(state.projections).item() for state in states]
        best = model(image)[0].softmax(0).max().item()
    assert [int(text) for text in readings(page, "rate")] == [round(rate) for rate in rates]
    shown = page.locator(".ce-classes .ce-number").first.inner_text()
    assert float(shown.rstrip(" %")) == pytest.approx(100 * best, abs=0.51)
    assert page.locator(".ce-map").count() == 24
    assert page.locator(".ce-classes .ce-true").count() == 1


def test_first_drawing_is_the_still_and_then_the_network(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    assert page.locator("img[alt='a still']").evaluate("image => image.naturalWidth") > 500
    page.close()


def test_hover_click_and_keys_ask_a_patch(open_page):
    page = open_page()
    stage = page.locator(".ce-stage")
    before = stage.evaluate("canvas => canvas.toDataURL()")
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 3.5 / 12, box["y"] + box["height"] * 6.5 / 12)
    wait_for(page, "row 7, column 4", ".ce-asked")
    assert stage.evaluate("canvas => canvas.toDataURL()") != before
    assert "patch" not in state(page), "what is only pointed at is not kept"
    page.mouse.move(5, 5)
    wait_for(page, "[CLS]", ".ce-asked")
    stage.click(position={"x": box["width"] * 3.5 / 12, "y": box["height"] * 6.5 / 12})
    wait_for(page, "row 7, column 4", ".ce-asked")
    page.mouse.move(5, 5)
    assert state(page)["patch"] == "7.4"
    stage.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    wait_for(page, "row 6, column 5", ".ce-asked")
    wait_for(page, "row 6, column 5", ".ce-path h3")
    page.keyboard.press("Escape")
    wait_for(page, "[CLS]", ".ce-asked")


def test_hover_shows_the_attention_of_the_library(open_page):
    page = open_page("network=crate-creatures&image=3&layer=2&head=3&patch=4.6&part=2&score=ap")
    model = load_model("crate-creatures")
    chosen = sample(2)
    with torch.no_grad():
        states = list(model.unroll(model.normalize(chosen.image[None])))
    row = states[1].attention(slice(1 + 3 * 12 + 5, 2 + 3 * 12 + 5))[0, :, 0]
    shown = float(
        re.search(r"([\d.]+) % of the attention", page.locator(".ce-asked").inner_text())[1]
    )
    assert shown == pytest.approx(100 * row[2, 0].item(), abs=0.51)
    cells = chosen.masks.unflatten(2, (12, 6)).unflatten(1, (12, 6)).sum((2, 4)).flatten(1).float()
    wanted = average_precision(row[None, :, 1:], cells[None], torch.full((1, 144), 36.0))[0]
    found = [
        [float(x) for x in line.locator("td").all_inner_texts()[:4]]
        for line in page.locator(".ce-scores tbody tr").all()
    ]
    np.testing.assert_allclose(found, wanted.T, atol=0.0051)


def test_a_head_is_clicked_away_and_comes_back(open_page):
    page = open_page("network=crate-creatures&layer=2&head=1")
    before = readings(page, "rate"), page.locator(".ce-classes dd").all_inner_texts()
    page.get_by_role("switch", name="Layer 2, head 3").click()
    wait_for(page, "The last 5 layers", ".ce-status")
    after = readings(page, "rate")
    assert after[:2] == before[0][:2], "what comes before the edit stays"
    assert after[2:] != before[0][2:]
    assert page.locator(".ce-rate .ce-tick").count() == 6
    assert page.locator(".ce-classes dd").all_inner_texts() != before[1]
    moved = page.locator(".ce-moved").evaluate_all("all => all.map(x => parseFloat(x.style.width))")
    assert max(moved[:8]) == 0 and max(moved[8:]) > 1
    assert state(page)["off"] == "2.3"
    page.locator(".ce-cell .ce-map[aria-pressed=true]").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    page.wait_for_function("location.hash.includes('off=2.3_3.1')")
    page.get_by_role("button", name="Switch all heads on").click()
    page.wait_for_function("!location.hash.includes('off')")
    assert (readings(page, "rate"), page.locator(".ce-classes dd").all_inner_texts()) == before


def test_paint_changes_the_image_and_the_link_keeps_it(open_page):
    page = open_page()
    stage = page.locator(".ce-stage")
    box = stage.bounding_box()
    before = readings(page, "rate")
    page.get_by_role("radio", name="Paint").click()
    page.get_by_role("button", name="vermilion").click()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 200, steps=6)
    page.mouse.up()
    page.wait_for_function("location.hash.includes('paint')")
    settle(page)
    page.wait_for_timeout(400)
    painted = readings(page, "rate")
    assert painted != before
    again = open_page(page.url.partition("#")[2])
    assert readings(again, "rate") == painted
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("!location.hash.includes('paint')")
    page.wait_for_timeout(400)
    assert readings(page, "rate") == before


def test_keys_paint_too(open_page):
    page = open_page("patch=3.3")
    page.get_by_role("radio", name="Look").focus()
    page.keyboard.press("ArrowRight")
    page.locator(".ce-stage").focus()
    page.keyboard.press(" ")
    page.wait_for_function("location.hash.includes('paint')")


def test_an_image_of_ones_own(open_page):
    page = open_page()
    pixels = np.random.default_rng(0).integers(0, 255, (100, 180, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    page.locator(".ce-hidden[type=file]").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    wait_for(page, "no truth", ".ce-truth")
    assert page.get_by_role("button", name="mine.png").get_attribute("aria-pressed") == "true"
    assert page.locator(".ce-score").first.inner_text() == ""
    drop(page, "notes.txt", b"no image")
    wait_for(page, "notes.txt cannot be read as an image", ".ce-status")


def test_dropped_image_of_the_right_size_is_taken_as_it_is(open_page):
    """The same pixels as one of ours, dropped: the same numbers."""
    page = open_page("image=4")
    before = readings(page, "rate")
    file = io.BytesIO()
    Image.fromarray(sample(3).image.permute(1, 2, 0).numpy()).save(file, "PNG")
    drop(page, "ours.png", file.getvalue())
    wait_for(page, "no truth", ".ce-truth")
    assert readings(page, "rate") == before


def test_a_link_restores_the_state(open_page):
    text = "network=vit-creatures&image=3&layer=4&head=2&patch=5.7&part=2&score=iou&off=3.1_4.2"
    page = open_page(text)
    assert state(page) == {key: value[0] for key, value in parse_qs(text).items()}
    assert page.locator("select").input_value() == "vit-creatures"
    assert page.locator(".ce-is-off").count() == 2
    assert page.get_by_role("radio", name="IoU").get_attribute("aria-checked") == "true"
    page.evaluate("location.hash = 'network=crate-creatures&image=2&layer=1&head=1'")
    page.wait_for_function("document.querySelector('select').value === 'crate-creatures'")
    wait_for(page, "head 1 of layer 1", ".ce-asked")
    assert page.locator(".ce-is-off").count() == 0


def test_a_broken_link_opens_the_page(open_page):
    page = open_page(
        "network=nothing&image=99&layer=x&head=-1&patch=40.1&off=9.9_a.b&paint=%25%25&part=0"
    )
    assert state(page)["network"] == "crate-creatures" and state(page)["image"] == "1"
    assert not {"off", "paint", "patch"} & state(page).keys()


def test_other_networks(open_page):
    page = open_page("image=5&layer=3&head=2")
    page.locator("select").select_option("crate-simdino-creatures")
    wait_for(page, "learnt without labels", ".ce-classes")
    assert "Reads as" not in page.locator(".ce-path").inner_text()
    assert state(page) == {
        "network": "crate-simdino-creatures",
        "image": "5",
        "layer": "3",
        "head": "2",
    }
    page.locator("select").select_option("vit-creatures")
    page.wait_for_function("location.hash.includes('vit')")
    assert readings(page, "nonzero") == ["100 %"] * 6


def test_values_are_text_for_those_who_listen(open_page):
    page = open_page("layer=5&head=1")
    wait_for(page, "Coding rate", ".ce-live")
    text = page.locator(".ce-live").inner_text()
    assert re.search(
        r"Layer 5, head 1, asked by \[CLS\]\. With the animal: average precision 0\.\d\d", text
    )
    assert page.locator(".ce-live").get_attribute("aria-live") == "polite"
    unnamed = page.evaluate(
        """() => {
          const places = ".ce button, .ce select, .ce input, .ce canvas[tabindex]";
          const isNamed = (x) => x.textContent.trim() || x.ariaLabel || x.labels?.length;
          const unnamed = [...document.querySelectorAll(places)].filter((x) => !isNamed(x));
          return unnamed.map((x) => x.outerHTML);
        }"""
    )
    assert unnamed == []
    label = page.locator(".ce-map").first.get_attribute("aria-label")
    assert re.fullmatch(r"Layer 1, head 1, average precision with the animal \d\.\d\d", label)


@pytest.mark.parametrize("width", [360, 400, 700, 1100])
def test_narrow_and_wide(width, open_page):
    touch = {"has_touch": True} if width < 500 else {}
    page = open_page(viewport={"width": width, "height": 800}, **touch)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for word in page.locator(".ce-term:visible").all():
        word.focus()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, word.inner_text()
    if touch:
        page.locator(".ce-stage").tap(position={"x": 30, "y": 30})
        wait_for(page, "row ", ".ce-asked")
        page.get_by_role("switch", name="Layer 1, head 1").tap()
        page.wait_for_function("location.hash.includes('off=1.1')")


def test_dark_and_calm(open_page):
    page = open_page(color_scheme="dark", reduced_motion="reduce")
    ink = page.evaluate("getComputedStyle(document.querySelector('.ce')).color")
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 200
    assert page.evaluate(
        "getComputedStyle(document.querySelector('.ce-fill')).transitionDuration"
    ) in ("0s", "")


def test_export_is_small_and_complete(tmp_path):
    export_page(tmp_path, ["crate-creatures"], n_images=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *page_parts.SCRIPTS,
        page_parts.STYLE,
        page_parts.STILL,
        "network-crate-creatures.js",
        "images-creatures-72.js",
    }
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2e6


def test_every_kind_of_network_is_offered():
    names = page_parts.page_networks()
    assert names[:2] == ["crate-creatures", "vit-creatures"]
    assert not [name for name in names if re.search(r"-s\d+$", name)]
