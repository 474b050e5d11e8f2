// The drawing: a layer of paint over a background colour, a mask above it, and strokes on either.
// Any other change ends the stroke under the pen; later curves of that stroke are ignored.

import { floodRegion } from "./flood_fill.js";
import { History } from "./history.js";
import {
  boundsOf, clipped, copyInto, copyOf, copyRegion, drawCover, inkOf, joined, rectOf, toBlob,
} from "./pixels.js";

const JPEG_QUALITY = 0.9;
const MASK_COLOUR = "#ff2d78"; // shown half transparent; only its alpha counts

/**
 * Holds the pixels. Emits `drawn` after each change, also while a stroke is drawn.
 *
 * Follows `background`, `width` and `height` of the store; sets `isDrawing`, `canUndo`, `canRedo`,
 * and the size when an undo restores an older one.
 */
export class Drawing {
  #store;
  #history;
  #layers;
  #base = document.createElement("canvas"); // the layer as it was before the stroke
  #ink = document.createElement("canvas"); // the stroke alone, opaque
  #flat = document.createElement("canvas"); // the picture as it is sent
  #stroke = null;

  constructor(store, paintCanvas, maskCanvas) {
    this.#store = store;
    // Desynchronized: the pen's line does not wait for the page to be composed.
    const options = { desynchronized: true, willReadFrequently: true };
    this.#layers = {
      paint: paintCanvas.getContext("2d", options),
      mask: maskCanvas.getContext("2d", options),
    };
    this.#history = new History((entry) => this.#swap(entry), ({ canUndo, canRedo }) =>
      store.set({ canUndo, canRedo }),
    );
    this.#resize(store.state, { remember: false });
    store.subscribe(["width", "height"], (state) => this.#resize(state));
    store.follow(["background"], ({ background }) => {
      paintCanvas.style.background = background;
      this.#changed();
    });
  }

  get width() {
    return this.#layers.paint.canvas.width;
  }

  get height() {
    return this.#layers.paint.canvas.height;
  }

  /** Begin a stroke on a layer: {layer, colour, opacity, isEraser}. */
  beginStroke(style) {
    const { canvas } = this.#layers[style.layer];
    copyInto(this.#base, canvas);
    this.#ink.width = canvas.width;
    this.#ink.height = canvas.height;
    const ink = this.#ink.getContext("2d", { willReadFrequently: true });
    const colour = style.layer === "mask" ? MASK_COLOUR : style.colour;
    Object.assign(ink, { lineCap: "round", lineJoin: "round", strokeStyle: colour });
    this.#stroke = { ...style, ink, dirty: null };
    this.#store.set({ isDrawing: true });
  }

  /** Add curves to the stroke: [{from, control, to, width}]. Only their region is redrawn. */
  addCurves(curves) {
    if (!this.#stroke) return;
    const { ink } = this.#stroke;
    let dirty = null;
    for (const { from, control, to, width } of curves) {
      ink.lineWidth = width;
      ink.beginPath();
      ink.moveTo(from.x, from.y);
      ink.quadraticCurveTo(control.x, control.y, to.x, to.y);
      ink.stroke();
      dirty = joined(dirty, boundsOf([from, control, to], width));
    }
    this.#compose(dirty);
  }

  /** Remove the stroke's ink before it is drawn again: a straight line follows the pointer. */
  restartStroke() {
    if (!this.#stroke) return;
    const { ink, dirty } = this.#stroke;
    ink.clearRect(0, 0, this.width, this.height);
    if (dirty) this.#compose(dirty);
  }

  endStroke() {
    this.#finishStroke((layer, region) => this.#remember(layer, region, this.#base.getContext("2d")));
  }

  /** Take the stroke back. Returns whether there was one. */
  cancelStroke() {
    return this.#finishStroke((layer, region) => copyRegion(this.#layers[layer], this.#base, region));
  }

  /** Undo the last change; a stroke under the pen is the last one. */
  undo() {
    return this.cancelStroke() || this.#history.undo();
  }

  redo() {
    return !this.#stroke && this.#history.redo();
  }

  forgetHistory() {
    this.#history.clear();
  }

  /** Fill the region of one colour around a point. */
  fill(x, y, { layer, colour, opacity }) {
    this.endStroke();
    const picture = this.flattened().getContext("2d");
    const { width, height } = this;
    const region = floodRegion(picture.getImageData(0, 0, width, height), x, y);
    const ink = inkOf(region, layer === "mask" ? MASK_COLOUR : colour, width);
    const box = { x: region.left, y: region.top, width: ink.width, height: ink.height };
    const context = this.#layers[layer];
    this.#remember(layer, box, context);
    context.globalAlpha = layer === "mask" ? 1 : opacity;
    context.drawImage(ink, box.x, box.y);
    context.globalAlpha = 1;
    this.#changed();
  }

  colourAt(x, y) {
    const { data } = this.flattened().getContext("2d").getImageData(x, y, 1, 1);
    return `#${[...data.slice(0, 3)].map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  }

  clear(layer) {
    this.#whole(layer, (context) => context.clearRect(0, 0, this.width, this.height));
  }

  invertMask() {
    this.#whole("mask", (context) => {
      context.globalCompositeOperation = "xor"; // what both have goes, what one has stays
      context.fillStyle = MASK_COLOUR;
      context.fillRect(0, 0, this.width, this.height);
    });
  }

  /** Draw a picture over the whole drawing, cropped at its centre to the drawing's shape. */
  place(picture) {
    this.#whole("paint", (context) => drawCover(context, picture, this.width, this.height));
  }

  /** Replace all paint by what a function of the context draws. */
  redraw(draw) {
    this.#whole("paint", (context) => {
      context.clearRect(0, 0, this.width, this.height);
      draw(context, this.width, this.height);
    });
  }

  /** Whether any pixel is masked. */
  get hasMask() {
    const { data } = this.#layers.mask.getImageData(0, 0, this.width, this.height);
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return true;
    return false;
  }

  /** The picture as it is sent: paint on its background. */
  flattened() {
    const flat = this.#flat;
    if (flat.width !== this.width) flat.width = this.width;
    if (flat.height !== this.height) flat.height = this.height;
    const context = flat.getContext("2d", { willReadFrequently: true });
    context.fillStyle = this.#store.state.background;
    context.fillRect(0, 0, flat.width, flat.height);
    context.drawImage(this.#layers.paint.canvas, 0, 0);
    return flat;
  }

  toJpeg() {
    return toBlob(this.flattened(), "image/jpeg", JPEG_QUALITY);
  }

  toPng() {
    return toBlob(this.flattened(), "image/png");
  }

  /** The mask as it is sent: white is repainted, black stays. */
  maskToPng() {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    const pixels = this.#layers.mask.getImageData(0, 0, this.width, this.height);
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      data.fill(data[at + 3] > 127 ? 255 : 0, at, at + 3);
      data[at + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return toBlob(canvas, "image/png");
  }

  /** Return the layers as files. */
  async save() {
    const { paint, mask } = this.#layers;
    const [paintFile, maskFile] = await Promise.all([
      toBlob(paint.canvas, "image/png"),
      toBlob(mask.canvas, "image/png"),
    ]);
    return { paint: paintFile, mask: maskFile, width: this.width, height: this.height };
  }

  async restore({ paint, mask, width, height }) {
    const pictures = await Promise.all([createImageBitmap(paint), createImageBitmap(mask)]);
    this.#resize({ width, height }, { remember: false });
    this.#store.set({ width, height });
    this.#layers.paint.clearRect(0, 0, width, height);
    this.#layers.mask.clearRect(0, 0, width, height);
    this.#layers.paint.drawImage(pictures[0], 0, 0);
    this.#layers.mask.drawImage(pictures[1], 0, 0);
    this.#history.clear();
    this.#changed();
  }

  /** Change the canvases' size; the layers are scaled to cover it. */
  #resize({ width, height }, { remember = true } = {}) {
    if (width === this.width && height === this.height) return;
    this.endStroke();
    if (remember) this.#history.push(this.#snapshot());
    for (const { canvas } of Object.values(this.#layers)) {
      const before = copyOf(canvas);
      Object.assign(canvas, { width, height });
      drawCover(canvas.getContext("2d"), before, width, height);
    }
    this.#changed();
  }

  #finishStroke(finish) {
    if (!this.#stroke) return false;
    const { layer, dirty } = this.#stroke;
    this.#stroke = null;
    const region = dirty && clipped(dirty, this.width, this.height);
    if (region) finish(layer, region);
    this.#store.set({ isDrawing: false });
    this.#changed();
    return true;
  }

  #compose(rectangle) {
    const region = rectangle && clipped(rectangle, this.width, this.height);
    if (!region) return;
    const { layer, opacity, isEraser } = this.#stroke;
    const context = this.#layers[layer];
    copyRegion(context, this.#base, region);
    context.globalCompositeOperation = isEraser ? "destination-out" : "source-over";
    context.globalAlpha = layer === "mask" ? 1 : opacity;
    context.drawImage(this.#ink, ...rectOf(region), ...rectOf(region));
    context.globalCompositeOperation = "source-over";
    context.globalAlpha = 1;
    this.#stroke.dirty = joined(this.#stroke.dirty, rectangle);
    this.#changed();
  }

  #whole(layer, draw) {
    this.endStroke();
    const context = this.#layers[layer];
    this.#remember(layer, { x: 0, y: 0, width: this.width, height: this.height }, context);
    context.save();
    draw(context);
    context.restore();
    this.#changed();
  }

  #remember(layer, region, source) {
    const pixels = source.getImageData(...rectOf(region));
    this.#history.push({ layer, region, pixels, bytes: pixels.data.length });
  }

  #snapshot() {
    const { width, height } = this;
    const [paint, mask] = ["paint", "mask"].map((layer) =>
      this.#layers[layer].getImageData(0, 0, width, height),
    );
    return { width, height, paint, mask, bytes: 2 * paint.data.length };
  }

  #swap(entry) {
    const inverse = entry.layer ? this.#swapRegion(entry) : this.#swapAll(entry);
    this.#changed();
    return inverse;
  }

  #swapRegion({ layer, region, pixels, bytes }) {
    const context = this.#layers[layer];
    const present = context.getImageData(...rectOf(region));
    context.putImageData(pixels, region.x, region.y);
    return { layer, region, pixels: present, bytes };
  }

  #swapAll({ width, height, paint, mask }) {
    const inverse = this.#snapshot();
    for (const [layer, pixels] of Object.entries({ paint, mask })) {
      Object.assign(this.#layers[layer].canvas, { width, height });
      this.#layers[layer].putImageData(pixels, 0, 0);
    }
    this.#store.set({ width, height });
    return inverse;
  }

  #changed() {
    this.#store.emit("drawn");
  }
}
