"use strict";
/* The networks of this library in plain JavaScript, written from their formulas.

   CRATE (Yu et al. 2023, arXiv 2306.01129; 2024, arXiv 2308.16271) with either attention (mssa, mhsa)
   and any second half (ista, ista_soft, mlp), CRATE-alpha (Yang et al. 2024, arXiv 2405.20299), and the
   ViT (Dosovitskiy et al. 2021), also with registers and LayerScale. Weights are read from the
   .safetensors files as the library ships them.

   Matrices are Float32Arrays, row by row: t tokens ([CLS] first), d embedding, h heads of p dimensions,
   a layer's attention is (h, t, t). All of it is one function without outside names, so that a worker can
   be made of its text. */

function crateEngine({ vectors: wanted = true } = {}) {

  // --- the safetensors file -------------------------------------------------------------------

  /** {config, tensors} of a file: an eight-byte length, a JSON header, then the numbers. */
  function readSafetensors(buffer) {
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: ends }] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      const bytes = buffer.slice(8 + length + ends[0], 8 + length + ends[1]);
      tensors[name] = { shape, data: toFloat32(dtype, bytes) };
    }
    return { config: JSON.parse(header.__metadata__.config), tensors };
  }

  function toFloat32(dtype, bytes) {
    if (dtype === "F32") return new Float32Array(bytes);
    const short = new Uint16Array(bytes);
    if (dtype === "BF16") return new Float32Array(Uint32Array.from(short, (bits) => bits << 16).buffer);
    if (dtype !== "F16") throw new Error(`weights are ${dtype}; F32, F16 and BF16 can be read`);
    return Float32Array.from(short, (bits) => HALF[bits]);
  }

  /** What each of the 65,536 numbers of 16 bits stands for (IEEE 754; the weights are finite). */
  const HALF = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
  });

  /** A network ready to run: its config and its weights by their role, the same for all families. */
  function load(buffer) {
    const { config, tensors } = readSafetensors(buffer);
    const at = (name) => {
      if (!tensors[name]) throw new Error(`the weights lack ${name}`);
      return tensors[name].data;
    };
    const optional = (name) => tensors[name]?.data;
    const norm = (name, eps) => ({ weight: at(`${name}.weight`), bias: at(`${name}.bias`), eps });
    const linear = (name) => ({ weight: at(`${name}.weight`), bias: optional(`${name}.bias`) });
    const thirds = (name, count) =>
      [0, 1, 2].map((third) => {
        const part = (x, size) => x?.subarray(third * size, (third + 1) * size);
        const { weight, bias } = linear(name);
        return count === 1 ? { weight } : { weight: part(weight, d * d), bias: part(bias, d) };
      });
    const d = config.dim, isVit = config.family === "vit";
    const eps = config.norm_eps ?? (isVit ? 1e-6 : 1e-5), headEps = config.head_eps ?? (isVit ? eps : 1e-5);
    const side = config.image_size / config.patch_size, registers = config.registers ?? 0;
    const shape = {
      layers: config.depth, heads: config.heads, rows: side, columns: side, tokens: 1 + registers + side * side,
    };
    const steps = {
      ista: (name) => ({ ...dictionary(name), soft: false }),
      ista_soft: (name) => ({ ...dictionary(name), soft: true }),
      ista_overcomplete: (name) => ({
        ...sizes, D: at(`${name}.D`), DT: transpose(at(`${name}.D`), d), D1: at(`${name}.D1`),
      }),
      mlp: (name) => ({ fc1: linear(`${name}.fc1`), fc2: linear(`${name}.fc2`) }),
    };
    const sizes = { eta: config.step_size, lambda: config.sparsity };
    const dictionary = (name) => ({ ...sizes, D: at(`${name}.weight`), DT: transpose(at(`${name}.weight`), d) });
    const kind = config.nonlinearity;
    if (!["crate", "vit"].includes(config.family) || !steps[kind]) {
      throw new Error(`there is no forward pass for ${config.family} with ${kind}`);
    }
    const crateLayer = (l) => {
      const [first, second] = [`transformer.layers.${l}.0`, `transformer.layers.${l}.1`];
      const [q, k, v] = thirds(`${first}.fn.qkv`, config.attention === "mssa" ? 1 : 3);
      return {
        norm: norm(`${first}.norm`, eps), q, k, v,
        out: config.heads === 1 ? null : linear(`${first}.fn.to_out.0`),
        normHalf: norm(`${second}.norm`, eps), kind, step: steps[kind](`${second}.fn`),
      };
    };
    const vitLayer = (l) => {
      const name = `blocks.${l}`, [q, k, v] = thirds(`${name}.attn.qkv`, 3);
      return {
        norm: norm(`${name}.norm1`, eps), q, k, v,
        out: linear(`${name}.attn.proj`), outScale: optional(`${name}.ls1.gamma`),
        normHalf: norm(`${name}.norm2`, eps), kind,
        step: steps[kind](`${name}.mlp`), stepScale: optional(`${name}.ls2.gamma`),
      };
    };
    const stem = (name) => ({ isConvolution: true, linear: linear(name) });
    const crateStem = () => ({
      isConvolution: false, before: norm("to_patch_embedding.1", 1e-5),
      linear: linear("to_patch_embedding.2"), after: norm("to_patch_embedding.3", 1e-5),
    });
    const classifiers = isVit
      ? [config.num_classes && "head"]
      : [
          (config.num_classes || config.projector_dim) && "mlp_head.1",
          config.projector_dim && config.num_classes && "head",
        ];
    return {
      config, shape,
      embedding: {
        ...(isVit ? stem("patch_embed.proj") : config.stem === "conv" ? stem("conv1") : crateStem()),
        cls: at("cls_token"), registers: registers ? at("register_tokens") : new Float32Array(0),
        positions: at(isVit ? "pos_embed" : "pos_embedding"),
      },
      layers: Array.from({ length: config.depth }, (_, l) => (isVit ? vitLayer : crateLayer)(l)),
      classifier: {
        norm: norm(isVit ? "norm" : "mlp_head.0", headEps),
        linears: classifiers.filter(Boolean).map(linear),
      },
    };
  }

  // --- matrices -------------------------------------------------------------------------------

  /** A B^T + bias for A (m, k) and B (n, k), in WebAssembly where its vector instructions are known. */
  function product(a, b, m, n, k, bias) {
    const out = vectors ? vectorProduct(a, b, m, n, k) : plainProduct(a, b, m, n, k);
    if (bias) for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[i * n + j] += bias[j];
    return out;
  }

  /** Two rows by four columns at a time; at the edges the last ones are computed again. */
  function plainProduct(a, b, m, n, k) {
    const out = new Float32Array(m * n);
    for (let i = 0; i < m; i += 2) {
      const i1 = Math.min(i + 1, m - 1);
      for (let j = 0; j < n; j += 4) {
        const j1 = Math.min(j + 1, n - 1), j2 = Math.min(j + 2, n - 1), j3 = Math.min(j + 3, n - 1);
        let p = i * k, q = i1 * k, r = j * k, s = j1 * k, t = j2 * k, u = j3 * k;
        let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
        for (const end = p + k; p < end;) {
          const a0 = a[p++], a1 = a[q++], b0 = b[r++], b1 = b[s++], b2 = b[t++], b3 = b[u++];
          s00 += a0 * b0; s01 += a0 * b1; s02 += a0 * b2; s03 += a0 * b3;
          s10 += a1 * b0; s11 += a1 * b1; s12 += a1 * b2; s13 += a1 * b3;
        }
        out[i * n + j] = s00; out[i * n + j1] = s01; out[i * n + j2] = s02; out[i * n + j3] = s03;
        out[i1 * n + j] = s10; out[i1 * n + j1] = s11; out[i1 * n + j2] = s12; out[i1 * n + j3] = s13;
      }
    }
    return out;
  }

  const ROWS = 4, LANES = 8; // of the result, that the vector product has in hand at a time

  /** The same through `vectors`: A and B^T are laid into its memory, rows and columns filled up. */
  function vectorProduct(a, b, m, n, k) {
    const rows = Math.ceil(m / ROWS) * ROWS, columns = Math.ceil(n / LANES) * LANES;
    const places = [0, rows * k, rows * k + k * columns].map((x) => 4 * Math.ceil(x / 4));
    const needed = 4 * (places[2] + rows * columns) - vectors.memory.buffer.byteLength;
    if (needed > 0) vectors.memory.grow(Math.ceil(needed / 65536));
    const floats = new Float32Array(vectors.memory.buffer);
    floats.set(a, 0);
    const [, right, result] = places;
    for (let j = 0; j < n; j++) for (let x = 0; x < k; x++) floats[right + x * columns + j] = b[j * k + x];
    vectors.product(0, 4 * right, 4 * result, rows, columns, k);
    const out = new Float32Array(m * n);
    for (let i = 0; i < m; i++) out.set(floats.subarray(result + i * columns, result + i * columns + n), i * n);
    return out;
  }

  /** A module with `product(a, b, out, rows, columns, k)`, addresses in bytes: out = A B, put together by hand.

      for i by ROWS, for j by LANES: sums = 0; for x in k: sums[r] += A[i + r, x] * B[x, j..j + LANES]. */
  function assemble() {
    const whole = (x) => { // unsigned LEB128
      const bytes = [];
      do { bytes.push((x & 127) | (x > 127 ? 128 : 0)); x >>= 7; } while (x);
      return bytes;
    };
    const list = (items) => [...whole(items.length), ...items.flat(Infinity)];
    const section = (id, items) => { const body = list(items); return [id, ...whole(body.length), ...body]; };
    const text = (x) => list([...x].map((c) => c.charCodeAt(0)));
    const [I32, V128] = [0x7f, 0x7b];

    // parameters, then the function's own numbers and vectors
    const [a, b, out, rows, columns, k, i, j, x, at, to, ...pointers] = Array(11 + ROWS).keys();
    const first = 11 + ROWS, sum = (r, half) => first + 2 * r + half;
    const [left, right, one] = [0, 1, 2].map((v) => first + 2 * ROWS + v);
    const get = (v) => [0x20, v], set = (v) => [0x21, v], constant = (x) => [0x41, ...whole(x)];
    const plus = 0x6a, times = 0x6c, less = 0x49, shift = 0x74;
    const simd = (code) => [0xfd, ...whole(code)];
    const load = (offset) => [...simd(0x00), 2, offset], splat = [...simd(0x09), 2, 0];
    const store = (offset) => [...simd(0x0b), 2, offset];
    const add = simd(0xe4), multiply = simd(0xe6), zero = [...simd(0x0c), ...Array(16).fill(0)];
    const raise = (v, by) => [get(v), by, plus, set(v)];
    const repeat = (body, condition) => [0x03, 0x40, body, condition, 0x0d, 0, 0x0b]; // do ... while
    const wide = (v) => [get(v), constant(2), shift]; // floats to bytes
    const each = [...Array(ROWS).keys()];

    const step = [
      get(at), load(0), set(left), get(at), load(16), set(right),
      each.map((r) => [
        get(pointers[r]), splat, set(one),
        [left, right].map((half, h) => [get(sum(r, h)), get(one), get(half), multiply, add, set(sum(r, h))]),
        raise(pointers[r], constant(4)),
      ]),
      raise(at, wide(columns)), raise(x, constant(1)),
    ];
    const block = [
      each.map((r) => [
        get(a), get(i), constant(r), plus, get(k), times, constant(2), shift, plus, set(pointers[r]),
      ]),
      each.map((r) => [0, 1].map((h) => [zero, set(sum(r, h))])),
      get(b), wide(j), plus, set(at), constant(0), set(x),
      repeat(step, [get(x), get(k), less]),
      get(out), get(i), get(columns), times, get(j), plus, constant(2), shift, plus, set(to),
      each.map((r) => [[0, 1].map((h) => [get(to), get(sum(r, h)), store(16 * h)]), raise(to, wide(columns))]),
      raise(j, constant(LANES)),
    ];
    const all = repeat(
      [constant(0), set(j), repeat(block, [get(j), get(columns), less]), raise(i, constant(ROWS))],
      [get(i), get(rows), less],
    );
    const locals = [[5 + ROWS, I32], [2 * ROWS + 3, V128]];
    const body = [locals.length, ...locals.flat(), ...all.flat(Infinity), 0x0b];
    const bytes = [
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, [[0x60, list(Array(6).fill([I32])), 0]]),
      ...section(3, [[0]]),
      ...section(5, [[0, 1]]),
      ...section(7, [[text("memory"), 2, 0], [text("product"), 0, 0]]),
      ...section(10, [[whole(body.length), body]]),
    ];
    return new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(bytes))).exports;
  }

  let vectors = null;
  try {
    if (wanted) vectors = assemble();
  } catch {
    // a browser without WebAssembly's vectors computes the same, some times as slowly
  }

  function transpose(x, rows) {
    const out = new Float32Array(x.length), columns = x.length / rows;
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = x[i * columns + j];
    return out;
  }

  function apply({ weight, bias }, x, rows) {
    const k = x.length / rows;
    return product(x, weight, rows, weight.length / k, k, bias);
  }

  const add = (x, y) => x.map((value, i) => value + y[i]);

  function layerNorm({ weight, bias, eps }, x) {
    const d = weight.length, out = new Float32Array(x.length);
    for (let row = 0; row < x.length; row += d) {
      let mean = 0, variance = 0;
      for (let i = 0; i < d; i++) mean += x[row + i] / d;
      for (let i = 0; i < d; i++) variance += (x[row + i] - mean) ** 2 / d;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let i = 0; i < d; i++) out[row + i] = (x[row + i] - mean) * scale * weight[i] + bias[i];
    }
    return out;
  }

  const C = [1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040]; // 1 / n!
  const POWERS = Float64Array.from({ length: 128 }, (_, n) => 2 ** -n);

  /** e^x for x <= 0 to about 1e-8 of its value, several times as fast as Math.exp: 2^-n times a series. */
  function exp(x) {
    if (x < -87) return 0;
    const n = (0.5 - x * Math.LOG2E) | 0, r = x + n * Math.LN2; // |r| <= ln 2 / 2
    const series = 1 + r * (1 + r * (C[2] + r * (C[3] + r * (C[4] + r * (C[5] + r * (C[6] + r * C[7]))))));
    return series * POWERS[n];
  }

  /** In place: each row of length n becomes softmax(scale * row). */
  function softmaxRows(x, n, scale) {
    for (let row = 0; row < x.length; row += n) {
      let top = -Infinity, sum = 0;
      for (let i = row; i < row + n; i++) if (x[i] > top) top = x[i];
      for (let i = row; i < row + n; i++) sum += x[i] = exp(scale * (x[i] - top));
      for (let i = row; i < row + n; i++) x[i] /= sum;
    }
    return x;
  }

  /** x Phi(x); the error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
  function gelu(x) {
    const z = Math.abs(x) * Math.SQRT1_2, t = 1 / (1 + 0.3275911 * z);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const erf = 1 - tail * exp(-z * z);
    return 0.5 * x * (1 + (x < 0 ? -erf : erf));
  }

  /** Columns of one head, (t, d) -> (t, p); heads lie side by side. */
  function headOf(x, head, heads, tokens) {
    const d = x.length / tokens, p = d / heads, out = new Float32Array(tokens * p);
    for (let i = 0; i < tokens; i++) out.set(x.subarray(i * d + head * p, i * d + (head + 1) * p), i * p);
    return out;
  }

  // --- the forward pass -----------------------------------------------------------------------

  /** Z^1 from RGB bytes, pixel by pixel: [CLS] and the embedded patches, with positions added. */
  function embed({ config, shape, embedding }, pixels) {
    const { patch_size: size, image_size: width, pixel_mean: mean, pixel_std: std } = config;
    const n = shape.rows * shape.columns, length = 3 * size * size;
    const patches = new Float32Array(n * length);
    for (let patch = 0; patch < n; patch++) {
      const top = Math.floor(patch / shape.columns) * size, left = (patch % shape.columns) * size;
      for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) for (let c = 0; c < 3; c++) {
        const place = embedding.isConvolution ? (c * size + y) * size + x : 3 * (y * size + x) + c;
        const pixel = pixels[3 * ((top + y) * width + left + x) + c];
        patches[patch * length + place] = (pixel / 255 - mean[c]) / std[c];
      }
    }
    let embedded = apply(embedding.linear, embedding.before ? layerNorm(embedding.before, patches) : patches, n);
    if (embedding.after) embedded = layerNorm(embedding.after, embedded);
    const d = config.dim, { cls, registers, positions } = embedding;
    const tokens = new Float32Array(shape.tokens * d);
    tokens.set(add(cls, positions.subarray(0, d)), 0);
    tokens.set(registers, d); // which have no positions
    tokens.set(add(embedded, positions.subarray(d)), d + registers.length);
    return tokens;
  }

  /** What a layer's heads see and hand on: their projections, attention and outputs. */
  function attend(layer, tokens, { heads, tokens: t }) {
    const normed = layerNorm(layer.norm, tokens);
    const keys = apply(layer.k, normed, t);
    const queries = layer.q.weight === layer.k.weight ? keys : apply(layer.q, normed, t);
    const values = layer.v.weight === layer.k.weight ? keys : apply(layer.v, normed, t);
    const d = keys.length / t, p = d / heads;
    const attention = new Float32Array(heads * t * t), outputs = new Float32Array(t * d);
    for (let h = 0; h < heads; h++) {
      const [q, k, v] = [queries, keys, values].map((x) => headOf(x, h, heads, t));
      const rows = softmaxRows(product(q, k, t, t, p), t, p ** -0.5);
      attention.set(rows, h * t * t);
      const seen = product(rows, transpose(v, t), t, p, t);
      for (let i = 0; i < t; i++) outputs.set(seen.subarray(i * p, (i + 1) * p), i * d + h * p);
    }
    return { tokens, projections: keys, attention, outputs };
  }

  /** Z^{l+1/2} and Z^{l+1}; a head that is off hands on zeros. */
  function finish(layer, seen, off, { heads, tokens: t }) {
    const d = seen.tokens.length / t, p = d / heads;
    const outputs = off.some(Boolean)
      ? seen.outputs.map((value, i) => (off[Math.floor((i % d) / p)] ? 0 : value))
      : seen.outputs;
    const written = layer.out ? apply(layer.out, outputs, t) : outputs;
    const half = add(seen.tokens, scaled(written, layer.outScale));
    const { made, codes } = STEPS[layer.kind](layer.step, layerNorm(layer.normHalf, half), t);
    const hasResidual = layer.kind === "mlp" || layer.kind === "ista_overcomplete";
    const output = hasResidual ? add(half, scaled(made, layer.stepScale)) : made;
    return { ...seen, half, output, sparsified: codes ?? output };
  }

  const scaled = (x, gamma) => (gamma ? x.map((value, i) => value * gamma[i % gamma.length]) : x);

  /** The second half of a layer, from z = LN(Z^{l+1/2}): what it writes, and the sparse codes if any. */
  const STEPS = { ista, ista_soft: ista, ista_overcomplete: overcomplete, mlp };

  /** One step of ISTA from a = z, then the threshold: ReLU, or from both sides. */
  function ista({ D, DT, eta, lambda, soft }, z, t) {
    const d = z.length / t, rest = product(z, D, t, d, d).map((value, i) => z[i] - value);
    const codes = product(rest, DT, t, d, d).map((value, i) => {
      const a = z[i] + eta * value;
      return a > eta * lambda ? a - eta * lambda : soft && a < -eta * lambda ? a + eta * lambda : 0;
    });
    return { made: codes, codes };
  }

  /** Two steps from zero in more atoms than dimensions, and back through a second dictionary. */
  function overcomplete({ D, DT, D1, eta, lambda }, z, t) {
    const d = z.length / t, atoms = D.length / d;
    const first = product(z, DT, t, atoms, d).map((value) => Math.max(0, eta * (value - lambda)));
    const rest = product(first, D, t, d, atoms).map((value, i) => z[i] - value);
    const codes = product(rest, DT, t, atoms, d)
      .map((value, i) => Math.max(0, first[i] + eta * (value - lambda)));
    return { made: product(codes, D1, t, d, atoms), codes };
  }

  function mlp({ fc1, fc2 }, z, t) {
    return { made: apply(fc2, apply(fc1, z, t).map(gelu), t) };
  }

  /** All layers of one image; `off` holds, layer by layer, which heads are off.

      `known` is a pass of the same image: what comes before the first difference is taken from it, and in
      the layer of the difference what its heads saw. `from` says how many layers were taken whole. */
  function forward(network, pixels, off, known) {
    const same = (l) => off[l].every((value, h) => value === known.off[l][h]);
    const layers = [];
    while (known && layers.length < off.length && same(layers.length)) layers.push(known.layers[layers.length]);
    const from = layers.length;
    const embedded = known ? known.embedded : embed(network, pixels);
    for (let l = from; l < off.length; l++) {
      const layer = network.layers[l];
      const tokens = l ? layers[l - 1].output : embedded;
      const seen = known && l === from ? known.layers[l] : attend(layer, tokens, network.shape);
      layers.push(finish(layer, seen, off[l], network.shape));
    }
    const cls = layers[off.length - 1].output.subarray(0, network.config.dim);
    return { off, embedded, layers, from, logits: classify(network, cls) };
  }

  /** Logits that the classifier gives a token, (d,); a backbone's feature where it has no classifier. */
  function classify({ classifier }, token) {
    return classifier.linears.reduce((x, linear) => apply(linear, x, 1), layerNorm(classifier.norm, token));
  }

  // --- measures -------------------------------------------------------------------------------

  /** R^c(Z | U), nats: 1/2 logdet(I + p / (t eps2) Z_h Z_h^T) summed over heads, tokens at unit length. */
  function codingRate(projections, { heads, tokens: t }, eps2 = 0.01) {
    let rate = 0;
    for (let h = 0; h < heads; h++) {
      const z = headOf(projections, h, heads, t), p = z.length / t;
      for (let i = 0; i < z.length; i += p) {
        let squared = 0;
        for (let a = i; a < i + p; a++) squared += z[a] * z[a];
        for (let a = i; a < i + p; a++) z[a] /= Math.sqrt(squared);
      }
      const turned = transpose(z, t), gram = Float64Array.from(product(turned, turned, p, p, t));
      for (let a = 0; a < p; a++) { // Cholesky in place: half of logdet is the sum of log diag(L)
        for (let b = 0; b <= a; b++) {
          let value = (gram[a * p + b] * p) / (t * eps2) + (a === b ? 1 : 0);
          for (let c = 0; c < b; c++) value -= gram[a * p + c] * gram[b * p + c];
          gram[a * p + b] = a === b ? Math.sqrt(value) : value / gram[b * p + b];
        }
        rate += Math.log(gram[a * p + a]);
      }
    }
    return rate;
  }

  const nonzeroShare = (z) => z.reduce((count, value) => count + (value !== 0), 0) / z.length;

  /** What is shown of a pass: R^c before each layer, the non-zero share after it, and the logits. */
  function summary(network, pass) {
    pass.summary ??= {
      rates: pass.layers.map((layer) => codingRate(layer.projections, network.shape)),
      nonzero: pass.layers.map((layer) => nonzeroShare(layer.sparsified)),
      logits: Array.from(pass.logits),
    };
    return pass.summary;
  }

  /** What is shown of one token: where it looks in every head, (L, h, t), and its path through the layers. */
  function look(network, pass, query) {
    const { heads, tokens: t } = network.shape, d = network.config.dim;
    const attention = new Float32Array(pass.layers.length * heads * t);
    pass.layers.forEach((layer, l) => {
      for (let h = 0; h < heads; h++) {
        attention.set(layer.attention.subarray((h * t + query) * t, (h * t + query + 1) * t), (l * heads + h) * t);
      }
    });
    const path = [pass.embedded, ...pass.layers.map((layer) => layer.output)].map((z) => {
      const token = z.subarray(query * d, (query + 1) * d), cls = z.subarray(0, d);
      const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
      const norm = Math.sqrt(dot(token, token));
      return {
        norm,
        likeness: dot(token, cls) / (norm * Math.sqrt(dot(cls, cls)) || 1),
        logits: network.config.num_classes ? Array.from(classify(network, token)) : [],
      };
    });
    return { attention, path };
  }

  // --- one image under the reader's hand ------------------------------------------------------

  /** Keeps the network, the image's pass without edits and the last one, so that little is done again. */
  function session() {
    let network, plain, current;
    const allOn = () => network.layers.map(() => Array(network.shape.heads).fill(false));
    return {
      open(buffer) {
        network = load(buffer);
        plain = current = null;
        return { shape: network.shape, config: network.config };
      },
      /** `pixels` null: the same image as before. */
      run(pixels, off) {
        if (pixels) {
          plain = forward(network, pixels, allOn(), null);
          current = plain;
        }
        const shared = (pass) => pass.off.findIndex((row, l) => row.some((value, h) => value !== off[l][h]));
        const ahead = [plain, current].map((pass) => (shared(pass) < 0 ? Infinity : shared(pass)));
        current = forward(network, null, off, ahead[1] > ahead[0] ? current : plain);
        const from = pixels ? 0 : current.from;
        return { edited: summary(network, current), plain: summary(network, plain), from };
      },
      look(query) {
        const edited = look(network, current, query);
        const isEdited = current.off.flat().some(Boolean);
        return { ...edited, plain: isEdited ? look(network, plain, query).attention : edited.attention };
      },
    };
  }

  return { load, forward, summary, look, session, product };
}
