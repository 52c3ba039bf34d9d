/* How well a map of attention covers a mask: as crate_analysis.segmentation.masks has it.

   A map is (n,), one value a patch. A mask is given by how many of its pixels lie in each patch, `truth`,
   of the patch's `area` pixels. */

const exploreMeasures = {
  /** The fewest patches that leave out less than 1 - keep of the map's mass, as 0 and 1. */
  massMask(map, keep = 0.6) {
    const order = Array.from(map.keys()).sort((a, b) => map[a] - map[b]); // a stable sort
    const total = map.reduce((sum, value) => sum + value, 0);
    const mask = new Uint8Array(map.length);
    let mass = 0;
    for (const patch of order) {
      mass += map[patch];
      mask[patch] = mass > (1 - keep) * total ? 1 : 0;
    }
    return mask;
  },

  /** Intersection over union of patches and a mask, counted in pixels; NaN for an empty mask. */
  iou(mask, truth, area) {
    let shared = 0,
      chosen = 0,
      size = 0;
    mask.forEach((on, patch) => {
      shared += on * truth[patch];
      chosen += on * area;
      size += truth[patch];
    });
    return size ? shared / (chosen + size - shared) : NaN;
  },

  /** Average precision of the map as a ranking of pixels; equal values pass the threshold together. */
  averagePrecision(map, truth, area) {
    const order = Array.from(map.keys()).sort((a, b) => map[b] - map[a]);
    let hits = 0,
      counted = 0,
      sum = 0;
    for (let start = 0, end; start < order.length; start = end) {
      let fresh = 0;
      for (end = start; end < order.length && map[order[end]] === map[order[start]]; end++)
        fresh += truth[order[end]];
      hits += fresh;
      counted += (end - start) * area;
      sum += (fresh * hits) / counted;
    }
    return hits ? sum / hits : NaN;
  },
};
