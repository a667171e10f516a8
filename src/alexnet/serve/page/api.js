// Requests to the server.
import { text } from "/page/messages.js";

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(0, "");
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({ detail: "" }));
  throw new ApiError(response.status, detail);
}

export const getJson = async (path) => (await request(path)).json();
export const getText = async (path) => (await request(path)).text();
export const getBlob = async (path) => (await request(path)).blob();

/** Sends one image; returns the first entry of the answer's list `key`. */
export async function postImage(path, image, key) {
  const body = new FormData();
  body.append("file", image.blob, image.name);
  return (await (await request(path, { method: "POST", body })).json())[key][0];
}

/** A file that the server may still be computing: repeats the request until it is ready, or `isCurrent` is false. */
export async function pollBlob(path, isCurrent) {
  while (isCurrent()) {
    const response = await request(path);
    if (response.status !== 202) return response.blob();
  }
  return null;
}

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

const KNOWN_STATUS = [0, 408, 413, 415, 422, 429, 503];

/** The message for an `ApiError`; any other error is a bug, and rethrown. */
export function errorMessage(error) {
  if (!(error instanceof ApiError)) throw error;
  return KNOWN_STATUS.includes(error.status) ? text(`e${error.status}`) : text("eOther", { status: error.status });
}
