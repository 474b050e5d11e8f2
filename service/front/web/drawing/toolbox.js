// The tool in use, with its size, opacity and colours.

export const MAX_SIZE = 160; // pixels
const MAX_RECENT = 6;

export const TOOLS = Object.freeze({
  tool: "brush",
  layer: "paint",
  size: 24,
  opacity: 1,
  colour: "#db2124",
  other: "#ffffff",
  recent: [],
});

/** Return a brush size in whole pixels within its limits; undefined for anything else. */
export function checkedSize(size) {
  return Number.isFinite(size) ? Math.min(MAX_SIZE, Math.max(1, Math.round(size))) : undefined;
}

/** Take a tool. The mask brush works on the mask, the eraser on the layer in use, others on paint. */
export function chooseTool(store, tool) {
  const layers = { mask: "mask", eraser: store.state.layer };
  store.set({ tool, layer: layers[tool] ?? "paint" });
}

export function swapColours(store) {
  const { colour, other } = store.state;
  store.set({ colour: other, other: colour });
}

/** Change the size by a fifth, and by at least a pixel. */
export function scaleSize(store, direction) {
  const { size } = store.state;
  store.set({ size: size + direction * Math.max(1, Math.round(size / 5)) });
}

/** Put the colour in use in front of the recent ones. */
export function rememberColour(store) {
  const { colour, recent } = store.state;
  if (recent[0] === colour) return;
  store.set({ recent: [colour, ...recent.filter((other) => other !== colour)].slice(0, MAX_RECENT) });
}
