// What outlives a reload: the drawing in IndexedDB, small choices in localStorage.

const DATABASE = "instant-refine";
const STORE = "work";
const ENTRY = "now";

/** Keep the work of this page. Where a browser refuses (private windows), nothing is kept. */
export async function keepWork(work) {
  await inStore("readwrite", (store) => store.put(work, ENTRY));
}

/** Return what was kept, or null. */
export async function keptWork() {
  return (await inStore("readonly", (store) => store.get(ENTRY))) ?? null;
}

async function inStore(mode, ask) {
  const database = await opened();
  if (!database) return undefined;
  try {
    return await promised(ask(database.transaction(STORE, mode).objectStore(STORE)));
  } catch {
    return undefined; // the disk is full, or the browser keeps nothing
  } finally {
    database.close();
  }
}

async function opened() {
  try {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    return await promised(request);
  } catch {
    return null;
  }
}

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** A small choice, such as the theme. */
export const choices = {
  get(name) {
    try {
      return localStorage.getItem(`${DATABASE}.${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`${DATABASE}.${name}`, value);
    } catch {
      // the browser keeps nothing
    }
  },
};

/** Run `work` when calls have paused for a while; a later call takes the place of an earlier. */
export function afterPause(work, pauseMs) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, pauseMs);
  };
}
