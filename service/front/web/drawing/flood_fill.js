// Flood fill over the pixels of a picture.

const TOLERANCE = 40; // of 255 per channel: the soft edge of a stroke belongs to neither side

/**
 * Return the region around (x, y) that has its colour: {mask, left, top, right, bottom}. `mask` has
 * a byte per pixel, 1 inside. The region is grown by a pixel, which leaves no seam at its edge.
 */
export function floodRegion({ data, width, height }, x, y, tolerance = TOLERANCE) {
  const seen = new Uint8Array(width * height);
  const start = (y * width + x) * 4;
  const [r, g, b] = [data[start], data[start + 1], data[start + 2]];
  const matches = (index) => {
    const at = index * 4;
    return (
      Math.abs(data[at] - r) <= tolerance &&
      Math.abs(data[at + 1] - g) <= tolerance &&
      Math.abs(data[at + 2] - b) <= tolerance
    );
  };
  const spans = [[x, y]];
  const box = { left: x, top: y, right: x, bottom: y };
  while (spans.length) {
    const [px, py] = spans.pop();
    const row = py * width;
    if (seen[row + px] || !matches(row + px)) continue;
    let left = px;
    while (left > 0 && !seen[row + left - 1] && matches(row + left - 1)) left -= 1;
    let right = px;
    while (right < width - 1 && !seen[row + right + 1] && matches(row + right + 1)) right += 1;
    seen.fill(1, row + left, row + right + 1);
    widen(box, left, right, py);
    for (const next of [py - 1, py + 1]) {
      if (next < 0 || next >= height) continue;
      queueSpans(spans, seen, matches, next * width, left, right, next);
    }
  }
  return grown(seen, width, height, box);
}

function widen(box, left, right, y) {
  box.left = Math.min(box.left, left);
  box.right = Math.max(box.right, right);
  box.top = Math.min(box.top, y);
  box.bottom = Math.max(box.bottom, y);
}

function queueSpans(spans, seen, matches, row, left, right, y) {
  let inSpan = false;
  for (let x = left; x <= right; x += 1) {
    const fits = !seen[row + x] && matches(row + x);
    if (fits && !inSpan) spans.push([x, y]);
    inSpan = fits;
  }
}

function grown(seen, width, height, box) {
  const mask = new Uint8Array(seen);
  const left = Math.max(0, box.left - 1);
  const right = Math.min(width - 1, box.right + 1);
  const top = Math.max(0, box.top - 1);
  const bottom = Math.min(height - 1, box.bottom + 1);
  for (let y = top; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1) {
      const at = y * width + x;
      if (mask[at]) continue;
      const near =
        (x > 0 && seen[at - 1]) ||
        (x < width - 1 && seen[at + 1]) ||
        (y > 0 && seen[at - width]) ||
        (y < height - 1 && seen[at + width]);
      if (near) mask[at] = 1;
    }
  }
  return { mask, left, top, right, bottom };
}
