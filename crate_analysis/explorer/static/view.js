"use strict";
/* What the reader sees and touches: the same in the book's page and in JupyterLab.

   `source` computes and answers with promises:
     networks                      [{name, title}]
     open(name)                    {shape, size: [H, W], classes, images: [{name, label, pixels, masks}]}
     run(pixels | null, off)       {edited, plain, from}, each {rates, nonzero, logits}; null: same image
     look(query)                   {attention, plain, path}, as network.js has them
   `options.state` is a state to begin with, as text; `options.onState(text)` is told each new one. */

function exploreView(root, source, options = {}) {
  // --- state ----------------------------------------------------------------------------------

  const state = {
    network: source.networks[0].name,
    image: 0,
    layer: 0,
    head: 0,
    query: 0,
    part: 0,
    score: "ap",
    off: new Set(),
    dabs: [],
  };
  let info; // of the open network
  let result; // of the last run
  let seen; // of the last look
  let own = null; // an image of the reader's: {name, bitmap}
  let hovered = null; // a token under the pointer, in place of state.query
  let tool = "look";
  let brush = { colour: 0, size: 2 };
  let cells = []; // what is drawn in the network's table: [layer][head]

  const COLOURS = [
    "#000000",
    "#ffffff",
    "#d55e00",
    "#e69f00",
    "#f0e442",
    "#009e73",
    "#56b4e9",
    "#0072b2",
    "#7a4b2a",
    "#8a8a8a",
  ];
  const COLOUR_NAMES = [
    "black",
    "white",
    "vermilion",
    "orange",
    "yellow",
    "green",
    "sky blue",
    "blue",
    "brown",
    "grey",
  ];
  const query = () => hovered ?? state.query;
  const [OPEN, IMAGE, EDIT, LOOK, DRAW] = [5, 4, 3, 2, 1];

  /** #network=...&image=...: numbers count from 1, as on the page. */
  function writeState() {
    const text = new URLSearchParams({
      network: state.network,
      image: own ? "own" : state.image + 1,
      layer: state.layer + 1,
      head: state.head + 1,
    });
    if (state.query)
      text.set(
        "patch",
        placeOf(state.query)
          .map((x) => x + 1)
          .join("."),
      );
    if (state.part) text.set("part", state.part + 1);
    if (state.score !== "ap") text.set("score", state.score);
    if (state.off.size)
      text.set(
        "off",
        [...state.off]
          .map((key) =>
            key
              .split(".")
              .map((x) => +x + 1)
              .join("."),
          )
          .join("_"),
      );
    if (state.dabs.length) text.set("paint", packDabs(state.dabs));
    return text.toString();
  }

  /** The reverse; what does not fit the network is left out. */
  function readState(text) {
    const given = new URLSearchParams(text);
    const number = (value, count) =>
      /^\d+$/.test(value ?? "") && value >= 1 && value <= count ? value - 1 : null;
    const { layers, heads, rows, columns } = info.shape;
    state.image = number(given.get("image"), info.images.length) ?? 0;
    state.layer = number(given.get("layer"), layers) ?? Math.max(0, layers - 2);
    state.head = number(given.get("head"), heads) ?? 0;
    const [row, column] = (given.get("patch") ?? "").split(".");
    const place = [number(row, rows), number(column, columns)];
    state.query = place.includes(null) ? 0 : firstPatch() + place[0] * columns + place[1];
    state.part = number(given.get("part"), masks().length) ?? 0;
    state.score = given.get("score") === "iou" ? "iou" : "ap";
    const off = (given.get("off") ?? "").split("_").map((key) => key.split("."));
    const valid = off.filter(([l, h]) => number(l, layers) !== null && number(h, heads) !== null);
    state.off = new Set(valid.map(([l, h]) => `${l - 1}.${h - 1}`));
    state.dabs = unpackDabs(given.get("paint") ?? "");
  }

  function packDabs(dabs) {
    const bytes = dabs.flatMap(({ x, y, colour, size }) => [
      x >> 8,
      x & 255,
      y >> 8,
      y & 255,
      colour,
      size,
    ]);
    return btoa(bytes.map((byte) => String.fromCharCode(byte)).join(""))
      .replaceAll("+", "-")
      .replaceAll("/", "~")
      .replaceAll("=", "");
  }

  function unpackDabs(text) {
    let bytes;
    try {
      bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("~", "/")), (c) =>
        c.charCodeAt(0),
      );
    } catch {
      return [];
    }
    const dabs = [];
    for (let i = 0; i + 5 < bytes.length; i += 6) {
      const [x, y, colour, size] = [
        bytes[i] * 256 + bytes[i + 1],
        bytes[i + 2] * 256 + bytes[i + 3],
        bytes[i + 4],
        bytes[i + 5],
      ];
      if (x < info.size[1] && y < info.size[0] && colour < COLOURS.length && size > 0)
        dabs.push({ x, y, colour, size });
    }
    return dabs;
  }

  /** Row and column of a patch's token. Tokens before the patches are [CLS] and registers. */
  const firstPatch = () => info.shape.tokens - info.shape.rows * info.shape.columns;
  const placeOf = (token) => [
    Math.floor((token - firstPatch()) / info.shape.columns),
    (token - firstPatch()) % info.shape.columns,
  ];
  const nameOf = (token) =>
    token ? `the patch in row ${placeOf(token)[0] + 1}, column ${placeOf(token)[1] + 1}` : "[CLS]";
  const isOff = (layer, head) => state.off.has(`${layer}.${head}`);
  const offByLayer = () => cells.map((row, l) => row.map((_, h) => isOff(l, h)));
  const masks = () => (own ? [] : info.images[state.image].masks);

  // --- what is asked of the source --------------------------------------------------------------

  let wanted = 0,
    busy = false,
    started = false;

  /** Ask for new work; what is under way is finished, and only the newest wish is done after it. */
  async function refresh(level) {
    wanted = Math.max(wanted, level);
    if (busy) return;
    busy = true;
    try {
      while (wanted) {
        const level = wanted;
        wanted = 0;
        if (level === OPEN) await open();
        if (level >= IMAGE) counts = masks().map(patchCounts);
        const begun = performance.now();
        if (level >= EDIT) {
          result = await source.run(level >= IMAGE ? pixels() : null, offByLayer());
          result.took = performance.now() - begun;
        }
        if (level >= LOOK) seen = await source.look(query());
        draw(level);
        appear();
      }
      root.dataset.ready = "";
    } catch (error) {
      status.textContent = `This cannot be computed: ${error.message ?? error}`;
      appear();
      throw error;
    } finally {
      busy = false;
    }
  }

  async function open() {
    delete root.dataset.ready;
    status.textContent = "Loading the network…";
    const before = info;
    info = await source.open(state.network);
    if (before && before.images !== info.images) [state.image, state.dabs] = [0, []];
    if (!started) readState(options.state ?? "");
    started = true;
    const { layers, heads, tokens } = info.shape;
    state.layer = Math.min(state.layer, layers - 1);
    state.head = Math.min(state.head, heads - 1);
    if (state.query >= tokens) state.query = 0;
    state.off = new Set(
      [...state.off].filter((key) => key.split(".").every((x, i) => +x < [layers, heads][i])),
    );
    state.part = Math.min(state.part, Math.max(0, masks().length - 1));
    buildStrip();
    buildTable();
  }

  // --- images -----------------------------------------------------------------------------------

  let counts = []; // of each mask, its pixels in each patch

  function basePixels() {
    if (!own) return info.images[state.image].pixels;
    const [height, width] = info.size;
    const scale = Math.max(width / own.bitmap.width, height / own.bitmap.height); // cut to the middle
    const [w, h] = [own.bitmap.width * scale, own.bitmap.height * scale];
    const context = newCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(own.bitmap, (width - w) / 2, (height - h) / 2, w, h);
    const rgba = context.getImageData(0, 0, width, height).data;
    return Uint8Array.from(
      { length: 3 * width * height },
      (_, i) => rgba[4 * Math.floor(i / 3) + (i % 3)],
    );
  }

  function pixels() {
    const painted = Uint8Array.from(basePixels());
    const [height, width] = info.size;
    for (const { x, y, colour, size } of state.dabs) {
      const rgb = [1, 3, 5].map((i) => parseInt(COLOURS[colour].slice(i, i + 2), 16));
      for (let row = Math.max(0, y - size); row <= Math.min(height - 1, y + size); row++)
        for (let column = Math.max(0, x - size); column <= Math.min(width - 1, x + size); column++)
          if ((row - y) ** 2 + (column - x) ** 2 <= size * size)
            painted.set(rgb, 3 * (row * width + column));
    }
    return painted;
  }

  function toCanvas(rgb, canvas = newCanvas(info.size[1], info.size[0])) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < canvas.width * canvas.height; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = rgb[3 * i + c];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /** A mask from its run lengths, row by row, zeros first. */
  function maskPixels({ runs }) {
    const mask = new Uint8Array(info.size[0] * info.size[1]);
    let at = 0;
    runs.forEach((length, i) => mask.fill(i % 2, at, (at += length)));
    return mask;
  }

  function patchCounts(mask) {
    const [height, width] = info.size,
      { rows, columns } = info.shape;
    const found = new Float64Array(rows * columns);
    maskPixels(mask).forEach((on, i) => {
      const [y, x] = [Math.floor(i / width), i % width];
      found[Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width)] += on;
    });
    return found;
  }

  const patchArea = () => (info.size[0] * info.size[1]) / (info.shape.rows * info.shape.columns);

  /** What a head's map is: attention to the patches alone. */
  function mapOf(attention, layer, head) {
    const { heads, tokens } = info.shape;
    const start = (layer * heads + head) * tokens;
    return attention.subarray(start + firstPatch(), start + tokens);
  }

  function scoreOf(map, part, score = state.score) {
    return score === "ap"
      ? exploreMeasures.averagePrecision(map, counts[part], patchArea())
      : exploreMeasures.iou(exploreMeasures.massMask(map), counts[part], patchArea());
  }

  // --- small helpers ------------------------------------------------------------------------------

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== false && value != null)
        node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  }

  function newCanvas(width, height) {
    return Object.assign(document.createElement("canvas"), { width, height });
  }

  /** A word with its meaning, for pointer, touch, keyboard and screen reader. */
  function term(word, meaning) {
    return element(
      "span",
      { class: "ce-term", tabindex: 0, "data-tip": meaning, "aria-label": `${word}: ${meaning}` },
      word,
    );
  }

  /** A meaning is shown below its word, and never beyond the view. */
  function place({ target }) {
    const word = target.closest?.(".ce-term");
    if (!word) return;
    const frame = root.getBoundingClientRect(),
      size = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const room = frame.right - Math.min(17 * size, frame.width) - word.getBoundingClientRect().left;
    word.style.setProperty("--left", `${Math.min(0, room)}px`);
  }
  root.addEventListener("pointerover", place);
  root.addEventListener("focusin", place);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.target.closest(".ce-term")?.blur();
  });

  const MEANS = {
    "[CLS]": "A token that stands for no patch. The class is read from it after the last layer.",
    layer:
      "One step of the network. Each has a half that compares tokens (attention) and a half that works on each token alone.",
    head: "Each layer compares the tokens in several small subspaces, one a head. A map shows how much of its attention a head gives to each patch, scaled to its own maximum.",
    rate: "Coding rate: how many nats it takes to write down the tokens as the heads see them, in CRATE's subspaces or as a ViT's keys. Lower is more compact.",
    nonzero:
      "The share of entries that are not exactly zero after the layer. Lower is sparser. Only ISTA's threshold makes exact zeros.",
    ap: "Average precision: how well the map ranks the pixels of the part before all others, from 0 to 1. A flat map scores the part's share of the image.",
    iou: "Intersection over union, from 0 to 1: the overlap of the part with the fewest patches that hold 60 % of the map's attention.",
    flat: "What a map without any preference scores: the part's share of the image.",
    norm: "The length of the token's vector.",
    likeness:
      "Cosine of the angle between the token and [CLS] after the same layer: 1 for the same direction.",
    read: "The class that the network's own classifier would read from this token if the network ended here.",
    off: "The head hands on zeros in place of what it collected. All later layers are computed again.",
  };

  const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.0995 ? 1 : 0)} %`;
  const hundredths = (x) => (Number.isNaN(x) ? "–" : x.toFixed(2));

  function softmax(logits) {
    const top = Math.max(...logits),
      powers = logits.map((x) => Math.exp(x - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((x) => x / sum);
  }

  /** A bar with its number, and a tick where the network without edits was. */
  function bar(value, most, text, plain) {
    const at = (x) => `${Math.max(0, Math.min(100, (100 * x) / most)).toFixed(1)}%`;
    return element(
      "span",
      { class: "ce-bar" },
      element(
        "span",
        { class: "ce-track", "aria-hidden": "true" },
        element("span", { class: "ce-fill", style: `width:${at(value)}` }),
        plain == null ? null : element("span", { class: "ce-tick", style: `left:${at(plain)}` }),
      ),
      element("span", { class: "ce-number" }, text),
    );
  }

  // magma (van der Walt and Smith 2015), even in lightness and safe for the colour blind
  const MAGMA = [
    "#000004",
    "#180f3d",
    "#440f76",
    "#721f81",
    "#9e2f7f",
    "#cd4071",
    "#f1605d",
    "#fd9668",
    "#feca8d",
    "#fcfdbf",
  ].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));

  function magma(x) {
    const place = Math.min(0.9999, Math.max(0, x)) * (MAGMA.length - 1),
      i = Math.floor(place);
    return MAGMA[i].map((value, c) => value + (place - i) * (MAGMA[i + 1][c] - value));
  }

  function drawMap(canvas, map) {
    [canvas.width, canvas.height] = [info.shape.columns, info.shape.rows];
    const top = map.reduce((a, b) => Math.max(a, b), 1e-30);
    toCanvas(
      Float32Array.from(
        { length: 3 * map.length },
        (_, i) => magma(map[Math.floor(i / 3)] / top)[i % 3],
      ),
      canvas,
    );
  }

  // --- the page's parts -----------------------------------------------------------------------------

  const id = `ce${Math.random().toString(36).slice(2, 8)}`;
  const status = element("span", { class: "ce-status" });
  const live = element("p", { class: "ce-live", "aria-live": "polite" });
  const choice = element(
    "select",
    {
      id: `${id}-network`,
      onchange: () => {
        state.network = choice.value;
        refresh(OPEN);
      },
    },
    ...source.networks.map(({ name, title }) => element("option", { value: name }, title ?? name)),
  );
  const strip = element("div", { class: "ce-strip", role: "group", "aria-label": "Image" });
  const file = element("input", {
    type: "file",
    accept: "image/*",
    class: "ce-hidden",
    tabindex: -1,
    "aria-label": "An image file of your own",
    onchange: () => file.files[0] && takeFile(file.files[0]),
  });
  const stage = element("canvas", {
    class: "ce-stage",
    tabindex: 0,
    role: "application",
    "aria-describedby": `${id}-keys`,
  });
  const keys = element("p", { class: "ce-hint", id: `${id}-keys` });
  const asked = element("p", { class: "ce-asked" });
  const toCls = element(
    "button",
    { type: "button", class: "ce-quiet", onclick: () => setQuery(0) },
    "Ask [CLS] again",
  );
  const table = element("div", {
    class: "ce-table",
    role: "grid",
    "aria-label": "Attention maps: a row for each layer, a column for each head",
  });
  const tableNote = element("p", { class: "ce-hint" });
  const classes = element("div", { class: "ce-classes" });
  const truth = element("div", { class: "ce-truth" });
  const path = element("div", { class: "ce-path" });
  const headSwitch = element("button", {
    type: "button",
    "aria-pressed": "false",
    onclick: () => toggle(state.layer, state.head),
  });
  const allOn = element(
    "button",
    {
      type: "button",
      class: "ce-quiet",
      onclick: () => {
        state.off.clear();
        refresh(EDIT);
      },
    },
    "Switch all heads on",
  );
  const undo = element(
    "button",
    {
      type: "button",
      class: "ce-quiet",
      onclick: () => {
        const last = state.dabs.at(-1)?.stroke;
        state.dabs = state.dabs.filter((dab) => (last === undefined ? false : dab.stroke !== last));
        refresh(IMAGE);
      },
    },
    "Undo",
  );
  const clean = element(
    "button",
    {
      type: "button",
      class: "ce-quiet",
      onclick: () => {
        state.dabs = [];
        refresh(IMAGE);
      },
    },
    "Clear paint",
  );
  const tools = radios(
    "Pointer",
    [
      ["look", "Look"],
      ["paint", "Paint"],
    ],
    () => tool,
    (value) => {
      tool = value;
      hovered = null;
      refresh(DRAW);
    },
  );
  const swatches = element(
    "span",
    { class: "ce-swatches", role: "group", "aria-label": "Colour" },
    ...COLOURS.map((colour, i) =>
      element("button", {
        type: "button",
        style: `background:${colour}`,
        "aria-label": COLOUR_NAMES[i],
        title: COLOUR_NAMES[i],
        onclick: () => {
          brush.colour = i;
          refresh(DRAW);
        },
      }),
    ),
  );
  const sizes = element(
    "label",
    { class: "ce-size" },
    "Size ",
    element("input", {
      type: "range",
      min: 1,
      max: 8,
      value: brush.size,
      oninput: (event) => (brush.size = +event.target.value),
    }),
  );
  const palette = element("div", { class: "ce-palette" }, swatches, sizes, undo, clean);
  const link =
    options.link === false
      ? null
      : element(
          "button",
          { type: "button", class: "ce-quiet", onclick: copyLink },
          "Copy a link to this view",
        );
  const scores = radios(
    "Score",
    [
      ["ap", "Average precision"],
      ["iou", "IoU"],
    ],
    () => state.score,
    (value) => {
      state.score = value;
      refresh(DRAW);
    },
  );

  function radios(name, choices, read, write) {
    const buttons = choices.map(([value, text]) =>
      element(
        "button",
        {
          type: "button",
          role: "radio",
          onclick: () => write(value),
          onkeydown: (event) => {
            const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
            if (!step) return;
            event.preventDefault();
            const next =
              (choices.findIndex(([v]) => v === read()) + step + choices.length) % choices.length;
            write(choices[next][0]);
            buttons[next].focus();
          },
        },
        text,
      ),
    );
    const node = element(
      "span",
      { class: "ce-radios", role: "radiogroup", "aria-label": name },
      ...buttons,
    );
    node.show = () =>
      buttons.forEach((button, i) => {
        const on = choices[i][0] === read();
        button.setAttribute("aria-checked", on);
        button.tabIndex = on ? 0 : -1;
      });
    return node;
  }

  const parts = [
    element(
      "div",
      { class: "ce-top" },
      element("label", { class: "ce-field", for: `${id}-network` }, "Network", choice),
      element("div", { class: "ce-field ce-images" }, element("span", {}, "Image"), strip, file),
    ),
    element(
      "div",
      { class: "ce-main" },
      element(
        "div",
        { class: "ce-left" },
        element("div", { class: "ce-tools" }, tools),
        stage,
        asked,
        palette,
        keys,
        element("div", { class: "ce-tools" }, headSwitch, toCls),
        classes,
      ),
      element("div", { class: "ce-right" }, table, tableNote),
    ),
    element("div", { class: "ce-below" }, truth, path),
    element("div", { class: "ce-foot" }, allOn, link, status),
    live,
  ];
  root.classList.add("ce");

  /** What stood there, such as a still, makes way for the first drawing. */
  function appear() {
    if (!root.contains(status)) root.replaceChildren(...parts);
  }

  function buildStrip() {
    const buttons = info.images.map((image, i) =>
      element(
        "button",
        {
          type: "button",
          "aria-label": `Image ${i + 1}: ${image.name}`,
          title: image.name,
          onclick: () => chooseImage(i),
        },
        toCanvas(image.pixels),
      ),
    );
    const mine = element(
      "button",
      { type: "button", class: "ce-own", onclick: () => file.click() },
      own ? own.name : "Your image…",
    );
    strip.replaceChildren(...buttons, mine);
  }

  function chooseImage(index) {
    [own, state.image, state.dabs] = [null, index, []];
    state.part = Math.min(state.part, Math.max(0, masks().length - 1));
    refresh(IMAGE);
  }

  async function takeFile(blob) {
    try {
      own = { name: blob.name || "Your image", bitmap: await createImageBitmap(blob) };
    } catch {
      status.textContent = `${blob.name} cannot be read as an image; drop a PNG, JPEG, WebP or GIF.`;
      return;
    }
    [state.dabs, state.part] = [[], 0];
    buildStrip();
    refresh(IMAGE);
  }

  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    root.classList.add("ce-drop");
  });
  root.addEventListener("dragleave", (event) => {
    if (!root.contains(event.relatedTarget)) root.classList.remove("ce-drop");
  });
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    root.classList.remove("ce-drop");
    if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });

  async function copyLink() {
    const address = `${location.href.split("#")[0]}#${writeState()}`;
    history.replaceState(null, "", address);
    const note = own ? " Your own image is not part of it." : "";
    try {
      await navigator.clipboard.writeText(address);
      status.textContent = `The link is copied.${note}`;
    } catch {
      status.textContent = `The link is in the address bar.${note}`;
    }
  }

  // --- the image and its patches ------------------------------------------------------------------

  /** The token of the patch under the pointer, and the pixel. */
  function under(event) {
    const box = stage.getBoundingClientRect(),
      { rows, columns } = info.shape;
    const inside = (x) => Math.max(0, Math.min(0.9999, x));
    const [x, y] = [
      inside((event.clientX - box.left) / box.width),
      inside((event.clientY - box.top) / box.height),
    ];
    return {
      token: firstPatch() + Math.floor(y * rows) * columns + Math.floor(x * columns),
      x: Math.floor(x * info.size[1]),
      y: Math.floor(y * info.size[0]),
    };
  }

  let strokes = 0,
    painting = false,
    last = null;

  /** A stroke from the last point to this one, in steps of half the brush. */
  function dab({ x, y }) {
    if (last && last.x === x && last.y === y) return;
    const from = last ?? { x, y };
    const steps = Math.max(
      1,
      Math.ceil(Math.hypot(x - from.x, y - from.y) / Math.max(1, brush.size / 2)),
    );
    for (let i = 1; i <= steps; i++) {
      const at = {
        x: Math.round(from.x + ((x - from.x) * i) / steps),
        y: Math.round(from.y + ((y - from.y) * i) / steps),
      };
      state.dabs.push({ ...at, ...brush, stroke: strokes });
    }
    last = { x, y };
    refresh(IMAGE);
  }

  stage.addEventListener("pointerdown", (event) => {
    if (!info || event.button) return;
    if (tool === "paint") {
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      [painting, last] = [true, null];
      strokes++;
      dab(under(event));
    }
  });
  stage.addEventListener("pointermove", (event) => {
    if (!info) return;
    if (painting) dab(under(event));
    else if (tool === "look" && event.pointerType === "mouse") {
      const { token } = under(event);
      if (token !== hovered) {
        hovered = token;
        refresh(LOOK);
      }
    }
  });
  for (const end of ["pointerup", "pointercancel"])
    stage.addEventListener(end, () => (painting = false));
  stage.addEventListener("pointerleave", () => {
    if (hovered !== null) {
      hovered = null;
      refresh(LOOK);
    }
  });
  stage.addEventListener("click", (event) => {
    if (!info || tool !== "look") return;
    const { token } = under(event);
    setQuery(token === state.query ? 0 : token);
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[
      event.key
    ];
    const { rows, columns } = info.shape;
    if (step) {
      const [row, column] = state.query
        ? placeOf(state.query)
        : [Math.floor(rows / 2) - step[0], Math.floor(columns / 2) - step[1]];
      const next = [
        Math.max(0, Math.min(rows - 1, row + step[0])),
        Math.max(0, Math.min(columns - 1, column + step[1])),
      ];
      setQuery(firstPatch() + next[0] * columns + next[1]);
    } else if (event.key === "Escape" || event.key === "Home") setQuery(0);
    else if ((event.key === " " || event.key === "Enter") && tool === "paint" && state.query) {
      const [row, column] = placeOf(state.query),
        [height, width] = info.size;
      strokes++;
      last = null;
      dab({
        x: Math.floor(((column + 0.5) * width) / columns),
        y: Math.floor(((row + 0.5) * height) / rows),
      });
    } else return;
    event.preventDefault();
  });

  function setQuery(token) {
    [state.query, hovered] = [token, null];
    refresh(LOOK);
  }

  function drawStage() {
    const { rows, columns } = info.shape,
      [height, width] = info.size;
    const scale = Math.max(1, Math.round(720 / width)); // fine enough for a screen of high density
    [stage.width, stage.height] = [width * scale, height * scale];
    const context = stage.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(toCanvas(pixels()), 0, 0, stage.width, stage.height);
    const [w, h] = [stage.width / columns, stage.height / rows];
    const map = mapOf(seen.attention, state.layer, state.head);
    const top = map.reduce((a, b) => Math.max(a, b), 1e-30);
    if (tool === "look") {
      map.forEach((value, i) => {
        // a veil that attention lifts
        context.fillStyle = `rgba(10, 8, 20, ${(0.72 * (1 - value / top)).toFixed(3)})`;
        context.fillRect((i % columns) * w, Math.floor(i / columns) * h, w, h);
      });
    }
    if (masks().length && tool === "look") {
      outline(context, exploreMeasures.massMask(map), columns, rows, "#e69f00", []);
      outline(context, maskPixels(masks()[state.part]), width, height, "#56b4e9", [
        (2 * scale) / 3,
        scale / 2,
      ]);
    }
    if (query()) {
      const [row, column] = placeOf(query());
      for (const [colour, line] of [
        ["#000", 6],
        ["#fff", 3],
      ]) {
        [context.strokeStyle, context.lineWidth] = [colour, line];
        context.setLineDash([]);
        context.strokeRect(column * w, row * h, w, h);
      }
    }
  }

  /** The edges between what is in a mask of any grid and what is not. */
  function outline(context, mask, columns, rows, colour, dash) {
    const [w, h] = [stage.width / columns, stage.height / rows];
    context.beginPath();
    const at = (row, column) =>
      row >= 0 && row < rows && column >= 0 && column < columns ? mask[row * columns + column] : 0;
    for (let row = 0; row <= rows; row++)
      for (let column = 0; column <= columns; column++) {
        if (at(row, column) !== at(row - 1, column)) {
          context.moveTo(column * w, row * h);
          context.lineTo((column + 1) * w, row * h);
        }
        if (at(row, column) !== at(row, column - 1)) {
          context.moveTo(column * w, row * h);
          context.lineTo(column * w, (row + 1) * h);
        }
      }
    for (const [stroke, line] of [
      ["rgba(0, 0, 0, 0.6)", 6],
      [colour, 3],
    ]) {
      [context.strokeStyle, context.lineWidth] = [stroke, line];
      context.setLineDash(stroke === colour ? dash : []);
      context.stroke();
    }
  }

  // --- the network: a row for each layer --------------------------------------------------------

  function buildTable() {
    const { layers, heads } = info.shape;
    table.style.setProperty("--heads", heads);
    root.classList.toggle("ce-many", heads > 6);
    const heading = (...content) => element("span", { role: "columnheader" }, ...content);
    const header = element(
      "div",
      { class: "ce-row ce-header", role: "row" },
      heading(element("span", { class: "ce-word" }, term("Layer", MEANS.layer))),
      ...Array.from({ length: heads }, (_, h) =>
        heading(h ? `${heads > 6 ? "" : "Head "}${h + 1}` : term("Head 1", MEANS.head)),
      ),
      heading(term("Rᶜ", MEANS.rate)),
      heading(term("Non-zero", MEANS.nonzero)),
    );
    cells = Array.from({ length: layers }, (_, layer) =>
      Array.from({ length: heads }, (_, head) => {
        const canvas = newCanvas(1, 1),
          score = element("span", { class: "ce-score" }),
          moved = element("span", { class: "ce-moved" });
        const map = element(
          "button",
          { type: "button", class: "ce-map", onclick: () => select(layer, head) },
          canvas,
          moved,
        );
        const power = element("button", {
          type: "button",
          class: "ce-power",
          role: "switch",
          tabindex: -1,
          "aria-label": `Layer ${layer + 1}, head ${head + 1}`,
          onclick: () => toggle(layer, head),
        });
        const node = element(
          "div",
          { class: "ce-cell", role: "gridcell" },
          map,
          element("span", { class: "ce-under" }, score, power),
        );
        return { node, canvas, map, power, score, moved };
      }),
    );
    const rows = cells.map((row, layer) => {
      const rate = element("span", { class: "ce-rate", role: "gridcell" }),
        nonzero = element("span", { class: "ce-nonzero", role: "gridcell" });
      row.readings = { rate, nonzero };
      return element(
        "div",
        { class: "ce-row", role: "row" },
        element(
          "span",
          { class: "ce-layer", role: "rowheader" },
          element("span", { class: "ce-word" }, "Layer "),
          `${layer + 1}`,
        ),
        ...row.map((cell) => cell.node),
        rate,
        nonzero,
      );
    });
    table.replaceChildren(header, ...rows);
  }

  table.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[
      event.key
    ];
    const { layers, heads } = info.shape;
    if (step && event.target.closest(".ce-cell")) {
      select(
        Math.max(0, Math.min(layers - 1, state.layer + step[0])),
        Math.max(0, Math.min(heads - 1, state.head + step[1])),
      );
      cells[state.layer][state.head].map.focus();
    } else if (
      event.target.closest(".ce-cell") &&
      ["x", "X", "Delete", "Backspace"].includes(event.key)
    )
      toggle(state.layer, state.head);
    else return;
    event.preventDefault();
  });

  function select(layer, head) {
    [state.layer, state.head] = [layer, head];
    refresh(DRAW);
  }

  function toggle(layer, head) {
    const key = `${layer}.${head}`;
    if (!state.off.delete(key)) state.off.add(key);
    refresh(EDIT);
  }

  /** The share of a map that lies elsewhere than without edits, from 0 to 1. */
  function movedShare(map, plain) {
    const [a, b] = [map, plain].map((x) => x.reduce((sum, value) => sum + value, 0) || 1);
    return map.reduce((sum, value, i) => sum + Math.abs(value / a - plain[i] / b), 0) / 2;
  }

  function drawTable() {
    const edited = state.off.size > 0,
      part = masks()[state.part];
    tableNote.replaceChildren(
      ...(part
        ? [
            "Below each map: ",
            term(state.score === "ap" ? "average precision" : "IoU", MEANS[state.score]),
            ` with “${part.name}”, and `,
          ]
        : ["Below each map: "]),
      "the ",
      term("switch", MEANS.off),
      " of its head.",
      ...(edited
        ? [
            " Orange: the share of the map that moved, and where the readings were with all heads on.",
          ]
        : []),
    );
    const most = Math.max(...result.edited.rates, ...result.plain.rates);
    cells.forEach((row, layer) => {
      row.forEach(({ node, canvas, map, power, score, moved }, head) => {
        const values = mapOf(seen.attention, layer, head),
          off = isOff(layer, head);
        const chosen = layer === state.layer && head === state.head;
        const share = edited ? movedShare(values, mapOf(seen.plain, layer, head)) : 0;
        const reached = part ? scoreOf(values, state.part) : NaN;
        drawMap(canvas, values);
        node.classList.toggle("ce-chosen", chosen);
        node.classList.toggle("ce-is-off", off);
        map.tabIndex = chosen ? 0 : -1;
        map.setAttribute("aria-pressed", chosen);
        map.setAttribute(
          "aria-label",
          `Layer ${layer + 1}, head ${head + 1}${off ? ", off" : ""}` +
            (part
              ? `, ${state.score === "ap" ? "average precision" : "IoU"} with the ${part.name} ${hundredths(reached)}`
              : "") +
            (edited ? `, ${percent(share)} of its attention moved` : ""),
        );
        moved.style.width = `${100 * share}%`;
        moved.title = edited ? `${percent(share)} of this map moved` : "";
        score.textContent = part ? hundredths(reached).replace(/^0/, "") : "";
        power.setAttribute("aria-checked", !off);
        power.title = off ? "Switch this head on" : "Switch this head off";
      });
      const plain = (name) => (edited ? result.plain[name][layer] : null);
      row.readings.rate.replaceChildren(
        bar(
          result.edited.rates[layer],
          most,
          result.edited.rates[layer].toFixed(0),
          plain("rates"),
        ),
      );
      row.readings.nonzero.replaceChildren(
        bar(
          result.edited.nonzero[layer],
          1,
          percent(result.edited.nonzero[layer]),
          plain("nonzero"),
        ),
      );
    });
  }

  // --- what comes of it ---------------------------------------------------------------------------

  function drawClasses() {
    const title = element("h3", {}, "Class");
    if (!info.classes.length) {
      classes.replaceChildren(
        title,
        element(
          "p",
          { class: "ce-hint" },
          "This network learnt without labels: there is no class to read.",
        ),
      );
      return;
    }
    const [edited, plain] = [result.edited, result.plain].map(({ logits }) => softmax(logits));
    const order = [...edited.keys()]
      .sort((a, b) => Math.max(edited[b], plain[b]) - Math.max(edited[a], plain[a]))
      .slice(0, 6);
    const label = own ? null : info.images[state.image].label;
    classes.replaceChildren(
      title,
      element(
        "dl",
        { class: "ce-bars" },
        ...order.flatMap((c) => [
          element(
            "dt",
            {},
            info.classes[c],
            c === label ? element("span", { class: "ce-true" }, " true") : "",
          ),
          element(
            "dd",
            {},
            bar(edited[c], 1, percent(edited[c]), state.off.size ? plain[c] : null),
          ),
        ]),
      ),
    );
    if (state.off.size)
      classes.append(
        element("p", { class: "ce-hint" }, "The ticks show the network with all heads on."),
      );
  }

  function drawTruth() {
    const title = element("h3", {}, `What the heads of layer ${state.layer + 1} cover`);
    if (!masks().length) {
      truth.replaceChildren(
        title,
        element(
          "p",
          { class: "ce-hint" },
          own
            ? "For an image of your own there is no truth to compare with."
            : "This image has no masks to compare with.",
        ),
      );
      return;
    }
    const { heads } = info.shape;
    const all = masks().map((_, part) =>
      Array.from({ length: heads }, (_, h) => scoreOf(mapOf(seen.attention, state.layer, h), part)),
    );
    const head = element(
      "tr",
      {},
      element("th", { scope: "col" }, "Part"),
      ...Array.from({ length: heads }, (_, h) =>
        element("th", { scope: "col", class: h === state.head ? "ce-column" : null }, `${h + 1}`),
      ),
      state.score === "ap" ? element("th", { scope: "col" }, term("flat", MEANS.flat)) : null,
    );
    const rows = masks().map((mask, part) =>
      element(
        "tr",
        { class: part === state.part ? "ce-part" : null },
        element(
          "th",
          { scope: "row" },
          element(
            "button",
            {
              type: "button",
              "aria-pressed": part === state.part,
              onclick: () => {
                state.part = part;
                refresh(DRAW);
              },
            },
            mask.name,
          ),
        ),
        ...all[part].map((value, h) =>
          element(
            "td",
            {
              class: h === state.head ? "ce-column" : null,
              style: `--x:${(100 * value).toFixed(0)}%`,
            },
            value === Math.max(...all[part])
              ? element("strong", {}, hundredths(value))
              : hundredths(value),
          ),
        ),
        state.score === "ap"
          ? element(
              "td",
              { class: "ce-flat" },
              hundredths(counts[part].reduce((a, b) => a + b, 0) / (info.size[0] * info.size[1])),
            )
          : null,
      ),
    );
    truth.replaceChildren(
      title,
      scores,
      element(
        "table",
        { class: "ce-scores" },
        element(
          "caption",
          {},
          term(state.score === "ap" ? "Average precision" : "IoU", MEANS[state.score]),
          ` of each head with each part; the best is bold.`,
        ),
        element("thead", {}, head),
        element("tbody", {}, ...rows),
      ),
    );
  }

  function drawPath() {
    const most = Math.max(...seen.path.map(({ norm }) => norm));
    const hasClasses = info.classes.length > 0;
    const rows = seen.path.map(({ norm, likeness, logits }, l) => {
      const probabilities = softmax(logits),
        best = probabilities.indexOf(Math.max(...probabilities));
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, l ? `layer ${l}` : "start"),
        element("td", {}, bar(norm, most, norm.toFixed(1))),
        query() ? element("td", {}, bar(Math.max(0, likeness), 1, hundredths(likeness))) : null,
        hasClasses
          ? element(
              "td",
              { class: "ce-read" },
              `${info.classes[best]} `,
              element("span", { class: "ce-number" }, percent(probabilities[best])),
            )
          : null,
      );
    });
    path.replaceChildren(
      element("h3", {}, `The path of ${nameOf(query())}`),
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            element("th", { scope: "col" }, "After"),
            element("th", { scope: "col" }, term("Length", MEANS.norm)),
            query() ? element("th", { scope: "col" }, term("Like [CLS]", MEANS.likeness)) : null,
            hasClasses ? element("th", { scope: "col" }, term("Reads as", MEANS.read)) : null,
          ),
        ),
        element("tbody", {}, ...rows),
      ),
    );
  }

  function draw(level) {
    choice.value = state.network;
    [...strip.children].forEach((button, i) => {
      const on = own ? i === strip.children.length - 1 : i === state.image;
      button.setAttribute("aria-pressed", on);
    });
    drawStage();
    drawTable();
    if (level >= EDIT) drawClasses();
    drawTruth();
    drawPath();
    tools.show();
    scores.show();
    root.dataset.tool = tool;
    [...swatches.children].forEach((swatch, i) =>
      swatch.setAttribute("aria-pressed", i === brush.colour),
    );
    const off = isOff(state.layer, state.head),
      here = `head ${state.head + 1} of layer ${state.layer + 1}`;
    headSwitch.textContent = `Switch ${here} ${off ? "on" : "off"}`;
    headSwitch.setAttribute("aria-pressed", off);
    headSwitch.title = MEANS.off;
    toCls.hidden = !state.query;
    allOn.hidden = !state.off.size;
    undo.disabled = clean.disabled = !state.dabs.length;
    const start = (state.layer * info.shape.heads + state.head) * info.shape.tokens;
    const kept = seen.attention[start];
    asked.replaceChildren(
      "Where ",
      query() ? nameOf(query()) : term("[CLS]", MEANS["[CLS]"]),
      ` looks in ${here}${off ? ", which is off" : ""}. ${percent(kept)} of the attention stays with ${query() ? "[CLS]" : "[CLS] itself"}.`,
    );
    stage.setAttribute(
      "aria-label",
      `The image, ${info.shape.rows} by ${info.shape.columns} patches, lit where ${nameOf(query())} looks in ${here}`,
    );
    keys.textContent =
      tool === "look"
        ? "Point at a patch to ask it, click to keep it; arrow keys move it, Escape asks [CLS]." +
          (masks().length
            ? " Orange: 60 % of the attention. Blue, dashed: the part that is chosen below."
            : "")
        : "Draw on the image; or move the frame by arrow keys and paint with the space bar.";
    if (level >= EDIT) {
      const all = info.shape.layers,
        count = all - result.from;
      const which =
        count === all ? "All layers" : count === 1 ? "The last layer" : `The last ${count} layers`;
      status.textContent = count
        ? `${which} computed in ${result.took.toFixed(0)} ms.`
        : "No layer had to be computed again.";
    }
    speak();
    tell();
  }

  /** The state is told when it has settled: browsers refuse an address that changes all the time. */
  let told = "";
  let telling;
  function tell() {
    const text = writeState();
    clearTimeout(telling);
    if (text !== told) telling = setTimeout(() => options.onState?.((told = text)), 250);
  }

  /** What changed, in a sentence, for those who listen; not at every move of a mouse. */
  let spoken;
  function speak() {
    clearTimeout(spoken);
    spoken = setTimeout(() => {
      const part = masks()[state.part],
        map = mapOf(seen.attention, state.layer, state.head);
      const probabilities = info.classes.length ? softmax(result.edited.logits) : [];
      const best = probabilities.indexOf(Math.max(...probabilities));
      live.textContent =
        `Layer ${state.layer + 1}, head ${state.head + 1}, asked by ${nameOf(query())}.` +
        (part
          ? ` With the ${part.name}: average precision ${hundredths(scoreOf(map, state.part, "ap"))}, IoU ${hundredths(scoreOf(map, state.part, "iou"))}.`
          : "") +
        ` Coding rate ${result.edited.rates[state.layer].toFixed(0)} nats, non-zero ${percent(result.edited.nonzero[state.layer])}.` +
        (best >= 0 ? ` Class: ${info.classes[best]}, ${percent(probabilities[best])}.` : "");
    }, 400);
  }

  const begin = new URLSearchParams(options.state ?? "").get("network");
  if (source.networks.some(({ name }) => name === begin)) state.network = begin;
  refresh(OPEN);

  return {
    /** Show another state, as text. */
    go(text) {
      const wish = new URLSearchParams(text).get("network");
      if (source.networks.some(({ name }) => name === wish)) state.network = wish;
      clearTimeout(telling);
      [options.state, started, own] = [text, false, null];
      refresh(OPEN);
    },
    state: writeState,
  };
}
