// The tool in hand, with its size, opacity and colours.

const MAX_SIZE = 160;
const RECENT = 6;

/** The tool in hand, with its size, opacity and colours; tells of changes by `change`. */
export class Toolbox extends EventTarget {
  state = {
    tool: "brush",
    layer: "paint",
    size: 24,
    opacity: 1,
    colour: "#db2124",
    other: "#ffffff",
    recent: [],
  };

  set(changes) {
    const state = { ...this.state, ...changes };
    state.size = Math.min(MAX_SIZE, Math.max(1, Math.round(state.size)));
    if (changes.tool === "mask") state.layer = "mask";
    if (changes.tool && changes.tool !== "mask" && changes.tool !== "eraser") state.layer = "paint";
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }

  swapColours() {
    this.set({ colour: this.state.other, other: this.state.colour });
  }

  /** Thicker or thinner by a fifth, and by a pixel at least. */
  scaleSize(direction) {
    const { size } = this.state;
    this.set({ size: size + direction * Math.max(1, Math.round(size / 5)) });
  }

  /** Take note of a colour that was drawn with. */
  used(colour) {
    const recent = [colour, ...this.state.recent.filter((other) => other !== colour)];
    this.set({ recent: recent.slice(0, RECENT) });
  }
}
