// What the page asks of the server.
import { word } from "/page/words.js";

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, "");
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({ detail: "" }));
  throw new Problem(response.status, detail);
}

export const get = async (path) => (await answered(path)).json();
export const file = async (path) => (await answered(path)).blob();

/** Send one image; the first entry of the answer's list called `list`. */
export async function ask(path, image, list) {
  const body = new FormData();
  body.append("file", image.blob, image.name);
  return (await (await answered(path, { method: "POST", body })).json())[list][0];
}

/** A file that may have to be made first: asks again until it is there, as long as it is `wanted`. */
export async function made(path, wanted) {
  while (wanted()) {
    const response = await answered(path);
    if (response.status !== 202) return response.blob();
  }
  return null;
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

const KNOWN = [0, 408, 413, 415, 422, 429, 503];

/** What went wrong, in the reader's words; what is no answer of the server is a bug, and thrown on. */
export function why(error) {
  if (!(error instanceof Problem)) throw error;
  return KNOWN.includes(error.status) ? word(`e${error.status}`) : word("eElse", { status: error.status });
}
