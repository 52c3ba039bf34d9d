/* JupyterLab: the view's questions go to the kernel. This file follows measures.js and view.js. */

function kernelSource(model) {
  const waiting = {};
  let count = 0;
  model.on("msg:custom", (content, buffers) => {
    const { resolve, reject } = waiting[content.id] ?? {};
    if (!resolve) return;
    delete waiting[content.id];
    if (content.error) reject(new Error(content.error));
    else resolve({ answer: content.answer, buffers });
  });
  const ask = (call, args = {}, buffers = []) =>
    new Promise((resolve, reject) => {
      waiting[++count] = { resolve, reject };
      model.send({ id: count, call, ...args }, undefined, buffers);
    });
  const bytes = (view) =>
    new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const floats = (view) => new Float32Array(bytes(view).buffer);
  let images;
  return {
    networks: model.get("networks"),
    async open(name) {
      const { answer, buffers } = await ask("open", { name });
      images ??= answer.images.map((image, i) => ({ ...image, pixels: bytes(buffers[i]) }));
      return { ...answer, images };
    },
    async run(pixels, off) {
      return (await ask("run", { off, same: !pixels }, pixels ? [pixels.buffer] : [])).answer;
    },
    async look(query) {
      const { answer, buffers } = await ask("look", { query });
      return { path: answer.path, attention: floats(buffers[0]), plain: floats(buffers[1]) };
    },
  };
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const view = exploreView(root, kernelSource(model), {
      state: model.get("state"),
      link: false,
      onState(text) {
        model.set("state", text);
        model.save_changes();
      },
    });
    model.on("change:state", () => {
      if (model.get("state") !== view.state()) view.go(model.get("state"));
    });
  },
};
