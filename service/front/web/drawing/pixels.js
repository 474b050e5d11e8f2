// Rectangles and copies of canvases.

export function toBlob(canvas, type, quality) {
  return new Promise((resolve) => canvas.toBlob(resolve, type, quality));
}

export function copyOf(canvas) {
  const copy = document.createElement("canvas");
  copyInto(copy, canvas);
  return copy;
}

export function copyInto(copy, canvas) {
  Object.assign(copy, { width: canvas.width, height: canvas.height });
  copy.getContext("2d", { willReadFrequently: true }).drawImage(canvas, 0, 0);
}

export function copyRegion(context, source, region) {
  context.clearRect(...rectOf(region));
  context.drawImage(source, ...rectOf(region), ...rectOf(region));
}

export function drawCover(context, picture, width, height) {
  if (!picture.width || !picture.height) return;
  const scale = Math.max(width / picture.width, height / picture.height);
  const [w, h] = [picture.width * scale, picture.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
}

export function inkOf({ mask, left, top, right, bottom }, colour, stride) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: right - left + 1, height: bottom - top + 1 });
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let y = top, at = 3; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1, at += 4) pixels.data[at] = 255 * mask[y * stride + x];
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

export function boundsOf(points, width) {
  const margin = width / 2 + 2;
  const xs = points.map((point) => point.x);
  const ys = points.map((point) => point.y);
  const [x, y] = [Math.min(...xs) - margin, Math.min(...ys) - margin];
  return { x, y, width: Math.max(...xs) + margin - x, height: Math.max(...ys) + margin - y };
}

export function joined(one, two) {
  if (!one || !two) return one ?? two;
  const [x, y] = [Math.min(one.x, two.x), Math.min(one.y, two.y)];
  const right = Math.max(one.x + one.width, two.x + two.width);
  const bottom = Math.max(one.y + one.height, two.y + two.height);
  return { x, y, width: right - x, height: bottom - y };
}

/** Return the whole pixels of a rectangle that are on the canvas, or null. */
export function clipped(rectangle, width, height) {
  const x = Math.max(0, Math.floor(rectangle.x));
  const y = Math.max(0, Math.floor(rectangle.y));
  const right = Math.min(width, Math.ceil(rectangle.x + rectangle.width));
  const bottom = Math.min(height, Math.ceil(rectangle.y + rectangle.height));
  return right > x && bottom > y ? { x, y, width: right - x, height: bottom - y } : null;
}

export function rectOf({ x, y, width, height }) {
  return [x, y, width, height];
}
