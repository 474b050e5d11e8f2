// The service over HTTP: limits, styles, the model, tickets and pictures.

/** An error of the service; its message is a sentence for the user. */
export class ApiError extends Error {
  constructor(message, { code = "", path = "", status = 0, retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { code, path, status, retryAfterS });
  }
}

/** Sends the key that `key()` returns; emits `locked` when the service refuses it. */
export class Api {
  #store;
  #key;

  constructor({ store, key }) {
    this.#store = store;
    this.#key = key;
  }

  async styles() {
    return (await this.#json("v1/styles")).styles;
  }

  /** Return a style's thumbnail as an object URL: an <img> cannot send the key. */
  async thumbnail(path) {
    const response = await this.#fetch(path.replace(/^\//, ""));
    return URL.createObjectURL(await response.blob());
  }

  /** Return the loaded model, or null. */
  async model() {
    return (await this.#json("v1/models")).models.find((model) => model.loaded) ?? null;
  }

  /** Return a ticket, which opens the socket without the key. */
  async ticket() {
    return (await this.#json("v1/tickets", { method: "POST" })).ticket;
  }

  /** Make a picture: {blob, seed, stepsRun, stages, ...}. `files` are blobs by field. */
  async render(route, fields, files, signal) {
    this.#store.set({ numRendering: this.#store.state.numRendering + 1 });
    try {
      return await this.#render(route, fields, files, signal);
    } finally {
      this.#store.set({ numRendering: this.#store.state.numRendering - 1 });
    }
  }

  async #render(route, fields, files, signal) {
    const body = { ...fields };
    for (const [name, blob] of Object.entries(files)) body[name] = await toDataUrl(blob);
    const response = await this.#fetch(route, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    const { imageDataUrl, ...job } = (await response.json()).lcmGenerationJob;
    const stages = readStages(response.headers.get("Server-Timing") ?? "");
    return { ...job, stages, blob: fromDataUrl(imageDataUrl[0]) };
  }

  async #json(path, options) {
    return (await this.#fetch(path, options)).json();
  }

  async #fetch(path, options = {}) {
    const headers = { ...options.headers };
    if (this.#key()) headers.Authorization = `Bearer ${this.#key()}`;
    const response = await reach(path, { ...options, headers });
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status === 401) this.#store.emit("locked");
    throw error;
  }
}

/** Return the service's OpenAPI document, which needs no key. */
export async function fetchOpenApi() {
  const response = await reach("openapi.json", {});
  if (!response.ok) throw await readError(response);
  return response.json();
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached. Check that it is running.");
  }
}

async function readError(response) {
  const { status } = response;
  const retryAfterS = Number(response.headers.get("Retry-After")) || 0;
  try {
    const { error, code, path } = await response.json();
    return new ApiError(sentence(error), { code, path, status, retryAfterS });
  } catch {
    return new ApiError(`The service answered ${status} without a reason. Its log has more.`, { status, retryAfterS });
  }
}

/** Write an error of the service as a sentence. */
export function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

function readStages(header) {
  const pairs = [...header.matchAll(/(\w+);dur=([\d.]+)/g)];
  return Object.fromEntries(pairs.map(([, name, elapsed]) => [name, Number(elapsed)]));
}

function toDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

// Without `fetch`: the page's content security policy allows it to fetch only from its own origin.
function fromDataUrl(url) {
  const [, type, content] = /^data:([^;,]+);base64,(.*)$/.exec(url);
  return new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], { type });
}
