// The status pill, and the sheet behind it with the milliseconds of each stage.

import { byId, make } from "./dom.js";

const STAGES = ["queue", "decode", "text", "encode", "denoise", "vae", "codec"];
const HUES = [40, 190, 320, 210, 250, 150, 90];

export function bindStatus(store) {
  const names = ["connection", "isPaused", "picture", "pace", "counts", "pending"];
  store.follow(names, (state) => {
    const { connection } = state;
    const isPaused = state.isPaused && connection.state === "connected";
    const stages = state.picture?.stages ?? {};
    const total = Object.values(stages).reduce((sum, elapsed) => sum + elapsed, 0);
    byId("pill").dataset.state = isPaused ? "paused" : connection.state;
    byId("pill-text").textContent = isPaused ? "paused" : pillText(state, total);
    byId("status-sheet").replaceChildren(
      make("h2", {}, ["Status"]),
      bar(stages, total),
      table(state, isPaused ? "paused" : connection.text, stages, total),
    );
  });
}

function pillText({ connection: { state, text }, pending }, total) {
  if (state !== "connected" || !total) return text;
  return `${pending > 1 ? `queue ${pending} · ` : ""}${Math.round(total)} ms`;
}

function table({ pending, pace, counts }, text, stages, total) {
  const { meanMs, intervalMs } = pace;
  const { sent, shown, replaced, skipped } = counts;
  const rows = [
    ["State", text],
    ["Jobs in the engine", pending],
    ["Last picture", total ? `${Math.round(total)} ms` : "none yet"],
    ...STAGES.filter((name) => name in stages).map((name) => [
      `· ${name}`, `${stages[name].toFixed(1)} ms`,
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
  return list;
}

function bar(stages, total) {
  const parts = STAGES.map((name, index) => {
    const part = make("span", { title: name });
    part.style.width = `${total ? (100 * (stages[name] ?? 0)) / total : 0}%`;
    part.style.background = `hsl(${HUES[index]} 60% 55%)`;
    return part;
  });
  return make("div", { class: "stages", "aria-hidden": "true" }, parts);
}
