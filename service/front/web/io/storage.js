// Storage beyond a reload: the drawing in IndexedDB, small choices in localStorage.

const DATABASE = "instant-refine";
const STORE = "work";
const ENTRY = "now";

/** Store the work of this page. Private windows may refuse; then nothing is stored. */
export async function storeWork(work) {
  await inStore("readwrite", (store) => store.put(work, ENTRY));
}

/** Return the stored work, or null. */
export async function loadWork() {
  return (await inStore("readonly", (store) => store.get(ENTRY))) ?? null;
}

async function inStore(mode, request) {
  const database = await opened();
  if (!database) return undefined;
  try {
    return await promised(request(database.transaction(STORE, mode).objectStore(STORE)));
  } catch {
    return undefined; // the disk is full, or the browser stores nothing
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
      // the browser stores nothing
    }
  },
};

/** Return a function that runs `work` once its calls have paused for `pauseMs`. */
export function afterPause(work, pauseMs) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, pauseMs);
  };
}
