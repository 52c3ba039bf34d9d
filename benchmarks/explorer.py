"""How long a network takes in the page *Look inside*, in a headless Chromium.

python benchmarks/explorer.py
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

import crate_analysis.explorer
from crate_analysis.explorer import page_networks
from crate_analysis.models import load_model
from crate_analysis.models.zoo import shipped_files

SCRIPT = Path(crate_analysis.explorer.__file__).parent / "static" / "network.js"
TIMES = """([weights, size, layers, heads]) => {
  const bytes = Uint8Array.from(atob(weights), (c) => c.charCodeAt(0));
  const image = Uint8Array.from({ length: 3 * size * size }, (_, i) => (37 * i) % 251);
  const rows = Array.from({ length: layers }, (_, l) => l === layers - 2);
  const off = (...heads) => rows.map((isEdited) => heads.map((head) => head && isEdited));
  const best = (repeat) => Math.min(...Array.from({ length: 20 }, () => {
    const begun = performance.now();
    repeat();
    return performance.now() - begun;
  }));
  return [true, false].map((vectors) => {
    const session = crateEngine({ vectors }).session();
    session.open(bytes.buffer);
    const only = (head) => Array.from({ length: heads }, (_, h) => h === head);
    const whole = best(() => session.run(image, off(...only(-1))));
    let turn = 0;
    return [whole, best(() => session.run(null, off(...only(turn++ % 2))))];
  }).flat();
}"""


def main() -> None:
    """A line for each network: milliseconds, the best of 20."""
    program = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    print(f"{'':28}   whole pass   one head of the last layer but one   (without vectors)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(path=SCRIPT)
        for name in page_networks():
            config = load_model(name).config
            weights = base64.b64encode(shipped_files()[name].read_bytes()).decode()
            given = [weights, config.image_size, config.depth, config.heads]
            whole, edit, slow, slow_edit = page.evaluate(TIMES, given)
            print(f"{name:28} {whole:9.1f} ms {edit:9.1f} ms   ({slow:.1f} ms, {slow_edit:.1f} ms)")
        browser.close()


if __name__ == "__main__":
    main()
