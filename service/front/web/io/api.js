// The service over HTTP: what it knows of itself, and one picture at a time.

/** A refusal or failure, with a sentence that a person can read. */
export class ApiError extends Error {
  constructor(message, { code = "", path = "", status = 0, retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { code, path, status, retryAfterS });
  }
}

/** Asks with the key that `key()` returns, and tells of a missing one by `onLocked`. */
export class Api {
  #key;
  #onLocked;

  constructor({ key, onLocked }) {
    this.#key = key;
    this.#onLocked = onLocked;
  }

  async styles() {
    return (await this.#json("v1/styles")).styles;
  }

  /** A thumbnail of a style, as an address that an image can show: its own would ask for the key. */
  async thumbnail(path) {
    const response = await this.#fetch(path.replace(/^\//, ""));
    return URL.createObjectURL(await response.blob());
  }

  async model() {
    return (await this.#json("v1/models")).models.find((model) => model.loaded) ?? null;
  }

  /** A ticket for the socket, so that the key itself never travels there. */
  async ticket() {
    return (await this.#json("v1/tickets", { method: "POST" })).ticket;
  }

  /** Make a picture: {blob, seed, stepsRun, stages, ...}. `files` are blobs by field. */
  async render(route, fields, files, signal) {
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
    const response = await this.#reach(path, { ...options, headers });
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status === 401) this.#onLocked();
    throw error;
  }

  async #reach(path, options) {
    try {
      return await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The service cannot be reached. Is it running?");
    }
  }
}

async function readError(response) {
  const { status } = response;
  const retryAfterS = Number(response.headers.get("Retry-After")) || 0;
  try {
    const { error, code, path } = await response.json();
    return new ApiError(sentence(error), { code, path, status, retryAfterS });
  } catch {
    return new ApiError(`The service answered ${status}.`, { status, retryAfterS });
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

// By hand, since the page's policy lets it fetch from its own origin alone.
function fromDataUrl(url) {
  const [, type, content] = /^data:([^;,]+);base64,(.*)$/.exec(url);
  return new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], { type });
}
