/* The book's page: networks and images come in scripts, as a page opened from a file may load no other
   way, and are computed in a worker, so that the page never waits. catalogue.js, which is written with
   them, goes before and makes EXPLORER. */

(function () {
  "use strict";
  const folder = document.currentScript.src.replace(/[^/]*$/, "");

  /** What the script of this name brings, loaded when it is first asked for. */
  const loading = {};
  function fetched(name) {
    loading[name] ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${folder}${name}.js`;
      script.onload = () => resolve(EXPLORER.data[name]);
      script.onerror = () => reject(new Error(`${name}.js did not load`));
      document.head.append(script);
    });
    return loading[name];
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  /** The engine in a worker made of its own text: calls are answered in order. */
  function engine() {
    const text = `"use strict"; const session = (${crateEngine})().session();
      onmessage = ({ data: { call, args } }) => {
        if (call === "open") args = [Uint8Array.from(atob(args[0]), (c) => c.charCodeAt(0)).buffer];
        try { postMessage({ answer: session[call](...args) }); }
        catch (error) { postMessage({ error: error.message }); }
      };`;
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    const waiting = [];
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = waiting.shift();
      if (data.error) reject(new Error(data.error));
      else resolve(data.answer);
    };
    return (call, ...args) =>
      new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
        worker.postMessage({ call, args });
      });
  }

  function pageSource(networks) {
    const ask = engine(),
      images = {};
    return {
      networks,
      async open(name) {
        const { card } = networks.find((network) => network.name === name);
        const [weights, drawn] = await Promise.all([
          fetched(`network-${name}`),
          fetched(card.images),
        ]);
        const { shape } = await ask("open", weights);
        images[card.images] ??= drawn.images.map((image) => ({
          ...image,
          pixels: bytesOf(image.pixels),
        }));
        return { shape, size: drawn.size, classes: card.classes, images: images[card.images] };
      },
      run: (pixels, off) => ask("run", pixels, off),
      look: (query) => ask("look", query),
    };
  }

  function start() {
    const root = document.querySelector(".crate-explorer");
    if (!root) return;
    const view = exploreView(root, pageSource(EXPLORER.data.catalogue), {
      state: location.hash.slice(1),
      onState: (text) => history.replaceState(null, "", `#${text}`),
    });
    addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== view.state()) view.go(location.hash.slice(1));
    });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
