// The pill: whether pictures can be made now, and behind it where the milliseconds go.

import { byId, make } from "./dom.js";

const STAGES = ["queue", "decode", "text", "encode", "denoise", "vae", "codec"];
const HUES = [40, 190, 320, 210, 250, 150, 90];

export class Status {
  #connection = { state: "connecting", text: "connecting" };
  #isPaused = false;
  #stages = {};
  #pace = {};
  #counts = { sent: 0, shown: 0, replaced: 0, skipped: 0 };
  #pending = 0;

  /** The state of the connection: connected, connecting, reconnecting, loading, locked, error. */
  connection(state, text = state) {
    this.#connection = { state, text };
    this.#show();
  }

  paused(isPaused) {
    this.#isPaused = isPaused;
    this.#show();
  }

  /** What a picture took, by stage, and the server's own pace. */
  picture({ stages = {}, meanMs = this.#pace.meanMs, intervalMs = this.#pace.intervalMs }) {
    this.#stages = stages;
    this.#pace = { meanMs, intervalMs };
    this.#show();
  }

  frames(counts) {
    this.#counts = counts;
    this.#show();
  }

  queue(pending) {
    this.#pending = pending;
    this.#show();
  }

  #show() {
    const { state, text } = this.#connection;
    const isPaused = this.#isPaused && state === "connected";
    const total = sum(this.#stages);
    byId("pill").dataset.state = isPaused ? "paused" : state;
    byId("pill-text").textContent = isPaused ? "paused" : this.#words(total);
    byId("status-sheet").replaceChildren(...this.#rows(isPaused ? "paused" : text, total));
  }

  #words(total) {
    const { state, text } = this.#connection;
    if (state !== "connected" || !total) return text;
    const queue = this.#pending > 1 ? `queue ${this.#pending} · ` : "";
    return `${queue}${Math.round(total)} ms`;
  }

  #rows(text, total) {
    const { meanMs, intervalMs } = this.#pace;
    const { sent, shown, replaced, skipped } = this.#counts;
    const rows = [
      ["State", text],
      ["Jobs in the engine", this.#pending],
      ["Last picture", total ? `${Math.round(total)} ms` : "none yet"],
      ...STAGES.filter((name) => name in this.#stages).map((name) => [
        `· ${name}`, `${this.#stages[name].toFixed(1)} ms`,
      ]),
      ["Mean of a frame", meanMs ? `${Math.round(meanMs)} ms` : "not known yet"],
      ["Interval", intervalMs === undefined ? "not known yet" : `${Math.round(intervalMs)} ms`],
      ["Frames sent, shown", `${sent}, ${shown}`],
      ["Replaced, equal", `${replaced}, ${skipped}`],
    ];
    const list = make("dl", { class: "status-rows" });
    for (const [name, value] of rows) {
      list.append(make("dt", {}, [name]), make("dd", {}, [String(value)]));
    }
    return [make("h2", {}, ["Status"]), this.#bar(total), list];
  }

  #bar(total) {
    const bar = make("div", { class: "stages", "aria-hidden": "true" });
    STAGES.forEach((name, index) => {
      const part = make("span", { title: name });
      part.style.width = `${total ? (100 * (this.#stages[name] ?? 0)) / total : 0}%`;
      part.style.background = `hsl(${HUES[index]} 60% 55%)`;
      bar.append(part);
    });
    return bar;
  }
}

function sum(stages) {
  return Object.values(stages).reduce((total, elapsed) => total + elapsed, 0);
}
